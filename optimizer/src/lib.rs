//! The compression engine. An ONNX model comes in as [`ir::Model`], is simplified, calibrated and rewritten or lowered
//! for a target, and goes out as an artefact that was run in the target's own runtime, with a report.

pub mod ir;
pub mod simplify;
pub mod dataset;
pub mod runtime;
pub mod calibrate;
pub mod cost;
pub mod prune;
pub mod factorize;
pub mod quantize;
pub mod lower;
pub mod lint;
pub mod evaluate;
pub mod inspect;
pub mod diff;
pub mod optimize;
pub mod error;
pub mod job;

/// What reports name as their writer.
pub const GENERATOR: &str = concat!("edgeyard-optimizer ", env!("CARGO_PKG_VERSION"));
