//! A ModelOptimization as work: its inputs and its artefacts, one for each variant and target.

mod next;
mod report;

use std::collections::BTreeSet;

use edgeyard_crds::optimization::{
    AccuracyMetric, Constraints, Goal, ModelFormat, ModelOptimizationSpec, Objective, ObjectiveMetric,
    PartialFailurePolicy, Variant,
};
use edgeyard_crds::passes::{self, Step};
use edgeyard_job::media_type;
use edgeyard_job::spec;

use crate::inputs::PlannedInput;
use crate::{Refusal, reason, targets};

pub use next::{Action, Attempt, End, MAX_ATTEMPTS, Observed, Settled, Task, next, retry_at};
pub use report::{
    OPTIMIZATION_MEDIA_TYPE, OptimizationReport, artifact, best, check_report, counts, ratio, signed_ratio,
};

/// Name of the input that every artefact is made from.
pub const SOURCE: &str = "source";
/// Name of the input that shows the range of activations.
pub const CALIBRATION: &str = "calibration";
/// Name of the input that scores are computed from.
pub const EVALUATION: &str = "evaluation";
/// At most so many artefacts come of one object.
pub const MAX_ARTIFACTS: usize = 64;

/// A ModelOptimization that can be worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimization {
    /// What has to be in the store before anything is made.
    pub inputs: Vec<PlannedInput>,
    /// The source's file format.
    pub source_format: spec::ModelFormat,
    /// How many calibration samples to use, if there is calibration data.
    pub sample_count: Option<u64>,
    /// How predictions are scored, if there is evaluation data.
    pub metric: Option<spec::AccuracyMetric>,
    /// What is to be made, in the order of the spec.
    pub artifacts: Vec<PlannedArtifact>,
    /// How far accuracy may fall.
    pub max_accuracy_drop: Option<f64>,
    /// What makes a variant the best of a target.
    pub objective: Objective,
    /// Whether one failed artefact fails the object.
    pub all_or_nothing: bool,
    /// How many artefacts are made at the same time; at least 1.
    pub parallelism: usize,
    /// Seconds from the start after which what is left fails.
    pub active_deadline_seconds: i64,
    /// Whether to stop for now.
    pub suspend: bool,
}

/// An artefact to make.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedArtifact {
    /// The recipe's name.
    pub variant: String,
    /// The runtime it is for.
    pub target: String,
    /// What to do, in order.
    pub passes: Vec<spec::Pass>,
}

impl PlannedArtifact {
    /// Whether making it reads calibration data.
    pub fn needs_calibration(&self) -> bool {
        self.passes.iter().any(|pass| matches!(pass, spec::Pass::Quantize { scheme: spec::Scheme::Int8, .. }))
    }
}

