//! GRU, written out. With z the update gate and r the reset gate, each step is h' = (1 - z) ∘ c + z ∘ h, where the
//! candidate c is tanh(W x + R (r ∘ h) + b), or tanh(W x + r ∘ (R h + b') + b) with `linear_before_reset`.

use edgeyard_tflite::{BuiltinOp, Options, op_options as opt};

use super::super::super::LowerError;
use super::super::super::draft::{TensorId, Value};
use super::super::super::walk::Walk;
use super::{Direction, Sizes, Weights, define, few_steps, fully, initial, part, product, read, saturating_sum};

/// `GRU` with constant weights and the usual activations.
pub(in super::super) fn gru(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let late = walk.node().int("linear_before_reset", 0) != 0;
    let layer = read(walk, 3, &["Sigmoid", "Tanh"])?;
    few_steps(walk, &layer)?;
    let Sizes { time, batch, features, .. } = layer.sizes;
    let rows = walk.draft.reshaped(walk.at, layer.input, &[time * batch, features]);
    let mut made: Vec<Direction> = Vec::new();
    for (at, weights) in layer.directions.into_iter().enumerate() {
        let state = initial(walk, 5, at, layer.sizes)?;
        made.push(run(walk, rows, weights, state, late, layer.sizes));
    }
    define(walk, made, layer.sizes);
    Ok(())
}

/// The candidate's recurrent part.
enum Recurrent {
    /// All gates in one product; the reset gate acts on what it gives.
    Late { r: TensorId, bias: TensorId, candidate_bias: TensorId },
    /// The reset gate acts on the state before the candidate's product.
    Early { gates: TensorId, candidate: TensorId, none: TensorId, nothing: TensorId },
}

/// ONNX's gates stand in the order update, reset, candidate.
fn run(
    walk: &mut Walk<'_>,
    rows: TensorId,
    weights: Weights,
    mut state: Option<TensorId>,
    late: bool,
    sizes: Sizes,
) -> Direction {
    let Sizes { time, batch, features, hidden } = sizes;
    let (two, three, one) = (2 * hidden, 3 * hidden, [batch, hidden]);
    let whole = walk.node().output().to_owned();
    let Weights { backwards, w, r, bias: [mut bias, state_bias] } = weights;
    // What is added to the state's product can be added to the input's, but for what the reset gate multiplies.
    for (bias, other) in bias.iter_mut().zip(&state_bias).take(if late { two } else { three }) {
        *bias += other;
    }
    let constant =
        |walk: &mut Walk<'_>, shape: &[usize], values: &[f32]| walk.draft.constant(shape, Value::F32(values.to_vec()));
    let recurrent = match late {
        true => {
            let bias = [&vec![0.0; two], &state_bias[two..]].concat();
            Recurrent::Late {
                r: constant(walk, &[three, hidden], &r),
                bias: constant(walk, &[three], &bias),
                candidate_bias: constant(walk, &[1, hidden], &state_bias[two..]),
            }
        }
        false => {
            let (gates, candidate) = r.split_at(two * hidden);
            Recurrent::Early {
                gates: constant(walk, &[two, hidden], gates),
                candidate: constant(walk, &[hidden, hidden], candidate),
                none: constant(walk, &[two], &vec![0.0; two]),
                nothing: constant(walk, &[hidden], &vec![0.0; hidden]),
            }
        }
    };
    let w = constant(walk, &[three, features], &w);
    let bias = constant(walk, &[three], &bias);
    let full = constant(walk, &[1, 1], &[1.0]);
    let inputs = fully(walk, rows, w, bias, [time * batch, three]);
    let mut steps = Vec::with_capacity(time);
    for step in 0..time {
        let at = if backwards { time - 1 - step } else { step };
        let given = part(walk, inputs, [at * batch, 0], [batch, three]);
        let mut gates = part(walk, given, [0, 0], [batch, two]);
        let mut candidate = part(walk, given, [0, two], one);
        // The state's share of the candidate, where the reset gate does not come before it.
        let mut share = None;
        match (state, &recurrent) {
            (Some(state), Recurrent::Late { r, bias, .. }) => {
                let all = fully(walk, state, *r, *bias, [batch, three]);
                let own = part(walk, all, [0, 0], [batch, two]);
                gates = saturating_sum(walk, gates, own, &[batch, two]);
                share = Some(part(walk, all, [0, two], one));
            }
            (Some(state), Recurrent::Early { gates: r, none, .. }) => {
                let own = fully(walk, state, *r, *none, [batch, two]);
                gates = saturating_sum(walk, gates, own, &[batch, two]);
            }
            (None, Recurrent::Late { candidate_bias, .. }) => share = Some(*candidate_bias),
            (None, Recurrent::Early { .. }) => {}
        }
        let open = walk.emit_inner(BuiltinOp::LOGISTIC, Options::None, &[gates], &[batch, two]);
        let (update, reset) = (part(walk, open, [0, 0], one), part(walk, open, [0, hidden], one));
        if let Some(share) = share {
            let kept = product(walk, reset, share, &one);
            candidate = saturating_sum(walk, candidate, kept, &one);
        } else if let (Some(state), Recurrent::Early { candidate: r, nothing, .. }) = (state, &recurrent) {
            let kept = product(walk, reset, state, &one);
            let share = fully(walk, kept, *r, *nothing, one);
            candidate = saturating_sum(walk, candidate, share, &one);
        }
        let candidate = walk.emit_inner(BuiltinOp::TANH, Options::None, &[candidate], &one);
        let options = opt::Sub { pot_scale_int16: false, ..opt::Sub::default() };
        let rest = walk.emit_inner(BuiltinOp::SUB, options, &[full, update], &one);
        let mut next = product(walk, rest, candidate, &one);
        if let Some(state) = state {
            let kept = product(walk, update, state, &one);
            next = walk.emit_inner(BuiltinOp::ADD, super::elementwise::add_options(), &[next, kept], &one);
        }
        if !whole.is_empty() {
            // The range over all steps was calibrated under the name of the whole.
            walk.draft.tensors[next].origin = Some(whole.clone());
        }
        steps.push(next);
        state = Some(next);
    }
    let last = steps[time - 1];
    if backwards {
        steps.reverse();
    }
    Direction { steps, last, cell: last }
}
