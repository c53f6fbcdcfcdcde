//! `kubectl edgeyard`: what kubectl alone cannot do for Edgeyard. Models and data go into the store, records come out, a
//! benchmark runs again, manifests run without a cluster.

mod connection;
mod get;
mod local;
mod push;
mod rerun;
mod selftest;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

/// Works with Edgeyard's store and benchmarks.
#[derive(Parser, Debug)]
#[command(name = "kubectl-edgeyard", bin_name = "kubectl edgeyard", version, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong use.\nThe cluster is the one that kubectl uses (KUBECONFIG and its current context)."
)]
struct Cli {
    #[command(flatten)]
    connection: connection::Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Put a model or a data set into the store and print its digest.
    ///
    /// Manifests name it by that digest: `artifact: {digest: "sha256:…"}`. The same file again costs nothing.
    Push(push::Args),
    /// Show what benchmarks found: all results, one benchmark's records, or anything by its digest.
    Get(get::Args),
    /// Run an EdgeBenchmark again: a new object with the same spec.
    Rerun(rerun::Args),
    /// Run manifests on this machine with the same programs, without a cluster.
    Local(local::Args),
    /// Measure a tiny model in the cluster to see that Edgeyard works; `helm test` does this.
    Selftest(selftest::Args),
    /// Print a completion script: `source <(kubectl edgeyard completion bash)`.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How to print.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    // An error only says that somebody installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let Cli { connection, command } = cli;
    match command {
        Command::Push(args) => push::run(&connection.store().await?, &args).await,
        Command::Get(args) => get::run(&connection.store().await?, &args).await,
        Command::Rerun(args) => {
            let (client, namespace) = connection.client().await?;
            rerun::run(client, &namespace, &args).await
        }
        Command::Local(args) => local::run(&args).await,
        Command::Selftest(args) => {
            let (client, namespace) = connection.client().await?;
            selftest::run(client, &namespace, &args).await
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-edgeyard", &mut std::io::stdout());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
