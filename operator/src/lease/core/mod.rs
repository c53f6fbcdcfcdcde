//! The lease core: who gets which device, as plain functions on plain data. No IO, no clock, no Kubernetes client.
//!
//! What makes it safe, whatever is killed whenever, and however old a sight is:
//! - A device's holder and token change only by compare-and-swap on the device.
//! - A lease ends once and for good: `Ended`, or a deletion, is never taken back.
//! - A device leaves its holder only after the holder has ended ([`life`]), asked of the API server, not of a cache.
//! - A lease becomes `Granted` by compare-and-swap on the lease, and only from not ended, when devices that name it as
//!   holder fill all its requests. By the rule before, they cannot have left it since.
//!
//! So two granted leases never share a device. [`schedule`] alone assigns devices; it is one serialised loop.

pub mod admission;
pub mod matching;
pub mod schedule;
pub mod life;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use edgeyard_crds::device_class::Isolation;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A device's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A queue's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The UID of a DeviceLease: a later lease of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseUid(pub String);

/// All that the scheduler looks at.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    /// Every device.
    pub devices: BTreeMap<DeviceId, Device>,
    /// Every lease.
    pub leases: BTreeMap<LeaseUid, Lease>,
    /// Every queue.
    pub queues: BTreeMap<QueueId, Queue>,
    /// The labels of every namespace.
    pub namespaces: BTreeMap<String, Labels>,
}

/// A device, as far as leasing goes.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its UID.
    pub uid: String,
    /// Its class.
    pub class: String,
    /// Its class's isolation.
    pub isolation: Isolation,
    /// Its labels.
    pub labels: Labels,
    /// The node that it is or runs on. `None`: an emulator that may land on any of several nodes; what measures is
    /// then kept apart from it by the pods' anti-affinity.
    pub node: Option<String>,
    /// Whether it can be leased once it is free.
    pub availability: Availability,
    /// Whether its present lease has to end (`stopPolicy: HoldAndDrain`).
    pub draining: bool,
    /// Who has it.
    pub holder: Option<LeaseUid>,
    /// The token of its last lease.
    pub token: Option<i64>,
}

/// Whether a device can be leased once it is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Usable,
    /// Its `stopPolicy` forbids.
    Held,
    /// Its node, class or spec is not in order.
    Offline,
}

/// A lease.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The queue it names.
    pub queue_ref: Option<QueueId>,
    /// Higher goes first.
    pub priority: i32,
    /// Seconds since 1970.
    pub created: i64,
    /// What it asks for, or why that cannot be understood.
    pub requests: Result<Vec<Request>, String>,
    /// For how long.
    pub duration_seconds: i64,
    /// How long it waits.
    pub queue_timeout_seconds: Option<i64>,
    /// The user gives the devices back.
    pub release: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// It has our finalizer. Without it nothing is assigned: the devices would not be given back in order.
    pub finalizer: bool,
    /// Where it is.
    pub phase: Phase,
}

/// Where a lease is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits, perhaps with some of its devices already.
    Queued,
    /// Has its devices.
    Granted {
        /// Since when, in seconds.
        since: i64,
        /// Which.
        devices: Vec<DeviceId>,
    },
    /// Is over for good.
    Ended,
}

/// Some devices that are alike.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name in the lease.
    pub name: String,
    /// Which will do.
    pub candidates: Candidates,
    /// How many.
    pub count: usize,
}

/// Which devices will do.
#[derive(Clone, Debug)]
pub enum Candidates {
    /// Those of a class.
    OfClass(String),
    /// Those with these labels.
    Labelled(Labels),
    /// Those of these names.
    Named(Vec<String>),
}

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Who may use it.
    pub allowed: Allowed,
    /// Which devices of its namespace it gives out; empty means all.
    pub device_selector: Labels,
    /// The highest priority.
    pub max_priority: i32,
    /// The longest duration.
    pub max_duration_seconds: i64,
    /// Whether it serves leases that name no queue.
    pub is_default: bool,
}

/// Which namespaces may use a queue.
#[derive(Clone, Debug)]
pub enum Allowed {
    /// The queue's own.
    Same,
    /// Those with these labels.
    Selector(Labels),
    /// All.
    All,
}

impl Lease {
    /// Over for good: it gets nothing more, and what it has is taken back.
    pub fn has_ended(&self) -> bool {
        self.deleting || self.phase == Phase::Ended
    }
}

impl World {
    /// The devices that name the lease as holder.
    pub fn held_by(&self, lease: &LeaseUid) -> Vec<(&DeviceId, &Device)> {
        self.devices.iter().filter(|(_, device)| device.holder.as_ref() == Some(lease)).collect()
    }
}

/// Whether `labels` has everything that `selector` wants.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for LeaseUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
