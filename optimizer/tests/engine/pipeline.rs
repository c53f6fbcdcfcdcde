//! Whole recipes, from the source to the report: order of passes, constraints, targets and what is refused before work starts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use edgeyard_engine::schema::OpCode;
use edgeyard_job::ExitCode;
use edgeyard_job::Progress;
use edgeyard_job::report::{Optimized, ReportResult, VerificationLevel};
use edgeyard_job::spec::{AccuracyMetric, Factorization, Pass, Pattern, Scheme, Score};
use edgeyard_optimizer::error::OptimizeError;
use edgeyard_optimizer::ir::{Model, Tensor, TensorData, load_file};
use edgeyard_optimizer::optimize::{Outcome, Request, Watcher, optimize};
use edgeyard_optimizer::runtime::Micro;
use edgeyard_targets::Target;

use super::support::{Builder, Noise, int, mnist, mnist_model, python, write_npz};

const EVALUATED: usize = 500;

struct Nobody;

impl Watcher for Nobody {
    fn progress(&self, _: &Progress) {}

    fn cancelled(&self) -> bool {
        false
    }
}

/// A folder with MNIST as calibration and evaluation data.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        let (x, _) = mnist("train", 64);
        write_npz(&lab.at("calib.npz"), &[64, 1, 28, 28], &x, None);
        let (x, y) = mnist("t10k", EVALUATED);
        write_npz(&lab.at("test.npz"), &[EVALUATED, 1, 28, 28], &x, Some(&y));
        lab
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn request(&self, target: &str, passes: Vec<Pass>) -> Request {
        Request {
            name: "mnist".into(),
            variant: "v".into(),
            model: mnist_model(),
            target: target.into(),
            passes,
            calibration: Some((self.at("calib.npz"), 64)),
            evaluation: Some((self.at("test.npz"), AccuracyMetric::Top1Accuracy)),
            ..Request::default()
        }
    }

    fn save(&self, name: &str, model: &Model) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, model.to_bytes()).unwrap();
        path
    }
}

fn run(request: &Request) -> Outcome {
    optimize(request, &Nobody).unwrap_or_else(|error| panic!("{} {:?}: {error}", request.target, request.passes))
}

fn refused(request: &Request) -> OptimizeError {
    let error = optimize(request, &Nobody).unwrap_err();
    assert_eq!(error.exit_code(), ExitCode::BadInput, "{error}");
    error
}

fn report(outcome: &Outcome) -> &Optimized {
    let ReportResult::Optimize(report) = &outcome.report.result else { panic!("another report") };
    report
}

fn int8() -> Pass {
    Pass::quantize(Scheme::Int8)
}

fn thin(score: Score) -> Pass {
    Pass::Prune { pattern: Pattern::Structured, score, sparsity: Some(0.25), n: None, m: None }
}

fn low_rank(macs: f64) -> Pass {
    Pass::Factorize { method: Factorization::Auto, energy: None, macs: Some(macs) }
}

/// The example, with one channel a thousand times as large as the others and its readers a thousandth: the same function, but
/// one scale serves that channel only.
fn lopsided() -> Model {
    let mut model = load_file(&mnist_model()).unwrap();
    let conv = |at: usize, model: &Model| model.graph.nodes.iter().filter(|n| n.is("Conv")).nth(at).unwrap().clone();
    let (first, second) = (conv(0, &model), conv(1, &model));
    let mut change = |name: &str, by: &dyn Fn(usize, f32) -> f32| {
        let tensor = model.graph.initializers.get_mut(name).unwrap();
        let TensorData::F32(data) = &mut tensor.data else { panic!("{name} is not float") };
        data.iter_mut().enumerate().for_each(|(at, value)| *value = by(at, *value));
    };
    change(&first.inputs[1], &|at, value| if at < 9 { value * 1000.0 } else { value });
    change(&first.inputs[2], &|at, value| if at == 0 { value * 1000.0 } else { value });
    // [16, 8, 3, 3]: input channel 0 of every output channel.
    change(&second.inputs[1], &|at, value| if at / 9 % 8 == 0 { value / 1000.0 } else { value });
    model
}

