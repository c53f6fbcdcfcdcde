//! t
use anyhow::Result;
/// Arguments
#[derive(clap::Args)]
pub struct Args {}
/// x
pub fn run(_: &Args) -> Result<std::process::ExitCode> { Ok(std::process::ExitCode::SUCCESS) }
