//! What a run is asked to do, whether it comes from a job spec or from flags.

use std::path::PathBuf;

use edgeyard_job::spec::{AccuracyMetric, Backend, EnergyPolicy, Fidelity, Limits, ModelFormat, Workload};

use crate::tensor::Array;

/// All that a run needs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whose run it is.
    pub identity: Identity,
    /// On what.
    pub device: Device,
    /// What runs models.
    pub backend: Backend,
    /// The room that a model has.
    pub limits: Limits,
    /// How inputs are fed.
    pub workload: Workload,
    /// Threads of a runtime.
    pub threads: u32,
    /// What is measured; the first is the reference of comparisons.
    pub variants: Vec<Variant>,
    /// Samples to infer on.
    pub data: Option<Data>,
    /// Whether outputs are handed back.
    pub keep_outputs: bool,
    /// Whether energy is measured.
    pub energy: EnergyPolicy,
    /// What measures energy, as `meter::open` takes it.
    pub meter: Option<String>,
    /// Measuring begins when the machine is this cool, in thousandths of a degree Celsius.
    pub cool_down_millidegrees: Option<i64>,
}

/// Whose run it is; by hand there is a name only.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Namespace of the EdgeBenchmark.
    pub namespace: Option<String>,
    /// Name of the EdgeBenchmark, or of the model.
    pub name: String,
    /// UID of the BenchmarkRun.
    pub uid: Option<String>,
    /// The attempt, from 1.
    pub attempt: u32,
}

/// On what is run.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its class.
    pub class: String,
    /// Whether it is real.
    pub fidelity: Fidelity,
    /// What only a cluster knows.
    pub lease: Option<Lease>,
}

/// A leased device.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The EdgeDevice's namespace.
    pub namespace: String,
    /// The EdgeDevice's name.
    pub name: String,
    /// The entry in the EdgeBenchmark's devices.
    pub request: String,
    /// The lease's token.
    pub fencing_token: i64,
}

/// What is measured.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The entry in the EdgeBenchmark's models, or the file's name.
    pub model: String,
    /// The recipe.
    pub variant: String,
    /// The runtime.
    pub target: String,
    /// The file's format.
    pub format: ModelFormat,
    /// The file's digest.
    pub digest: String,
    /// The file's size.
    pub size_bytes: u64,
    /// The file.
    pub path: PathBuf,
}

impl Variant {
    /// `model/variant/target`.
    pub fn label(&self) -> String {
        format!("{}/{}/{}", self.model, self.variant, self.target)
    }
}

/// Samples to infer on.
#[derive(Clone, Debug)]
pub struct Data {
    /// The samples.
    pub x: Array,
    /// What digests identify them by.
    pub digest: String,
    /// Right answers and how they are compared.
    pub scoring: Option<Scoring>,
}

/// Right answers.
#[derive(Clone, Debug)]
pub struct Scoring {
    /// What is right.
    pub answers: Answers,
    /// How predictions are scored.
    pub metric: AccuracyMetric,
}

/// What is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// One class for each sample.
    Classes(Vec<i64>),
    /// So many numbers for each sample, one sample after the other.
    Values(usize, Vec<f64>),
}
