//! One emulated device: load a model, stream inferences, ask for memory.

use super::frame::{self, Fields, Frame, reply, request};
use super::mix::{Counter, InstructionMix};
use super::process::{Link, Process};
use super::{CortexMError, Fault, Limits, Machine, MemoryUse, ModelInfo};
use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

/// How long the watchdog waits for one answer unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(120);
/// Requests under way at once while streaming: enough that the guest never waits for the host.
const WINDOW: usize = 64;

/// One inference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inference {
    /// Bytes of all outputs, one after the other.
    pub outputs: Vec<u8>,
    /// Instructions of all operators together.
    pub instructions: u64,
    /// Instructions of each operator, in the order of [`ModelInfo::ops`].
    pub per_op: Vec<u64>,
}

/// What a device counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unit {
    /// Instructions: emulated machines.
    #[default]
    Instructions,
    /// Cycles: boards.
    Cycles,
}

/// A microcontroller; dropping it ends QEMU.
pub struct Emulator {
    process: Process,
    patience: Duration,
    /// Requests under way at once.
    window: usize,
    unit: Unit,
    /// Bytes that the machine has for a model's file and for an arena.
    room: (u64, u64),
    model: Option<ModelInfo>,
}

impl Emulator {
    /// Starts QEMU and greets the firmware.
    pub fn start(machine: &Machine) -> Result<Self, CortexMError> {
        Self::start_with(machine, PATIENCE)
    }

    /// As [`Emulator::start`], with the watchdog's patience from the first answer on.
    pub fn start_with(machine: &Machine, patience: Duration) -> Result<Self, CortexMError> {
        Self::start_over(machine, Link::Streams, patience)
    }

    /// As [`Emulator::start_with`], over a link of choice.
    pub fn start_over(machine: &Machine, link: Link, patience: Duration) -> Result<Self, CortexMError> {
        Self::open(machine, link, patience, None)
    }

    /// As [`Emulator::start`], with the plugin (`libedgeyard_instruction_mix.so`) counting along; see [`Emulator::finish`].
    pub fn start_counting(machine: &Machine, plugin: &Path) -> Result<Self, CortexMError> {
        Self::open(machine, Link::Streams, PATIENCE, Some(Counter::new(plugin.to_owned())?))
    }

    /// A board at a serial port, whose firmware says that it is `name`.
    pub fn attach(name: &str, port: &Path, patience: Duration) -> Result<Self, CortexMError> {
        // Its FIFO holds a few bytes: it must not be sent anything while it works.
        Self::greet(Process::attach(port)?, name, patience, 1)
    }

    /// What the counts of inferences are.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// Ends the device and returns what the plugin counted, if one did.
    pub fn finish(self) -> Result<Option<InstructionMix>, CortexMError> {
        self.process.finish()
    }

    fn open(machine: &Machine, link: Link, patience: Duration, counter: Option<Counter>) -> Result<Self, CortexMError> {
        if machine.icount_shift != 6 {
            return Err(CortexMError::IcountShift { shift: machine.icount_shift });
        }
        Self::greet(Process::start(machine, link, counter)?, &machine.name, patience, WINDOW)
    }

    fn greet(process: Process, name: &str, patience: Duration, window: usize) -> Result<Self, CortexMError> {
        let mut emulator = Emulator { process, patience, window, unit: Unit::default(), room: (0, 0), model: None };
        let hello = emulator.exchange(request::HELLO, &[], reply::HELLO, "start")?;
        let mut f = Fields(&hello);
        let found = f.text()?;
        if found != name {
            return Err(CortexMError::WrongFirmware { wanted: name.to_owned(), found });
        }
        let (_code, _statics, arena, model, _stack) = (f.u32()?, f.u32()?, f.u32()?, f.u32()?, f.u32()?);
        emulator.room = (model.into(), arena.into());
        emulator.unit = if f.u32()? == 0 { Unit::Instructions } else { Unit::Cycles };
        Ok(emulator)
    }

