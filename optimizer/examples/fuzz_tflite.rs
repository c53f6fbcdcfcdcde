//! Fuzzes the reader of .tflite: damaged files are read, written again, inspected and imported.

#[path = "fuzzing/mod.rs"]
mod fuzzing;

use std::process::ExitCode;

use edgeyard_optimizer::ir::{import_tflite, load};
use edgeyard_optimizer::lower::{Mode, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, simplify};
use edgeyard_tflite::Model;
use fuzzing::Dice;

#[global_allocator]
static MEMORY: fuzzing::Bounded = fuzzing::Bounded;

fn main() -> ExitCode {
    fuzzing::run(make, read)
}

fn make(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let Some(seed) = (!seeds.is_empty()).then(|| dice.pick(seeds)) else { return Vec::new() };
    if dice.roll(2) == 0
        && let Ok(mut model) = edgeyard_tflite::read(seed)
    {
        (0..=dice.roll(3)).for_each(|_| twist(&mut model, dice));
        // What cannot be written is no input.
        if let Ok(bytes) = edgeyard_tflite::write(&model) {
            return bytes;
        }
    }
    let mut input = seed.clone();
    fuzzing::damage(&mut input, dice);
    input
}

/// Changes the structure and keeps the form.
fn twist(model: &mut Model, dice: &mut Dice) {
    let buffers = model.buffers.len();
    let Some(graph) = model.subgraphs.first_mut().filter(|graph| !graph.tensors.is_empty()) else { return };
    let tensors = graph.tensors.len();
    let operators = graph.operators.len();
    if dice.roll(2) == 0 {
        let tensor = &mut graph.tensors[dice.roll(tensors)];
        match dice.roll(5) {
            0 if !tensor.shape.is_empty() => {
                let at = dice.roll(tensor.shape.len());
                tensor.shape[at] = (dice.odd_number() & 0x7fff_ffff) as i32;
            }
            1 => tensor.shape.push(1 + dice.roll(3) as i32),
            2 => drop(tensor.shape.pop()),
            3 => tensor.buffer = dice.roll(buffers) as u32,
            _ => tensor.quantization = None,
        }
        return;
    }
    if operators == 0 {
        return;
    }
    let (one, other) = (dice.roll(operators), dice.roll(operators));
    match dice.roll(6) {
        0 => graph.operators.swap(one, other),
        1 => drop(graph.operators.remove(one)),
        2 => graph.operators[one].options = graph.operators[other].options.clone(),
        3 => graph.operators[one].code = graph.operators[other].code.clone(),
        4 => {
            let inputs = &mut graph.operators[one].inputs;
            if !inputs.is_empty() {
                let at = dice.roll(inputs.len());
                inputs[at] = dice.roll(tensors + 1) as i32 - 1;
            }
        }
        _ => drop(graph.operators[one].inputs.pop()),
    }
}

fn read(input: &[u8]) -> Result<bool, String> {
    let Ok(model) = edgeyard_tflite::read(input) else { return Ok(false) };
    if let Ok(written) = edgeyard_tflite::write(&model) {
        edgeyard_tflite::read(&written).map_err(|error| format!("what was written does not read: {error}"))?;
    }
    let _ = edgeyard_tflite::inspect(input);
    let Ok(imported) = import_tflite(input) else { return Ok(false) };
    let again =
        load(&imported.to_bytes(), None).map_err(|error| format!("what was imported does not load: {error}"))?;
    let Ok(graph) = simplify(&again.graph, &Shapes::Fixed(Default::default())) else { return Ok(false) };
    Ok(to_tflite(&graph, Mode::Float32, None).is_ok())
}
