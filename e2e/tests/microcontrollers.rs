//! int8 models on all four emulated Cortex-M cores: exact counts that repeat, outputs that are TensorFlow Lite Micro's, memory
//! held against the class's limits, and an estimate for what a class stands for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgeyard_e2e::cluster::run;
use edgeyard_e2e::{Cluster, Example, data, example, lab, root, wait_for};
use fs_err as fs;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(600);
const CORES: [&str; 4] = ["m3", "m4", "m7", "m55"];
/// As in the example's benchmark.
const SEED: &str = "42";
/// Inputs that the runner makes where there is no data set.
const INPUTS: &str = "16";

#[test]
#[ignore = "needs a cluster: cargo xtask test --only microcontrollers"]
fn two_models_on_four_cores_repeat_to_the_digit_and_equal_the_oracle() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    more_devices(&cluster)?;
    let mut example = Example::new(&cluster, "cortex-m")?;
    let person = person_detect()?;
    let digest = example.push(&person)?;
    example.inputs.insert("PERSON", digest);
    let namespace = example.name().to_owned();
    example.apply_example("cortex-m/optimization.yaml")?;
    example.apply_example("cortex-m/benchmark.yaml")?;
    let first = records(&cluster, &namespace, "cortex-m")?;
    let again = data::manifest("cortex-m/benchmark.yaml", &namespace, &example.inputs)?;
    cluster.apply(&again.replace("name: cortex-m,", "name: cortex-m-again,"))?;
    let second = records(&cluster, &namespace, "cortex-m-again")?;

    let pairs: Vec<(&str, &str)> = CORES.iter().flat_map(|core| [(*core, "person-detect"), (*core, "mnist")]).collect();
    ensure!(first.len() == pairs.len(), "results of {:?}", first.keys().collect::<Vec<_>>());
    for (core, model) in &pairs {
        let key = ((*core).to_owned(), (*model).to_owned());
        let (one, other) = (&first[&key], second.get(&key).with_context(|| format!("no second {model} on {core}"))?);
        check(core, model, one)?;
        for field in ["instructionsPerInference", "instructionCounts", "operators", "instructionMix", "outputDigest"] {
            ensure!(!one[field].is_null(), "{model} on {core} has no {field}: {}", one["unavailable"]);
            ensure!(one[field] == other[field], "{model} on {core}, {field}: {} and then {}", one[field], other[field]);
        }
        ensure!(one["microcontroller"] == other["microcontroller"], "{model} on {core}: other memory");
    }
    let of = |core: &str, model: &str| &first[&(core.to_owned(), model.to_owned())];
    for (model, file) in [("person-detect", person), ("mnist", fetched(&cluster, &namespace, of("m4", "mnist"))?)] {
        let expected = oracle(&file, model)?;
        for core in CORES {
            let found = &of(core, model)["outputDigest"];
            ensure!(*found == expected, "{model} on {core}: outputs are {found}, TensorFlow Lite Micro's {expected}");
        }
        let count = |core: &str| of(core, model)["instructionsPerInference"].as_u64().unwrap_or_default();
        ensure!(count("m55") < count("m4") && count("m4") < count("m3"), "vectors do not pay: {model}");
    }
    let status = cluster.get("edgebenchmark", &namespace, "cortex-m")?.context("the benchmark")?;
    for result in status["status"]["results"].as_array().context("results")? {
        ensure!(result["instructionsPerInference"].is_u64(), "{result}");
        ensure!(result["latencyP50Nanoseconds"].is_null() && result["accuracy"].is_null(), "{result}");
    }
    example.cleared()
}

