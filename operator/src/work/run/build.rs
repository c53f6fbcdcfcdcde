//! Builds a run's DeviceLease, and the Secret and pod of an attempt. Pure.

use std::collections::BTreeMap;

use edgeyard_artifact::grant::Claims;
use edgeyard_crds::device::{EdgeDevice, Link};
use edgeyard_crds::lease::{DeviceLease, DeviceLeaseSpec, Grant};
use edgeyard_crds::run::BenchmarkRun;
use edgeyard_job::JobSpec;
use edgeyard_plan::benchmark::DeviceClass;
use edgeyard_plan::names;
use edgeyard_plan::run::{Run, lease_seconds};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use serde_json::json;

use crate::frame::Settings;
use crate::frame::names::{MANAGED_BY, MANAGER, label};
use crate::work::template::{self, Identity, Program, Volumes};

/// Annotation of a runner pod: the namespace of its BenchmarkRun.
pub const RUN_NAMESPACE: &str = "edgeyard.dev/run-namespace";
/// Label of a runner pod: the UID of its BenchmarkRun. Runs of all namespaces meet in a lab's.
const RUN_UID: &str = "edgeyard.dev/run-uid";

/// Finds all pods and Secrets of a run in the device's namespace.
pub fn selector(object: &BenchmarkRun) -> String {
    format!("{RUN_UID}={}", object.uid().unwrap_or_default())
}

/// The lease of a run: one device, long enough for one attempt. Named like the run.
pub fn lease(object: &BenchmarkRun, owner: OwnerReference, run: &Run, release: bool) -> DeviceLease {
    let labels = BTreeMap::from([
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        (label::BENCHMARK.to_owned(), run.benchmark.clone()),
        (label::RUN.to_owned(), object.name_any()),
    ]);
    DeviceLease {
        metadata: ObjectMeta {
            name: object.metadata.name.clone(),
            namespace: object.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: DeviceLeaseSpec {
            queue_ref: run.queue.clone(),
            priority: run.priority,
            requests: vec![run.request.clone()],
            duration_seconds: lease_seconds(run),
            // The run's own deadline can be extended, a lease's cannot.
            queue_timeout_seconds: None,
            release,
        },
        status: None,
    }
}

/// The claims of an attempt's grant.
pub fn claims(object: &BenchmarkRun, attempt: u32, grant: &Grant, reads: &[String], expires_at: i64) -> Claims {
    let device = &grant.device_ref;
    Claims {
        device: Some(format!("{}/{}", device.namespace, device.name)),
        fencing_token: Some(grant.fencing_token),
        ..template::claims(
            &object.namespace().unwrap_or_default(),
            &object.uid().unwrap_or_default(),
            attempt,
            reads,
            expires_at,
        )
    }
}

/// What an attempt's pod and Secret are called; both live beside the device.
pub fn identity(object: &BenchmarkRun, lease_uid: &str, grant: &Grant, attempt: u32) -> Identity {
    let device = &grant.device_ref;
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    Identity {
        namespace: device.namespace.0.clone(),
        name: names::runner(&name, &uid, attempt),
        labels: BTreeMap::from([
            (label::BENCHMARK.to_owned(), object.spec.benchmark_name.0.clone()),
            (label::RUN.to_owned(), name),
            (RUN_UID.to_owned(), uid),
            (label::LEASE.to_owned(), lease_uid.to_owned()),
            (label::ATTEMPT.to_owned(), attempt.to_string()),
        ]),
        annotations: BTreeMap::from([(RUN_NAMESPACE.to_owned(), object.namespace().unwrap_or_default())]),
        owner: OwnerReference {
            api_version: EdgeDevice::api_version(&()).into_owned(),
            kind: EdgeDevice::kind(&()).into_owned(),
            name: device.name.0.clone(),
            uid: device.uid.0.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        },
    }
}

/// The pod of an attempt, on the device's node if it has one.
pub fn pod(settings: &Settings, identity: &Identity, class: &DeviceClass, device: &EdgeDevice, run: &Run) -> Pod {
    let recording = class.meter.as_ref().and_then(|meter| meter.config_map.as_deref());
    let volumes = Volumes::of_run(recording, settings.node_agent_port);
    let mut spec = template::pod(settings, Program::DeviceRunner, &identity.name, &class.shape, &volumes);
    // The run's own deadlines come first; this one holds when no operator is there to keep them.
    spec.active_deadline_seconds = Some(lease_seconds(run));
    if let Ok(Link::Node(node)) = device.spec.connection.clone().validate() {
        // By field, not by hostname label, which some clouds give another value. The scheduler still checks the room.
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node.name.0]}]}],
        }}});
        spec.affinity = Some(serde_json::from_value(affinity).expect("the template is an affinity"));
    }
    Pod { metadata: identity.metadata(), spec: Some(spec), status: None }
}

