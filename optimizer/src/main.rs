//! The optimizer's binary: reads the command line and hands over.

mod cli;

use clap::Parser;

fn main() -> std::process::ExitCode {
    cli::Arguments::parse().run()
}
