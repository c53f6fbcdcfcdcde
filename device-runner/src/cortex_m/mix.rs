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

#[cfg(test)]
#[path = "../../../hardware-lab/firmware/plugin/src/kinds.rs"]
mod kinds;

#[cfg(test)]
mod tests {
    use super::kinds::{KINDS, kind};

    /// Encodings as LLVM's disassembler reads them.
    #[test]
    fn instructions_have_their_kind() {
        let check = |expected: &str, halves: &[u16], text: &str| {
            let bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
            assert_eq!(KINDS[kind(&bytes)], expected, "{text}");
        };
        for (expected, half, text) in [
            ("load", 0x6808_u16, "ldr r0, [r1]"),
            ("store", 0x6008, "str r0, [r1]"),
            ("load", 0x5c40, "ldrb r0, [r0, r1]"),
            ("store", 0x5440, "strb r0, [r0, r1]"),
            ("load", 0x4801, "ldr r0, [pc, #4]"),
            ("store", 0xb5f0, "push {r4-r7, lr}"),
            ("load", 0xbdf0, "pop {r4-r7, pc}"),
            ("load", 0xc807, "ldm r0!, {r0-r2}"),
            ("multiply", 0x4348, "muls r0, r1, r0"),
            ("branch", 0x4770, "bx lr"),
            ("branch", 0xd1fe, "bne ."),
            ("branch", 0xe7fe, "b ."),
            ("branch", 0xb100, "cbz r0, ."),
            ("other", 0xde00, "udf #0"),
            ("other", 0x1840, "adds r0, r0, r1"),
            ("other", 0xbf18, "it ne"),
            ("other", 0xb240, "sxtb r0, r0"),
        ] {
            check(expected, &[half], text);
        }
        for (expected, halves, text) in [
            ("multiply", [0xfb21_u16, 0x3002], "smlad r0, r1, r2, r3"),
            ("multiply", [0xfb81, 0x0102], "smull r0, r1, r1, r2"),
            ("other", [0xfb91, 0xf0f2], "sdiv r0, r1, r2"),
            ("load", [0xf8d0, 0x1004], "ldr.w r1, [r0, #4]"),
            ("store", [0xf8c0, 0x1004], "str.w r1, [r0, #4]"),
            ("load", [0xe9d0, 0x1201], "ldrd r1, r2, [r0, #4]"),
            ("branch", [0xe8df, 0xf000], "tbb [pc, r0]"),
            ("branch", [0xf000, 0xf800], "bl ."),
            ("branch", [0xf47f, 0xaffe], "bne.w ."),
            ("other", [0xf3bf, 0x8f4f], "dsb"),
            ("other", [0xf3ef, 0x8008], "mrs r0, msp"),
            ("other", [0xfa0f, 0xf081], "sxth.w r0, r1"),
            ("branch", [0xf040, 0xe001], "dls lr, r0"),
            ("branch", [0xf00f, 0xc001], "le lr, ."),
            ("vector", [0xf000, 0xe801], "vctp.8 r0"),
            ("vector", [0xef22, 0x2848], "vadd.i32 q1, q1, q4"),
            ("vector", [0xec16, 0x0f12], "vmov q0[3], q0[1], r2, r6"),
            ("vector", [0xed90, 0x1e00], "vldrb.u8 q0, [r0]"),
            ("vector", [0xeea0, 0x0b10], "vdup.32 q0, r0"),
            ("float", [0xee35, 0x6a00], "vadd.f32 s12, s10, s0"),
            ("float", [0xec45, 0x4b10], "vmov d0, r4, r5"),
            ("float", [0xedd0, 0x0a00], "vldr s1, [r0]"),
        ] {
            check(expected, &halves, text);
        }
        assert_eq!(KINDS[kind(&[])], "other");
    }
}
