//! The lab in numbers for Prometheus: leases, devices and waiting leases, counted in every pass.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_crds::device::DeviceState;
use edgeyard_crds::lease::LeasePhase;

use super::core::Phase;
use super::core::schedule::Verdict;
use super::lab::{Lab, Pass};
use crate::frame::metrics::Metrics;
use crate::frame::results::{Metric, Series};

/// Replaces the series of the lab.
pub fn measure(metrics: &Metrics, lab: &Lab, pass: &Pass) {
    let all = lab.leases.state();
    let expired: BTreeSet<&str> = all
        .iter()
        .filter_map(|lease| lease.0.as_ref().ok())
        .filter(|lease| lease.status.as_ref().is_some_and(|status| status.phase == Some(LeasePhase::Expired)))
        .filter_map(|lease| lease.metadata.uid.as_deref())
        .collect();
    // Zeros too: an alert on "none is granted" needs a number to compare.
    let mut leases: BTreeMap<(String, &'static str), f64> = BTreeMap::new();
    for queue in pass.world.queues.keys() {
        leases.extend(["Queued", "Granted", "Released", "Expired"].map(|phase| ((queue.to_string(), phase), 0.0)));
    }
    let mut waiting: BTreeMap<String, f64> = pass.world.queues.keys().map(|queue| (queue.to_string(), 0.0)).collect();
    for (uid, lease) in &pass.world.leases {
        let queue = match (pass.plan.verdicts.get(uid), &lease.queue_ref) {
            (Some(Verdict::Waits { queue, .. }), _) => {
                *waiting.entry(queue.to_string()).or_default() += 1.0;
                queue.to_string()
            }
            (_, Some(queue)) => queue.to_string(),
            (_, None) => {
                pass.world.queues.iter().find(|(_, q)| q.is_default).map_or(String::new(), |(q, _)| q.to_string())
            }
        };
        let phase = match (&lease.phase, expired.contains(uid.0.as_str())) {
            (Phase::Queued, _) => "Queued",
            (Phase::Granted { .. }, _) => "Granted",
            (Phase::Ended, false) => "Released",
            (Phase::Ended, true) => "Expired",
        };
        *leases.entry((queue, phase)).or_default() += 1.0;
    }
    let mut devices: BTreeMap<(String, &'static str), f64> = BTreeMap::new();
    for device in pass.world.devices.values() {
        devices.extend(["Free", "Leased", "Held", "Offline"].map(|state| ((device.class.clone(), state), 0.0)));
    }
    for device in pass.world.devices.values() {
        let state = match super::device::state(device.holder.is_some(), device.availability) {
            DeviceState::Free => "Free",
            DeviceState::Leased => "Leased",
            DeviceState::Held => "Held",
            DeviceState::Offline => "Offline",
        };
        *devices.entry((device.class.clone(), state)).or_default() += 1.0;
    }
    let mut series = Vec::new();
    for ((queue, phase), count) in leases {
        series.push(Series::new(Metric::Leases, count).label("queue", queue).label("phase", phase));
    }
    for ((device_class, state), count) in devices {
        series.push(Series::new(Metric::Devices, count).label("device_class", device_class).label("state", state));
    }
    for (queue, count) in waiting {
        series.push(Series::new(Metric::QueueWaiting, count).label("queue", queue));
    }
    metrics.lab.set("lab", series);
}
