//! `parity`: an int8 model on an emulated microcontroller and in TensorFlow Lite Micro, on the same random inputs, bit for bit.
//! Says what the model costs on the device besides. Measures no time and makes no record.

mod compare;
mod oracle;

use std::path::PathBuf;

use edgeyard_job::spec::Backend;
use edgeyard_measure::random::Random;
use edgeyard_record::InstructionMix;
use serde::Serialize;

use crate::catalogue::{self, Class};
use crate::cli::{self, Output};
use crate::cortex_m::{DType, Emulator, Limits, Machine, MemoryUse, ModelInfo, confirmed_mix, preflight};
use crate::error::Failure;
use crate::table::{self, align, thousands};

pub use compare::{Difference, compare};

/// Compare a model on an emulated microcontroller with TensorFlow Lite Micro.
#[derive(clap::Args, Debug)]
pub struct Parity {
    /// An int8 .tflite file.
    pub model: PathBuf,
    /// The device class, by name or as a manifest; see `classes`.
    #[arg(long, value_name = "NAME|FILE", default_value = "qemu-cortex-m4")]
    pub device_class: String,
    /// Random inputs to compare on.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub inputs: u32,
    /// What the inputs are made from.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The device class.
    pub device_class: String,
    /// QEMU's name of the machine.
    pub machine: String,
    /// What was compared with, such as `tflite-micro 0.1`.
    pub oracle: String,
    /// Inputs that were compared.
    pub inputs: u32,
    /// What they were made from.
    pub seed: u64,
    /// How outputs differ.
    #[serde(flatten)]
    pub difference: Difference,
    /// Exact count of the first input's inference.
    pub instructions_per_inference: u64,
    /// The fewest of all inputs: operators that branch on data make them differ.
    pub instructions_minimum: u64,
    /// The most of all inputs.
    pub instructions_maximum: u64,
    /// The first input's inference by operator, in the order in which they run.
    pub per_op: Vec<PerOp>,
    /// The first input's inference by kind of instruction, by a plugin of QEMU that has confirmed every count of `perOp`; null
    /// if the plugin is not installed. The sum is above the inference's by entering and leaving operators.
    pub mix: Option<InstructionMix>,
    /// Code, constants and the model.
    pub flash_bytes: u64,
    /// Arena, stack at its deepest, and statics.
    pub ram_bytes: u64,
    /// Tensors at their peak, working memory and tables.
    pub arena_bytes: u64,
    /// The deepest that the stack was.
    pub stack_bytes: u64,
    /// Statics and counters.
    pub io_bytes: u64,
}

/// One operator.
#[derive(Clone, Debug, Serialize)]
pub struct PerOp {
    /// Its position.
    pub index: usize,
    /// Its name in the schema.
    pub name: String,
    /// What it took.
    pub instructions: u64,
}

/// Compares, prints, and says whether all outputs are equal.
///
/// # Errors
/// Bad input for a model or class that cannot be run, said before an emulator starts where the file alone tells;
/// infrastructure where emulator, firmware or oracle are missing.
pub fn execute(arguments: &Parity) -> Result<bool, Failure> {
    let report = run(arguments)?;
    match arguments.output {
        Output::Json => cli::print(&serde_json::to_string_pretty(&report).unwrap_or_default()),
        Output::Table => cli::print(&table(&report)),
    }
    Ok(report.difference.equal)
}

fn run(arguments: &Parity) -> Result<Report, Failure> {
    let Parity { model, device_class, inputs: count, seed, output: _ } = arguments;
    let class = catalogue::find(device_class)?;
    let about = |failure: Failure| failure.about(&model.display().to_string());
    let file = fs_err::read(model)?;
    let limits = Limits::from(&class.limits);
    let (machine, icount_shift) = microcontroller(&class)?;
    preflight(&file, &limits).map_err(Failure::from).map_err(about)?;
    let oracle = oracle::Oracle::from_environment()?;

    let machine = Machine::from_environment(machine, icount_shift)?;
    let mut emulator = Emulator::start(&machine)?;
    let info = emulator.load(&file).map_err(Failure::from).map_err(about)?;
    limits.check_arena(info.arena_bytes).map_err(Failure::from).map_err(about)?;
    let mut generator = Random::new(*seed);
    let inputs: Vec<Vec<i8>> = (0..*count).map(|index| random_input(&info, index, &mut generator)).collect();
    let inferences = emulator.infer_all(inputs.iter().map(Vec::as_slice))?;
    let memory = emulator.memory()?;
    limits.check(&memory).map_err(Failure::from).map_err(about)?;

    let computed = oracle.compute(&file, &info, &inputs).map_err(about)?;
    let got: Vec<u8> = inferences.iter().flat_map(|inference| inference.outputs.iter().copied()).collect();
    let difference = compare(&info.outputs, &got, &computed.outputs);
    let counts = || inferences.iter().map(|inference| inference.instructions);
    let first = inferences.first().ok_or_else(|| Failure::bad_input("NoInputs", "--inputs must be at least 1"))?;
    let mix = match machine.plugin() {
        Some(plugin) => Some(confirmed_mix(&machine, &plugin, &file, &inputs[0], first)?),
        None => None,
    };
    let per_op = first.per_op.iter().zip(info.ops).enumerate();
    let MemoryUse { flash_bytes, model_bytes: _, arena_bytes, stack_bytes, io_bytes, ram_bytes } = memory;
    Ok(Report {
        machine: machine.name,
        oracle: format!("tflite-micro {}", computed.version),
        inputs: *count,
        seed: *seed,
        difference,
        instructions_per_inference: first.instructions,
        instructions_minimum: counts().min().unwrap_or(first.instructions),
        instructions_maximum: counts().max().unwrap_or(first.instructions),
        per_op: per_op.map(|(index, (n, name))| PerOp { index, name, instructions: *n }).collect(),
        mix,
        flash_bytes,
        ram_bytes,
        arena_bytes,
        stack_bytes,
        io_bytes,
        device_class: class.name,
    })
}

