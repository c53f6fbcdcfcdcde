//! `cargo xtask firmware`: one ELF for each machine that `hardware-lab/firmware/machines.toml` lists, and the plugin that counts
//! in QEMU. Emulated machines' ELFs go to `target/firmware/`, those of boards to `target/firmware/boards/`, where nothing that
//! hands ELFs to QEMU looks.
//!
//! A build's bytes depend on the sources and the pinned compiler alone: the paths of this checkout, of cargo's home and of the
//! standard library's sources are replaced. `--verify` proves it: two builds, from copies in two folders, must be equal.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::shell::{cargo, output, quiet, say, step};
use crate::{environment, layout};

/// What `cargo xtask firmware` accepts.
#[derive(clap::Args)]
pub struct Args {
    /// Build everything twice, from copies of the sources in two folders, and fail if a byte differs
    #[arg(long)]
    verify: bool,
}

/// The file that lists the machines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machines {
    /// All of them.
    pub machine: Vec<Machine>,
}

/// One machine: what to build for it, and what it has. Its name is also the feature that selects its memory map and clock.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The name QEMU knows it by, or the board's; the ELF is called after it.
    pub name: String,
    /// The core, for people.
    pub core: String,
    /// Rust's name of the target.
    pub target: String,
    /// Whether QEMU emulates it; if not, it is a board.
    #[serde(default = "yes")]
    pub emulated: bool,
    /// A product that carries the microcontroller.
    #[serde(default)]
    pub board: Option<String>,
    /// Core clock in hertz, as the firmware sets it.
    #[serde(default)]
    pub clock_hertz: Option<u64>,
    /// Bytes of flash.
    #[serde(default)]
    pub flash_bytes: Option<u64>,
    /// Bytes of RAM that the core can use for anything.
    #[serde(default)]
    pub ram_bytes: Option<u64>,
}

fn yes() -> bool {
    true
}

/// The one package that all machines share.
const PACKAGE: &str = "edgeyard-firmware";
/// The plugin's package, and the library that it makes.
const PLUGIN: (&str, &str) = ("edgeyard-instruction-mix", "libedgeyard_instruction_mix.so");
/// Subfolder for machines that QEMU does not emulate.
const BOARDS: &str = "boards";

/// Runs `cargo xtask firmware`.
///
/// # Errors
/// When the list cannot be read, a machine's firmware does not build, or two builds differ.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Args { verify } = args;
    for line in if *verify { twice()? } else { build()? } {
        say(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every ELF and the plugin into `target/firmware/` and returns a line about each.
///
/// # Errors
/// As [`run`].
pub fn build() -> Result<Vec<String>> {
    build_telling(true)
}

/// As [`build`]; with `tell` off, without a line for each step, for commands whose output a program reads.
///
/// # Errors
/// As [`run`].
pub fn build_telling(tell: bool) -> Result<Vec<String>> {
    let source = layout::root()?.join("hardware-lab/firmware");
    let out = environment::firmware_dir()?;
    fs::create_dir_all(out.join(BOARDS))?;
    let built = all(&source, &layout::cargo_target()?.join("firmware-build"), tell)?;
    built
        .iter()
        .map(|(file, from)| {
            let place = out.join(file);
            // Renamed into place: a running emulator keeps the old file.
            let new = place.with_extension("new");
            fs::copy(from, &new)?;
            fs::rename(new, &place)?;
            Ok(format!("{} ({} bytes)", place.display(), fs::metadata(&place)?.len()))
        })
        .collect()
}

/// The machines that the list names.
///
/// # Errors
/// When the list is not there or not as described above.
pub fn machines(source: &Path) -> Result<Vec<Machine>> {
    let list = fs::read_to_string(source.join("machines.toml"))?;
    Ok(toml::from_str::<Machines>(&list).context("hardware-lab/firmware/machines.toml")?.machine)
}

/// Builds everything twice, in folders whose names have nothing in common, and compares.
fn twice() -> Result<Vec<String>> {
    let source = layout::root()?.join("hardware-lab/firmware");
    let builds = ["first", "another-folder/with/a-longer-name"].map(|name| -> Result<_> {
        let folder = tempfile::tempdir()?;
        let copy = folder.path().join(name);
        copy_sources(&source, &copy)?;
        let built = all(&copy, &copy.join("target"), true)?;
        let digests = built.into_iter().map(|(file, path)| Ok((file, fs::read(path)?))).collect::<Result<Vec<_>>>()?;
        Ok(digests)
    });
    let [first, second] = builds;
    let mut lines = Vec::new();
    let mut different = Vec::new();
    for ((file, a), (_, b)) in first?.into_iter().zip(second?) {
        lines.push(format!("{} {}", hex::encode(Sha256::digest(&a)), file.display()));
        if a != b {
            let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
            different.push(format!("{} ({} and {} bytes, first at {at})", file.display(), a.len(), b.len()));
        }
    }
    if !different.is_empty() {
        bail!("two builds of the same sources differ: {}", different.join(", "));
    }
    Ok(lines)
}

/// Copies a folder without what cargo put there.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                copy_sources(&path, &place)?;
            }
        } else {
            fs::copy(path, place)?;
        }
    }
    Ok(())
}

