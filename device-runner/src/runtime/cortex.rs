//! Cortex-M firmware in QEMU or on a board as an engine. Several emulators share the work where outputs on many inputs are asked
//! for; instructions are counted on the first one alone, and confirmed once by another that counts along with a plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use std::time::Duration;

use super::{Counted, Engine, ModelInfo, SecondOpinion};
use crate::clock;
use crate::cortex_m::{self, CortexMError, DType, Emulator, Inference, Machine};
use crate::error::Failure;
use crate::lane::protocol::McuMemory;
use crate::tensor::{Element, TensorInfo};

/// Fewer inputs than this for each emulator do not pay for starting it.
const LEAST_SHARE: usize = 32;

/// How long a board may take for one answer: a large model goes over a serial port at 10 kB/s.
const PATIENCE: Duration = Duration::from_secs(300);

/// A model in one or more microcontrollers.
pub struct CortexM {
    /// What can be started more often; `None` of a board.
    machine: Option<Machine>,
    model: Vec<u8>,
    parallel: usize,
    emulators: Vec<Emulator>,
    info: ModelInfo,
    operators: Vec<String>,
    /// Asked for once: counts repeat.
    second_opinion: Option<SecondOpinion>,
    input: Vec<i8>,
    output: Vec<u8>,
}

impl From<CortexMError> for Failure {
    fn from(error: CortexMError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        match error {
            // The firmware's own words for what the machine has no room for, with both numbers in them.
            CortexMError::Refused(why)
                if ["the model needs an arena", "the model has"].iter().any(|w| why.starts_with(w)) =>
            {
                Failure::bad_input("ModelTooLarge", message)
            }
            CortexMError::Refused(_) | CortexMError::Float { .. } => {
                Failure::bad_input("ModelRefused", format!("the firmware does not take the model: {message}"))
            }
            CortexMError::Limit { .. } => Failure::bad_input("ModelTooLarge", message),
            CortexMError::NotTflite(_) | CortexMError::Corrupt(_) => Failure::bad_input("CorruptModel", message),
            CortexMError::IcountShift { .. } | CortexMError::WrongFirmware { .. } => {
                Failure::bad_input("UnsupportedMachine", message)
            }
            CortexMError::InputLength { .. } => Failure::bad_input("DatasetDoesNotFit", message),
            CortexMError::NotConfigured { .. }
            | CortexMError::QemuMissing { .. }
            | CortexMError::QemuTooOld { .. }
            | CortexMError::FirmwareMissing { .. } => Failure::infrastructure("RuntimeMissing", message),
            CortexMError::Port { .. } => Failure::infrastructure("DeviceUnreachable", message),
            CortexMError::CountsDisagree { .. } => Failure::infrastructure("CountsDisagree", message),
            CortexMError::Fault(_) | CortexMError::Ended { .. } => Failure::infrastructure("RuntimeCrashed", message),
            CortexMError::NothingLoaded
            | CortexMError::Hang { .. }
            | CortexMError::Protocol(_)
            | CortexMError::Io(_) => Failure::infrastructure("EmulatorFailed", message),
        }
    }
}

impl CortexM {
    /// Starts an emulator and loads a model.
    pub fn open(
        name: &str,
        icount_shift: u8,
        firmware: PathBuf,
        qemu: PathBuf,
        parallel: usize,
        model: Vec<u8>,
    ) -> Result<Self, Failure> {
        // Limits are the session's, which knows what was measured; the rest needs no emulator to be seen.
        cortex_m::preflight(&model, &cortex_m::Limits::default())?;
        let machine = Machine { name: name.into(), icount_shift, firmware, qemu };
        let emulator = Emulator::start(&machine)?;
        let settings = [("machine", name.to_owned()), ("icountShift", icount_shift.to_string())];
        Self::load(emulator, Some(machine), parallel, model, &settings)
    }

    /// Greets a board and loads a model.
    pub fn attach(name: &str, port: PathBuf, model: Vec<u8>) -> Result<Self, Failure> {
        cortex_m::preflight(&model, &cortex_m::Limits::default())?;
        let emulator = Emulator::attach(name, &port, PATIENCE)?;
        let settings = [("machine", name.to_owned()), ("serialPort", port.display().to_string())];
        Self::load(emulator, None, 1, model, &settings)
    }

