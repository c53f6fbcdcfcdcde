//! Taking a device from a holder that has ended: its runner pods go first, and only then is the device free.
//!
//! Everything is asked of the API server, not of a cache: a device that leaves a living lease would have two users.

use edgeyard_crds::device::EdgeDevice;
use edgeyard_crds::lease::DeviceLease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::core::DeviceId;
use super::device::{state, status_of};
use super::lab::Lab;
use super::view;
use crate::frame::names::{label, reason};
use crate::frame::{Context, Error, write};

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The device is free, or somebody else's already.
    Free,
    /// Pods are still ending: look again.
    Waiting,
    /// The holder is alive: nothing was done.
    Alive,
}

/// Takes the device from the lease `uid` if that has ended. `overdue`: pods are not waited for any longer.
///
/// # Errors
/// [`Error`]; [`Error::Conflict`] when the device changed meanwhile.
pub async fn give_back(
    context: &Context,
    lab: &Lab,
    id: &DeviceId,
    uid: &str,
    overdue: bool,
) -> Result<Progress, Error> {
    let Some(device) = write::get::<EdgeDevice>(&context.client, &id.namespace, &id.name).await? else {
        return Ok(Progress::Free);
    };
    let Some(holder) = device.status.as_ref().and_then(|status| status.lease_ref.clone()) else {
        return Ok(Progress::Free);
    };
    if holder.uid.0 != uid {
        return Ok(Progress::Free);
    }
    let lease = write::get::<DeviceLease>(&context.client, &holder.namespace.0, &holder.name.0).await?;
    if lease.is_some_and(|lease| lease.uid().as_deref() == Some(uid) && !view::lease(&lease).has_ended()) {
        return Ok(Progress::Alive);
    }
    let pods = pods_of(context, &id.namespace, uid).await?;
    remove(context, &pods, overdue).await?;
    if !pods.is_empty() {
        if !overdue {
            return Ok(Progress::Waiting);
        }
        let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
        let note = format!(
            "pods {} did not end within {} s; the device was freed all the same: check it before its next result",
            names.join(", "),
            context.settings.release_timeout_seconds
        );
        context.events.warning(&device, reason::RELEASE_FORCED, note).await;
    }
    let availability = lab.facts(&device).availability();
    let status = edgeyard_crds::device::EdgeDeviceStatus {
        lease_ref: None,
        state: Some(state(false, availability)),
        ..status_of(&device)
    };
    write::swap_status(&context.client, &device, &status).await?;
    tracing::info!(device = %ObjectRef::from_obj(&device), lease = uid, "freed");
    Ok(Progress::Free)
}

/// The runner pods of a lease.
///
/// # Errors
/// [`Error`].
pub async fn pods_of(context: &Context, namespace: &str, uid: &str) -> Result<Vec<Pod>, Error> {
    write::list::<Pod>(&context.client, namespace, &format!("{}={uid}", label::LEASE)).await
}

/// Asks pods to end, once each; `now`: takes them out of the API without waiting for their node.
///
/// # Errors
/// [`Error`].
pub async fn remove(context: &Context, pods: &[Pod], now: bool) -> Result<(), Error> {
    for pod in pods {
        if now {
            write::delete_now(&context.client, pod).await?;
        } else if pod.metadata.deletion_timestamp.is_none() {
            write::delete(&context.client, pod).await?;
        }
    }
    Ok(())
}
