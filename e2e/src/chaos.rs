//! Killing a part in the middle of its work, proving that it was the middle, and looking at what came of it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::wait::{condition, wait_for};
use crate::{Cluster, Example, data, lab};

const LIMIT: Duration = Duration::from_secs(600);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// The operator, while a device measures.
    Operator,
    /// The store, while artefacts are made and uploaded.
    Store,
    /// An optimizer's pod.
    Optimizer,
    /// A runner's pod.
    Runner,
}

/// Runs an optimisation and a benchmark, kills a part in the middle, and checks that all ends well, once.
pub fn killed_in_the_middle(kill: Kill) -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let mut example = Example::new(&cluster, "chaos")?;
    if matches!(kill, Kill::Optimizer | Kill::Store) {
        // The whole of the test data, so that a job takes its time.
        let test = example.push(&data::mnist()?.join("test.npz"))?;
        example.inputs.insert("TEST", test);
    }
    let namespace = example.name();
    let evaluation =
        format!("  evaluation: {{dataset: {{digest: \"{}\"}}, metric: Top1Accuracy}}", example.inputs["TEST"]);
    let variants = "[{name: fp32, targets: [ort-x86, litert], passes: []}, {name: fp16, targets: [litert], passes: [{type: Quantize, quantize: {scheme: Float16}}]}]";
    cluster.apply(&example.optimization("plain", &example.inputs["MODEL"], variants, &evaluation))?;
    let devices = "[{name: host, deviceClassName: host-cpu, targets: [ort-x86, litert]}]";
    let manifest = example.benchmark("plain", &["plain"], devices, "").replace("profile: Smoke", "profile: Quick");
    cluster.apply(&manifest)?;

    let before = match kill {
        Kill::Optimizer => kill_pod(&cluster, namespace, "edgeyard.dev/model-optimization=plain,edgeyard.dev/variant")?,
        Kill::Store => {
            wait_for("a job to be at work", LIMIT, || Ok(active_jobs(&cluster, namespace)?.then_some(())))?;
            kill_pod(&cluster, lab::SYSTEM, "app.kubernetes.io/component=store")?
        }
        Kill::Operator => {
            wait_for("a device to measure", LIMIT, || Ok(measuring(&cluster, namespace)?.then_some(())))?;
            kill_pod(&cluster, lab::SYSTEM, "app.kubernetes.io/component=operator")?
        }
        Kill::Runner => {
            wait_for("a device to measure", LIMIT, || Ok(measuring(&cluster, namespace)?.then_some(())))?;
            kill_pod(&cluster, lab::NAMESPACE, "app.kubernetes.io/managed-by=edgeyard")?
        }
    };
    println!("killed {before} in the middle");
    // It was the middle: nothing had ended when the part was dead.
    for (kind, matters) in
        [("modeloptimization", matches!(kill, Kill::Optimizer | Kill::Store)), ("edgebenchmark", true)]
    {
        let object = cluster.get(kind, namespace, "plain")?.context("still there")?;
        let ended = condition(&object, "Complete", "True").is_some() || condition(&object, "Failed", "True").is_some();
        ensure!(!matters || !ended, "the {kind} had ended before the kill");
    }

    let optimization = cluster.completed("modeloptimization", namespace, "plain", LIMIT)?;
    ensure!(optimization["status"]["artifactCounts"]["verified"] == 3, "{}", optimization["status"]);
    let benchmark = cluster.completed("edgebenchmark", namespace, "plain", LIMIT)?;
    nothing_lost_or_doubled(&cluster, namespace, &benchmark, kill)?;
    example.cleared()
}

fn active_jobs(cluster: &Cluster, namespace: &str) -> Result<bool> {
    Ok(cluster.list("pods", namespace, "edgeyard.dev/variant")?.iter().any(|pod| pod["status"]["phase"] == "Running"))
}

fn measuring(cluster: &Cluster, namespace: &str) -> Result<bool> {
    Ok(cluster.list("benchmarkrun", namespace, "")?.iter().any(|run| run["status"]["step"] == "Measuring"))
}

/// Kills a running pod at once, without a chance to say goodbye, and gives its name.
fn kill_pod(cluster: &Cluster, namespace: &str, selector: &str) -> Result<String> {
    let name = wait_for(&format!("a running pod with {selector}"), LIMIT, || {
        let pods = cluster.list("pods", namespace, selector)?;
        let running = pods.iter().find(|pod| pod["status"]["containerStatuses"][0]["state"]["running"].is_object());
        Ok(running.and_then(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)))
    })?;
    cluster.kubectl(&["delete", "pod", &name, "-n", namespace, "--grace-period=0", "--force", "--wait=false"])?;
    Ok(name)
}

/// Three results, one run, one record; the attempt counts what happened to the runner.
fn nothing_lost_or_doubled(cluster: &Cluster, namespace: &str, benchmark: &Value, kill: Kill) -> Result<()> {
    let results = benchmark["status"]["results"].as_array().context("results")?;
    let found: BTreeSet<_> = results.iter().map(|r| (r["variant"].to_string(), r["target"].to_string())).collect();
    ensure!(results.len() == 3 && found.len() == 3, "{results:?}");
    let runs = cluster.list("benchmarkrun", namespace, "")?;
    ensure!(runs.len() == 1, "{} runs", runs.len());
    let attempt = runs[0]["status"]["attempt"].as_i64().context("attempt")?;
    match kill {
        Kill::Runner => ensure!(attempt == 2, "attempt {attempt} after one kill"),
        Kill::Operator | Kill::Store | Kill::Optimizer => ensure!(attempt == 1, "attempt {attempt} without a reason"),
    }
    let digest = runs[0]["status"]["record"]["digest"].as_str().context("a record")?;
    let record: Value = serde_json::from_str(&cluster.edgeyard(&["get", digest, "-n", namespace, "-o", "json"])?)?;
    ensure!(record["metadata"]["attempt"] == attempt, "the record is of another attempt: {}", record["metadata"]);
    ensure!(record["results"].as_array().is_some_and(|results| results.len() == 3), "the record has lost something");
    Ok(())
}
