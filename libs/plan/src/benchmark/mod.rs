//! An EdgeBenchmark as work: which artefacts, on which devices, in which runs.

mod devices;
mod resolve;
mod pairs;
mod summary;

use std::collections::BTreeSet;

use edgeyard_crds::benchmark::{
    AccuracyMetric, BenchmarkDevice, DeviceLoss, EdgeBenchmarkSpec, EnergyPolicy, IncompatiblePolicy, Measurement,
    OptimizedVariants, Subject, Timeouts, VariantPolicy, Workload,
};
use edgeyard_crds::devices::Candidates;
use edgeyard_crds::optimization::ModelFormat;
use edgeyard_crds::references::NamespacedReference;
use edgeyard_job::media_type;
use edgeyard_job::spec;

use crate::inputs::PlannedInput;
use crate::{Refusal, reason, targets};

pub use devices::{DeviceClass, DeviceView, Pool, device_class, pool};
pub use pairs::{Pairs, PlannedRun, pairs};
pub use resolve::{Resolution, resolve};
pub use summary::{
    BENCHMARK_MEDIA_TYPE, BenchmarkMetadata, BenchmarkRecord, RecordedRun, Summary, benchmark_record, run_result,
    summary,
};

/// Name of the input that accuracy is computed from.
pub const ACCURACY: &str = "accuracy";
/// At most so many artefacts are measured by one object.
pub const MAX_ARTIFACTS: usize = 64;
/// At most so many variants are measured in one run.
pub const MAX_VARIANTS: usize = 16;
/// At most so many runs belong to one object.
pub const MAX_RUNS: usize = 256;

/// An EdgeBenchmark that can be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Benchmark {
    /// What to measure.
    pub models: Vec<Model>,
    /// What has to be in the store before anything is measured.
    pub inputs: Vec<PlannedInput>,
    /// How predictions are scored, if they are.
    pub metric: Option<AccuracyMetric>,
    /// Whether energy is measured.
    pub energy: EnergyPolicy,
    /// Wait until the device is this cool, in degrees Celsius.
    pub cool_down_celsius: Option<i32>,
    /// Where to measure.
    pub devices: Vec<DeviceEntry>,
    /// Whether a pair that does not fit fails the object.
    pub all_must_fit: bool,
    /// The queue to wait in.
    pub queue: Option<NamespacedReference>,
    /// Higher goes first.
    pub priority: i32,
    /// How inputs are fed.
    pub workload: Workload,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// What to do when a device is lost.
    pub device_loss: DeviceLoss,
    /// Whether to stop for now.
    pub suspend: bool,
    /// Whether to end now.
    pub cancel: bool,
}

/// A model entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name, which results repeat.
    pub name: String,
    /// Where its variants come from.
    pub subject: ModelSubject,
}

/// Where a model's variants come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSubject {
    /// A ModelOptimization's variants.
    Optimized {
        /// Its name.
        name: String,
        /// Which of its variants.
        policy: VariantPolicy,
        /// Their names, with `Named`.
        names: Vec<String>,
    },
    /// One artefact, the input of [`artifact_input`]'s name.
    Artifact {
        /// What results call it.
        variant: String,
        /// The runtime.
        target: String,
        /// The file format.
        format: ModelFormat,
    },
}

/// A device entry.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceEntry {
    /// Its name, which results repeat.
    pub name: String,
    /// Which devices will do.
    pub candidates: Candidates,
    /// How many different ones.
    pub count: usize,
    /// The runtimes to measure in; `None`: the first of the class's that a variant was made for.
    pub targets: Option<Vec<String>>,
    /// The entry as it was written, for the runs' requests.
    pub written: BenchmarkDevice,
}

/// The input's name for a model entry that is an artefact.
pub fn artifact_input(model: &str) -> String {
    format!("model-{model}")
}

/// The job's word for a metric.
pub fn score_metric(metric: AccuracyMetric) -> spec::AccuracyMetric {
    match metric {
        AccuracyMetric::Top1Accuracy => spec::AccuracyMetric::Top1Accuracy,
        AccuracyMetric::Top5Accuracy => spec::AccuracyMetric::Top5Accuracy,
        AccuracyMetric::AreaUnderCurve => spec::AccuracyMetric::AreaUnderCurve,
        AccuracyMetric::MeanAbsoluteError => spec::AccuracyMetric::MeanAbsoluteError,
        AccuracyMetric::MacroF1 => spec::AccuracyMetric::MacroF1,
    }
}

/// The job's word for a file format.
pub fn job_format(format: ModelFormat) -> spec::ModelFormat {
    match format {
        ModelFormat::Onnx => spec::ModelFormat::Onnx,
        ModelFormat::TfLite => spec::ModelFormat::TfLite,
    }
}

