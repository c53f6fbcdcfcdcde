//! Every query of the dashboard, on a real Prometheus that scraped a real run, and its values against the results.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgeyard_e2e::cluster::run;
use edgeyard_e2e::{Cluster, Example, lab, root, wait_for};
use fs_err as fs;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
#[ignore = "needs a cluster: cargo xtask test --only dashboards"]
fn prometheus_and_the_dashboard_say_what_the_records_say() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "dash")?;
    let namespace = example.name();
    let calibration = "  calibration: {dataset: {configMapKeyRef: {name: mnist, key: calib.npz}}, sampleCount: 64}";
    let evaluation =
        format!("  evaluation: {{dataset: {{digest: \"{}\"}}, metric: Top1Accuracy}}", example.inputs["SMOKE"]);
    let variants = "[{name: fp32, targets: [ort-x86], passes: []}, {name: int8, targets: [ort-x86, tflm], passes: [{type: Quantize, quantize: {scheme: Int8}}]}]";
    cluster.apply(&example.optimization(
        "plain",
        &example.inputs["MODEL"],
        variants,
        &format!("{calibration}\n{evaluation}"),
    ))?;
    let accuracy = format!(
        "  measurement: {{accuracy: {{dataset: {{digest: \"{}\"}}, metric: Top1Accuracy}}}}",
        example.inputs["SMOKE"]
    );
    metered_device(&cluster)?;
    let devices = "[{name: host, deviceClassName: host-cpu}, {name: m4, deviceClassName: qemu-cortex-m4}, {name: metered, deviceClassName: metered-cpu}]";
    cluster.apply(&example.benchmark("plain", &["plain"], devices, &accuracy))?;
    let offline = example.benchmark("offline", &["plain"], "[{name: host, deviceClassName: host-cpu}]", "");
    cluster.apply(&offline.replace("scenario: SingleStream", "scenario: Offline"))?;
    let benchmark = cluster.completed("edgebenchmark", namespace, "plain", LIMIT)?;
    let offline = cluster.completed("edgebenchmark", namespace, "offline", LIMIT)?;
    let optimization = cluster.completed("modeloptimization", namespace, "plain", LIMIT)?;

    every_panel_has_data(namespace)?;
    values_are_those_of_the_results(namespace, &benchmark, &optimization)?;
    for result in offline["status"]["results"].as_array().context("results")? {
        let rate: f64 = result["samplesPerSecond"].as_str().with_context(|| format!("no rate: {result}"))?.parse()?;
        let expression = format!(
            "edgeyard_throughput_samples_per_second{{namespace=\"{namespace}\",benchmark=\"offline\",variant={}}}",
            result["variant"]
        );
        let found = query(&expression)?;
        ensure!(rate > 0.0 && found == [rate], "{expression} is {found:?}, not {rate}");
    }
    energy_is_power_times_time(&cluster, namespace)?;
    metrics_are_clean(&cluster)?;
    rules_are_clean()?;

    // Series go with their objects.
    example.cleared()?;
    cluster.kubectl(&["delete", "edgedevice/metered-cpu-0", "configmap/metered-cpu", "-n", lab::NAMESPACE])?;
    cluster.kubectl(&["delete", "edgedeviceclass", "metered-cpu"])?;
    wait_for("the series to be gone", LIMIT, || {
        Ok(query(&format!("edgeyard_result_info{{namespace=\"{namespace}\"}}"))?.is_empty().then_some(()))
    })
}

/// The power that the replayed meter tells.
const WATTS: f64 = 5.0;