/// The example with a channel that is always zero, and huge weights that read it: the last layer's weights have no scale that
/// serves them all.
fn spiked() -> Model {
    let mut model = load_file(&mnist_model()).unwrap();
    let convolution = model.graph.nodes.iter().filter(|node| node.is("Conv")).nth(2).unwrap().inputs.clone();
    let matrix = model.graph.nodes.iter().find(|node| node.is("Gemm")).unwrap().inputs[1].clone();
    let mut change = |name: &str, by: &dyn Fn(usize) -> Option<f32>| {
        let tensor = model.graph.initializers.get_mut(name).unwrap();
        let TensorData::F32(data) = &mut tensor.data else { panic!("{name} is not float") };
        data.iter_mut().enumerate().for_each(|(at, value)| *value = by(at).unwrap_or(*value));
    };
    // [32, 16, 3, 3], and 49 places of each channel in [10, 1568].
    change(&convolution[1], &|at| (at < 144).then_some(0.0));
    change(&convolution[2], &|at| (at == 0).then_some(0.0));
    change(&matrix, &|at| (at % 1568 < 49).then_some(10_000.0));
    model
}

#[test]
fn passes_work_in_their_order() {
    let lab = Lab::new();
    let made = |passes: Vec<Pass>| run(&lab.request("ort-x86", passes));
    let once = made(vec![thin(Score::Magnitude), low_rank(0.6)]);
    let swapped = made(vec![low_rank(0.6), thin(Score::Magnitude)]);
    assert_ne!(report(&once).artifact.digest, report(&swapped).artifact.digest);
    for outcome in [&once, &swapped] {
        let report = report(outcome);
        let (before, after) = (report.source_cost.unwrap(), report.cost.unwrap());
        assert!(after.macs < before.macs && after.parameters < before.parameters, "{before:?} {after:?}");
        assert_eq!(report.verification.level, VerificationLevel::Executed);
    }
}

#[test]
fn what_is_thin_or_low_rank_becomes_integers_for_every_runtime() {
    let lab = Lab::new();
    for target in ["ort-x86", "litert", "tflm"] {
        for first in [thin(Score::Taylor), low_rank(0.5)] {
            let outcome = run(&lab.request(target, vec![first.clone(), int8()]));
            let report = report(&outcome);
            assert!(report.accuracy_drop.unwrap() < 0.05, "{target} {first:?}: {:?}", report.accuracy);
            let (before, after) = (report.source_cost.unwrap(), report.cost.unwrap());
            let most = if matches!(first, Pass::Factorize { .. }) { 0.5 } else { 1.0 };
            assert!(after.macs as f64 <= most * before.macs as f64, "{before:?} {after:?}");
            assert!(report.mcnemar_p.is_some_and(|p| (0.0..=1.0).contains(&p)));
        }
    }
}

#[test]
fn every_accelerator_says_how_far_it_was_verified() {
    let lab = Lab::new();
    for (target, level) in [
        ("edgetpu", VerificationLevel::Linted),
        ("vx", VerificationLevel::Linted),
        ("tensorrt", VerificationLevel::Linted),
        ("ethos-u", VerificationLevel::Compiled),
    ] {
        let outcome = run(&lab.request(target, vec![int8()]));
        let report = report(&outcome);
        assert_eq!(report.verification.level, level, "{target}: {:?} {:?}", report.verification, report.unavailable);
        assert_eq!(report.findings, [], "{target}");
        assert!(report.agreement.as_ref().unwrap().sqnr_db.unwrap() > 25.0, "{target}");
        assert_eq!(report.compiler_estimate.is_some(), target == "ethos-u");
        if let Some(estimate) = &report.compiler_estimate {
            assert!(estimate.cycles > 1000 && estimate.sram_bytes > 784, "{estimate:?}");
            assert!(estimate.accelerated_operators > 5 && estimate.cpu_operators == 0, "{estimate:?}");
        }
    }
}

#[test]
fn a_compiler_that_is_not_there_is_said_to_be_missing() {
    let lab = Lab::new();
    let out = lab.at("out");
    let text = |path: &Path| path.display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_edgeyard-optimizer"))
        .args(["run", "--model", &text(&mnist_model()), "--target", "ethos-u", "--pass", "int8"])
        .args(["--calibration", &text(&lab.at("calib.npz")), "--out", &text(&out)])
        .env("EDGEYARD_VELA", "/nowhere/vela")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["result"]["verification"]["level"], "Linted");
    let why = report["result"]["unavailable"]["compilerEstimate"].as_str().unwrap();
    assert!(why.contains("Vela was not run") && why.contains("EDGEYARD_VELA"), "{why}");
}

