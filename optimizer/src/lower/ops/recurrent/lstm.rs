//! LSTM, written out.

use edgeyard_tflite::{BuiltinOp, Options};

use super::super::super::LowerError;
use super::super::super::draft::{TensorId, Value};
use super::super::super::walk::Walk;
use super::{
    Direction, Sizes, Weights, define, few_steps, fully, initial, part, product, read, saturating_sum, sequence,
};

/// `LSTM` with constant weights and the usual activations.
pub(in super::super) fn lstm(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let node = walk.node();
    if node.int("input_forget", 0) != 0 || node.input(7).is_some() && !sequence::wanted(walk) {
        return Err(walk.refuse("it couples gates or has peepholes", "export it without them"));
    }
    let layer = read(walk, 4, &["Sigmoid", "Tanh", "Tanh"])?;
    if sequence::wanted(walk) && sequence::worthwhile(walk, layer.sizes) {
        return sequence::lower(walk, layer);
    }
    few_steps(walk, &layer)?;
    let Sizes { time, batch, features, .. } = layer.sizes;
    let rows = walk.draft.reshaped(walk.at, layer.input, &[time * batch, features]);
    let mut made: Vec<Direction> = Vec::new();
    for (at, weights) in layer.directions.into_iter().enumerate() {
        let hidden_state = initial(walk, 5, at, layer.sizes)?;
        let cell = initial(walk, 6, at, layer.sizes)?;
        made.push(run(walk, rows, weights, hidden_state, cell, layer.sizes));
    }
    define(walk, made, layer.sizes);
    Ok(())
}

/// ONNX's gates stand in the order input, output, forget, cell.
fn run(
    walk: &mut Walk<'_>,
    rows: TensorId,
    weights: Weights,
    mut state: Option<TensorId>,
    mut cell: Option<TensorId>,
    sizes: Sizes,
) -> Direction {
    let Sizes { time, batch, features, hidden } = sizes;
    let gates = 4 * hidden;
    let whole = walk.node().output().to_owned();
    let Weights { backwards, w, r, bias: [input_bias, state_bias] } = weights;
    let bias = input_bias.iter().zip(&state_bias).map(|(one, other)| one + other).collect();
    let w = walk.draft.constant(&[gates, features], Value::F32(w));
    let r = walk.draft.constant(&[gates, hidden], Value::F32(r));
    let bias = walk.draft.constant(&[gates], Value::F32(bias));
    let none = walk.draft.constant(&[gates], Value::F32(vec![0.0; gates]));
    // All steps' inputs in one product.
    let inputs = fully(walk, rows, w, bias, [time * batch, gates]);
    let one = [batch, hidden];
    let mut steps = Vec::with_capacity(time);
    for step in 0..time {
        let at = if backwards { time - 1 - step } else { step };
        let mut sums = part(walk, inputs, [at * batch, 0], [batch, gates]);
        if let Some(state) = state {
            let recurrent = fully(walk, state, r, none, [batch, gates]);
            sums = saturating_sum(walk, sums, recurrent, &[batch, gates]);
        }
        let three = part(walk, sums, [0, 0], [batch, 3 * hidden]);
        let open = walk.emit_inner(BuiltinOp::LOGISTIC, Options::None, &[three], &[batch, 3 * hidden]);
        let candidate = part(walk, sums, [0, 3 * hidden], one);
        let candidate = walk.emit_inner(BuiltinOp::TANH, Options::None, &[candidate], &one);
        let gate = |walk: &mut Walk<'_>, at: usize| part(walk, open, [0, at * hidden], one);
        let (enter, leave) = (gate(walk, 0), gate(walk, 1));
        let mut next = product(walk, enter, candidate, &one);
        if let Some(cell) = cell {
            let forget = gate(walk, 2);
            let kept = product(walk, forget, cell, &one);
            next = saturating_sum(walk, kept, next, &one);
        }
        let shown = walk.emit_inner(BuiltinOp::TANH, Options::None, &[next], &one);
        let result = product(walk, leave, shown, &one);
        if !whole.is_empty() {
            // The range over all steps was calibrated under the name of the whole.
            walk.draft.tensors[result].origin = Some(whole.clone());
        }
        steps.push(result);
        (state, cell) = (Some(result), Some(next));
    }
    let (last, cell) = (steps[time - 1], cell.unwrap_or(steps[time - 1]));
    if backwards {
        steps.reverse();
    }
    Direction { steps, last, cell }
}
