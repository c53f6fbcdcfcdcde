//! Builds a BenchmarkRun. Pure.

use std::collections::BTreeMap;

use edgeyard_crds::benchmark::{EdgeBenchmark, Workload};
use edgeyard_crds::run::{BenchmarkRun, BenchmarkRunSpec, PinnedEvaluation};
use edgeyard_crds::scalars::{Digest, ObjectName};
use edgeyard_plan::benchmark::{Benchmark, PlannedRun};
use edgeyard_plan::run::seed_of;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;

use crate::frame::names::{MANAGED_BY, MANAGER, label};
use crate::work::series::DEVICE_CLASS;

/// A run as it is planned. `accuracy` is the digest of the data set, if predictions are scored.
pub fn run(
    object: &EdgeBenchmark,
    owner: OwnerReference,
    plan: &Benchmark,
    planned: PlannedRun,
    accuracy: Option<&str>,
) -> BenchmarkRun {
    let PlannedRun { name, request, unit, class, variants } = planned;
    // One seed for all runs: what is compared has to be fed the same.
    let seed = plan.workload.seed.unwrap_or_else(|| seed_of(object.uid().as_deref().unwrap_or_default()));
    let accuracy = accuracy
        .zip(plan.metric)
        .map(|(digest, metric)| PinnedEvaluation { digest: Digest(digest.to_owned()), metric });
    BenchmarkRun {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: object.namespace(),
            labels: Some(BTreeMap::from([
                (MANAGED_BY.to_owned(), MANAGER.to_owned()),
                (label::BENCHMARK.to_owned(), object.name_any()),
                (DEVICE_CLASS.to_owned(), class),
            ])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: BenchmarkRunSpec {
            benchmark_name: ObjectName(object.name_any()),
            device: request,
            unit,
            queue_ref: plan.queue.clone(),
            priority: plan.priority,
            workload: Workload { seed: Some(seed), ..plan.workload.clone() },
            variants,
            accuracy,
            energy: plan.energy,
            cool_down_celsius: plan.cool_down_celsius,
            timeouts: plan.timeouts.clone(),
            device_loss: plan.device_loss.clone(),
            suspend: plan.suspend,
            cancel: plan.cancel,
        },
        status: None,
    }
}

/// The run with what the user may change; `None` if nothing changed.
pub fn changed(run: &BenchmarkRun, plan: &Benchmark) -> Option<BenchmarkRun> {
    let spec = BenchmarkRunSpec {
        priority: plan.priority,
        timeouts: plan.timeouts.clone(),
        suspend: plan.suspend,
        cancel: plan.cancel || run.spec.cancel,
        ..run.spec.clone()
    };
    (spec != run.spec).then(|| BenchmarkRun {
        metadata: ObjectMeta {
            name: run.metadata.name.clone(),
            namespace: run.metadata.namespace.clone(),
            labels: run.metadata.labels.clone(),
            owner_references: run.metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use edgeyard_plan::benchmark::validate;
    use kube::Resource as _;

    use super::*;

    const MINIMAL: &str = r"
apiVersion: edgeyard.dev/v1alpha1
kind: EdgeBenchmark
metadata: {name: mnist, namespace: vision, uid: 19ab0000-0000-4000-8000-000000000000}
spec:
  models: [{name: mnist, modelOptimization: {name: mnist-cnn}}]
  devices: [{name: m4, deviceClassName: qemu-cortex-m4}]
  measurement: {accuracy: {dataset: {digest: 'sha256:9e07000000000000000000000000000000000000000000000000000000000000'}, metric: Top1Accuracy}}
";

    fn planned(plan: &Benchmark) -> PlannedRun {
        PlannedRun {
            name: "mnist-m4-0".into(),
            request: plan.devices[0].written.clone().request(),
            unit: 0,
            class: "qemu-cortex-m4".into(),
            variants: Vec::new(),
        }
    }

    #[test]
    fn runs_of_one_benchmark_share_a_seed() {
        let object: EdgeBenchmark = serde_yaml::from_str(MINIMAL).unwrap();
        let plan = validate(object.spec.clone()).unwrap();
        let make = || run(&object, object.controller_owner_ref(&()).unwrap(), &plan, planned(&plan), Some("sha256:9e"));
        let one = make();
        assert!(one.spec.workload.seed.is_some());
        assert_eq!(one, make());
        assert_eq!(one.spec.accuracy.unwrap().digest.0, "sha256:9e");
        assert_eq!(one.metadata.labels.unwrap()[DEVICE_CLASS], "qemu-cortex-m4");
    }

    #[test]
    fn what_the_user_changes_is_handed_on_and_cancelling_is_for_good() {
        let object: EdgeBenchmark = serde_yaml::from_str(MINIMAL).unwrap();
        let mut plan = validate(object.spec.clone()).unwrap();
        let made = run(&object, object.controller_owner_ref(&()).unwrap(), &plan, planned(&plan), None);
        assert_eq!(changed(&made, &plan), None);
        plan.cancel = true;
        let cancelled = changed(&made, &plan).unwrap();
        assert!(cancelled.spec.cancel && cancelled.status.is_none());
        plan.cancel = false;
        assert_eq!(changed(&cancelled, &plan), None);
    }
}
