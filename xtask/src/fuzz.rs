//! `cargo xtask fuzz TARGET`: feeds damaged input to one of our readers until the time is up, or until something breaks.
//!
//! A target is a cargo example that takes `SECONDS SEED FILES…` and is started in a folder of its own,
//! `target/fuzz/TARGET`. It tells of its progress on standard error. The last line of its output starts with the number of
//! executions; or, with exit code 1, with the path of the input that broke the reader, saved, and what was wrong. Before each
//! execution it may leave the input in a file `current.*` there: if a signal ends it, that is the finding.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use fs_err as fs;
use serde::Serialize;

use crate::bench::published_models;
use crate::shell::{cargo, quiet};
use crate::{environment, layout};

/// What `cargo xtask fuzz` accepts.
#[derive(clap::Args)]
pub struct Args {
    /// What to fuzz
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(TARGETS.map(|target| target.name)))]
    target: String,
    /// How long, without building
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// What the seeds and the damage follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for people
    Table,
    /// For programs
    Json,
}

/// A reader of untrusted input, and what feeds it.
struct Target {
    name: &'static str,
    /// Folder of its workspace, from the root.
    workspace: &'static str,
    package: &'static str,
    example: &'static str,
    /// The cargo profile: with overflow checks and debug assertions.
    profile: &'static str,
    /// Writes well-formed inputs into a folder, or says where some are, for this seed.
    seeds: fn(folder: &Path, seed: u64) -> Result<Vec<PathBuf>>,
}

const TARGETS: [Target; 4] = [
    Target {
        name: "firmware-loader",
        workspace: "hardware-lab/firmware",
        package: "edgeyard-engine",
        example: "fuzz",
        profile: "fuzz",
        seeds: firmware_models,
    },
    optimizer("onnx", "fuzz_onnx", onnx_models),
    optimizer("tflite", "fuzz_tflite", firmware_models),
    // Its fuzzer makes whole archives itself.
    optimizer("npz", "fuzz_npz", |_, _| Ok(Vec::new())),
];

const fn optimizer(
    name: &'static str,
    example: &'static str,
    seeds: fn(folder: &Path, seed: u64) -> Result<Vec<PathBuf>>,
) -> Target {
    Target { name, workspace: ".", package: "edgeyard-optimizer", example, profile: "fuzz", seeds }
}

/// What came of it.
#[derive(Serialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Report {
    target: String,
    seed: u64,
    seconds: u64,
    /// None after a failure: the fuzzer stops at the first.
    executions: Option<u64>,
    /// Paths of inputs, with what was wrong.
    failures: Vec<String>,
}

/// Runs `cargo xtask fuzz`.
///
/// # Errors
/// When the fuzzer does not build, has no seeds, or ends in a way that says nothing about what it fuzzes.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Args { target: name, seconds, seed, output } = args;
    let target = TARGETS.iter().find(|target| target.name == name).context("a target that is in no table")?;
    let root = layout::root()?;
    let folder = layout::target()?.join("fuzz").join(name);
    fs::create_dir_all(&folder)?;
    let program = build(target, &root)?;
    let inputs = folder.join("seeds");
    if inputs.exists() {
        fs::remove_dir_all(&inputs)?;
    }
    let files = (target.seeds)(&inputs, *seed)?;
    eprintln!("{name}: {} seeds, {seconds} s", files.len());
    let mut command = Command::new(program);
    command.args([seconds.to_string(), seed.to_string()]).args(files).current_dir(&folder);
    let (status, last) = watch(&mut command, Duration::from_secs(*seconds))?;
    let report = judge(name, (*seed, *seconds), status, &last, &folder)?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print!("{}", report.lines()),
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the fuzzer; returns where it is.
fn build(target: &Target, root: &Path) -> Result<PathBuf> {
    // One folder for all fuzzers of a package: most of what they are built of is the same.
    let folder = layout::cargo_target()?.join("fuzz-build").join(target.package);
    eprintln!("{}: build {}", target.name, target.package);
    let mut command = cargo(&root.join(target.workspace));
    command.args(["build", "--locked", "--package", target.package, "--example", target.example]);
    quiet(command.args(["--profile", target.profile, "--target-dir"]).arg(&folder))?;
    Ok(folder.join(target.profile).join("examples").join(target.example))
}

/// Runs the fuzzer to its end and returns the last line of its output. One that goes on long after its time is ended: it
/// watches over hangs itself.
fn watch(command: &mut Command, limit: Duration) -> Result<(Option<ExitStatus>, String)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut pipe = child.stdout.take().context("no pipe")?;
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > limit + Duration::from_secs(300) {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let text = reader.join().ok().context("reading the fuzzer's output failed")??;
    Ok((status, text.lines().last().unwrap_or_default().to_owned()))
}