/// Turns a spec into work. Re-checks what the API server checked, because an object may be older than a rule.
///
/// # Errors
/// A [`Refusal`] that names the field and what would be right.
pub fn validate(spec: EdgeBenchmarkSpec) -> Result<Benchmark, Refusal> {
    let EdgeBenchmarkSpec {
        models: entries,
        devices: wanted,
        incompatible_policy,
        queue_ref,
        priority,
        workload,
        measurement,
        timeouts,
        device_loss,
        suspend,
        cancel,
    } = spec;
    let invalid = |message: String| Refusal::new(reason::INVALID_SPEC, message);
    let mut inputs = Vec::new();
    let mut models = Vec::new();
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry.name.0.clone();
        if !names.insert(name.clone()) {
            return Err(invalid(format!("spec.models: {name} is there twice")));
        }
        let subject = match entry.validate()? {
            Subject::Optimized(OptimizedVariants { name: of, variant_policy, variant_names }) => {
                let chosen: Vec<_> = variant_names.unwrap_or_default().into_iter().map(|key| key.0).collect();
                if (variant_policy == VariantPolicy::Named) == chosen.is_empty() {
                    return Err(invalid(format!(
                        "spec.models: {name}: variantNames belongs to variantPolicy Named, and Named needs it"
                    )));
                }
                ModelSubject::Optimized { name: of.0, policy: variant_policy, names: chosen }
            }
            Subject::Artifact(given) => {
                let target = targets::find(&given.target.0)?;
                if target.format != job_format(given.format) {
                    return Err(Refusal::new(
                        reason::UNSUPPORTED_FORMAT,
                        format!(
                            "spec.models: {name}: target {} ({}) does not read {:?} files",
                            target.name, target.summary, given.format
                        ),
                    ));
                }
                inputs.push(PlannedInput::new(
                    artifact_input(&name),
                    format!("spec.models {name}.artifact.artifact"),
                    target.media_type(),
                    given.artifact,
                )?);
                ModelSubject::Artifact { variant: given.variant.0, target: given.target.0, format: given.format }
            }
        };
        models.push(Model { name, subject });
    }
    let mut metric = None;
    let Measurement { accuracy, energy, cool_down_celsius } = measurement;
    if let Some(accuracy) = accuracy {
        metric = Some(accuracy.metric);
        inputs.push(PlannedInput::new(
            ACCURACY,
            "spec.measurement.accuracy.dataset",
            media_type::NPZ,
            accuracy.dataset,
        )?);
    }
    crate::inputs::credentials(&inputs)?;
    let devices = wanted.into_iter().map(device_entry).collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<_> = devices.iter().map(|entry| &entry.name).collect();
    if distinct.len() != devices.len() {
        return Err(invalid("spec.devices: a name is there twice".to_owned()));
    }
    if models.is_empty() || devices.is_empty() {
        return Err(invalid("spec.models and spec.devices each need an entry".to_owned()));
    }
    Ok(Benchmark {
        models,
        inputs,
        metric,
        energy,
        cool_down_celsius,
        devices,
        all_must_fit: incompatible_policy == IncompatiblePolicy::Fail,
        queue: queue_ref,
        priority,
        workload,
        timeouts,
        device_loss,
        suspend,
        cancel,
    })
}

fn device_entry(written: BenchmarkDevice) -> Result<DeviceEntry, Refusal> {
    let name = written.name.0.clone();
    let refuse = |what: String| Refusal::new(reason::INVALID_SPEC, format!("spec.devices: {name}: {what}"));
    let count = usize::try_from(written.count)
        .ok()
        .filter(|count| (1..=16).contains(count))
        .ok_or_else(|| refuse(format!("count {} must be from 1 to 16", written.count)))?;
    let targets = match &written.targets {
        None => None,
        Some(wanted) => {
            let mut list: Vec<String> = Vec::new();
            for target in wanted {
                let known = targets::find(&target.0)?;
                if list.contains(&known.name) {
                    return Err(refuse(format!("targets names {target} twice")));
                }
                list.push(known.name.clone());
            }
            Some(list)
        }
    };
    let candidates = written.clone().request().candidates()?;
    if let Candidates::Named(devices) = &candidates
        && devices.len() < count
    {
        return Err(refuse(format!("count is {count}, but deviceNames has {} names", devices.len())));
    }
    Ok(DeviceEntry { name, candidates, count, targets, written })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MINIMAL: &str = r"
models:
- {name: mnist, modelOptimization: {name: mnist-cnn}}
devices:
- {name: host, deviceClassName: host-cpu, targets: [ort-x86, litert]}
- {name: m4, deviceClassName: qemu-cortex-m4}
measurement:
  accuracy: {dataset: {digest: 'sha256:9e07000000000000000000000000000000000000000000000000000000000000'}, metric: Top1Accuracy}
";

    pub(crate) fn from_yaml(yaml: &str) -> Result<Benchmark, Refusal> {
        validate(serde_yaml::from_str(yaml).unwrap())
    }

    #[test]
    fn the_minimal_manifest_is_taken() {
        let plan = from_yaml(MINIMAL).unwrap();
        assert_eq!((plan.models.len(), plan.devices.len(), plan.inputs.len()), (1, 2, 1));
        assert_eq!(plan.devices[0].targets.as_deref(), Some(&["ort-x86".to_owned(), "litert".to_owned()][..]));
        assert_eq!(plan.inputs[0].name, ACCURACY);
    }

    #[test]
    fn bad_input_is_told_what_to_do() {
        let artifact = "{name: x, artifact: {variant: v, target: tflm, format: ONNX, artifact: {digest: 'sha256:9e07000000000000000000000000000000000000000000000000000000000000'}}}";
        for (from, to, part) in [
            ("targets: [ort-x86, litert]", "targets: [gpu]", "use one of"),
            ("targets: [ort-x86, litert]", "targets: [litert, litert]", "litert twice"),
            ("{name: m4, ", "{name: host, ", "twice"),
            ("deviceClassName: qemu-cortex-m4", "deviceNames: [a], count: 2", "deviceNames has 1"),
            ("{name: mnist-cnn}", "{name: mnist-cnn, variantPolicy: Named}", "variantNames"),
            ("{name: mnist, modelOptimization: {name: mnist-cnn}}", artifact, "does not read"),
        ] {
            let yaml = MINIMAL.replacen(from, to, 1);
            assert_ne!(yaml, MINIMAL, "{from}");
            let refusal = from_yaml(&yaml).unwrap_err();
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
