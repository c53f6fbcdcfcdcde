//! The job spec: what a pod is asked to do, and what it may touch to do it.
//!
//! `schemaVersion` is `MAJOR.MINOR`. A reader takes any minor of its own major and refuses other
//! majors (`VersionSkew`), because a field it does not know could change what is asked.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version that this code writes.
pub const SPEC_VERSION: &str = "1.1";
const SPEC_MAJOR: &str = "1";

/// What one pod is asked to do. Carries a grant: keep it in a Secret.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    /// `MAJOR.MINOR` of this schema.
    pub schema_version: String,
    /// For whom the work is done.
    pub identity: Identity,
    /// Where inputs are read and results are written.
    pub store: StoreAccess,
    /// The work.
    pub work: Work,
}

/// For whom the work is done.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Namespace of the user's object; blobs and results belong to it.
    pub namespace: String,
    /// Name of the user's object (ModelOptimization or EdgeBenchmark).
    pub name: String,
    /// Key of the result in the store: the BenchmarkRun's UID, or UID, variant and target of a ModelOptimization.
    pub uid: String,
    /// Counts from 1; a repeated attempt has a higher one.
    pub attempt: u32,
}

/// Where inputs are read and results are written.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StoreAccess {
    /// Base URL without `/v1`.
    pub url: String,
    /// PEM of the authority that signed the store's certificate; absent for plain http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
    /// The short-lived token that says what the pod may do.
    pub grant: String,
}

/// The work.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(tag = "kind", content = "spec")]
pub enum Work {
    /// Bring inputs into the store.
    Import(Import),
    /// Make one artefact.
    Optimize(Optimize),
    /// Measure variants on one device.
    Measure(Measure),
}

/// Bring inputs into the store.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// What to bring.
    pub inputs: Vec<ImportInput>,
    /// Whether addresses that are not public may be fetched from.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// Refuse inputs above this size.
    pub max_bytes: u64,
}

/// One input.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ImportInput {
    /// `source`, `calibration` or `evaluation`.
    pub name: String,
    /// What it is.
    pub media_type: String,
    /// Where it is.
    pub from: ImportFrom,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Where an input is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum ImportFrom {
    /// A file that is mounted into the pod (a ConfigMap's key, a claim's file).
    Path(String),
    /// `https://` or `s3://`; credentials are in the environment.
    Uri(String),
}

/// Make one artefact from a model.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Optimize {
    /// The model to start from.
    pub source: StoredModel,
    /// Data that shows the range of activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationData>,
    /// Data and metric that decide how good an artefact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationData>,
    /// The recipe's name.
    pub variant: String,
    /// The runtime to make it for.
    pub target: String,
    /// What to do, in order. Empty: convert only.
    pub passes: Vec<Pass>,
    /// How far accuracy may fall below the source's, as a difference. Exceeding it ends in exit code 3; artefact and report are stored all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_accuracy_drop: Option<f64>,
    /// The size that the artefact may have. Exceeding it ends as above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size_bytes: Option<u64>,
    /// Shapes of inputs whose dimensions are free in the model, batch included, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub input_shapes: BTreeMap<String, Vec<u64>>,
    /// Inputs that are constants in the artefact, by name: every element takes the value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub input_values: BTreeMap<String, f64>,
}

/// A model in the store.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StoredModel {
    /// What identifies it.
    pub digest: String,
    /// Its file format.
    pub format: ModelFormat,
}

/// File formats of models.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelFormat {
    /// ONNX protobuf.
    #[serde(rename = "ONNX")]
    Onnx,
    /// TensorFlow Lite flatbuffer.
    #[serde(rename = "TFLite")]
    TfLite,
}

/// Calibration data in the store.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CalibrationData {
    /// Digest of an `.npz` with the array `x`.
    pub digest: String,
    /// How many samples to use, from the first on.
    pub sample_count: u64,
}

/// Evaluation data in the store.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationData {
    /// Digest of an `.npz` with the arrays `x` and `y`.
    pub digest: String,
    /// How predictions are scored.
    pub metric: AccuracyMetric,
}

/// How predictions are scored.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccuracyMetric {
    /// Share of samples whose best class is right.
    Top1Accuracy,
    /// Share of samples whose right class is among the best five.
    Top5Accuracy,
    /// Area under the ROC curve; the output is one score a sample, or two classes.
    AreaUnderCurve,
    /// Mean of the absolute differences from `y`; smaller is better.
    MeanAbsoluteError,
    /// Unweighted mean of the classes' F1 scores.
    MacroF1,
}

