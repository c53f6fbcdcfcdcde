//! `run` in the real runtimes.

mod support;

use edgeyard_device_runner::npz;
use edgeyard_device_runner::tensor::{Array, Element};
use edgeyard_measure::samples;
use support::{data_set, fail, file, folder, models, need, record, succeed, text};

/// Ten samples; the largest number is at the label, but for the last.
const X: [f32; 30] = [
    1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.1, 0.2, 0.1, 0.5, 0.2, 0.1, 0.2, 0.5, 0.9, 0.8, 0.7, 0.1, 0.9,
    0.7, 0.1, 0.2, 0.9, 1.0, 0.0, 0.0,
];
const Y: [i64; 10] = [0, 1, 2, 0, 1, 2, 0, 1, 2, 2];

fn outputs(folder: &std::path::Path, name: &str) -> Array {
    npz::read(&std::fs::read(folder.join("outputs.npz")).unwrap(), name).unwrap().unwrap()
}

#[test]
fn onnx_runtime_measures_and_scores() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let evaluation = data_set(dir.path(), "e.npz", &[10, 3], &X, Some(&Y));
    let out = dir.path().join("out");
    let printed = succeed(&[
        "run",
        "--model",
        text(&model),
        "--device-class",
        "host-cpu",
        "--evaluation",
        text(&evaluation),
        "--profile",
        "Smoke",
        "--save-outputs",
        "--out",
        text(&out),
    ]);
    assert!(printed.contains("90.00 %"), "{printed}");
    let record = record(&out);
    let result = &record.results[0];
    assert_eq!((result.target.as_str(), result.outcome.as_str()), ("ort-x86", "Succeeded"));
    let accuracy = result.accuracy.as_ref().unwrap();
    assert_eq!((accuracy.correct.unwrap(), accuracy.sample_count, accuracy.value.as_str()), (9, 10, "0.900000"));

    let latency = result.latency.as_ref().unwrap();
    assert!(latency.count >= 662 && latency.warm_up_count >= 10);
    let p = |name: &str| &latency.percentiles[name];
    assert!(
        p("50").value_nanoseconds <= p("90").value_nanoseconds
            && p("90").value_nanoseconds <= p("99").value_nanoseconds
    );
    assert!(p("50").lower_nanoseconds.unwrap() <= p("50").value_nanoseconds);
    let packed = latency.samples.as_ref().unwrap();
    let samples = match (&packed.data, &packed.digest) {
        (Some(data), _) => samples::from_text(data).unwrap(),
        (None, digest) => {
            let name = digest.as_ref().unwrap().trim_start_matches("sha256:").to_owned();
            samples::unpack(&std::fs::read(out.join("blobs").join(name)).unwrap()).unwrap()
        }
    };
    assert_eq!(samples.len() as u64, latency.count);
    assert_eq!(samples.iter().map(|sample| sample.duration).min().unwrap(), latency.minimum_nanoseconds);
    assert!(samples.windows(2).all(|pair| pair[0].start + pair[0].duration <= pair[1].start), "samples overlap");

    let array = outputs(&out, "output_0");
    assert_eq!((array.element, array.shape.as_slice()), (Element::F32, &[10, 3][..]));
    assert_eq!(array.data, support::bytes(&X.map(|x| 2.0 * x)));
}

#[test]
fn litert_runs_float_and_int8() {
    need("EDGEYARD_LITERT_LIB");
    let dir = folder();
    let float = file(dir.path(), "float.tflite", &models::dense_tflite());
    let int8 = file(dir.path(), "int8.tflite", &models::dense_tflite_int8());
    let inputs = data_set(dir.path(), "i.npz", &[10, 3], &X, None);
    let out = dir.path().join("out");
    succeed(&[
        "run",
        "--model",
        text(&float),
        "--model",
        text(&int8),
        "--device-class",
        "host-cpu",
        "--inputs",
        text(&inputs),
        "--profile",
        "Smoke",
        "--save-outputs",
        "--out",
        text(&out),
    ]);
    let record = record(&out);
    assert!(record.results.iter().all(|result| result.target == "litert" && result.outcome == "Succeeded"));
    assert_eq!(record.results[0].settings["fullyDelegated"], "true", "XNNPACK does not run the model");
    assert_eq!(outputs(&out, "float/float/litert/output_0").data, support::bytes(&X.map(|x| 2.0 * x)));
    let quantized = outputs(&out, "int8/int8/litert/output_0");
    assert_eq!(quantized.element, Element::I8);
    // 2 x in steps of 0.02 is 100 x.
    let wanted: Vec<u8> = X.iter().map(|x| (100.0 * x).round() as u8).collect();
    assert_eq!(quantized.data, wanted);
    let scale = outputs(&out, "int8/int8/litert/output_0_scale");
    assert_eq!(Element::F32.read(&scale.data) as f32, 0.02);
}

