//! The program as users start it: what it writes, what it says, how it ends.

use std::path::Path;
use std::process::{Command, Output};

use edgeyard_optimizer::ir::Tensor;
use serde_json::Value;

use super::support::{Builder, Noise, mnist, mnist_model, write_npz};

fn optimizer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_edgeyard-optimizer")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// MNIST's training and test images as datasets.
fn data(folder: &Path, count: usize) -> (String, String) {
    let (calibration, evaluation) = (folder.join("calib.npz"), folder.join("test.npz"));
    let (x, _) = mnist("train", 128);
    write_npz(&calibration, &[128, 1, 28, 28], &x, None);
    let (x, y) = mnist("t10k", count);
    write_npz(&evaluation, &[count, 1, 28, 28], &x, Some(&y));
    (calibration.display().to_string(), evaluation.display().to_string())
}

struct Made {
    artifact: Vec<u8>,
    report: Value,
}

fn make(target: &str, passes: &[&str], folder: &Path, calibration: &str, evaluation: &str) -> Made {
    let model = mnist_model().display().to_string();
    let out = folder.join(format!("{target}{}", passes.concat()));
    let out_text = out.display().to_string();
    let mut arguments = vec!["run", "--model", &model, "--target", target, "--out", &out_text];
    passes.iter().for_each(|pass| arguments.extend(["--pass", pass]));
    if passes.contains(&"int8") {
        arguments.extend(["--calibration", calibration]);
    }
    arguments.extend(["--evaluation", evaluation, "--output", "json"]);
    let output = optimizer(&arguments);
    assert!(output.status.success(), "{target} {passes:?}: {}", said(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(report, serde_json::from_slice::<Value>(&output.stdout).unwrap());
    let file = if target.starts_with("ort") { "model.onnx" } else { "model.tflite" };
    let artifact = std::fs::read(out.join(file)).unwrap();
    let digest = edgeyard_artifact::digest_of(&artifact).to_string();
    assert_eq!(report["result"]["artifact"]["digest"], digest.as_str());
    assert_eq!(report["result"]["artifact"]["sizeBytes"], artifact.len());
    Made { artifact, report: report["result"].clone() }
}

#[test]
fn every_target_runs_what_was_made_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (calibration, evaluation) = data(folder.path(), 2000);
    let source = std::fs::metadata(mnist_model()).unwrap().len() as f64;
    let mut sizes = std::collections::BTreeMap::new();
    for target in ["ort-x86", "ort-arm64", "litert", "tflm"] {
        for passes in [&[][..], &["fp16"], &["int8"]] {
            if target == "tflm" && passes != ["int8"] {
                continue;
            }
            let Made { artifact, report } = make(target, passes, folder.path(), &calibration, &evaluation);
            let case = format!("{target} {passes:?}: {report:#}");
            assert_eq!(report["verification"]["level"], "Executed", "{case}");
            let drop = report["accuracyDrop"].as_f64().unwrap();
            assert!(drop.abs() <= 0.005, "{case}");
            let score = |field: &str| report["accuracy"][field].as_f64().unwrap();
            assert!(
                score("value") > 0.97 && score("lower") < score("value") && score("value") < score("upper"),
                "{case}"
            );
            assert_eq!(report["accuracy"]["sampleCount"], 2000);
            assert_eq!(report["agreement"]["sampleCount"], 2000);
            let least = match passes {
                [] => 90.0,
                ["fp16"] => 55.0,
                _ => 25.0,
            };
            let sqnr = report["agreement"]["sqnrDb"].as_f64();
            assert!(sqnr.is_none_or(|sqnr| sqnr >= least), "{case}");
            assert_eq!(sqnr.is_none(), passes.is_empty() && target.starts_with("ort"), "{case}");
            sizes.insert((target, passes.concat()), artifact.len() as f64);
        }
    }
    let share = |target, pass: &str| sizes[&(target, pass.to_owned())] / source;
    assert!(share("ort-x86", "") == 1.0);
    for target in ["ort-x86", "litert"] {
        assert!(share(target, "fp16") < 0.6 && share(target, "int8") < 0.4, "{target}");
    }
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (calibration, evaluation) = data(folder.path(), 300);
    for target in ["ort-x86", "litert", "tflm"] {
        let once = make(target, &["int8"], folder.path(), &calibration, &evaluation);
        let again = make(target, &["int8"], folder.path(), &calibration, &evaluation);
        assert!(once.artifact == again.artifact, "{target}");
        let timeless = |made: &Made| {
            let mut report = made.report.clone();
            report["seconds"] = Value::Null;
            report["peakMemoryBytes"] = Value::Null;
            report["stepPeakBytes"] = Value::Null;
            report
        };
        assert_eq!(timeless(&once), timeless(&again));
    }
}

#[test]
fn wrong_labels_show_in_the_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let (x, mut y) = mnist("t10k", 2000);
    let mut noise = Noise::new(1);
    for at in (1..y.len()).rev() {
        y.swap(at, noise.below(at + 1));
    }
    let evaluation = folder.path().join("shuffled.npz");
    write_npz(&evaluation, &[2000, 1, 28, 28], &x, Some(&y));
    let made = make("ort-x86", &["fp16"], folder.path(), "", &evaluation.display().to_string());
    let value = made.report["accuracy"]["value"].as_f64().unwrap();
    assert!((0.05..0.16).contains(&value), "{value}");
}

