//! `kubectl edgeyard local`: the manifests of a cluster on this machine, planned by the same code, done by the same
//! programs with the same job specs and grants, through a store of its own on loopback. There is no queue and there are
//! no limits on CPU and memory: one job measures at a time, and everything is left in one folder.

mod manifests;
mod files;
mod workshop;
mod optimize;
mod measure;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use files::Files;
use manifests::Manifests;
use optimize::Optimized;
use workshop::Workshop;

/// Arguments of `local`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  kubectl edgeyard local --out results -f optimization.yaml -f benchmark.yaml \\
    --blob model.onnx --blob test.npz --config-map mnist/calib.npz=calib.npz

The folder then has artifacts/ (models), records/ (what was measured), logs/ and results.json. Programs are looked for
beside this one and in PATH: edgeyard-store, edgeyard-optimizer, edgeyard-device-runner.")]
pub struct Args {
    /// Manifests (several documents a file will do): ModelOptimization and EdgeBenchmark are run; EdgeDeviceClass,
    /// EdgeDevice and ConfigMap are used; what only a cluster needs is ignored.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    manifests: Vec<PathBuf>,
    /// Folder for everything that comes of it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A file that manifests name by its digest.
    #[arg(long = "blob", value_name = "FILE")]
    blobs: Vec<PathBuf>,
    /// A file that stands for a ConfigMap's key.
    #[arg(long = "config-map", value_name = "NAME/KEY=FILE")]
    config_maps: Vec<String>,
    /// A folder that stands for a PersistentVolumeClaim.
    #[arg(long = "claim", value_name = "NAME=DIR")]
    claims: Vec<String>,
    /// Fetch from addresses that are not public, too.
    #[arg(long)]
    allow_private_addresses: bool,
}

/// Runs the manifests.
///
/// # Errors
/// When something cannot be run at all, or when something that was asked for did not come out; what did is in the folder.
pub async fn run(args: &Args) -> Result<()> {
    let Args { manifests, out, blobs, config_maps, claims, allow_private_addresses } = args;
    let manifests = Manifests::read(manifests)?;
    if manifests.optimizations.is_empty() && manifests.benchmarks.is_empty() {
        bail!("the manifests have no ModelOptimization and no EdgeBenchmark: there is nothing to run");
    }
    for folder in ["artifacts", "records", "logs"] {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let files = Files::new(blobs, config_maps, claims, &manifests.config_maps)?;
    tokio::select! {
        done = work(&manifests, out, files, *allow_private_addresses) => done,
        // What was started is ended with the futures that wait for it.
        stopped = stopped() => stopped.and_then(|()| bail!("stopped")),
    }
}

async fn work(manifests: &Manifests, out: &std::path::Path, files: Files, private: bool) -> Result<()> {
    let shop = Arc::new(Workshop::open(out, files, private).await?);
    let mut optimized: Vec<Optimized> = Vec::new();
    let mut records = Vec::new();
    let mut problems = Vec::new();
    for object in &manifests.optimizations {
        let optimization = optimize::run(&shop, object).await?;
        problems.extend(optimization.problem.clone());
        optimized.push(optimization);
    }
    for object in &manifests.benchmarks {
        let (found, failed) = measure::run(&shop, manifests, &optimized, object).await?;
        records.extend(found);
        problems.extend(failed);
    }
    let artifacts: Vec<&Value> = optimized.iter().flat_map(|optimization| &optimization.artifacts).collect();
    let index: Vec<Value> =
        records.iter().map(|record| json!({"file": record.file, "digest": record.digest})).collect();
    let results = json!({"schemaVersion": "1.0", "artifacts": artifacts, "records": index});
    let file = out.join("results.json");
    std::fs::write(&file, serde_json::to_string_pretty(&results)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    if !records.is_empty() {
        let documents: Vec<Value> = records.into_iter().map(|record| record.document).collect();
        print!("{}", crate::get::record_table(&documents));
    }
    println!("{} artefacts and {} records are in {}", artifacts.len(), documents_count(&results), out.display());
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{}\n(logs are in {})", problems.join("\n"), out.join("logs").display())
}

fn documents_count(results: &Value) -> usize {
    results["records"].as_array().map_or(0, Vec::len)
}

async fn stopped() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
