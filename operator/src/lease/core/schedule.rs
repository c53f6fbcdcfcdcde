//! Who is next: assigns free devices to waiting leases.
//!
//! Order: leases that have some of their devices already, then priority, then age, then UID. A lease gets all the devices
//! it lacks in one pass, or none.
//!
//! Nobody starves: a lease that could be served if everybody gave back, but not now, *sets aside* the free devices that
//! it could use, and those whose use would keep the ones it could use busy (isolation); later leases get none of them.
//! As leases are bounded in time, it is served in the end. A lease for which too few devices exist or are usable sets
//! nothing aside. So back-fill happens only with devices that no earlier lease can use.
//!
//! A lease has some but not all of its devices only if the operator was killed between two writes, or lost a
//! compare-and-swap. It keeps them (a device leaves a lease only when that has ended) and comes first. It is ended
//! ([`Plan::evictions`]) if what it lacks has gone meanwhile, or if it and an earlier one of its kind block each other,
//! which takes two operators that led at once.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_crds::device_class::Isolation;

use super::admission::{Refusal, admit};
use super::matching::{fill, fits, offers};
use super::{Availability, Device, DeviceId, Lease, LeaseUid, Phase, QueueId, World};
use crate::frame::names::reason;

/// What the scheduler wants.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Devices to give, by compare-and-swap on the device.
    pub assignments: Vec<Assignment>,
    /// What to tell those who wait.
    pub verdicts: BTreeMap<LeaseUid, Verdict>,
    /// Leases to end because they hold some of their devices and cannot get the others.
    pub evictions: BTreeSet<LeaseUid>,
}

/// One device for one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The device.
    pub device: DeviceId,
    /// Its new holder.
    pub lease: LeaseUid,
    /// Its new token.
    pub token: i64,
}

/// What a lease that is not granted is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may not wait there.
    Refused(Refusal),
    /// It waits.
    Waits {
        /// Where.
        queue: QueueId,
        /// How many of the same queue come first.
        position: i32,
        /// One of [`reason`].
        reason: &'static str,
        /// For what.
        message: String,
    },
}

/// A token above the last one, and above those of an object of the same name that was deleted.
pub fn next_token(previous: Option<i64>, now_ms: i64) -> i64 {
    previous.map_or(1, |previous| previous.saturating_add(1)).max(now_ms)
}

/// Computes what to do now.
pub fn schedule(world: &World) -> Plan {
    let mut plan = Plan::default();
    let mut waiting = Vec::new();
    for (uid, lease) in &world.leases {
        if lease.phase != Phase::Queued || lease.has_ended() || lease.release {
            continue;
        }
        match admit(world, lease) {
            Ok((queue, _)) => waiting.push(Waiting { uid, lease, queue, held: world.held_by(uid) }),
            Err(refusal) => {
                plan.verdicts.insert(uid.clone(), Verdict::Refused(refusal));
            }
        }
    }
    waiting.sort_by_key(|w| (w.held.is_empty(), -i64::from(w.lease.priority), w.lease.created, w.uid.clone()));

    let mut sights = Sights { world, busy: Vec::new(), aside: BTreeSet::new() };
    sights.busy = world.devices.iter().filter_map(|(id, d)| Some((id, d, d.holder.as_ref()?))).collect();
    let mut positions: BTreeMap<&QueueId, i32> = BTreeMap::new();
    let mut stuck = Vec::new();
    for lease in &waiting {
        let chosen = sights.choose(lease);
        let verdict = match &chosen {
            Choice::Take(devices) => {
                for (id, device) in devices {
                    sights.busy.push((id, device, lease.uid));
                    // Without a finalizer it only keeps its place: it is served when it has one.
                    if lease.lease.finalizer {
                        plan.assignments.push(Assignment {
                            device: (*id).clone(),
                            lease: lease.uid.clone(),
                            token: next_token(device.token, world.now_ms),
                        });
                    }
                }
                (reason::QUEUED, "is being served".to_owned())
            }
            Choice::Wait(devices) => {
                sights.set_aside(devices);
                (reason::WAITING_FOR_DEVICE, "waits until devices that fit are free".to_owned())
            }
            Choice::Never(reason, message) => (*reason, message.clone()),
        };
        match chosen {
            Choice::Wait(_) if !lease.held.is_empty() => stuck.push(lease),
            Choice::Never(..) if !lease.held.is_empty() => {
                plan.evictions.insert(lease.uid.clone());
            }
            _ => {}
        }
        let position = positions.entry(lease.queue).or_default();
        let (reason, message) = verdict;
        plan.verdicts.insert(
            lease.uid.clone(),
            Verdict::Waits { queue: lease.queue.clone(), position: *position, reason, message },
        );
        *position += 1;
    }
    if let [first, later @ ..] = &*stuck {
        plan.evictions.extend(rivals(world, first, later));
    }
    plan
}