#[test]
fn a_constraint_that_is_not_met_ends_in_3_and_the_artefact_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (_, evaluation) = data(folder.path(), 300);
    // Calibrated on blank images, the integers cover next to nothing.
    let blank = folder.path().join("blank.npz");
    write_npz(&blank, &[2, 1, 28, 28], &vec![0.0; 2 * 784], None);
    let (model, blank) = (mnist_model().display().to_string(), blank.display().to_string());
    let out = folder.path().join("out");
    let output = optimizer(&[
        "run",
        "--model",
        &model,
        "--target",
        "ort-x86",
        "--pass",
        "int8",
        "--calibration",
        &blank,
        "--evaluation",
        &evaluation,
        "--max-accuracy-drop",
        "0.01",
        "--out",
        &out.display().to_string(),
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("at most 1.00 are allowed"), "{}", said(&output));
    assert!(out.join("model.onnx").exists() && out.join("report.json").exists());
}

#[test]
fn bad_input_ends_in_2_with_what_to_do_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let model = mnist_model().display().to_string();
    let (calibration, evaluation) = data(folder.path(), 10);
    std::fs::write(at("text.onnx"), "no model").unwrap();
    let whole = std::fs::read(mnist_model()).unwrap();
    std::fs::write(at("cut.onnx"), &whole[..whole.len() / 2]).unwrap();
    write_npz(Path::new(&at("wide.npz")), &[2, 1, 28, 30], &vec![0.0; 2 * 840], Some(&[1, 2]));
    write_npz(Path::new(&at("many.npz")), &[2, 1, 28, 28], &vec![0.0; 2 * 784], Some(&[1, 10]));
    let strange = Builder::new(13, &[1, 1, 28, 28]).node("Det", &["x"], "y", &[]);
    std::fs::write(at("det.onnx"), strange.bytes()).unwrap();
    write_npz(Path::new(&at("one.npz")), &[1, 1, 28, 28], &[0.5; 784], None);
    let base = || Builder::new(13, &[1, 1, 28, 28]);
    let relu = |builder: Builder| builder.node("Relu", &["x"], "y", &[]);
    let hostile: [(&str, Vec<u8>); 7] = [
        (
            "nan.onnx",
            base().constant("w", Tensor::f32(&[1], vec![f32::NAN])).node("Add", &["x", "w"], "y", &[]).bytes(),
        ),
        ("cycle.onnx", base().node("Add", &["x", "y"], "a", &[]).node("Relu", &["a"], "y", &[]).bytes()),
        ("twice.onnx", relu(relu(base())).bytes()),
        ("old.onnx", relu(Builder::new(10, &[1, 1, 28, 28])).bytes()),
        (
            "huge.onnx",
            Builder::new(13, &[1, 1, 1, 28])
                .constant("s", Tensor::i64(&[4], vec![1, 1 << 30, 1 << 30, 28]))
                .node("Expand", &["x", "s"], "y", &[])
                .bytes(),
        ),
        (
            "endless.onnx",
            relu(base()).constant("w", Tensor { dims: vec![1 << 40, 1 << 40], ..Tensor::f32(&[], vec![1.0]) }).bytes(),
        ),
        ("outside.onnx", super::corrupt::external("weights.bin", 0, 16)),
    ];
    for (name, bytes) in &hostile {
        std::fs::write(at(name), bytes).unwrap();
    }
    let run = |model: &str, target: &str, more: &[&str]| {
        let out = at("out");
        let mut arguments = vec!["run", "--model", model, "--target", target, "--out", &out];
        arguments.extend(more);
        let output = optimizer(&arguments);
        assert!(!Path::new(&out).exists(), "{arguments:?} wrote something");
        (output.status.code(), said(&output))
    };
    let int8 = ["--pass", "int8"];
    let with = |file: &str| {
        vec!["--pass", "int8", "--calibration"].into_iter().map(str::to_owned).chain([at(file)]).collect::<Vec<_>>()
    };
    let wide = with("wide.npz");
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let one = with("one.npz");
    let one: Vec<&str> = one.iter().map(String::as_str).collect();
    let many = at("many.npz");
    let cases: Vec<(String, &str, Vec<&str>, &str)> = vec![
        (at("none.onnx"), "ort-x86", vec![], "cannot read the model"),
        (at("text.onnx"), "ort-x86", vec![], "not an ONNX file"),
        (at("cut.onnx"), "ort-x86", vec![], "truncated at byte"),
        (model.clone(), "toaster", vec![], "use one of ort-x86, ort-arm64, litert, tflm, edgetpu"),
        (model.clone(), "tflm", vec!["--pass", "fp16"], "Quantize with scheme Float16 cannot be used for target tflm"),
        (model.clone(), "tflm", vec![], "add the pass Quantize with scheme Int8"),
        (model.clone(), "litert", int8.to_vec(), "needs calibration data"),
        (model.clone(), "litert", wide, "a sample has the shape [1, 28, 30], the model's input has [1, 28, 28]"),
        (model.clone(), "ort-x86", vec!["--evaluation", &calibration], "Accuracy needs labels"),
        (
            model.clone(),
            "ort-x86",
            vec!["--evaluation", &many],
            "sample 1 has the label 10, the model tells 10 classes apart",
        ),
        (at("nan.onnx"), "ort-x86", vec![], "tensor w: element 0 of 1 is not a number (NaN)"),
        (at("cycle.onnx"), "litert", vec![], "cycle"),
        (at("twice.onnx"), "ort-x86", vec![], "tensor y is made twice"),
        (at("old.onnx"), "litert", vec![], "opset 10; opsets 11 to 21 are"),
        (at("huge.onnx"), "litert", vec![], "which no memory holds"),
        (at("huge.onnx"), "ort-x86", vec![], "which no memory holds"),
        (at("endless.onnx"), "ort-x86", vec![], "too many elements"),
        (at("outside.onnx"), "ort-x86", vec![], "external data file weights.bin"),
        (model.clone(), "litert", one.clone(), "1 sample says nothing about the range of activations"),
        (model.clone(), "ort-x86", one, "1 sample says nothing about the range of activations"),
        (model.clone(), "ort-x86", vec!["--max-accuracy-drop", "0.01"], "maxAccuracyDrop needs evaluation data"),
        (model.clone(), "ort-x86", vec!["--max-size", "0"], "write a number of bytes above 0"),
        (model.clone(), "ort-x86", vec!["--pass", "factorize:macs=0.00001"], "rank 1 everywhere leaves"),
        (at("det.onnx"), "litert", vec![], "Det"),
        (
            at("det.onnx"),
            "ort-x86",
            vec![int8[0], int8[1], "--calibration", &evaluation],
            "no operator with an integer kernel",
        ),
    ];
    for (model, target, more, says) in cases {
        let (code, text) = run(&model, target, &more);
        assert_eq!(code, Some(2), "{model} {target} {more:?}: {text}");
        assert!(text.starts_with("error: ") && text.contains(says), "{model} {target} {more:?}: {text}");
    }
}

