//! Lowering to .tflite, judged by the runtimes that will run the files.

mod harness;
mod models;
mod ops;
mod random;
