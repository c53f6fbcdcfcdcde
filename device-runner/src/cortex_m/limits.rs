//! What a model takes of a microcontroller, and what a device class allows.

use super::CortexMError;
use edgeyard_job::spec;

/// Limits of a device class; absent is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of flash, for the firmware's code and the model.
    pub flash: Option<u64>,
    /// Bytes of RAM, for arena, stack and I/O.
    pub memory: Option<u64>,
    /// Bytes of the arena alone.
    pub arena: Option<u64>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Code, constants and the model.
    pub flash_bytes: u64,
    /// Of which the model.
    pub model_bytes: u64,
    /// The engine's arena: tensors, working memory and tables.
    pub arena_bytes: u64,
    /// The deepest that the stack ever was.
    pub stack_bytes: u64,
    /// Statics: buffers of the link to the host, counters.
    pub io_bytes: u64,
    /// Arena, stack and I/O.
    pub ram_bytes: u64,
}

impl From<&spec::Limits> for Limits {
    fn from(limits: &spec::Limits) -> Self {
        let spec::Limits { flash_bytes, memory_bytes, arena_bytes } = limits;
        Self { flash: *flash_bytes, memory: *memory_bytes, arena: *arena_bytes }
    }
}

impl Limits {
    /// Refuses a model that cannot fit, as far as its size alone tells: before an emulator is started.
    pub fn check_model(&self, model: &[u8]) -> Result<(), CortexMError> {
        if model.len() < 16 || &model[4..8] != b"TFL3" {
            return Err(CortexMError::NotTflite("it does not carry the identifier TFL3"));
        }
        within("flash", model.len() as u64, self.flash)
    }

    /// Refuses tensors that need so many bytes at the same time, whatever else comes on top.
    pub fn check_live(&self, bytes: u64) -> Result<(), CortexMError> {
        within("arena at the least", bytes, self.arena)?;
        within("memory at the least", bytes, self.memory)
    }

    /// Refuses an arena that the firmware planned.
    pub fn check_arena(&self, bytes: u64) -> Result<(), CortexMError> {
        within("arena", bytes, self.arena)
    }

    /// Holds a measured use against the limits.
    pub fn check(&self, used: &MemoryUse) -> Result<(), CortexMError> {
        within("flash", used.flash_bytes, self.flash)?;
        within("arena", used.arena_bytes, self.arena)?;
        within("memory", used.ram_bytes, self.memory)
    }
}

fn within(what: &'static str, need: u64, limit: Option<u64>) -> Result<(), CortexMError> {
    match limit {
        Some(have) if need > have => Err(CortexMError::Limit { what, need, have }),
        _ => Ok(()),
    }
}
