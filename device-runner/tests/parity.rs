//! `parity`: the program against TensorFlow Lite Micro, and all that it refuses.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use support::{command, file, folder, lying_qemu, models, need, script, text};

/// A QEMU that must not be reached.
const NO_QEMU: &[(&str, &str)] = &[("EDGEYARD_QEMU_ARM", "/nonexistent/qemu-system-arm")];

fn parity(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    for variable in ["EDGEYARD_QEMU_ARM", "EDGEYARD_FIRMWARE_DIR", "EDGEYARD_PYTHON"] {
        need(variable);
    }
    let mut command = command(&["parity"]);
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn report(output: &Output, code: i32) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(output: &Output, code: i32, reason: &str, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(&format!("({reason})")), "{stderr}");
    words.iter().for_each(|word| assert!(stderr.contains(word), "{word}: {stderr}"));
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn dense(folder: &Path) -> PathBuf {
    file(folder, "dense.tflite", &models::dense_tflite_int8())
}

#[test]
fn an_int8_model_equals_the_oracle_on_every_core_and_repeats_to_the_digit() {
    let dir = folder();
    let model = dense(dir.path());
    for class in ["qemu-cortex-m3", "qemu-cortex-m4", "qemu-cortex-m7", "qemu-cortex-m55"] {
        let arguments = [text(&model), "--device-class", class, "--inputs", "40", "--seed", "9", "--output", "json"];
        let first = report(&parity(&arguments, &[]), 0);
        assert_eq!(first["equal"], true, "{class}: {first}");
        assert_eq!((&first["maxAbsDifference"], &first["mismatches"]), (&0.into(), &0.into()));
        assert_eq!(first["elements"], 40 * models::CLASSES);
        let by_operator: u64 =
            first["perOp"].as_array().unwrap().iter().map(|op| op["instructions"].as_u64().unwrap()).sum();
        assert!(by_operator > 9);
        assert_eq!(first["instructionsPerInference"], by_operator);
        assert_eq!(first["perOp"][0]["name"], "FULLY_CONNECTED");
        let kinds = ["load", "store", "multiply", "branch", "vector", "float", "other"];
        let mix: u64 = kinds.iter().map(|kind| first["mix"][kind].as_u64().unwrap()).sum();
        assert!(mix > by_operator && mix < by_operator + 400, "{}", first["mix"]);
        let bytes = |name: &str| first[name].as_u64().unwrap();
        assert!(bytes("flashBytes") > models::dense_tflite_int8().len() as u64);
        assert_eq!(bytes("ramBytes"), bytes("arenaBytes") + bytes("stackBytes") + bytes("ioBytes"));
        assert!(first["oracle"].as_str().unwrap().starts_with("tflite-micro 0"), "{first}");
        assert_eq!(report(&parity(&arguments, &[]), 0), first, "{class}");
    }
}

#[test]
fn the_table_says_it_for_people() {
    let dir = folder();
    let output = parity(&[text(&dense(dir.path()))], &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    for words in [
        "mix           ",
        "equal: 30 of 30 output elements",
        "qemu-cortex-m4 (mps2-an386)",
        "FULLY_CONNECTED",
        "100.0 %",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
}

/// The real oracle, with one added to every byte of what it computed.
#[test]
fn outputs_that_differ_end_with_3_and_say_how_much_and_where() {
    let dir = folder();
    let real = need("EDGEYARD_PYTHON");
    let body = format!(
        "'{}' \"$@\" || exit\nfor last; do :; done\nLC_ALL=C tr '\\000-\\377' '\\001-\\377\\000' < \"$last\" > \"$last.new\" && mv \
         \"$last.new\" \"$last\"",
        text(&real)
    );
    let python = script(dir.path(), "python", &body);
    let environment = [("EDGEYARD_PYTHON", text(&python))];
    let model = dense(dir.path());
    let told = report(&parity(&[text(&model), "--inputs", "5", "-o", "json"], &environment), 3);
    assert_eq!((&told["equal"], &told["mismatches"]), (&false.into(), &(5 * models::CLASSES).into()));
    assert!(told["maxAbsDifference"].as_u64().unwrap() >= 1);
    let first = &told["firstMismatch"];
    assert_eq!([&first["input"], &first["output"], &first["element"]], [&Value::from(0); 3]);
    assert_ne!(first["got"], first["want"]);
}

#[test]
fn a_float_model_is_refused_before_qemu_with_the_tensor() {
    let dir = folder();
    let model = file(dir.path(), "float.tflite", &models::dense_tflite());
    let output = parity(&[text(&model)], NO_QEMU);
    refused(&output, 2, "ModelRefused", &["FULLY_CONNECTED", "tensor \"x\"", "quantise the model to int8"]);
}

#[test]
fn a_damaged_file_is_refused_before_qemu() {
    let dir = folder();
    let bytes = models::dense_tflite_int8();
    let cut = file(dir.path(), "cut.tflite", &bytes[..bytes.len() / 2]);
    refused(&parity(&[text(&cut)], NO_QEMU), 2, "CorruptModel", &["cut.tflite", "damaged"]);
    let other = file(dir.path(), "other.tflite", b"GIF89a, and no model at all");
    refused(&parity(&[text(&other)], NO_QEMU), 2, "CorruptModel", &["TFL3"]);
    refused(&parity(&["/nonexistent.tflite"], NO_QEMU), 2, "FileUnreadable", &["/nonexistent.tflite"]);
}

#[test]
fn a_model_without_room_is_refused_before_qemu_with_both_numbers() {
    let dir = folder();
    let model = dense(dir.path());
    let size = models::dense_tflite_int8().len();
    let refuse = |limits: &str, environment: &[(&str, &str)], words: &str| {
        let class = format!(
            "{{metadata: {{name: tight}}, spec: {{fidelity: Emulated, targets: [tflm], limits: {limits}, backend: {{type: \
             CortexM, cortexM: {{machine: mps2-an386, icountShift: 6}}}}}}}}"
        );
        let class = file(dir.path(), "class.yaml", class.as_bytes());
        let output = parity(&[text(&model), "--device-class", text(&class)], environment);
        refused(&output, 2, "ModelTooLarge", &[words]);
    };
    refuse("{flash: 100}", NO_QEMU, &format!("{size} bytes of flash, and the device has 100"));
    // Three bytes in and three out live together.
    refuse("{arena: 5}", NO_QEMU, "6 bytes of arena at the least, and the device has 5");
    refuse("{memory: 5}", NO_QEMU, "6 bytes of memory at the least, and the device has 5");
    // What only the firmware's own plan and measurement tell.
    refuse("{arena: 6}", &[], "bytes of arena, and the device has 6");
    refuse("{memory: 64}", &[], "bytes of memory, and the device has 64");
    refuse(&format!("{{flash: {}}}", size + 1), &[], &format!("bytes of flash, and the device has {}", size + 1));
}

#[test]
fn an_operator_or_version_without_kernel_is_named() {
    let dir = folder();
    let generator = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-lab/firmware/oracle/generate.py");
    let ran = std::process::Command::new(need("EDGEYARD_PYTHON"))
        .arg(generator)
        .args(["--seed", "0", "--refused"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for (name, words) in [
        ("unknown", ["COS", "no kernel"]),
        ("version", ["RELU version 99", "versions up to 3"]),
        ("wide", ["SOFTMAX", "INT16"]),
    ] {
        let model = dir.path().join(format!("{name}.tflite"));
        refused(&parity(&[text(&model)], &[]), 2, "ModelRefused", &words);
    }
}

#[test]
fn counts_that_disagree_end_with_4() {
    let dir = folder();
    let liar = lying_qemu(dir.path());
    let output = parity(&[text(&dense(dir.path()))], &[("EDGEYARD_QEMU_ARM", text(&liar))]);
    refused(&output, 4, "CountsDisagree", &["the firmware counted", "and the plugin 9"]);
}

#[test]
fn a_class_that_is_no_microcontroller_is_refused_with_those_that_are() {
    let dir = folder();
    let output = parity(&[text(&dense(dir.path())), "--device-class", "host-cpu"], NO_QEMU);
    refused(&output, 2, "UnsupportedMachine", &["host-cpu", "qemu-cortex-m4"]);
    let output = parity(&[text(&dense(dir.path())), "--device-class", "nucleo-h743zi2"], NO_QEMU);
    refused(&output, 2, "UnsupportedMachine", &["nucleo-h743zi2", "qemu-cortex-m7"]);
}

#[test]
fn a_qemu_that_is_missing_or_too_old_is_named() {
    let dir = folder();
    let model = dense(dir.path());
    refused(&parity(&[text(&model)], NO_QEMU), 4, "RuntimeMissing", &["/nonexistent/qemu-system-arm", "10 or later"]);
    let old = script(dir.path(), "qemu", "echo 'QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7)'");
    let output = parity(&[text(&model)], &[("EDGEYARD_QEMU_ARM", text(&old))]);
    refused(&output, 4, "RuntimeMissing", &["version 7.2.9", "version 10 or later is needed"]);
    let output = parity(&[text(&model)], &[("EDGEYARD_FIRMWARE_DIR", text(dir.path()))]);
    refused(&output, 4, "RuntimeMissing", &["mps2-an386.elf", "cargo xtask firmware"]);
}

#[test]
fn an_oracle_that_is_missing_is_named_with_what_to_do() {
    let dir = folder();
    let model = dense(dir.path());
    let output = parity(&[text(&model)], &[("EDGEYARD_PYTHON", "/nonexistent/python")]);
    refused(&output, 4, "OracleMissing", &["/nonexistent/python", "tflite-micro", "cargo xtask setup"]);
    // A real Python without the packages: the modules are looked for in an empty place.
    let real = need("EDGEYARD_PYTHON");
    let python = script(dir.path(), "python", &format!("shift\nexec '{}' -I -S \"$@\"", text(&real)));
    let output = parity(&[text(&model)], &[("EDGEYARD_PYTHON", text(&python))]);
    refused(&output, 4, "OracleMissing", &["No module named"]);
    // An oracle that ends its process over the model.
    let python = script(dir.path(), "python", "echo 'no such kernel' >&2\nkill -ABRT $$");
    let output = parity(&[text(&model)], &[("EDGEYARD_PYTHON", text(&python))]);
    refused(&output, 2, "OracleRefused", &["no such kernel"]);
}
