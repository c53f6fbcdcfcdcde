//! An interpreter for int8 TFLite models that fits a microcontroller: `no_std`, no allocation after loading, the model
//! read in place from flash or RAM, outputs equal to TensorFlow Lite Micro's to the last bit.
//!
//! [`Engine::load`] checks the whole file once (a malformed one is an [`Error`], never a panic or a wild read), prepares
//! every operator and plans the arena; [`Engine::run_op`] then runs one operator, so that a caller can time each.
#![cfg_attr(not(test), no_std)]

pub mod flatbuffer;
pub mod schema;
mod error;
mod carve;
pub mod fixed;
pub mod plan;
mod tensor;
mod engine;
mod ops;
mod kernels;

pub use engine::{Engine, Usage};
pub use error::Error;
pub use tensor::{Shape, Tensor};
