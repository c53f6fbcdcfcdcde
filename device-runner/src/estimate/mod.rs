//! What an inference may take on the microcontroller that an emulator stands for: a formula, a name, a band. Nothing here is
//! measured, and nothing from here is mixed with what is. Pure.
//!
//! `cpi-mlperf-tiny-v1`: cycles = f · Σ over kinds of instructions (cycles of the kind × count), time = cycles / clock.
//! The cycles of kinds are Arm's, see [`cycles_per_kind`]. The factor f, one for each core, is fitted to the best published MLPerf Tiny
//! times, see [`fit`]: it holds flash wait states, caches, pipelining and what our kernels do otherwise than the submission's.

mod fit;
mod macs;

use edgeyard_job::spec::{Core, Microcontroller};
use edgeyard_record::{EnergyEstimate, InstructionMix, LatencyEstimate};

pub use fit::{Fit, Published, REFERENCES, fit};
pub use macs::macs;

/// The formula's name, which changes when its numbers mean something else.
pub const MODEL: &str = "cpi-mlperf-tiny-v1";
/// The formula for energy: active power by the data sheet times the estimated latency.
pub const ENERGY_MODEL: &str = "datasheet-active-power";
/// How estimates are marked in a record.
pub const SOURCE: &str = "estimated";

/// The core of a machine's firmware, as machines.toml has it.
pub fn core_of(machine: &str) -> Option<Core> {
    match machine {
        "mps2-an385" => Some(Core::CortexM3),
        "mps2-an386" | "nrf52840" => Some(Core::CortexM4),
        "mps2-an500" | "stm32h743" => Some(Core::CortexM7),
        "mps3-an547" => Some(Core::CortexM55),
        _ => None,
    }
}

/// A core's name for people.
pub const fn name(core: Core) -> &'static str {
    match core {
        Core::CortexM0Plus => "Cortex-M0+",
        Core::CortexM3 => "Cortex-M3",
        Core::CortexM4 => "Cortex-M4",
        Core::CortexM7 => "Cortex-M7",
        Core::CortexM33 => "Cortex-M33",
        Core::CortexM55 => "Cortex-M55",
    }
}

/// int8 multiplications that a core can do in a cycle at most: one with a multiplier, two with SMLAD, eight with 64-bit Helium.
pub const fn peak_macs_per_cycle(core: Core) -> f64 {
    match core {
        Core::CortexM0Plus | Core::CortexM3 => 1.0,
        Core::CortexM4 | Core::CortexM7 | Core::CortexM33 => 2.0,
        Core::CortexM55 => 8.0,
    }
}

/// Cycles of one instruction of each kind, before the factor.
///
/// Cortex-M4: Arm's Technical Reference Manual (DDI 0439, 3.3.1): a load or store 2, unless it follows another; a
/// multiplication, SMLAD among them, 1; a taken branch 1 and 1 to 3 for the pipeline, so 3; VADD and VMUL 1. Cortex-M7: Arm
/// publishes no table; it issues two instructions in a cycle, and one figure stands for every kind.
fn cycles_per_kind(core: Core, mix: &InstructionMix) -> f64 {
    let InstructionMix { load, store, multiply, branch, vector, float, other } = *mix;
    let [memory, branches] = if core == Core::CortexM4 { [2.0, 3.0] } else { [1.0, 1.0] };
    (load + store) as f64 * memory + branch as f64 * branches + (multiply + vector + float + other) as f64
}

/// Estimates the time of one inference.
///
/// # Errors
/// Why there is none: `CoreUnknown`, `ClockUnknown`, `NoReference` where nothing was published for the core, or
/// `ImplausibleEstimate` where the core would have to multiply faster than it can.
pub fn latency(
    machine: &str,
    meant: &Microcontroller,
    mix: &InstructionMix,
    macs: u64,
) -> Result<LatencyEstimate, &'static str> {
    let core = meant.core.or_else(|| core_of(machine)).ok_or("CoreUnknown")?;
    let clock_hertz = meant.clock_hertz.ok_or("ClockUnknown")?;
    let Fit { factor, leave_one_out_error } = fit(core).ok_or("NoReference")?;
    of_cycles(core, clock_hertz, cycles_per_kind(core, mix) * factor, leave_one_out_error, macs)
}

fn of_cycles(
    core: Core,
    clock_hertz: u64,
    cycles: f64,
    error: f64,
    macs: u64,
) -> Result<LatencyEstimate, &'static str> {
    let macs_per_cycle = macs as f64 / cycles;
    if cycles <= 0.0 || macs_per_cycle > peak_macs_per_cycle(core) {
        return Err("ImplausibleEstimate");
    }
    let nanoseconds = cycles / clock_hertz as f64 * 1e9;
    Ok(LatencyEstimate {
        nanoseconds: nanoseconds.round() as u64,
        // The error is that of a ratio: a third more one way is a quarter less the other.
        lower_nanoseconds: (nanoseconds / (1.0 + error)).round() as u64,
        upper_nanoseconds: (nanoseconds * (1.0 + error)).round() as u64,
        model: MODEL.into(),
        source: SOURCE.into(),
        core: name(core).into(),
        clock_hertz,
        macs_per_cycle: format!("{macs_per_cycle:.6}"),
        leave_one_out_error: format!("{error:.6}"),
    })
}

