//! A daemon of the cluster: watches pods and tells Prometheus which of them want to be scraped.
//!
//! Prometheus has this built in, but not as Debian builds it. The annotations are the usual ones: `prometheus.io/scrape`, `port`,
//! `path`, `scheme`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use fs_err as fs;
use serde_json::{Value, json};

use super::config::data;
use crate::shell::cmd;

/// Follows the pods until it is killed.
pub fn run(kubectl: &Path) -> Result<ExitCode> {
    loop {
        if let Err(error) = follow(kubectl) {
            eprintln!("{error:#}");
        }
        // The API server was not there, or ended the watch, as it does every hour or so.
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// One watch, from a list of all pods to its end.
fn follow(kubectl: &Path) -> Result<()> {
    let mut watch = cmd(
        &kubectl.to_string_lossy(),
        ["get", "pods", "--all-namespaces", "--watch", "--output-watch-events", "-o", "json"],
    )
    .env("KUBECONFIG", data().join("pki/admin.conf"))
    .stdin(Stdio::null())
    .stdout(Stdio::piped())
    .spawn()?;
    let events = watch.stdout.take().context("its output is piped")?;
    let mut targets = BTreeMap::new();
    let result = (|| {
        for event in serde_json::Deserializer::from_reader(std::io::BufReader::new(events)).into_iter::<Value>() {
            if apply(&mut targets, &event?) {
                write(&data().join("prometheus-targets.json"), &targets)?;
            }
        }
        Ok(())
    })();
    // Whatever it still says is of no use.
    let _ = watch.kill();
    watch.wait()?;
    result
}

/// Applies a watch event; true when the targets changed.
fn apply(targets: &mut BTreeMap<String, Value>, event: &Value) -> bool {
    let pod = &event["object"];
    let Some(uid) = pod["metadata"]["uid"].as_str() else { return false };
    let new = if event["type"] == "DELETED" { None } else { target(pod) };
    match new {
        Some(target) => targets.insert(uid.to_owned(), target.clone()).as_ref() != Some(&target),
        None => targets.remove(uid).is_some(),
    }
}

/// What Prometheus is to scrape of a pod, if it runs and asks for it.
fn target(pod: &Value) -> Option<Value> {
    let ask = |name: &str| pod["metadata"]["annotations"][format!("prometheus.io/{name}")].as_str();
    if ask("scrape") != Some("true") || pod["status"]["phase"] != "Running" {
        return None;
    }
    let address = pod["status"]["podIP"].as_str()?;
    let first = || pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64().map(|port| port.to_string());
    let port = ask("port").map(str::to_owned).or_else(first)?;
    Some(json!({
        "targets": [format!("{address}:{port}")],
        "labels": {
            "__scheme__": ask("scheme").unwrap_or("http"),
            "__metrics_path__": ask("path").unwrap_or("/metrics"),
            "pod": pod["metadata"]["name"],
            // Edgeyard's own series have a label `namespace`.
            "pod_namespace": pod["metadata"]["namespace"],
        }
    }))
}

/// Renamed into place: Prometheus must not read half a file.
fn write(file: &Path, targets: &BTreeMap<String, Value>) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(&targets.values().collect::<Vec<_>>())?)?;
    Ok(fs::rename(new, file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, phase: &str) -> Value {
        json!({"type": kind, "object": {
            "metadata": {"uid": "u", "name": "p", "namespace": "n", "annotations": {"prometheus.io/scrape": "true", "prometheus.io/scheme": "https"}},
            "spec": {"containers": [{"ports": [{"containerPort": 8443}]}]},
            "status": {"phase": phase, "podIP": "10.0.0.7"},
        }})
    }

    #[test]
    fn a_pod_is_scraped_while_it_runs() {
        let mut targets = BTreeMap::new();
        assert!(!apply(&mut targets, &event("ADDED", "Pending")));
        assert!(apply(&mut targets, &event("MODIFIED", "Running")));
        assert_eq!(targets["u"]["targets"], json!(["10.0.0.7:8443"]));
        assert_eq!(targets["u"]["labels"]["__scheme__"], "https");
        assert!(!apply(&mut targets, &event("MODIFIED", "Running")), "nothing changed");
        assert!(apply(&mut targets, &event("DELETED", "Running")));
        assert!(targets.is_empty());
    }

    #[test]
    fn a_pod_that_does_not_ask_is_left_alone() {
        let mut event = event("ADDED", "Running");
        event["object"]["metadata"]["annotations"] = json!({});
        assert!(!apply(&mut BTreeMap::new(), &event));
    }
}
