//! MLPerf LoadGen's files. The detail log (lines of `:::MLLOG` and a JSON object with `key` and `value`) and the summary hold a
//! run's percentiles, not its latencies; the accuracy log holds its responses; only the trace (`mlperf_log_trace.json`) holds
//! when each sample was issued and answered. Keys and wording are those of LoadGen's `results.cc` and `logging.h`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::source::{Series, broken, lines};

/// The kind of file that a trace is, for people.
pub const TRACE: &str = "LoadGen trace";

/// What LoadGen says about a run. Latencies are in nanoseconds.
#[derive(Debug, Default, PartialEq)]
pub struct Summary {
    /// The kind of file, for people.
    pub format: &'static str,
    /// The scenario, by LoadGen's name.
    pub scenario: Option<String>,
    /// The percentile that the run is about, 0 to 1.
    pub percentile: Option<f64>,
    /// Queries.
    pub queries: Option<u64>,
    /// Queries above the bound, of a Server run.
    pub over: Option<u64>,
    /// Percentiles by name, such as `90` and `99.9`; those of queries for MultiStream.
    pub percentiles: BTreeMap<String, u64>,
    /// The mean latency.
    pub mean: Option<u64>,
    /// The lowest latency.
    pub minimum: Option<u64>,
    /// The highest latency.
    pub maximum: Option<u64>,
    /// What early stopping estimates, by the percentile's name.
    pub estimates: BTreeMap<String, u64>,
    /// How many queries LoadGen said that early stopping would discard.
    pub discarded: Option<u64>,
    /// Whether LoadGen calls the run valid; `None` where it does not say.
    pub valid: Option<bool>,
    /// Why not, in LoadGen's words.
    pub why: Vec<String>,
    /// Errors that LoadGen logged.
    pub errors: Vec<String>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    value: Value,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    is_error: bool,
}

impl Summary {
    /// An accuracy log: it tells how many samples were answered, and nothing about time.
    pub fn of_responses(queries: u64) -> Self {
        Self { format: "LoadGen accuracy log", queries: Some(queries), ..Self::default() }
    }

    fn multi_stream(&self) -> bool {
        self.scenario.as_deref() == Some("MultiStream")
    }
}

/// Reads `mlperf_log_detail.txt`.
///
/// # Errors
/// With the line where it is cut off or malformed, or what is missing at its end.
pub fn detail(text: &str) -> Result<Summary, String> {
    let mut values = BTreeMap::new();
    let mut errors = Vec::new();
    let mut last = 0;
    for (at, line) in lines(text) {
        last = at;
        let Some(json) = line.strip_prefix(":::MLLOG") else {
            let cut = if ":::MLLOG".starts_with(line) { ": the file seems cut off here" } else { "" };
            return Err(format!("line {at} does not begin with :::MLLOG as LoadGen's lines do{cut}"));
        };
        let Entry { key, value, metadata } =
            serde_json::from_str(json.trim()).map_err(|error| broken(at, line, &error))?;
        if metadata.is_error {
            errors.push(format!("{key}: {}", words(&value)));
        }
        values.insert(key, value);
    }
    let number = |key: &str| values.get(key).and_then(whole);
    let text_of = |key: &str| values.get(key).map(words);
    if !values.contains_key("result_validity") && number("result_query_count").is_none() {
        return Err(format!(
            "it has no result (result_validity, result_query_count) up to its last line, {last}: the file seems cut off, or the \
             run did not end or measured accuracy only"
        ));
    }
    let mut summary = Summary {
        format: "LoadGen detail log",
        scenario: text_of("effective_scenario").or_else(|| text_of("requested_scenario")),
        percentile: values.get("effective_target_latency_percentile").and_then(Value::as_f64),
        queries: number("result_query_count"),
        over: number("result_overlatency_query_count"),
        valid: text_of("result_validity").map(|word| word == "VALID"),
        why: text_of("result_invalid_reason").map(|why| why.trim().to_owned()).into_iter().collect(),
        errors,
        ..Summary::default()
    };
    let of_what = if summary.multi_stream() { "query_latency_ns" } else { "latency_ns" };
    let per = if summary.multi_stream() { "per_query_latency_ns" } else { "latency_ns" };
    summary.mean = number(&format!("result_mean_{of_what}"));
    summary.minimum = number(&format!("result_min_{of_what}"));
    summary.maximum = number(&format!("result_max_{of_what}"));
    for (key, value) in &values {
        if let Some(percent) =
            key.strip_prefix("result_").and_then(|key| key.strip_suffix(&format!("_percentile_{per}")))
            && let (Some(name), Some(value)) = (percent_name(percent), whole(value))
        {
            summary.percentiles.insert(name, value);
        }
    }
    // LoadGen estimates the 99th percentile of a SingleStream run as well, and writes 0 for what it did not estimate.
    let single = summary.percentile.unwrap_or(0.9);
    for (key, percentile) in [("early_stopping_latency_ss", single), ("early_stopping_latency_ms", 0.99)] {
        if let Some(estimate) = number(key).filter(|estimate| *estimate > 0) {
            summary.estimates.insert(super::name(percentile), estimate);
        }
    }
    if let Some(said) = text_of("early_stopping_result") {
        stopping(&mut summary, &said);
    }
    Ok(summary)
}

