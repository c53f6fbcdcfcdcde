//! The scenarios in a real runtime: what each counts, and what a short profile leaves out.

mod support;

use edgeyard_record::{Record, VariantResult};
use support::{data_set, fail, file, folder, models, need, record, succeed, text};

/// Runs a model that takes a moment, and gives its record.
fn run(scenario: &str, more: &[&str]) -> Record {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "slow.onnx", &models::slow_onnx(64));
    let out = dir.path().join("out");
    let base = ["run", "--device-class", "host-cpu", "--profile", "Smoke", "--scenario", scenario];
    succeed(&[&base[..], &["--model", text(&model), "--out", text(&out)], more].concat());
    let found = record(&out);
    assert_eq!((found.workload.scenario.as_str(), found.workload.profile.as_str()), (scenario, "Smoke"));
    found
}

fn reasons(result: &VariantResult) -> Vec<&str> {
    result.validity.reasons.iter().map(String::as_str).collect()
}

#[test]
fn multi_stream_times_queries_of_eight() {
    let found = run("MultiStream", &[]);
    let latency = found.results[0].latency.as_ref().unwrap();
    assert_eq!(latency.inferences_per_query, 8);
    assert_eq!(found.workload.percentile.as_deref(), Some("99"));
    assert_eq!(latency.early_stopping.as_ref().unwrap().percentile, "99");
    let single = run("SingleStream", &[]);
    let one = single.results[0].latency.as_ref().unwrap();
    assert_eq!((one.inferences_per_query, single.workload.percentile.as_deref()), (1, Some("90")));
    // Eight inferences one after the other take longer than the fastest one.
    assert!(latency.minimum_nanoseconds > one.minimum_nanoseconds);
    assert_eq!(single.results[0].unavailable["throughput"], "NotThisScenario");
}

#[test]
fn what_was_asked_for_is_done_and_recorded() {
    let found = run("SingleStream", &["--query-count", "7000", "--percentile", "P999", "--seed", "7"]);
    let workload = &found.workload;
    assert_eq!((workload.percentile.as_deref(), workload.query_count, workload.seed), (Some("99.9"), Some(7000), 7));
    assert_eq!(workload.shortened, ["1s a variant instead of 600s"]);
    let latency = found.results[0].latency.as_ref().unwrap();
    let queries: u64 = latency.windows.iter().map(|window| window.count).sum();
    assert!(queries >= 7000, "{queries}");
    assert!(latency.percentiles.contains_key("99.9"));
    assert_eq!(latency.early_stopping.as_ref().unwrap().percentile, "99.9");
}

#[test]
fn a_server_finds_the_rate_that_keeps_its_bound() {
    // 50 ms: about a thousand times an inference.
    let found = run("Server", &["--latency-bound", "50000000"]);
    assert_eq!(found.workload.latency_bound_nanoseconds, Some(50_000_000));
    let result = &found.results[0];
    let server = result.server.as_ref().unwrap();
    assert!(!server.trials.is_empty() && server.trials.iter().all(|trial| trial.queries >= 662));
    // Whether this machine keeps it is its own affair; that the record says so is ours.
    assert_eq!(server.highest_queries_per_second.is_none(), reasons(result).contains(&"LatencyBoundBroken"));
    let latency = result.latency.as_ref().unwrap();
    assert!(server.over_bound <= latency.count);
    assert_eq!(result.unavailable["throughput"], "NotThisScenario");
}

#[test]
fn a_bound_that_nothing_keeps_is_told_with_the_data() {
    let found = run("Server", &["--latency-bound", "1"]);
    let result = &found.results[0];
    let server = result.server.as_ref().unwrap();
    assert_eq!(server.highest_queries_per_second, None);
    assert!(server.trials.iter().all(|trial| !trial.kept && trial.over_bound == trial.queries));
    assert!(reasons(result).contains(&"LatencyBoundBroken"));
    assert!(result.latency.as_ref().is_some_and(|latency| latency.count > 0), "the data is kept");
}

#[test]
fn offline_counts_samples() {
    let found = run("Offline", &[]);
    let result = &found.results[0];
    let throughput = result.throughput.as_ref().unwrap();
    let rate: f64 = throughput.samples_per_second.parse().unwrap();
    let wanted = throughput.samples as f64 * 1e9 / throughput.duration_nanoseconds as f64;
    assert!((rate / wanted - 1.0).abs() < 1e-6, "{rate} is not {wanted}");
    assert_eq!(found.workload.percentile, None);
    assert_eq!(found.unavailable["workload.percentile"], "ThroughputCounts");
    // Without a set it is LoadGen's 24,576 samples or it is too short.
    assert_eq!(throughput.samples < 24_576, reasons(result).contains(&"ProfileTooShort"));

    // With a small set it is the whole of it; the model takes 64 samples at a time.
    let dir = folder();
    let set = data_set(dir.path(), "i.npz", &[100, 64], &[0.5; 100 * 64], None);
    let found = run("Offline", &["--inputs", text(&set)]);
    assert!(!reasons(&found.results[0]).contains(&"ProfileTooShort"));
    assert!(found.results[0].throughput.as_ref().unwrap().samples >= 100);
    assert!(found.harness.methods["inputs"].starts_with("samples of the data set in order"));
}

#[test]
fn tiny_has_five_windows_and_says_that_they_are_short() {
    let found = run("Tiny", &[]);
    let result = &found.results[0];
    let latency = result.latency.as_ref().unwrap();
    assert_eq!((latency.windows.len(), result.throughput.as_ref().unwrap().queries), (5, 5));
    assert!(latency.windows.iter().all(|window| window.count >= 10));
    assert!(reasons(result).contains(&"ProfileTooShort"));
    assert_eq!(found.workload.shortened, ["windows of 250ms instead of 10s"]);
}

#[test]
fn settings_that_cannot_work_are_refused_before_anything_runs() {
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let refused = |more: &[&str], reason: &str, hint: &str| {
        let base = ["run", "--model", text(&model), "--device-class", "host-cpu", "--out", text(dir.path())];
        fail(&[&base[..], more].concat(), 2, reason, hint);
    };
    refused(&["--scenario", "MultiStream", "--query-count", "100"], "TooFewQueries", "662 or more");
    refused(&["--percentile", "P999", "--query-count", "6635"], "TooFewQueries", "6636");
    refused(&["--scenario", "Server"], "LatencyBoundMissing", "above 0");
    refused(&["--latency-bound", "5"], "LatencyBoundUnused", "Server");
}
