//! DeviceLease: look, decide ([`life::step`]), write one thing. Each write wakes the next step.

use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::lease::{DeviceLease, DeviceLeaseStatus, Grant, LeasePhase};
use edgeyard_crds::references::UniqueReference;
use edgeyard_crds::scalars::{Key, NamespaceName, ObjectName, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;

use super::core::life::{self, Ending, Place, Sight, Step};
use super::core::schedule::Verdict;
use super::core::{DeviceId, LeaseUid, World, admission};
use super::give_back::{Progress, give_back};
use super::lab::Lab;
use super::view;
use crate::frame::clock::{Timestamp, until};
use crate::frame::conditions::find;
use crate::frame::names::{RELEASE_DEVICE, condition, reason};
use crate::frame::{Conditions, Context, Error, finalizer, write};

/// Between two looks at pods that are ending.
const WHILE_RELEASING: Duration = Duration::from_millis(500);
/// Nothing is known to be due; only against what was missed.
const SLOWLY: Duration = Duration::from_secs(300);

/// One step of one lease.
///
/// # Errors
/// [`Error`].
pub async fn reconcile(lease: Arc<DeviceLease>, lab: Arc<Lab>, context: Arc<Context>) -> Result<Action, Error> {
    let facts = view::lease(&lease);
    let uid = LeaseUid(lease.uid().unwrap_or_default());
    let pass = lab.last();
    let now = context.now();
    let queue = admission::find(&pass.world, &facts).ok();
    let sight = Sight {
        lease: &facts,
        held: pass.world.held_by(&uid),
        verdict: pass.plan.verdicts.get(&uid),
        evicted: pass.plan.evictions.contains(&uid),
        max_duration_seconds: queue.map(|(_, queue)| queue.max_duration_seconds),
        now: now.as_second(),
    };
    let step = life::step(&sight);
    match &step {
        Step::Protect => {
            finalizer::add(&context.client, &*lease, RELEASE_DEVICE).await?;
            Ok(Action::await_change())
        }
        Step::Forget => {
            finalizer::remove(&context.client, &*lease, RELEASE_DEVICE).await?;
            Ok(Action::await_change())
        }
        Step::GiveBack(devices) => release(&lease, devices, &lab, &context).await,
        Step::Wait(_) | Step::Grant(_) | Step::Hold { .. } | Step::End(_) => {
            if let Some(status) = status(&lease, &step, &pass.world, now) {
                write::update_status(&context.client, &*lease, &status).await?;
            }
            tell(&context, &lease, &step).await;
            Ok(due(&facts, &step, now))
        }
        Step::Rest => Ok(Action::await_change()),
    }
}

/// Pods first, then the devices. The time limit counts from the lease's end.
async fn release(lease: &DeviceLease, devices: &[DeviceId], lab: &Lab, context: &Context) -> Result<Action, Error> {
    let limit = i64::from(context.settings.release_timeout_seconds);
    let overdue = ended_at(lease).is_some_and(|ended| context.now().as_second() - ended.as_second() >= limit);
    let uid = lease.uid().unwrap_or_default();
    let mut waiting = false;
    for device in devices {
        match give_back(context, lab, device, &uid, overdue).await? {
            Progress::Free => {}
            Progress::Waiting => waiting = true,
            // The watch has shown an end that the API server does not know: it cannot be.
            Progress::Alive => return Err(Error::Conflict { action: format!("free {device}") }),
        }
    }
    if overdue && waiting {
        let note = "its pods did not end in time; the devices were freed all the same";
        context.events.warning(lease, reason::RELEASE_FORCED, note).await;
    }
    Ok(Action::requeue(WHILE_RELEASING))
}

fn ended_at(lease: &DeviceLease) -> Option<Timestamp> {
    let conditions = lease.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let ended = find(conditions, condition::GRANTED).filter(|granted| granted.status == "False");
    ended
        .map(|granted| granted.last_transition_time.0)
        .or_else(|| lease.metadata.deletion_timestamp.as_ref().map(|time| time.0))
}

/// The status after a step; `None` for a step that leaves it alone.
pub fn status(lease: &DeviceLease, step: &Step, world: &World, now: Timestamp) -> Option<DeviceLeaseStatus> {
    let old = lease.status.clone();
    let conditions = old.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::from_old(conditions, lease.metadata.generation, now);
    let mut new = DeviceLeaseStatus {
        observed_generation: lease.metadata.generation.unwrap_or(-1),
        phase: old.as_ref().and_then(|status| status.phase),
        queue_position: None,
        expiration_time: old.as_ref().and_then(|status| status.expiration_time.clone()),
        grants: old.map(|status| status.grants).unwrap_or_default(),
        conditions: Vec::new(),
    };
    match step {
        Step::Wait(verdict) => {
            new.phase = Some(LeasePhase::Queued);
            match verdict {
                Some(Verdict::Refused(refusal)) => {
                    conditions.set(condition::GRANTED, false, refusal.reason, &*refusal.message);
                    conditions.stalled(refusal.reason, &*refusal.message);
                }
                Some(Verdict::Waits { position, reason, message, .. }) => {
                    new.queue_position = Some(*position);
                    conditions.set(condition::GRANTED, false, reason, &**message);
                    conditions.reconciling(reason, &**message);
                }
                None => {
                    conditions.set(condition::GRANTED, false, reason::QUEUED, "waits for the scheduler");
                    conditions.reconciling(reason::QUEUED, "waits for the scheduler");
                }
            }
        }
        Step::Grant(places) => {
            new.phase = Some(LeasePhase::Granted);
            new.grants = places.iter().map(|place| grant(place, world)).collect();
            let facts = view::lease(lease);
            let max = admission::find(world, &facts).ok().map(|(_, queue)| queue.max_duration_seconds);
            new.expiration_time = time(life::expires(&facts, now.as_second(), max));
            let names: Vec<_> = places.iter().map(|place| place.device.to_string()).collect();
            let message = format!("has {}", names.join(", "));
            conditions.set(condition::GRANTED, true, reason::ALLOCATED, &*message).ready(reason::ALLOCATED, message);
        }
        Step::Hold { expires } => new.expiration_time = time(*expires),
        Step::End(Ending { released, reason, message }) => {
            new.phase = Some(if *released { LeasePhase::Released } else { LeasePhase::Expired });
            conditions.set(condition::GRANTED, false, reason, &**message);
            if *released {
                conditions.ready(reason, &**message)
            } else {
                conditions.stalled(reason, &**message)
            };
        }
        Step::Protect | Step::GiveBack(_) | Step::Forget | Step::Rest => return None,
    }
    new.conditions = conditions.into_list();
    Some(new)
}

fn grant(place: &Place, world: &World) -> Grant {
    let Place { request, index, device, token } = place;
    let uid = world.devices.get(device).map(|device| device.uid.clone()).unwrap_or_default();
    Grant {
        request: Key(request.clone()),
        index: i32::try_from(*index).unwrap_or_default(),
        device_ref: UniqueReference {
            namespace: NamespaceName(device.namespace.clone()),
            name: ObjectName(device.name.clone()),
            uid: Uid(uid),
        },
        fencing_token: *token,
    }
}

async fn tell(context: &Context, lease: &DeviceLease, step: &Step) {
    match step {
        Step::Grant(places) => {
            let names: Vec<_> = places.iter().map(|place| place.device.to_string()).collect();
            context.events.normal(lease, reason::ALLOCATED, format!("got {}", names.join(", "))).await;
        }
        Step::End(Ending { released: true, reason, message }) => {
            context.events.normal(lease, reason, &**message).await;
        }
        Step::End(Ending { released: false, reason, message }) => {
            context.events.warning(lease, reason, &**message).await;
        }
        Step::Wait(Some(Verdict::Refused(refusal))) => {
            context.events.warning(lease, refusal.reason, &*refusal.message).await;
        }
        _ => {}
    }
}

/// When time alone brings the next step.
fn due(lease: &super::core::Lease, step: &Step, now: Timestamp) -> Action {
    let at = match step {
        Step::Hold { expires } => Some(*expires),
        Step::Wait(_) => life::gives_up(lease),
        // The write wakes it.
        _ => None,
    };
    match at.and_then(|at| Timestamp::from_second(at).ok()) {
        Some(at) => Action::requeue((until(now, at) + Duration::from_millis(50)).min(SLOWLY)),
        None => Action::requeue(SLOWLY),
    }
}

fn time(seconds: i64) -> Option<Time> {
    Timestamp::from_second(seconds).ok().map(Time)
}
