//! The demo's rows, read back: sizes and drops from the ModelOptimization, everything measured from the records.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use edgeyard_e2e::Cluster;
use serde::Serialize;
use serde_json::Value;

/// One variant on one device.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The entry in the EdgeBenchmark's models.
    pub model: String,
    /// The recipe.
    pub variant: String,
    /// The runtime.
    pub target: String,
    /// The device.
    pub device: String,
    /// Its class.
    pub device_class: String,
    /// `Hardware` or `Emulated`.
    pub fidelity: String,
    /// The model's digest.
    pub digest: String,
    /// `ONNX` or `TFLite`.
    pub format: String,
    /// The model's size.
    pub size_bytes: Option<u64>,
    /// As measured on the device.
    pub accuracy: Option<Accuracy>,
    /// Against the source model, on the whole evaluation set.
    pub accuracy_drop: Option<f64>,
    /// On real devices.
    pub latency: Option<Latency>,
    /// On emulated microcontrollers.
    pub instructions_per_inference: Option<u64>,
    /// The record that the row is from.
    pub record_digest: String,
    /// Why something is null.
    pub reasons: BTreeMap<String, String>,
}

/// A score with its 95 % interval.
#[derive(Serialize, Debug, PartialEq)]
pub struct Accuracy {
    /// The score.
    pub value: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Samples.
    pub n: u64,
}

/// Time per inference.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Median.
    pub p50_seconds: f64,
    /// 90th percentile.
    pub p90_seconds: f64,
}

/// All rows of a namespace.
pub fn from_cluster(cluster: &Cluster, namespace: &str) -> Result<Vec<Row>> {
    let drops = drops(&cluster.list("modeloptimization", namespace, "")?);
    let mut rows = Vec::new();
    for run in cluster.list("benchmarkrun", namespace, "")? {
        let digest = text(&run["status"]["record"]["digest"]).context("a run that completed has a record")?;
        let record = cluster.edgeyard(&["get", &digest, "-n", namespace, "-o", "json"])?;
        rows.extend(from_record(&serde_json::from_str(&record)?, &digest, &drops)?);
    }
    rows.sort_by_key(|row| (row.device_class.clone(), row.variant.clone(), row.target.clone()));
    Ok(rows)
}

/// How far each artefact is below its source, by digest.
fn drops(optimizations: &[Value]) -> BTreeMap<String, f64> {
    let artifacts = optimizations.iter().filter_map(|object| object["status"]["artifacts"].as_array()).flatten();
    artifacts.filter_map(|artifact| Some((text(&artifact["digest"])?, decimal(&artifact["accuracyDrop"])?))).collect()
}

/// The rows of one record.
pub fn from_record(record: &Value, digest: &str, drops: &BTreeMap<String, f64>) -> Result<Vec<Row>> {
    let results = record["results"].as_array().context("a record has results")?;
    let device = &record["device"];
    results
        .iter()
        .map(|result| {
            let field = |name: &str| text(&result[name]).with_context(|| format!("a result has {name}"));
            let model_digest = field("digest")?;
            let mut reasons: BTreeMap<String, String> = result["unavailable"]
                .as_object()
                .map(|map| map.iter().filter_map(|(name, why)| Some((name.clone(), text(why)?))).collect())
                .unwrap_or_default();
            if let Some(failure) = text(&result["failure"]["reason"]) {
                reasons.insert("failure".into(), failure);
            }
            let accuracy_drop = drops.get(&model_digest).copied();
            if accuracy_drop.is_none() {
                reasons.insert("accuracyDrop".into(), "NoEvaluation".into());
            }
            for (state, why) in [("validity", &result["validity"])] {
                if why["state"] != "Valid" {
                    let list: Vec<_> =
                        why["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    reasons.insert(
                        state.into(),
                        format!("{}: {}", text(&why["state"]).unwrap_or_default(), list.join(", ")),
                    );
                }
            }
            Ok(Row {
                model: field("model")?,
                variant: field("variant")?,
                target: field("target")?,
                device: text(&device["name"]).unwrap_or_else(|| "local".into()),
                device_class: text(&device["class"]).context("a record has its device's class")?,
                fidelity: text(&device["fidelity"]).context("a record has its device's fidelity")?,
                digest: model_digest,
                format: field("format")?,
                size_bytes: result["sizeBytes"].as_u64(),
                accuracy: accuracy(&result["accuracy"]),
                accuracy_drop,
                latency: latency(&result["latency"]["percentiles"]),
                instructions_per_inference: result["instructionsPerInference"].as_u64(),
                record_digest: digest.to_owned(),
                reasons,
            })
        })
        .collect()
}

fn accuracy(value: &Value) -> Option<Accuracy> {
    Some(Accuracy {
        value: decimal(&value["value"])?,
        lower: decimal(&value["lower"])?,
        upper: decimal(&value["upper"])?,
        n: value["sampleCount"].as_u64()?,
    })
}

fn latency(percentiles: &Value) -> Option<Latency> {
    let seconds = |name: &str| Some(percentiles[name]["valueNanoseconds"].as_u64()? as f64 / 1e9);
    Some(Latency { p50_seconds: seconds("50")?, p90_seconds: seconds("90")? })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn decimal(value: &Value) -> Option<f64> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_says_why_something_is_missing() {
        let record = json!({
            "device": {"name": "m4-0", "class": "qemu-cortex-m4", "fidelity": "Emulated"},
            "results": [{
                "model": "mnist", "variant": "int8", "target": "tflm", "format": "TFLite", "digest": "sha256:1", "sizeBytes": 7,
                "latency": null, "instructionsPerInference": 12, "failure": null,
                "accuracy": {"value": "0.990000", "lower": "0.98", "upper": "0.995", "sampleCount": 100},
                "unavailable": {"latency": "EmulatedClock"}, "validity": {"state": "Valid", "reasons": []},
            }],
        });
        let rows = from_record(&record, "sha256:r", &BTreeMap::new()).unwrap();
        assert_eq!(rows[0].latency, None);
        assert_eq!(rows[0].instructions_per_inference, Some(12));
        assert_eq!(rows[0].accuracy.as_ref().map(|a| a.n), Some(100));
        assert_eq!(rows[0].reasons["latency"], "EmulatedClock");
        assert_eq!(rows[0].reasons["accuracyDrop"], "NoEvaluation");
    }
}
