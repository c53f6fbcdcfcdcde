//! Models that people really exported (`xtask/corpus.txt`, installed by `cargo xtask setup`) and onnx's light models: each is
//! simplified, lowered and quantised, and ONNX Runtime and LiteRT say whether the result still is that model.

// All of this is test code, helpers included.
#![allow(clippy::unwrap_used)]

mod harness;
mod light;
mod published;
