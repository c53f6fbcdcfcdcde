//! The oracle: PyPI's `tflite-micro`, which is TensorFlow Lite Micro's reference kernels, in a process of its own. It ends its
//! process over a model that it does not like.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use crate::cortex_m::ModelInfo;
use crate::error::Failure;

/// Names a Python that has `tflite-micro` and `numpy`.
const VARIABLE: &str = "EDGEYARD_PYTHON";
const SCRIPT: &str = include_str!("oracle.py");
/// How the script says that a module is missing.
const MODULE_MISSING: i32 = 3;

/// A Python with the oracle in it.
pub struct Oracle {
    python: PathBuf,
}

/// What it computed.
pub struct Computed {
    /// The version of `tflite-micro`.
    pub version: String,
    /// All outputs of the first input, of the second, and so on.
    pub outputs: Vec<u8>,
}

impl Oracle {
    /// The Python that the environment names.
    ///
    /// # Errors
    /// `OracleMissing`.
    pub fn from_environment() -> Result<Self, Failure> {
        match std::env::var_os(VARIABLE).map(PathBuf::from) {
            Some(python) if python.is_file() => Ok(Self { python }),
            Some(python) => Err(missing(&format!("{VARIABLE} names {}, which is no file", python.display()))),
            None => Err(missing(&format!("{VARIABLE} is not set"))),
        }
    }

    /// Runs a model on inputs, each of which holds all inputs of the model one after the other.
    ///
    /// # Errors
    /// `OracleMissing`; `OracleRefused` for a model that TensorFlow Lite Micro does not run.
    pub fn compute(&self, model: &[u8], info: &ModelInfo, inputs: &[Vec<i8>]) -> Result<Computed, Failure> {
        let folder = tempfile::tempdir()?;
        let [file, given, got] = ["model.tflite", "inputs", "outputs"].map(|name| folder.path().join(name));
        fs_err::write(&file, model)?;
        let bytes: Vec<u8> = inputs.iter().flatten().map(|value| *value as u8).collect();
        fs_err::write(&given, bytes)?;
        let counts = [inputs.len(), info.inputs.len(), info.outputs.len()].map(|n| OsString::from(n.to_string()));
        let output = Command::new(&self.python)
            .args(["-I", "-c", SCRIPT])
            .args([&file, &given])
            .args(counts)
            .arg(&got)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| missing(&format!("{} does not start: {error}", self.python.display())))?;
        let said = String::from_utf8_lossy(&output.stderr);
        check(output.status, &said, &self.python)?;
        Ok(Computed {
            // The library prints too, to the same stream.
            version: String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().trim().to_owned(),
            outputs: fs_err::read(&got)?,
        })
    }
}

fn check(status: ExitStatus, said: &str, python: &std::path::Path) -> Result<(), Failure> {
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(MODULE_MISSING) {
        return Err(missing(&format!("{}: {}", python.display(), said.trim())));
    }
    let mut last: Vec<&str> = said.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
    last.reverse();
    Err(Failure::bad_input(
        "OracleRefused",
        format!(
            "TensorFlow Lite Micro does not run this model ({status}), so there is nothing to compare with: {}",
            last.join("; ")
        ),
    ))
}

fn missing(state: &str) -> Failure {
    Failure::infrastructure(
        "OracleMissing",
        format!(
            "a Python with the packages tflite-micro and numpy is needed to compare with, and {state}: run through `cargo xtask exec --` \
             after `cargo xtask setup`, or set {VARIABLE}"
        ),
    )
}
