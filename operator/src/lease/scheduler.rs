//! The one loop that assigns devices. A pass looks at the whole lab, writes what is to be assigned, and wakes the
//! controllers of leases and devices for which something changed. Passes never overlap, so two grants never race here;
//! against other programs the compare-and-swap stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::device::{DeviceState, EdgeDevice, EdgeDeviceStatus};
use edgeyard_crds::references::UniqueReference;
use edgeyard_crds::scalars::{NamespaceName, ObjectName, Uid};
use kube::runtime::reflector::ObjectRef;

use super::core::schedule::{Assignment, Plan, Verdict, schedule};
use super::core::{DeviceId, LeaseUid, World};
use super::lab::{Lab, Pass, device_id};
use super::measure::measure;
use super::view::DeviceFacts;
use crate::frame::{Context, Error, write};

/// Changes that come together are one pass.
const GATHER: Duration = Duration::from_millis(10);
/// A pass without cause, against whatever was missed.
const AT_LEAST_EVERY: Duration = Duration::from_secs(30);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Passes until shutdown; a pass that has begun is finished.
pub async fn run(context: Arc<Context>, lab: Arc<Lab>) {
    let mut woken = BTreeMap::new();
    tokio::select! {
        () = lab.ready() => {}
        () = context.shutdown.wait() => return,
    }
    loop {
        let pause = match pass(&context, &lab, &mut woken).await {
            Ok(()) => AT_LEAST_EVERY,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "scheduler");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = lab.changed.notified() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(pause) => {}
            () = context.shutdown.wait() => return,
        }
    }
}

/// What a device's controller was last woken for.
type Woken = BTreeMap<DeviceId, (DeviceFacts, bool, bool)>;

async fn pass(context: &Arc<Context>, lab: &Arc<Lab>, woken: &mut Woken) -> Result<(), Error> {
    let world = lab.world(context.now().as_millisecond());
    let plan = schedule(&world);
    let assignments = plan.assignments.clone();
    let (old, new) = lab.set_last(Pass { world, plan });
    measure(&context.metrics, lab, &new);
    wake_leases(lab, &old, &new);
    wake_devices(lab, woken);
    assign(context, lab, &new.world, assignments).await
}

async fn assign(
    context: &Arc<Context>,
    lab: &Arc<Lab>,
    world: &World,
    assignments: Vec<Assignment>,
) -> Result<(), Error> {
    if assignments.is_empty() {
        return Ok(());
    }
    let devices: BTreeMap<_, _> =
        lab.present_devices().into_iter().map(|device| (device_id(&device), device)).collect();
    let mut given_up = BTreeSet::new();
    let mut failure = None;
    for Assignment { device, lease, token } in assignments {
        // All or nothing: after a failure the rest of this lease waits for the next pass.
        let (Some(object), Some(facts), false) =
            (devices.get(&device), world.leases.get(&lease), given_up.contains(&lease))
        else {
            continue;
        };
        let holder = UniqueReference {
            namespace: NamespaceName(facts.namespace.clone()),
            name: ObjectName(facts.name.clone()),
            uid: Uid(lease.0.clone()),
        };
        match write::swap_status(&context.client, &**object, &assigned(object, holder, token)).await {
            Ok(written) => {
                tracing::info!(%device, lease = %format!("{}/{}", facts.namespace, facts.name), token, "assigned");
                lab.remember(object, written);
            }
            // The watch is about to show what happened to it.
            Err(Error::Conflict { .. }) => {
                given_up.insert(lease);
            }
            Err(error) => {
                given_up.insert(lease);
                failure = Some(error);
            }
        }
    }
    // What was written is part of the next pass already, which tells the leases.
    lab.changed.notify_one();
    failure.map_or(Ok(()), Err)
}

/// The device's status with a new holder.
fn assigned(device: &EdgeDevice, holder: UniqueReference, token: i64) -> EdgeDeviceStatus {
    EdgeDeviceStatus {
        state: Some(DeviceState::Leased),
        lease_ref: Some(holder),
        fencing_token: Some(token),
        ..super::device::status_of(device)
    }
}

/// Wakes leases that are told something new: a verdict, an eviction, or other devices.
fn wake_leases(lab: &Lab, old: &Pass, new: &Pass) {
    let (old_devices, new_devices) = (by_holder(&old.world), by_holder(&new.world));
    for (uid, lease) in &new.world.leases {
        let unchanged = verdict(&old.plan, uid) == verdict(&new.plan, uid)
            && old.plan.evictions.contains(uid) == new.plan.evictions.contains(uid)
            && old_devices.get(uid) == new_devices.get(uid)
            // Its controller may have looked before this pass knew it.
            && old.world.leases.contains_key(uid);
        if !unchanged {
            let lease = ObjectRef::new(&lease.name).within(&lease.namespace);
            // Fails only when the controller has ended.
            let _ = lab.wake_lease.unbounded_send(lease);
        }
    }
}

fn verdict<'p>(plan: &'p Plan, uid: &LeaseUid) -> Option<&'p Verdict> {
    plan.verdicts.get(uid)
}

/// The devices of every holder, each with whether it is draining.
fn by_holder(world: &World) -> BTreeMap<&LeaseUid, Vec<(&DeviceId, bool)>> {
    let mut held: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (id, device) in &world.devices {
        if let Some(holder) = &device.holder {
            held.entry(holder).or_default().push((id, device.draining));
        }
    }
    held
}

/// Wakes devices whose class, node, holder or pods changed. Their own changes wake them anyway.
fn wake_devices(lab: &Lab, woken: &mut Woken) {
    let mut now = Woken::new();
    for device in lab.present_devices() {
        let holder = device.status.as_ref().and_then(|status| status.lease_ref.as_ref());
        let orphaned = holder.is_some_and(|holder| !lab.knows_lease(&holder.uid.0));
        let facts = (lab.facts(&device), orphaned, lab.has_strays(&device));
        let id = device_id(&device);
        if woken.get(&id) != Some(&facts) {
            let _ = lab.wake_device.unbounded_send(ObjectRef::new(&id.name).within(&id.namespace));
        }
        now.insert(id, facts);
    }
    *woken = now;
}
