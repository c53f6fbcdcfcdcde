//! The optimizer's binary: reads the command line and hands over.

mod cli;
mod memory;

use clap::Parser;

fn main() -> std::process::ExitCode {
    memory::give_back_large_blocks();
    cli::Arguments::parse().run()
}
