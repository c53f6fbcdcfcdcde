//! `analyse` and `early-stopping`, as a user runs them. Logs are written here in LoadGen's public format; none is a copy.

mod support;

use std::fmt::Write as _;
use std::path::PathBuf;

use edgeyard_measure::random::Random;
use serde_json::{Value, json};

use support::{fail, file, folder, succeed, text};

const BAD_INPUT: i32 = 2;

struct Written {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn written(name: &str, content: &str) -> Written {
    let folder = folder();
    let path = file(folder.path(), name, content.as_bytes());
    Written { _folder: folder, path }
}

fn analysed(name: &str, content: &str, more: &[&str]) -> Value {
    let written = written(name, content);
    let arguments = [&["analyse", text(&written.path), "--output", "json"], more].concat();
    serde_json::from_str(&succeed(&arguments)).unwrap()
}

fn refused(name: &str, content: &str, more: &[&str], wanted: &str) {
    let written = written(name, content);
    let arguments = [&["analyse", text(&written.path)], more].concat();
    fail(&arguments, BAD_INPUT, "NotLatencies", wanted);
}

/// Milliseconds with noise of one per cent, as a CSV.
fn csv(n: usize, seed: u64, level: impl Fn(f64) -> f64) -> String {
    let mut random = Random::new(seed);
    let mut out = "query,latency_ms\n".to_owned();
    for index in 0..n {
        let latency = 4.0 * level(index as f64 / n as f64) * (1.0 + 0.01 * random.normal());
        writeln!(out, "{index},{latency}").unwrap();
    }
    out
}

#[test]
fn a_steady_series_gets_all_its_statistics() {
    let found = analysed("run.csv", &csv(7000, 1, |_| 1.0), &["--column", "latency_ms", "--unit", "ms"]);
    for field in ["n", "percentiles", "earlyStopping", "intervals", "validity", "reasons", "unavailable"] {
        assert!(found.get(field).is_some(), "{field} is not among {found}");
    }
    assert_eq!((&found["n"], &found["unit"], &found["validity"]), (&json!(7000), &json!("ns"), &json!("Valid")));
    assert_eq!((&found["reasons"], &found["unavailable"]), (&json!([]), &json!({})));
    assert_eq!(found["percentileMethod"], "floor-index");
    // Normal values: 4 ms · (1 + 0.01 z).
    for (name, z) in [("50", 0.0), ("90", 1.2816), ("95", 1.6449), ("97", 1.8808), ("99", 2.3263), ("99.9", 3.0902)] {
        let value = found["percentiles"][name].as_f64().unwrap();
        assert!((value / (4e6 * (1.0 + 0.01 * z)) - 1.0).abs() < 0.003, "p{name} is {value}");
        let ends = [0, 1].map(|end| found["intervals"][name][end].as_f64().unwrap());
        assert!(ends[0] <= value && value <= ends[1], "p{name}: {ends:?}");
    }
    for name in ["mean", "median"] {
        let ends = [0, 1].map(|end| found["intervals"][name][end].as_f64().unwrap());
        assert!(
            ends[0] < 4e6 * 1.0005 && ends[1] > 4e6 * 0.9995 && ends[1] - ends[0] < 4e6 * 0.002,
            "{name}: {ends:?}"
        );
    }
    let stopping = &found["earlyStopping"];
    assert_eq!((&stopping["percentile"], &stopping["met"]), (&json!(0.9), &json!(true)));
    // LoadGen's rule for n = 7000 at p90; by SciPy: the largest t with binom.cdf(t, 7000, 0.1) < 0.01 is 641.
    assert_eq!(stopping["discarded"], 640);
    assert!(stopping["estimate"].as_u64() >= found["percentiles"]["90"].as_u64());
    // The unit at the end of the column's name does as well, and the only column of numbers need not be named.
    let text =
        csv(7000, 1, |_| 1.0).lines().map(|line| line.split_once(',').unwrap().1.to_owned() + "\n").collect::<String>();
    assert_eq!(analysed("run.csv", &text, &[])["percentiles"], found["percentiles"]);
    let lines: String =
        text.lines().skip(1).map(|latency| format!("{{\"id\":\"x\",\"time_ms\":{latency}}}\n")).collect();
    assert_eq!(analysed("run.jsonl", &lines, &[])["percentiles"], found["percentiles"]);
}

#[test]
fn percentiles_need_their_queries() {
    for (n, p99, p999) in [(661, false, false), (662, true, false), (6635, true, false), (6636, true, true)] {
        let found = analysed("run.csv", &csv(n, 2, |_| 1.0), &["--column", "latency_ms"]);
        assert_eq!(found["percentiles"]["99"].is_u64(), p99, "{n}");
        assert_eq!(found["percentiles"]["99.9"].is_u64(), p999, "{n}");
        let reason =
            |name: &str| found["unavailable"][format!("percentiles.{name}")].as_str().unwrap_or_default().to_owned();
        assert_eq!(reason("99").contains("662"), !p99, "{n}");
        assert_eq!(reason("99.9").contains("6636"), !p999, "{n}");
    }
}

#[test]
fn the_99th_percentile_of_100_queries_says_how_many_are_needed() {
    let found = analysed("run.csv", &csv(100, 3, |_| 1.0), &["--column", "latency_ms", "--percentile", "0.99"]);
    assert_eq!(
        found["earlyStopping"],
        json!({
            "percentile": 0.99, "discarded": null, "estimate": null, "met": false, "minimumN": 662,
        })
    );
    assert_eq!((&found["validity"], &found["reasons"]), (&json!("Inconclusive"), &json!(["TooFewSamples"])));
    assert!(found["recommendations"][0].as_str().unwrap().contains("662"));
    assert!(found["unavailable"]["earlyStopping.estimate"].as_str().unwrap().contains("662"));
    let few = analysed("run.csv", &csv(10, 3, |_| 1.0), &["--column", "latency_ms"]);
    assert_eq!((&few["intervals"]["mean"], &few["windowVariation"]), (&Value::Null, &Value::Null));
    let arguments = ["early-stopping", "--percentile", "0.99", "--n", "100"];
    fail(&arguments, BAD_INPUT, "TooFewQueries", "at least 662");
}

#[test]
fn series_that_are_not_steady_get_their_reason() {
    let named = |content: &str| {
        let found = analysed("run.csv", content, &["--column", "latency_ms"]);
        assert_eq!(found["validity"], "Inconclusive", "{found}");
        assert_eq!(found["reasons"].as_array().unwrap().len(), found["recommendations"].as_array().unwrap().len());
        assert!(found["percentiles"]["90"].is_u64(), "the data is kept");
        found["reasons"].clone()
    };
    assert_eq!(named(&csv(3000, 4, |t| 1.0 + 0.1 * t)), json!(["Ramp"]));
    assert_eq!(named(&csv(3000, 5, |t| if t < 0.6 { 1.0 } else { 1.08 })), json!(["Step"]));
    assert_eq!(named(&csv(3000, 6, |t| 1.0 + 0.05 * (t * 25.0).sin())), json!(["Drifting"]));
    let bimodal = |t: f64| if (t * 3000.0).round() as u64 * 7919 % 10 < 3 { 1.15 } else { 1.0 };
    assert_eq!(named(&csv(3000, 7, bimodal)), json!(["Bimodal"]));
}

fn entry(key: &str, value: &Value) -> String {
    let entry = json!({
        "key": key, "value": value, "time_ms": 12.5, "namespace": "mlperf::logging", "event_type": "POINT_IN_TIME",
        "metadata": {"is_error": false, "is_warning": false, "file": "results.cc", "line_no": 1, "pid": 2, "tid": 3},
    });
    format!(":::MLLOG {entry}\n")
}

/// A detail log of a run.
fn detail(scenario: &str, queries: u64, more: &[(&str, Value)]) -> String {
    let mut out = entry("loadgen_version", &json!("5.0 @ 0"));
    out += &entry("effective_scenario", &json!(scenario));
    out += &entry("result_query_count", &json!(queries));
    for (key, value) in more {
        out += &entry(key, value);
    }
    out
}

/// A SingleStream run of as many queries as one that was published.
fn single_stream() -> String {
    let said = " * Processed at least 64 queries (944092).  * Would discard 93730 highest latency queries.  * Early stopping 90th \
                percentile estimate: 640123  * Early stopping 99th percentile estimate: 655321";
    detail(
        "SingleStream",
        944_092,
        &[
            ("effective_target_latency_percentile", json!(0.9)),
            ("result_validity", json!("VALID")),
            ("early_stopping_met", json!(true)),
            ("early_stopping_result", json!(said)),
            ("early_stopping_latency_ss", json!(640_123)),
            ("early_stopping_latency_ms", json!(655_321)),
            ("result_min_latency_ns", json!(590_000)),
            ("result_max_latency_ns", json!(1_990_000)),
            ("result_mean_latency_ns", json!(631_000)),
            ("result_50.00_percentile_latency_ns", json!(630_000)),
            ("result_90.00_percentile_latency_ns", json!(640_100)),
            ("result_99.00_percentile_latency_ns", json!(655_300)),
            ("result_99.90_percentile_latency_ns", json!(700_000)),
        ],
    )
}

#[test]
fn loadgens_detail_log_is_judged_by_its_own_rule() {
    let found = analysed("mlperf_log_detail.txt", &single_stream(), &[]);
    assert_eq!((&found["n"], &found["scenario"]), (&json!(944_092), &json!("SingleStream")));
    assert_eq!(
        found["earlyStopping"],
        json!({
            "percentile": 0.9, "discarded": 93_730, "estimate": 640_123, "met": true, "minimumN": 64,
        })
    );
    assert_eq!((&found["percentiles"]["99.9"], &found["percentiles"]["97"]), (&json!(700_000), &Value::Null));
    assert_eq!(
        (&found["mean"], &found["minimum"], &found["maximum"]),
        (&json!(631_000), &json!(590_000), &json!(1_990_000))
    );
    // A log without latencies cannot show that the run was steady.
    assert_eq!((&found["validity"], &found["reasons"]), (&json!("Inconclusive"), &json!(["NoLatencies"])));
    assert!(found["unavailable"]["intervals.90"].as_str().unwrap().contains("NoLatencies"));
    // The estimate of the percentile that was asked for.
    let other = analysed("mlperf_log_detail.txt", &single_stream(), &["--percentile", "0.99"]);
    assert_eq!(other["earlyStopping"]["estimate"], 655_321);
    assert_eq!(other["reasons"], json!(["NoLatencies"]));
    let forged = single_stream().replace("discard 93730", "discard 93731");
    let reasons = analysed("mlperf_log_detail.txt", &forged, &[])["reasons"].clone();
    assert_eq!(reasons, json!(["EarlyStoppingDiffers", "NoLatencies"]));
}

#[test]
fn other_scenarios_have_other_keys() {
    let multi = detail(
        "MultiStream",
        700,
        &[
            ("effective_target_latency_percentile", json!(0.99)),
            ("result_validity", json!("VALID")),
            ("result_99.00_percentile_per_query_latency_ns", json!(9_000_000)),
            ("result_99.90_percentile_per_query_latency_ns", json!(9_900_000)),
            ("result_99.00_percentile_latency_ns", json!(8_000_000)),
            ("result_mean_query_latency_ns", json!(7_000_000)),
            ("early_stopping_latency_ms", json!(9_100_000)),
        ],
    );
    let found = analysed("mlperf_log_detail.txt", &multi, &[]);
    assert_eq!((&found["percentiles"]["99"], &found["mean"]), (&json!(9_000_000), &json!(7_000_000)));
    assert_eq!(found["percentiles"]["99.9"], Value::Null);
    assert_eq!(
        found["earlyStopping"],
        json!({
            "percentile": 0.99, "discarded": 0, "estimate": 9_100_000, "met": true, "minimumN": 662,
        })
    );
    let server = |over: u64| {
        let log = detail(
            "Server",
            10_000,
            &[
                ("result_validity", json!(if over > 70 { "INVALID" } else { "VALID" })),
                ("result_invalid_reason", json!("Reduce target QPS to improve latency.")),
                ("result_overlatency_query_count", json!(over)),
                ("result_99.00_percentile_latency_ns", json!(14_000_000)),
            ],
        );
        analysed("mlperf_log_detail.txt", &log, &[])
    };
    // By SciPy: binom.cdf(77, 10000, 0.01) = 0.0097, binom.cdf(78, …) = 0.0129.
    assert_eq!(
        (&server(77)["earlyStopping"]["met"], &server(78)["earlyStopping"]["met"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(server(60)["reasons"], json!(["NoLatencies"]));
    let bad = server(300);
    assert_eq!(bad["validity"], "Invalid");
    assert_eq!(bad["reasons"], json!(["BoundNotKept", "LoadGenInvalid", "NoLatencies"]));
    assert!(bad["recommendations"][1].as_str().unwrap().contains("Reduce target QPS"));
}

#[test]
fn loadgens_summary_is_read() {
    let summary = "================\nMLPerf Results Summary\n================\nSUT name : PySUT\nScenario : SingleStream\n\
        Mode     : PerformanceOnly\n90.0th percentile latency (ns) : 640100\nResult is : INVALID\n  Min duration satisfied : NO\n  \
        Min queries satisfied : Yes\n  Early stopping satisfied: Yes\nRecommendations:\n * Decrease the expected latency so the \
        loadgen pre-generates more queries.\nEarly Stopping Result:\n * Processed at least 64 queries (550312).\n * Would \
        discard 54512 highest latency queries.\n * Early stopping 90th percentile estimate: 640123\n * Early stopping 99th \
        percentile estimate: 655321\n\n================\nAdditional Stats\n================\nQPS w/ loadgen overhead : 1580.0\n\n\
        Min latency (ns)                : 590000\nMax latency (ns)                : 1990000\nMean latency (ns)               : 631000\n\
        50.00 percentile latency (ns)   : 630000\n99.90 percentile latency (ns)   : 700000\n\n================\n\
        Test Parameters Used\n================\nsamples_per_query : 1\n";
    let found = analysed("mlperf_log_summary.txt", summary, &[]);
    assert_eq!((&found["n"], &found["mean"]), (&json!(550_312), &json!(631_000)));
    assert_eq!(
        found["earlyStopping"],
        json!({
            "percentile": 0.9, "discarded": 54_512, "estimate": 640_123, "met": true, "minimumN": 64,
        })
    );
    assert_eq!((&found["percentiles"]["50"], &found["percentiles"]["99.9"]), (&json!(630_000), &json!(700_000)));
    assert_eq!(found["reasons"], json!(["LoadGenInvalid", "NoLatencies"]));
    assert!(found["recommendations"][0].as_str().unwrap().contains("Decrease the expected latency"));
    refused("mlperf_log_summary.txt", &summary[..summary.len() / 2], &[], "seems cut off");
}

#[test]
fn loadgens_accuracy_log_counts_and_its_trace_has_latencies() {
    let responses: Vec<String> =
        (0..700).map(|n| format!("{{ \"seq_id\" : {n}, \"qsl_idx\" : {n}, \"data\" : \"0000803F\" }}")).collect();
    let log = format!("[\n{}\n]\n", responses.join(",\n"));
    let found = analysed("mlperf_log_accuracy.json", &log, &[]);
    assert_eq!((&found["n"], &found["validity"]), (&json!(700), &json!("Inconclusive")));
    assert_eq!((&found["percentiles"]["90"], &found["earlyStopping"]["estimate"]), (&Value::Null, &Value::Null));
    let wanted = edgeyard_measure::early_stopping(0.9, 700).unwrap().discarded;
    assert_eq!(found["earlyStopping"]["discarded"], wanted);
    refused("mlperf_log_accuracy.json", &log[..log.len() / 2], &[], "seems cut off");

    let mut trace = "{\"traceEvents\":[\n".to_owned();
    for n in 0..100 {
        let (start, duration) = (n as f64 * 1000.0, 250.125 + f64::from(n % 7));
        let sample = |phase: &str, time: f64| {
            format!(
                "{{\"name\":\"Sample\",\"cat\":\"default\",\"ph\":\"{phase}\",\"pid\":1,\"id\":{n},\"ts\":{time}}},\n"
            )
        };
        trace += &sample("b", start);
        trace += &sample("e", start + duration);
        trace += "{\"name\":\"IssueQuery\",\"ph\":\"X\",\"pid\":1,\"tid\":2,\"ts\":1.5,\"dur\":3.25,\"args\":{}},\n";
    }
    trace += "{\"name\":\"LastTrace\"}\n],\n\"displayTimeUnit\":\"ns\",\"otherData\":{}}\n";
    let found = analysed("mlperf_log_trace.json", &trace, &[]);
    assert_eq!((&found["n"], &found["minimum"], &found["maximum"]), (&json!(100), &json!(250_125), &json!(256_125)));
    refused("mlperf_log_trace.json", &trace[..trace.len() / 2], &[], "seems cut off");
}

#[test]
fn logs_that_are_cut_in_half_are_told_with_their_line() {
    let log = single_stream();
    refused("mlperf_log_detail.txt", &log[..log.len() / 2], &[], "breaks off: the file seems cut off here");
    // Between two lines: the result is missing.
    let lines: Vec<&str> = log.lines().collect();
    refused("mlperf_log_detail.txt", &lines[..2].join("\n"), &[], "its last line, 2: the file seems cut off");
    let found = analysed("mlperf_log_detail.txt", &lines[..6].join("\n"), &[]);
    assert_eq!(found["reasons"], json!(["LogIncomplete", "NoLatencies"]));
    let text = csv(100, 8, |_| 1.0);
    let cut = &text[..text.rfind(',').unwrap()];
    refused("run.csv", cut, &["--column", "latency_ms"], "line 101 has 1 of 2 columns: the file seems cut off here");
}

#[test]
fn what_is_no_latency_is_refused() {
    refused("run.csv", "", &[], "it is empty");
    refused("run.csv", "a,latency_ms\n1,2\n", &["--column", "ms"], "it has a, latency_ms");
    refused("run.csv", "ms\n1\n-3\n", &[], "line 3: -3 is negative");
    refused("run.csv", "ms\n1\nNaN\n", &[], "line 3: NaN is not a number");
    refused("run.csv", "ms\n1e12\n", &["--unit", "s"], "check --unit");
    refused("mlperf_log_detail.txt", &single_stream(), &["--unit", "ms"], "is in nanoseconds");
    fail(&["analyse", "/nowhere/run.csv"], BAD_INPUT, "FileUnreadable", "/nowhere/run.csv");
    let written = written("run.csv", "1\n");
    let output = support::output(&["analyse", text(&written.path), "--percentile", "90"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("such as 0.9"));
}

#[test]
fn early_stopping_discards_what_published_logs_say() {
    for (n, discarded) in [(944_092, 93_730), (550_312, 54_512)] {
        let text = n.to_string();
        let found = succeed(&["early-stopping", "--percentile", "0.9", "--n", &text, "--output", "json"]);
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found, json!({"percentile": 0.9, "n": n, "discarded": discarded, "minimumN": 64}));
        assert!(succeed(&["early-stopping", "--percentile", "0.9", "--n", &text]).contains(&discarded.to_string()));
    }
    for (percentile, minimum) in [("0.9", 64), ("0.95", 130), ("0.97", 219), ("0.99", 662), ("0.999", 6636)] {
        let n = |n: u64| n.to_string();
        succeed(&["early-stopping", "--percentile", percentile, "--n", &n(minimum)]);
        let few = n(minimum - 1);
        fail(&["early-stopping", "--percentile", percentile, "--n", &few], BAD_INPUT, "TooFewQueries", &n(minimum));
    }
}

#[test]
fn people_get_a_table() {
    let written = written("run.csv", &csv(800, 9, |t| 1.0 + 0.1 * t));
    let table = succeed(&["analyse", text(&written.path), "--column", "latency_ms"]);
    for wanted in ["latencies", "800", "mean", "p50", "p99.9", "at least 6636", "Inconclusive", "Ramp:"] {
        assert!(table.contains(wanted), "{wanted:?} is not in\n{table}");
    }
}
