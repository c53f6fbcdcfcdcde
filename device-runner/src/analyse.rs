//! `analyse` and `early-stopping`: the statistics of records, and their validity, for latencies from elsewhere. All latencies
//! that come out are whole nanoseconds, whatever the unit of the file.

mod account;
mod loadgen;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use edgeyard_measure::{bootstrap, early_stopping, interval, minimum_queries, order_statistic, pick, scenario, series};
use edgeyard_record::Validity;
use serde::Serialize;

use crate::cli::{self, Output};
use crate::error::Failure;
use crate::{table, validity};
use source::{Series, Source};

/// Percentiles that are told, beside the one asked for.
const PERCENTILES: [f64; 6] = [0.5, 0.9, 0.95, 0.97, 0.99, 0.999];
/// Fixes the resampling, so that the same file gives the same intervals.
const SEED: u64 = 42;
/// Windows that a series is cut into, to tell how much their medians differ.
const WINDOWS: usize = 30;
/// For more queries floating point cannot tell one from the next.
const MOST_QUERIES: u64 = 1_000_000_000_000;

/// Judge latencies from elsewhere.
#[derive(clap::Args, Debug)]
pub struct Analyse {
    /// A CSV with a header, JSON lines, a JSON array, one number a line, or a log of LoadGen (detail, summary, accuracy, trace).
    /// A row is a query; rows are in the order of time.
    pub file: PathBuf,
    /// The column or member that holds latencies; may be absent if there is only one of numbers.
    #[arg(long)]
    pub column: Option<String>,
    /// The latencies' unit in the file; by default that at the end of the column's name, as in latency_ms, else ns.
    #[arg(long, value_enum)]
    pub unit: Option<Unit>,
    /// How queries were issued; decides which percentile counts. By default what LoadGen's log says, else SingleStream.
    #[arg(long, value_enum, ignore_case = true)]
    pub scenario: Option<Scenario>,
    /// The percentile that counts, 0 to 1; by default the scenario's.
    #[arg(long, value_parser = percentile)]
    pub percentile: Option<f64>,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Tell how many queries early stopping discards.
#[derive(clap::Args, Debug)]
pub struct EarlyStoppingArguments {
    /// The percentile, 0 to 1.
    #[arg(long, value_parser = percentile)]
    pub percentile: f64,
    /// Queries.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MOST_QUERIES))]
    pub n: u64,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Units of time.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

impl Unit {
    const fn nanoseconds(self) -> f64 {
        match self {
            Self::Ns => 1.0,
            Self::Us => 1e3,
            Self::Ms => 1e6,
            Self::S => 1e9,
        }
    }

    /// The unit that a column's name ends with, such as `latency_ms` or `latency (ms)`.
    fn of_name(name: &str) -> Option<Self> {
        let word = name.trim_end_matches([')', ']']).rsplit(['_', ' ', '(', '[', '.', '-']).next()?;
        Self::from_str(word, true).ok()
    }
}

/// How queries were issued.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum Scenario {
    /// One after the other: the 90th percentile counts.
    SingleStream,
    /// Eight samples at once: the 99th percentile of the queries counts.
    MultiStream,
    /// As they come: the 99th percentile counts.
    Server,
    /// All at once: the throughput counts, no percentile.
    Offline,
    /// In five windows: the median of their rates counts, no percentile.
    Tiny,
}

impl Scenario {
    fn percentile(self) -> Option<f64> {
        match self {
            Self::SingleStream => scenario::single_stream(None).percentile,
            Self::MultiStream => scenario::multi_stream(None).percentile,
            Self::Server => scenario::server(None).percentile,
            Self::Offline => scenario::offline(0).percentile,
            Self::Tiny => scenario::tiny().percentile,
        }
    }
}

fn percentile(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Closer to an end no number of queries would do.
        Ok(p) if (1e-9..=1.0 - 1e-9).contains(&p) => Ok(p),
        _ => Err("give a share between 0 and 1, such as 0.9".into()),
    }
}

