//! The program: arguments, TLS provider, telemetry, and the exit code.

use std::io::IsTerminal as _;

use clap::Parser as _;
use edgeyard_device_runner::cli::Arguments;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    arguments.execute()
}