#[test]
fn variants_take_turns() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let out = dir.path().join("out");
    succeed(&[
        "run",
        "--model",
        text(&model),
        "--model",
        text(&model),
        "--device-class",
        "host-cpu",
        "--profile",
        "Smoke",
        "--out",
        text(&out),
    ]);
    let record = record(&out);
    assert_ne!(record.results[0].variant, record.results[1].variant);
    let windows = |index: usize| &record.results[index].latency.as_ref().unwrap().windows;
    assert_eq!((windows(0).len(), windows(1).len()), (4, 4));
    for (a, b) in windows(0).iter().zip(windows(1)) {
        assert!(a.end_nanoseconds <= b.start_nanoseconds, "B began before A's turn was over");
    }
    for (b, a) in windows(1).iter().zip(&windows(0)[1..]) {
        assert!(b.end_nanoseconds <= a.start_nanoseconds, "A began before B's turn was over");
    }
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let digest = |seed: &str, out: &str| {
        let out = dir.path().join(out);
        let arguments = ["--profile", "Smoke", "--seed", seed, "--out", text(&out)];
        succeed(&[&["run", "--model", text(&model), "--device-class", "host-cpu"][..], &arguments].concat());
        record(&out).results[0].output_digest.clone().unwrap()
    };
    let first = digest("1", "a");
    assert_eq!(first, digest("1", "b"));
    assert_ne!(first, digest("2", "c"));
}

#[test]
fn emulated_devices_have_no_times() {
    need("EDGEYARD_LITERT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.tflite", &models::dense_tflite());
    let evaluation = data_set(dir.path(), "e.npz", &[10, 3], &X, Some(&Y));
    let architecture = if cfg!(target_arch = "aarch64") { "Arm64" } else { "Amd64" };
    let class = format!(
        "{{metadata: {{name: pretend}}, spec: {{fidelity: Emulated, targets: [litert], backend: {{type: Runtime}}, runner: \
         {{architecture: {architecture}}}}}}}"
    );
    let class = file(dir.path(), "class.yaml", class.as_bytes());
    let out = dir.path().join("out");
    succeed(&[
        "run",
        "--model",
        text(&model),
        "--device-class",
        text(&class),
        "--evaluation",
        text(&evaluation),
        "--out",
        text(&out),
    ]);
    let record = record(&out);
    let result = &record.results[0];
    assert_eq!(result.accuracy.as_ref().unwrap().correct, Some(9));
    assert!(
        result.latency.is_none() && result.load_nanoseconds.is_none() && result.first_inference_nanoseconds.is_none()
    );
    assert_eq!(result.unavailable["latency"], "EmulatedClock");
    assert_eq!(record.device.fidelity, "Emulated");
    if cfg!(target_arch = "x86_64") {
        let arguments = ["run", "--model", text(&model), "--device-class", "qemu-raspberry-pi", "--out", text(&out)];
        fail(&arguments, 2, "WrongArchitecture", "aarch64");
    }
}

#[test]
fn an_output_that_is_no_number_invalidates() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "log.onnx", &models::log_onnx());
    let inputs = data_set(dir.path(), "i.npz", &[1, 2], &[-1.0, 1.0], None);
    let out = dir.path().join("out");
    succeed(&[
        "run",
        "--model",
        text(&model),
        "--device-class",
        "host-cpu",
        "--inputs",
        text(&inputs),
        "--profile",
        "Smoke",
        "--out",
        text(&out),
    ]);
    let record = record(&out);
    assert_eq!(record.validity.state, "Invalid");
    assert!(record.validity.reasons.contains(&"NaNOutput".to_owned()));
}