/// The machine of a class, and its clock.
fn microcontroller(class: &Class) -> Result<(&str, u8), Failure> {
    match &class.backend {
        Backend::CortexM { machine, icount_shift, serial_port: None, .. } => Ok((machine, *icount_shift)),
        _ => {
            let known = catalogue::all().into_iter();
            let known = known.filter(|c| matches!(c.backend, Backend::CortexM { serial_port: None, .. }));
            let known: Vec<String> = known.map(|c| c.name).collect();
            Err(Failure::bad_input(
                "UnsupportedMachine",
                format!("device class {} is no emulated microcontroller: use one of {}", class.name, known.join(", ")),
            ))
        }
    }
}

/// All inputs of one inference: integers over their whole range, in every fourth only its ends, where saturation shows; floats
/// from -10 to 10.
fn random_input(info: &ModelInfo, index: u32, generator: &mut Random) -> Vec<i8> {
    let ends = index % 4 == 1;
    let mut bytes = Vec::with_capacity(info.input_bytes());
    for input in &info.inputs {
        match input.dtype {
            DType::Int8 => bytes.extend((0..input.bytes).map(|_| {
                let bits = (generator.next_u64() >> 56) as u8;
                if ends { 0x7f_u8.wrapping_add(bits & 1) } else { bits }
            })),
            DType::Int32 => {
                bytes.extend((0..input.bytes / 4).flat_map(|_| ((generator.next_u64() >> 32) as i32).to_le_bytes()));
            }
            DType::Float32 => {
                bytes.extend((0..input.bytes / 4).flat_map(|_| ((generator.unit() * 20.0 - 10.0) as f32).to_le_bytes()))
            }
        }
    }
    bytes.into_iter().map(|byte| byte as i8).collect()
}

fn table(report: &Report) -> String {
    let Report { difference, .. } = report;
    let Difference { equal, elements, mismatches, max_abs_difference, first } = difference;
    let verdict = if *equal {
        format!("equal: {} of {} output elements", thousands(*elements), thousands(*elements))
    } else {
        let at = first.as_ref().map_or_else(String::new, |f| {
            format!(
                "; the first is input {}, output {}, element {}: {} for {}",
                f.input, f.output, f.element, f.got, f.want
            )
        });
        format!(
            "NOT EQUAL: {} of {} output elements differ, by {max_abs_difference} at most{at}",
            thousands(*mismatches),
            thousands(*elements)
        )
    };
    let pair = |name: &str, value: String| vec![name.to_owned(), value];
    let range = (report.instructions_minimum, report.instructions_maximum);
    let spread = if range.0 == range.1 {
        String::new()
    } else {
        format!(" (from {} to {})", thousands(range.0), thousands(range.1))
    };
    let mix = report.mix.as_ref();
    let mut rows = vec![
        pair("device class", format!("{} ({})", report.device_class, report.machine)),
        pair("compared with", format!("{}, {} inputs of seed {}", report.oracle, report.inputs, report.seed)),
        pair("outputs", verdict),
        pair("instructions", format!("{} per inference{spread}", thousands(report.instructions_per_inference))),
        pair("mix", mix.map_or_else(|| "unknown: no plugin is beside the firmware".into(), table::mix)),
        pair("flash", format!("{} bytes", thousands(report.flash_bytes))),
        pair("RAM", format!("{} bytes", thousands(report.ram_bytes))),
        pair("arena", format!("{} bytes", thousands(report.arena_bytes))),
    ];
    let mut text = align(&rows);
    rows = vec![["OP", "NAME", "INSTRUCTIONS", "SHARE"].map(str::to_owned).to_vec()];
    rows.extend(report.per_op.iter().map(|op| {
        let share = 100.0 * op.instructions as f64 / report.instructions_per_inference.max(1) as f64;
        vec![op.index.to_string(), op.name.clone(), thousands(op.instructions), format!("{share:.1} %")]
    }));
    text.push('\n');
    text + &align(&rows)
}
