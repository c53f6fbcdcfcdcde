//! Weights as 16-bit floats. LiteRT widens them once when the model is loaded, so computation is unchanged.

use std::collections::HashMap;

use edgeyard_tflite::{BuiltinOp, Options, TensorType};
use half::f16;

use super::draft::{DEQUANTIZE_OPTIONS, Draft, Op, TensorId, Value};
use crate::ir::Graph;

/// Constants below this many elements stay: the operator that widens them takes more room than halving saves.
const WORTHWHILE: usize = 64;

pub(super) fn halve(graph: &Graph, draft: &mut Draft, notes: &mut Vec<String>) {
    let mut widened: HashMap<TensorId, TensorId> = HashMap::new();
    let mut ops = Vec::with_capacity(draft.ops.len());
    for mut op in std::mem::take(&mut draft.ops) {
        for input in op.inputs.iter_mut().flatten() {
            let Some(Value::F32(values)) = &draft.tensors[*input].value else { continue };
            if values.len() < WORTHWHILE {
                continue;
            }
            if let Some(&known) = widened.get(input) {
                *input = known;
                continue;
            }
            if values.iter().any(|value| value.is_finite() && f16::from_f32(*value).is_infinite()) {
                notes.push(format!(
                    "a constant of {} values stays float32: some exceed 65504, the largest float16",
                    values.len()
                ));
                continue;
            }
            let halves = Value::F16(values.iter().map(|value| f16::from_f32(*value).to_bits()).collect());
            let shape = draft.tensors[*input].shape.clone();
            let source = draft.constant(&shape, halves);
            let output = draft.computed(&shape, None);
            draft.tensors[output].dtype = TensorType::Float32;
            ops.push(Op {
                op: BuiltinOp::DEQUANTIZE,
                options: Options::Empty(DEQUANTIZE_OPTIONS),
                inputs: vec![Some(source)],
                outputs: vec![output],
                node: op.node,
                clamp: (0.0, 0.0),
            });
            widened.insert(*input, output);
            *input = output;
        }
        ops.push(op);
    }
    draft.ops = ops;
}