    fn load(
        mut emulator: Emulator,
        machine: Option<Machine>,
        parallel: usize,
        model: Vec<u8>,
        settings: &[(&str, String)],
    ) -> Result<Self, Failure> {
        let loaded = emulator.load(&model)?;
        let info = ModelInfo {
            inputs: loaded.inputs.iter().map(describe).collect(),
            outputs: loaded.outputs.iter().map(describe).collect(),
            runtime: "edgeyard-firmware".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            settings: settings
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect::<BTreeMap<_, _>>(),
        };
        Ok(Self {
            machine,
            model,
            parallel: parallel.max(1),
            emulators: vec![emulator],
            info,
            operators: loaded.ops,
            second_opinion: None,
            input: Vec::new(),
            output: Vec::new(),
        })
    }

    fn grow(&mut self, wanted: usize) -> Result<(), Failure> {
        let Some(machine) = &self.machine else { return Ok(()) };
        while self.emulators.len() < wanted {
            let mut emulator = Emulator::start(machine)?;
            emulator.load(&self.model)?;
            self.emulators.push(emulator);
        }
        Ok(())
    }

    /// Runs an input once more in an emulator whose plugin counts along.
    fn ask_plugin(&self, input: &[i8], counted: &Inference) -> Result<SecondOpinion, CortexMError> {
        let Some(machine) = &self.machine else { return Ok(SecondOpinion::NotAsked) };
        let Some(plugin) = machine.plugin() else { return Ok(SecondOpinion::Missing) };
        Ok(match cortex_m::confirmed_mix(machine, &plugin, &self.model, input, counted) {
            Ok(mix) => SecondOpinion::Agrees(mix),
            Err(error @ CortexMError::CountsDisagree { .. }) => SecondOpinion::Disagrees(error.to_string()),
            Err(error) => return Err(error),
        })
    }
}

fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|byte| *byte as i8).collect()
}

impl Engine for CortexM {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn set_input(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.input = signed(bytes);
        Ok(())
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.output = self.emulators[0].infer(&self.input)?.outputs;
        Ok(())
    }

    fn outputs(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        out.extend_from_slice(&self.output);
        Ok(())
    }

    fn infer_all(&mut self, inputs: &[&[u8]], out: &mut Vec<u8>) -> Result<u64, Failure> {
        self.grow((inputs.len() / LEAST_SHARE).clamp(1, self.parallel))?;
        let inputs: Vec<Vec<i8>> = inputs.iter().map(|input| signed(input)).collect();
        let share = inputs.len().div_ceil(self.emulators.len()).max(1);
        let parts: Vec<Result<Vec<cortex_m::Inference>, CortexMError>> = std::thread::scope(|scope| {
            let threads: Vec<_> = inputs
                .chunks(share)
                .zip(&mut self.emulators)
                .map(|(part, emulator)| scope.spawn(|| emulator.infer_all(part.iter().map(Vec::as_slice))))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or(Err(CortexMError::Protocol("a thread of the emulation panicked")))
                })
                .collect()
        });
        for part in parts {
            for inference in part? {
                out.extend(inference.outputs);
            }
        }
        Ok(clock::now())
    }

    fn count(&mut self, inputs: &[&[u8]]) -> Result<Counted, Failure> {
        let mut counted = Counted { unit: self.emulators[0].unit(), ..Counted::default() };
        for input in inputs {
            let input = signed(input);
            let inference = self.emulators[0].infer(&input)?;
            if counted.by_input.is_empty() {
                let opinion = match self.second_opinion.take() {
                    Some(known) => known,
                    None => self.ask_plugin(&input, &inference)?,
                };
                counted.second_opinion = opinion.clone();
                self.second_opinion = Some(opinion);
                let by_operator = inference.per_op.iter().copied();
                let name = |index: usize| self.operators.get(index).cloned().unwrap_or_default();
                counted.operators = by_operator.enumerate().map(|(index, n)| (name(index), n)).collect();
            }
            counted.by_input.push(inference.instructions);
        }
        let memory = self.emulators[0].memory()?;
        counted.memory = McuMemory {
            flash_bytes: memory.flash_bytes,
            arena_bytes: memory.arena_bytes,
            stack_bytes: memory.stack_bytes,
            io_bytes: memory.io_bytes,
            ram_bytes: memory.ram_bytes,
        };
        Ok(counted)
    }
}

fn describe(tensor: &cortex_m::TensorInfo) -> TensorInfo {
    let quantized = tensor.scale != 0.0;
    TensorInfo {
        name: tensor.name.clone(),
        element: match tensor.dtype {
            DType::Int8 => Element::I8,
            DType::Int32 => Element::I32,
            DType::Float32 => Element::F32,
        },
        shape: tensor.shape.clone(),
        scale: quantized.then_some(tensor.scale),
        zero_point: quantized.then_some(i64::from(tensor.zero_point)),
    }
}