#[test]
fn a_missing_runtime_is_named_and_ends_in_4() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_edgeyard-optimizer"))
        .args(["run", "--target", "ort-x86", "--model"])
        .arg(mnist_model())
        .arg("--out")
        .arg(folder.path().join("out"))
        .env("EDGEYARD_ORT_LIB", "/nowhere/libonnxruntime.so")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("EDGEYARD_ORT_LIB"), "{}", said(&output));
}

#[test]
fn targets_and_completions_are_told() {
    let targets = optimizer(&["targets", "--output", "json"]);
    let targets: Value = serde_json::from_slice(&targets.stdout).unwrap();
    let tflm = targets.as_array().unwrap().iter().find(|target| target["name"] == "tflm").unwrap();
    assert_eq!(tflm["takes"], serde_json::json!(["int8"]));
    for shell in ["bash", "zsh", "fish"] {
        assert!(String::from_utf8_lossy(&optimizer(&["completion", shell]).stdout).contains("edgeyard-optimizer"));
    }
}

/// Runs `job` on a spec; gives the exit code and the last words.
fn job(spec: &str) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let (file, log) = (folder.path().join("job.json"), folder.path().join("log"));
    std::fs::write(&file, spec).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_edgeyard-optimizer"))
        .arg("job")
        .arg("--spec")
        .arg(file)
        .env("EDGEYARD_TERMINATION_LOG", &log)
        .output()
        .unwrap();
    (output.status.code(), serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap())
}

