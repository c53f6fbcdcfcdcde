//! `demo --local`: the same manifests and programs without a cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use edgeyard_e2e::data;
use fs_err as fs;
use serde_json::Value;

use super::progress::Phases;
use super::rows::{self, Row};
use crate::{binaries, firmware, shell};

/// Runs the example's manifests by `kubectl edgeyard local` and reads the records that it left.
pub fn run(phases: &mut Phases, out: &Path) -> Result<Vec<Row>> {
    phases.run("build", || {
        firmware::build()?;
        binaries::build(&["kubectl-edgeyard", "edgeyard-store", "edgeyard-optimizer", "edgeyard-device-runner"], None)
            .map(drop)
    })?;
    let folder = out.join("local");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let mnist = data::mnist()?;
    let inputs = BTreeMap::from([
        ("MODEL", file_digest(&data::model())?),
        ("TEST", file_digest(&mnist.join("test.npz"))?),
        ("SMOKE", file_digest(&mnist.join("smoke.npz"))?),
    ]);
    let mut command = Command::new("kubectl-edgeyard");
    command.args(["local", "--out"]).arg(&folder);
    for (index, name) in ["mnist/optimization.yaml", "mnist/benchmark.yaml"].iter().enumerate() {
        let file = folder.join(format!("manifest-{index}.yaml"));
        fs::write(&file, data::manifest(name, "vision", &inputs)?)?;
        command.arg("-f").arg(file);
    }
    for file in [data::model(), mnist.join("test.npz")] {
        command.arg("--blob").arg(file);
    }
    command.arg("--config-map").arg(format!("mnist/calib.npz={}", mnist.join("calib.npz").display()));
    phases.run("local", || shell::quiet(&mut command))?;
    let index: Value = serde_json::from_str(&fs::read_to_string(folder.join("results.json"))?)?;
    let drops: BTreeMap<String, f64> = index["artifacts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|artifact| Some((artifact["digest"].as_str()?.to_owned(), artifact["accuracyDrop"].as_f64()?)))
        .collect();
    let mut rows = Vec::new();
    for record in index["records"].as_array().context("results.json lists records")? {
        let path = folder.join(record["file"].as_str().context("a record has a file")?);
        let digest = record["digest"].as_str().context("a record has a digest")?;
        rows.extend(rows::from_record(&serde_json::from_str(&fs::read_to_string(path)?)?, digest, &drops)?);
    }
    Ok(rows)
}

fn file_digest(path: &Path) -> Result<String> {
    use sha2::Digest as _;
    Ok(format!("sha256:{}", hex::encode(sha2::Sha256::digest(fs::read(path)?))))
}