#[test]
fn inspect_tells_what_is_in_a_record() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let out = dir.path().join("out");
    succeed(&["run", "--model", text(&model), "--device-class", "host-cpu", "--profile", "Smoke", "--out", text(&out)]);
    let path = out.join("record.json");
    let plots = dir.path().join("plots");
    let printed = succeed(&["inspect", text(&path), "--plots", text(&plots)]);
    assert!(printed.contains("early stopping") && printed.contains("no accuracy: NotRequested"), "{printed}");
    let json: serde_json::Value =
        serde_json::from_str(&succeed(&["inspect", text(&path), "--output", "json"])).unwrap();
    assert_eq!(json, serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path).unwrap()).unwrap());
    let python = need("EDGEYARD_PYTHON");
    for name in ["latency.svg", "dense-dense-ort-x86-histogram.svg"] {
        let script = "import sys, xml.etree.ElementTree as tree; print(tree.parse(sys.argv[1]).getroot().tag)";
        let parsed =
            std::process::Command::new(&python).args(["-c", script, text(&plots.join(name))]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&parsed.stdout).trim(), "{http://www.w3.org/2000/svg}svg", "{name}");
    }
    assert!(!plots.join("power.svg").exists(), "no meter, no power");
    fail(&["inspect", text(&model)], 2, "NotARecord", "dense.onnx");
}

/// The library of the tests is built without CUDA; a machine with a GPU has another.
#[test]
fn a_gpu_that_is_not_there_is_told() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let class = "{metadata: {name: gpu}, spec: {fidelity: Hardware, targets: [ort-x86], backend: {type: Runtime, runtime: {executionProvider: Cuda}}}}";
    let class = file(dir.path(), "gpu.yaml", class.as_bytes());
    let out = dir.path().join("out");
    for device in
        [&["--device-class", text(&class)][..], &["--device-class", "host-cpu", "--execution-provider", "Cuda"]]
    {
        let base = ["run", "--model", text(&model), "--profile", "Smoke", "--out", text(&out)];
        fail(&[&base[..], device].concat(), 4, "ProviderUnavailable", "onnxruntime-gpu");
    }
}

#[test]
fn bad_input_is_told_before_anything_runs() {
    need("EDGEYARD_ORT_LIB");
    need("EDGEYARD_LITERT_LIB");
    let dir = folder();
    let good = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let tflite = models::dense_tflite();
    let lite = file(dir.path(), "dense.tflite", &tflite);
    let out = dir.path().join("out");
    let run = |model: &std::path::Path, more: &[&str], reason: &str, hint: &str| {
        let base = ["run", "--model", text(model), "--profile", "Smoke", "--out", text(&out)];
        let class = if more.contains(&"--device-class") { &[][..] } else { &["--device-class", "host-cpu"] };
        fail(&[&base[..], class, more].concat(), 2, reason, hint);
    };
    run(&good, &["--device-class", "quantum"], "UnknownDeviceClass", "host-cpu");
    run(&good, &["--target", "tflm"], "UnsupportedTarget", "ort-x86, litert");
    run(&dir.path().join("none.onnx"), &[], "FileUnreadable", "none.onnx");
    run(&file(dir.path(), "noise.onnx", b"this is no protobuf at all"), &[], "CorruptModel", "");
    run(&file(dir.path(), "empty.onnx", b""), &[], "CorruptModel", "empty");
    run(&file(dir.path(), "half.tflite", &tflite[..tflite.len() / 2]), &[], "CorruptModel", "half.tflite");
    run(&file(dir.path(), "text.tflite", b"no flatbuffer here"), &[], "CorruptModel", "TFL3");
    let wrong = data_set(dir.path(), "wrong.npz", &[1, 5], &[0.0; 5], Some(&[0]));
    run(&good, &["--evaluation", text(&wrong)], "DatasetDoesNotFit", "[5]");
    run(&lite, &["--evaluation", text(&wrong)], "DatasetDoesNotFit", "[1, 3]");
    let unlabelled = data_set(dir.path(), "unlabelled.npz", &[10, 3], &X, None);
    run(&good, &["--evaluation", text(&unlabelled)], "LabelsMissing", "\"y\"");
    let empty = data_set(dir.path(), "no.npz", &[0, 3], &[], Some(&[]));
    run(&good, &["--evaluation", text(&empty)], "EvaluationEmpty", "no samples");
    let beyond = data_set(dir.path(), "beyond.npz", &[1, 3], &[0.0; 3], Some(&[7]));
    run(&good, &["--evaluation", text(&beyond)], "DatasetDoesNotFit", "label 7");
    run(&good, &["--evaluation", text(&lite)], "DatasetMalformed", "");
    let class = "{metadata: {name: tiny}, spec: {fidelity: Hardware, targets: [litert], limits: {flash: 16}, backend: {type: Runtime}}}";
    let class = file(dir.path(), "tiny.yaml", class.as_bytes());
    run(&lite, &["--device-class", text(&class)], "ModelTooLarge", "flash 16");
}

