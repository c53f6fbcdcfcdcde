//! Developer commands: `cargo xtask setup | cluster | images | firmware | codegen | exec | demo | test | bench | fuzz`.
//!
//! A table of subcommands and nothing else; each command is a module of its own.

mod layout;
mod shell;
mod environment;
mod setup;
mod binaries;
mod firmware;
mod codegen;
mod images;
mod cluster;
mod exec;
mod demo;
mod test;
mod bench;
mod fuzz;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Edgeyard's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install everything that is missing: Debian packages, runtimes, Kubernetes, oracles, data
    Setup(setup::Args),
    /// Run the lab's single-node Kubernetes on this machine
    Cluster(cluster::Args),
    /// Build the container images and import them into the running cluster
    Images(images::Args),
    /// Build the firmware of the microcontrollers, and QEMU's plugin that counts their instructions
    Firmware(firmware::Args),
    /// Write (or check) the files that are generated from the code
    Codegen(codegen::Args),
    /// Run one of our binaries, or any program, with the runtimes it needs
    Exec(exec::Args),
    /// See it work: cluster, chart, examples, results
    Demo(demo::Args),
    /// Run the tests
    Test(test::Args),
    /// Tell what our own parts cost
    Bench(bench::Args),
    /// Feed damaged input to one of our readers for a while
    Fuzz(fuzz::Args),
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Firmware(args) => firmware::run(&args),
        Command::Codegen(args) => codegen::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
