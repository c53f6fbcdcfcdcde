//! Objects as users write them, through the view: what becomes of them in the core, and what is said about them.

use edgeyard_crds::device::{DeviceState, EdgeDevice};
use edgeyard_crds::device_class::EdgeDeviceClass;
use edgeyard_crds::lease::{DeviceLease, LeasePhase};
use edgeyard_crds::queue::LeaseQueue;
use k8s_openapi::api::core::v1::Node;
use serde::de::DeserializeOwned;

use super::core::life::{Place, Step};
use super::core::{Allowed, Availability, Candidates, DeviceId, Phase, World};
use super::view::{self, device_facts};
use super::{device, device_class, device_lease};
use crate::frame::clock::Timestamp;
use crate::frame::conditions::{find, is_true};
use crate::frame::names::reason;

const CLASS: &str = "
apiVersion: edgeyard.dev/v1alpha1
kind: EdgeDeviceClass
metadata: {name: m4}
spec:
  fidelity: Emulated
  isolation: Unit
  targets: [tflm]
  limits: {flash: 4Mi, memory: 4Mi, arena: 256Ki}
  backend: {type: CortexM, cortexM: {machine: mps2-an386, icountShift: 6}}
  runner: {resources: {limits: {cpu: '1', memory: 512Mi}}}
";
const DEVICE: &str = "
apiVersion: edgeyard.dev/v1alpha1
kind: EdgeDevice
metadata: {name: m4-0, namespace: lab, uid: 5e2d, generation: 3, labels: {site: berlin}}
spec: {deviceClassName: m4, connection: {type: Emulator}}
";
const LEASE: &str = "
apiVersion: edgeyard.dev/v1alpha1
kind: DeviceLease
metadata: {name: booking, namespace: vision, uid: u1, generation: 2, creationTimestamp: '1970-01-01T00:01:40Z'}
spec:
  queueRef: {namespace: lab, name: shared}
  requests: [{name: target, deviceClassName: m4, count: 1}]
";

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

