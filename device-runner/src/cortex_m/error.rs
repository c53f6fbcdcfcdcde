//! What can go wrong between a model and an emulated microcontroller.

use edgeyard_tflite::ReadError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Why an emulated device could not do what was asked.
#[derive(Debug, Error)]
pub enum CortexMError {
    /// The environment does not say where a part is.
    #[error("{variable} is not set: run `cargo xtask setup`, or set it to where that part is installed")]
    NotConfigured {
        /// The missing variable.
        variable: &'static str,
    },
    /// There is no QEMU.
    #[error("cannot start QEMU at {}: install qemu-system-arm 10 or later, or run `cargo xtask setup`", path.display())]
    QemuMissing {
        /// Where it should be.
        path: PathBuf,
        /// Why it did not start.
        #[source]
        source: io::Error,
    },
    /// QEMU is older than what the instruction counts were proved with.
    #[error("{} is {found}; version 10 or later is needed: run `cargo xtask setup`", path.display())]
    QemuTooOld {
        /// Where it is.
        path: PathBuf,
        /// What it says of itself.
        found: String,
    },
    /// There is no firmware for the machine.
    #[error("no firmware at {}: build it with `cargo xtask firmware`", path.display())]
    FirmwareMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The machine's counter is not exact with this setting.
    #[error("icountShift {shift} is not supported: the firmware's instruction counter is exact for 6 only")]
    IcountShift {
        /// What was asked for.
        shift: u8,
    },
    /// The firmware is for another machine.
    #[error("the firmware says that it is for {found}, not for {wanted}")]
    WrongFirmware {
        /// What was asked for.
        wanted: String,
        /// What the firmware says.
        found: String,
    },
    /// The firmware refused a model or an input, and says why.
    #[error("{0}")]
    Refused(String),
    /// A limit of the device class, or of the machine, is exceeded.
    #[error("the model needs {need} bytes of {what}, and the device has {have}")]
    Limit {
        /// `flash`, `memory` or `arena`.
        what: &'static str,
        /// What the model needs.
        need: u64,
        /// What the device has.
        have: u64,
    },
    /// The file is no TFLite model at all.
    #[error("the model is not a TFLite file: {0}")]
    NotTflite(&'static str),
    /// The file is damaged.
    #[error("the model is damaged, fetch or convert it again")]
    Corrupt(#[source] ReadError),
    /// The model computes in floating point.
    #[error(
        "operator {index} ({operator}): tensor {tensor:?} is floating point, and the firmware computes in int8: quantise the \
         model to int8 first"
    )]
    Float {
        /// Position in the graph.
        index: usize,
        /// The operator's name.
        operator: String,
        /// The tensor's name.
        tensor: String,
    },
    /// The input has another length than the model's inputs together.
    #[error("the input has {got} bytes; the model's inputs have {want} together")]
    InputLength {
        /// Bytes given.
        got: usize,
        /// Bytes wanted.
        want: usize,
    },
    /// The firmware's counter and the plugin differ: no count of this run can be trusted.
    #[error(
        "the firmware counted {timer} instructions for an operator and the plugin {plugin}: the counts are invalid"
    )]
    CountsDisagree {
        /// By the machine's timer.
        timer: u64,
        /// By the plugin.
        plugin: u64,
    },
    /// Nothing was loaded yet.
    #[error("no model is loaded on the device")]
    NothingLoaded,
    /// The firmware stopped at a fault of the core or a panic.
    #[error("{0}")]
    Fault(Box<Fault>),
    /// No answer within the watchdog's time.
    #[error("the device gave no answer within {} s while it was to {doing}; it was stopped", after.as_secs_f64())]
    Hang {
        /// How long the watchdog waited.
        after: Duration,
        /// What was asked.
        doing: &'static str,
    },
    /// QEMU ended.
    #[error("QEMU ended ({status}) while the device was to {doing}{}", said(console))]
    Ended {
        /// Its exit status.
        status: String,
        /// What was asked.
        doing: &'static str,
        /// The last that it wrote.
        console: String,
    },
    /// Bytes that are no frame, or a frame that does not fit what was asked.
    #[error("the firmware's answer makes no sense: {0}")]
    Protocol(&'static str),
    /// A board's port cannot be used.
    #[error("cannot open the serial port {}: name the board's port in serialPort, and let the runner reach it", path.display())]
    Port {
        /// The port.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A pipe or thread of the emulation failed.
    #[error("cannot talk to QEMU")]
    Io(#[from] io::Error),
}

fn said(console: &str) -> String {
    if console.trim().is_empty() { String::new() } else { format!(": {}", console.trim()) }
}

/// Where and how the firmware stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operator that ran, as `number (NAME)`, if one did.
    pub op: Option<String>,
    /// r0 to r3, r12, lr, pc, xpsr as the core pushed them, then CFSR, HFSR, MMFAR and BFAR; empty for a panic.
    pub registers: Vec<u32>,
    /// What the firmware wrote to the console.
    pub console: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 12] = ["r0", "r1", "r2", "r3", "r12", "lr", "pc", "xpsr", "cfsr", "hfsr", "mmfar", "bfar"];
        f.write_str(if self.registers.is_empty() { "the firmware panicked" } else { "the core faulted" })?;
        match &self.op {
            Some(op) => write!(f, " in operator {op}")?,
            None => f.write_str(" outside of any operator")?,
        }
        for (name, value) in NAMES.iter().zip(&self.registers) {
            write!(f, " {name}={value:#010x}")?;
        }
        f.write_str(&said(&self.console))
    }
}