/// The node's processor with a meter: a recorded series of constant power, a reading each 10 ms.
fn metered_device(cluster: &Cluster) -> Result<()> {
    let readings: Vec<String> = (0..100).map(|n| format!("{},{WATTS}", n * 10_000_000)).collect();
    let recording = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "metered-cpu", "namespace": lab::NAMESPACE},
        "data": {
            "meter.json": r#"{"name": "constant", "scope": "supply", "periodNanoseconds": 10000000, "supplyMillivolts": 5000}"#,
            "readings.csv": format!("nanoseconds,watts\n{}\n", readings.join("\n")),
        },
    });
    cluster.apply(&recording.to_string())?;
    cluster.apply(&format!(
        "{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeDeviceClass, metadata: {{name: metered-cpu}}, spec: {{fidelity: Hardware, isolation: Node, targets: [ort-x86], backend: {{type: Runtime}}, runner: {{resources: {{limits: {{cpu: \"1\", memory: 1Gi}}}}}}, meters: [{{type: Replay, replay: {{configMapName: metered-cpu}}}}]}}}}
---
{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeDevice, metadata: {{name: metered-cpu-0, namespace: {}}}, spec: {{deviceClassName: metered-cpu, connection: {{type: Node, node: {{name: {}}}}}}}}}",
        lab::NAMESPACE,
        cluster.node()?
    ))
}

/// The record's gross energy is what constant power comes to over the time that the windows took.
fn energy_is_power_times_time(cluster: &Cluster, namespace: &str) -> Result<()> {
    let runs = cluster.list("benchmarkrun", namespace, "")?;
    let of_device = |run: &&Value| run["status"]["deviceRef"]["name"] == "metered-cpu-0";
    let run = runs.iter().find(of_device).context("a run on metered-cpu-0")?;
    let digest = run["status"]["record"]["digest"].as_str().context("a record")?;
    let record: Value = serde_json::from_str(&cluster.edgeyard(&["get", digest, "-n", namespace, "-o", "json"])?)?;
    for result in record["results"].as_array().context("results")? {
        let windows = result["latency"]["windows"].as_array().context("windows")?;
        let sum = |field: &str| windows.iter().filter_map(|window| window[field].as_f64()).sum::<f64>();
        let seconds = (sum("endNanoseconds") - sum("startNanoseconds")) / 1e9;
        let expected = WATTS * seconds / sum("count");
        let energy = &result["energy"];
        let gross = energy["grossNanojoules"].as_f64().with_context(|| format!("energy: {result}"))? / 1e9;
        ensure!((gross / expected - 1.0).abs() < 1e-3, "{gross} J, not {expected} J");
        // The idle device takes as much, so that nothing is left net.
        let net = energy["netNanojoules"].as_f64().context("net")? / 1e9;
        ensure!(net.abs() < 0.01 * expected, "{net} J net of {expected} J gross");
        ensure!(energy["meter"].as_str().is_some_and(|meter| meter.starts_with("replay")), "{energy}");
    }
    Ok(())
}

fn every_panel_has_data(namespace: &str) -> Result<()> {
    let text = fs::read_to_string(root().join("charts/edgeyard/files/dashboards/edgeyard.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().context("panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().context("expr")?;
            let expression = expression
                .replace("$namespace", namespace)
                .replace("$benchmark", ".*")
                .replace("$__rate_interval", "2m");
            queries += 1;
            wait_for(&format!("data for {}: {expression}", panel["title"]), Duration::from_secs(120), || {
                Ok((!query(&expression)?.is_empty()).then_some(()))
            })?;
        }
    }
    ensure!(queries >= 10, "the dashboard has {queries} queries");
    Ok(())
}