#[test]
fn constraints_decide_and_the_artefact_is_kept() {
    let lab = Lab::new();
    let size = |limit| Request { max_size_bytes: Some(limit), ..lab.request("litert", vec![int8()]) };
    let outcome = run(&size(1000));
    let broken = outcome.broken_constraint.unwrap();
    assert_eq!(broken.reason, "ArtifactTooLarge");
    assert!(broken.message.contains("at most 1000 are allowed"), "{broken}");
    assert!(!outcome.artifact.is_empty());
    assert_eq!(run(&size(64 * 1024)).broken_constraint, None);
}

#[test]
fn sensitive_operators_stay_float_when_accuracy_would_be_missed() {
    let lab = Lab::new();
    let model = lab.save("spiked.onnx", &spiked());
    for target in ["ort-x86", "litert"] {
        let with = |pass: Pass| {
            let request = lab.request(target, vec![pass]);
            run(&Request { model: model.clone(), max_accuracy_drop: Some(0.02), ..request })
        };
        let plain = with(int8());
        assert_eq!(plain.broken_constraint.as_ref().unwrap().reason, "AccuracyDropTooLarge", "{target}");
        let mut mixed = int8();
        if let Pass::Quantize { max_float_operators, .. } = &mut mixed {
            *max_float_operators = 2;
        }
        let mixed = with(mixed);
        let notes = &report(&mixed).notes;
        assert_eq!(mixed.broken_constraint, None, "{target}: {notes:?}");
        let kept = notes.iter().filter_map(|note| note.strip_prefix("kept in floating point for accuracy: "));
        assert_eq!(kept.collect::<Vec<_>>(), ["fc"], "{target}");
        assert!(mixed.artifact.len() > plain.artifact.len());
    }
}

#[test]
fn equalising_takes_away_what_one_scale_cannot_serve() {
    let lab = Lab::new();
    let model = lab.save("lopsided.onnx", &lopsided());
    for target in ["ort-x86", "litert"] {
        let with =
            |passes: Vec<Pass>| report(&run(&Request { model: model.clone(), ..lab.request(target, passes) })).clone();
        let (plain, equal) = (with(vec![int8()]), with(vec![Pass::Equalize {}, int8()]));
        assert!(plain.accuracy_drop.unwrap() > 0.05, "{target}: {:?}", plain.accuracy);
        assert!(equal.accuracy_drop.unwrap() < 0.02, "{target}: {:?}", equal.accuracy);
    }
}

#[test]
fn layers_are_compared_with_the_sources() {
    let lab = Lab::new();
    let outcome = run(&lab.request("ort-x86", vec![int8()]));
    let report = report(&outcome);
    let names: Vec<&str> = report.layers.iter().map(|layer| layer.tensor.as_str()).collect();
    assert_eq!(names, ["relu1", "pool1", "relu2", "pool2", "relu3", "flat", "logits", "probabilities"]);
    for layer in &report.layers {
        assert!(layer.sqnr_db.is_some_and(|db| db > 20.0), "{layer:?}");
    }
    for step in ["read", "calibrate", "convert", "evaluate"] {
        assert!(report.seconds.contains_key(step), "{:?}", report.seconds);
    }
}

/// Signal to noise of the tensors inside a `.tflite`, by ONNX Runtime and the interpreter that TensorFlow Lite's own Python package
/// has, which keeps its tensors when asked to. Arguments: model.onnx, model.tflite, data.npz. The orders of dimensions are
/// written down, not guessed: NCHW against NHWC.
const LAYERS: &str = r#"
import json, sys
import numpy, onnx, onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
source, lowered, data = sys.argv[1:]
model = onnx.load(source)
for node in model.graph.node:
    for name in node.output:
        if name not in [output.name for output in model.graph.output]:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
