//! What a microcontroller counted, as the record has it, and what is estimated from that. Pure.

use edgeyard_job::spec::Backend;
use edgeyard_record::{EnergyEstimate, InstructionMix, LatencyEstimate, Microcontroller, Operator};

use crate::cortex_m::Unit;
use crate::estimate;
use crate::plan::Plan;
use crate::runtime::{Counted, SecondOpinion};

/// The record's fields of a microcontroller.
pub struct Counts {
    pub instructions_per_inference: Option<u64>,
    pub instruction_counts: Option<Vec<u64>>,
    pub operators: Option<Vec<Operator>>,
    pub instruction_mix: Option<InstructionMix>,
    pub cycles_per_inference: Option<u64>,
    pub latency_estimate: Option<LatencyEstimate>,
    pub energy_estimate: Option<EnergyEstimate>,
    pub microcontroller: Option<Microcontroller>,
}

/// Fills them; `explain` takes a field, whether it is unknown, and why.
pub fn of(
    plan: &Plan,
    counted: Option<&Counted>,
    macs: Option<u64>,
    explain: &mut impl FnMut(&str, bool, &str),
) -> Counts {
    let exact = counted.filter(|counted| counted.unit == Unit::Instructions);
    // Of a board, cycles are known and instructions are not.
    let not_counted = if counted.is_some() { "CyclesCounted" } else { "NotCounted" };
    let instructions_per_inference = exact.and_then(|counted| counted.by_input.first().copied());
    explain("instructionsPerInference", instructions_per_inference.is_none(), not_counted);
    let instruction_counts = exact.map(|counted| counted.by_input.clone());
    explain("instructionCounts", instruction_counts.is_none(), not_counted);
    let operators = exact.map(|counted| {
        let operator =
            |(name, instructions): &(String, u64)| Operator { name: name.clone(), instructions: *instructions };
        counted.operators.iter().map(operator).collect()
    });
    explain("operators", operators.is_none(), not_counted);

    let (instruction_mix, why) = match exact.map(|counted| &counted.second_opinion) {
        Some(SecondOpinion::Agrees(mix)) => (Some(*mix), ""),
        Some(SecondOpinion::Disagrees(_)) => (None, "CountsDisagree"),
        Some(SecondOpinion::Missing) => (None, "PluginMissing"),
        Some(SecondOpinion::NotAsked) => (None, "NoSecondCounter"),
        None => (None, not_counted),
    };
    explain("instructionMix", instruction_mix.is_none(), why);
    let cycles = counted.filter(|counted| counted.unit == Unit::Cycles);
    let cycles_per_inference = cycles.and_then(|counted| counted.by_input.first().copied());
    let no_cycles = if counted.is_some() { "InstructionsCounted" } else { "NoMicrocontroller" };
    explain("cyclesPerInference", cycles_per_inference.is_none(), no_cycles);

    let estimated = estimated(&plan.backend, instruction_mix, macs);
    let why = estimated.as_ref().err().copied().unwrap_or("NoDataSheet");
    let latency_estimate = estimated.ok();
    explain("latencyEstimate", latency_estimate.is_none(), why);
    let energy_estimate = match (&plan.backend, &latency_estimate) {
        (Backend::CortexM { microcontroller, .. }, Some(latency)) => estimate::energy(microcontroller, latency),
        _ => None,
    };
    explain("energyEstimate", energy_estimate.is_none(), why);

    let microcontroller = counted.map(|counted| {
        let (used, limits) = (&counted.memory, &plan.limits);
        let limit = |field: &str, limit: Option<u64>, explain: &mut dyn FnMut(&str, bool, &str)| {
            explain(&format!("microcontroller.{field}"), limit.is_none(), "NoLimit");
            limit
        };
        Microcontroller {
            flash_bytes: used.flash_bytes,
            ram_bytes: used.ram_bytes,
            arena_bytes: used.arena_bytes,
            stack_bytes: used.stack_bytes,
            io_bytes: Some(used.io_bytes),
            flash_limit_bytes: limit("flashLimitBytes", limits.flash_bytes, explain),
            ram_limit_bytes: limit("ramLimitBytes", limits.memory_bytes, explain),
            arena_limit_bytes: limit("arenaLimitBytes", limits.arena_bytes, explain),
        }
    });
    explain("microcontroller", microcontroller.is_none(), "NoMicrocontroller");
    Counts {
        instructions_per_inference,
        instruction_counts,
        operators,
        instruction_mix,
        cycles_per_inference,
        latency_estimate,
        energy_estimate,
        microcontroller,
    }
}

fn estimated(
    backend: &Backend,
    mix: Option<InstructionMix>,
    macs: Option<u64>,
) -> Result<LatencyEstimate, &'static str> {
    match backend {
        Backend::Runtime { .. } => Err("NoMicrocontroller"),
        Backend::CortexM { serial_port: Some(_), .. } => Err("RealBoard"),
        Backend::CortexM { machine, microcontroller, .. } => {
            let mix = mix.ok_or("NoInstructionMix")?;
            estimate::latency(machine, microcontroller, &mix, macs.ok_or("MacsUnknown")?)
        }
    }
}

/// The emulated core and the one that is meant, if a class stands for another core than its machine has.
pub fn other_core(backend: &Backend) -> Option<(&'static str, &'static str)> {
    let Backend::CortexM { machine, serial_port: None, microcontroller, .. } = backend else { return None };
    let (has, meant) = (estimate::core_of(machine)?, microcontroller.core?);
    (has != meant).then(|| (estimate::name(has), estimate::name(meant)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeyard_job::spec::{Core, Microcontroller as DataSheet};

    #[test]
    fn a_core_that_stands_for_another_is_told() {
        let backend = |core| Backend::CortexM {
            machine: "mps2-an385".into(),
            icount_shift: 6,
            serial_port: None,
            microcontroller: Box::new(DataSheet { core, ..DataSheet::default() }),
        };
        assert_eq!(other_core(&backend(Some(Core::CortexM0Plus))), Some(("Cortex-M3", "Cortex-M0+")));
        assert_eq!(other_core(&backend(Some(Core::CortexM3))), None);
        assert_eq!(other_core(&backend(None)), None);
        assert_eq!(other_core(&Backend::runtime()), None);
    }
}
