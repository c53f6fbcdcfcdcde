//! Reads and writes .tflite files: an owned object tree, checked when read, compact when written, and a summary.
//! Used by the optimizer's lowering, by the device-runner and by the host side of the firmware. Knows the format only;
//! what operators mean to a runtime is for others.

mod flat;
mod types;
mod ops;
mod options;
mod model;
mod decode;
mod encode;
mod versions;
mod summary;

pub use decode::read;
pub use encode::write;
pub use model::{Blocks, Model, Operator, OperatorCode, Quantization, Signature, Subgraph, Tensor};
pub use ops::BuiltinOp;
pub use summary::{OperatorSummary, Summary, TensorSummary, inspect, summarize};
pub use types::{Activation, MirrorMode, Padding, TensorType};
pub use versions::operator_version;

/// Builtin options of operators, one type per table of the schema.
pub mod op_options {
    pub use crate::options::*;
}

pub use options::Options;

/// What a .tflite carries at offset 4.
const IDENTIFIER: &[u8; 4] = b"TFL3";

/// Why a file is not a readable .tflite.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReadError {
    #[error("not a .tflite file: the identifier TFL3 is missing at offset 4")]
    NotTflite,
    #[error("schema version {version} is not supported; only version 3 is")]
    SchemaVersion { version: u32 },
    #[error("{what} at offset {offset} points outside the file of {file} bytes: truncated or damaged")]
    OutOfBounds { what: &'static str, offset: usize, file: usize },
    #[error("{what}: the table at offset {offset} is malformed")]
    BadTable { what: &'static str, offset: usize },
    #[error("{what} is missing")]
    Missing { what: &'static str },
    #[error("{what} is not UTF-8")]
    NotUtf8 { what: &'static str },
    #[error("unknown {what} {number}: made by a newer converter, or damaged")]
    UnknownNumber { what: &'static str, number: u8 },
    #[error("{what} {index} is out of range: there are {count}")]
    BadIndex { what: &'static str, index: i64, count: usize },
    #[error("tensor {tensor:?} has the impossible shape {shape:?}")]
    BadShape { tensor: String, shape: Vec<i32> },
    #[error("tensor {tensor:?} holds {stored} bytes where its shape and type need {expected}")]
    DataSize { tensor: String, stored: usize, expected: usize },
    #[error("tensor {tensor:?} has {scales} scales but {zero_points} zero points")]
    Scales { tensor: String, scales: usize, zero_points: usize },
    #[error("{what} are not supported")]
    Unsupported { what: &'static str },
    #[error("{what}: the same bytes are referred to so often that reading them would exhaust memory")]
    Amplified { what: &'static str },
}

/// Why a model cannot be written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum WriteError {
    #[error("buffer 0 must exist and be empty")]
    FirstBuffer,
    #[error("{bytes} bytes of constants do not fit a .tflite, which ends at 2 GiB")]
    TooLarge { bytes: usize },
    #[error("{what} {index} is out of range: there are {count}")]
    BadIndex { what: &'static str, index: i64, count: usize },
    #[error("tensor {tensor:?} of shape {shape:?} holds {stored} bytes, which does not fit")]
    DataSize { tensor: String, shape: Vec<i32>, stored: usize },
    #[error("{what} were read but cannot be written")]
    NotCarried { what: &'static str },
    #[error("operator options number {number} were not read and cannot be written")]
    UnreadOptions { number: u8 },
}