/// What the fuzzer's end says. `status` is none if it did not end by itself.
fn judge(
    name: &str,
    (seed, seconds): (u64, u64),
    status: Option<ExitStatus>,
    last: &str,
    folder: &Path,
) -> Result<Report> {
    let mut report = Report { target: name.to_owned(), seed, seconds, executions: None, failures: Vec::new() };
    match status.map(|status| (status.code(), status)) {
        Some((Some(0), _)) => {
            let count = last.split_whitespace().next().and_then(|word| word.parse().ok());
            report.executions = Some(count.with_context(|| format!("the fuzzer's last line has no count: {last:?}"))?);
        }
        Some((Some(1), _)) if !last.is_empty() => report.failures.push(last.to_owned()),
        Some((Some(_), status)) => bail!("the fuzzer ended with {status}"),
        Some((None, status)) => report.failures.push(format!("{}: ended by {status}", keep(folder)?.display())),
        None => report.failures.push(format!("{}: did not end in time", keep(folder)?.display())),
    }
    Ok(report)
}

/// Keeps the input that was being tried: the next run would write over it.
fn keep(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "current") {
            let kept = path.with_file_name("finding-killed").with_extension(path.extension().unwrap_or_default());
            fs::rename(&path, &kept)?;
            return Ok(kept);
        }
    }
    bail!("the fuzzer was killed and left no current input in {}", folder.display())
}

impl Report {
    fn lines(&self) -> String {
        let Report { target, seed: _, seconds, executions, failures } = self;
        let mut text: String = failures.iter().map(|failure| format!("{target}: {failure}\n")).collect();
        let count = executions.map_or_else(|| "stopped".to_owned(), |n| format!("{n} executions in {seconds} s"));
        text += &format!("{target}: {count}, {} failures\n", failures.len());
        text
    }
}

/// The trained models of the examples; the fuzzer makes graphs of single operators itself.
fn onnx_models(_: &Path, _: u64) -> Result<Vec<PathBuf>> {
    let root = layout::root()?;
    Ok(["examples/mnist/mnist-cnn.onnx", "cli/selftest/tiny.onnx"].map(|file| root.join(file)).to_vec())
}

/// Models of single operators from the oracle's generator, those of every shape that is benchmarked, and published ones.
fn firmware_models(folder: &Path, seed: u64) -> Result<Vec<PathBuf>> {
    let source = layout::root()?.join("hardware-lab/firmware");
    let variables: BTreeMap<_, _> = environment::variables()?.into_iter().collect();
    let known = || variables.get("EDGEYARD_PYTHON").cloned();
    let python = std::env::var_os("EDGEYARD_PYTHON").or_else(known).context("the oracles' Python")?;
    let mut files = Vec::new();
    for (name, arguments) in [("generated", ["--count", "138"].as_slice()), ("shapes", &["--bench"])] {
        let folder = folder.join(name);
        let mut command = Command::new(&python);
        command.arg(source.join("oracle/generate.py")).args(["--seed", &seed.to_string(), "--trials", "1"]);
        quiet(command.args(arguments).arg(&folder))
            .context("models to start from (`cargo xtask setup` installs the generator's needs)")?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tflite") {
                files.push(path);
            }
        }
    }
    let published = published_models(&source)?;
    files.extend(["person_detect", "speech"].map(|name| published.join(format!("{name}.tflite"))));
    // Their order decides what each execution starts from.
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn ended(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    fn of(status: Option<ExitStatus>, last: &str) -> Result<Report> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("current.bin"), "x")?;
        judge("reader", (1, 60), status, last, folder.path())
    }

    #[test]
    fn a_clean_run_tells_its_count() {
        let report = of(ended(0), "812 executions, 20 loaded").unwrap();
        assert_eq!(report.lines(), "reader: 812 executions in 60 s, 0 failures\n");
        let error = of(ended(0), "all is well").unwrap_err().to_string();
        assert!(error.contains("no count"), "{error}");
    }

    #[test]
    fn a_finding_is_a_failure_with_its_file() {
        let report = of(ended(1), "/a/finding-7.bin: panicked").unwrap();
        assert_eq!(report.lines(), "reader: /a/finding-7.bin: panicked\nreader: stopped, 1 failures\n");
        assert_eq!(report.executions, None);
    }

    #[test]
    fn a_signal_and_a_hang_leave_the_current_input() {
        for status in [Some(ExitStatus::from_raw(11)), None] {
            let report = of(status, "").unwrap();
            assert!(report.failures[0].contains("finding-killed.bin"), "{report:?}");
        }
    }

    #[test]
    fn a_fuzzer_that_fails_itself_is_an_error() {
        assert!(of(ended(2), "").is_err());
        assert!(of(ended(1), "").is_err());
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
        assert_eq!(names.len(), TARGETS.len());
    }
}
