//! `cargo xtask bench`: what our own parts cost. Numbers of one run and their ratios, and no judgement: timings are never
//! asserted.

mod firmware;
mod optimizer;
mod runner;

pub use firmware::published_models;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What the device-runner's harness adds to an inference, beside bare loops and the runtime's own Python loop
    Runner(runner::Args),
    /// Instructions per inference of the firmware on the emulated microcontrollers, beside TensorFlow Lite Micro's
    Firmware(firmware::Args),
    /// What the optimizer makes and how long it takes, beside ONNX Runtime's quantizer, onnx2tf and ai-edge-quantizer
    Optimizer(optimizer::Args),
}

/// How to print.
#[derive(ValueEnum, Clone, Copy, Default, PartialEq, Eq)]
enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// Benchmarks.
///
/// # Errors
/// When something that is needed is missing, or a program fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Runner(args) => runner::run(args),
        What::Firmware(args) => firmware::run(args),
        What::Optimizer(args) => optimizer::run(args),
    }
}
