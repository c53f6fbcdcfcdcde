//! What can be wrong with a model, in words that name the operator, the tensor and both numbers of a limit.

use crate::flatbuffer::Malformed;
use crate::schema::{DType, OpCode};
use core::fmt;

/// Why a model was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Error {
    /// The bytes are not a well-formed TFLite file.
    Malformed(&'static str),
    /// The file is of another schema version than 3.
    Version(u32),
    /// No kernel for this operator.
    UnknownOp {
        /// Position in the graph.
        index: usize,
        /// The operator.
        code: OpCode,
    },
    /// A kernel exists, but not for what the model asks.
    Unsupported {
        /// Position in the graph.
        index: usize,
        /// The operator.
        code: OpCode,
        /// What it asks for.
        why: &'static str,
    },
    /// A later version of an operator than this engine knows: it may mean something new.
    OpVersion {
        /// Position in the graph.
        index: usize,
        /// The operator.
        code: OpCode,
        /// The version that the model asks for.
        version: i32,
        /// The newest that is known here.
        known: i32,
    },
    /// A tensor of a type for which the operator has no kernel.
    Type {
        /// Position of the operator in the graph.
        index: usize,
        /// The operator.
        code: OpCode,
        /// Number of the tensor.
        tensor: usize,
        /// Its type.
        found: DType,
    },
    /// The graph itself contradicts itself.
    Graph {
        /// The tensor at fault.
        tensor: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The arena cannot hold the model's tensors and tables.
    ArenaTooSmall {
        /// Bytes wanted, as far as planning got.
        need: usize,
        /// Bytes given.
        have: usize,
    },
}

impl From<Malformed> for Error {
    fn from(m: Malformed) -> Self {
        Error::Malformed(m.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed(what) => write!(f, "not a valid TFLite file: bad {what}"),
            Error::Version(v) => write!(f, "TFLite schema version {v}; only version 3 is known"),
            Error::UnknownOp { index, code } => write!(f, "operator {index} is {code}, which has no kernel here"),
            Error::Unsupported { index, code, why } => write!(f, "operator {index} ({code}): {why}"),
            Error::OpVersion { index, code, version, known } => {
                write!(f, "operator {index} is {code} version {version}; versions up to {known} are known")
            }
            Error::Type { index, code, tensor, found } => {
                let name = found.name();
                write!(f, "operator {index} ({code}): tensor {tensor} is {name}, and only INT8 has a kernel")?;
                if *found == DType::Float32 { f.write_str("; convert the model to full int8") } else { Ok(()) }
            }
            Error::Graph { tensor, why } => write!(f, "tensor {tensor}: {why}"),
            Error::ArenaTooSmall { need, have } => {
                write!(f, "the model needs an arena of at least {need} bytes and has {have}")
            }
        }
    }
}

impl core::error::Error for Error {}