impl AccuracyMetric {
    /// Among how many of the best classes the right one has to be; `None` for what is no share of right answers.
    #[must_use]
    pub const fn among_best(self) -> Option<usize> {
        match self {
            Self::Top1Accuracy => Some(1),
            Self::Top5Accuracy => Some(5),
            Self::AreaUnderCurve | Self::MeanAbsoluteError | Self::MacroF1 => None,
        }
    }
}

/// One step of a recipe. Steps are done in the order in which they stand: what is pruned after it was factorised is another
/// model than what is factorised after it was pruned. `Quantize` is the last.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(tag = "type")]
pub enum Pass {
    /// Make the weights of neighbouring layers alike in size, so that one scale serves more of them. Changes no output.
    Equalize {},
    /// Leave out weights.
    #[serde(rename_all = "camelCase")]
    Prune {
        /// Which weights may go.
        pattern: Pattern,
        /// What makes a weight unimportant.
        #[serde(default)]
        score: Score,
        /// `Unstructured` and `Structured`: the share to leave out; of weights in the one case, of channels in the other.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sparsity: Option<f64>,
        /// `NOfM`: how many of every `m` weights stay.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        n: Option<u32>,
        /// `NOfM`: the length of a group along the input channels.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        m: Option<u32>,
    },
    /// Replace layers by products of thinner ones. Exactly one of `energy` and `macs`.
    #[serde(rename_all = "camelCase")]
    Factorize {
        /// How convolutions are split; matrices always are by singular values.
        #[serde(default)]
        method: Factorization,
        /// The share of each layer's squared singular values to keep, 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        energy: Option<f64>,
        /// The share of the model's multiply-accumulates to end with at most, 0 to 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        macs: Option<f64>,
    },
    /// Store and compute in fewer bits.
    #[serde(rename_all = "camelCase")]
    Quantize {
        /// To what.
        scheme: Scheme,
        /// How many scales a weight tensor has. Acts with `Int8` and `Int16Activations`.
        #[serde(default)]
        granularity: Granularity,
        /// How activation ranges are chosen. Acts with `Int8` and `Int16Activations`.
        #[serde(default)]
        calibrator: Calibrator,
        /// `Int8`: correct biases by the mean error that quantised weights make on the calibration data.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        bias_correction: bool,
        /// `Int8`: how many of the most sensitive operators may stay in floating point, so that the accuracy constraint is kept.
        #[serde(default, skip_serializing_if = "is_zero")]
        max_float_operators: u32,
        /// `Int4Weights`: how many weights share a scale; absent: one scale for each output channel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        block_size: Option<u32>,
    },
}

impl Pass {
    /// `Quantize` to a scheme with everything else at its default.
    #[must_use]
    pub const fn quantize(scheme: Scheme) -> Self {
        Self::Quantize {
            scheme,
            granularity: Granularity::PerChannel,
            calibrator: Calibrator::MinMax,
            bias_correction: false,
            max_float_operators: 0,
            block_size: None,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's contract")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Which weights may go.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any; they become zeros, shapes stay.
    Unstructured,
    /// All but `n` of every `m` along the input channels; they become zeros, shapes stay.
    NOfM,
    /// Whole channels with all that depends on them; shapes shrink.
    Structured,
}

/// What makes a weight unimportant.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Score {
    /// A small absolute value; of a channel, a small norm.
    #[default]
    Magnitude,
    /// A small effect on the next layer's input, from activations on the calibration data.
    Taylor,
}

/// How convolutions are split.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Factorization {
    /// Of both, what saves more at the same error.
    #[default]
    Auto,
    /// A column and a row: k×1 then 1×k.
    SpatialSvd,
    /// 1×1, a small k×k, 1×1.
    Tucker2,
    /// Matrices and 1×1 convolutions only.
    Svd,
}

/// To what a model is quantised.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// 16-bit floating point weights.
    Float16,
    /// 8-bit integers, weights and activations.
    Int8,
    /// 8-bit integer weights; activations are quantised while the model runs.
    Int8Dynamic,
    /// 4-bit integer weights; computation in floating point.
    Int4Weights,
    /// 8-bit integer weights and 16-bit integer activations.
    Int16Activations,
}

/// How many scales a weight tensor has.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// One for each output channel.
    #[default]
    PerChannel,
    /// One.
    PerTensor,
}

