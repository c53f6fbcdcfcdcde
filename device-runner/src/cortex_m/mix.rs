//! The second opinion on instruction counts: QEMU with our TCG plugin, which counts every instruction by kind. Slower, so that
//! a device is measured without it and checked, or asked for its mix, with it.

use super::CortexMError;
use super::{Emulator, Inference, Machine};
use edgeyard_record as record;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What the plugin counted between start and end.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct InstructionMix {
    /// All instructions inside operators.
    pub instructions: u64,
    /// The same by kind: load, store, multiply, branch, vector, float, other.
    pub kinds: BTreeMap<String, u64>,
    /// Instructions of each run of an operator, in order; every inference begins with an operator that does nothing.
    runs: Vec<u64>,
}

impl From<&InstructionMix> for record::InstructionMix {
    fn from(mix: &InstructionMix) -> Self {
        let of = |kind: &str| mix.kinds.get(kind).copied().unwrap_or(0);
        let known = ["load", "store", "multiply", "branch", "vector", "float"];
        let named = known.map(of);
        let [load, store, multiply, branch, vector, float] = named;
        // A kind that only a newer plugin tells apart is one of the others.
        let other = mix.instructions.saturating_sub(named.iter().sum());
        Self { load, store, multiply, branch, vector, float, other }
    }
}

impl InstructionMix {
    /// Refuses counts of the firmware's timer that the plugin does not confirm to the digit. `inferences` are all that ran.
    pub fn confirm(&self, inferences: &[Inference]) -> Result<(), CortexMError> {
        let mut runs = self.runs.iter();
        for inference in inferences {
            let nothing = runs.next().copied().unwrap_or(0);
            for counted in &inference.per_op {
                let plugin = runs.next().copied().unwrap_or(0).saturating_sub(nothing);
                if plugin != *counted {
                    return Err(CortexMError::CountsDisagree { timer: *counted, plugin });
                }
            }
        }
        if runs.next().is_none() {
            Ok(())
        } else {
            Err(CortexMError::Protocol("the plugin saw more runs than were asked for"))
        }
    }
}

/// Runs a model on one input in an emulator whose plugin counts along, and returns what one inference consists of.
///
/// # Errors
/// `CountsDisagree` if `counted`, which the machine's timer gave without the plugin, is not what the plugin counts for every
/// operator.
pub fn confirmed_mix(
    machine: &Machine,
    plugin: &Path,
    model: &[u8],
    input: &[i8],
    counted: &Inference,
) -> Result<record::InstructionMix, CortexMError> {
    let mut emulator = Emulator::start_counting(machine, plugin)?;
    emulator.load(model)?;
    emulator.infer(input)?;
    let mix = emulator.finish()?.ok_or(CortexMError::Protocol("the plugin counted nothing"))?;
    mix.confirm(std::slice::from_ref(counted))?;
    Ok((&mix).into())
}

/// A plugin and the file that it writes to.
pub(super) struct Counter {
    plugin: PathBuf,
    folder: TempDir,
}

impl Counter {
    pub fn new(plugin: PathBuf) -> Result<Self, CortexMError> {
        if !plugin.is_file() {
            return Err(CortexMError::FirmwareMissing { path: plugin });
        }
        Ok(Counter { plugin, folder: TempDir::new()? })
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("mix.json")
    }

    /// QEMU's argument.
    pub fn argument(&self) -> String {
        format!("{},out={}", self.plugin.display(), self.out().display())
    }

    /// Reads what was written when QEMU ended.
    pub fn read(&self) -> Result<InstructionMix, CortexMError> {
        let text = std::fs::read_to_string(self.out())?;
        serde_json::from_str(&text).map_err(|_| CortexMError::Protocol("the plugin's counts are no JSON"))
    }
}