fn node(name: &str, ready: &str, cordoned: bool) -> std::sync::Arc<Node> {
    let text = format!(
        "metadata: {{name: {name}}}\nspec: {{unschedulable: {cordoned}}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}"
    );
    std::sync::Arc::new(yaml(&text))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn an_emulator_stands_on_the_only_node_there_is() {
    let (device, class): (EdgeDevice, EdgeDeviceClass) = (yaml(DEVICE), yaml(CLASS));
    let seen = |nodes: &[_]| view::device(&device, Some(&class), nodes).node;
    assert_eq!(seen(&[node("n", "True", false)]).as_deref(), Some("n"));
    assert_eq!(seen(&[node("n", "True", false), node("m", "True", false)]), None);
    assert_eq!(seen(&[node("n", "True", false), node("m", "False", false)]).as_deref(), Some("n"));
    let seen = view::device(&device, Some(&class), &[node("n", "True", false)]);
    assert_eq!((seen.availability, seen.class.as_str(), seen.uid.as_str()), (Availability::Usable, "m4", "5e2d"));
    assert_eq!(seen.labels["site"], "berlin");
}

#[test]
fn what_keeps_a_device_from_being_leased_is_said() {
    let class: EdgeDeviceClass = yaml(CLASS);
    let on_node = DEVICE.replace("{type: Emulator}", "{type: Node, node: {name: n}}");
    let no_nodes: [std::sync::Arc<Node>; 0] = [];
    let said = |text: &str, class, nodes: &[_]| {
        let device: EdgeDevice = yaml(text);
        let facts = device_facts(&device, class, nodes);
        let status = device::status(&device, &facts, at(9));
        assert_eq!(status.observed_generation, 3);
        let ready = find(&status.conditions, "Ready").unwrap();
        (facts.availability(), status.state.unwrap(), ready.reason.clone(), ready.status == "True")
    };
    let offline = |reason: &str| (Availability::Offline, DeviceState::Offline, reason.to_owned(), false);
    assert_eq!(said(DEVICE, None, &no_nodes), offline(reason::DEVICE_CLASS_NOT_FOUND));
    assert_eq!(said(&on_node, Some(&class), &no_nodes), offline(reason::NODE_NOT_FOUND));
    assert_eq!(said(&on_node, Some(&class), &[node("n", "False", false)]), offline(reason::NODE_NOT_READY));
    assert_eq!(said(&on_node, Some(&class), &[node("n", "True", true)]), offline(reason::NODE_NOT_READY));
    let broken: EdgeDeviceClass = yaml(&CLASS.replace("[tflm]", "[tpu]"));
    assert_eq!(said(DEVICE, Some(&broken), &no_nodes), offline(reason::DEVICE_CLASS_NOT_READY));
    let held = DEVICE.replace("{deviceClassName", "{stopPolicy: Hold, deviceClassName");
    let held = said(&held, Some(&class), &no_nodes);
    assert_eq!(held, (Availability::Held, DeviceState::Held, reason::HELD.to_owned(), true));
}

#[test]
fn complaints_about_a_class_name_the_field() {
    let complaint = |from: &str, to: &str| {
        assert!(CLASS.contains(from));
        device_class::complaint(&yaml::<EdgeDeviceClass>(&CLASS.replace(from, to)).spec).map(|c| (c.reason, c.message))
    };
    assert_eq!(device_class::complaint(&yaml::<EdgeDeviceClass>(CLASS).spec), None);
    let invalid = |from, to, part: &str| {
        let (reason, message) = complaint(from, to).unwrap();
        assert_eq!(reason, reason::INVALID_SPEC);
        assert!(message.contains(part), "{message}");
    };
    assert_eq!(complaint("[tflm]", "[tflm, tpu]").unwrap().0, reason::UNKNOWN_TARGET);
    invalid("[tflm]", "[tflm, litert]", "litert does not run on a Cortex-M");
    invalid("mps2-an386", "mps2-an999", "mps2-an385, mps2-an386");
    invalid("{type: CortexM, cortexM: {machine: mps2-an386, icountShift: 6}}", "{type: Runtime}", "backend.type");
    invalid("{type: CortexM, cortexM: {machine: mps2-an386, icountShift: 6}}", "{type: CortexM}", "backend.cortexM");
    let serial = "{type: CortexM, cortexM: {machine: nrf52840, serialPort: /dev/ttyUSB0}}";
    invalid("{type: CortexM, cortexM: {machine: mps2-an386, icountShift: 6}}", serial, "set fidelity to Hardware");
    let board = CLASS
        .replace("{type: CortexM, cortexM: {machine: mps2-an386, icountShift: 6}}", serial)
        .replace("fidelity: Emulated", "fidelity: Hardware");
    let (_, message) =
        device_class::complaint(&yaml::<EdgeDeviceClass>(&board).spec).map(|c| (c.reason, c.message)).unwrap();
    assert!(message.contains("runner.deviceNodes: must name /dev/ttyUSB0"), "{message}");
    let board = board.replace("runner: {", "runner: {deviceNodes: [/dev/ttyUSB0], ");
    assert_eq!(device_class::complaint(&yaml::<EdgeDeviceClass>(&board).spec), None);
    invalid("arena: 256Ki", "arena: 8Mi", "limits.arena");
    invalid("arena: 256Ki", "arena: '0'", "limits.arena");
}

#[test]
fn a_lease_through_its_life() {
    let mut lease: DeviceLease = yaml(LEASE);
    let seen = view::lease(&lease);
    assert_eq!((seen.created, seen.duration_seconds, seen.finalizer, &seen.phase), (100, 900, false, &Phase::Queued));
    assert!(matches!(&seen.requests.unwrap()[0].candidates, Candidates::OfClass(class) if class == "m4"));

    let device = DeviceId { namespace: "lab".into(), name: "m4-0".into() };
    let place = Place { request: "target".into(), index: 0, device: device.clone(), token: 77 };
    let mut world = World::default();
    world.devices.insert(device.clone(), view::device(&yaml(DEVICE), None, &[node("n", "True", false)]));
    let status = device_lease::status(&lease, &Step::Grant(vec![place]), &world, at(1000)).unwrap();
    assert_eq!(status.phase, Some(LeasePhase::Granted));
    assert_eq!(status.expiration_time.as_ref().unwrap().0, at(1900));
    assert_eq!((status.grants[0].device_ref.uid.0.as_str(), status.grants[0].fencing_token), ("5e2d", 77));
    assert!(is_true(&status.conditions, "Granted") && is_true(&status.conditions, "Ready"));
    lease.status = Some(status.clone());
    assert_eq!(view::lease(&lease).phase, Phase::Granted { since: 1000, devices: vec![device] });

    // Later the lease is extended: only the time changes, and the grant stays.
    let held = device_lease::status(&lease, &Step::Hold { expires: 2500 }, &world, at(1500)).unwrap();
    assert_eq!((held.expiration_time.as_ref().unwrap().0, &held.grants), (at(2500), &status.grants));
    assert_eq!(held.conditions, status.conditions);

    let ending = super::core::life::Ending { released: false, reason: reason::LEASE_EXPIRED, message: "over".into() };
    let ended = device_lease::status(&lease, &Step::End(ending), &world, at(2500)).unwrap();
    assert_eq!(ended.phase, Some(LeasePhase::Expired));
    let granted = find(&ended.conditions, "Granted").unwrap();
    assert_eq!((granted.status.as_str(), granted.reason.as_str()), ("False", reason::LEASE_EXPIRED));
    assert_eq!(granted.last_transition_time.0, at(2500));
    lease.status = Some(ended);
    assert!(view::lease(&lease).has_ended());
}

#[test]
fn a_queue_admits_its_own_namespace_unless_it_says_more() {
    let queue =
        |spec: &str| view::queue(&yaml::<LeaseQueue>(&format!("metadata: {{name: q, namespace: lab}}\nspec: {spec}")));
    assert!(matches!(queue("{}").allowed, Allowed::Same));
    assert!(matches!(queue("{allowedNamespaces: {from: All}}").allowed, Allowed::All));
    // Older than the rule that asks for a selector.
    assert!(matches!(queue("{allowedNamespaces: {from: Selector}}").allowed, Allowed::Same));
    assert!(!queue("{}").is_default);
}
