//! Passes that store and compute in fewer bits, for ONNX artefacts: `qdq` writes integers as QuantizeLinear and
//! DequantizeLinear pairs, `half` keeps weights as IEEE halves. Artefacts for LiteRT are quantised while lowered.

mod half;
mod parameters;
mod qdq;

pub use half::half_weights;
pub use parameters::{Asymmetric, Element, quantize_weights};
pub use qdq::{QdqError, QdqOptions, Quantized, quantize};
