//! Builds the Secret and the Job of an artefact. Pure.

use std::collections::BTreeMap;

use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_job::JobSpec;
use edgeyard_plan::optimization::PlannedArtifact;
use edgeyard_plan::{names, pods};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;

use crate::frame::Settings;
use crate::frame::names::label;
use crate::work::template::{self, Identity, Program, Volumes};

/// What an artefact's job is called and whose it is.
pub fn identity(
    object: &ModelOptimization,
    owner: OwnerReference,
    artifact: &PlannedArtifact,
    attempt: u32,
) -> Identity {
    let PlannedArtifact { variant, target, passes: _ } = artifact;
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    Identity {
        namespace: object.namespace().unwrap_or_default(),
        name: names::job(&name, &uid, &[variant, target], attempt),
        labels: BTreeMap::from([
            (label::MODEL_OPTIMIZATION.to_owned(), name),
            (label::VARIANT.to_owned(), variant.clone()),
            (label::TARGET.to_owned(), target.clone()),
            (label::ATTEMPT.to_owned(), attempt.to_string()),
        ]),
        annotations: BTreeMap::new(),
        owner,
    }
}

/// The objects of a job.
pub fn objects(
    settings: &Settings,
    identity: &Identity,
    artifact: &PlannedArtifact,
    spec: &JobSpec,
    deadline_seconds: i64,
) -> (Secret, Job) {
    let shape = pods::optimizer(&artifact.target);
    let pod = template::pod(settings, Program::Optimizer, &identity.name, &shape, &Volumes::default());
    (template::secret(identity, spec), template::job(identity, pod, deadline_seconds))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use edgeyard_job::spec::{Identity as JobIdentity, StoreAccess};
    use edgeyard_plan::jobs::{Digests, optimize_spec};
    use edgeyard_plan::optimization::validate;
    use kube::Resource as _;

    use super::*;

    const MINIMAL: &str = r"
apiVersion: edgeyard.dev/v1alpha1
kind: ModelOptimization
metadata: {name: mnist, namespace: vision, uid: 19ab0000-0000-4000-8000-000000000000}
spec:
  source: {format: ONNX, artifact: {digest: 'sha256:51c2000000000000000000000000000000000000000000000000000000000000'}}
  variants:
  - {name: fp32, targets: [ort-x86, litert], passes: []}
";

    #[test]
    fn a_job_runs_once_and_is_found_by_its_labels() {
        let object: ModelOptimization = serde_yaml::from_str(MINIMAL).unwrap();
        let plan = validate(object.spec.clone()).unwrap();
        let artifact = &plan.artifacts[1];
        let owner = object.controller_owner_ref(&()).unwrap();
        let identity = identity(&object, owner, artifact, 2);
        let who = JobIdentity { namespace: "vision".into(), name: "mnist".into(), uid: "k".into(), attempt: 2 };
        let store = StoreAccess { url: "https://store".into(), certificate_authority: None, grant: "eyg1.x.y".into() };
        let digests = Digests::from([("source".to_owned(), "sha256:51c2".to_owned())]);
        let spec = optimize_spec(who, store, &plan, artifact, &digests).unwrap();
        let (secret, job) = objects(&Settings::parse_from(["x"]), &identity, artifact, &spec, 100);
        assert_eq!(secret.metadata.name, job.metadata.name);
        let written = &secret.data.unwrap()["job.json"].0;
        assert_eq!(JobSpec::parse(std::str::from_utf8(written).unwrap()).unwrap(), spec);
        let batch = job.spec.unwrap();
        assert_eq!((batch.backoff_limit, batch.active_deadline_seconds), (Some(0), Some(100)));
        let labels = batch.template.metadata.unwrap().labels.unwrap();
        assert_eq!(labels["edgeyard.dev/target"], "litert");
        assert_eq!(labels["edgeyard.dev/attempt"], "2");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "edgeyard");
        assert_eq!(job.metadata.owner_references.unwrap()[0].controller, Some(true));
        let pod = batch.template.spec.unwrap();
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
        assert!(pod.containers[0].command.as_ref().unwrap().ends_with(&["/etc/edgeyard/job.json".to_owned()]));
    }
}