/// A percentile's name in records: 0.999 is `99.9`.
fn name(percentile: f64) -> String {
    format!("{}", (percentile * 1e9).round() / 1e7)
}

/// What is told. Latencies are in nanoseconds; what is null has its reason in `unavailable`, by its path.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Analysis {
    n: Option<u64>,
    /// Of all latencies here.
    unit: &'static str,
    /// The kind of file.
    format: &'static str,
    scenario: Option<String>,
    percentile_method: &'static str,
    /// By name, such as `99.9`.
    percentiles: BTreeMap<String, Option<u64>>,
    early_stopping: Stopping,
    /// Lower and upper end, at 95 %: of percentiles by order statistics, of `mean` and `median` by block bootstrap.
    intervals: BTreeMap<String, Option<[Option<u64>; 2]>>,
    mean: Option<u64>,
    minimum: Option<u64>,
    maximum: Option<u64>,
    /// Standard deviation over mean of the medians of 30 windows.
    window_variation: Option<f64>,
    /// Of neighbours.
    autocorrelation: Option<f64>,
    validity: String,
    reasons: Vec<String>,
    recommendations: Vec<String>,
    unavailable: BTreeMap<String, String>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct Stopping {
    percentile: Option<f64>,
    discarded: Option<u64>,
    estimate: Option<u64>,
    met: Option<bool>,
    minimum_n: Option<u64>,
}

/// `early-stopping`.
///
/// # Errors
/// `TooFewQueries`, with the number needed.
pub fn execute_early_stopping(arguments: &EarlyStoppingArguments) -> Result<(), Failure> {
    let EarlyStoppingArguments { percentile, n, output } = arguments;
    let found =
        early_stopping(*percentile, *n).map_err(|error| Failure::bad_input("TooFewQueries", error.to_string()))?;
    match output {
        Output::Json => {
            let minimum = minimum_queries(*percentile);
            let answer = serde_json::json!({
                "percentile": percentile, "n": n, "discarded": found.discarded, "minimumN": minimum,
            });
            cli::print(&answer.to_string());
        }
        Output::Table => cli::print(&format!("{} of {n} queries are discarded, the slowest first", found.discarded)),
    }
    Ok(())
}

/// `analyse`.
///
/// # Errors
/// When the file holds no latencies, or something else beside them.
pub fn execute(arguments: &Analyse) -> Result<(), Failure> {
    let Analyse { file, column, unit, scenario, percentile, output } = arguments;
    let about = |why: String| Failure::bad_input("NotLatencies", format!("{}: {why}", file.display()));
    let text = String::from_utf8(fs_err::read(file)?).map_err(|_| about("it is not text".into()))?;
    let analysis = match source::read(&text, column.as_deref()).map_err(about)? {
        Source::Series(series) => {
            let durations = nanoseconds(&series, *unit).map_err(about)?;
            let scenario = scenario.unwrap_or(Scenario::SingleStream);
            of_series(&durations, series.format, scenario, percentile.or(scenario.percentile()))
        }
        Source::Summary(summary) => {
            if column.is_some() || unit.is_some_and(|unit| unit != Unit::Ns) {
                return Err(about(format!("it is a {}: it has no columns, and is in nanoseconds", summary.format)));
            }
            account::of_summary(&summary, *scenario, *percentile)
        }
    };
    match output {
        Output::Json => cli::print(&serde_json::to_string_pretty(&analysis).unwrap_or_default()),
        Output::Table => print(&analysis),
    }
    Ok(())
}

fn nanoseconds(series: &Series, unit: Option<Unit>) -> Result<Vec<u64>, String> {
    // A trace's are nanoseconds already, whatever was asked for.
    let named = series.column.as_deref().and_then(Unit::of_name);
    let unit = if series.format == loadgen::TRACE { Unit::Ns } else { unit.or(named).unwrap_or(Unit::Ns) };
    let convert = |(index, value): (usize, &f64)| {
        let nanoseconds = (value * unit.nanoseconds()).round();
        // A year; more is a wrong unit, and sums would overflow.
        if nanoseconds > 3.2e16 {
            return Err(format!("latency {} is {value}, more than a year: check --unit", index + 1));
        }
        Ok(nanoseconds as u64)
    };
    series.values.iter().enumerate().map(convert).collect()
}

