//! From objects to the core's world. Pure; what an object cannot say right becomes a reason, never a panic.

use edgeyard_crds::device::{EdgeDevice, Link, StopPolicy};
use edgeyard_crds::device_class::{EdgeDeviceClass, Isolation};
use edgeyard_crds::devices::{self, DeviceRequest};
use edgeyard_crds::lease::{DeviceLease, LeasePhase};
use edgeyard_crds::queue::{From as AllowedFrom, LeaseQueue};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::core::{
    Allowed, Availability, Candidates, Device, DeviceId, Lease, LeaseUid, Phase, Queue, QueueId, Request,
};
use super::device_class::complaint;
use crate::frame::conditions::find;
use crate::frame::finalizer;
use crate::frame::names::{DEFAULT_QUEUE, RELEASE_DEVICE, condition, reason};

/// A fact about a device as conditions tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Whether it is as it should be.
    pub holds: bool,
    /// One of [`reason`].
    pub reason: &'static str,
    /// Why, and what to do.
    pub message: String,
}

/// What is to be said of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its spec and class are in order.
    pub ready: Fact,
    /// It can be reached.
    pub online: Fact,
    /// It is held by `stopPolicy`.
    pub held: bool,
}

impl DeviceFacts {
    /// Whether it can be leased once it is free.
    pub fn availability(&self) -> Availability {
        match self {
            Self { held: true, .. } => Availability::Held,
            Self { ready, online, .. } if ready.holds && online.holds => Availability::Usable,
            _ => Availability::Offline,
        }
    }
}

/// A device's facts, from its class and all nodes.
pub fn device_facts(device: &EdgeDevice, class: Option<&EdgeDeviceClass>, nodes: &[impl AsRef<Node>]) -> DeviceFacts {
    let name = &device.spec.device_class_name;
    let ready = match class {
        None => bad(
            reason::DEVICE_CLASS_NOT_FOUND,
            format!("the EdgeDeviceClass {name} does not exist: create it, or make the device anew with another class"),
        ),
        Some(class) => match complaint(&class.spec) {
            Some(complaint) => bad(
                reason::DEVICE_CLASS_NOT_READY,
                format!("the EdgeDeviceClass {name} is not in order: {}", complaint.message),
            ),
            None => good(reason::ACCEPTED, format!("a device of class {name}")),
        },
    };
    let online = match device.spec.connection.clone().validate() {
        Err(invalid) => bad(reason::INVALID_SPEC, invalid.to_string()),
        Ok(Link::Emulator) => good(reason::EMULATED, "an emulator in the runner pod".to_owned()),
        Ok(Link::Node(node)) => node_fact(&node.name.0, nodes),
    };
    DeviceFacts { ready, online, held: device.spec.stop_policy != StopPolicy::None }
}

fn node_fact(name: &str, nodes: &[impl AsRef<Node>]) -> Fact {
    let Some(node) = nodes.iter().map(AsRef::as_ref).find(|node| node.name_any() == name) else {
        return bad(reason::NODE_NOT_FOUND, format!("node {name} does not exist: see connection.node.name"));
    };
    if !is_ready(node) {
        bad(reason::NODE_NOT_READY, format!("node {name} is not Ready: see `kubectl describe node {name}`"))
    } else if is_cordoned(node) {
        bad(reason::NODE_NOT_READY, format!("node {name} takes no pods: `kubectl uncordon {name}`"))
    } else {
        good(reason::NODE_READY, format!("node {name} is Ready"))
    }
}

