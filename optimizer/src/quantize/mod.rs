//! Passes that store and compute in fewer bits. On the float graph, for every target: `equalize` and `bias` make it
//! easier to quantise, `sensitivity` says which operators are worth keeping in float. For ONNX artefacts: `qdq` writes
//! integers as QuantizeLinear and DequantizeLinear pairs, `dynamic` and `int4` store weights as integers, `half` keeps
//! them as IEEE halves. Artefacts for LiteRT are quantised while lowered.

mod bias;
mod dynamic;
mod equalize;
mod half;
mod int4;
mod parameters;
mod qdq;
mod sensitivity;

pub use bias::{Granularities, correct_biases};
pub use dynamic::dynamic;
pub use equalize::{Peaks, channel_peaks, equalize};
pub(crate) use half::beyond_half;
pub use half::half_weights;
pub use int4::{Int4Form, int4};
pub use parameters::{Asymmetric, Element, WeightError, check_weights, quantize_weights};
pub use qdq::{QdqError, QdqOptions, Quantized, quantize};
pub use sensitivity::{Sensitivity, SensitivityError, rank_sensitivity};
