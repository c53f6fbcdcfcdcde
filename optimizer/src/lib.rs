//! The compression engine. An ONNX model comes in as [`ir::Model`], is simplified, calibrated and rewritten or lowered
//! for a target, and goes out as an artefact that was run in the target's own runtime, with a report.

pub mod ir;
pub mod lower;
pub mod simplify;