/// How activation ranges are chosen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calibrator {
    /// The smallest and largest value seen.
    #[default]
    MinMax,
    /// The exponential moving average of each sample's smallest and largest value.
    MovingAverage,
    /// Without the outermost values, by a streaming histogram.
    Percentile,
    /// The range whose quantised histogram has the least Kullback-Leibler divergence.
    Entropy,
    /// The range whose quantised histogram has the least mean squared error.
    MeanSquaredError,
}

/// Measure variants on one device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Measure {
    /// The device.
    pub device: Device,
    /// How the device runs models.
    pub backend: Backend,
    /// The room that a model has.
    #[serde(default)]
    pub limits: Limits,
    /// How inputs are fed.
    pub workload: Workload,
    /// Threads of a runtime; at least 1.
    pub threads: u32,
    /// What to measure, at most 16. The first is the reference of comparisons.
    pub variants: Vec<MeasuredVariant>,
    /// Data and metric that accuracy is computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<EvaluationData>,
    /// Whether energy is measured.
    #[serde(default)]
    pub energy: EnergyPolicy,
    /// The device's meter, as `edgeyard-device-runner run --meter` takes it; absent: the device has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meter: Option<String>,
    /// Wait until the device is this cool before measuring, in thousandths of a degree Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_down_millidegrees: Option<i64>,
    /// Seconds after which the run is given up.
    pub deadline_seconds: u64,
}

/// A device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The EdgeDevice's namespace.
    pub namespace: String,
    /// The EdgeDevice's name.
    pub name: String,
    /// The EdgeDevice's UID.
    pub uid: String,
    /// Its EdgeDeviceClass.
    pub class: String,
    /// The name of the entry in the EdgeBenchmark's devices.
    pub request: String,
    /// Whether it is real.
    pub fidelity: Fidelity,
    /// The lease's token.
    pub fencing_token: i64,
}

/// Whether a device is real.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// It is.
    Hardware,
    /// It is not: its times mean nothing and are not reported.
    Emulated,
}

/// How a device runs models.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "type")]
pub enum Backend {
    /// In the runner's process, in the runtime of the variant's target.
    #[serde(rename_all = "camelCase")]
    Runtime {
        /// What computes, where the runtime has a choice.
        #[serde(default)]
        execution_provider: ExecutionProvider,
    },
    /// By firmware on a Cortex-M under QEMU.
    #[serde(rename_all = "camelCase")]
    CortexM {
        /// QEMU's name of the machine.
        machine: String,
        /// An instruction takes `2^icountShift` nanoseconds of the guest's time.
        icount_shift: u8,
        /// The port of a real board, whose firmware calls itself `machine`; absent: QEMU.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial_port: Option<String>,
        /// The microcontroller that is meant, by its data sheet.
        #[serde(default, skip_serializing_if = "Microcontroller::is_unknown")]
        microcontroller: Box<Microcontroller>,
    },
}

/// A microcontroller by its data sheet: what estimates start from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Microcontroller {
    /// Its core; absent: the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<Core>,
    /// Clock of the core; absent: no latency is estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_hertz: Option<u64>,
    /// Power while the core runs from flash; absent: no energy is estimated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_microwatts: Option<u64>,
}

impl Microcontroller {
    /// Whether nothing is known of it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// Cores of microcontrollers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Core {
    /// Cortex-M0+.
    CortexM0Plus,
    /// Cortex-M3.
    CortexM3,
    /// Cortex-M4.
    CortexM4,
    /// Cortex-M7.
    CortexM7,
    /// Cortex-M33.
    CortexM33,
    /// Cortex-M55.
    CortexM55,
}

impl Backend {
    /// The runtime on the processor.
    #[must_use]
    pub const fn runtime() -> Self {
        Self::Runtime { execution_provider: ExecutionProvider::Cpu }
    }
}

/// What computes in ONNX Runtime.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutionProvider {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU; operators that it does not have run on the processor.
    Cuda,
}

/// The room that a model has, in bytes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// For code and weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flash_bytes: Option<u64>,
    /// For everything at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// For tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arena_bytes: Option<u64>,
}

/// How inputs are fed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// In what pattern.
    pub scenario: Scenario,
    /// For how long.
    pub profile: Profile,
    /// Fixes every choice that chance would make.
    pub seed: u64,
    /// Queries of each variant at least; absent: what the profile and the scenario ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_count: Option<u64>,
    /// The percentile that the run is about; absent: the scenario's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentile: Option<HeadlinePercentile>,
    /// `Server`: what the percentile of the latencies must not exceed. Absent elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_bound_nanoseconds: Option<u64>,
}

