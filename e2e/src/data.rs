//! Models and data of the examples, and how they get into the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use fs_err as fs;
use serde_json::Value;

use crate::cluster::run;
use crate::{Cluster, root};

/// The trained model of the examples.
pub fn model() -> PathBuf {
    root().join("examples/mnist/mnist-cnn.onnx")
}

/// The folder with MNIST as `.npz`, made once by the example's own script.
pub fn mnist() -> Result<PathBuf> {
    let out = root().join("target/mnist");
    if out.join("shuffled.npz").exists() {
        return Ok(out);
    }
    let python = variable("EDGEYARD_PYTHON")?;
    let source = variable("EDGEYARD_MNIST_DIR")?;
    let unfinished = root().join(format!("target/mnist.{}", std::process::id()));
    let mut command = Command::new(python);
    command
        .arg(root().join("examples/mnist/prepare.py"))
        .arg(source)
        .arg(&unfinished)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run(command, None)?;
    if fs::rename(&unfinished, &out).is_err() {
        // Somebody else was faster.
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(out)
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run this through `cargo xtask`, which sets it"))
}

/// Puts a file into the store for a namespace and gives its digest.
pub fn push(cluster: &Cluster, namespace: &str, file: &Path) -> Result<String> {
    let file = file.to_str().context("a path that is text")?;
    let printed = cluster.edgeyard(&["push", file, "-n", namespace, "-o", "json"])?;
    let answer: Value = serde_json::from_str(&printed)?;
    Ok(answer["digest"].as_str().context("push prints a digest")?.to_owned())
}

/// A manifest of the examples with `${NAME}` filled in and its namespace replaced.
pub fn manifest(file: &str, namespace: &str, values: &BTreeMap<&str, String>) -> Result<String> {
    let mut text = fs::read_to_string(root().join("examples").join(file))?;
    text = text.replace("namespace: vision", &format!("namespace: {namespace}"));
    for (name, value) in values {
        text = text.replace(&format!("${{{name}}}"), value);
    }
    Ok(text)
}

/// Makes the ConfigMap that the example's calibration data is read from.
pub fn calibration_map(cluster: &Cluster, namespace: &str) -> Result<()> {
    let file = format!("--from-file=calib.npz={}", mnist()?.join("calib.npz").display());
    let text =
        cluster.kubectl(&["create", "configmap", "mnist", "-n", namespace, &file, "--dry-run=client", "-o", "yaml"])?;
    cluster.apply(&text)
}