/// Turns a spec into work. Re-checks what the API server checked, because an object may be older than a rule.
///
/// # Errors
/// A [`Refusal`] that names the field and what would be right.
pub fn validate(spec: ModelOptimizationSpec) -> Result<Optimization, Refusal> {
    let ModelOptimizationSpec {
        source,
        calibration,
        evaluation,
        variants,
        constraints,
        objective,
        partial_failure_policy,
        parallelism,
        active_deadline_seconds,
        suspend,
    } = spec;
    if source.format == ModelFormat::TfLite {
        return Err(Refusal::new(
            reason::UNSUPPORTED_FORMAT,
            "spec.source.format: TFLite models cannot be optimised, only ONNX models: export the model to ONNX, or \
             measure it as it is with an EdgeBenchmark's models[].artifact",
        ));
    }
    let mut inputs = vec![PlannedInput::new(SOURCE, "spec.source.artifact", media_type::ONNX, source.artifact)?];
    let mut sample_count = None;
    if let Some(calibration) = calibration {
        sample_count = Some(positive(calibration.sample_count, "spec.calibration.sampleCount")?);
        inputs.push(PlannedInput::new(CALIBRATION, "spec.calibration.dataset", media_type::NPZ, calibration.dataset)?);
    }
    let mut metric = None;
    if let Some(evaluation) = evaluation {
        metric = Some(match evaluation.metric {
            AccuracyMetric::Top1Accuracy => spec::AccuracyMetric::Top1Accuracy,
            AccuracyMetric::Top5Accuracy => spec::AccuracyMetric::Top5Accuracy,
        });
        inputs.push(PlannedInput::new(EVALUATION, "spec.evaluation.dataset", media_type::NPZ, evaluation.dataset)?);
    }
    crate::inputs::credentials(&inputs)?;

    let artifacts = plan_artifacts(variants)?;
    if sample_count.is_none()
        && let Some(artifact) = artifacts.iter().find(|artifact| artifact.needs_calibration())
    {
        return Err(Refusal::new(
            reason::INVALID_SPEC,
            format!("spec.calibration is required: variant {} quantises to Int8", artifact.variant),
        ));
    }
    let max_accuracy_drop = match constraints {
        Some(Constraints { max_accuracy_drop: Some(drop) }) => {
            if metric.is_none() {
                return Err(Refusal::new(
                    reason::INVALID_SPEC,
                    "spec.evaluation is required: constraints.maxAccuracyDrop needs data to compute accuracy from",
                ));
            }
            Some(drop.0.parse().map_err(|_| {
                Refusal::new(
                    reason::INVALID_SPEC,
                    format!("spec.constraints.maxAccuracyDrop: {drop} is not a number from 0 to 1"),
                )
            })?)
        }
        Some(Constraints { max_accuracy_drop: None }) | None => None,
    };
    let objective = objective.unwrap_or(Objective { metric: ObjectiveMetric::SizeBytes, goal: Goal::Minimize });
    if objective.metric == ObjectiveMetric::Accuracy && metric.is_none() {
        return Err(Refusal::new(reason::INVALID_SPEC, "spec.evaluation is required: the objective compares Accuracy"));
    }
    let parallelism = usize::try_from(positive(parallelism, "spec.parallelism")?).unwrap_or(MAX_ARTIFACTS);
    Ok(Optimization {
        inputs,
        source_format: spec::ModelFormat::Onnx,
        sample_count,
        metric,
        artifacts,
        max_accuracy_drop,
        objective,
        all_or_nothing: partial_failure_policy == PartialFailurePolicy::Fail,
        parallelism,
        active_deadline_seconds,
        suspend,
    })
}

fn plan_artifacts(variants: Vec<Variant>) -> Result<Vec<PlannedArtifact>, Refusal> {
    let mut artifacts = Vec::new();
    let mut names = BTreeSet::new();
    for Variant { name, targets: wanted, passes } in variants {
        if !names.insert(name.0.clone()) {
            return Err(Refusal::new(reason::INVALID_SPEC, format!("spec.variants: {name} is there twice")));
        }
        let passes = passes.into_iter().map(pass).collect::<Result<Vec<_>, _>>()?;
        let mut seen = BTreeSet::new();
        for target in wanted {
            if !seen.insert(target.0.clone()) {
                return Err(Refusal::new(
                    reason::INVALID_SPEC,
                    format!("spec.variants: {name} names target {target} twice"),
                ));
            }
            targets::check(&name.0, targets::find(&target.0)?, &passes)?;
            artifacts.push(PlannedArtifact { variant: name.0.clone(), target: target.0, passes: passes.clone() });
        }
    }
    if artifacts.is_empty() {
        return Err(Refusal::new(
            reason::INVALID_SPEC,
            "spec.variants: nothing is asked for: name a variant and a target",
        ));
    }
    if artifacts.len() > MAX_ARTIFACTS {
        return Err(Refusal::new(
            reason::INVALID_SPEC,
            format!("spec.variants ask for {} artefacts, at most {MAX_ARTIFACTS} will do", artifacts.len()),
        ));
    }
    Ok(artifacts)
}

