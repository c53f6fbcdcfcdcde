//! A BenchmarkRun as work: one device, one pod, one record; again when something around it fails.

mod next;
mod record;

use edgeyard_crds::benchmark::{self, DeviceLoss, Timeouts};
use edgeyard_crds::devices::DeviceRequest;
use edgeyard_crds::references::NamespacedReference;
use edgeyard_crds::run::{BenchmarkRunSpec, PinnedEvaluation, PinnedVariant};
use edgeyard_job::spec;

use crate::benchmark::{MAX_VARIANTS, job_format, score_metric};
use crate::{Refusal, reason};

pub use next::{Action, DeviceState, Lease, Next, Observed, Pod, RUNNER_RETRIES, RecordState, lease_seconds, next};
pub use record::{Expected, check, headlines};

/// A BenchmarkRun that can be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The EdgeBenchmark that it is part of.
    pub benchmark: String,
    /// What is asked of the queue; its name is the entry's in the EdgeBenchmark.
    pub request: DeviceRequest,
    /// The queue to wait in.
    pub queue: Option<NamespacedReference>,
    /// Higher goes first.
    pub priority: i32,
    /// How inputs are fed.
    pub workload: spec::Workload,
    /// What to measure.
    pub variants: Vec<spec::MeasuredVariant>,
    /// Data and metric that accuracy is computed from.
    pub accuracy: Option<spec::EvaluationData>,
    /// Whether energy is measured.
    pub energy: spec::EnergyPolicy,
    /// Wait until the device is this cool, in thousandths of a degree Celsius.
    pub cool_down_millidegrees: Option<i64>,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// What to do when the device is lost.
    pub device_loss: DeviceLoss,
    /// Whether to stop for now.
    pub suspend: bool,
    /// Whether to end now.
    pub cancel: bool,
}

/// Turns a spec into work. Re-checks what the API server checked, because an object may be older than a rule.
///
/// # Errors
/// A [`Refusal`] that names the field and what would be right.
pub fn validate(written: BenchmarkRunSpec) -> Result<Run, Refusal> {
    let BenchmarkRunSpec {
        benchmark_name,
        device,
        unit: _,
        queue_ref,
        priority,
        workload,
        variants,
        accuracy,
        energy,
        cool_down_celsius,
        timeouts,
        device_loss,
        suspend,
        cancel,
    } = written;
    if variants.is_empty() || variants.len() > MAX_VARIANTS {
        return Err(Refusal::new(
            reason::INVALID_SPEC,
            format!("spec.variants has {} entries, it must have 1 to {MAX_VARIANTS}", variants.len()),
        ));
    }
    device.clone().candidates()?;
    Ok(Run {
        benchmark: benchmark_name.0,
        request: DeviceRequest { count: 1, ..device },
        queue: queue_ref,
        priority,
        workload: job_workload(&workload),
        variants: variants.into_iter().map(measured).collect(),
        accuracy: accuracy.map(|PinnedEvaluation { digest, metric }| spec::EvaluationData {
            digest: digest.0,
            metric: score_metric(metric),
        }),
        energy: match energy {
            benchmark::EnergyPolicy::Required => spec::EnergyPolicy::Required,
            benchmark::EnergyPolicy::BestEffort => spec::EnergyPolicy::BestEffort,
            benchmark::EnergyPolicy::Disabled => spec::EnergyPolicy::Disabled,
        },
        cool_down_millidegrees: cool_down_celsius.map(|degrees| i64::from(degrees) * 1000),
        timeouts,
        device_loss,
        suspend,
        cancel,
    })
}

/// The job's words for a workload.
pub fn job_workload(written: &benchmark::Workload) -> spec::Workload {
    use benchmark::{Percentile, Profile, Scenario};
    let benchmark::Workload { scenario, profile, seed, query_count, percentile, latency_bound_nanoseconds } = written;
    let amount = |amount: &Option<i64>| amount.and_then(|amount| u64::try_from(amount).ok());
    spec::Workload {
        scenario: match scenario {
            Scenario::SingleStream => spec::Scenario::SingleStream,
            Scenario::MultiStream => spec::Scenario::MultiStream,
            Scenario::Server => spec::Scenario::Server,
            Scenario::Offline => spec::Scenario::Offline,
            Scenario::Tiny => spec::Scenario::Tiny,
        },
        profile: match profile {
            Profile::Smoke => spec::Profile::Smoke,
            Profile::Quick => spec::Profile::Quick,
            Profile::Standard => spec::Profile::Standard,
            Profile::Official => spec::Profile::Official,
        },
        seed: amount(seed).unwrap_or(0),
        query_count: amount(query_count),
        percentile: percentile.map(|percentile| match percentile {
            Percentile::P50 => spec::HeadlinePercentile::P50,
            Percentile::P90 => spec::HeadlinePercentile::P90,
            Percentile::P95 => spec::HeadlinePercentile::P95,
            Percentile::P97 => spec::HeadlinePercentile::P97,
            Percentile::P99 => spec::HeadlinePercentile::P99,
            Percentile::P999 => spec::HeadlinePercentile::P999,
        }),
        latency_bound_nanoseconds: amount(latency_bound_nanoseconds),
    }
}

/// A seed for a benchmark that names none: always the same for the same object.
pub fn seed_of(uid: &str) -> i64 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(uid.as_bytes());
    i64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]))
}

fn measured(pinned: PinnedVariant) -> spec::MeasuredVariant {
    let PinnedVariant { model, variant, target, format, digest, size_bytes } = pinned;
    spec::MeasuredVariant {
        model: model.0,
        variant: variant.0,
        target: target.0,
        format: job_format(format),
        digest: digest.0,
        size_bytes: u64::try_from(size_bytes).unwrap_or(0),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MINIMAL: &str = r"
benchmarkName: mnist-4f2a9c1
device: {name: m4, deviceClassName: qemu-cortex-m4}
variants:
- {model: mnist, variant: fp32, target: litert, format: TFLite, digest: 'sha256:f1', sizeBytes: 40}
- {model: mnist, variant: int8, target: litert, format: TFLite, digest: 'sha256:c7', sizeBytes: 10}
accuracy: {digest: 'sha256:9e', metric: Top1Accuracy}
timeouts: {queueSeconds: 100, prepareSeconds: 50, runSeconds: 200}
";

    pub(crate) fn from_yaml(yaml: &str) -> Result<Run, Refusal> {
        validate(serde_yaml::from_str(yaml).unwrap())
    }

    #[test]
    fn the_minimal_manifest_is_taken() {
        let run = from_yaml(MINIMAL).unwrap();
        assert_eq!((run.variants.len(), run.request.count, run.device_loss.max_retries), (2, 1, 2));
        assert_eq!(run.workload.profile, spec::Profile::Quick);
    }

    #[test]
    fn a_run_without_variants_is_refused() {
        let yaml = MINIMAL.replace("variants:\n", "variants: []\nx-variants:\n");
        assert!(from_yaml(&yaml).unwrap_err().message.contains("0 entries"));
    }

    #[test]
    fn seeds_follow_the_object() {
        assert_eq!(seed_of("a"), seed_of("a"));
        assert_ne!(seed_of("a"), seed_of("b"));
    }
}
