//! `analyse` and `early-stopping`: the same statistics for latencies from elsewhere.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use edgeyard_measure::{early_stopping, interval, minimum_queries, order_statistic, pick};
use serde::Serialize;
use serde_json::Value;

use crate::cli::{self, Output};
use crate::error::Failure;
use crate::{table, validity};

/// Judge latencies from elsewhere.
#[derive(clap::Args, Debug)]
pub struct Analyse {
    /// A CSV with a header, JSON lines, or one number a line.
    pub file: PathBuf,
    /// The column or member that holds latencies; may be absent if there is only one of numbers.
    #[arg(long)]
    pub column: Option<String>,
    /// The latencies' unit.
    #[arg(long, value_enum, default_value_t)]
    pub unit: Unit,
    /// How queries were issued; decides which percentile counts.
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    pub scenario: Scenario,
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
    #[arg(long)]
    pub n: u64,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Units of time.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    #[default]
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
}

/// How queries were issued.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum Scenario {
    /// One after the other: the 90th percentile counts.
    #[default]
    SingleStream,
    /// Eight at once: the 99th percentile counts.
    MultiStream,
    /// As they come: the 99th percentile counts.
    Server,
}

impl Scenario {
    const fn percentile(self) -> f64 {
        match self {
            Self::SingleStream => 0.9,
            Self::MultiStream | Self::Server => 0.99,
        }
    }
}

