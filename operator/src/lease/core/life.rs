//! The life of one lease: what to do next, one write at a time. Each step can be killed before or after its write and
//! is found again by looking.

use super::admission::Refusal;
use super::matching::{fill, slots};
use super::schedule::Verdict;
use super::{Device, DeviceId, Lease, Phase};
use crate::frame::names::reason;

/// What a lease's step is computed from.
#[derive(Clone, Debug)]
pub struct Sight<'w> {
    /// The lease.
    pub lease: &'w Lease,
    /// The devices that name it as holder.
    pub held: Vec<(&'w DeviceId, &'w Device)>,
    /// What the scheduler says, if it has looked since.
    pub verdict: Option<&'w Verdict>,
    /// The scheduler wants it ended, for the sake of others.
    pub evicted: bool,
    /// The longest duration its queue gives, if that is known.
    pub max_duration_seconds: Option<i64>,
    /// Seconds since 1970.
    pub now: i64,
}

/// The next write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Add the finalizer.
    Protect,
    /// Write that it waits, and why.
    Wait(Option<Verdict>),
    /// Write that it has these devices.
    Grant(Vec<Place>),
    /// Write that it goes on.
    Hold {
        /// When it will expire, in seconds.
        expires: i64,
    },
    /// Write that it is over.
    End(Ending),
    /// Remove pods, then free these devices.
    GiveBack(Vec<DeviceId>),
    /// Remove the finalizer.
    Forget,
    /// Nothing is left to do.
    Rest,
}

/// A device in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the request.
    pub request: String,
    /// Index in the request.
    pub index: usize,
    /// The device.
    pub device: DeviceId,
    /// The device's token.
    pub token: i64,
}

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Given back, rather than taken or never had.
    pub released: bool,
    /// One of [`reason`].
    pub reason: &'static str,
    /// What happened.
    pub message: String,
}

/// Computes the next write.
pub fn step(sight: &Sight<'_>) -> Step {
    let Sight { lease, held, verdict, evicted, max_duration_seconds, now } = sight;
    if lease.deleting && matches!(lease.phase, Phase::Granted { .. }) {
        return end(true, reason::RELEASED, "was deleted".to_owned());
    }
    if lease.has_ended() {
        return match (held.is_empty(), lease.deleting && lease.finalizer) {
            (false, _) => Step::GiveBack(held.iter().map(|(id, _)| (*id).clone()).collect()),
            (true, true) => Step::Forget,
            (true, false) => Step::Rest,
        };
    }
    if lease.release {
        return end(true, reason::RELEASED, "was given back".to_owned());
    }
    match &lease.phase {
        Phase::Granted { since, devices } => {
            let expires = expires(lease, *since, *max_duration_seconds);
            if let Some(lost) = devices.iter().find(|id| !held.iter().any(|(held, _)| held == id)) {
                return end(false, reason::DEVICE_LOST, format!("device {lost} is gone or was given to another lease"));
            }
            if let Some((id, _)) = held.iter().find(|(_, device)| device.draining) {
                return end(false, reason::DRAINED, format!("device {id} is taken out of use by its stopPolicy"));
            }
            if *now >= expires {
                let message = format!("its {} s are over: raise durationSeconds before it ends", expires - since);
                return end(false, reason::LEASE_EXPIRED, message);
            }
            Step::Hold { expires }
        }
        Phase::Queued => queued(lease, held, *verdict, *evicted, *now),
        Phase::Ended => Step::Rest,
    }
}

/// When a lease that was granted at `since` ends, unless it is extended.
pub fn expires(lease: &Lease, since: i64, max_duration_seconds: Option<i64>) -> i64 {
    since.saturating_add(lease.duration_seconds.min(max_duration_seconds.unwrap_or(i64::MAX)))
}

/// When a lease that waits gives up.
pub fn gives_up(lease: &Lease) -> Option<i64> {
    lease.queue_timeout_seconds.map(|seconds| lease.created.saturating_add(seconds))
}

fn queued(lease: &Lease, held: &[(&DeviceId, &Device)], verdict: Option<&Verdict>, evicted: bool, now: i64) -> Step {
    if !lease.finalizer {
        return Step::Protect;
    }
    if gives_up(lease).is_some_and(|end| now >= end) {
        let seconds = lease.queue_timeout_seconds.unwrap_or_default();
        let why = match verdict {
            Some(Verdict::Waits { message, .. } | Verdict::Refused(Refusal { message, .. })) => format!(": {message}"),
            None => String::new(),
        };
        return end(false, reason::QUEUE_TIMEOUT, format!("no device within queueTimeoutSeconds ({seconds} s){why}"));
    }
    if let Ok(requests) = &lease.requests {
        let filled = fill(requests, held);
        if filled.iter().all(Option::is_some) {
            let places = slots(requests).into_iter().zip(filled.into_iter().flatten());
            return Step::Grant(
                places
                    .map(|(slot, at)| Place {
                        request: requests[slot.request].name.clone(),
                        index: slot.index,
                        device: held[at].0.clone(),
                        token: held[at].1.token.unwrap_or(1),
                    })
                    .collect(),
            );
        }
    }
    if !held.is_empty() {
        if let Some(Verdict::Refused(Refusal { reason, message })) = verdict {
            return end(false, reason, message.clone());
        }
        if evicted {
            let message =
                "had some of its devices, and the others cannot be had: ask again with a new lease".to_owned();
            return end(false, reason::DEVICE_LOST, message);
        }
    }
    Step::Wait(verdict.cloned())
}

fn end(released: bool, reason: &'static str, message: String) -> Step {
    Step::End(Ending { released, reason, message })
}
