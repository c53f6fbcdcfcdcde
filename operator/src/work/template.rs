//! Builds the Kubernetes objects of a job: the Secret with its spec, and its pod as a Job or alone. Pure.

use std::collections::BTreeMap;

use edgeyard_artifact::grant::Claims;
use edgeyard_crds::artifact_source::Origin;
use edgeyard_crds::device_class::Architecture;
use edgeyard_job::JobSpec;
use edgeyard_plan::inputs::{MOUNT, PlannedInput};
use edgeyard_plan::pods::{RECORDING, SPEC_FILE, Shape, USER};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{Job, JobSpec as BatchSpec};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use serde_json::{Value, json};

use crate::frame::names::{MANAGED_BY, MANAGER};
use crate::frame::settings::{self, Settings};

/// The key in the Secret, and the file's name.
const SPEC_KEY: &str = "job.json";
/// The one container of every job's pod.
pub const CONTAINER: &str = "job";

/// The programs of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `edgeyard-optimizer`: imports and optimises.
    Optimizer,
    /// `edgeyard-device-runner`: measures.
    DeviceRunner,
}

impl Program {
    fn binary(self) -> &'static str {
        match self {
            Self::Optimizer => "edgeyard-optimizer",
            Self::DeviceRunner => "edgeyard-device-runner",
        }
    }
}

/// What a job's objects are called and to whom they belong.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Namespace of all of them.
    pub namespace: String,
    /// Name of all of them.
    pub name: String,
    /// Labels of all of them, without [`MANAGED_BY`].
    pub labels: BTreeMap<String, String>,
    /// Annotations of all of them.
    pub annotations: BTreeMap<String, String>,
    /// Whose they are.
    pub owner: OwnerReference,
}

impl Identity {
    /// The metadata of each object.
    pub fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            annotations: Some(self.annotations.clone()).filter(|map| !map.is_empty()),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        labels
    }
}

/// The image for a shape: its class's own, or the operator's for a compiler or for its architecture.
pub fn image<'a>(settings: &'a Settings, shape: &'a Shape) -> &'a str {
    let compiler = settings.compiler_image.as_deref().filter(|_| shape.compiles);
    shape.image.as_deref().or(compiler).unwrap_or_else(|| {
        settings.worker_image(match shape.architecture {
            Architecture::Amd64 => settings::Architecture::Amd64,
            Architecture::Arm64 => settings::Architecture::Arm64,
        })
    })
}

/// The Secret that carries a job spec; a Secret, because the spec holds the grant.
pub fn secret(identity: &Identity, spec: &JobSpec) -> Secret {
    let json = serde_json::to_vec(spec).expect("a job spec is JSON");
    Secret {
        metadata: identity.metadata(),
        data: Some(BTreeMap::from([(SPEC_KEY.to_owned(), ByteString(json))])),
        type_: Some("edgeyard.dev/job-spec".to_owned()),
        ..Secret::default()
    }
}

/// The pod of a job: restricted, without a ServiceAccount token, with nothing to write to but `/tmp`.
pub fn pod(settings: &Settings, program: Program, secret: &str, shape: &Shape, extra: &Volumes) -> PodSpec {
    let mut volumes = vec![
        json!({"name": "spec", "secret": {"secretName": secret, "defaultMode": 0o444}}),
        json!({"name": "tmp", "emptyDir": {}}),
    ];
    let folder = SPEC_FILE.trim_end_matches(SPEC_KEY).trim_end_matches('/');
    let mut mounts = vec![
        json!({"name": "spec", "mountPath": folder, "readOnly": true}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
    ];
    volumes.extend(extra.volumes.iter().cloned());
    mounts.extend(extra.mounts.iter().cloned());
    for (index, path) in shape.device_nodes.iter().enumerate() {
        volumes.push(json!({"name": format!("device-{index}"), "hostPath": {"path": path}}));
        mounts.push(json!({"name": format!("device-{index}"), "mountPath": path}));
    }
    let mut container = json!({
        "name": CONTAINER,
        "image": image(settings, shape),
        "imagePullPolicy": settings.worker_pull_policy,
        "command": [program.binary(), "job", "--spec", SPEC_FILE],
        "resources": {"requests": shape.requests, "limits": shape.limits},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        // The last lines of the log are better than nothing when a program had no time for last words.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    if let Some(secret) = &extra.environment_from {
        container["envFrom"] = json!([{"secretRef": {"name": secret}}]);
    }
    if !extra.environment.is_empty() {
        container["env"] = Value::Array(extra.environment.clone());
    }
    let pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    });
    serde_json::from_value(pod).expect("the template is a pod")
}