/// A board that no code knows, from a manifest alone; and a model that it has no room for.
#[test]
#[ignore = "needs a cluster: cargo xtask test --only microcontrollers"]
fn a_board_is_added_from_data_alone() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let mut example = Example::new(&cluster, "board")?;
    let digest = example.push(&person_detect()?)?;
    example.inputs.insert("PERSON", digest);
    let namespace = example.name().to_owned();
    let board = |name: &str, flash: &str| {
        format!(
            "{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeDeviceClass, metadata: {{name: {name}}}, spec: {{fidelity: Emulated, isolation: Unit, targets: [tflm], limits: {{flash: {flash}, memory: 640Ki}}, backend: {{type: CortexM, cortexM: {{machine: mps2-an386, microcontroller: {{core: CortexM4, clockHertz: 120000000}}}}}}, runner: {{resources: {{limits: {{cpu: '1', memory: 512Mi}}}}}}}}}}
---
{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeDevice, metadata: {{name: {name}-0, namespace: {}}}, spec: {{deviceClassName: {name}, connection: {{type: Emulator}}}}}}",
            lab::NAMESPACE
        )
    };
    let (large, small) = (format!("{namespace}-l4r5"), format!("{namespace}-tiny"));
    for (name, flash) in [(&large, "2Mi"), (&small, "64Ki")] {
        cluster.apply(&board(name, flash))?;
    }
    let outcome = measured(&cluster, &example, &large, &small);
    // Classes and devices belong to no namespace of this test.
    for name in [&large, &small] {
        cluster.kubectl(&["delete", "edgedevice", &format!("{name}-0"), "-n", lab::NAMESPACE, "--ignore-not-found"])?;
        cluster.kubectl(&["delete", "edgedeviceclass", name, "--ignore-not-found"])?;
    }
    outcome
}

fn measured(cluster: &Cluster, example: &Example<'_>, large: &str, small: &str) -> Result<()> {
    let namespace = example.name();
    let benchmark = |name: &str, class: &str| {
        format!(
            "{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeBenchmark, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{models: [{{name: person-detect, artifact: {{variant: published, target: tflm, format: TFLite, artifact: {{digest: \"{}\"}}}}}}], devices: [{{name: board, deviceClassName: {class}}}], workload: {{scenario: SingleStream, profile: Smoke, seed: {SEED}}}}}}}",
            example.inputs["PERSON"]
        )
    };
    cluster.apply(&benchmark("fits", large))?;
    cluster.apply(&benchmark("too-large", small))?;
    let found = records(cluster, namespace, "fits")?;
    let result = found.values().next().context("a result")?;
    let estimate = &result["latencyEstimate"];
    ensure!(estimate["source"] == "estimated" && estimate["clockHertz"] == 120_000_000, "{estimate}");
    let end = |name: &str| estimate[name].as_u64().with_context(|| format!("{name} in {estimate}"));
    ensure!(
        end("lowerNanoseconds")? < end("nanoseconds")? && end("nanoseconds")? < end("upperNanoseconds")?,
        "{estimate}"
    );
    ensure!(result["latency"].is_null() && result["unavailable"]["latency"] == "EmulatedClock", "a time was measured");
    ensure!(result["microcontroller"]["flashLimitBytes"] == 2 << 20, "{}", result["microcontroller"]);
    ensure!(result["unavailable"]["energyEstimate"] == "NoDataSheet", "{}", result["unavailable"]);

    let refused = cluster.ended("edgebenchmark", namespace, "too-large", LIMIT)?;
    ensure!(!refused.complete, "a model of 300 kB was taken for 64 KiB of flash");
    let runs = cluster.list("benchmarkrun", namespace, "")?;
    let run = runs.iter().find(|run| run["spec"]["benchmarkName"] == "too-large").context("the refused run")?;
    let said = run["status"].to_string();
    ensure!(
        said.contains("ModelTooLarge") && said.contains("300568") && said.contains("65536"),
        "both numbers are not told: {said}"
    );
    example.cleared()
}