/// The Secret of an attempt's pod. It belongs to the pod and goes with it, whoever removes the pod.
pub fn secret(identity: &Identity, spec: &JobSpec, pod: &Pod) -> Secret {
    let owner = OwnerReference {
        api_version: Pod::api_version(&()).into_owned(),
        kind: Pod::kind(&()).into_owned(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    template::secret(&Identity { owner, ..identity.clone() }, spec)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use edgeyard_plan::benchmark::device_class;
    use edgeyard_plan::run::validate;

    use super::*;

    const RUN: &str = r"
apiVersion: edgeyard.dev/v1alpha1
kind: BenchmarkRun
metadata: {name: b-host-0, namespace: vision, uid: 19ab0000-0000-4000-8000-000000000000}
spec:
  benchmarkName: b
  device: {name: host, deviceClassName: host-cpu}
  queueRef: {namespace: edgeyard-lab, name: shared}
  priority: 7
  variants:
  - {model: m, variant: v, target: litert, format: TFLite, digest: 'sha256:c7d1000000000000000000000000000000000000000000000000000000000000', sizeBytes: 1}
  timeouts: {prepareSeconds: 50, runSeconds: 200}
";
    const DEVICE: &str = r"
apiVersion: edgeyard.dev/v1alpha1
kind: EdgeDevice
metadata: {name: host-cpu-0, namespace: edgeyard-lab}
spec: {deviceClassName: host-cpu, connection: {type: Node, node: {name: worker-1}}}
";
    const CLASS: &str = "{fidelity: Hardware, isolation: Node, targets: [litert], backend: {type: Runtime}, runner: {resources: {limits: {cpu: '1', memory: 1Gi}}}}";

    fn grant() -> Grant {
        serde_yaml::from_str("{request: host, index: 0, deviceRef: {namespace: edgeyard-lab, name: host-cpu-0, uid: d}, fencingToken: 5}").unwrap()
    }

    #[test]
    fn the_lease_lasts_for_one_attempt() {
        let object: BenchmarkRun = serde_yaml::from_str(RUN).unwrap();
        let run = validate(object.spec.clone()).unwrap();
        let lease = lease(&object, object.controller_owner_ref(&()).unwrap(), &run, false);
        assert_eq!(lease.metadata.name, object.metadata.name);
        assert_eq!((lease.spec.duration_seconds, lease.spec.priority), (50 + 200 + 30 + 60, 7));
        assert_eq!(lease.spec.requests[0].count, 1);
    }

    #[test]
    fn a_real_device_is_measured_on_its_node_in_a_guaranteed_pod() {
        let object: BenchmarkRun = serde_yaml::from_str(RUN).unwrap();
        let run = validate(object.spec.clone()).unwrap();
        let class = device_class("host-cpu", serde_yaml::from_str(CLASS).unwrap()).unwrap();
        let device: EdgeDevice = serde_yaml::from_str(DEVICE).unwrap();
        let identity = identity(&object, "lease-uid", &grant(), 3);
        let made = pod(&Settings::parse_from(["x"]), &identity, &class, &device, &run);
        assert_eq!(made.metadata.namespace.as_deref(), Some("edgeyard-lab"));
        let labels = made.labels();
        assert_eq!(
            (labels["edgeyard.dev/lease"].as_str(), labels["edgeyard.dev/attempt"].as_str()),
            ("lease-uid", "3")
        );
        assert_eq!(made.annotations()[RUN_NAMESPACE], "vision");
        assert_eq!(made.owner_references()[0].kind, "EdgeDevice");
        let spec = made.spec.unwrap();
        let resources = spec.containers[0].resources.clone().unwrap();
        assert_eq!(resources.requests, resources.limits);
        assert!(!serde_json::to_string(&spec).unwrap().contains("recording"));
        let affinity = serde_json::to_string(&spec.affinity).unwrap();
        assert!(affinity.contains("metadata.name") && affinity.contains("worker-1"), "{affinity}");
        let claims = claims(&object, 3, &grant(), &[], 9);
        assert_eq!((claims.device.as_deref(), claims.fencing_token), (Some("edgeyard-lab/host-cpu-0"), Some(5)));
        assert_eq!((claims.namespace.as_str(), claims.attempt), ("vision", 3));
    }

    #[test]
    fn a_recorded_meter_is_mounted_and_the_nodes_agent_is_named() {
        let object: BenchmarkRun = serde_yaml::from_str(RUN).unwrap();
        let run = validate(object.spec.clone()).unwrap();
        let with_meter = CLASS.replacen('{', "{meters: [{type: Replay, replay: {configMapName: recorded}}], ", 1);
        let class = device_class("host-cpu", serde_yaml::from_str(&with_meter).unwrap()).unwrap();
        let device: EdgeDevice = serde_yaml::from_str(DEVICE).unwrap();
        let identity = identity(&object, "lease-uid", &grant(), 1);
        let settings = Settings::parse_from(["x", "--node-agent-port=9400"]);
        let made = pod(&settings, &identity, &class, &device, &run).spec.unwrap();
        let recording = made.volumes.unwrap().into_iter().find(|volume| volume.name == "recording").unwrap();
        assert_eq!(recording.config_map.unwrap().name, "recorded");
        let environment = made.containers[0].env.clone().unwrap();
        assert_eq!(environment[1].value.as_deref(), Some("http://$(HOST_IP):9400"));
    }
}
