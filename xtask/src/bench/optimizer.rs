//! The optimizer beside onnxruntime.quantization, onnx2tf and ai-edge-quantizer, on a MobileNetV2 whose weights and inputs are pinned by
//! digest, and on the examples' trained models. Ours and theirs run in turns in one process; a peer that is missing is null
//! with the reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::Serialize;
use serde_json::Value;

use super::Output;
use crate::shell::{cmd, output, say};
use crate::{binaries, environment, layout, setup};

const FIXTURE: &str = include_str!("optimizer/fixture.py");
const PEER_ORT: &str = include_str!("optimizer/peer_ort.py");
const PEER_TFLITE: &str = include_str!("optimizer/peer_tflite.py");
const COMPARE: &str = include_str!("optimizer/compare.py");
/// What the fixture's weights and inputs must be.
const WEIGHTS: &str = "abe883a60da375d9c89a6ea58fa5e60dcac81066f82e5ef2afe6f32fc42394e0";
const INPUTS: &str = "8cc562f60c45fde5925b0afbf24893adac9e757742a82909d0ffcbf8703f5712";
/// Samples that ONNX Runtime's Percentile is given: it keeps every activation of all of them, 63 MB a sample.
const PEER_PERCENTILE_SAMPLES: &str = "64";

/// Arguments of `bench optimizer`.
#[derive(clap::Args)]
pub struct Args {
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Turns of a latency comparison, ten inferences of each model a turn
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// An optimizer that is built already; by default one is built in release
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// One comparison.
#[derive(Serialize, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Row {
    metric: String,
    ours: Option<f64>,
    peer: Option<f64>,
    /// Ours over the peer's.
    ratio: Option<f64>,
    unit: String,
    peer_version: Option<String>,
    /// What is aimed at.
    goal: Option<String>,
    /// Why something is null.
    reason: Option<String>,
}

impl Row {
    fn new(metric: &str, unit: &str, ours: Option<f64>, peer: &Peer) -> Self {
        let ratio = ours.zip(peer.value).filter(|(_, peer)| *peer != 0.0).map(|(ours, peer)| ours / peer);
        let (peer_version, reason) = (peer.version.clone(), peer.reason.clone());
        Self {
            metric: metric.into(),
            ours,
            peer: peer.value,
            ratio,
            unit: unit.into(),
            peer_version,
            goal: None,
            reason,
        }
    }

    fn goal(mut self, goal: &str) -> Self {
        self.goal = Some(goal.to_owned());
        self
    }
}

/// A peer's number, or why there is none.
#[derive(Clone, Default)]
struct Peer {
    value: Option<f64>,
    version: Option<String>,
    reason: Option<String>,
}

impl Peer {
    fn none(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::default() }
    }

    fn with(&self, value: Option<f64>) -> Self {
        Self { value, ..self.clone() }
    }
}

/// Measures everything and prints it.
///
/// # Errors
/// When our own program fails, or the oracles are not set up.
pub fn run(args: &Args) -> Result<ExitCode> {
    let variables: BTreeMap<_, _> = environment::variables()?.into_iter().collect();
    let python = PathBuf::from(variables.get("EDGEYARD_PYTHON").context("the oracles' Python")?);
    ensure!(python.exists(), "{} does not exist: run `cargo xtask setup`", python.display());
    let start = Instant::now();
    let program = match &args.program {
        Some(program) => program.clone(),
        None => binaries::build(&["edgeyard-optimizer"], None)?.join("edgeyard-optimizer"),
    };
    let folder = tempfile::tempdir()?;
    for (name, text) in
        [("fixture", FIXTURE), ("peer_ort", PEER_ORT), ("peer_tflite", PEER_TFLITE), ("compare", COMPARE)]
    {
        fs::write(folder.path().join(format!("{name}.py")), text)?;
    }
    let rounds = args.rounds.to_string();
    let bench = Bench { program, python, variables, folder: folder.path(), rounds, start };
    bench.fixture()?;
    let mut rows = bench.tflite()?;
    rows.extend(bench.onnx()?);
    rows.extend(bench.percentile()?);
    rows.extend(bench.trained()?);
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Table => rows.iter().for_each(|row| say(&line(row))),
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    program: PathBuf,
    python: PathBuf,
    variables: BTreeMap<&'static str, std::ffi::OsString>,
    folder: &'a Path,
    rounds: String,
    start: Instant,
}

