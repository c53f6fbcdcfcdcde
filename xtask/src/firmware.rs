//! `cargo xtask firmware`: one ELF for each emulated board, as `hardware-lab/firmware/machines.toml` lists them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use fs_err as fs;
use serde::Deserialize;

use crate::shell::{cargo, quiet, say, step};
use crate::{environment, layout};

/// The file that lists the boards.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Machines {
    machine: Vec<Machine>,
}

/// One board: what to build for it. Its name is also the feature that selects its memory map and clock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Machine {
    /// The name QEMU knows it by; the ELF is called after it.
    name: String,
    /// The core, for people.
    core: String,
    target: String,
    /// Compiler flags of this board alone, such as its exact core.
    #[serde(default)]
    rustflags: Vec<String>,
}

/// The one package that all boards share.
const PACKAGE: &str = "edgeyard-firmware";

/// Runs `cargo xtask firmware`.
///
/// # Errors
/// When the list cannot be read or a board's firmware does not build.
pub fn run() -> Result<ExitCode> {
    for elf in build()? {
        say(&elf);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every ELF into `target/firmware/` and returns a line about each.
///
/// # Errors
/// As [`run`].
pub fn build() -> Result<Vec<String>> {
    let source = layout::root()?.join("hardware-lab/firmware");
    let list = fs::read_to_string(source.join("machines.toml"))?;
    let Machines { machine: machines } = toml::from_str(&list).context("hardware-lab/firmware/machines.toml")?;
    let out = environment::firmware_dir()?;
    fs::create_dir_all(&out)?;
    machines
        .iter()
        .map(|machine| {
            let elf = step(&format!("firmware for {} ({})", machine.name, machine.core), || one(machine, &source))?;
            let place = out.join(format!("{}.elf", machine.name));
            // Renamed into place: a running emulator keeps the old file.
            let new = out.join(format!(".{}.new", machine.name));
            fs::copy(elf, &new)?;
            fs::rename(new, &place)?;
            Ok(format!("{} ({} bytes)", place.display(), fs::metadata(&place)?.len()))
        })
        .collect()
}

fn one(machine: &Machine, source: &Path) -> Result<std::path::PathBuf> {
    let Machine { name, core: _, target, rustflags } = machine;
    // A folder for each board: its linker script and flags differ, the names of its outputs do not.
    let folder = layout::cargo_target()?.join("firmware-build").join(name);
    let mut cargo = cargo(source);
    cargo
        .args(["build", "--release", "--package", PACKAGE, "--target", target, "--features", name, "--target-dir"])
        .arg(&folder);
    if !rustflags.is_empty() {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", rustflags.join("\u{1f}"));
    }
    quiet(&mut cargo)?;
    Ok(folder.join(target).join("release").join(PACKAGE))
}