#[test]
fn a_recorded_meter_tells_energy() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let meter = dir.path().join("meter");
    std::fs::create_dir(&meter).unwrap();
    file(
        &meter,
        "meter.json",
        br#"{"name": "lab", "scope": "board", "periodNanoseconds": 1000000, "millivolts": 5000}"#,
    );
    // Two watts for ever: what an inference takes is two watts times its share of the windows, and nothing above idling.
    file(&meter, "readings.csv", b"nanoseconds,watts\n0,2.0\n1000000,2.0\n");
    let out = dir.path().join("out");
    let replay = format!("replay:{}", text(&meter));
    succeed(&[
        "run",
        "--model",
        text(&model),
        "--device-class",
        "host-cpu",
        "--profile",
        "Smoke",
        "--meter",
        &replay,
        "--out",
        text(&out),
    ]);
    let found = record(&out);
    let energy = found.results[0].energy.as_ref().unwrap();
    let latency = found.results[0].latency.as_ref().unwrap();
    let seconds: u64 = latency.windows.iter().map(|window| window.end_nanoseconds - window.start_nanoseconds).sum();
    let count: u64 = latency.windows.iter().map(|window| window.count).sum();
    let wanted = 2 * seconds / count;
    assert!(energy.gross_nanojoules.abs_diff(wanted) <= wanted / 50 + 1, "{} is not {wanted}", energy.gross_nanojoules);
    assert!(energy.net_nanojoules.unsigned_abs() <= 1, "{}", energy.net_nanojoules);
    assert_eq!((energy.supply_millivolts, energy.scope.as_str()), (Some(5000), "board"));
    assert_eq!(energy.idle_microwatts, [2_000_000, 2_000_000]);
    let power = found.power.as_ref().unwrap();
    let readings = samples::from_text(power.series.data.as_ref().unwrap()).unwrap();
    assert_eq!((readings.len() as u64, power.scope.as_str()), (power.count, "board"));
    assert!(readings.iter().all(|reading| reading.duration == 2_000_000), "two watts are two million microwatts");
    let plots = dir.path().join("plots");
    succeed(&["inspect", text(&out.join("record.json")), "--plots", text(&plots)]);
    assert!(std::fs::read_to_string(plots.join("power.svg")).unwrap().contains("<polyline"));
    let arguments = ["--profile", "Smoke", "--meter", "sundial", "--out", text(&out)];
    let arguments = [&["run", "--model", text(&model), "--device-class", "host-cpu"][..], &arguments].concat();
    fail(&arguments, 2, "UnknownMeter", "rapl, hwmon:CHIP");
}

#[test]
fn variants_are_compared_with_the_first() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let fast = file(dir.path(), "fast.onnx", &models::slow_onnx(64));
    let slow = file(dir.path(), "slow.onnx", &models::slow_onnx(160));
    let out = dir.path().join("out");
    succeed(&[
        "run",
        "--model",
        text(&fast),
        "--model",
        text(&slow),
        "--device-class",
        "host-cpu",
        "--profile",
        "Quick",
        "--out",
        text(&out),
    ]);
    let found = record(&out);
    assert_eq!(found.results[0].unavailable["comparison"], "IsReference");
    let comparison = found.results[1].comparison.as_ref().unwrap();
    assert_eq!(comparison.reference, "fast/fast/ort-x86");
    let latency = comparison.latency.as_ref().unwrap();
    // Fifteen times the multiplications: no noise hides that.
    assert!(latency.shift_nanoseconds > 0 && latency.lower_nanoseconds > 0);
    assert!(latency.p_value.parse::<f64>().unwrap() < 0.01);
    assert_eq!(comparison.unavailable["accuracy"], "NotRequested");
}

#[test]
fn python_gives_the_record_the_same_digest() {
    need("EDGEYARD_ORT_LIB");
    let python = need("EDGEYARD_PYTHON");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let out = dir.path().join("out");
    succeed(&["run", "--model", text(&model), "--device-class", "host-cpu", "--profile", "Smoke", "--out", text(&out)]);
    let path = out.join("record.json");
    // Written anew from what was parsed: RFC 8785 for a document without fractions.
    let script = "import hashlib, json, sys\n\
                  document = json.load(open(sys.argv[1], encoding='utf-8'))\n\
                  text = json.dumps(document, sort_keys=True, separators=(',', ':'), ensure_ascii=False)\n\
                  print('sha256:' + hashlib.sha256(text.encode('utf-8')).hexdigest())";
    let output = std::process::Command::new(python).args(["-c", script, text(&path)]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (_, digest) = record(&out).seal().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), digest);
}

