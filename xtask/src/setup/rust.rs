//! Rust targets: the thumb ones of the firmware, aarch64 of the emulated Raspberry Pi.

use std::path::Path;

use anyhow::{Context, Result};

use crate::shell::{cmd, output, quiet, step, succeeds};

const TARGETS: &[&str] =
    &["aarch64-unknown-linux-gnu", "thumbv7em-none-eabihf", "thumbv7m-none-eabi", "thumbv8m.main-none-eabihf"];

const COMPONENTS: &[&str] = &["clippy", "rustfmt"];

/// Adds the targets and components to the toolchains of the workspace and of the firmware.
///
/// # Errors
/// When rustup is missing or cannot fetch a target.
pub fn install(root: &Path) -> Result<()> {
    for dir in [root.to_path_buf(), root.join("hardware-lab/firmware")] {
        if !dir.is_dir() {
            continue;
        }
        let rustup = |words: &[&str]| {
            let mut command = cmd("rustup", words);
            command.current_dir(&dir).env_remove("RUSTUP_TOOLCHAIN");
            command
        };
        if !succeeds(&mut rustup(&["target", "list", "--installed"])) {
            // The firmware pins its toolchain, and not every rustup fetches one by itself.
            step(&format!("Rust toolchain of {}", dir.display()), || quiet(&mut rustup(&["toolchain", "install"])))?;
        }
        let installed = output(&mut rustup(&["target", "list", "--installed"]))
            .context("rustup is needed to add targets; install Rust with rustup")?;
        let missing: Vec<&str> = TARGETS.iter().copied().filter(|t| !installed.lines().any(|l| l == *t)).collect();
        if !missing.is_empty() {
            step(&format!("Rust targets: {}", missing.join(" ")), || quiet(rustup(&["target", "add"]).args(&missing)))?;
        }
        let installed = output(&mut rustup(&["component", "list", "--installed"]))?;
        let has = |c: &str| installed.lines().any(|l| l.starts_with(c));
        let missing: Vec<&str> = COMPONENTS.iter().copied().filter(|c| !has(c)).collect();
        if !missing.is_empty() {
            step(&format!("Rust components: {}", missing.join(" ")), || {
                quiet(rustup(&["component", "add"]).args(&missing))
            })?;
        }
    }
    Ok(())
}