/// In what pattern inputs are fed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One query of one sample after the other; the 90th percentile counts.
    SingleStream,
    /// One query of eight samples after the other; the 99th percentile counts.
    MultiStream,
    /// Queries of one sample arrive by a Poisson process; the highest rate whose 99th percentile keeps a bound counts.
    Server,
    /// All samples at once; the throughput counts.
    Offline,
    /// As MLPerf Tiny: exactly 5 windows of at least 10 s and 10 inferences; the median of their rates counts.
    Tiny,
}

/// A percentile that a run is about.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadlinePercentile {
    /// The median.
    P50,
    /// The 90th.
    P90,
    /// The 95th.
    P95,
    /// The 97th.
    P97,
    /// The 99th.
    P99,
    /// The 99.9th.
    P999,
}

impl HeadlinePercentile {
    /// As a share of one.
    #[must_use]
    pub const fn share(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P95 => 0.95,
            Self::P97 => 0.97,
            Self::P99 => 0.99,
            Self::P999 => 0.999,
        }
    }
}

/// How long is measured.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Does it work: a moment.
    Smoke,
    /// Seconds: while developing.
    Quick,
    /// Enough to compare.
    Standard,
    /// As long as MLPerf asks for: at least 10 minutes a variant.
    Official,
}

/// Whether energy is measured.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnergyPolicy {
    /// A run without a working meter fails.
    Required,
    /// Measured where the device has a meter; null with the reason elsewhere.
    #[default]
    BestEffort,
    /// Not measured.
    Disabled,
}

/// A variant to measure.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MeasuredVariant {
    /// The name of the entry in the EdgeBenchmark's models.
    pub model: String,
    /// The recipe's name.
    pub variant: String,
    /// The runtime it is for.
    pub target: String,
    /// Its file format.
    pub format: ModelFormat,
    /// What identifies it.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
}

/// Why a job spec is refused.
#[derive(thiserror::Error, Debug)]
pub enum SpecError {
    /// Another major version.
    #[error("job spec has schemaVersion {found}, this program reads {SPEC_MAJOR}.x: use images of one release")]
    VersionSkew {
        /// What it has.
        found: String,
    },
    /// Not a job spec at all.
    #[error("job spec cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl SpecError {
    /// The reason for a [`crate::Termination`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::VersionSkew { .. } => "VersionSkew",
            Self::Malformed(_) => "MalformedSpec",
        }
    }
}

impl JobSpec {
    /// Reads a spec of this major version.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            schema_version: String,
        }
        let Version { schema_version } = serde_json::from_str(text)?;
        if schema_version.split('.').next() != Some(SPEC_MAJOR) {
            return Err(SpecError::VersionSkew { found: schema_version });
        }
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> JobSpec {
        JobSpec {
            schema_version: SPEC_VERSION.into(),
            identity: Identity { namespace: "vision".into(), name: "mnist".into(), uid: "u".into(), attempt: 1 },
            store: StoreAccess { url: "https://store".into(), certificate_authority: None, grant: "eyg1.x.y".into() },
            work: Work::Optimize(Optimize {
                source: StoredModel { digest: "sha256:00".into(), format: ModelFormat::Onnx },
                calibration: None,
                evaluation: None,
                variant: "int8".into(),
                target: "tflm".into(),
                passes: vec![
                    Pass::Prune {
                        pattern: Pattern::NOfM,
                        score: Score::Magnitude,
                        sparsity: None,
                        n: Some(2),
                        m: Some(4),
                    },
                    Pass::quantize(Scheme::Int8),
                ],
                max_accuracy_drop: Some(0.01),
                max_size_bytes: Some(65_536),
                input_shapes: [("x".to_owned(), vec![1, 1, 28, 28])].into(),
                input_values: [("sr".to_owned(), 16_000.0)].into(),
            }),
        }
    }

    #[test]
    fn a_spec_is_read_back() {
        let text = serde_json::to_string(&spec()).unwrap();
        assert_eq!(JobSpec::parse(&text).unwrap(), spec());
    }

    #[test]
    fn another_minor_is_read_and_another_major_is_skew() {
        let minor = serde_json::to_string(&JobSpec { schema_version: "1.7".into(), ..spec() }).unwrap();
        assert!(JobSpec::parse(&minor).is_ok());
        let major = r#"{"schemaVersion": "2.0", "anything": 1}"#;
        assert_eq!(JobSpec::parse(major).unwrap_err().reason(), "VersionSkew");
        assert_eq!(JobSpec::parse("{").unwrap_err().reason(), "MalformedSpec");
    }
}