/// The core's device. `nodes` are all nodes: an emulator runs on the only one there is, or on any of several.
pub fn device(device: &EdgeDevice, class: Option<&EdgeDeviceClass>, nodes: &[impl AsRef<Node>]) -> Device {
    let facts = device_facts(device, class, nodes);
    let mut open = nodes.iter().map(AsRef::as_ref).filter(|node| is_ready(node) && !is_cordoned(node));
    let node = match (device.spec.connection.node.as_ref(), open.next(), open.next()) {
        (Some(node), _, _) => Some(node.name.0.clone()),
        (None, Some(only), None) => Some(only.name_any()),
        (None, _, _) => None,
    };
    let status = device.status.as_ref();
    Device {
        uid: device.uid().unwrap_or_default(),
        class: device.spec.device_class_name.0.clone(),
        isolation: class.map_or(Isolation::Unit, |class| class.spec.isolation),
        labels: device.labels().clone(),
        node,
        availability: facts.availability(),
        draining: device.spec.stop_policy == StopPolicy::HoldAndDrain,
        holder: status.and_then(|status| status.lease_ref.as_ref()).map(|holder| LeaseUid(holder.uid.0.clone())),
        token: status.and_then(|status| status.fencing_token),
    }
}

/// The core's lease.
pub fn lease(lease: &DeviceLease) -> Lease {
    let meta = &lease.metadata;
    Lease {
        namespace: lease.namespace().unwrap_or_default(),
        name: lease.name_any(),
        queue_ref: lease
            .spec
            .queue_ref
            .as_ref()
            .map(|queue| QueueId { namespace: queue.namespace.0.clone(), name: queue.name.0.clone() }),
        priority: lease.spec.priority,
        created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        requests: lease.spec.requests.iter().map(request).collect(),
        duration_seconds: lease.spec.duration_seconds,
        queue_timeout_seconds: lease.spec.queue_timeout_seconds,
        release: lease.spec.release,
        deleting: meta.deletion_timestamp.is_some(),
        finalizer: finalizer::has(lease, RELEASE_DEVICE),
        phase: phase(lease),
    }
}

fn phase(lease: &DeviceLease) -> Phase {
    let Some(status) = &lease.status else { return Phase::Queued };
    match status.phase {
        None | Some(LeasePhase::Queued) => Phase::Queued,
        Some(LeasePhase::Granted) => Phase::Granted {
            since: find(&status.conditions, condition::GRANTED)
                .map_or(0, |granted| granted.last_transition_time.0.as_second()),
            devices: status.grants.iter().map(|grant| device_id(&grant.device_ref)).collect(),
        },
        Some(LeasePhase::Released | LeasePhase::Expired) => Phase::Ended,
    }
}

fn device_id(device: &edgeyard_crds::references::UniqueReference) -> DeviceId {
    DeviceId { namespace: device.namespace.0.clone(), name: device.name.0.clone() }
}

fn request(request: &DeviceRequest) -> Result<Request, String> {
    let count = usize::try_from(request.count).map_err(|_| format!("requests: {}: count is negative", request.name))?;
    let candidates = match request.clone().candidates() {
        Ok(devices::Candidates::OfClass(class)) => Candidates::OfClass(class.0),
        Ok(devices::Candidates::Labelled(selector)) => Candidates::Labelled(selector.match_labels),
        Ok(devices::Candidates::Named(names)) => Candidates::Named(names.into_iter().map(|name| name.0).collect()),
        Err(invalid) => return Err(format!("requests: {}: {invalid}", request.name)),
    };
    Ok(Request { name: request.name.0.clone(), candidates, count })
}

/// The core's queue.
pub fn queue(queue: &LeaseQueue) -> Queue {
    let allowed = &queue.spec.allowed_namespaces;
    Queue {
        allowed: match (allowed.from, &allowed.selector) {
            (AllowedFrom::Same, _) => Allowed::Same,
            (AllowedFrom::All, _) => Allowed::All,
            (AllowedFrom::Selector, Some(selector)) => Allowed::Selector(selector.match_labels.clone()),
            // Older than the rule that asks for a selector: nobody is let in by mistake.
            (AllowedFrom::Selector, None) => Allowed::Same,
        },
        device_selector: queue.spec.device_selector.match_labels.clone(),
        max_priority: queue.spec.max_priority,
        max_duration_seconds: queue.spec.max_duration_seconds,
        is_default: queue.annotations().get(DEFAULT_QUEUE).is_some_and(|value| value == "true"),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn good(reason: &'static str, message: String) -> Fact {
    Fact { holds: true, reason, message }
}

fn bad(reason: &'static str, message: String) -> Fact {
    Fact { holds: false, reason, message }
}
