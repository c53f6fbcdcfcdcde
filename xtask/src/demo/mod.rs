//! `cargo xtask demo`: what a newcomer does, step by step, with the same commands and the same manifests.
//!
//! Everything that it prints at the end is read back from the cluster and the store; the demo knows no result by itself.

mod local;
mod progress;
mod rows;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use edgeyard_e2e::{Cluster, data, lab};
use fs_err as fs;
use serde::Serialize;
use serde_json::Value;

use crate::{cluster, environment, images, layout, setup};
use progress::Phases;
use rows::Row;

/// Where the example's objects are made.
const NAMESPACE: &str = "vision";
/// How long one of the example's objects may take: the machine may be busy with something else.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Arguments of `demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Use this cluster instead of the lab's own; its nodes must have the images
    #[arg(long, value_name = "FILE", conflicts_with = "local")]
    kubeconfig: Option<PathBuf>,
    /// Run the same manifests with the same programs, without a cluster
    #[arg(long)]
    local: bool,
}

/// What `target/demo/results.json` holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    schema_version: &'static str,
    seconds: BTreeMap<String, f64>,
    rows: Vec<Row>,
}

/// Runs the demo.
///
/// # Errors
/// The phase that failed, with what the cluster says about it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let out = layout::target()?.join("demo");
    fs::create_dir_all(&out)?;
    let mut phases = Phases::new(out.join("seconds.json"));
    phases.run("setup", setup::install)?;
    // SAFETY: the demo has started no thread yet that could read the environment meanwhile.
    #[expect(unsafe_code, reason = "the example's helpers find their programs through the environment, as tests do")]
    for (name, value) in environment::variables()? {
        unsafe { std::env::set_var(name, value) };
    }
    let rows = if args.local { local::run(&mut phases, &out)? } else { in_cluster(args, &mut phases)? };
    let results = Results { schema_version: "1.0", seconds: phases.finish()?, rows };
    let file = out.join(if args.local { "results-local.json" } else { "results.json" });
    fs::write(&file, serde_json::to_string_pretty(&results)?)?;
    println!("\n{}", table::render(&results.rows));
    println!("All of it: {}", file.display());
    if !args.local {
        look_further(args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn in_cluster(args: &Args, phases: &mut Phases) -> Result<Vec<Row>> {
    let cluster = match &args.kubeconfig {
        Some(file) => Cluster { kubeconfig: Some(file.clone()), bin: Some(layout::cargo_target()?.join("release")) },
        None => Cluster { kubeconfig: Some(cluster::kubeconfig()?), bin: Some(cluster::bin_dir()?) },
    };
    phases.run("images", || images::build().map(drop))?;
    if args.kubeconfig.is_none() {
        phases.run("cluster", || {
            cluster::up()?;
            images::import_built().map(drop)
        })?;
    }
    phases.run("install", || lab::ready(&cluster))?;
    let inputs = phases.run("push", || push(&cluster))?;
    phases.run("optimize", || optimize(&cluster, &inputs))?;
    phases.run("benchmark", || benchmark(&cluster, &inputs))?;
    phases.run("read back", || rows::from_cluster(&cluster, NAMESPACE))
}

/// Model and test data into the store, calibration data into a ConfigMap.
fn push(cluster: &Cluster) -> Result<BTreeMap<&'static str, String>> {
    cluster.apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
    ))?;
    edgeyard_e2e::namespace::allow(cluster, NAMESPACE)?;
    // An object is one execution: an earlier demo's make way for this one's.
    cluster.kubectl(&["delete", "eb,mo", "--all", "-n", NAMESPACE, "--wait", "--timeout=180s"])?;
    data::calibration_map(cluster, NAMESPACE)?;
    let mnist = data::mnist()?;
    Ok(BTreeMap::from([
        ("MODEL", data::push(cluster, NAMESPACE, &data::model())?),
        ("TEST", data::push(cluster, NAMESPACE, &mnist.join("test.npz"))?),
        ("SMOKE", data::push(cluster, NAMESPACE, &mnist.join("smoke.npz"))?),
    ]))
}

fn optimize(cluster: &Cluster, inputs: &BTreeMap<&str, String>) -> Result<()> {
    cluster.apply(&data::manifest("mnist/optimization.yaml", NAMESPACE, inputs)?)?;
    watched(cluster, "modeloptimization", "mnist-cnn", |object| {
        let counts = &object["status"]["artifactCounts"];
        Some((
            counts["verified"].as_u64()? + counts["rejected"].as_u64()? + counts["failed"].as_u64()?,
            counts["total"].as_u64()?,
        ))
    })
}

fn benchmark(cluster: &Cluster, inputs: &BTreeMap<&str, String>) -> Result<()> {
    for (file, name) in [("mnist/benchmark.yaml", "mnist-cnn"), ("mnist/benchmark-arm64.yaml", "mnist-cnn-arm64")] {
        cluster.apply(&data::manifest(file, NAMESPACE, inputs)?)?;
        watched(cluster, "edgebenchmark", name, |object| {
            let runs = &object["status"]["runs"];
            Some((runs["succeeded"].as_u64()? + runs["failed"].as_u64()?, runs["total"].as_u64()?))
        })?;
    }
    Ok(())
}

/// Waits for the end of an object, showing how much of it is done.
fn watched(cluster: &Cluster, kind: &str, name: &str, done: impl Fn(&Value) -> Option<(u64, u64)>) -> Result<()> {
    let mut shown = None;
    let ended = edgeyard_e2e::wait_for(&format!("{kind} {name} to end"), PATIENCE, || {
        let object = cluster.get(kind, NAMESPACE, name)?.with_context(|| format!("{kind} {name} is gone"))?;
        let now = done(&object);
        if now != shown
            && let Some((done, total)) = now
        {
            crate::shell::say(&format!("           {name}: {done} of {total}"));
            shown = now;
        }
        let ends =
            ["Complete", "Failed"].iter().any(|type_| edgeyard_e2e::wait::condition(&object, type_, "True").is_some());
        Ok(ends.then_some(()))
    });
    if let Err(error) = ended.and_then(|()| cluster.completed(kind, NAMESPACE, name, PATIENCE).map(drop)) {
        edgeyard_e2e::diagnose::print(cluster, NAMESPACE);
        return Err(error);
    }
    Ok(())
}

fn look_further(args: &Args) -> Result<()> {
    println!("\nThe cluster stays up. Look around:");
    if args.kubeconfig.is_none() {
        println!(
            "  export KUBECONFIG={} PATH={}:$PATH",
            cluster::kubeconfig()?.display(),
            cluster::bin_dir()?.display()
        );
    }
    println!("  kubectl get mo,eb,br,ed,lq,dl -A");
    println!("  kubectl edgeyard get mnist-cnn -n {NAMESPACE}");
    println!("  kubectl explain edgebenchmark.spec");
    if args.kubeconfig.is_none() {
        println!("  Prometheus: {}", cluster::prometheus_url());
        println!("  cargo xtask cluster down        # when you have seen enough");
    }
    Ok(())
}