#[test]
fn a_job_spec_of_another_version_or_kind_is_refused_in_its_last_words() {
    let (code, words) = job(r#"{"schemaVersion": "2.0"}"#);
    assert_eq!((code, words["reason"].as_str()), (Some(2), Some("VersionSkew")));
    let (code, words) = job("nonsense");
    assert_eq!((code, words["reason"].as_str()), (Some(2), Some("MalformedSpec")));
}

#[test]
fn inspect_counts_what_the_examples_have() {
    let model = mnist_model().display().to_string();
    let output = optimizer(&["inspect", &model, "--output", "json"]);
    assert!(output.status.success(), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    // 3×3 convolutions of 1→8, 8→16 and 16→32 channels on 28, 14 and 7 pixels a side, and 1,568 × 10.
    let macs = 28 * 28 * 9 * 8 + 14 * 14 * 72 * 16 + 7 * 7 * 144 * 32 + 15_680;
    let parameters = (72 + 8) + (1152 + 16) + (4608 + 32) + (15_680 + 10);
    assert_eq!(found["total"]["macs"], macs);
    assert_eq!(found["total"]["parameters"], parameters);
    assert_eq!(found["layers"][0]["outputShape"], serde_json::json!([1, 8, 28, 28]));
    assert_eq!(found["inputs"][0]["shape"], serde_json::json!([null, 1, 28, 28]));
    // What is lowered of it costs the same.
    let folder = tempfile::tempdir().unwrap();
    let (calibration, evaluation) = data(folder.path(), 10);
    for passes in [&[][..], &["int8"]] {
        make("litert", passes, folder.path(), &calibration, &evaluation);
        let file = folder.path().join(format!("litert{}/model.tflite", passes.concat())).display().to_string();
        let output = optimizer(&["inspect", &file, "--output", "json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["total"]["macs"], macs, "{found:#}");
        assert_eq!(found["total"]["parameters"], parameters, "{found:#}");
    }
    let text = optimizer(&["inspect", &model]);
    assert!(String::from_utf8_lossy(&text.stdout).contains(&format!("{macs} MACs")));
}

#[test]
fn inspect_refuses_what_is_no_model_and_shapes_that_do_not_fit() {
    let model = mnist_model().display().to_string();
    let says = |arguments: &[&str]| {
        let output = optimizer(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        said(&output)
    };
    assert!(says(&["inspect", "/nowhere/net.onnx"]).contains("/nowhere/net.onnx"));
    assert!(says(&["inspect", &model, "--input-shape", "x=1,1,28,28"]).contains("it has image"));
    assert!(says(&["inspect", &model, "--input-shape", "image=1,3,28,28"]).contains("declares [batch, 1, 28, 28]"));
}

#[test]
fn diff_shows_where_the_noise_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let (calibration, evaluation) = data(folder.path(), 32);
    let model = mnist_model().display().to_string();
    let plot = folder.path().join("noise.svg");
    let same = optimizer(&["diff", &model, &model, "--data", &evaluation, "--output", "json"]);
    let same: Value = serde_json::from_slice(&same.stdout).unwrap();
    for row in same["outputs"].as_array().unwrap().iter().chain(same["layers"].as_array().unwrap()) {
        assert_eq!((row["maxAbsDifference"].as_f64(), row["sqnrDb"].as_f64()), (Some(0.0), None), "{row}");
    }
    for target in ["ort-x86", "litert", "tflm"] {
        let made = make(target, &["int8"], folder.path(), &calibration, &evaluation);
        let file = if target == "ort-x86" { "model.onnx" } else { "model.tflite" };
        let file = folder.path().join(format!("{target}int8")).join(file).display().to_string();
        let plotted = plot.display().to_string();
        let arguments =
            ["diff", &model, &file, "--data", &evaluation, "--samples", "32", "--plot", &plotted, "--output", "json"];
        let output = optimizer(&arguments);
        assert!(output.status.success(), "{target}: {}", said(&output));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        // The report of the run measured the same noise on the same samples.
        let reported = made.report["agreement"]["sqnrDb"].as_f64().unwrap();
        let compared = found["outputs"][0]["sqnrDb"].as_f64().unwrap();
        assert!((reported - compared).abs() < 0.1, "{target}: {reported} and {compared}");
        let layers = found["layers"].as_array().unwrap();
        assert!(
            layers.len() >= 4 && layers.iter().all(|layer| layer["sqnrDb"].as_f64().unwrap() > 15.0),
            "{target}: {found:#}"
        );
        let drawn = std::fs::read_to_string(&plot).unwrap();
        assert_eq!(drawn.matches("<rect").count(), 1 + layers.len() + found["outputs"].as_array().unwrap().len());
        let text = optimizer(&["diff", &model, &file, "--data", &evaluation]);
        assert!(String::from_utf8_lossy(&text.stdout).contains("█"), "{}", said(&text));
    }
}

#[test]
fn lint_says_what_a_target_refuses_before_any_work() {
    let model = mnist_model().display().to_string();
    let fine = optimizer(&["lint", &model, "--target", "tflm", "--pass", "int8"]);
    assert!(fine.status.success(), "{}", said(&fine));
    let assumed = optimizer(&["lint", &model, "--target", "tflm"]);
    assert!(
        assumed.status.success() && said(&assumed).contains("as `--pass int8` would make it"),
        "{}",
        said(&assumed)
    );
    assert_eq!(assumed.stdout, fine.stdout);
    let folder = tempfile::tempdir().unwrap();
    let strange = folder.path().join("exp.onnx");
    std::fs::write(&strange, Builder::new(13, &[1, 1, 28, 28]).node("Exp", &["x"], "y", &[]).bytes()).unwrap();
    let output = optimizer(&["lint", &strange.display().to_string(), "--target", "tflm", "--pass", "int8"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("refused"), "{}", String::from_utf8_lossy(&output.stdout));
    // LiteRT takes floats inside the model: the same operator is told to stay one, and a Conv beside it is not.
    let mixed = folder.path().join("mixed.onnx");
    let built = Builder::new(13, &[1, 1, 28, 28])
        .constant("w", Tensor::f32(&[2, 1, 3, 3], vec![0.1; 18]))
        .node("Conv", &["x", "w"], "a", &[])
        .node("Exp", &["a"], "b", &[])
        .node("Relu", &["b"], "y", &[]);
    std::fs::write(&mixed, built.bytes()).unwrap();
    let lint = |target: &str, pass: &str| {
        let arguments = ["lint", &mixed.display().to_string(), "--target", target, "--pass", pass, "--output", "json"];
        let output = optimizer(&arguments);
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, found) = lint("litert", "int8");
    assert_eq!(code, Some(0), "{found:#}");
    let floats: Vec<&Value> = found.as_array().unwrap().iter().filter(|one| one["rule"] == "integer-kernels").collect();
    assert_eq!(floats.len(), 1, "{found:#}");
    assert_eq!(
        (floats[0]["subject"].as_str(), floats[0]["severity"].as_str()),
        (Some("Exp_b (Exp)"), Some("Fallback"))
    );
    let message = floats[0]["message"].as_str().unwrap();
    assert!(message.contains("EXP has no int8 kernel") && message.contains("stays in float32"), "{message}");
    assert_eq!(lint("litert", "fp16").1, Value::Array(Vec::new()));
    let (code, found) = lint("tflm", "int8");
    let refusals: Vec<&Value> = found.as_array().unwrap().iter().filter(|one| one["severity"] == "Refused").collect();
    assert_eq!((code, refusals.len()), (Some(2), 1), "one operator, one line: {found:#}");
}

#[test]
fn a_size_that_is_not_kept_ends_in_3_and_passes_are_done_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let model = mnist_model().display().to_string();
    let (calibration, _) = data(folder.path(), 10);
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name).display().to_string();
        let mut arguments = vec!["run", "--model", &model, "--target", "ort-x86", "--out", &out];
        arguments.extend(more);
        optimizer(&arguments)
    };
    let large = run("large", &["--max-size", "10Ki"]);
    assert_eq!(large.status.code(), Some(3), "{}", said(&large));
    let passes =
        ["--pass", "prune:pattern=NOfM,n=2,m=4", "--pass", "int8:calibrator=Entropy", "--calibration", &calibration];
    let made = run("made", &passes);
    assert!(made.status.success(), "{}", said(&made));
    let report: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("made/report.json")).unwrap()).unwrap();
    let types: Vec<&str> =
        report["result"]["passes"].as_array().unwrap().iter().map(|pass| pass["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["Prune", "Quantize"]);
    let wrong = run("wrong", &["--pass", "prune:pattern=Some"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(said(&wrong).contains("one of Unstructured, NOfM, Structured"), "{}", said(&wrong));
}