interpreter = Interpreter(lowered, experimental_preserve_all_tensors=True,
                          experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
interpreter.allocate_tensors()
given = interpreter.get_input_details()[0]
sums = {}
for sample in numpy.load(data)["x"][:4]:
    expected = dict(zip(names, session.run(None, {session.get_inputs()[0].name: sample[None]})))
    value = sample[None]
    if given["dtype"] == numpy.int8:
        scale, zero = given["quantization"]
        value = numpy.clip(numpy.round(value / scale) + zero, -128, 127).astype(numpy.int8)
    interpreter.set_tensor(given["index"], value)
    interpreter.invoke()
    for detail in interpreter.get_tensor_details():
        right = expected.get(detail["name"])
        if right is None:
            continue
        got = interpreter.get_tensor(detail["index"])
        if detail["dtype"] == numpy.int8:
            scale, zero = detail["quantization"]
            got = (got.astype(numpy.float64) - zero) * scale
        if right.ndim == 4:
            right = right.transpose(0, 2, 3, 1)
        right, got = right.ravel().astype(numpy.float64), got.ravel()
        assert right.shape == got.shape, detail
        sum = sums.setdefault(detail["name"], [0.0, 0.0])
        sum[0] += (right ** 2).sum()
        sum[1] += ((right - got) ** 2).sum()
print(json.dumps({name: 10 * numpy.log10(signal / noise) for name, (signal, noise) in sums.items()}))
"#;

#[test]
fn layers_inside_a_tflite_are_compared_with_the_sources() {
    let lab = Lab::new();
    for target in ["litert", "tflm"] {
        let outcome = run(&lab.request(target, vec![int8()]));
        let report = report(&outcome);
        let names: Vec<&str> = report.layers.iter().map(|layer| layer.tensor.as_str()).collect();
        // Every activation is fused into its convolution; "flat" are pool2's values in another order than ONNX's, which nothing computes.
        assert_eq!(names, ["relu1", "pool1", "relu2", "pool2", "relu3", "logits", "probabilities"], "{target}");
        let file = lab.at("model.tflite");
        std::fs::write(&file, &outcome.artifact).unwrap();
        let expected: BTreeMap<String, f64> =
            serde_json::from_str(&python(LAYERS, &[&mnist_model(), &file, &lab.at("calib.npz")])).unwrap();
        assert_eq!(expected.len(), report.layers.len(), "{expected:?}");
        for layer in &report.layers {
            // XNNPACK rounds now and then to the neighbour of what the plain kernels give.
            let (ours, theirs) = (layer.sqnr_db.unwrap(), expected[&layer.tensor]);
            assert!((ours - theirs).abs() < 0.3, "{target} {}: {ours} and {theirs}", layer.tensor);
        }
        assert!(!report.unavailable.contains_key("layers"), "{:?}", report.unavailable);
    }
}

/// Runs a .tflite of 8-bit integers in TensorFlow Lite Micro. Arguments: model.tflite, data.npz. Prints the output's scale, zero point
/// and integers, sample by sample.
const MICRO: &str = r#"
import json, sys
import numpy
from tflite_micro.python.tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=4 << 20)
def parameters(detail):
    found = detail["quantization_parameters"]
    return numpy.float32(found["scales"][0]), int(found["zero_points"][0])
scale, zero = parameters(interpreter.get_input_details(0))
rows = []
for sample in numpy.load(sys.argv[2])["x"]:
    value = sample[None] / scale
    rounded = numpy.sign(value) * numpy.floor(numpy.abs(value) + numpy.float32(0.5))
    interpreter.set_input(numpy.clip(rounded + zero, -128, 127).astype(numpy.int8), 0)
    interpreter.invoke()
    rows.append(numpy.array(interpreter.get_output(0)).ravel().tolist())
scale, zero = parameters(interpreter.get_output_details(0))
print(json.dumps([float(scale), zero, rows]))
"#;

#[test]
fn what_runs_for_microcontrollers_is_what_tensorflow_lite_micro_computes() {
    // An artefact for tflm is verified in the engine of our firmware; TensorFlow Lite Micro's own package gives the same integers.
    let lab = Lab::new();
    let outcome = run(&lab.request("tflm", vec![int8()]));
    assert_eq!(report(&outcome).verification.level, VerificationLevel::Executed);
    let file = lab.at("model.tflite");
    std::fs::write(&file, &outcome.artifact).unwrap();
    // The package writes lines of its own before.
    let said = python(MICRO, &[&file, &lab.at("calib.npz")]);
    let (scale, zero, expected): (f32, i32, Vec<Vec<i32>>) =
        serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let (x, _) = mnist("train", 64);
    let rows = Micro::runner(&outcome.artifact, &[1, 28, 28]).unwrap().run(&x, 64).unwrap();
    assert_eq!(rows.len(), expected.len());
    for (at, (row, integers)) in rows.iter().zip(&expected).enumerate() {
        let reals: Vec<f32> = integers.iter().map(|value| (value - zero) as f32 * scale).collect();
        assert_eq!(row.values, reals, "sample {at}");
    }
}

