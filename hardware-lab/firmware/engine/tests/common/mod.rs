//! Shared by the tests that compare with the oracle: running the generator, loading its files, comparing.

#![allow(dead_code)] // each test program uses its part
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests fail as tests do

use edgeyard_engine::Engine;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A model with inputs and the oracle's outputs.
pub struct Case {
    pub name: String,
    pub model: Vec<u8>,
    pub inputs: Vec<u8>,
    pub outputs: Vec<u8>,
}

/// Runs the generator with these arguments and returns its cases in order of name.
pub fn generate(folder: &str, arguments: &[&str]) -> Vec<Case> {
    models(folder, arguments).iter().map(|p| case(p)).collect()
}

/// Runs the generator and returns its models' files in order of name; those to be refused have no inputs or outputs.
pub fn models(folder: &str, arguments: &[&str]) -> Vec<PathBuf> {
    let python = std::env::var_os("EDGEYARD_PYTHON")
        .expect("EDGEYARD_PYTHON is not set: run `cargo xtask setup`, then the tests through `cargo xtask test`");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = std::fs::remove_dir_all(&out);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle/generate.py");
    let ran = Command::new(python).arg(script).args(arguments).arg(&out).output().expect("the generator starts");
    assert!(ran.status.success(), "generator: {}", String::from_utf8_lossy(&ran.stderr));
    let mut models: Vec<PathBuf> = std::fs::read_dir(&out)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "tflite"))
        .collect();
    models.sort();
    models
}

fn case(path: &Path) -> Case {
    let read = |extension: &str| std::fs::read(path.with_extension(extension)).unwrap();
    Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        model: read("tflite"),
        inputs: read("in"),
        outputs: read("out"),
    }
}

/// What the engine computes for a case, in the oracle's layout.
pub fn run(case: &Case) -> Result<Vec<u8>, String> {
    let mut arena = vec![0u8; 4 << 20];
    let mut engine = Engine::load(&case.model, &mut arena).map_err(|e| e.to_string())?;
    let size: usize = (0..engine.inputs()).map(|i| engine.input(i).unwrap().0.len()).sum();
    let mut got = Vec::new();
    for trial in case.inputs.chunks_exact(size) {
        let mut rest = trial;
        for i in 0..engine.inputs() {
            let input = engine.input_mut(i);
            let (this, next) = rest.split_at(input.len());
            input.copy_from_slice(this);
            rest = next;
        }
        engine.run();
        for i in 0..engine.outputs() {
            got.extend_from_slice(engine.output_bytes(i));
        }
    }
    Ok(got)
}

/// Fails with all cases that differ, not only the first.
pub fn assert_equal(cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        match run(case) {
            Err(e) => wrong.push(format!("{}: refused: {e}", case.name)),
            Ok(got) if got != case.outputs => {
                let at = got.iter().zip(&case.outputs).position(|(a, b)| a != b);
                let differ = got.iter().zip(&case.outputs).filter(|(a, b)| a != b).count();
                wrong.push(format!(
                    "{}: {differ} of {} bytes differ, the first at {at:?} (lengths {} and {})",
                    case.name,
                    case.outputs.len(),
                    got.len(),
                    case.outputs.len()
                ));
            }
            Ok(_) => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} models differ from the oracle:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