/// Runs a model on samples and numbers, and gives its accuracy.
fn accuracy(model: &[u8], metric: &str, x: (&[usize], &[f32]), y: &[f32]) -> edgeyard_record::Accuracy {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "m.onnx", model);
    let array = |shape: &[usize], values: &[f32]| Array {
        element: Element::F32,
        shape: shape.into(),
        data: support::bytes(values),
    };
    let count = x.0[0];
    let (x, y) = (array(x.0, x.1), array(&[count, y.len() / count], y));
    let set = file(dir.path(), "e.npz", &npz::write([("x", &x), ("y", &y)]).unwrap());
    let out = dir.path().join("out");
    let base = ["run", "--device-class", "host-cpu", "--profile", "Smoke", "--metric", metric, "--out", text(&out)];
    succeed(&[&base[..], &["--model", text(&model), "--evaluation", text(&set)]].concat());
    let result = record(&out).results.remove(0);
    assert!(result.output_digest.is_some());
    result.accuracy.unwrap()
}

#[test]
fn numbers_and_curves_are_scored_with_their_intervals() {
    let x: Vec<f32> = (0..60).map(|n| n as f32 / 10.0).collect();
    // The model doubles; one sample in two is half a unit away in each of its three numbers.
    let y: Vec<f32> = x.iter().enumerate().map(|(n, x)| 2.0 * x + if n / 3 % 2 == 0 { 0.5 } else { 0.0 }).collect();
    let found = accuracy(&models::dense_onnx(), "MeanAbsoluteError", (&[20, 3], &x), &y);
    assert_eq!(
        (found.metric.as_str(), found.value.as_str(), found.sample_count),
        ("MeanAbsoluteError", "0.250000", 20)
    );
    let number = |text: &str| text.parse::<f64>().unwrap();
    assert!(number(&found.lower) < 0.25 && 0.25 < number(&found.upper), "{found:?}");
    assert_eq!((found.interval_method.as_str(), found.correct), ("Bootstrap", None));
    assert_eq!(found.unavailable["correct"], "NotCounted");

    // The second logarithm less the first rises with n: the last ten are the positive ones, but for one that is not.
    let x: Vec<f32> = (0..20).flat_map(|n| [1.0, 1.0 + n as f32]).collect();
    let y: Vec<f32> = (0..20).map(|n| if n >= 10 && n != 12 { 1.0 } else { 0.0 }).collect();
    let found = accuracy(&models::log_onnx(), "AreaUnderCurve", (&[20, 2], &x), &y);
    // Of 9 · 11 pairs, the stray is above the two positives before it.
    assert_eq!(found.value, format!("{:.6}", 97.0 / 99.0));
    let found = accuracy(&models::log_onnx(), "MacroF1", (&[20, 2], &x), &y);
    // All but the first (a tie, which the first class wins) are called 1: 9 right of 19 answers and 9 truths; class 0 has 1 of 1 and 11.
    assert_eq!(found.value, format!("{:.6}", (18.0 / 28.0 + 2.0 / 12.0) / 2.0));
}

#[test]
fn answers_that_do_not_fit_are_told_before_anything_is_measured() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let set = data_set(dir.path(), "e.npz", &[20, 3], &[0.5; 60], Some(&[0, 1, 2, 7].repeat(5)));
    let out = dir.path().join("out");
    let run = |metric: &str, hint: &str, reason: &str| {
        let base = [
            "run",
            "--model",
            text(&model),
            "--device-class",
            "host-cpu",
            "--profile",
            "Standard",
            "--out",
            text(&out),
        ];
        fail(&[&base[..], &["--evaluation", text(&set), "--metric", metric]].concat(), 2, reason, hint);
    };
    // Profile Standard: a test that measured first would take minutes.
    run("Top1Accuracy", "label 7 of sample 3", "DatasetDoesNotFit");
    run("MacroF1", "label 7 of sample 3", "DatasetDoesNotFit");
    run("MeanAbsoluteError", "y has 1 numbers", "DatasetDoesNotFit");
    run("AreaUnderCurve", "y holds 2", "DatasetMalformed");
}
