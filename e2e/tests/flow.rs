//! The whole way: manifests in, verified artefacts and records out, on three kinds of device.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgeyard_e2e::{Cluster, Example, data, example, lab};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(600);

#[test]
#[ignore = "needs a cluster: cargo xtask test --only flow"]
fn the_example_runs_through() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "flow")?;
    example.apply_example("mnist/optimization.yaml")?;
    // Benchmarks wait for the artefacts by themselves.
    example.apply_example("mnist/benchmark.yaml")?;
    example.apply_example("mnist/benchmark-arm64.yaml")?;
    let namespace = example.name();

    let optimization = cluster.completed("modeloptimization", namespace, "mnist-cnn", LIMIT)?;
    check_artifacts(&optimization)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Complete",
        "edgebenchmark/mnist-cnn",
        "-n",
        namespace,
        "--timeout=600s",
    ])?;
    let benchmark = cluster.completed("edgebenchmark", namespace, "mnist-cnn", LIMIT)?;
    let arm = cluster.completed("edgebenchmark", namespace, "mnist-cnn-arm64", LIMIT)?;
    for object in [&optimization, &benchmark, &arm] {
        kstatus_says_current(object)?;
    }

    let results = benchmark["status"]["results"].as_array().context("results")?;
    let found: Vec<String> =
        results.iter().map(|r| format!("{} {} {}", word(r, "variant"), word(r, "target"), word(r, "device"))).collect();
    for expected in [
        "fp32 ort-x86 host",
        "fp32 litert host",
        "fp16 ort-x86 host",
        "fp16 litert host",
        "int8 ort-x86 host",
        "int8 litert host",
        "int8 tflm m4",
    ] {
        ensure!(found.iter().any(|f| f == expected), "no result for {expected}: {found:?}");
    }
    ensure!(results.len() == 7, "{found:?}");
    for result in results {
        let accuracy: f64 = word(&result["accuracy"], "value").parse()?;
        ensure!(accuracy > 0.96, "a trained model scores {accuracy}: {result}");
        let emulated = result["fidelity"] == "Emulated";
        ensure!(result["instructionsPerInference"].is_u64() == emulated, "instructions: {result}");
        ensure!(!emulated || result["latencyP50Nanoseconds"].is_null(), "a time of an emulated device: {result}");
        // A noisy machine may leave no valid time; then the result says so.
        let timed = result["latencyP50Nanoseconds"].as_u64();
        ensure!(
            emulated || timed.is_some_and(|p50| p50 > 0) || result["validity"] != "Valid",
            "no time and no reason: {result}"
        );
    }
    for result in arm["status"]["results"].as_array().context("results")? {
        ensure!(result["latencyP50Nanoseconds"].is_null() && result["fidelity"] == "Emulated", "{result}");
        let reasons = result["unavailable"].as_array().context("unavailable")?;
        ensure!(reasons.iter().any(|u| u["metric"] == "LatencySeconds" && u["reason"] == "EmulatedClock"), "{result}");
    }
    check_record(&cluster, &example)?;
    check_columns(&cluster, namespace)?;
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only flow"]
fn other_models_and_data_change_the_results() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "change")?;
    let namespace = example.name();
    let model = data::model();
    let changed =
        example.push(&example::made_by("change.py", &[model.to_str().context("a path")?], "changed.onnx")?)?;
    let seed = std::process::id().to_string();
    let unseen = example.push(&example::made_by("unseen.py", &[&seed], "unseen.onnx")?)?;
    let shuffled = example.push(&data::mnist()?.join("shuffled.npz"))?;

    let int8 = "[{name: int8, targets: [tflm], passes: [{type: Quantize, quantize: {scheme: Int8}}]}]";
    let calibration = "  calibration: {dataset: {configMapKeyRef: {name: mnist, key: calib.npz}}, sampleCount: 64}";
    let original = example.inputs["MODEL"].clone();
    for (name, digest) in [("original", &original), ("changed", &changed), ("unseen", &unseen)] {
        cluster.apply(&example.optimization(name, digest, int8, calibration))?;
    }
    let evaluation = format!("  evaluation: {{dataset: {{digest: \"{shuffled}\"}}, metric: Top1Accuracy}}");
    cluster.apply(&example.optimization(
        "shuffled",
        &original,
        "[{name: fp32, targets: [ort-x86], passes: []}]",
        &evaluation,
    ))?;

    let m4 = "[{name: m4, deviceClassName: qemu-cortex-m4}]";
    let models = ["original", "changed", "unseen"];
    let accuracy = format!(
        "  measurement: {{accuracy: {{dataset: {{digest: \"{}\"}}, metric: Top1Accuracy}}}}",
        example.inputs["SMOKE"]
    );
    cluster.apply(&example.benchmark("first", &models, m4, &accuracy))?;
    let first = results(&cluster, namespace, "first")?;
    cluster.apply(&example.benchmark("second", &models, m4, &accuracy))?;
    let second = results(&cluster, namespace, "second")?;
    ensure!(first.len() == 3, "{first:?}");
    for (name, result) in &first {
        let again = &second[name];
        let count =
            result["instructionsPerInference"].as_u64().with_context(|| format!("{name} has no count: {result}"))?;
        ensure!(Some(count) == again["instructionsPerInference"].as_u64(), "{name}: {count} and then {again}");
        ensure!(count > 10_000, "{name} took {count} instructions");
        ensure!(result["outputDigest"].is_string(), "{name} has no digest of its outputs");
        ensure!(result["outputDigest"] == again["outputDigest"], "{name} gave other outputs the second time");
    }
    ensure!(first["original"]["outputDigest"] != first["changed"]["outputDigest"], "a changed weight changed nothing");
    ensure!(
        first["original"]["instructionsPerInference"] != first["unseen"]["instructionsPerInference"],
        "another model took as many instructions"
    );

    let object = cluster.completed("modeloptimization", namespace, "shuffled", LIMIT)?;
    let score: f64 = word(&object["status"]["artifacts"][0]["accuracy"], "value").parse()?;
    ensure!((0.07..0.13).contains(&score), "shuffled labels are guessed right: {score}");
    example.cleared()
}

fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn check_artifacts(optimization: &Value) -> Result<()> {
    let artifacts = optimization["status"]["artifacts"].as_array().context("artifacts")?;
    ensure!(artifacts.len() == 7, "{} artefacts", artifacts.len());
    let size = |variant: &str, target: &str| {
        let found = artifacts.iter().find(|a| a["variant"] == variant && a["target"] == target);
        found.and_then(|a| a["sizeBytes"].as_u64()).with_context(|| format!("size of {variant} for {target}"))
    };
    for artifact in artifacts {
        ensure!(artifact["state"] == "Verified" && artifact["verification"] == "Executed", "{artifact}");
        let drop: f64 = word(artifact, "accuracyDrop").parse()?;
        ensure!(drop <= 0.005, "an artefact lost {drop}: {artifact}");
    }
    let (int8, fp32) = (size("int8", "tflm")?, size("fp32", "litert")?);
    ensure!(int8 * 100 <= fp32 * 40, "int8 has {int8} bytes, fp32 {fp32}");
    ensure!(size("fp16", "litert")? < fp32, "fp16 is not smaller");
    Ok(())
}

/// The record is what was asked for, and what is unknown has a reason.
fn check_record(cluster: &Cluster, example: &Example<'_>) -> Result<()> {
    let runs = cluster.list("benchmarkrun", example.name(), "")?;
    let host = runs.iter().find(|run| run["spec"]["device"]["name"] == "host").context("the host's run")?;
    let digest = word(&host["status"]["record"], "digest");
    let record: Value =
        serde_json::from_str(&cluster.edgeyard(&["get", digest, "-n", example.name(), "-o", "json"])?)?;
    ensure!(record["metadata"]["uid"] == host["metadata"]["uid"], "another run's record");
    let results = record["results"].as_array().context("results")?;
    for result in results {
        ensure!(result["latency"]["count"].as_u64().is_some_and(|n| n >= 64), "too few samples: {}", result["latency"]);
        ensure!(result["latency"]["warmUpCount"].as_u64().is_some(), "warm-up is not told apart");
        ensure!(result["latency"]["samples"].is_object(), "raw samples are not kept");
    }
    // Variants take turns: the first window of the last variant lies before the last window of the first.
    let windows = |result: &Value| result["latency"]["windows"].as_array().cloned().unwrap_or_default();
    let (first, last) = (windows(&results[0]), windows(results.last().context("results")?));
    let begins = last.first().and_then(|w| w["startNanoseconds"].as_u64()).context("windows")?;
    let ends = first.last().and_then(|w| w["startNanoseconds"].as_u64()).context("windows")?;
    ensure!(begins < ends, "variants ran one after the other");
    Ok(())
}

fn check_columns(cluster: &Cluster, namespace: &str) -> Result<()> {
    let table = cluster.kubectl(&["get", "mo,eb,br", "-n", namespace])?;
    for expected in ["VERIFIED", "PHASE", "RUNS", "DEVICE", "Succeeded", "qemu-m4-0"] {
        ensure!(table.contains(expected), "kubectl get does not show {expected}:\n{table}");
    }
    let table = cluster.kubectl(&["get", "ed,lq", "-n", lab::NAMESPACE])?;
    for expected in ["CLASS", "STATE", "host-cpu", "FROM"] {
        ensure!(table.contains(expected), "kubectl get does not show {expected}:\n{table}");
    }
    Ok(())
}

/// What kstatus (Argo CD, Flux, `kubectl wait`) reads.
fn kstatus_says_current(object: &Value) -> Result<()> {
    let is = |type_: &str, status: &str| edgeyard_e2e::wait::condition(object, type_, status).is_some();
    ensure!(is("Complete", "True") && is("Ready", "True"), "{}", object["status"]["conditions"]);
    ensure!(
        !is("Reconciling", "True") && !is("Stalled", "True") && !is("Failed", "True"),
        "{}",
        object["status"]["conditions"]
    );
    ensure!(object["status"]["observedGeneration"] == object["metadata"]["generation"], "an old generation");
    ensure!(object["status"]["completionTime"].is_string(), "no completionTime");
    Ok(())
}

/// The results of a benchmark's records, by model.
fn results(cluster: &Cluster, namespace: &str, benchmark: &str) -> Result<BTreeMap<String, Value>> {
    cluster.completed("edgebenchmark", namespace, benchmark, LIMIT)?;
    let mut results = BTreeMap::new();
    for run in cluster.list("benchmarkrun", namespace, "")? {
        if run["spec"]["benchmarkName"] == benchmark {
            let record =
                cluster.edgeyard(&["get", word(&run["status"]["record"], "digest"), "-n", namespace, "-o", "json"])?;
            let record: Value = serde_json::from_str(&record)?;
            for result in record["results"].as_array().context("results")? {
                results.insert(word(result, "model").to_owned(), result.clone());
            }
        }
    }
    Ok(results)
}
