//! The engines that run models: ONNX Runtime and LiteRT from their shared libraries, Cortex-M firmware in QEMU.
//!
//! An engine knows nothing of time or files. Between [`Engine::set_input`] and [`Engine::outputs`] stands
//! [`Engine::run`], which does the inference and as little else as the runtime's API allows.

mod onnx;
mod litert;
mod cortex;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use edgeyard_record::InstructionMix;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::cortex_m::Unit;
use crate::error::Failure;
use crate::lane::protocol::{EngineSpec, McuMemory};
use crate::tensor::TensorInfo;

/// Names the library of ONNX Runtime.
pub const ORT_VARIABLE: &str = "EDGEYARD_ORT_LIB";
/// Names the library of LiteRT.
pub const LITERT_VARIABLE: &str = "EDGEYARD_LITERT_LIB";
/// Names the emulator.
pub const QEMU_VARIABLE: &str = "EDGEYARD_QEMU_ARM";
/// Names the folder of firmware.
pub const FIRMWARE_VARIABLE: &str = "EDGEYARD_FIRMWARE_DIR";

/// What is known of a loaded model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its inputs, in order.
    pub inputs: Vec<TensorInfo>,
    /// Its outputs, in order.
    pub outputs: Vec<TensorInfo>,
    /// The runtime's name, such as `onnxruntime`.
    pub runtime: String,
    /// The runtime's version.
    pub version: String,
    /// Settings of the runtime that change results.
    pub settings: BTreeMap<String, String>,
}

/// Instructions of inferences, or cycles of a board.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// What was counted.
    pub unit: Unit,
    /// Of one inference, by input.
    pub by_input: Vec<u64>,
    /// Of each operator on the first input, in order.
    pub operators: Vec<(String, u64)>,
    /// What the emulator's plugin says of the first input.
    pub second_opinion: SecondOpinion,
    /// Memory after them.
    pub memory: McuMemory,
}

/// What a second counter says of an inference that the machine's timer has counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum SecondOpinion {
    /// It was not asked: boards have none.
    #[default]
    NotAsked,
    /// It was to be asked, and is not installed.
    Missing,
    /// The same counts, and what they consist of.
    Agrees(InstructionMix),
    /// Other counts.
    Disagrees(String),
}

/// A loaded model.
pub trait Engine {
    /// What it is.
    fn info(&self) -> &ModelInfo;

    /// Takes all inputs of one inference, one after the other.
    ///
    /// # Errors
    /// When the bytes are not as many as the inputs need.
    fn set_input(&mut self, bytes: &[u8]) -> Result<(), Failure>;

    /// Infers.
    ///
    /// # Errors
    /// What the runtime says.
    fn run(&mut self) -> Result<(), Failure>;

    /// Appends all outputs of the last inference.
    ///
    /// # Errors
    /// What the runtime says.
    fn outputs(&mut self, out: &mut Vec<u8>) -> Result<(), Failure>;

    /// Infers on each input and appends the outputs; returns when the first inference was done.
    ///
    /// # Errors
    /// What the runtime says.
    fn infer_all(&mut self, inputs: &[&[u8]], out: &mut Vec<u8>) -> Result<u64, Failure> {
        let mut first = None;
        for input in inputs {
            self.set_input(input)?;
            self.run()?;
            first.get_or_insert_with(clock::now);
            self.outputs(out)?;
        }
        Ok(first.unwrap_or_else(clock::now))
    }

    /// Counts instructions.
    ///
    /// # Errors
    /// `NotCounted` where instructions cannot be counted exactly.
    fn count(&mut self, _inputs: &[&[u8]]) -> Result<Counted, Failure> {
        Err(Failure::bad_input("NotCounted", "this runtime's instructions cannot be counted exactly"))
    }
}

/// Loads a model.
///
/// # Errors
/// `CorruptModel`, `UnsupportedModel`, `ModelTooLarge` and the like, or `RuntimeMissing`.
pub fn open(spec: &EngineSpec, model: Vec<u8>) -> Result<Box<dyn Engine>, Failure> {
    match spec {
        EngineSpec::Onnx { library, threads, provider } => {
            Ok(Box::new(onnx::Onnx::open(library, *threads, *provider, &model)?))
        }
        EngineSpec::LiteRt { library, threads } => Ok(Box::new(litert::LiteRt::open(library, *threads, model)?)),
        EngineSpec::CortexM { machine, icount_shift, firmware, qemu, parallel } => {
            let (firmware, qemu) = (firmware.clone(), qemu.clone());
            Ok(Box::new(cortex::CortexM::open(machine, *icount_shift, firmware, qemu, *parallel, model)?))
        }
        EngineSpec::Board { machine, port } => Ok(Box::new(cortex::CortexM::attach(machine, port.clone(), model)?)),
    }
}

/// The file that a variable names.
///
/// # Errors
/// `RuntimeMissing`, with what to do.
pub fn from_environment(variable: &str, what: &str) -> Result<PathBuf, Failure> {
    let missing = |state: String| {
        Failure::infrastructure(
            "RuntimeMissing",
            format!(
                "{what} is needed and {state}: use the worker image, or run through `cargo xtask exec --` after `cargo xtask setup`"
            ),
        )
    };
    let path =
        std::env::var_os(variable).map(PathBuf::from).ok_or_else(|| missing(format!("{variable} is not set")))?;
    if !path.exists() {
        return Err(missing(format!("{variable} names {}, which does not exist", path.display())));
    }
    Ok(path)
}

/// Checks that a model is what its format promises, before a runtime sees it: LiteRT trusts what it is given.
///
/// # Errors
/// `CorruptModel`.
pub fn check_format(bytes: &[u8], tflite: bool, path: &Path) -> Result<(), Failure> {
    let corrupt =
        |why: &str| Err(Failure::bad_input("CorruptModel", format!("{} is no usable model: {why}", path.display())));
    if bytes.is_empty() {
        return corrupt("it is empty");
    }
    match (tflite, bytes.get(4..8) == Some(b"TFL3")) {
        (true, false) => corrupt("a .tflite has TFL3 at byte 4"),
        (false, true) => corrupt("it is a .tflite, but an ONNX model was expected"),
        (true, true) => match edgeyard_tflite::read(bytes) {
            Ok(_) | Err(edgeyard_tflite::ReadError::Unsupported { .. }) => Ok(()),
            Err(error) => corrupt(&error.to_string()),
        },
        (false, false) => Ok(()),
    }
}
