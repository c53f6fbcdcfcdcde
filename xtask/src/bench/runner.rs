//! The device-runner's harness beside bare loops, with a model of milliseconds and one of microseconds. All numbers of a line
//! come from one run, in which the loops take turns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::Output;
use crate::shell::{output, say, step};
use crate::{binaries, environment};

/// Makes the models.
const MODELS: &str = include_str!("models.py");
/// The runtime's own loop.
const LOOP: &str = include_str!("loop.py");

/// Arguments of `bench runner`.
#[derive(clap::Args)]
pub struct Args {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Turns of the programs; more take longer and scatter less
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A device-runner that is built already; by default one is built in release
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl Args {
    /// Says what is done, but not between a program and its JSON.
    fn step<T>(&self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.output {
            Output::Table => step(what, work),
            Output::Json => work().with_context(|| what.to_owned()),
        }
    }
}

/// What the runner's `overhead` prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Overhead {
    clock_overhead_nanoseconds: u64,
    alone_nanoseconds: f64,
    added_nanoseconds: f64,
    bare_median_nanoseconds: f64,
    harness_median_nanoseconds: f64,
    version: String,
    settings: BTreeMap<String, String>,
}

/// What the Python loop prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Python {
    median_nanoseconds: f64,
    version: String,
}

/// One model: medians over the rounds.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Row {
    model: String,
    rounds: u32,
    /// What the harness takes with nothing to infer: two readings of the clock, the sample, the bookkeeping.
    alone_nanoseconds: f64,
    /// What it adds to this model: the difference of two loops, which scatters with the model's own time.
    added_nanoseconds: f64,
    clock_overhead_nanoseconds: u64,
    bare_median_nanoseconds: f64,
    harness_median_nanoseconds: f64,
    /// The harness' median over that of the bare loop in the same process, median of the rounds.
    harness_to_bare: f64,
    /// The median in the record of a whole run of the program.
    run_median_nanoseconds: f64,
    run_to_bare: f64,
    python_median_nanoseconds: f64,
    python_to_bare: f64,
    runtime_version: String,
    python_version: String,
    settings: BTreeMap<String, String>,
}

/// Measures both models and prints them.
///
/// # Errors
/// When the oracles are not set up, or a program fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    let variables: BTreeMap<_, _> = environment::variables()?.into_iter().collect();
    let python = PathBuf::from(variables.get("EDGEYARD_PYTHON").context("the oracles' Python")?);
    if !python.exists() {
        bail!("{} does not exist: run `cargo xtask setup`", python.display());
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => args
            .step("build the device-runner", || binaries::build(&["edgeyard-device-runner"], None))?
            .join("edgeyard-device-runner"),
    };
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("models.py"), MODELS)?;
    fs::write(folder.path().join("loop.py"), LOOP)?;
    let bench = Bench { program, python, variables, folder: folder.path() };
    args.step("make the models", || {
        output(bench.start(&bench.python).arg(folder.path().join("models.py")).arg(folder.path())).map(drop)
    })?;
    let mut rows = Vec::new();
    for (model, count) in [("mobilenetv2", 50), ("small", 5000)] {
        rows.push(args.step(&format!("measure {model}"), || bench.row(model, count, args.rounds))?);
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Table => render(&rows).lines().for_each(say),
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    program: PathBuf,
    python: PathBuf,
    variables: BTreeMap<&'static str, std::ffi::OsString>,
    folder: &'a Path,
}

