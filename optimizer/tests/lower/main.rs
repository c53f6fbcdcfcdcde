//! Lowering to .tflite, judged by the runtimes that will run the files.

// All of this is test code, helpers included.
#![allow(clippy::unwrap_used)]

mod harness;
mod models;
mod more;
mod ops;
mod random;
mod rare;
mod recurrent;
