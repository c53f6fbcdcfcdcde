//! A Python environment with the programs that the optimizer is measured against (`xtask/peers.txt`). TensorFlow is half a
//! gigabyte: the benchmark installs it, not `setup`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::cached;
use crate::layout::short_digest;
use crate::shell::{cmd, quiet};

/// The environment's Python, installed if it is not there.
///
/// # Errors
/// When a package cannot be installed or imported.
pub fn install(root: &Path, cache: &Path) -> Result<PathBuf> {
    let list = root.join("xtask/peers.txt");
    let name = format!("peers-{}", short_digest([fs::read_to_string(&list)?]));
    let place = cached(cache, &name, "peers: a Python environment with onnx2tf and ai-edge-quantizer", |dir| {
        quiet(cmd("/usr/bin/python3", ["-m", "venv"]).arg(dir))?;
        let python = dir.join("bin/python").to_string_lossy().into_owned();
        quiet(cmd(&python, ["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]).arg(&list))?;
        quiet(&mut cmd(&python, ["-c", "import ai_edge_quantizer, onnx2tf"]))
    })?;
    Ok(place.join("bin/python"))
}
