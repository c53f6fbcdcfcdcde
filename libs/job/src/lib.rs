//! What pods and the operator say to each other: the versioned job spec that a pod reads, the
//! progress and the report that it writes, the termination message and the exit code that it ends
//! with. Plain data and checks; no IO.

pub mod exit;
pub mod inspection;
pub mod progress;
pub mod report;
pub mod spec;

pub use exit::{ExitCode, Termination};
pub use progress::Progress;
pub use report::Report;
pub use spec::{JobSpec, SpecError, Work};

/// Media types of what is stored.
pub mod media_type {
    /// An optimizer's or importer's report.
    pub const REPORT: &str = "application/vnd.edgeyard.report.v1+json";
    /// A benchmark record.
    pub const RECORD: &str = "application/vnd.edgeyard.record.v1+json";
    /// Raw samples of a measurement.
    pub const SAMPLES: &str = "application/vnd.edgeyard.samples.v1";
    /// An ONNX model.
    pub const ONNX: &str = "application/vnd.onnx";
    /// A TensorFlow Lite model.
    pub const TFLITE: &str = "application/vnd.tflite";
    /// A NumPy archive.
    pub const NPZ: &str = "application/vnd.numpy.npz";
}
