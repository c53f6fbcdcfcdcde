//! The programs of the workspace, and building them.

use std::path::PathBuf;

use anyhow::Result;

use crate::layout;
use crate::shell::{cargo, quiet};

/// Every program that we ship.
const ALL: [&str; 5] =
    ["edgeyard-operator", "edgeyard-store", "kubectl-edgeyard", "edgeyard-optimizer", "edgeyard-device-runner"];
/// Rust's name of the arm64 target.
pub const ARM64: &str = "aarch64-unknown-linux-gnu";

/// Builds programs in release, for this machine or for `triple`, and returns the folder they are in.
///
/// # Errors
/// What cargo said.
pub fn build(names: &[&str], triple: Option<&str>) -> Result<PathBuf> {
    let mut cargo = cargo(&layout::root()?);
    cargo.args(["build", "--quiet", "--release"]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name]));
    let mut folder = layout::cargo_target()?;
    if let Some(triple) = triple {
        cargo.args(["--target", triple]);
        folder.push(triple);
    }
    quiet(&mut cargo)?;
    Ok(folder.join("release"))
}

/// Whether `name` is one of ours.
pub fn is_ours(name: &str) -> bool {
    ALL.contains(&name)
}
