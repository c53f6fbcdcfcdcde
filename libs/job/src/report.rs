//! What an import or an optimisation came to. Numbers that are unknown are absent from the
//! report, with an entry in `unavailable`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spec::{AccuracyMetric, ModelFormat, Pass};

/// The version of the report's schema.
pub const REPORT_VERSION: &str = "1.1";

/// What a job came to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `1.1`.
    pub schema_version: String,
    /// What the report is about.
    pub metadata: ReportMetadata,
    /// What came of the work.
    pub result: ReportResult,
}

/// What a report is about.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReportMetadata {
    /// The ModelOptimization's name, or the model file's.
    pub name: String,
    /// Program and version that wrote it.
    pub generator: String,
}

/// What came of the work.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(tag = "kind")]
pub enum ReportResult {
    /// Inputs that are now in the store.
    Import {
        /// One entry for each input that was asked for.
        inputs: Vec<ImportedInput>,
    },
    /// One artefact.
    Optimize(Box<Optimized>),
}

/// An input that is now in the store.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ImportedInput {
    /// `source`, `calibration` or `evaluation`.
    pub name: String,
    /// What identifies it.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its media type.
    pub media_type: String,
}

/// One artefact, made, evaluated and verified.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Optimized {
    /// The recipe's name.
    pub variant: String,
    /// The runtime it is for.
    pub target: String,
    /// What was done, in order.
    pub passes: Vec<Pass>,
    /// Digest of the source model.
    pub source_digest: String,
    /// Size of the source model.
    pub source_size_bytes: u64,
    /// What was made.
    pub artifact: MadeArtifact,
    /// The source's score, if an evaluation was asked for.
    pub source_accuracy: Option<Accuracy>,
    /// The artefact's score in its own runtime, if an evaluation was asked for.
    pub accuracy: Option<Accuracy>,
    /// How far the artefact's score is below the source's; negative if it is above.
    pub accuracy_drop: Option<f64>,
    /// Probability of a difference in right answers as large as this one if source and artefact were equally good: McNemar, exact.
    #[serde(default)]
    pub mcnemar_p: Option<f64>,
    /// What the source costs.
    #[serde(default)]
    pub source_cost: Option<Cost>,
    /// What the artefact costs.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// Signal to quantisation noise of each layer's output against the source's, in the order of the graph; empty if it was not asked for or
    /// cannot be seen in the target's runtime.
    #[serde(default)]
    pub layers: Vec<LayerAgreement>,
    /// What a vendor's compiler estimates, never measured.
    #[serde(default)]
    pub compiler_estimate: Option<CompilerEstimate>,
    /// What the target's rules say of the artefact, operator by operator.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// How far the artefact was verified, and how.
    pub verification: Verification,
    /// How well the artefact's outputs agree with the source's.
    pub agreement: Option<Agreement>,
    /// What calibration saw.
    pub calibration: Option<CalibrationSummary>,
    /// Remarks for people, such as what was kept in floating point and why.
    pub notes: Vec<String>,
    /// Wall-clock seconds of each step.
    pub seconds: BTreeMap<String, f64>,
    /// Largest resident memory of the process while each step ran; empty where the system does not tell.
    #[serde(default)]
    pub step_peak_bytes: BTreeMap<String, u64>,
    /// Largest resident memory of the process.
    pub peak_memory_bytes: Option<u64>,
    /// What is unknown, and why: metric to reason.
    pub unavailable: BTreeMap<String, String>,
}

/// What a model costs, counted from its graph.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Weights and biases, counted as numbers; zeros count.
    pub parameters: u64,
    /// Those that are not zero.
    pub nonzero_parameters: u64,
    /// Multiply-accumulates of one inference of one sample.
    pub macs: u64,
    /// Bytes of activations that live at the same time, at most, in the order of the graph; an estimate, because a runtime may do better or worse.
    pub peak_activation_bytes: u64,
}

/// How well one layer's output agrees with the source's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LayerAgreement {
    /// The tensor's name in the source.
    pub tensor: String,
    /// The operator that makes it.
    pub operator: String,
    /// Signal to quantisation noise ratio in dB; absent if it is equal.
    pub sqnr_db: Option<f64>,
}

/// What a vendor's compiler estimates.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CompilerEstimate {
    /// Program and version.
    pub compiler: String,
    /// The device that it compiled for.
    pub accelerator: String,
    /// Cycles of one inference.
    pub cycles: u64,
    /// SRAM that it plans to use.
    pub sram_bytes: u64,
    /// Operators on the accelerator.
    pub accelerated_operators: u64,
    /// Operators that fall back to the CPU.
    pub cpu_operators: u64,
}

/// What a target's rule says of an operator or tensor.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// The rule's name.
    pub rule: String,
    /// The operator, tensor or input it is about.
    pub subject: String,
    /// What is so, and what to do about it.
    pub message: String,
}

/// How grave a finding is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Note,
    /// It falls back, to the CPU or to floating point.
    Fallback,
    /// The target does not take it.
    Refused,
}

/// A model file that was made.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MadeArtifact {
    /// What identifies it.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
    /// Its file format.
    pub format: ModelFormat,
    /// Its media type.
    pub media_type: String,
}

/// A score with its 95 % Wilson interval.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Accuracy {
    /// How predictions were scored.
    pub metric: AccuracyMetric,
    /// The score, 0 to 1.
    pub value: f64,
    /// Lower end of the interval.
    pub lower: f64,
    /// Upper end of the interval.
    pub upper: f64,
    /// Samples scored.
    pub sample_count: u64,
    /// Samples scored right.
    pub correct: u64,
}

/// How far an artefact was verified.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// How far.
    pub level: VerificationLevel,
    /// In what: runtime and version.
    pub runtime: String,
    /// What was found, for people.
    pub details: String,
}

/// How far an artefact was verified.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationLevel {
    /// It ran in the target's runtime.
    Executed,
    /// The vendor's compiler took it.
    Compiled,
    /// It keeps to the target's rules.
    Linted,
}

/// How well outputs agree with the source's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Samples compared.
    pub sample_count: u64,
    /// Signal to quantisation noise ratio of the outputs in dB; absent if they are equal.
    pub sqnr_db: Option<f64>,
    /// Largest absolute difference of an output.
    pub max_abs_difference: f64,
    /// Share of samples with the same best class.
    pub same_top1: f64,
}

/// What calibration saw.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CalibrationSummary {
    /// How ranges were chosen.
    pub calibrator: String,
    /// Samples used.
    pub sample_count: u64,
    /// Tensors observed.
    pub tensors: u64,
}