fn pass(pass: passes::Pass) -> Result<spec::Pass, Refusal> {
    match pass.validate()? {
        Step::Quantize(passes::Quantize { scheme, granularity, calibrator }) => Ok(spec::Pass::Quantize {
            scheme: match scheme {
                passes::QuantizationScheme::Float16 => spec::Scheme::Float16,
                passes::QuantizationScheme::Int8 => spec::Scheme::Int8,
            },
            granularity: match granularity {
                Some(passes::Granularity::PerTensor) => spec::Granularity::PerTensor,
                Some(passes::Granularity::PerChannel) | None => spec::Granularity::PerChannel,
            },
            calibrator: match calibrator {
                Some(passes::Calibrator::Percentile) => spec::Calibrator::Percentile,
                Some(passes::Calibrator::MinMax) | None => spec::Calibrator::MinMax,
            },
            bias_correction: false,
            max_float_operators: 0,
            block_size: None,
        }),
    }
}

fn positive(number: i32, field: &str) -> Result<u64, Refusal> {
    u64::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| Refusal::new(reason::INVALID_SPEC, format!("{field}: {number} must be at least 1")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MINIMAL: &str = r"
source: {format: ONNX, artifact: {configMapKeyRef: {name: mnist, key: mnist.onnx}}}
calibration: {dataset: {configMapKeyRef: {name: mnist, key: calibration.npz}}}
evaluation: {dataset: {digest: 'sha256:9e07000000000000000000000000000000000000000000000000000000000000'}, metric: Top1Accuracy}
variants:
- {name: fp32, targets: [ort-x86, litert], passes: []}
- {name: int8, targets: [ort-x86, tflm], passes: [{type: Quantize, quantize: {scheme: Int8}}]}
";

    pub(crate) fn from_yaml(yaml: &str) -> Result<Optimization, Refusal> {
        validate(serde_yaml::from_str(yaml).unwrap())
    }

    #[test]
    fn one_artefact_for_each_variant_and_target() {
        let plan = from_yaml(MINIMAL).unwrap();
        let made: Vec<_> = plan.artifacts.iter().map(|a| format!("{}/{}", a.variant, a.target)).collect();
        assert_eq!(made, ["fp32/ort-x86", "fp32/litert", "int8/ort-x86", "int8/tflm"]);
        assert_eq!(plan.inputs.iter().map(|i| i.stored().is_some()).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!((plan.sample_count, plan.parallelism), (Some(128), 1));
        assert_eq!(
            plan.artifacts.iter().map(PlannedArtifact::needs_calibration).collect::<Vec<_>>(),
            [false, false, true, true]
        );
    }

    #[test]
    fn bad_input_is_told_what_to_do() {
        for (from, to, reason, part) in [
            ("targets: [ort-x86, litert]", "targets: [tflm]", reason::INCOMPATIBLE_PASS, "take tflm out"),
            ("targets: [ort-x86, litert]", "targets: [npu]", reason::UNKNOWN_TARGET, "use one of"),
            ("targets: [ort-x86, litert]", "targets: [litert, litert]", reason::INVALID_SPEC, "litert twice"),
            ("format: ONNX", "format: TFLite", reason::UNSUPPORTED_FORMAT, "export the model"),
            ("name: int8", "name: fp32", reason::INVALID_SPEC, "fp32 is there twice"),
            (
                "evaluation:",
                "constraints: {maxAccuracyDrop: '0.01'}\nx-evaluation:",
                reason::INVALID_SPEC,
                "spec.evaluation",
            ),
            ("calibration: {", "x-calibration: {", reason::INVALID_SPEC, "spec.calibration is required"),
        ] {
            let yaml = MINIMAL.replacen(from, to, 1);
            assert_ne!(yaml, MINIMAL, "{from}");
            let refusal = from_yaml(&yaml).unwrap_err();
            assert_eq!(refusal.reason, reason, "{refusal}");
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }
}
