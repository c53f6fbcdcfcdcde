//! The frames between the runner and its lanes: a JSON header for what is small, raw bytes for tensors and samples.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use edgeyard_job::spec::ExecutionProvider;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::runtime::{Counted, ModelInfo};

/// No header is longer; no payload either: a stray print into the pipe must not be taken for a length.
const LARGEST_HEADER: u32 = 16 << 20;
const LARGEST_PAYLOAD: u64 = 64 << 30;
const MAGIC: [u8; 4] = *b"EYL1";

/// What the runner asks of a lane. Tensors come in the payload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Load the model.
    Load(Box<Load>),
    /// Infer once on each input in the payload and answer with the outputs. `timed` inferences come one at a time.
    Infer {
        /// Samples in the payload.
        count: usize,
    },
    /// Keep these inputs for warm-up and measurement.
    Keep {
        /// Inputs in the payload.
        count: usize,
    },
    /// Infer until times no longer fall, untimed.
    WarmUp(WarmUp),
    /// Infer without a pause and time each query.
    Measure(Measure),
    /// Infer at the times in the payload, nanoseconds from the first turn's beginning as 8 bytes each, and time each query
    /// from there.
    Serve(Serve),
    /// Count instructions on the kept inputs.
    Count,
    /// Say what the process has used.
    Usage,
}

/// Load a model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// The model file.
    pub model: PathBuf,
    /// What runs it.
    pub engine: EngineSpec,
    /// Time stamps count from here.
    pub epoch: u64,
    /// Room for so many samples of one window.
    pub window_samples: usize,
}

/// What runs a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineSpec {
    /// ONNX Runtime.
    Onnx {
        /// Its library.
        library: PathBuf,
        /// Threads of an operator.
        threads: u32,
        /// What computes.
        provider: ExecutionProvider,
    },
    /// LiteRT.
    LiteRt {
        /// Its library.
        library: PathBuf,
        /// Threads of an operator.
        threads: u32,
    },
    /// Firmware in QEMU.
    CortexM {
        /// QEMU's name of the machine.
        machine: String,
        /// Guest instructions per virtual nanosecond, as a power of two.
        icount_shift: u8,
        /// The firmware.
        firmware: PathBuf,
        /// The emulator.
        qemu: PathBuf,
        /// Emulators that may run side by side.
        parallel: usize,
    },
    /// Firmware on a board.
    Board {
        /// What the firmware calls itself.
        machine: String,
        /// The board's serial port.
        port: PathBuf,
    },
}

/// When warm-up ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WarmUp {
    /// Not before so many inferences.
    pub minimum_count: u64,
    /// Not before so long.
    pub minimum_nanoseconds: u64,
    /// Then anyway, flagged as unsteady.
    pub maximum_nanoseconds: u64,
}

/// One window.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// Inferences before the first sample, because another lane had its turn.
    pub rewarm_count: u64,
    /// So long, but `minimum_count` queries in any case.
    pub nanoseconds: u64,
    /// At least so many queries.
    pub minimum_count: u64,
    /// Inferences of one query.
    pub inferences_per_query: u64,
    /// One of so many queries is timed.
    pub sample_every: u64,
    /// Room for so many samples; what comes after that is counted only.
    pub room: u64,
}

/// One window of queries that arrive on their own.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Serve {
    /// Inferences before the first query.
    pub rewarm_count: u64,
}

/// What a window was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// When the first query began.
    pub start: u64,
    /// When the last ended.
    pub end: u64,
    /// Queries, timed or not.
    pub count: u64,
    /// Whether the clock went back, or not as fast as another.
    pub clock_jumped: bool,
}

