//! Clamps to intervals that no TFLite operator has. In float they become MAXIMUM and MINIMUM with constants; in int8
//! most cost nothing, because the result's scale covers just the interval and integers saturate.

use std::collections::BTreeSet;

use edgeyard_tflite::{BuiltinOp, Options};

use super::super::draft::{CLAMP, Draft, MAXIMUM_MINIMUM_OPTIONS, Op, TensorId, Value};
use super::{Activations, rules};

/// Writes every clamp as comparisons with constants.
pub(in super::super) fn expand_clamps(draft: &mut Draft) {
    for op in std::mem::take(&mut draft.ops) {
        if op.op == CLAMP {
            expand(draft, &op);
        } else {
            draft.ops.push(op);
        }
    }
}

fn expand(draft: &mut Draft, clamp: &Op) {
    let (lower, upper) = clamp.clamp;
    if (lower, upper) == (0.0, 6.0) {
        draft.ops.push(Op { op: BuiltinOp::RELU6, clamp: (0.0, 0.0), ..clamp.clone() });
        return;
    }
    let mut bounds = Vec::new();
    if lower != f32::NEG_INFINITY {
        bounds.push((BuiltinOp::MAXIMUM, lower));
    }
    if upper != f32::INFINITY {
        bounds.push((BuiltinOp::MINIMUM, upper));
    }
    let (mut input, output) = (clamp.inputs[0], clamp.outputs[0]);
    let shape = draft.tensors[output].shape.clone();
    let count = bounds.len();
    for (at, (op, bound)) in bounds.into_iter().enumerate() {
        let bound = draft.constant(&[1], Value::F32(vec![bound]));
        let result: TensorId = if at + 1 == count { output } else { draft.computed(&shape, None) };
        draft.ops.push(Op {
            op,
            options: Options::Empty(MAXIMUM_MINIMUM_OPTIONS),
            inputs: vec![input, Some(bound)],
            outputs: vec![result],
            node: clamp.node,
            clamp: (0.0, 0.0),
        });
        input = Some(result);
    }
    if count == 0 {
        // Unbounded on both sides: a copy.
        let options = edgeyard_tflite::op_options::Reshape { new_shape: shape.iter().map(|&dim| dim as i32).collect() };
        draft.ops.push(Op { op: BuiltinOp::RESHAPE, options: options.into(), ..clamp.clone() });
    }
}

/// Removes the clamps that saturation does: the operation before can give any scale, nothing else reads its result,
/// and zero, which every scale covers, is inside the interval. Expands the others.
pub(super) fn saturate_clamps(draft: &mut Draft, chosen: &BTreeSet<usize>) {
    let readers = draft.readers();
    for at in 0..draft.ops.len() {
        let clamp = draft.ops[at].clone();
        let (lower, upper) = clamp.clamp;
        let (Some(input), output) = (clamp.inputs[0], clamp.outputs[0]) else { continue };
        if clamp.op != CLAMP || lower > 0.0 || upper < 0.0 || readers[input] != 1 {
            continue;
        }
        let Some(producer) = draft.producer(input) else { continue };
        let in_float = chosen.contains(&draft.ops[producer].node);
        if !in_float && rules::is_free(draft.ops[producer].op, Activations::Int8) {
            draft.ops[producer].outputs[0] = output;
            // The interval bounds the range even where calibration did not reach it; see `bounds`.
            draft.ops[producer].clamp = (lower, upper);
            draft.ops[at].inputs[0] = None;
        }
    }
    draft.ops.retain(|op| op.op != CLAMP || op.inputs[0].is_some());
    expand_clamps(draft);
}
