//! A ModelOptimization as work: its inputs and its artefacts, one for each variant and target.

mod next;
mod passes;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_crds::optimization::{
    AccuracyMetric, Constraints, Goal, InputShape, InputValue, ModelFormat, ModelOptimizationSpec, Objective,
    ObjectiveMetric, PartialFailurePolicy, Variant,
};
use edgeyard_job::media_type;
use edgeyard_job::spec;

use crate::inputs::PlannedInput;
use crate::{Refusal, quantity, reason, targets};

pub use next::{Action, Attempt, End, MAX_ATTEMPTS, Observed, Settled, Task, next, retry_at};
pub use report::{
    OPTIMIZATION_MEDIA_TYPE, OptimizationReport, artifact, best, check_report, counts, headline, ratio, signed_ratio,
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
    /// Shapes of inputs whose dimensions are free in the model, by name.
    pub input_shapes: BTreeMap<String, Vec<u64>>,
    /// Inputs that are constants in the artefacts, by name.
    pub input_values: BTreeMap<String, f64>,
    /// How many calibration samples to use, if there is calibration data.
    pub sample_count: Option<u64>,
    /// How predictions are scored, if there is evaluation data.
    pub metric: Option<spec::AccuracyMetric>,
    /// What is to be made, in the order of the spec.
    pub artifacts: Vec<PlannedArtifact>,
    /// How far accuracy may fall.
    pub max_accuracy_drop: Option<f64>,
    /// How large an artefact may be.
    pub max_size_bytes: Option<u64>,
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
    /// Whether making it makes something of calibration data, if there is some.
    pub fn reads_calibration(&self) -> bool {
        edgeyard_targets::reads_calibration(&self.passes)
    }

    /// Whether it cannot be made without calibration data.
    pub fn needs_calibration(&self) -> bool {
        edgeyard_targets::needs_calibration(&self.passes)
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
    let (source_format, source_type) = match source.format {
        ModelFormat::Onnx => (spec::ModelFormat::Onnx, media_type::ONNX),
        ModelFormat::TfLite => (spec::ModelFormat::TfLite, media_type::TFLITE),
    };
    let input_shapes = input_shapes(source.input_shapes)?;
    let input_values = input_values(source.input_values)?;
    let mut inputs = vec![PlannedInput::new(SOURCE, "spec.source.artifact", source_type, source.artifact)?];
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
            format!(
                "spec.calibration is required: variant {} has a pass that reads calibration data",
                artifact.variant
            ),
        ));
    }
    let Constraints { max_accuracy_drop, max_size } =
        constraints.unwrap_or(Constraints { max_accuracy_drop: None, max_size: None });
    let max_accuracy_drop = match max_accuracy_drop {
        Some(_) if metric.is_none() => {
            return Err(Refusal::new(
                reason::INVALID_SPEC,
                "spec.evaluation is required: constraints.maxAccuracyDrop needs data to compute accuracy from",
            ));
        }
        Some(drop) => Some(passes::share(&drop, "spec.constraints.maxAccuracyDrop")?),
        None => None,
    };
    let max_size_bytes = match max_size {
        Some(size) => Some(quantity::units(&size).filter(|bytes| *bytes > 0).ok_or_else(|| {
            Refusal::new(
                reason::INVALID_SPEC,
                format!("spec.constraints.maxSize: {} is no size above zero, such as 64Ki", size.0),
            )
        })?),
        None => None,
    };
    let mixed = |artifact: &&PlannedArtifact| {
        let mixed = |pass: &spec::Pass| matches!(pass, spec::Pass::Quantize { max_float_operators, .. } if *max_float_operators > 0);
        artifact.passes.iter().any(mixed)
    };
    if max_accuracy_drop.is_none()
        && let Some(artifact) = artifacts.iter().find(mixed)
    {
        return Err(Refusal::new(
            reason::INVALID_SPEC,
            format!(
                "spec.constraints.maxAccuracyDrop is required: variant {} has maxFloatOperators, which act only when it \
                 would be missed",
                artifact.variant
            ),
        ));
    }
    let objective = objective.unwrap_or(Objective { metric: ObjectiveMetric::SizeBytes, goal: Goal::Minimize });
    if objective.metric == ObjectiveMetric::Accuracy && metric.is_none() {
        return Err(Refusal::new(reason::INVALID_SPEC, "spec.evaluation is required: the objective compares Accuracy"));
    }
    let parallelism = usize::try_from(positive(parallelism, "spec.parallelism")?).unwrap_or(MAX_ARTIFACTS);
    Ok(Optimization {
        inputs,
        source_format,
        input_shapes,
        input_values,
        sample_count,
        metric,
        artifacts,
        max_accuracy_drop,
        max_size_bytes,
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
        let passes = passes.into_iter().map(passes::pass).collect::<Result<Vec<_>, _>>()?;
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

fn input_shapes(shapes: Vec<InputShape>) -> Result<BTreeMap<String, Vec<u64>>, Refusal> {
    let mut by_name = BTreeMap::new();
    for InputShape { name, shape } in shapes {
        let sizes = shape.iter().map(|size| positive(*size, &format!("spec.source.inputShapes {name}")));
        let sizes = sizes.collect::<Result<Vec<_>, _>>()?;
        if by_name.insert(name.clone(), sizes).is_some() {
            return Err(Refusal::new(reason::INVALID_SPEC, format!("spec.source.inputShapes: {name} is there twice")));
        }
    }
    Ok(by_name)
}

fn input_values(values: Vec<InputValue>) -> Result<BTreeMap<String, f64>, Refusal> {
    let mut by_name = BTreeMap::new();
    for InputValue { name, value } in values {
        let wrong = |problem: String| Refusal::new(reason::INVALID_SPEC, format!("spec.source.inputValues: {problem}"));
        let number: Option<f64> = value.0.parse().ok().filter(|number: &f64| number.is_finite());
        let number = number.ok_or_else(|| wrong(format!("{name}: {value} is no number, such as 16000")))?;
        if by_name.insert(name.clone(), number).is_some() {
            return Err(wrong(format!("{name} is there twice")));
        }
    }
    Ok(by_name)
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
    fn every_setting_reaches_the_job() {
        let yaml = MINIMAL
            .replacen("[ort-x86, tflm]", "[ort-x86, litert]", 1)
            .replacen("format: ONNX", "format: TFLite, inputShapes: [{name: x, shape: [1, 28]}], inputValues: [{name: sr, value: '16000'}]", 1)
            .replacen("variants:", "constraints: {maxSize: 64Ki, maxAccuracyDrop: '0.01'}\nvariants:", 1)
            .replacen(
                "[{type: Quantize, quantize: {scheme: Int8}}]",
                "[{type: Equalize, equalize: {}}, {type: Prune, prune: {pattern: NOfM, keep: 2, groupSize: 4}}, \
                 {type: Prune, prune: {pattern: Structured, score: Taylor, sparsity: '0.25'}}, \
                 {type: Factorize, factorize: {method: SpatialSvd, macs: '0.5'}}, \
                 {type: Quantize, quantize: {scheme: Int8, calibrator: MeanSquaredError, biasCorrection: true, maxFloatOperators: 3}}]",
                1,
            );
        let plan = from_yaml(&yaml).unwrap();
        assert_eq!(plan.source_format, spec::ModelFormat::TfLite);
        assert_eq!((plan.max_size_bytes, plan.max_accuracy_drop), (Some(65_536), Some(0.01)));
        assert_eq!(plan.input_shapes["x"], [1, 28]);
        assert_eq!(plan.input_values, [("sr".to_owned(), 16_000.0)].into());
        let wanted = serde_json::json!([
            {"type": "Equalize"},
            {"type": "Prune", "pattern": "NOfM", "score": "Magnitude", "n": 2, "m": 4},
            {"type": "Prune", "pattern": "Structured", "score": "Taylor", "sparsity": 0.25},
            {"type": "Factorize", "method": "SpatialSvd", "macs": 0.5},
            {"type": "Quantize", "scheme": "Int8", "granularity": "PerChannel", "calibrator": "MeanSquaredError",
             "biasCorrection": true, "maxFloatOperators": 3},
        ]);
        assert_eq!(serde_json::to_value(&plan.artifacts[2].passes).unwrap(), wanted);
    }

    #[test]
    fn bad_input_is_told_what_to_do() {
        for (from, to, reason, part) in [
            ("targets: [ort-x86, litert]", "targets: [tflm]", reason::INCOMPATIBLE_PASS, "take tflm out"),
            ("targets: [ort-x86, litert]", "targets: [npu]", reason::UNKNOWN_TARGET, "use one of"),
            ("targets: [ort-x86, litert]", "targets: [litert, litert]", reason::INVALID_SPEC, "litert twice"),
            (
                "variants:",
                "constraints: {maxSize: 0Ki}\nvariants:",
                reason::INVALID_SPEC,
                "spec.constraints.maxSize: 0Ki is no size",
            ),
            (
                "[ort-x86, tflm], passes: [{type: Quantize, quantize: {scheme: Int8}",
                "[litert], passes: [{type: Quantize, quantize: {scheme: Int8, maxFloatOperators: 4}",
                reason::INVALID_SPEC,
                "maxAccuracyDrop is required",
            ),
            ("scheme: Int8", "scheme: Int8, maxFloatOperators: 4", reason::INCOMPATIBLE_PASS, "integers only"),
            ("passes: []", "passes: [{type: Factorize, factorize: {}}]", reason::INCOMPATIBLE_PASS, "energy and macs"),
            (
                "passes: []",
                "passes: [{type: Prune, prune: {pattern: Structured, score: Taylor}}]",
                reason::INCOMPATIBLE_PASS,
                "needs a sparsity",
            ),
            (
                "artifact: {configMapKeyRef",
                "inputShapes: [{name: x, shape: [0]}], artifact: {configMapKeyRef",
                reason::INVALID_SPEC,
                "inputShapes x: 0 must be at least 1",
            ),
            (
                "artifact: {configMapKeyRef",
                "inputValues: [{name: sr, value: fast}], artifact: {configMapKeyRef",
                reason::INVALID_SPEC,
                "inputValues: sr: fast is no number",
            ),
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