/// The percentiles to tell, by name and in order.
fn wanted(percentile: Option<f64>) -> BTreeMap<String, f64> {
    PERCENTILES.into_iter().chain(percentile).map(|p| (name(p), p)).collect()
}

fn too_few(n: u64, p: f64) -> Option<String> {
    // The median needs no tail; the others are told from as many samples as LoadGen asks for.
    let needed = if p > 0.5 { minimum_queries(p) } else { 1 };
    (n < needed).then(|| format!("TooFewSamples: {n} queries, and p{} needs at least {needed}", name(p)))
}

/// What early stopping says of `n` queries, all but the estimate.
fn stopping(percentile: Option<f64>, n: Option<u64>, unavailable: &mut BTreeMap<String, String>) -> Stopping {
    let mut why = |fields: &[&str], reason: String| {
        unavailable.extend(fields.iter().map(|field| (format!("earlyStopping.{field}"), reason.clone())));
    };
    let Some(p) = percentile else {
        let reason = "NoPercentile: in this scenario throughput counts; give --percentile".to_owned();
        why(&["percentile", "discarded", "estimate", "met", "minimumN"], reason);
        return Stopping { percentile: None, discarded: None, estimate: None, met: None, minimum_n: None };
    };
    let minimum_n = Some(minimum_queries(p));
    let Some(n) = n else {
        why(&["discarded", "met"], "UnknownCount: the file does not say how many queries there were".into());
        return Stopping { percentile, discarded: None, estimate: None, met: None, minimum_n };
    };
    let found = early_stopping(p, n);
    if let Err(error) = &found {
        why(&["discarded", "estimate"], format!("TooFewSamples: {error}"));
    }
    let discarded = found.ok().map(|found| found.discarded);
    Stopping { percentile, discarded, estimate: None, met: Some(discarded.is_some()), minimum_n }
}

fn of_series(durations: &[u64], format: &'static str, scenario: Scenario, percentile: Option<f64>) -> Analysis {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let n = sorted.len();
    let mut unavailable = BTreeMap::new();
    let (mut percentiles, mut intervals) = (BTreeMap::new(), BTreeMap::new());
    for (name, p) in wanted(percentile) {
        let reason = too_few(n as u64, p);
        let value = pick(&sorted, p).filter(|_| reason.is_none());
        if let Some(reason) = reason {
            unavailable.insert(format!("intervals.{name}"), reason.clone());
            unavailable.insert(format!("percentiles.{name}"), reason);
        }
        let mut ends = || {
            let (lower, upper) = order_statistic(n, p, interval::CONFIDENCE);
            if lower.is_none() || upper.is_none() {
                let reason = format!("TooFewSamples: {n} queries have no such end of a 95 % interval");
                unavailable.insert(format!("intervals.{name}"), reason);
            }
            [lower, upper].map(|place| place.map(|place| sorted[place]))
        };
        intervals.insert(name.clone(), value.map(|_| ()).map(|()| ends()));
        percentiles.insert(name, value);
    }
    let as_floats: Vec<f64> = durations.iter().map(|duration| *duration as f64).collect();
    for (name, found) in [
        ("mean", bootstrap::mean(&as_floats, interval::CONFIDENCE, SEED)),
        ("median", bootstrap::median(&as_floats, interval::CONFIDENCE, SEED)),
    ] {
        if found.is_none() {
            let reason = format!("TooFewSamples: resampling needs at least {}", bootstrap::LEAST_SAMPLES);
            unavailable.insert(format!("intervals.{name}"), reason);
        }
        intervals
            .insert(name.to_owned(), found.map(|found| [found.lower, found.upper].map(|x| Some(x.round() as u64))));
    }
    let mut early_stopping = stopping(percentile, Some(n as u64), &mut unavailable);
    early_stopping.estimate =
        early_stopping.discarded.and_then(|discarded| sorted.get(n - 1 - discarded as usize).copied());
    let window_variation = (n >= 2 * WINDOWS).then(|| {
        let medians: Vec<f64> = as_floats.chunks_exact(n / WINDOWS).take(WINDOWS).map(series::median).collect();
        series::coefficient_of_variation(&medians)
    });
    if window_variation.is_none() {
        unavailable.insert("windowVariation".into(), format!("TooFewSamples: {WINDOWS} windows need two each"));
    }
    let autocorrelation = (n > 1).then(|| series::autocorrelation(&as_floats, 1));
    if autocorrelation.is_none() {
        unavailable.insert("autocorrelation".into(), "TooFewSamples: one query has no neighbour".into());
    }
    let sum: u128 = sorted.iter().map(|x| u128::from(*x)).sum();
    let Validity { state, reasons, recommendations } = validity::of_series(durations, percentile);
    Analysis {
        n: Some(n as u64),
        unit: "ns",
        format,
        scenario: Some(format!("{scenario:?}")),
        percentile_method: edgeyard_measure::PERCENTILE_METHOD,
        percentiles,
        early_stopping,
        intervals,
        mean: Some(((sum + n as u128 / 2) / n.max(1) as u128) as u64),
        minimum: sorted.first().copied(),
        maximum: sorted.last().copied(),
        window_variation,
        autocorrelation,
        validity: state,
        reasons,
        recommendations,
        unavailable,
    }
}

