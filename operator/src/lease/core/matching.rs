//! Devices to requests: a bipartite matching, because one device may fit several requests of a lease and be the only
//! one that fits another.

use std::collections::BTreeSet;

use super::{Candidates, Device, DeviceId, Queue, QueueId, Request, selects};

/// One of the `count` places of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index in the lease's requests.
    pub request: usize,
    /// Index in the request.
    pub index: usize,
}

/// All places of a lease, in order.
pub fn slots(requests: &[Request]) -> Vec<Slot> {
    let places = |(request, r): (usize, &Request)| (0..r.count).map(move |index| Slot { request, index });
    requests.iter().enumerate().flat_map(places).collect()
}

/// Whether the queue gives out the device at all.
pub fn offers(id: &QueueId, queue: &Queue, device_id: &DeviceId, device: &Device) -> bool {
    device_id.namespace == id.namespace && selects(&queue.device_selector, &device.labels)
}

/// Whether the device will do for the request.
pub fn fits(request: &Request, id: &DeviceId, device: &Device) -> bool {
    match &request.candidates {
        Candidates::OfClass(class) => device.class == *class,
        Candidates::Labelled(labels) => selects(labels, &device.labels),
        Candidates::Named(names) => names.contains(&id.name),
    }
}

/// Fills as many places as possible, for each the index of its device. Devices come in order of preference; one that
/// is placed when a later one is tried stays placed, so put first what must be used.
pub fn fill(requests: &[Request], devices: &[(&DeviceId, &Device)]) -> Vec<Option<usize>> {
    let slots = slots(requests);
    let mut taken: Vec<Option<usize>> = vec![None; slots.len()];
    for device in 0..devices.len() {
        if taken.iter().all(Option::is_some) {
            break;
        }
        let mut tried = BTreeSet::new();
        place(requests, &slots, devices, device, &mut taken, &mut tried);
    }
    taken
}

/// Kuhn's augmenting path: finds the device a place, moving others to other places if need be.
fn place(
    requests: &[Request],
    slots: &[Slot],
    devices: &[(&DeviceId, &Device)],
    device: usize,
    taken: &mut [Option<usize>],
    tried: &mut BTreeSet<usize>,
) -> bool {
    let (id, facts) = devices[device];
    let empty = |(at, slot): &(usize, &Slot)| taken[*at].is_none() && fits(&requests[slot.request], id, facts);
    if let Some((at, _)) = slots.iter().enumerate().find(empty) {
        taken[at] = Some(device);
        return true;
    }
    for (at, slot) in slots.iter().enumerate() {
        if !fits(&requests[slot.request], id, facts) || !tried.insert(at) {
            continue;
        }
        if taken[at].is_some_and(|other| place(requests, slots, devices, other, taken, tried)) {
            taken[at] = Some(device);
            return true;
        }
    }
    false
}