impl Bench<'_> {
    fn start(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs(&self.variables);
        command
    }

    fn row(&self, model: &str, count: u32, rounds: u32) -> Result<Row> {
        let file = self.folder.join(format!("{model}.onnx"));
        let count = count.to_string();
        let (mut overheads, mut loops, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut command = self.start(&self.program);
            command.arg("overhead").arg("--model").arg(&file).args(["--count", &count, "--turns", "8"]);
            overheads.push(serde_json::from_str::<Overhead>(&output(&mut command)?)?);
            let mut command = self.start(&self.python);
            command.arg(self.folder.join("loop.py")).arg(&file).args(["1", &count]);
            loops.push(serde_json::from_str::<Python>(&output(&mut command)?)?);
            runs.push(self.whole_run(&file, &self.folder.join(format!("{model}-{round}")))?);
        }
        let first = overheads.first().context("no round")?;
        let of = |value: fn(&Overhead) -> f64| median(overheads.iter().map(value).collect());
        let bare = |others: Vec<f64>| {
            let ratio = |(other, overhead): (f64, &Overhead)| other / overhead.bare_median_nanoseconds;
            median(others.into_iter().zip(&overheads).map(ratio).collect())
        };
        let pythons: Vec<f64> = loops.iter().map(|found| found.median_nanoseconds).collect();
        Ok(Row {
            model: model.to_owned(),
            rounds,
            alone_nanoseconds: of(|found| found.alone_nanoseconds),
            added_nanoseconds: of(|found| found.added_nanoseconds),
            clock_overhead_nanoseconds: first.clock_overhead_nanoseconds,
            bare_median_nanoseconds: of(|found| found.bare_median_nanoseconds),
            harness_median_nanoseconds: of(|found| found.harness_median_nanoseconds),
            harness_to_bare: bare(overheads.iter().map(|found| found.harness_median_nanoseconds).collect()),
            run_median_nanoseconds: median(runs.clone()),
            run_to_bare: bare(runs),
            python_median_nanoseconds: median(pythons.clone()),
            python_to_bare: bare(pythons),
            runtime_version: first.version.clone(),
            python_version: loops.first().context("no round")?.version.clone(),
            settings: first.settings.clone(),
        })
    }

    /// The median that a record tells.
    fn whole_run(&self, model: &Path, out: &Path) -> Result<f64> {
        let mut command = self.start(&self.program);
        command.args(["run", "--device-class", "host-cpu", "--profile", "Smoke", "--threads", "1", "--output", "json"]);
        let text = output(command.arg("--model").arg(model).arg("--out").arg(out))?;
        let record: serde_json::Value = serde_json::from_str(&text)?;
        record
            .pointer("/results/0/latency/percentiles/50/valueNanoseconds")
            .and_then(serde_json::Value::as_f64)
            .context("the record has no median")
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn render(rows: &[Row]) -> String {
    let header = [
        "MODEL",
        "HARNESS ALONE",
        "ADDED",
        "CLOCK",
        "BARE P50",
        "HARNESS P50",
        "HARNESS/BARE",
        "RUN/BARE",
        "PYTHON/BARE",
    ];
    let mut lines = vec![header.map(str::to_owned).to_vec()];
    for row in rows {
        let micros = |nanoseconds: f64| format!("{:.2} µs", nanoseconds / 1e3);
        lines.push(vec![
            row.model.clone(),
            format!("{:.0} ns", row.alone_nanoseconds),
            format!("{:.0} ns", row.added_nanoseconds),
            format!("{} ns", row.clock_overhead_nanoseconds),
            micros(row.bare_median_nanoseconds),
            micros(row.harness_median_nanoseconds),
            format!("{:.4}", row.harness_to_bare),
            format!("{:.4}", row.run_to_bare),
            format!("{:.4}", row.python_to_bare),
        ]);
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let padded = lines.iter().map(|line| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    });
    padded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up() {
        let row = Row {
            model: "small".into(),
            rounds: 1,
            alone_nanoseconds: 52.0,
            added_nanoseconds: 61.4,
            clock_overhead_nanoseconds: 22,
            bare_median_nanoseconds: 20_000.0,
            harness_median_nanoseconds: 20_100.0,
            harness_to_bare: 1.005,
            run_median_nanoseconds: 20_200.0,
            run_to_bare: 1.01,
            python_median_nanoseconds: 25_000.0,
            python_to_bare: 1.25,
            runtime_version: "1".into(),
            python_version: "1".into(),
            settings: BTreeMap::new(),
        };
        let text = render(&[row]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("CLOCK"), lines[1].find("22 ns"));
        assert!(lines[1].contains("61 ns") && lines[1].ends_with("1.2500"), "{text}");
    }

    #[test]
    fn a_median_of_nothing_is_no_number() {
        assert!(median(Vec::new()).is_nan());
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