    /// Sets how long to wait for one answer before the device counts as hung.
    pub fn set_watchdog(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Loads a `.tflite` file, in place of what was loaded before.
    pub fn load(&mut self, model: &[u8]) -> Result<ModelInfo, CortexMError> {
        self.model = None;
        let (flash, _) = self.room;
        Limits { flash: Some(flash), ..Limits::default() }.check_model(model)?;
        let info = ModelInfo::decode(&self.exchange(request::LOAD, model, reply::LOAD, "load the model")?)?;
        self.model = Some(info.clone());
        Ok(info)
    }

    /// Runs the model once. `input` holds the bytes of all inputs, one after the other.
    pub fn infer(&mut self, input: &[i8]) -> Result<Inference, CortexMError> {
        let mut results = self.infer_all(std::iter::once(input))?;
        results.pop().ok_or(CortexMError::Protocol("no result"))
    }

    /// Runs the model on many inputs; requests overlap, so that this is much faster than one call each.
    pub fn infer_all<'i>(
        &mut self,
        inputs: impl IntoIterator<Item = &'i [i8]>,
    ) -> Result<Vec<Inference>, CortexMError> {
        let want = self.model.as_ref().ok_or(CortexMError::NothingLoaded)?.input_bytes();
        let mut under_way = VecDeque::new();
        let mut results = Vec::new();
        // All answers that are under way are taken even after an error, so that the next request meets its own answer.
        let mut error = None;
        for input in inputs {
            if input.len() != want {
                error = Some(CortexMError::InputLength { got: input.len(), want });
                break;
            }
            let bytes: Vec<u8> = input.iter().map(|v| *v as u8).collect();
            self.process.send(frame::encode(request::RUN, &bytes));
            under_way.push_back(());
            if under_way.len() >= self.window {
                under_way.pop_front();
                results.push(self.result()?);
            }
        }
        for () in under_way {
            results.push(self.result()?);
        }
        error.map_or(Ok(results), Err)
    }

    /// What the loaded model takes, measured up to now: the stack is as deep as it ever was.
    pub fn memory(&mut self) -> Result<MemoryUse, CortexMError> {
        let payload = self.exchange(request::MEMORY, &[], reply::MEMORY, "report its memory")?;
        let mut f = Fields(&payload);
        let mut next = || f.u32().map(u64::from);
        let (code, model_bytes, arena_bytes, stack_bytes, io_bytes) = (next()?, next()?, next()?, next()?, next()?);
        Ok(MemoryUse {
            flash_bytes: code + model_bytes,
            model_bytes,
            arena_bytes,
            stack_bytes,
            io_bytes,
            ram_bytes: arena_bytes + stack_bytes + io_bytes,
        })
    }

    fn result(&mut self) -> Result<Inference, CortexMError> {
        let payload = self.answer(reply::RUN, "run an inference")?;
        let mut f = Fields(&payload);
        let instructions = f.u64()?;
        let per_op = (0..f.u32()?).map(|_| f.u32().map(u64::from)).collect::<Result<_, _>>()?;
        Ok(Inference { outputs: f.rest().to_vec(), instructions, per_op })
    }

    fn exchange(&mut self, kind: u8, payload: &[u8], want: u8, doing: &'static str) -> Result<Vec<u8>, CortexMError> {
        self.process.send(frame::encode(kind, payload));
        self.answer(want, doing)
    }

    fn answer(&mut self, want: u8, doing: &'static str) -> Result<Vec<u8>, CortexMError> {
        let Frame { kind, payload } = self.process.receive(self.patience, doing)?;
        match kind {
            kind if kind == want => Ok(payload),
            reply::REFUSED => Err(CortexMError::Refused(Fields(&payload).text()?)),
            reply::FAULT | reply::PANIC => Err(self.fault(&payload)?),
            _ => Err(CortexMError::Protocol("an answer to something else")),
        }
    }

    fn fault(&self, payload: &[u8]) -> Result<CortexMError, CortexMError> {
        let mut f = Fields(payload);
        let op = f.u32()?;
        let name = |op: u32| self.model.as_ref().and_then(|m| m.ops.get(op as usize)).map_or("", String::as_str);
        let op = (op != u32::MAX).then(|| format!("{op} ({})", name(op)));
        let mut registers = Vec::new();
        while !f.0.is_empty() {
            registers.push(f.u32()?);
        }
        Ok(CortexMError::Fault(Box::new(Fault { op, registers, console: self.process.console() })))
    }

    /// Makes the core fault and returns what was learnt of it.
    #[cfg(test)]
    pub(super) fn trap(&mut self) -> CortexMError {
        match self.exchange(request::TRAP, &[], 0, "fault") {
            Err(e) => e,
            Ok(_) => CortexMError::Protocol("the core did not fault"),
        }
    }

    /// The process id of QEMU.
    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }
}