/// What a run of the optimizer gave.
struct Made {
    file: PathBuf,
    report: Value,
    /// Seconds of the whole program, verification included.
    seconds: f64,
}

impl Made {
    fn number(&self, pointer: &str) -> Option<f64> {
        self.report.pointer(&format!("/result{pointer}")).and_then(Value::as_f64)
    }

    /// Seconds from reading the source to the finished file; running it to verify it is not among them.
    fn making(&self) -> f64 {
        ["read", "simplify", "calibrate", "convert"]
            .iter()
            .filter_map(|step| self.number(&format!("/seconds/{step}")))
            .sum()
    }
}

impl Bench<'_> {
    /// Says on stderr what takes the next while: the whole takes minutes, and stdout is for the rows.
    fn tell(&self, what: &str) {
        eprintln!("[{:4.0} s] {what}", self.start.elapsed().as_secs_f64());
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn script(&self, python: &Path, script: &str, arguments: &[&Path]) -> Result<Value> {
        let mut command = cmd(&python.to_string_lossy(), [self.at(script)]);
        command.args(arguments).envs(&self.variables);
        let text = output(&mut command)?;
        // Libraries print what they like before it.
        let last = text.lines().last().context("a script printed nothing")?;
        serde_json::from_str(last).with_context(|| format!("{script} printed {last}"))
    }

    fn fixture(&self) -> Result<()> {
        self.tell("making MobileNetV2 and its inputs");
        let found = self.script(&self.python, "fixture.py", &[self.folder])?;
        ensure!(
            found["weights"] == WEIGHTS && found["inputs"] == INPUTS,
            "the fixture is not the pinned one: {found}; another NumPy draws other numbers, use the oracles' own"
        );
        Ok(())
    }

    fn make(&self, model: &Path, target: &str, more: &[&str], data: &Path, out: &str) -> Result<Made> {
        let mut command = Command::new(&self.program);
        command.envs(&self.variables).args(["run", "--output", "json", "--target", target]).args(more);
        command.arg("--model").arg(model).arg("--calibration").arg(data).arg("--out").arg(self.at(out));
        let model = model.file_stem().unwrap_or_default().to_string_lossy();
        self.tell(&format!("ours: {model} for {target}, {}", more.join(" ")));
        let start = Instant::now();
        let text = output(&mut command)?;
        let seconds = start.elapsed().as_secs_f64();
        let name = if target.starts_with("ort") { "model.onnx" } else { "model.tflite" };
        Ok(Made { file: self.at(out).join(name), report: serde_json::from_str(&text)?, seconds })
    }

    fn tflite(&self) -> Result<Vec<Row>> {
        let (model, calib, inputs, theirs) =
            (self.at("mbv2.onnx"), self.at("calib.npz"), self.at("inputs.npz"), self.at("peer.tflite"));
        let int8 = ["--pass", "int8:calibrator=MovingAverage", "--samples", "16"];
        // The first run warms the page cache; of the others the median counts.
        let mut runs =
            (0..4).map(|_| self.make(&model, "litert", &int8, &calib, "litert")).collect::<Result<Vec<_>>>()?;
        runs.remove(0);
        runs.sort_by(|a, b| a.making().total_cmp(&b.making()));
        let ours = runs.swap_remove(1);
        self.tell("theirs: onnx2tf and ai-edge-quantizer; they are installed first if they are not there");
        let found = setup::peers::install(&layout::root()?, &layout::cache()?)
            .and_then(|python| self.script(&python, "peer_tflite.py", &[&model, &calib, &self.at("work"), &theirs]));
        let peer = match &found {
            Ok(found) => Peer {
                value: found["seconds"].as_f64(),
                version: found["version"].as_str().map(str::to_owned),
                reason: None,
            },
            Err(error) => Peer::none(&format!("the peer does not run here: {error:#}")),
        };
        self.tell("both in LiteRT: SQNR and latency");
        let compared = self.script(
            &self.python,
            "compare.py",
            &[Path::new("tflite"), &model, &inputs, &ours.file, &theirs, Path::new(&self.rounds)],
        )?;
        let micro = self.make(&model, "tflm", &int8, &calib, "tflm")?;
        self.tell("both in TensorFlow Lite Micro and in Vela");
        let right = self.script(&self.python, "compare.py", &[Path::new("micro"), &micro.file, &theirs, &inputs])?;
        let mut rows = vec![
            Row::new("ONNX to int8 .tflite, 16 samples, moving average", "s", Some(ours.making()), &peer)
                .goal("at most 0.5 s"),
            Row::new(
                "the same with verification, whole program",
                "s",
                Some(ours.seconds),
                &Peer::none("no peer runs what it made"),
            ),
        ];
        rows.extend(quality("int8 .tflite", "XNNPACK, one thread", &compared, &peer, "at least 22.7 dB"));
        let agreement = peer.with(right["peer"].as_f64());
        let agreement = match right["peerError"].as_str() {
            Some(error) => Peer { reason: Some(format!("TensorFlow Lite Micro: {error}")), ..agreement },
            None => agreement,
        };
        rows.push(
            Row::new(
                "LiteRT's reference kernels against TensorFlow Lite Micro",
                "steps",
                right["ours"].as_f64(),
                &agreement,
            )
            .goal("at most 1"),
        );
        rows.push(self.vela(&micro.file, &theirs, &peer)?);
        Ok(rows)
    }

    /// The share of operators that Vela puts on an Ethos-U55.
    fn vela(&self, ours: &Path, theirs: &Path, peer: &Peer) -> Result<Row> {
        let cycles = |file: &Path, out: &str| -> Result<f64> {
            // Vela comes with the oracles, not with the peers.
            let mut command = cmd(&self.python.to_string_lossy(), ["-m", "ethosu.vela"]);
            command.args(["--accelerator-config", "ethos-u55-128", "--output-dir"]);
            output(command.arg(self.at(out)).arg(file))?;
            let mut files = fs::read_dir(self.at(out))?.filter_map(|entry| Some(entry.ok()?.path()));
            let summary =
                files.find(|path| path.extension().is_some_and(|end| end == "csv")).context("Vela's summary")?;
            let text = fs::read_to_string(summary)?;
            let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
            let (head, values) = (lines.next().context("a header")?, lines.next().context("a line")?);
            let column = head.iter().position(|name| *name == "cycles_total").context("cycles_total")?;
            Ok(values.get(column).context("a value")?.parse()?)
        };
        let (ours, other) = (cycles(ours, "vela-ours"), cycles(theirs, "vela-peer"));
        let reason =
            [&ours, &other].iter().find_map(|found| found.as_ref().err().map(|error| format!("Vela: {error:#}")));
        let peer = Peer { reason, ..peer.with(other.ok()) };
        Ok(Row::new("Vela compiles it for Ethos-U55, its estimate", "cycles", ours.ok(), &peer))
    }

    fn ort(&self, model: &Path, data: &Path, count: &str, method: &str, out: &Path) -> (Peer, Option<f64>) {
        self.tell(&format!("theirs: onnxruntime.quantization, {method} over {count} samples"));
        let arguments = [model, data, Path::new(count), Path::new(method), out];
        match self.script(&self.python, "peer_ort.py", &arguments) {
            Ok(found) => {
                let version = found["version"].as_str().map(str::to_owned);
                (Peer { value: found["seconds"].as_f64(), version, reason: None }, found["peakBytes"].as_f64())
            }
            Err(error) => (Peer::none(&format!("the peer does not run here: {error:#}")), None),
        }
    }

    fn onnx(&self) -> Result<Vec<Row>> {
        let (model, calib, theirs) = (self.at("mbv2.onnx"), self.at("calib.npz"), self.at("peer.onnx"));
        let ours = self.make(&model, "ort-x86", &["--pass", "int8", "--samples", "16"], &calib, "ort")?;
        let (peer, _) = self.ort(&model, &calib, "16", "MinMax", &theirs);
        self.tell("both in ONNX Runtime: SQNR and latency");
        let compared = self.script(
            &self.python,
            "compare.py",
            &[Path::new("onnx"), &model, &self.at("inputs.npz"), &ours.file, &theirs, Path::new(&self.rounds)],
        )?;
        let mut rows = vec![Row::new("ONNX to int8 QDQ U8S8, 16 samples", "s", Some(ours.making()), &peer)];
        rows.extend(quality("int8 QDQ", "ONNX Runtime, one thread", &compared, &peer, "at least 22.4 dB"));
        Ok(rows)
    }

    fn percentile(&self) -> Result<Vec<Row>> {
        let (model, many) = (self.at("mbv2.onnx"), self.at("many.npz"));
        let ours = |calibrator: &str| {
            let pass = format!("int8:calibrator={calibrator}");
            self.make(&model, "ort-x86", &["--pass", &pass, "--samples", "1000"], &many, calibrator)
        };
        let (plain, percentile) = (ours("MinMax")?, ours("Percentile")?);
        let out = self.at("percentile.onnx");
        let (fast, _) = self.ort(&model, &many, PEER_PERCENTILE_SAMPLES, "MinMax", &out);
        let (slow, peak) = self.ort(&model, &many, PEER_PERCENTILE_SAMPLES, "Percentile", &out);
        let times = |made: &Made| made.number("/seconds/calibrate");
        let mega = |bytes: Option<f64>| bytes.map(|bytes| bytes / 1e6);
        let ratio = times(&percentile).zip(times(&plain)).map(|(slow, fast)| slow / fast);
        let theirs = slow.with(slow.value.zip(fast.value).map(|(slow, fast)| slow / fast));
        let peak_row = format!("Percentile, peak memory: 1,000 samples, the peer {PEER_PERCENTILE_SAMPLES}");
        Ok(vec![
            Row::new(&peak_row, "MB", mega(percentile.number("/peakMemoryBytes")), &slow.with(mega(peak)))
                .goal("below 400 MB"),
            Row::new("Percentile, time over MinMax's", "×", ratio, &theirs).goal("at most 1.2"),
        ])
    }

    fn trained(&self) -> Result<Vec<Row>> {
        let examples = layout::root()?.join("examples");
        let mut rows = Vec::new();
        for (name, model, source) in [
            ("mnist", "mnist/mnist-cnn.onnx", self.variables.get("EDGEYARD_MNIST_DIR")),
            ("keyword", "keyword/keyword-dscnn.onnx", None),
        ] {
            self.tell(&format!("preparing the data of {name}"));
            let (model, data) = (examples.join(model), self.at(name));
            let mut prepare = cmd(&self.python.to_string_lossy(), [examples.join(name).join("prepare.py")]);
            prepare.args(source).arg(&data).env("PYTHONDONTWRITEBYTECODE", "1");
            if let Err(error) = output(&mut prepare) {
                // Speech is synthesised by a program that not every machine has.
                let reason = format!("its data cannot be prepared here: {error:#}");
                let row = Row::new(&format!("{name}: accuracy lost"), "points", None, &Peer::none(&reason));
                rows.push(row);
                continue;
            }
            let test = data.join("test.npz");
            let evaluation = test.to_string_lossy().into_owned();
            let drop = |pass: &str, target: &str| -> Result<Option<f64>> {
                let more = ["--pass", pass, "--evaluation", &evaluation];
                let made = self.make(&model, target, &more, &data.join("calib.npz"), "trained")?;
                Ok(made.number("/accuracyDrop").map(|drop| 100.0 * drop))
            };
            let theirs = self.at("trained.onnx");
            let (peer, _) = self.ort(&model, &data.join("calib.npz"), "128", "MinMax", &theirs);
            let score = |file: &Path| -> Option<f64> {
                let found = self.script(&self.python, "compare.py", &[Path::new("accuracy"), file, &test]).ok()?;
                found["value"].as_f64()
            };
            let lost = score(&model).zip(score(&theirs)).map(|(before, after)| 100.0 * (before - after));
            let none = Peer::none("no peer does this after training");
            let ours = drop("int8", "ort-x86")?;
            rows.push(
                Row::new(&format!("{name}: accuracy lost by int8"), "points", ours, &peer.with(lost))
                    .goal("at most 0.5"),
            );
            for (what, pass, goal) in [
                ("half the MACs by low rank", "factorize:macs=0.5", Some("at most 1.2")),
                ("2:4 sparsity", "prune:pattern=NOfM,n=2,m=4,score=Taylor", None),
                ("half the channels", "prune:pattern=Structured,sparsity=0.5,score=Taylor", None),
            ] {
                let row =
                    Row::new(&format!("{name}: accuracy lost by {what}"), "points", drop(pass, "ort-x86")?, &none);
                rows.push(Row { goal: goal.map(str::to_owned), ..row });
            }
        }
        Ok(rows)
    }
}