#[test]
fn activations_that_are_always_zero_have_a_scale_in_every_runtime() {
    let mut noise = Noise::new(32);
    let builder = Builder::new(13, &[1, 32])
        .constant("w", noise.tensor(&[16, 32]))
        .constant("low", Tensor::f32(&[16], vec![-1e3; 16]))
        .constant("v", noise.tensor(&[8, 16]))
        .constant("c", noise.tensor(&[8]))
        .node("Gemm", &["x", "w", "low"], "g", &[("transB", int(1))])
        .node("Relu", &["g"], "r", &[])
        .node("Gemm", &["r", "v", "c"], "y", &[("transB", int(1))]);
    let lab = Lab::new();
    let model = lab.save("silent.onnx", &builder.model);
    write_npz(&lab.at("noise.npz"), &[4, 32], &noise.values(4 * 32), None);
    write_npz(&lab.at("zeros.npz"), &[4, 32], &[0.0; 4 * 32], None);
    for target in ["ort-x86", "litert", "tflm"] {
        for data in ["noise.npz", "zeros.npz"] {
            let request = Request {
                model: model.clone(),
                calibration: Some((lab.at(data), 4)),
                evaluation: None,
                ..lab.request(target, vec![int8()])
            };
            let outcome = run(&request);
            let agreement = report(&outcome).agreement.clone().unwrap();
            // What comes out is the last layer's bias, to half a step of 255.
            assert!(agreement.max_abs_difference < 0.02, "{target} {data}: {agreement:?}");
            for layer in &report(&outcome).layers {
                assert!(layer.sqnr_db.is_none_or(f64::is_finite), "{target} {data}: {layer:?}");
            }
        }
    }
}

#[test]
fn a_tflite_is_a_source_too() {
    let lab = Lab::new();
    let source = lab.at("source.tflite");
    std::fs::write(&source, run(&lab.request("litert", Vec::new())).artifact).unwrap();
    let from = |target: &str, passes: Vec<Pass>| run(&Request { model: source.clone(), ..lab.request(target, passes) });
    for target in ["ort-x86", "litert", "tflm"] {
        let outcome = from(target, vec![int8()]);
        let report = report(&outcome);
        assert!(report.agreement.as_ref().unwrap().sqnr_db.unwrap() > 25.0, "{target}");
        assert!(report.accuracy_drop.unwrap() < 0.01, "{target}");
    }
    assert_eq!(from("litert", Vec::new()).artifact, std::fs::read(&source).unwrap());
}

#[test]
fn bad_input_is_refused_before_work_starts() {
    let lab = Lab::new();
    let (x, _) = mnist("train", 1);
    write_npz(&lab.at("one.npz"), &[1, 1, 28, 28], &x, None);
    let one = Request { calibration: Some((lab.at("one.npz"), 64)), ..lab.request("litert", vec![int8()]) };
    assert!(refused(&one).to_string().contains("1 sample says nothing about the range"));

    let unjudged = Request { evaluation: None, max_accuracy_drop: Some(0.01), ..lab.request("litert", vec![int8()]) };
    assert_eq!(refused(&unjudged).reason(), "ImpossibleConstraint");

    let mut mixed = int8();
    if let Pass::Quantize { max_float_operators, .. } = &mut mixed {
        *max_float_operators = 1;
    }
    assert!(refused(&lab.request("litert", vec![mixed])).to_string().contains("--max-accuracy-drop"));

    let mut broken = load_file(&mnist_model()).unwrap();
    let weights = broken.graph.nodes.iter().find(|node| node.is("Conv")).unwrap().inputs[1].clone();
    if let TensorData::F32(data) = &mut broken.graph.initializers.get_mut(&weights).unwrap().data {
        data[0] = f32::NAN;
    }
    let broken = Request { model: lab.save("nan.onnx", &broken), ..lab.request("ort-x86", Vec::new()) };
    let error = refused(&broken);
    assert!(error.reason() == "InvalidModel" && error.to_string().contains(&weights), "{error}");

    let tiny = refused(&lab.request("ort-x86", vec![low_rank(0.000_1)]));
    assert_eq!(tiny.reason(), "ImpossibleConstraint", "{tiny}");
}