/// More digits than tables of records have: the ends of an interval lie close to one another.
fn precise(nanoseconds: u64) -> String {
    let n = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.3} µs", n / 1e3),
        1_000_000..1_000_000_000 => format!("{:.4} ms", n / 1e6),
        _ => format!("{:.4} s", n / 1e9),
    }
}

fn print(analysis: &Analysis) {
    let duration = |value: Option<u64>| value.map_or_else(|| "?".into(), precise);
    let mut rows = vec![vec!["latencies".to_owned(), analysis.n.map_or_else(|| "?".into(), table::thousands)]];
    let mut row = |title: String, value: Option<u64>, key: &str| {
        let ends = analysis.intervals.get(key).copied().flatten();
        let ends =
            ends.map_or_else(String::new, |[lower, upper]| format!(" [{}, {}]", duration(lower), duration(upper)));
        let missing = analysis.unavailable.get(&format!("percentiles.{key}"));
        let text = missing.filter(|_| value.is_none()).cloned().unwrap_or_else(|| duration(value) + &ends);
        rows.push(vec![title, text]);
    };
    row("mean".into(), analysis.mean, "mean");
    let mut in_order: Vec<(&String, &Option<u64>)> = analysis.percentiles.iter().collect();
    let number = |name: &str| name.parse::<f64>().unwrap_or_default();
    in_order.sort_by(|a, b| number(a.0).total_cmp(&number(b.0)));
    for (name, value) in in_order {
        row(format!("p{name}"), *value, name);
    }
    let Stopping { percentile, discarded, estimate, minimum_n, .. } = &analysis.early_stopping;
    if let Some(p) = percentile {
        let text = match (discarded, minimum_n) {
            (Some(discarded), _) => format!("{} after discarding {discarded}", duration(*estimate)),
            (None, Some(minimum)) => format!("needs at least {minimum} latencies"),
            (None, None) => "?".into(),
        };
        rows.push(vec![format!("early stopping at p{}", name(*p)), text]);
    }
    rows.push(vec!["validity".into(), analysis.validity.clone()]);
    let mut out = table::align(&rows);
    for (reason, advice) in analysis.reasons.iter().zip(&analysis.recommendations) {
        out.push_str(&format!("{reason}: {advice}\n"));
    }
    cli::print(&out);
}