fn values_are_those_of_the_results(namespace: &str, benchmark: &Value, optimization: &Value) -> Result<()> {
    let results = benchmark["status"]["results"].as_array().context("results")?;
    ensure!(results.len() == 5, "{results:?}");
    let mut compared = 0;
    for result in results {
        let labels = format!(
            "namespace=\"{namespace}\",benchmark=\"plain\",variant={},target={},device={}",
            result["variant"], result["target"], result["unit"]
        );
        let mut same = |metric: &str, more: &str, expected: Option<f64>| -> Result<()> {
            let expression = format!("{metric}{{{labels}{more}}}");
            let Some(expected) = expected else {
                let found = query(&expression)?;
                ensure!(found.is_empty(), "{expression} has a value that no result has: {found:?}");
                return Ok(());
            };
            wait_for(&format!("{expression} to be {expected}"), Duration::from_secs(60), || {
                let found = query(&expression)?;
                ensure!(found.len() == 1, "{found:?}");
                let close = (found[0] - expected).abs() <= 1e-9 * expected.abs();
                ensure!(close, "{} instead of {expected}", found[0]);
                Ok(Some(()))
            })?;
            compared += 1;
            Ok(())
        };
        let nanoseconds = |field: &str| result[field].as_u64().map(|value| value as f64 / 1e9);
        same("edgeyard_latency_seconds", ",percentile=\"50\"", nanoseconds("latencyP50Nanoseconds"))?;
        same("edgeyard_latency_seconds", ",percentile=\"90\"", nanoseconds("latencyP90Nanoseconds"))?;
        same("edgeyard_latency_interval_seconds", ",bound=\"lower\"", nanoseconds("latencyP50LowerNanoseconds"))?;
        same("edgeyard_latency_interval_seconds", ",bound=\"upper\"", nanoseconds("latencyP50UpperNanoseconds"))?;
        same("edgeyard_energy_joules", ",part=\"gross\"", nanoseconds("energyGrossNanojoules"))?;
        same("edgeyard_instructions_per_inference", "", result["instructionsPerInference"].as_f64())?;
        let accuracy = result["accuracy"]["value"].as_str().context("accuracy")?.parse()?;
        same("edgeyard_accuracy_ratio", "", Some(accuracy))?;
        same("edgeyard_result_info", "", Some(1.0))?;
    }
    for artifact in optimization["status"]["artifacts"].as_array().context("artifacts")? {
        let expression = format!(
            "edgeyard_artifact_size_bytes{{namespace=\"{namespace}\",model_optimization=\"plain\",variant={},target={}}}",
            artifact["variant"], artifact["target"]
        );
        let found = query(&expression)?;
        ensure!(found.len() == 1 && Some(found[0]) == artifact["sizeBytes"].as_f64(), "{expression}: {found:?}");
        compared += 1;
    }
    // Four of five results have times and intervals, two have energy, one has instructions; all have accuracy and a
    // digest; three artefacts have sizes.
    ensure!(compared >= 4 * 4 + 2 + 1 + 2 * 5 + 3, "only {compared} values were there to compare");
    Ok(())
}

fn metrics_are_clean(cluster: &Cluster) -> Result<()> {
    for service in ["edgeyard-operator", "edgeyard-store"] {
        let path = format!("/api/v1/namespaces/{}/services/{service}:metrics/proxy/metrics", lab::SYSTEM);
        let text = cluster.kubectl(&["get", "--raw", &path])?;
        ensure!(text.contains("\nedgeyard_"), "{service} has no series:\n{text}");
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]);
        let said = run(command, Some(&text)).with_context(|| format!("promtool on {service}"))?;
        ensure!(said.trim().is_empty(), "promtool on {service}: {said}");
    }
    Ok(())
}

fn rules_are_clean() -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "rules"]).arg(root().join("charts/edgeyard/files/rules.yaml"));
    let said = run(command, None)?;
    ensure!(said.contains("SUCCESS"), "{said}");
    // They do not only parse: a real Prometheus evaluates them.
    let rules: Value = serde_yaml::from_str(&fs::read_to_string(root().join("charts/edgeyard/files/rules.yaml"))?)?;
    for rule in rules["groups"][0]["rules"].as_array().context("rules")? {
        let expression = rule["expr"].as_str().context("expr")?;
        // Recorded series do not exist here: their definitions stand for them.
        query(
            &expression
                .replace("edgeyard:reconcile_errors:rate5m", "vector(0)")
                .replace("edgeyard:devices_usable:ratio", "vector(1)"),
        )?;
    }
    Ok(())
}

/// The values of an instant query.
fn query(expression: &str) -> Result<Vec<f64>> {
    let url = std::env::var("EDGEYARD_PROMETHEUS_URL")
        .context("EDGEYARD_PROMETHEUS_URL: run this through `cargo xtask test`")?;
    let mut command = Command::new("curl");
    command.args(["--silent", "--fail-with-body", "--get", "--data-urlencode"]).arg(format!("query={expression}"));
    command.arg(format!("{url}/api/v1/query"));
    let answer: Value = serde_json::from_str(&run(command, None)?)?;
    ensure!(answer["status"] == "success", "{expression}: {answer}");
    let values = answer["data"]["result"].as_array().context("a vector")?;
    values.iter().map(|sample| Ok(sample["value"][1].as_str().context("a value")?.parse()?)).collect()
}
