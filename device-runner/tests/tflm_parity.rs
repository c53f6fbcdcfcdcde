//! Random models of one operator each, and published ones, on every emulated core against TensorFlow Lite Micro, bit for bit:
//! the suite `tflm-parity` of `cargo xtask test`, which sets the seed and makes the MNIST model. Not run with the other tests
//! (`test = false` in Cargo.toml).

mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use edgeyard_device_runner::cortex_m::{Emulator, Machine};
use support::{folder, need, text};

/// Every emulated core: only their kernels differ.
const MACHINES: [&str; 4] = ["mps2-an386", "mps2-an385", "mps2-an500", "mps3-an547"];
/// Of 22 models one has several operators, so that these have 420 of a single one.
const GENERATED: usize = 440;
/// Emulators at the same time, each with one processor.
const SIDE_BY_SIDE: usize = 2;

/// A model with inputs and what the oracle computed from them.
struct Case {
    name: String,
    model: Vec<u8>,
    inputs: Vec<i8>,
    outputs: Vec<u8>,
}

fn seed() -> String {
    std::env::var("EDGEYARD_TEST_SEED").unwrap_or_else(|_| "1".into())
}

/// Runs the oracle's generator.
fn generate(folder: &Path, arguments: &[&str]) -> Vec<Case> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-lab/firmware/oracle/generate.py");
    let mut command = Command::new(need("EDGEYARD_PYTHON"));
    let ran = command.arg(script).args(["--seed", &seed()]).args(arguments).arg(folder).output().unwrap();
    assert!(ran.status.success(), "generator: {}", String::from_utf8_lossy(&ran.stderr));
    let mut models: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|extension| extension == "tflite"));
    models.sort();
    let read = |path: &Path, extension: &str| std::fs::read(path.with_extension(extension)).unwrap();
    let case = |path: &PathBuf| Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        model: read(path, "tflite"),
        inputs: read(path, "in").iter().map(|byte| *byte as i8).collect(),
        outputs: read(path, "out"),
    };
    models.iter().map(case).collect()
}

/// What is wrong with a case on a device.
fn check(emulator: &mut Emulator, case: &Case) -> Result<(), String> {
    let info = emulator.load(&case.model).map_err(|error| error.to_string())?;
    let results =
        emulator.infer_all(case.inputs.chunks_exact(info.input_bytes())).map_err(|error| error.to_string())?;
    if results.is_empty() || results.iter().any(|result| result.instructions == 0) {
        return Err("an inference of no instructions, or none".into());
    }
    let got: Vec<u8> = results.into_iter().flat_map(|result| result.outputs).collect();
    let differ = got.iter().zip(&case.outputs).filter(|(a, b)| a != b).count();
    if got == case.outputs {
        return Ok(());
    }
    Err(format!("{differ} of {} bytes differ ({} were computed)", case.outputs.len(), got.len()))
}

/// Fails with all that differ, not only the first: the pattern says what is wrong.
fn assert_equal(cases: &[Case]) {
    assert!(!cases.is_empty());
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(String::new());
    let compared = AtomicUsize::new(0);
    let work = || {
        while let Some(name) = MACHINES.get(next.fetch_add(1, Ordering::Relaxed)) {
            let machine = Machine::from_environment(name, 6).unwrap();
            let mut emulator = Emulator::start(&machine).unwrap_or_else(|error| panic!("{name}: {error}"));
            for case in cases {
                if let Err(why) = check(&mut emulator, case) {
                    writeln!(wrong.lock().unwrap(), "{} on {name}: {why}", case.name).unwrap();
                }
                compared.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(work);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "seed {}: these differ from TensorFlow Lite Micro:\n{wrong}", seed());
    assert_eq!(compared.into_inner(), cases.len() * MACHINES.len());
}

#[test]
fn generated_models_are_equal_on_every_core() {
    let dir = folder();
    let cases = generate(dir.path(), &["--count", &GENERATED.to_string()]);
    let networks = cases.iter().filter(|case| case.name.ends_with("network")).count();
    assert!(cases.len() - networks >= 200, "{} models of one operator", cases.len() - networks);
    assert_equal(&cases);
}

/// The folder of the models in a published crate, which is fetched and never built.
fn published() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-lab/firmware/models/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(ran.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&ran.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found = packages.iter().find(|package| package["name"] == "microflow").unwrap();
    Path::new(found["manifest_path"].as_str().unwrap()).with_file_name("models")
}

#[test]
fn published_models_are_equal_on_every_core() {
    let dir = folder();
    let models = published();
    let [person, speech] = ["person_detect.tflite", "speech.tflite"].map(|name| models.join(name));
    let cases = generate(dir.path(), &["--trials", "10", "--model", text(&person), "--model", text(&speech)]);
    assert_eq!(cases.len(), 2);
    assert_equal(&cases);
}

/// What our own optimizer makes of a network in floating point.
#[test]
fn mnist_is_equal_on_every_core() {
    let dir = folder();
    let model = need("EDGEYARD_MNIST_TFLITE");
    let cases = generate(dir.path(), &["--trials", "20", "--model", text(&model)]);
    assert_eq!(cases.len(), 1);
    assert_equal(&cases);
}