/// Reads `mlperf_log_summary.txt`.
///
/// # Errors
/// When it does not come to its end.
pub fn summary(text: &str) -> Result<Summary, String> {
    let mut found = Summary { format: "LoadGen summary", ..Summary::default() };
    let (mut last, mut has_end, mut recommends) = (0, false, false);
    for (at, line) in lines(text) {
        last = at;
        has_end |= line.starts_with("Test Parameters Used");
        if line == "Recommendations:" || line == "Early Stopping Result:" {
            recommends = line == "Recommendations:";
        } else if let Some(advice) = line.strip_prefix("* ").filter(|_| recommends) {
            found.why.push(advice.to_owned());
        } else if line.starts_with('*') {
            stopping(&mut found, line);
        }
        let Some((key, value)) = line.split_once(':').map(|(key, value)| (key.trim(), value.trim())) else { continue };
        let number = value.parse().ok();
        match key {
            "Scenario" => found.scenario = Some(value.to_owned()),
            "Result is" => found.valid = Some(value == "VALID"),
            "Min latency (ns)" => found.minimum = number,
            "Max latency (ns)" => found.maximum = number,
            "Mean latency (ns)" => found.mean = number,
            // SingleStream and MultiStream: what the run is about, as "90.0th percentile latency (ns)".
            _ => {
                let of = |end: &str| key.strip_suffix(end).and_then(percent_name).zip(number);
                if let Some((name, _)) = of("th percentile latency (ns)") {
                    found.percentile = name.parse::<f64>().ok().map(|percent| percent / 100.0);
                } else if let Some((name, value)) = of(" percentile latency (ns)") {
                    found.percentiles.insert(name, value);
                }
            }
        }
    }
    if !has_end || found.valid.is_none() {
        return Err(format!("it ends at line {last} before \"Test Parameters Used\": the file seems cut off"));
    }
    Ok(found)
}

/// What LoadGen says of early stopping, in its words: `Processed at least 64 queries (944092)`, `Only processed 100 queries`,
/// `Would discard 93730 highest latency queries`, `Early stopping 90th percentile estimate: 123`.
fn stopping(summary: &mut Summary, said: &str) {
    let after = |words: &str| -> Option<&str> { said.split_once(words).map(|(_, rest)| rest.trim_start()) };
    let leading = |text: &str| -> Option<u64> {
        let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    if let Some(queries) = after("Only processed").and_then(leading) {
        summary.queries.get_or_insert(queries);
    }
    if let Some(queries) = after("Processed at least").and_then(|rest| leading(rest.split_once('(')?.1)) {
        summary.queries.get_or_insert(queries);
    }
    if let Some(discarded) = after("Would discard").and_then(leading) {
        summary.discarded = Some(discarded);
    }
    for part in said.split("Early stopping ").skip(1) {
        if let Some((percent, rest)) = part.split_once("th percentile estimate:")
            && let (Some(name), Some(estimate)) = (percent_name(percent), leading(rest.trim_start()))
        {
            summary.estimates.entry(name).or_insert(estimate);
        }
    }
}

/// Reads `mlperf_log_trace.json`: of each event pair named `Sample`, the time from the beginning to the end. LoadGen's times
/// are in microseconds, with fractions; here they become nanoseconds.
///
/// # Errors
/// With the line where it is cut off, or if samples did not end.
pub fn trace(text: &str) -> Result<Series, String> {
    #[derive(Deserialize)]
    struct Trace {
        #[serde(rename = "traceEvents")]
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        name: String,
        #[serde(default)]
        ph: String,
        #[serde(default)]
        id: Option<u64>,
        #[serde(default)]
        ts: Option<f64>,
    }
    let Trace { events } = serde_json::from_str(text).map_err(|error| {
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        broken(error.line(), line, &error)
    })?;
    let mut begun = BTreeMap::new();
    let mut latencies: Vec<(f64, f64)> = Vec::new();
    for event in events.into_iter().filter(|event| event.name == "Sample") {
        let (Some(id), Some(time)) = (event.id, event.ts) else { continue };
        match event.ph.as_str() {
            "b" => drop(begun.insert(id, time)),
            "e" => {
                let start = begun.remove(&id).ok_or_else(|| format!("sample {id} ends without having begun"))?;
                if time < start {
                    return Err(format!("sample {id} ends before it begins"));
                }
                latencies.push((start, ((time - start) * 1000.0).round()));
            }
            _ => {}
        }
    }
    if let Some(id) = begun.keys().next() {
        return Err(format!("sample {id} does not end: the file seems cut off"));
    }
    // In the order in which they were issued.
    latencies.sort_by(|a, b| a.0.total_cmp(&b.0));
    let values = latencies.into_iter().map(|(_, latency)| latency).collect();
    Ok(Series { format: TRACE, column: None, values })
}

/// A percentile's name as records have it: `99.90` is `99.9`.
fn percent_name(percent: &str) -> Option<String> {
    let percent: f64 = percent.trim().parse().ok()?;
    (percent > 0.0 && percent < 100.0).then(|| super::name(percent / 100.0))
}

fn whole(value: &Value) -> Option<u64> {
    // Some versions write numbers as strings.
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
