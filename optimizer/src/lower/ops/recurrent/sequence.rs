//! LSTM as TFLite's UNIDIRECTIONAL_SEQUENCE_LSTM, for long sequences in floats: one operator, however many steps. Its state
//! outlives an inference, which ONNX's does not: a step of our own comes first that empties it. That step feeds zeros and
//! one feature more, whose weights close the input gate and the forget gate for good: sigmoid(-large) is 0, so the cell
//! is 0 · old + 0 · new, and with it the state. The other steps have 0 there.

use edgeyard_tflite::{Activation, BuiltinOp, op_options as opt};

use super::super::super::LowerError;
use super::super::super::draft::{Op, SLICE_OPTIONS, TensorId, Value};
use super::super::super::layout::{Layout, Stored};
use super::super::super::walk::Walk;
use super::{Layer, Sizes, Weights, starts_from_zero};
use edgeyard_tflite::Options;

/// Fewer steps are written out: the fast kernels of matrix products take them, and nothing is added.
const LEAST_STEPS: usize = 16;
/// Where sigmoid gives nothing any more in 32 bits: e^-104 is the smallest number there is.
const CLOSED: f32 = 200.0;
/// How the operator's inputs lie (lite/kernels/lstm_shared.h).
const INPUTS: usize = 24;
const INPUT_WEIGHTS: usize = 1;
const RECURRENT_WEIGHTS: usize = 5;
const PEEPHOLES: usize = 9;
const BIASES: usize = 12;
const OUTPUT_STATE: usize = 18;
const CELL_STATE: usize = 19;
/// ONNX's gates are input, output, forget, cell; TFLite's input, forget, cell, output.
const ORDER: [usize; 4] = [0, 2, 3, 1];
/// ONNX's peepholes are input, output, forget; TFLite's input, forget, output.
const PEEPHOLE_ORDER: [usize; 3] = [0, 2, 1];

/// Whether the operator gives what is asked for: it starts from zero, and does not tell its last cell.
pub(super) fn wanted(walk: &Walk<'_>) -> bool {
    walk.sequences
        && walk.node().outputs.get(2).is_none_or(String::is_empty)
        && starts_from_zero(walk, 5)
        && starts_from_zero(walk, 6)
}

/// Whether it is worth the step that it adds; peepholes have no other form.
pub(super) fn worthwhile(walk: &Walk<'_>, sizes: Sizes) -> bool {
    sizes.time >= LEAST_STEPS || walk.node().input(7).is_some()
}

/// Lowers a layer; `wanted` was asked.
pub(super) fn lower(walk: &mut Walk<'_>, layer: Layer) -> Result<(), LowerError> {
    let Layer { sizes, input, directions } = layer;
    let Sizes { time, batch, hidden, .. } = sizes;
    let peepholes = match walk.node().input(7) {
        Some(_) => walk.floats(7, "P")?.1,
        None => Vec::new(),
    };
    if !peepholes.is_empty() && peepholes.len() != directions.len() * 3 * hidden {
        return Err(walk.refuse("its P does not fit", "repair the model"));
    }
    let count = directions.len();
    let (mut all, mut last) = (Vec::new(), Vec::new());
    for (at, weights) in directions.into_iter().enumerate() {
        let backwards = weights.backwards;
        let own = peepholes.get(at * 3 * hidden..(at + 1) * 3 * hidden);
        let fed = if backwards { reversed(walk, input) } else { input };
        let made = run(walk, fed, weights, own, sizes);
        // The state after the last step, in the order in which they were taken.
        let end = rows(walk, made, time, 1);
        let steps = rows(walk, made, 1, time);
        let steps = if backwards { reversed(walk, steps) } else { steps };
        all.push(walk.draft.reshaped(walk.at, steps, &[time, 1, batch, hidden]));
        last.push(end);
    }
    let options = |axis: i32| opt::Concatenation { axis, ..opt::Concatenation::default() };
    for (index, parts, axis, dims) in
        [(0, all, 1, vec![time, count, batch, hidden]), (1, last, 0, vec![count, batch, hidden])]
    {
        if walk.node().outputs.get(index).is_none_or(String::is_empty) {
            continue;
        }
        let tensor = match parts[..] {
            [part] => part,
            _ => walk.emit_inner(BuiltinOp::CONCATENATION, options(axis), &parts, &dims),
        };
        let layout = Layout::Axes(Layout::identity(dims.len()));
        walk.define_as(index, Stored { tensor, dims, layout });
    }
    Ok(())
}

/// `count` steps from `first` on.
fn rows(walk: &mut Walk<'_>, x: TensorId, first: usize, count: usize) -> TensorId {
    let shape = walk.draft.tensors[x].shape.clone();
    let begin = walk.draft.ints(&[first, 0, 0]);
    let shape = [count, shape[1], shape[2]];
    let size = walk.draft.ints(&shape);
    walk.emit_inner(BuiltinOp::SLICE, Options::Empty(SLICE_OPTIONS), &[x, begin, size], &shape)
}

