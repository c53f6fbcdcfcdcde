//! The command line. `run` makes one artefact from local files, `inspect`, `diff` and `lint` look at models, `job` does what a
//! pod is asked to do, `targets` lists what there is to make artefacts for.

mod run;
mod passes;
mod look;
mod show;
mod bar;

use std::io::Write;
use std::process::ExitCode as Code;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use edgeyard_job::ExitCode;

/// Compresses ONNX models for edge runtimes and runs what it made before anybody else does.
///
/// Exit codes: 0 done, 2 bad input, 3 a constraint is not met, 4 something around the program failed, 5 cancelled.
#[derive(Debug, Parser)]
#[command(name = "edgeyard-optimizer", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make one artefact from a model and report on it.
    Run(Box<run::Run>),
    /// Show a model layer by layer: shapes, parameters, multiply-accumulates, ranges of weights.
    Inspect(look::Inspect),
    /// Compare two models on the same samples, layer by layer.
    Diff(look::Diff),
    /// Hold a model against a target's rules: what would fall back to the CPU or be refused, and what to do about it.
    Lint(look::Lint),
    /// Do what a job spec says, as pods do: import inputs into the store, or make one artefact of what is there.
    Job {
        /// The job spec, JSON.
        #[arg(long, value_name = "FILE")]
        spec: std::path::PathBuf,
    },
    /// List the targets and what they take.
    Targets {
        #[command(flatten)]
        format: Format,
    },
    /// Write the completion script of a shell to standard output.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// How results are printed.
#[derive(Debug, clap::Args)]
struct Format {
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; the whole report.
    Json,
}

impl Arguments {
    /// Does what was asked.
    pub fn run(self) -> Code {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::Diff(diff) => diff.run(),
            Command::Lint(lint) => lint.run(),
            Command::Job { spec } => edgeyard_optimizer::job::run(&spec).into(),
            Command::Targets { format } => show::targets(format.output),
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "edgeyard-optimizer", &mut script);
                print(&script)
            }
        }
    }
}

/// Prints to standard output; a reader that went away is no error.
fn print(bytes: &[u8]) -> Code {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::Infrastructure.into(),
        _ => ExitCode::Done.into(),
    }
}

/// Says an error and what caused it.
fn complain(error: &dyn std::error::Error) {
    eprintln!("error: {}", edgeyard_optimizer::job::explain(error));
}