/// A Job that runs a pod once.
pub fn job(identity: &Identity, pod: PodSpec, deadline_seconds: i64) -> Job {
    Job {
        metadata: identity.metadata(),
        spec: Some(BatchSpec {
            // Retries are ours: they need a new attempt, and so a new spec and a new grant.
            backoff_limit: Some(0),
            active_deadline_seconds: Some(deadline_seconds.max(1)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(identity.labels()),
                    annotations: Some(identity.annotations.clone()).filter(|map| !map.is_empty()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..BatchSpec::default()
        }),
        ..Job::default()
    }
}

/// What a pod mounts beyond its spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volumes {
    volumes: Vec<Value>,
    mounts: Vec<Value>,
    environment_from: Option<String>,
    environment: Vec<Value>,
}

impl Volumes {
    /// What a run needs: the recorded series of its meter, and where the agent of its node answers.
    pub fn of_run(recording: Option<&str>, agent_port: Option<u16>) -> Self {
        let mut all = Self::default();
        if let Some(name) = recording {
            all.volumes.push(json!({"name": "recording", "configMap": {"name": name}}));
            all.mounts.push(json!({"name": "recording", "mountPath": RECORDING, "readOnly": true}));
        }
        if let Some(port) = agent_port {
            all.environment = vec![
                json!({"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}),
                json!({"name": "EDGEYARD_NODE_AGENT", "value": format!("http://$(HOST_IP):{port}")}),
            ];
        }
        all
    }

    /// What an import needs: ConfigMap keys and claims at `/inputs/NAME/…`, credentials in the environment.
    pub fn of_inputs(inputs: &[PlannedInput], credentials: Option<String>) -> Self {
        let mut all = Self { environment_from: credentials, ..Self::default() };
        for input in inputs {
            let volume = format!("input-{}", input.name);
            let source = match &input.origin {
                Origin::Stored(_) | Origin::Remote { .. } => continue,
                Origin::ConfigMap { key, .. } => json!({
                    "name": volume,
                    "configMap": {"name": key.name.0, "items": [{"key": key.key, "path": key.key}]},
                }),
                Origin::Claim { file, .. } => json!({
                    "name": volume,
                    "persistentVolumeClaim": {"claimName": file.claim_name.0, "readOnly": true},
                }),
            };
            all.volumes.push(source);
            let path = format!("{MOUNT}/{}", input.name);
            all.mounts.push(json!({"name": volume, "mountPath": path, "readOnly": true}));
        }
        all
    }
}

/// The claims of a pod's grant.
pub fn claims(namespace: &str, key: &str, attempt: u32, reads: &[String], expires_at: i64) -> Claims {
    Claims {
        namespace: namespace.to_owned(),
        uid: key.to_owned(),
        attempt,
        device: None,
        fencing_token: None,
        read: reads.iter().filter_map(|digest| digest.parse().ok()).collect(),
        expires_at,
        key_id: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use edgeyard_plan::{optimization, pods};

    use super::*;

    const MINIMAL: &str = r"
source: {format: ONNX, artifact: {configMapKeyRef: {name: mnist, key: mnist.onnx}}}
evaluation: {dataset: {persistentVolumeClaim: {claimName: data, path: a/test.npz}}, metric: Top1Accuracy}
variants:
- {name: fp32, targets: [ort-x86], passes: []}
";

    #[test]
    fn pods_keep_to_the_restricted_profile() {
        let plan = optimization::validate(serde_yaml::from_str(MINIMAL).unwrap()).unwrap();
        let settings = Settings::parse_from(["edgeyard-operator", "--worker-image", "worker:1"]);
        let volumes = Volumes::of_inputs(&plan.inputs, Some("credentials".into()));
        let pod = pod(&settings, Program::Optimizer, "s", &pods::import(), &volumes);
        assert_eq!(pod.automount_service_account_token, Some(false));
        let context = pod.security_context.unwrap();
        assert_eq!((context.run_as_non_root, context.run_as_user), (Some(true), Some(65_532)));
        assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
        let container = &pod.containers[0];
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.read_only_root_filesystem, Some(true));
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.capabilities.as_ref().unwrap().drop.as_ref().unwrap(), &["ALL"]);
        assert_eq!(container.image.as_deref(), Some("worker:1"));
        assert_eq!(container.env_from.as_ref().unwrap().len(), 1);
        let mounts: Vec<_> = container.volume_mounts.as_ref().unwrap().iter().map(|m| m.mount_path.as_str()).collect();
        assert_eq!(mounts, ["/etc/edgeyard", "/tmp", "/inputs/source", "/inputs/evaluation"]);
    }

    #[test]
    fn jobs_that_compile_get_the_compilers_image() {
        let with = Settings::parse_from(["x", "--worker-image", "small", "--compiler-image", "large"]);
        assert_eq!(image(&with, &pods::optimizer("ethos-u")), "large");
        assert_eq!(image(&with, &pods::optimizer("tflm")), "small");
        assert_eq!(image(&with, &pods::import()), "small");
        let without = Settings::parse_from(["x", "--worker-image", "small"]);
        assert_eq!(image(&without, &pods::optimizer("ethos-u")), "small");
    }

    #[test]
    fn arm64_devices_get_their_own_image() {
        let settings = Settings::parse_from(["x", "--worker-image", "amd", "--worker-image-arm64", "arm"]);
        let shape = Shape { architecture: Architecture::Arm64, ..pods::optimizer("litert") };
        assert_eq!(image(&settings, &shape), "arm");
        assert_eq!(image(&settings, &pods::optimizer("litert")), "amd");
        assert_eq!(image(&settings, &Shape { image: Some("own".into()), ..shape }), "own");
    }
}