/// What a lane answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The model is loaded.
    Loaded {
        /// What it is.
        info: ModelInfo,
        /// How long that took.
        nanoseconds: u64,
    },
    /// The outputs are in the payload.
    Inferred {
        /// Time of the first of them.
        first_nanoseconds: u64,
    },
    /// Inputs are kept.
    Kept,
    /// Warm-up is over.
    WarmedUp(WarmedUp),
    /// The window's samples are in the payload, as pairs of start and duration.
    Measured {
        /// What it was.
        span: Span,
        /// What disturbed it.
        disturbance: Disturbance,
    },
    /// Instructions on each kept input.
    Counted(Box<Counted>),
    /// What the process has used.
    Usage {
        /// Largest resident memory, less what was resident before the model was loaded.
        peak_memory_bytes: Option<u64>,
    },
    /// It could not be done; the lane goes on.
    Failed(Failure),
}

/// How warm-up went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmedUp {
    /// Inferences.
    pub count: u64,
    /// How long.
    pub nanoseconds: u64,
    /// Median of the last of them.
    pub median_nanoseconds: u64,
    /// Whether times had stopped falling.
    pub steady: bool,
}

/// What disturbed a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disturbance {
    /// Times that the lane was taken off its core.
    pub involuntary_switches: u64,
    /// Times that it waited.
    pub voluntary_switches: u64,
    /// Page faults that needed no disk.
    pub minor_faults: u64,
    /// Page faults that needed one.
    pub major_faults: u64,
    /// Nanoseconds that its threads were ready and had no processor, summed; `None` where the kernel does not count them.
    pub waited_nanoseconds: Option<u64>,
}

/// Memory of a microcontroller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct McuMemory {
    /// Code and model.
    pub flash_bytes: u64,
    /// Tensors.
    pub arena_bytes: u64,
    /// Stack's high-water mark.
    pub stack_bytes: u64,
    /// Input and output.
    pub io_bytes: u64,
    /// All of it.
    pub ram_bytes: u64,
}

/// Writes a frame.
///
/// # Errors
/// When the other side is gone.
pub fn send<T: Serialize>(to: &mut impl Write, header: &T, payload: &[u8]) -> io::Result<()> {
    let header = serde_json::to_vec(header)?;
    to.write_all(&MAGIC)?;
    to.write_all(&(header.len() as u32).to_le_bytes())?;
    to.write_all(&(payload.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    to.write_all(payload)?;
    to.flush()
}

/// Reads a frame; `None` at the end of the stream.
///
/// # Errors
/// When the stream breaks off or holds something else.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut start = [0; 16];
    match from.read(&mut start[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut start[1..])?,
    }
    let strange = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    let [m0, m1, m2, m3, h0, h1, h2, h3, payload @ ..] = start;
    let (header, payload) = (u32::from_le_bytes([h0, h1, h2, h3]), u64::from_le_bytes(payload));
    if [m0, m1, m2, m3] != MAGIC || header > LARGEST_HEADER || payload > LARGEST_PAYLOAD {
        return Err(strange("not a frame"));
    }
    let mut text = vec![0; header as usize];
    from.read_exact(&mut text)?;
    let mut bytes = vec![0; payload as usize];
    from.read_exact(&mut bytes)?;
    Ok(Some((serde_json::from_slice(&text)?, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_and_noise_is_not() {
        let mut pipe = Vec::new();
        send(&mut pipe, &Reply::Kept, b"abc").unwrap();
        send(&mut pipe, &Reply::Inferred { first_nanoseconds: 7 }, b"").unwrap();
        let mut from = pipe.as_slice();
        let (first, payload) = receive::<Reply>(&mut from).unwrap().unwrap();
        assert!(matches!(first, Reply::Kept) && payload == b"abc");
        assert!(matches!(receive::<Reply>(&mut from), Ok(Some((Reply::Inferred { first_nanoseconds: 7 }, _)))));
        assert!(receive::<Reply>(&mut from).unwrap().is_none());
        assert!(receive::<Reply>(&mut &pipe[..pipe.len() - 1][20..]).is_err());
        assert!(receive::<Reply>(&mut "INFO: Created TensorFlow Lite XNNPACK delegate".as_bytes()).is_err());
    }
}
