//! LeaseQueue: nothing to do for it but to say that it is known, and whether it serves leases that name no queue.

use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::queue::{LeaseQueue, LeaseQueueStatus};
use kube::runtime::controller::Action;

use super::view;
use crate::frame::names::reason;
use crate::frame::{Conditions, Context, Error, write};

const SLOWLY: Duration = Duration::from_secs(3600);

/// Rewrites the status.
///
/// # Errors
/// [`Error`].
pub async fn reconcile(queue: Arc<LeaseQueue>, context: Arc<Context>) -> Result<Action, Error> {
    let old = queue.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::from_old(old, queue.metadata.generation, context.now());
    let message = if view::queue(&queue).is_default {
        "takes leases, also those that name no queue"
    } else {
        "takes leases that name it"
    };
    conditions.ready(reason::ACCEPTED, message);
    let status = LeaseQueueStatus {
        observed_generation: queue.metadata.generation.unwrap_or(-1),
        conditions: conditions.into_list(),
    };
    write::update_status(&context.client, &*queue, &status).await?;
    Ok(Action::requeue(SLOWLY))
}
