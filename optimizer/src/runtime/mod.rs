//! The runtimes that models are run in: ONNX Runtime for sources and ONNX artefacts, LiteRT for .tflite, both loaded at
//! run time from the library that an environment variable names; and the firmware's engine for microcontrollers. A
//! [`Runner`] takes samples as the source model takes them, whatever the artefact's own types and layout are.

mod litert;
mod micro;
mod onnxruntime;

use thiserror::Error;

pub use litert::LiteRt;
pub use micro::Micro;
pub use onnxruntime::{Observed, OnnxRuntime, Session};

/// Names the file of ONNX Runtime's library.
pub const ORT_VARIABLE: &str = "EDGEYARD_ORT_LIB";
/// Names the file of LiteRT's library.
pub const LITERT_VARIABLE: &str = "EDGEYARD_LITERT_LIB";

/// Why a model does not run.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The library is not there.
    #[error("{runtime} cannot be loaded: {problem}. {variable} must name its library; `cargo xtask exec -- …` sets it")]
    Missing {
        /// Which runtime.
        runtime: &'static str,
        /// The variable that names the library.
        variable: &'static str,
        /// What the system says.
        problem: String,
    },
    /// The runtime refuses the model.
    #[error("{runtime} refuses the model: {problem}")]
    Refused {
        /// Which runtime.
        runtime: &'static str,
        /// What the runtime says.
        problem: String,
    },
    /// The runtime fails on an input.
    #[error("{runtime} fails while it runs the model: {problem}")]
    Failed {
        /// Which runtime.
        runtime: &'static str,
        /// What the runtime says.
        problem: String,
    },
    /// The model's inputs or outputs cannot be fed from samples.
    #[error("the model cannot be run on samples: {0}")]
    Interface(String),
}

/// A model that is ready to run.
pub trait Runner {
    /// How many samples one call takes at most.
    fn batch(&self) -> usize;

    /// Runs `count` samples, one after the other in `samples`; gives for each the values of all outputs.
    ///
    /// # Errors
    /// [`RuntimeError`].
    fn run(&mut self, samples: &[f32], count: usize) -> Result<Vec<Row>, RuntimeError>;
}

/// Loads a model and lends it for a while; called once in each worker's thread.
pub type WithRunner<'a> = &'a (dyn Fn(&mut dyn FnMut(&mut dyn Runner)) -> Result<(), RuntimeError> + Sync);

/// What a model says of one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// All outputs in order, each row-major.
    pub values: Vec<f32>,
    /// How many of them are the first output's: its scores.
    pub scores: usize,
}

impl Row {
    /// The first output.
    pub fn scores(&self) -> &[f32] {
        &self.values[..self.scores]
    }
}

/// Threads to use: what the machine or the container gives.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
