//! EdgeDevice: says what is known of it, and heals it when its holder is gone or strangers' pods are on it. The holder
//! itself is set by the scheduler alone.

use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::device::{DeviceState, EdgeDevice, EdgeDeviceStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;

use super::core::Availability;
use super::give_back::{Progress, give_back, remove};
use super::lab::{Lab, device_id};
use super::view::DeviceFacts;
use crate::frame::clock::Timestamp;
use crate::frame::names::{condition, label, reason};
use crate::frame::{Conditions, Context, Error, write};

const SLOWLY: Duration = Duration::from_secs(300);
const WHILE_HEALING: Duration = Duration::from_secs(1);

/// Rewrites the status and heals.
///
/// # Errors
/// [`Error`].
pub async fn reconcile(device: Arc<EdgeDevice>, lab: Arc<Lab>, context: Arc<Context>) -> Result<Action, Error> {
    if device.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let facts = lab.facts(&device);
    let new = status(&device, &facts, context.now());
    if write::update_status(&context.client, &*device, &new).await? {
        // The write brings a newer object, which is healed if need be.
        return Ok(Action::requeue(SLOWLY));
    }
    let healed = heal_holder(&device, &lab, &context).await? & heal_strays(&device, &lab, &context).await?;
    Ok(Action::requeue(if healed { SLOWLY } else { WHILE_HEALING }))
}

/// A holder that no longer exists cannot give the device back.
async fn heal_holder(device: &EdgeDevice, lab: &Lab, context: &Context) -> Result<bool, Error> {
    let Some(holder) = device.status.as_ref().and_then(|status| status.lease_ref.as_ref()) else {
        return Ok(true);
    };
    if lab.knows_lease(&holder.uid.0) {
        return Ok(true);
    }
    // Its pods were asked to end when it went or are asked now; how long they have taken is in themselves.
    let overdue =
        is_overdue(&super::give_back::pods_of(context, &device_id(device).namespace, &holder.uid.0).await?, context);
    let progress = give_back(context, lab, &device_id(device), &holder.uid.0, overdue).await?;
    if progress == Progress::Free {
        let note = format!("its lease {}/{} is gone; it is free again", holder.namespace, holder.name);
        context.events.warning(device, reason::HOLDER_GONE, note).await;
    }
    // Alive: the stores are behind, and will be right by the next look.
    Ok(progress == Progress::Free)
}

/// Pods of an earlier lease that were made late, by a controller that did not know of its end.
async fn heal_strays(device: &EdgeDevice, lab: &Lab, context: &Context) -> Result<bool, Error> {
    if !lab.has_strays(device) {
        return Ok(true);
    }
    let id = device_id(device);
    let Some(live) = write::get::<EdgeDevice>(&context.client, &id.namespace, &id.name).await? else {
        return Ok(true);
    };
    let holder = live.status.as_ref().and_then(|status| status.lease_ref.as_ref()).map(|holder| &holder.uid.0);
    let mut pods = write::list::<Pod>(&context.client, &id.namespace, label::LEASE).await?;
    pods.retain(|pod| {
        let ours = pod.owner_references().iter().any(|owner| Some(&owner.uid) == live.metadata.uid.as_ref());
        ours && pod.labels().get(label::LEASE) != holder
    });
    // Not forced: nobody waits for them, and the watch tells when they are gone.
    remove(context, &pods, false).await?;
    Ok(pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()))
}

fn is_overdue(pods: &[Pod], context: &Context) -> bool {
    let limit = i64::from(context.settings.release_timeout_seconds);
    let deadline = |pod: &Pod| Some(pod.metadata.deletion_timestamp.as_ref()?.0.as_second() + limit);
    pods.iter().filter_map(deadline).any(|deadline| context.now().as_second() >= deadline)
}

/// The status that fits the facts; holder, token and fingerprint stay.
pub fn status(device: &EdgeDevice, facts: &DeviceFacts, now: Timestamp) -> EdgeDeviceStatus {
    let old = status_of(device);
    let mut conditions = Conditions::from_old(&old.conditions, device.metadata.generation, now);
    let DeviceFacts { ready, online, held } = facts;
    conditions.set(condition::ONLINE, online.holds, online.reason, &*online.message);
    conditions.set(condition::HEALTHY, true, reason::NO_COMPLAINT, "nothing says that it is broken");
    let worst = if ready.holds { online } else { ready };
    if *held && worst.holds {
        conditions.ready(reason::HELD, "held by its stopPolicy: set stopPolicy to None to lease it again");
    } else if worst.holds {
        conditions.ready(ready.reason, &*ready.message);
    } else {
        conditions.stalled(worst.reason, &*worst.message);
    }
    EdgeDeviceStatus {
        observed_generation: device.metadata.generation.unwrap_or(-1),
        state: Some(state(old.lease_ref.is_some(), facts.availability())),
        conditions: conditions.into_list(),
        ..old
    }
}

/// One word for where a device is.
pub fn state(leased: bool, availability: Availability) -> DeviceState {
    match (leased, availability) {
        (true, _) => DeviceState::Leased,
        (false, Availability::Usable) => DeviceState::Free,
        (false, Availability::Held) => DeviceState::Held,
        (false, Availability::Offline) => DeviceState::Offline,
    }
}

/// The status as it is, or as it is before the first.
pub fn status_of(device: &EdgeDevice) -> EdgeDeviceStatus {
    device.status.clone().unwrap_or(EdgeDeviceStatus {
        observed_generation: -1,
        state: None,
        lease_ref: None,
        fencing_token: None,
        fingerprint: None,
        conditions: Vec::new(),
    })
}
