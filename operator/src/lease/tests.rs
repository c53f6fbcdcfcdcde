//! Leases against a mocked API server: what is asked, in which order, and what is never written.

use std::sync::Arc;

use edgeyard_crds::device::{DeviceState, EdgeDevice};
use edgeyard_crds::lease::DeviceLease;
use serde_json::{Value, json};

use super::core::DeviceId;
use super::give_back::{Progress, give_back};
use super::lab::Lab;
use super::{device, device_lease};
use crate::frame::mock::{Exchange, context, finish};
use crate::frame::{Error, Requeue, write};

const NOW: &str = "2026-11-23T09:00:00Z";
const UID: &str = "19ab0000-0000-4000-8000-000000000000";
const DEVICE: &str = "/apis/edgeyard.dev/v1alpha1/namespaces/lab/edgedevices/m4-0";
const LEASE: &str = "/apis/edgeyard.dev/v1alpha1/namespaces/vision/deviceleases/booking";
const PODS: &str = "/api/v1/namespaces/lab/pods";

fn device_json(leased: bool) -> Value {
    let mut device = json!({
        "apiVersion": "edgeyard.dev/v1alpha1", "kind": "EdgeDevice",
        "metadata": { "name": "m4-0", "namespace": "lab", "uid": "5e2d", "resourceVersion": "7", "generation": 1 },
        "spec": { "deviceClassName": "qemu-cortex-m4", "connection": { "type": "Emulator" } },
        "status": { "observedGeneration": 1, "state": "Leased", "fencingToken": 1000 },
    });
    if leased {
        device["status"]["leaseRef"] = json!({ "namespace": "vision", "name": "booking", "uid": UID });
    }
    device
}

fn lease_json(phase: &str) -> Value {
    json!({
        "apiVersion": "edgeyard.dev/v1alpha1", "kind": "DeviceLease",
        "metadata": {
            "name": "booking", "namespace": "vision", "uid": UID, "resourceVersion": "40", "generation": 1,
            "creationTimestamp": "2026-11-23T08:00:00Z", "finalizers": ["edgeyard.dev/release-device", "others/stay"],
        },
        "spec": { "requests": [{ "name": "target", "deviceClassName": "qemu-cortex-m4", "count": 1 }] },
        "status": { "observedGeneration": 1, "phase": phase },
    })
}

fn pods(names: &[&str]) -> Value {
    let pod = |name: &&str| json!({ "metadata": { "name": name, "namespace": "lab", "uid": format!("uid-{name}") } });
    json!({ "apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": names.iter().map(pod).collect::<Vec<_>>() })
}

fn id() -> DeviceId {
    DeviceId { namespace: "lab".into(), name: "m4-0".into() }
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_status_write_is_a_compare_and_swap() {
    let written = |body: &Value| {
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["metadata"]["uid"], "5e2d");
        assert_eq!(body["status"]["state"], "Free");
        assert!(body["status"].get("leaseRef").is_none(), "{body}");
        assert!(body.get("spec").is_none(), "{body}");
    };
    let path = format!("{DEVICE}/status?&force=true&fieldManager=edgeyard-operator");
    let (context, server) = context(NOW, vec![Exchange::conflict("PATCH", path).with_body(written)]);
    let device: EdgeDevice = parse(device_json(true));
    let mut status = device::status_of(&device);
    // Nothing differs, so nothing is asked.
    assert!(!write::update_status(&context.client, &device, &status).await.unwrap());
    status.lease_ref = None;
    status.state = Some(DeviceState::Free);
    let error = write::update_status(&context.client, &device, &status).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    assert_eq!(error.requeue(), Requeue::Soon);
    finish(context, server).await;
}

#[tokio::test]
async fn a_device_is_free_only_after_its_pods_are_gone() {
    let freed = |body: &Value| {
        assert!(body["status"].get("leaseRef").is_none(), "{body}");
        assert_eq!(body["status"]["fencingToken"], 1000, "the token stays, so that the next is higher");
    };
    let list = format!("{PODS}?&labelSelector=edgeyard.dev%2Flease%3D{UID}");
    let script = vec![
        Exchange::new("GET", DEVICE, 200, device_json(true)),
        Exchange::new("GET", LEASE, 200, lease_json("Expired")),
        Exchange::new("GET", &*list, 200, pods(&["br-1"])),
        Exchange::new("DELETE", format!("{PODS}/br-1"), 200, json!({ "kind": "Status", "status": "Success" }))
            .with_body(|body| {
                assert_eq!(body["preconditions"]["uid"], "uid-br-1");
                assert!(body.get("gracePeriodSeconds").is_none(), "{body}");
            }),
        Exchange::new("GET", DEVICE, 200, device_json(true)),
        Exchange::new("GET", LEASE, 200, lease_json("Expired")),
        Exchange::new("GET", &*list, 200, pods(&[])),
        Exchange::new("PATCH", format!("{DEVICE}/status"), 200, device_json(false)).with_body(freed),
    ];
    let (context, server) = context(NOW, script);
    let (lab, ..) = Lab::watch(&context);
    assert_eq!(give_back(&context, &lab, &id(), UID, false).await.unwrap(), Progress::Waiting);
    assert_eq!(give_back(&context, &lab, &id(), UID, false).await.unwrap(), Progress::Free);
    drop(lab);
    finish(context, server).await;
}