/// Builds all machines' ELFs and the plugin; returns where each belongs below `target/firmware/` and where it is now.
fn all(source: &Path, folder: &Path, tell: bool) -> Result<Vec<(PathBuf, PathBuf)>> {
    let telling = |what: &str, work: &dyn Fn() -> Result<PathBuf>| if tell { step(what, work) } else { work() };
    let flags = remapped(source)?;
    let mut built = Vec::new();
    for machine in machines(source)? {
        let what = format!("firmware for {} ({})", machine.name, facts(&machine));
        let elf = telling(&what, &|| one(&machine, source, folder, &flags))?;
        let name = format!("{}.elf", machine.name);
        built.push((if machine.emulated { name.into() } else { Path::new(BOARDS).join(name) }, elf));
    }
    let library = telling("QEMU plugin that counts instructions", &|| plugin(source, folder, &flags))?;
    built.push((PLUGIN.1.into(), library));
    Ok(built)
}

/// A machine in a few words.
fn facts(machine: &Machine) -> String {
    let Machine { core, board, clock_hertz, flash_bytes, ram_bytes, name: _, target: _, emulated: _ } = machine;
    let mut words = vec![core.clone()];
    words.extend(board.clone());
    words.extend(clock_hertz.map(|hertz| format!("{} MHz", hertz / 1_000_000)));
    words.extend(flash_bytes.map(|bytes| format!("{} KiB flash", bytes / 1024)));
    words.extend(ram_bytes.map(|bytes| format!("{} KiB RAM", bytes / 1024)));
    words.join(", ")
}

fn one(machine: &Machine, source: &Path, folder: &Path, flags: &str) -> Result<PathBuf> {
    let Machine { name, target, .. } = machine;
    // A folder for each machine: its linker script and flags differ, the names of its outputs do not.
    let folder = folder.join(name);
    // Flags of the command line are joined to those of the folder's .cargo/config.toml.
    let flags = format!("target.\"{target}\".rustflags={flags}");
    quiet(
        firmware_cargo(source)
            .args(["build", "--release", "--locked", "--package", PACKAGE, "--target", target, "--features", name])
            .args(["--config", &flags, "--target-dir"])
            .arg(&folder),
    )?;
    Ok(folder.join(target).join("release").join(PACKAGE))
}

fn plugin(source: &Path, folder: &Path, flags: &str) -> Result<PathBuf> {
    let (package, library) = PLUGIN;
    let folder = folder.join("plugin");
    quiet(
        firmware_cargo(source)
            .args(["build", "--release", "--locked", "--package", package])
            .args(["--config", &format!("build.rustflags={flags}"), "--target-dir"])
            .arg(&folder),
    )?;
    Ok(folder.join("release").join(library))
}

/// Cargo without flags from the caller's environment: they would take the place of those in the configuration.
fn firmware_cargo(source: &Path) -> std::process::Command {
    let mut command = cargo(source);
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
    command
}

/// Compiler flags, as a TOML list, that keep this machine's paths out of what is built.
fn remapped(source: &Path) -> Result<String> {
    let mut rustc = std::process::Command::new("rustc");
    rustc.current_dir(source).env_remove("RUSTUP_TOOLCHAIN").args(["--print", "sysroot"]);
    let sysroot = PathBuf::from(output(&mut rustc)?.trim());
    let mut paths =
        vec![(source.to_owned(), "/edgeyard/firmware"), (sysroot.join("lib/rustlib/src/rust"), "/rustc/src")];
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    paths.extend(std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home).map(|home| (home, "/cargo")));
    let flags: Vec<String> =
        paths.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect();
    // JSON strings of such paths are TOML strings too.
    Ok(serde_json::to_string(&flags)?)
}