#[test]
fn a_target_s_rules_stop_the_work_and_name_every_operator() {
    let lab = Lab::new();
    let noise = &mut Noise::new(5);
    let builder = Builder::new(17, &[1, 3, 8, 8])
        .constant("w", noise.tensor(&[4, 3, 3, 3]))
        .node("Conv", &["x", "w"], "a", &[])
        .node("Log", &["a"], "b", &[])
        .node("Sin", &["b"], "c", &[])
        .node("Relu", &["c"], "y", &[]);
    let model = lab.save("logs.onnx", &builder.model);
    let mut x = noise.values(4 * 192);
    x.iter_mut().for_each(|value| *value = value.abs() + 0.5);
    write_npz(&lab.at("small.npz"), &[4, 3, 8, 8], &x, None);
    let request = |target: &str| Request {
        model: model.clone(),
        calibration: Some((lab.at("small.npz"), 4)),
        evaluation: None,
        ..lab.request(target, vec![int8()])
    };
    let error = refused(&request("tflm"));
    let OptimizeError::Rules { findings, .. } = &error else { panic!("{error}") };
    let said: Vec<(&str, &str)> = findings.iter().map(|f| (f.subject.as_str(), f.rule.as_str())).collect();
    assert_eq!(said, [("Log_b (LOG)", "operator"), ("Sin_c (SIN)", "operator")]);
    assert!(error.to_string().contains("LOG is not among the operators of tflm: replace the operator"), "{error}");

    let det = Builder::new(17, &[1, 8, 8]).node("Det", &["x"], "y", &[]);
    let det = Request { model: lab.save("det.onnx", &det.model), ..request("tensorrt") };
    let det = Request { passes: Vec::new(), calibration: None, ..det };
    assert_eq!(refused(&det).reason(), "TargetRefuses");
}

#[test]
fn the_list_for_microcontrollers_is_the_engine_s() {
    let engine: std::collections::BTreeMap<String, Option<i64>> = (0..=209)
        .map(OpCode)
        .filter_map(|code| Some((code.to_string(), Some(i64::from(code.newest_version()?)))))
        .collect();
    assert_eq!(*Target::find("tflm").unwrap().operators(), engine);
}

/// Stops the work in the middle of a step.
struct Stopper {
    step: &'static str,
    heard: Mutex<Vec<(String, u64, u64)>>,
}

impl Watcher for Stopper {
    fn progress(&self, progress: &Progress) {
        self.heard.lock().unwrap().push((progress.step.clone(), progress.done, progress.total));
    }

    fn cancelled(&self) -> bool {
        self.heard.lock().unwrap().last().is_some_and(|(step, done, _)| step == self.step && *done > 0)
    }
}

#[test]
fn every_step_that_runs_samples_says_how_far_it_is_and_can_be_stopped() {
    let lab = Lab::new();
    let mut corrected = int8();
    let Pass::Quantize { bias_correction, .. } = &mut corrected else { panic!("another pass") };
    *bias_correction = true;
    for (step, total, pass) in [
        ("Calibrate", 64, int8()),
        ("CorrectBiases", 64, corrected),
        ("Factorize", 64, low_rank(0.5)),
        ("Prune", 64, thin(Score::Taylor)),
        ("Evaluate", EVALUATED as u64, int8()),
    ] {
        let stopper = Stopper { step, heard: Mutex::default() };
        let error = optimize(&lab.request("ort-x86", vec![pass]), &stopper).unwrap_err();
        assert_eq!((error.reason(), error.exit_code()), ("Cancelled", ExitCode::Cancelled), "{step}: {error}");
        let heard = stopper.heard.into_inner().unwrap();
        assert!(heard.contains(&(step.to_owned(), 0, total)), "{step}: {heard:?}");
        let (_, done, _) = heard.last().unwrap();
        assert!((1..total).contains(done), "{step}: {heard:?}");
    }
}
