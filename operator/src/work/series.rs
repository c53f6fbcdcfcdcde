//! The series that Prometheus gets of an object's results, from its status alone.

use edgeyard_crds::benchmark_status::Validity;
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::run::BenchmarkRun;
use kube::ResourceExt as _;

use crate::frame::results::{Metric, Series};

/// Label of a BenchmarkRun with the class of its devices: a request by names or labels does not tell it.
pub const DEVICE_CLASS: &str = "edgeyard.dev/device-class";

/// Sizes and scores of a ModelOptimization's artefacts.
pub fn of_optimization(object: &ModelOptimization) -> Vec<Series> {
    let Some(status) = &object.status else { return Vec::new() };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    status
        .artifacts
        .iter()
        .filter_map(|artifact| {
            #[allow(clippy::cast_precision_loss)] // sizes are far below 2^53
            let size = artifact.size_bytes? as f64;
            Some(
                Series::new(Metric::ArtifactSize, size)
                    .label("namespace", &namespace)
                    .label("model_optimization", &name)
                    .label("variant", &artifact.variant.0)
                    .label("target", &artifact.target.0),
            )
        })
        .collect()
}

/// What a run found on its device. Of every run and not of the benchmark, whose status shows only the first results.
pub fn of_run(run: &BenchmarkRun) -> Vec<Series> {
    let Some(status) = &run.status else { return Vec::new() };
    let namespace = run.namespace().unwrap_or_default();
    let class = run.labels().get(DEVICE_CLASS).cloned().unwrap_or_default();
    let mut all = Vec::new();
    for result in &status.results {
        let labelled = |metric: Metric, value: f64| {
            Series::new(metric, value)
                .label("namespace", &namespace)
                .label("benchmark", &run.spec.benchmark_name.0)
                .label("model", &result.model.0)
                .label("variant", &result.variant.0)
                .label("target", &result.target.0)
                .label("device", &result.unit.0)
                .label("device_class", class.as_str())
        };
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        // Nanoseconds to seconds, nanojoules to joules.
        let seconds = |billionths: i64| billionths as f64 / 1e9;
        let valid = result.validity.map_or("", word);
        for (percentile, value) in [
            ("50", result.latency_p50_nanoseconds),
            ("90", result.latency_p90_nanoseconds),
            ("99", result.latency_p99_nanoseconds),
        ] {
            if let Some(value) = value {
                let series = labelled(Metric::Latency, seconds(value)).label("percentile", percentile);
                all.push(series.label("validity", valid));
            }
        }
        for (bound, value) in
            [("lower", result.latency_p50_lower_nanoseconds), ("upper", result.latency_p50_upper_nanoseconds)]
        {
            if let Some(value) = value {
                let series = labelled(Metric::LatencyInterval, seconds(value)).label("percentile", "50");
                all.push(series.label("bound", bound).label("validity", valid));
            }
        }
        for (part, value) in [("gross", result.energy_gross_nanojoules), ("net", result.energy_net_nanojoules)] {
            if let Some(value) = value {
                let series = labelled(Metric::Energy, seconds(value)).label("part", part).label("validity", valid);
                all.push(series.label("meter", result.energy_meter.clone().unwrap_or_default()));
            }
        }
        if let Some(rate) = result.samples_per_second.as_ref().and_then(|rate| rate.0.parse::<f64>().ok()) {
            all.push(labelled(Metric::Throughput, rate).label("validity", valid));
        }
        let ratio = |text: &str| text.parse::<f64>().ok();
        if let Some(accuracy) = &result.accuracy {
            all.extend(ratio(&accuracy.value.0).map(|value| labelled(Metric::Accuracy, value)));
            for (bound, text) in [("lower", &accuracy.lower.0), ("upper", &accuracy.upper.0)] {
                all.extend(ratio(text).map(|value| labelled(Metric::AccuracyInterval, value).label("bound", bound)));
            }
        }
        if let Some(value) = result.accuracy_drop.as_ref().and_then(|drop| ratio(&drop.0)) {
            all.push(labelled(Metric::AccuracyDrop, value));
        }
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        if let Some(count) = result.instructions_per_inference {
            all.push(labelled(Metric::Instructions, count as f64));
        }
        if let Some(record) = &status.record {
            all.push(labelled(Metric::ResultInfo, 1.0).label("record_digest", &record.digest.0));
        }
    }
    all
}

/// As the API writes it.
fn word(validity: Validity) -> &'static str {
    match validity {
        Validity::Valid => "Valid",
        Validity::Invalid => "Invalid",
        Validity::Inconclusive => "Inconclusive",
    }
}