/// Energy of one inference from its estimated time; `None` unless the class has its data sheet's power.
pub fn energy(meant: &Microcontroller, latency: &LatencyEstimate) -> Option<EnergyEstimate> {
    let active_microwatts = meant.active_microwatts?;
    // Microwatts times nanoseconds are femtojoules.
    let nanojoules = |nanoseconds: u64| {
        u64::try_from(u128::from(active_microwatts) * u128::from(nanoseconds) / 1_000_000).unwrap_or(u64::MAX)
    };
    Some(EnergyEstimate {
        nanojoules: nanojoules(latency.nanoseconds),
        lower_nanojoules: nanojoules(latency.lower_nanoseconds),
        upper_nanojoules: nanojoules(latency.upper_nanoseconds),
        active_microwatts,
        model: ENERGY_MODEL.into(),
        source: SOURCE.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(core: Core) -> Microcontroller {
        Microcontroller { core: Some(core), clock_hertz: Some(100_000_000), active_microwatts: None }
    }

    fn mix() -> InstructionMix {
        InstructionMix {
            load: 100_000,
            store: 50_000,
            multiply: 200_000,
            branch: 10_000,
            other: 300_000,
            ..Default::default()
        }
    }

    #[test]
    fn an_estimate_is_a_band_around_the_formula() {
        let found = latency("mps2-an386", &meant(Core::CortexM4), &mix(), 400_000).unwrap();
        let Fit { factor, leave_one_out_error: error } = fit(Core::CortexM4).unwrap();
        let cycles = factor * (2.0 * 150_000.0 + 3.0 * 10_000.0 + 500_000.0);
        assert_eq!(found.nanoseconds, (cycles * 10.0).round() as u64);
        assert_eq!(found.upper_nanoseconds, (cycles * 10.0 * (1.0 + error)).round() as u64);
        assert_eq!(found.lower_nanoseconds, (cycles * 10.0 / (1.0 + error)).round() as u64);
        assert!(found.lower_nanoseconds < found.nanoseconds && found.nanoseconds < found.upper_nanoseconds);
        assert_eq!((found.model.as_str(), found.source.as_str()), (MODEL, "estimated"));
        assert_eq!(found.leave_one_out_error, format!("{error:.6}"));
    }

    #[test]
    fn half_the_clock_takes_twice_as_long() {
        let slow = Microcontroller { clock_hertz: Some(50_000_000), ..meant(Core::CortexM7) };
        let at = |meant| latency("mps2-an500", meant, &mix(), 1).unwrap().nanoseconds;
        assert!(at(&slow).abs_diff(2 * at(&meant(Core::CortexM7))) <= 1);
    }

    #[test]
    fn what_is_unknown_has_a_reason() {
        let why = |machine, meant: &Microcontroller| latency(machine, meant, &mix(), 1).unwrap_err();
        for core in [Core::CortexM0Plus, Core::CortexM3, Core::CortexM33, Core::CortexM55] {
            assert_eq!(why("mps2-an385", &meant(core)), "NoReference");
        }
        let clock = Microcontroller { clock_hertz: Some(1), ..Microcontroller::default() };
        assert_eq!(why("mps2-an385", &clock), "NoReference");
        assert_eq!(why("another", &clock), "CoreUnknown");
        assert_eq!(why("mps2-an386", &Microcontroller::default()), "ClockUnknown");
    }

    #[test]
    fn a_core_does_not_multiply_faster_than_it_can() {
        for core in [Core::CortexM3, Core::CortexM4, Core::CortexM55] {
            let peak = peak_macs_per_cycle(core) as u64;
            assert!(of_cycles(core, 1, 1000.0, 0.1, 1000 * peak).is_ok());
            assert_eq!(of_cycles(core, 1, 1000.0, 0.1, 1000 * peak + 1), Err("ImplausibleEstimate"));
        }
        assert_eq!(of_cycles(Core::CortexM4, 1, 0.0, 0.1, 0), Err("ImplausibleEstimate"));
        assert_eq!(latency("mps2-an386", &meant(Core::CortexM4), &mix(), 1 << 40), Err("ImplausibleEstimate"));
    }

    #[test]
    fn energy_needs_a_data_sheet() {
        let found = latency("mps2-an386", &meant(Core::CortexM4), &mix(), 1).unwrap();
        assert_eq!(energy(&meant(Core::CortexM4), &found), None);
        let known = Microcontroller { active_microwatts: Some(10_000), ..meant(Core::CortexM4) };
        let energy = energy(&known, &found).unwrap();
        // 10 mW for as many nanoseconds are a hundredth as many nanojoules.
        assert_eq!(energy.nanojoules, found.nanoseconds / 100);
        assert_eq!(energy.upper_nanojoules, found.upper_nanoseconds / 100);
        assert_eq!((energy.source.as_str(), energy.model.as_str()), ("estimated", ENERGY_MODEL));
    }

    /// The table of cores is that of the firmware's list.
    #[test]
    fn cores_are_those_of_the_firmware() {
        let list = include_str!("../../../hardware-lab/firmware/machines.toml");
        let value = |entry: &str, key: &str| {
            let line =
                entry.lines().find(|line| line.starts_with(key)).map(|line| line.split('"').nth(1).unwrap().to_owned());
            line.unwrap_or_else(|| panic!("{key}: {entry}"))
        };
        let entries: Vec<&str> = list.split("[[machine]]").skip(1).collect();
        assert!(entries.len() >= 6);
        for entry in entries {
            let machine = value(entry, "name");
            assert_eq!(core_of(&machine).map(name), Some(value(entry, "core").as_str()), "{machine}");
        }
    }
}
