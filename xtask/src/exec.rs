//! `cargo xtask exec -- CMD…`: a program with the runtimes it needs; one of ours is built first.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::{binaries, environment};

/// Arguments of `exec`.
#[derive(clap::Args)]
pub struct Args {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Becomes the program.
///
/// # Errors
/// When one of our programs does not build, or the program cannot be started.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (program, rest) = args.command.split_first().context("a program to run")?;
    if binaries::is_ours(program) {
        binaries::build(&[program], None)?;
    }
    // Looked up by the new PATH, which holds our binaries, not by the one of this process.
    let error = Command::new("/usr/bin/env").arg(program).args(rest).envs(environment::variables()?).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}
