//! What a run is asked to do, whether it comes from a job spec or from flags.

use std::path::PathBuf;
use std::time::Duration;

use edgeyard_job::spec::{AccuracyMetric, Backend, Fidelity, Limits, ModelFormat, Profile};

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
    /// How long is measured.
    pub profile: Profile,
    /// Fixes every choice that chance would make.
    pub seed: u64,
    /// Threads of a runtime.
    pub threads: u32,
    /// What is measured; the first is the reference of comparisons.
    pub variants: Vec<Variant>,
    /// Samples to infer on.
    pub data: Option<Data>,
    /// Whether outputs are handed back.
    pub keep_outputs: bool,
    /// What measures energy, as `meter::open` takes it.
    pub meter: Option<String>,
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
    /// One label for each sample.
    pub labels: Vec<i64>,
    /// How predictions are scored.
    pub metric: AccuracyMetric,
}

/// How long a profile measures one variant.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Windows, each a turn.
    pub windows: u32,
    /// All windows together.
    pub measure: Duration,
    /// Inferences in any case, as far as `cap` allows.
    pub minimum_count: u64,
    /// All windows together, at most.
    pub cap: Duration,
    /// Warm-up, at least and at most.
    pub warm_up: (Duration, Duration),
    /// Idling before and after, where energy is measured.
    pub idle: Duration,
}

/// The most samples that a variant keeps.
pub const MOST_SAMPLES: u64 = 1_000_000;

impl Timing {
    /// A profile's timing.
    pub const fn of(profile: Profile) -> Self {
        const fn ms(millis: u64) -> Duration {
            Duration::from_millis(millis)
        }
        match profile {
            // 64 is the least from which the 90th percentile can be told, 662 for the 99th.
            Profile::Smoke => Self {
                windows: 4,
                measure: ms(1000),
                minimum_count: 64,
                cap: ms(10_000),
                warm_up: (ms(100), ms(1000)),
                idle: ms(200),
            },
            Profile::Quick => Self {
                windows: 10,
                measure: ms(5000),
                minimum_count: 1024,
                cap: ms(30_000),
                warm_up: (ms(500), ms(3000)),
                idle: ms(1000),
            },
            Profile::Standard => Self {
                windows: 30,
                measure: ms(60_000),
                minimum_count: 1024,
                cap: ms(180_000),
                warm_up: (ms(2000), ms(10_000)),
                idle: ms(5000),
            },
        }
    }
}
