//! `cargo xtask bench`: measurements that report and assert nothing.

mod firmware;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What `cargo xtask bench` accepts.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Instructions per inference of the firmware on the emulated microcontrollers, beside TensorFlow Lite Micro's
    Firmware(firmware::Args),
}

/// Runs `cargo xtask bench`.
///
/// # Errors
/// When something cannot be measured.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Firmware(args) => firmware::run(args),
    }
}