struct Waiting<'w> {
    uid: &'w LeaseUid,
    lease: &'w Lease,
    queue: &'w QueueId,
    held: Vec<(&'w DeviceId, &'w Device)>,
}

type Known<'w> = (&'w DeviceId, &'w Device);

enum Choice<'w> {
    /// These are free and complete the lease.
    Take(Vec<Known<'w>>),
    /// Enough exist, but not now; these could be part of it.
    Wait(Vec<Known<'w>>),
    /// Too few exist or are usable.
    Never(&'static str, String),
}

/// What is taken so far in this pass.
struct Sights<'w> {
    world: &'w World,
    busy: Vec<(&'w DeviceId, &'w Device, &'w LeaseUid)>,
    aside: BTreeSet<&'w DeviceId>,
}

impl<'w> Sights<'w> {
    fn choose(&self, waiting: &Waiting<'w>) -> Choice<'w> {
        let Ok(requests) = &waiting.lease.requests else {
            return Choice::Never(reason::INVALID_SPEC, "requests cannot be understood".to_owned());
        };
        let queue = &self.world.queues[waiting.queue];
        let candidates: Vec<Known<'w>> = self
            .world
            .devices
            .iter()
            .filter(|(id, device)| {
                offers(waiting.queue, queue, id, device) && requests.iter().any(|request| fits(request, id, device))
            })
            .collect();
        let mine = |device: &Device| device.holder.as_ref() == Some(waiting.uid);
        let complete = |devices: &[Known<'w>]| fill(requests, devices).iter().all(Option::is_some);

        let mut now = waiting.held.clone();
        let free = |(id, device): &&Known<'w>| !mine(device) && self.is_free(id, device, waiting.uid);
        now.extend(candidates.iter().filter(free));
        let filled = fill(requests, &now);
        if filled.iter().all(Option::is_some) {
            let taken = filled.into_iter().flatten().map(|at| now[at]).filter(|(_, device)| !mine(device));
            return Choice::Take(taken.collect());
        }
        let usable: Vec<Known<'w>> = candidates
            .iter()
            .copied()
            .filter(|(_, device)| mine(device) || device.availability == Availability::Usable)
            .collect();
        if complete(&usable) {
            return Choice::Wait(usable);
        }
        let wanted: usize = requests.iter().map(|request| request.count).sum();
        if complete(&candidates) {
            let stopped = candidates.iter().filter(|(_, device)| device.availability != Availability::Usable);
            let names: Vec<_> = stopped.map(|(id, _)| id.name.as_str()).take(8).collect();
            return Choice::Never(
                reason::DEVICE_HELD,
                format!(
                    "needs {wanted} of {} devices that fit, and of those some are held or offline ({}): see `kubectl describe \
                     edgedevice`",
                    candidates.len(),
                    names.join(", ")
                ),
            );
        }
        Choice::Never(
            reason::NO_MATCHING_DEVICE,
            format!(
                "needs {wanted}, and queue {1} has {0} that fit: check class, labels and names in `requests` against \
                 `kubectl get edgedevices --namespace {2} --show-labels`",
                candidates.len(),
                waiting.queue,
                waiting.queue.namespace
            ),
        )
    }

    fn is_free(&self, id: &DeviceId, device: &Device, lease: &LeaseUid) -> bool {
        device.availability == Availability::Usable
            && device.holder.is_none()
            && !self.aside.contains(id)
            && self
                .busy
                .iter()
                .all(|(busy_id, busy, holder)| *busy_id != id && (*holder == lease || !disturb(device, busy)))
    }

    /// Keeps the devices, and those that would keep them busy, from later leases.
    fn set_aside(&mut self, wanted: &[Known<'w>]) {
        for (id, device) in &self.world.devices {
            if wanted.iter().any(|(wanted_id, wanted)| *wanted_id == id || disturb(device, wanted)) {
                self.aside.insert(id);
            }
        }
    }
}

/// Whether two devices must not be leased to different leases at once.
pub fn disturb(one: &Device, other: &Device) -> bool {
    let isolated = one.isolation == Isolation::Node || other.isolation == Isolation::Node;
    isolated && one.node.is_some() && one.node == other.node
}

/// Of leases that all wait with some devices in hand, those that keep `first` from its own.
fn rivals(world: &World, first: &Waiting<'_>, later: &[&Waiting<'_>]) -> BTreeSet<LeaseUid> {
    let Ok(requests) = &first.lease.requests else { return BTreeSet::new() };
    let queue = &world.queues[first.queue];
    let needed: Vec<Known<'_>> = world
        .devices
        .iter()
        .filter(|(id, d)| offers(first.queue, queue, id, d) && requests.iter().any(|request| fits(request, id, d)))
        .collect();
    let in_the_way = |(id, held): &Known<'_>| needed.iter().any(|(other, d)| other == id || disturb(held, d));
    later.iter().filter(|rival| rival.held.iter().any(in_the_way)).map(|rival| rival.uid.clone()).collect()
}
