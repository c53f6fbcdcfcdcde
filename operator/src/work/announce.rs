//! Tells people what changed: an Event for every new word in the `Ready` condition.

use edgeyard_crds::conditions::{READY, STALLED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;

use crate::frame::{Context, conditions};

/// Publishes an Event if the reason of `Ready` is another than before.
pub async fn announce<K>(context: &Context, about: &K, old: &[Condition], new: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    let Some(ready) = conditions::find(new, READY) else { return };
    if conditions::find(old, READY).is_some_and(|before| before.reason == ready.reason) {
        return;
    }
    if conditions::is_true(new, STALLED) {
        context.events.warning(about, &ready.reason, ready.message.clone()).await;
    } else {
        context.events.normal(about, &ready.reason, ready.message.clone()).await;
    }
}