fn percentile(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if p > 0.0 && p < 1.0 => Ok(p),
        _ => Err("give a share between 0 and 1, such as 0.9".into()),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Analysis {
    n: usize,
    percentiles: BTreeMap<String, u64>,
    early_stopping: Stopping,
    intervals: BTreeMap<String, [Option<u64>; 2]>,
    validity: String,
    reasons: Vec<String>,
    recommendations: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stopping {
    percentile: f64,
    discarded: Option<u64>,
    estimate: Option<u64>,
    met: bool,
    minimum_queries: u64,
}

fn stopping(percentile: f64, n: u64, sorted: &[u64]) -> Stopping {
    let found = early_stopping(percentile, n).ok();
    Stopping {
        percentile,
        discarded: found.map(|found| found.discarded),
        estimate: found.and_then(|found| found.estimate(sorted)),
        met: found.is_some(),
        minimum_queries: minimum_queries(percentile),
    }
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
            let answer = serde_json::json!({
                "percentile": percentile, "n": n, "discarded": found.discarded, "minimumQueries": minimum_queries(*percentile),
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
    let text = fs_err::read_to_string(&arguments.file)?;
    let about = |why: String| Failure::bad_input("NotLatencies", format!("{}: {why}", arguments.file.display()));
    let numbers = read(&text, arguments.column.as_deref()).map_err(about)?;
    if let Some((line, odd)) = numbers.iter().enumerate().find(|(_, x)| !x.is_finite() || **x < 0.0) {
        return Err(about(format!("value {} is {odd}, which is no latency", line + 1)));
    }
    if numbers.is_empty() {
        return Err(about("it has no latencies".into()));
    }
    let durations: Vec<u64> = numbers.iter().map(|x| (x * arguments.unit.nanoseconds()).round() as u64).collect();
    let analysis = analyse(&durations, arguments.percentile.unwrap_or(arguments.scenario.percentile()));
    match arguments.output {
        Output::Json => cli::print(&serde_json::to_string_pretty(&analysis).unwrap_or_default()),
        Output::Table => print(&analysis),
    }
    Ok(())
}

fn analyse(durations: &[u64], percentile: f64) -> Analysis {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let n = sorted.len();
    let (mut percentiles, mut intervals) = (BTreeMap::new(), BTreeMap::new());
    for (name, p) in [("50", 0.5), ("90", 0.9), ("95", 0.95), ("99", 0.99), ("99.9", 0.999)] {
        if p > 0.5 && (n as u64) < minimum_queries(p) {
            continue;
        }
        if let Some(value) = pick(&sorted, p) {
            percentiles.insert(name.to_owned(), value);
            let (lower, upper) = order_statistic(n, p, interval::CONFIDENCE);
            intervals.insert(name.to_owned(), [lower, upper].map(|place| place.map(|place| sorted[place])));
        }
    }
    let verdict = validity::of_series(durations);
    Analysis {
        n,
        percentiles,
        early_stopping: stopping(percentile, n as u64, &sorted),
        intervals,
        validity: verdict.state,
        reasons: verdict.reasons,
        recommendations: verdict.recommendations,
    }
}

fn print(analysis: &Analysis) {
    let mut rows = vec![vec!["latencies".to_owned(), analysis.n.to_string()]];
    for (name, value) in &analysis.percentiles {
        let end = |end: Option<u64>| end.map_or_else(|| "?".into(), table::duration);
        let [lower, upper] = analysis.intervals[name];
        rows.push(vec![format!("p{name}"), format!("{} [{}, {}]", table::duration(*value), end(lower), end(upper))]);
    }
    let Stopping { percentile, discarded, estimate, minimum_queries, .. } = &analysis.early_stopping;
    let text = match (estimate, discarded) {
        (Some(estimate), Some(discarded)) => format!("{} after discarding {discarded}", table::duration(*estimate)),
        _ => format!("needs {minimum_queries} latencies"),
    };
    rows.push(vec![format!("early stopping at {percentile}"), text]);
    rows.push(vec!["validity".into(), analysis.validity.clone()]);
    let mut out = table::align(&rows);
    for (reason, advice) in analysis.reasons.iter().zip(&analysis.recommendations) {
        out.push_str(&format!("{reason}: {advice}\n"));
    }
    cli::print(&out);
}

/// The latencies in a text, in its own unit.
fn read(text: &str, column: Option<&str>) -> Result<Vec<f64>, String> {
    if text.lines().any(|line| line.starts_with(":::MLLOG")) {
        return Err("it is LoadGen's log of results, which holds no latencies: give the latencies of its trace".into());
    }
    let lines: Vec<(usize, &str)> =
        text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty()).collect();
    let Some((_, first)) = lines.first() else { return Ok(Vec::new()) };
    if first.starts_with('{') {
        return lines
            .iter()
            .map(|(at, line)| member(line, column).map_err(|why| format!("line {at}: {why}")))
            .collect();
    }
    if first.parse::<f64>().is_ok() {
        let number = |(at, line): &(usize, &str)| line.parse().map_err(|_| format!("line {at}: {line:?} is no number"));
        return lines.iter().map(number).collect();
    }
    let header: Vec<&str> = first.split(',').map(|name| name.trim().trim_matches('"')).collect();
    let place = match column {
        Some(name) => header
            .iter()
            .position(|known| *known == name)
            .ok_or_else(|| format!("it has no column {name:?}, but {}", header.join(", ")))?,
        None if header.len() == 1 => 0,
        None => return Err(format!("choose one of its columns {} with --column", header.join(", "))),
    };
    let cell = |(at, line): &(usize, &str)| {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = cells.get(place).filter(|_| cells.len() == header.len()).ok_or_else(|| {
            format!("line {at} has {} of {} columns: the file may be cut off", cells.len(), header.len())
        })?;
        cell.trim().trim_matches('"').parse().map_err(|_| format!("line {at}: {cell:?} is no number"))
    };
    lines[1..].iter().map(cell).collect()
}

fn member(line: &str, column: Option<&str>) -> Result<f64, String> {
    let object: BTreeMap<String, Value> =
        serde_json::from_str(line).map_err(|error| format!("{error}: the file may be cut off"))?;
    let found = match column {
        Some(name) => object.get(name).and_then(Value::as_f64).ok_or_else(|| format!("it has no number {name:?}"))?,
        None => {
            let numbers: Vec<f64> = object.values().filter_map(Value::as_f64).collect();
            match numbers.as_slice() {
                [only] => *only,
                _ => return Err(format!("choose one of {:?} with --column", object.keys().collect::<Vec<_>>())),
            }
        }
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        assert_eq!(read("1\n2.5\n", None), Ok(vec![1.0, 2.5]));
        assert_eq!(read("t,latency\n0,1\n1,2\n", Some("latency")), Ok(vec![1.0, 2.0]));
        assert_eq!(read("{\"id\":\"a\",\"ms\":3}\n{\"id\":\"b\",\"ms\":4}", None), Ok(vec![3.0, 4.0]));
        assert_eq!(read("", None), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let refused = |text: &str, column| read(text, column).unwrap_err();
        assert!(refused("a,b\n1,2\n", None).contains("--column"));
        assert!(refused("a,b\n1,2\n", Some("c")).contains("a, b"));
        assert!(refused("a,b\n1,2\n3", Some("b")).contains("line 3 has 1 of 2"));
        assert!(refused("{\"ms\":3}\n{\"ms\":", None).contains("line 2"));
        assert!(refused("1\nx\n", None).contains("line 2"));
        assert!(refused(":::MLLOG {}", None).contains("trace"));
    }

    #[test]
    fn statistics_are_those_of_records() {
        let durations: Vec<u64> = (0..700).map(|n| 1000 + (n * 7919) % 13).collect();
        let found = analyse(&durations, 0.9);
        assert_eq!((found.n, found.validity.as_str()), (700, "Valid"));
        assert!(found.percentiles.contains_key("99") && !found.percentiles.contains_key("99.9"));
        assert_eq!(found.early_stopping.discarded, early_stopping(0.9, 700).ok().map(|found| found.discarded));
        assert!(!analyse(&durations[..50], 0.9).early_stopping.met);
    }
}
