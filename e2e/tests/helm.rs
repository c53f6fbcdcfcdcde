//! The chart: it tests itself, refuses values that are no fields, and an uninstall keeps what must be kept.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use edgeyard_e2e::{Cluster, Example, lab, wait_for};

const LIMIT: Duration = Duration::from_secs(300);

#[test]
#[ignore = "needs a cluster: cargo xtask test --only helm"]
fn values_that_are_no_fields_are_refused() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    for (setting, said) in [
        ("stoer.quotaBytes=1", "stoer"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("store.quotaBytes=0", "quotaBytes"),
    ] {
        let chart = edgeyard_e2e::root().join("charts/edgeyard");
        let Err(error) = cluster.helm(&["template", "x", chart.to_str().context("a path")?, "--set", setting]) else {
            bail!("{setting} was taken")
        };
        ensure!(error.to_string().contains(said), "{setting}: {error}");
    }
    Ok(())
}

/// Without the agent a record says that it is missing; with it, what the pod could not read has values or other reasons.
#[test]
#[ignore = "needs a cluster: cargo xtask test --only helm"]
fn the_node_agent_tells_what_pods_cannot_read() -> Result<()> {
    const FIELDS: [&str; 2] = ["coreThrottleEvents", "packageThrottleEvents"];
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "agent")?;
    let plain = "[{name: fp32, targets: [ort-x86], passes: []}]";
    cluster.apply(&example.optimization("plain", &example.inputs["MODEL"], plain, ""))?;
    let monitor = |name: &str| -> Result<serde_json::Value> {
        cluster.apply(&example.benchmark(name, &["plain"], "[{name: host, deviceClassName: host-cpu}]", ""))?;
        cluster.completed("edgebenchmark", example.name(), name, LIMIT)?;
        let runs = cluster.list("benchmarkrun", example.name(), "")?;
        let run = runs.iter().find(|run| run["spec"]["benchmarkName"] == name).context("a run")?;
        let digest = run["status"]["record"]["digest"].as_str().context("a record")?;
        let record = cluster.edgeyard(&["get", digest, "-n", example.name(), "-o", "json"])?;
        Ok(serde_json::from_str::<serde_json::Value>(&record)?["monitor"].clone())
    };
    let without = monitor("without")?;
    for field in FIELDS {
        ensure!(without[field].is_null() && without["unavailable"][field] == "NoNodeAgent", "{field}: {without}");
    }
    lab::install(&cluster, &["nodeAgent.enabled=true"])?;
    let with = (|| {
        let namespace = format!("{}-node-agent", lab::SYSTEM);
        let rollout = ["rollout", "status", "daemonset/edgeyard-node-agent", "-n", &namespace, "--timeout=120s"];
        cluster.kubectl(&rollout)?;
        monitor("with")
    })();
    lab::install(&cluster, &[])?;
    let with = with?;
    for field in FIELDS {
        let told =
            !with[field].is_null() || with["unavailable"][field].as_str().is_some_and(|why| why != "NoNodeAgent");
        ensure!(told, "{field}: {with}");
    }
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only helm"]
fn helm_test_measures_and_an_uninstall_keeps_the_records() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    cluster.helm(&["test", lab::RELEASE, "-n", lab::SYSTEM, "--timeout", "180s"])?;
    for kind in [
        "edgedevice",
        "leasequeue",
        "modeloptimization",
        "edgebenchmark",
        "pods -l app.kubernetes.io/component=selftest",
    ] {
        let arguments: Vec<&str> = kind.split(' ').collect();
        let left = cluster.kubectl(&[&["get", "-n", lab::SYSTEM, "-o", "name"], arguments.as_slice()].concat())?;
        ensure!(left.trim().is_empty(), "helm test left {left}");
    }

    let example = Example::new(&cluster, "kept")?;
    let plain = "[{name: fp32, targets: [ort-x86], passes: []}]";
    cluster.apply(&example.optimization("plain", &example.inputs["MODEL"], plain, ""))?;
    cluster.apply(&example.benchmark("plain", &["plain"], "[{name: host, deviceClassName: host-cpu}]", ""))?;
    cluster.completed("edgebenchmark", example.name(), "plain", LIMIT)?;
    let runs = cluster.list("benchmarkrun", example.name(), "")?;
    let digest = runs[0]["status"]["record"]["digest"].as_str().context("a record")?.to_owned();
    let record = cluster.edgeyard(&["get", &digest, "-n", example.name(), "-o", "json"])?;

    cluster.helm(&["uninstall", lab::RELEASE, "-n", lab::SYSTEM, "--wait", "--timeout", "300s"])?;
    wait_for("only the claim to be left", LIMIT, || {
        let left = cluster.kubectl(&[
            "get", "deployments,pods,services,secrets,configmaps,jobs,serviceaccounts,roles,rolebindings,leases,persistentvolumeclaims",
            "-n", lab::SYSTEM, "-o", "name",
        ])?;
        // What every namespace has.
        let ours: Vec<_> = left
            .lines()
            .filter(|line| !matches!(*line, "configmap/kube-root-ca.crt" | "serviceaccount/default"))
            .collect();
        ensure!(ours == ["persistentvolumeclaim/edgeyard-store"], "left: {ours:?}");
        let global = cluster.kubectl(&[
            "get",
            "clusterroles,clusterrolebindings",
            "-l",
            "app.kubernetes.io/name=edgeyard",
            "-o",
            "name",
        ])?;
        ensure!(global.trim().is_empty(), "left: {global}");
        Ok(Some(()))
    })?;
    let crds = cluster.kubectl(&["get", "crds", "-o", "name"])?;
    ensure!(crds.lines().filter(|crd| crd.ends_with(".edgeyard.dev")).count() == 7, "the CRDs are gone: {crds}");

    lab::ready(&cluster)?;
    let again = cluster.edgeyard(&["get", &digest, "-n", example.name(), "-o", "json"])?;
    ensure!(again == record, "the record is another one");
    example.cleared()
}