/// The steps from the last to the first.
fn reversed(walk: &mut Walk<'_>, x: TensorId) -> TensorId {
    let shape = walk.draft.tensors[x].shape.clone();
    let axes = walk.draft.ints(&[0]);
    walk.emit_inner(BuiltinOp::REVERSE_V2, Options::Empty(REVERSE_OPTIONS), &[x, axes], &shape)
}

/// Union number of REVERSE_V2's options, which are empty.
const REVERSE_OPTIONS: u8 = 81;

/// [time + 1, batch, hidden]: the result of the step that empties the state, then those of all others.
fn run(walk: &mut Walk<'_>, x: TensorId, weights: Weights, peepholes: Option<&[f32]>, sizes: Sizes) -> TensorId {
    let Sizes { time, batch, features, hidden } = sizes;
    let Weights { w, r, bias: [input_bias, state_bias], .. } = weights;
    let bias: Vec<f32> = input_bias.iter().zip(&state_bias).map(|(one, other)| one + other).collect();
    let wide = features + 1;
    let join = |axis: i32| opt::Concatenation { axis, ..opt::Concatenation::default() };
    let zeros = walk.draft.constant(&[time, batch, 1], Value::F32(vec![0.0; time * batch]));
    let open = walk.emit_inner(BuiltinOp::CONCATENATION, join(2), &[x, zeros], &[time, batch, wide]);
    let first = (0..batch * wide).map(|at| if at % wide == features { 1.0 } else { 0.0 }).collect();
    let first = walk.draft.constant(&[1, batch, wide], Value::F32(first));
    let fed = walk.emit_inner(BuiltinOp::CONCATENATION, join(0), &[first, open], &[time + 1, batch, wide]);
    let mut inputs = vec![None; INPUTS];
    inputs[0] = Some(fed);
    for (place, &gate) in ORDER.iter().enumerate() {
        let own = gate * hidden..(gate + 1) * hidden;
        let closes = gate == 0 || gate == 2;
        let mut values = Vec::with_capacity(hidden * wide);
        for row in own.clone() {
            values.extend(&w[row * features..(row + 1) * features]);
            // States lie between -1 and 1, so the recurrent part is at most the sum of its weights. Peepholes see
            // cells, which nothing bounds; cells that have grown to thousands are past saving.
            let reach: f32 = r[row * hidden..(row + 1) * hidden].iter().map(|weight| weight.abs()).sum();
            let peeped = peepholes.map_or(0.0, |p| {
                let at = PEEPHOLE_ROW[gate].map_or(0, |part| part * hidden) + row - own.start;
                1e3 * p.get(at).map_or(0.0, |weight| weight.abs())
            });
            values.push(if closes { -(CLOSED + reach + bias[row].abs() + peeped) } else { 0.0 });
        }
        inputs[INPUT_WEIGHTS + place] = Some(walk.draft.constant(&[hidden, wide], Value::F32(values)));
        let recurrent = r[own.start * hidden..own.end * hidden].to_vec();
        inputs[RECURRENT_WEIGHTS + place] = Some(walk.draft.constant(&[hidden, hidden], Value::F32(recurrent)));
        inputs[BIASES + place] = Some(walk.draft.constant(&[hidden], Value::F32(bias[own].to_vec())));
    }
    for (place, &part) in PEEPHOLE_ORDER.iter().enumerate() {
        if let Some(values) = peepholes.and_then(|values| values.get(part * hidden..(part + 1) * hidden)) {
            inputs[PEEPHOLES + place] = Some(walk.draft.constant(&[hidden], Value::F32(values.to_vec())));
        }
    }
    for place in [OUTPUT_STATE, CELL_STATE] {
        let state = walk.draft.computed(&[batch, hidden], None);
        walk.draft.tensors[state].variable = true;
        inputs[place] = Some(state);
    }
    let output = walk.draft.computed(&[time + 1, batch, hidden], None);
    let options = opt::UnidirectionalSequenceLstm {
        fused_activation_function: Activation::Tanh,
        time_major: true,
        ..opt::UnidirectionalSequenceLstm::default()
    };
    walk.draft.ops.push(Op {
        op: BuiltinOp::UNIDIRECTIONAL_SEQUENCE_LSTM,
        options: options.into(),
        inputs,
        outputs: vec![output],
        node: walk.at,
        clamp: (0.0, 0.0),
    });
    output
}

/// Which of ONNX's peepholes a gate of ONNX's order looks through.
const PEEPHOLE_ROW: [Option<usize>; 4] = [Some(0), Some(1), Some(2), None];