/// What every result must have.
fn check(core: &str, model: &str, result: &Value) -> Result<()> {
    let about = format!("{model} on {core}");
    ensure!(result["validity"]["state"] == "Valid", "{about}: {}", result["validity"]);
    let instructions = result["instructionsPerInference"].as_u64().with_context(|| format!("{about}: no count"))?;
    ensure!(instructions > 10_000, "{about} took {instructions} instructions");
    let operators = result["operators"].as_array().with_context(|| format!("{about}: no operators"))?;
    let sum: u64 = operators.iter().filter_map(|operator| operator["instructions"].as_u64()).sum();
    ensure!(sum == instructions && operators.len() > 3, "{about}: operators take {sum} of {instructions}");
    let mix = result["instructionMix"].as_object().with_context(|| format!("{about}: no mix"))?;
    let sum: u64 = mix.values().filter_map(Value::as_u64).sum();
    ensure!(mix.len() == 7 && sum > instructions && sum < instructions + instructions / 10, "{about}: {mix:?}");
    let memory = &result["microcontroller"];
    for (used, limit) in
        [("flashBytes", "flashLimitBytes"), ("ramBytes", "ramLimitBytes"), ("arenaBytes", "arenaLimitBytes")]
    {
        let (used, limit) = (memory[used].as_u64(), memory[limit].as_u64());
        ensure!(used > Some(0) && limit.is_some() && used <= limit, "{about}: {memory}");
    }
    ensure!(memory["flashBytes"].as_u64() > result["sizeBytes"].as_u64(), "{about}: flash is model and code: {memory}");
    for (field, reason) in
        [("accuracy", "NotRequested"), ("latency", "EmulatedClock"), ("latencyEstimate", "ClockUnknown")]
    {
        ensure!(result[field].is_null(), "{about}: {field} is {}", result[field]);
        ensure!(result["unavailable"][field] == reason, "{about}: no {field}, {}", result["unavailable"][field]);
    }
    Ok(())
}

/// The other cores of the lab, free to be leased.
fn more_devices(cluster: &Cluster) -> Result<()> {
    cluster.apply(&fs::read_to_string(root().join("examples/cortex-m/lab.yaml"))?)?;
    for device in ["qemu-m3-0", "qemu-m7-0", "qemu-m55-0"] {
        wait_for(&format!("device {device} to be free"), Duration::from_secs(60), || {
            let device = cluster.get("edgedevice", lab::NAMESPACE, device)?;
            Ok(device.filter(|device| device["status"]["state"] == "Free"))
        })?;
    }
    Ok(())
}

/// The published model, as the example's own script fetches it.
fn person_detect() -> Result<PathBuf> {
    let python =
        std::env::var("EDGEYARD_PYTHON").context("EDGEYARD_PYTHON is not set: run this through `cargo xtask test`")?;
    let out = root().join("target/e2e");
    let mut command = Command::new(python);
    command.arg(root().join("examples/cortex-m/prepare.py")).arg(&out).env("PYTHONDONTWRITEBYTECODE", "1");
    run(command, None)?;
    Ok(out.join("person_detect.tflite"))
}

/// The artefact that a result is of, out of the store.
fn fetched(cluster: &Cluster, namespace: &str, result: &Value) -> Result<PathBuf> {
    let digest = result["digest"].as_str().context("the artefact's digest")?;
    let out = root().join("target/e2e");
    let folder = out.to_str().context("a path that is text")?;
    cluster.edgeyard(&["get", digest, "-n", namespace, "--save", folder])?;
    Ok(out.join(digest.trim_start_matches("sha256:")))
}

/// The digest of what TensorFlow Lite Micro computes on the inputs that the runner made.
fn oracle(model: &std::path::Path, name: &str) -> Result<String> {
    let file = model.to_str().context("a path that is text")?;
    let out = example::made_by("oracle.py", &[file, INPUTS, SEED], &format!("{name}.digest"))?;
    Ok(fs::read_to_string(out)?.trim().to_owned())
}

/// The results of a benchmark's records, by device entry and model.
fn records(cluster: &Cluster, namespace: &str, benchmark: &str) -> Result<BTreeMap<(String, String), Value>> {
    cluster.completed("edgebenchmark", namespace, benchmark, LIMIT)?;
    let mut found = BTreeMap::new();
    for run in cluster.list("benchmarkrun", namespace, "")? {
        if run["spec"]["benchmarkName"] != benchmark {
            continue;
        }
        let digest = run["status"]["record"]["digest"].as_str().context("the record's digest")?;
        let record: Value = serde_json::from_str(&cluster.edgeyard(&["get", digest, "-n", namespace, "-o", "json"])?)?;
        ensure!(record["device"]["fidelity"] == "Emulated", "{}", record["device"]);
        let core = record["device"]["request"].as_str().context("the device's entry")?.to_owned();
        for result in record["results"].as_array().context("results")? {
            let model = result["model"].as_str().context("a model")?.to_owned();
            found.insert((core.clone(), model), result.clone());
        }
    }
    Ok(found)
}
