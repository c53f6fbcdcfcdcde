//! Cost, pruning and factorisation against ONNX Runtime, NumPy and brute force.

// All of this is test code, helpers included.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../engine/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;
mod nets;
mod costs;
mod structured;
mod light;
mod composed;
mod elements;
mod factors;
mod trained;