/// SQNR, latency and size of two artefacts.
fn quality(what: &str, runtime: &str, compared: &Value, peer: &Peer, goal: &str) -> Vec<Row> {
    let pair = |field: &str| (compared[field]["ours"].as_f64(), peer.with(compared[field]["peer"].as_f64()));
    let (sqnr, theirs) = pair("sqnr");
    let (time, slower) = pair("nanoseconds");
    let (size, larger) = pair("sizes");
    let source = compared["source"].as_f64();
    let share = |bytes: Option<f64>| bytes.zip(source).map(|(bytes, source)| 100.0 * bytes / source);
    let milli = |nanoseconds: Option<f64>| nanoseconds.map(|nanoseconds| nanoseconds / 1e6);
    let latency =
        Row::new(&format!("{what}: latency in {runtime}"), "ms", milli(time), &slower.with(milli(slower.value)));
    vec![
        Row::new(&format!("{what}: mean SQNR over 64 inputs"), "dB", sqnr, &theirs).goal(goal),
        Row { ratio: compared["latencyRatio"].as_f64(), ..latency }.goal("ratio at most 1.0, median of paired turns"),
        Row::new(&format!("{what}: size of fp32's"), "%", share(size), &larger.with(share(larger.value)))
            .goal("at most 29 %"),
    ]
}

fn line(row: &Row) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let Row { metric, ours, peer, ratio, unit, peer_version, goal, reason } = row;
    let mut text =
        format!("{metric}: {} {unit}, peer {} {unit}, ratio {}", number(*ours), number(*peer), number(*ratio));
    for (what, part) in [("peer", peer_version), ("goal", goal), ("because", reason)] {
        if let Some(part) = part {
            text.push_str(&format!("; {what}: {part}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_peer_is_null_with_the_reason_and_never_zero() {
        let row = Row::new("time", "s", Some(0.4), &Peer::none("it does not install"));
        let json = serde_json::to_value(&row).unwrap();
        assert!(json["peer"].is_null() && json["ratio"].is_null() && json["peerVersion"].is_null());
        assert_eq!(json["reason"], "it does not install");
        assert!(line(&row).contains("peer - s"), "{}", line(&row));
    }

    #[test]
    fn a_ratio_is_ours_over_theirs() {
        let peer = Peer { value: Some(4.0), version: Some("peer 1".into()), reason: None };
        assert_eq!(Row::new("time", "s", Some(1.0), &peer).ratio, Some(0.25));
    }
}
