//! Inputs that are not floats, from the source to the report: values given for good, and integers fed as integers.

use edgeyard_job::ExitCode;
use edgeyard_job::Progress;
use edgeyard_job::report::ReportResult;
use edgeyard_job::spec::{Pass, Scheme};
use edgeyard_optimizer::ir::{DataType, Dim, Model, Value};
use edgeyard_optimizer::optimize::{Outcome, Request, Watcher, optimize};

use super::support::{Builder, Noise, int, python, write_npz};

struct Nobody;

impl Watcher for Nobody {
    fn progress(&self, _: &Progress) {}

    fn cancelled(&self) -> bool {
        false
    }
}

fn sqnr(outcome: &Outcome) -> f64 {
    let ReportResult::Optimize(report) = &outcome.report.result else { panic!("another report") };
    // Absent where all outputs are equal.
    report.agreement.as_ref().unwrap().sqnr_db.unwrap_or(f64::INFINITY)
}

/// y = (x * rate) @ w, with a rate of 64-bit integers beside x.
fn rated() -> Model {
    let mut noise = Noise::new(5);
    let mut made = Builder::new(16, &[0, 4])
        .node("Cast", &["rate"], "r", &[("to", int(DataType::F32.onnx()))])
        .node("Mul", &["x", "r"], "p", &[])
        .constant("w", noise.tensor(&[4, 3]))
        .node("MatMul", &["p", "w"], "y", &[])
        .model;
    made.graph.inputs.push(Value::fixed("rate", DataType::I64, &[]));
    made
}

#[test]
fn a_value_given_for_an_input_is_in_every_artefact() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("rated.onnx"), rated().to_bytes()).unwrap();
    write_npz(&at("c.npz"), &[32, 4], &Noise::new(6).values(128), None);
    let request = |target: &str, passes: Vec<Pass>, value: Option<f64>| Request {
        model: at("rated.onnx"),
        target: target.into(),
        calibration: Some((at("c.npz"), 32)),
        passes,
        input_values: value.map(|value| ("rate".to_owned(), value)).into_iter().collect(),
        ..Request::default()
    };
    for (target, passes, least) in [
        ("ort-x86", vec![], 90.0),
        ("litert", vec![], 90.0),
        ("litert", vec![Pass::quantize(Scheme::Int8)], 30.0),
        ("tflm", vec![Pass::quantize(Scheme::Int8)], 30.0),
    ] {
        let outcome = optimize(&request(target, passes.clone(), Some(3.0)), &Nobody).unwrap();
        assert!(sqnr(&outcome) > least, "{target} {passes:?}: {}", sqnr(&outcome));
        // The artefact is another one for another value: it is not merely left out.
        let other = optimize(&request(target, passes, Some(7.0)), &Nobody).unwrap();
        assert_ne!(outcome.artifact, other.artifact, "{target}");
    }
    for (value, part) in [(None, "2 inputs"), (Some(0.5), "0.5 is no value of int64")] {
        let error = optimize(&request("litert", vec![], value), &Nobody).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::BadInput);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn words_are_fed_from_integers() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut noise = Noise::new(7);
    let mut made = Builder::new(16, &[0, 6])
        .constant("table", noise.tensor(&[20, 8]))
        .node("Gather", &["table", "x"], "e", &[])
        .node("ReduceMean", &["e"], "m", &[("axes", super::support::ints(&[1])), ("keepdims", int(0))])
        .constant("w", noise.tensor(&[8, 5]))
        .node("MatMul", &["m", "w"], "y", &[])
        .model;
    made.graph.inputs = vec![Value { dtype: DataType::I64, ..made.graph.inputs[0].clone() }];
    assert!(matches!(made.graph.inputs[0].shape[0], Dim::Symbol(_)));
    std::fs::write(at("words.onnx"), made.to_bytes()).unwrap();
    let code =
        "import sys, numpy as n; r = n.random.default_rng(3); n.savez(sys.argv[1], x=r.integers(0, 20, (40, 6)))";
    python(code, &[&at("words.npz")]);
    write_npz(&at("floats.npz"), &[4, 6], &[1.0; 24], None);
    let request = |target: &str, passes: Vec<Pass>, data: &str| Request {
        model: at("words.onnx"),
        target: target.into(),
        calibration: Some((at(data), 40)),
        passes,
        ..Request::default()
    };
    let int8 = || vec![Pass::quantize(Scheme::Int8)];
    for (target, passes, least) in
        [("ort-x86", vec![], 90.0), ("ort-x86", int8(), 25.0), ("litert", vec![], 90.0), ("litert", int8(), 25.0)]
    {
        let outcome = optimize(&request(target, passes.clone(), "words.npz"), &Nobody).unwrap();
        assert!(sqnr(&outcome) > least, "{target} {passes:?}: {}", sqnr(&outcome));
        if target == "litert" {
            let model = edgeyard_tflite::read(&outcome.artifact).unwrap();
            let graph = &model.subgraphs[0];
            assert_eq!(graph.tensors[graph.inputs[0] as usize].dtype, edgeyard_tflite::TensorType::Int32);
        }
    }
    let error = optimize(&request("litert", vec![], "floats.npz"), &Nobody).unwrap_err();
    assert!(error.to_string().contains("floating point; the model takes int64"), "{error}");
    // Without data, 0 and 1 are fed.
    let bare = Request { calibration: None, ..request("litert", vec![], "") };
    assert!(sqnr(&optimize(&bare, &Nobody).unwrap()) > 90.0);
    // The firmware's engine has no kernel that looks words up.
    let error = optimize(&request("tflm", int8(), "words.npz"), &Nobody).unwrap_err();
    assert!(error.to_string().contains("GATHER"), "{error}");
}