#[tokio::test]
async fn a_pod_that_does_not_end_is_forced_and_told() {
    let forced = |body: &Value| assert_eq!(body["gracePeriodSeconds"], 0);
    let told = |body: &Value| {
        assert_eq!(body["reason"], "ReleaseForced");
        assert!(body["note"].as_str().unwrap().contains("br-1"), "{body}");
    };
    let script = vec![
        Exchange::new("GET", DEVICE, 200, device_json(true)),
        Exchange::new("GET", LEASE, 200, lease_json("Released")),
        Exchange::new("GET", PODS, 200, pods(&["br-1"])),
        Exchange::new("DELETE", format!("{PODS}/br-1"), 200, json!({ "kind": "Status", "status": "Success" }))
            .with_body(forced),
        Exchange::new("POST", "/apis/events.k8s.io/v1/namespaces/lab/events", 201, json!({ "metadata": {} }))
            .with_body(told),
        Exchange::new("PATCH", format!("{DEVICE}/status"), 200, device_json(false)),
    ];
    let (context, server) = context(NOW, script);
    let (lab, ..) = Lab::watch(&context);
    assert_eq!(give_back(&context, &lab, &id(), UID, true).await.unwrap(), Progress::Free);
    drop(lab);
    finish(context, server).await;
}

#[tokio::test]
async fn a_living_lease_keeps_its_device_whatever_a_cache_says() {
    let script = vec![
        Exchange::new("GET", DEVICE, 200, device_json(true)),
        Exchange::new("GET", LEASE, 200, lease_json("Granted")),
    ];
    let (context, server) = context(NOW, script);
    let (lab, ..) = Lab::watch(&context);
    assert_eq!(give_back(&context, &lab, &id(), UID, true).await.unwrap(), Progress::Alive);
    drop(lab);
    finish(context, server).await;
}

#[tokio::test]
async fn a_lease_of_the_same_name_is_not_the_holder() {
    let mut other = lease_json("Granted");
    other["metadata"]["uid"] = json!("77770000-0000-4000-8000-000000000000");
    let script = vec![
        Exchange::new("GET", DEVICE, 200, device_json(true)),
        Exchange::new("GET", LEASE, 200, other),
        Exchange::new("GET", PODS, 200, pods(&[])),
        Exchange::new("PATCH", format!("{DEVICE}/status"), 200, device_json(false)),
    ];
    let (context, server) = context(NOW, script);
    let (lab, ..) = Lab::watch(&context);
    assert_eq!(give_back(&context, &lab, &id(), UID, false).await.unwrap(), Progress::Free);
    drop(lab);
    finish(context, server).await;
}

#[tokio::test]
async fn a_deleted_lease_without_devices_is_let_go() {
    let unlocked = |body: &Value| {
        assert_eq!(body["metadata"]["finalizers"], json!(["others/stay"]));
        assert_eq!(body["metadata"]["resourceVersion"], "40");
    };
    let mut lease = lease_json("Queued");
    lease["metadata"]["deletionTimestamp"] = json!(NOW);
    let script = vec![Exchange::new("PATCH", LEASE, 200, lease.clone()).with_body(unlocked)];
    let (context, server) = context(NOW, script);
    let (lab, ..) = Lab::watch(&context);
    device_lease::reconcile(Arc::new(parse::<DeviceLease>(lease)), lab, Arc::clone(&context)).await.unwrap();
    finish(context, server).await;
}

#[tokio::test]
async fn a_new_lease_is_protected_before_anything_else() {
    let locked = |body: &Value| assert_eq!(body["metadata"]["finalizers"], json!(["edgeyard.dev/release-device"]));
    let mut lease = lease_json("Queued");
    lease["metadata"]["finalizers"] = json!([]);
    lease["status"] = Value::Null;
    let script = vec![Exchange::new("PATCH", LEASE, 200, lease.clone()).with_body(locked)];
    let (context, server) = context(NOW, script);
    let (lab, ..) = Lab::watch(&context);
    device_lease::reconcile(Arc::new(parse::<DeviceLease>(lease)), lab, Arc::clone(&context)).await.unwrap();
    finish(context, server).await;
}
