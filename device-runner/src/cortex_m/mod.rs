//! Microcontrollers: QEMU, or a board at a serial port, runs our firmware, which runs an int8 model. One [`Emulator`] is one
//! device; inferences stream through it without a restart. QEMU's instruction counts are exact and independent of the host's
//! load, because it derives the guest's clock from executed instructions (`-icount`). No time is ever reported from here.

mod emulator;
mod error;
mod frame;
mod limits;
mod mix;
mod model;
mod port;
mod preflight;
mod process;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_links;

pub use emulator::{Emulator, Inference, Unit};
pub use error::{CortexMError, Fault};
pub use limits::{Limits, MemoryUse};
pub use mix::{InstructionMix, confirmed_mix};
pub use model::{DType, ModelInfo, TensorInfo};
pub use preflight::preflight;
pub use process::Link;

use std::path::PathBuf;

/// What to emulate, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// QEMU's name of the machine, e.g. `mps2-an386`.
    pub name: String,
    /// Instructions take `2^icount_shift` ns of the guest's time. The firmware's counter is exact for 6 only.
    pub icount_shift: u8,
    /// The firmware that was built for this machine.
    pub firmware: PathBuf,
    /// `qemu-system-arm`, version 10 or later.
    pub qemu: PathBuf,
}

/// The TCG plugin's file, beside the firmware.
const PLUGIN: &str = "libedgeyard_instruction_mix.so";

impl Machine {
    /// The plugin that counts instructions by kind, if it was installed.
    pub fn plugin(&self) -> Option<PathBuf> {
        Some(self.firmware.with_file_name(PLUGIN)).filter(|plugin| plugin.is_file())
    }

    /// A machine with the firmware and the QEMU that `EDGEYARD_FIRMWARE_DIR` and `EDGEYARD_QEMU_ARM` name.
    pub fn from_environment(name: &str, icount_shift: u8) -> Result<Self, CortexMError> {
        let variable = |variable: &'static str| {
            std::env::var_os(variable).map(PathBuf::from).ok_or(CortexMError::NotConfigured { variable })
        };
        let firmware = variable("EDGEYARD_FIRMWARE_DIR")?.join(format!("{name}.elf"));
        Ok(Machine { name: name.to_owned(), icount_shift, firmware, qemu: variable("EDGEYARD_QEMU_ARM")? })
    }
}
