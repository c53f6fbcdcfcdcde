//! Weights as 16-bit floats. LiteRT widens them once when the model is loaded, so computation is unchanged.

use std::collections::HashMap;

use edgeyard_tflite::{BuiltinOp, Options, TensorType};
use half::f16;

use super::draft::{DEQUANTIZE_OPTIONS, Draft, Op, TensorId, Value};
use crate::ir::Graph;
use crate::quantize::beyond_half;

/// Constants below this many elements stay, unless the weights beside them are halved: the operator that widens them
/// takes more room than halving saves.
const WORTHWHILE: usize = 64;
/// The same for operators that are not known to fold what widens them.
const WORTHWHILE_ELSEWHERE: usize = 1024;

pub(super) fn halve(graph: &Graph, draft: &mut Draft, notes: &mut Vec<String>) {
    let mut widened: HashMap<TensorId, TensorId> = HashMap::new();
    let mut ops = Vec::with_capacity(draft.ops.len());
    for mut op in std::mem::take(&mut draft.ops) {
        for position in worthwhile(graph, draft, &op, notes) {
            let Some(input) = op.inputs[position] else { continue };
            if let Some(&known) = widened.get(&input) {
                op.inputs[position] = Some(known);
                continue;
            }
            let Some(Value::F32(values)) = &draft.tensors[input].value else { continue };
            let halves = Value::F16(values.iter().map(|value| f16::from_f32(*value).to_bits()).collect());
            let shape = draft.tensors[input].shape.clone();
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
            widened.insert(input, output);
            op.inputs[position] = Some(output);
        }
        ops.push(op);
    }
    draft.ops = ops;
}

/// Which inputs of an operator to halve. XNNPACK takes a convolution or product with weights that are widened when the
/// model is loaded only if its bias is so too; a float32 bias beside them sends the operator, and the widening with
/// every inference, to slow kernels. So weights and bias are halved together or not at all.
fn worthwhile(graph: &Graph, draft: &Draft, op: &Op, notes: &mut Vec<String>) -> Vec<usize> {
    let values = |position: usize| match &draft.tensors[op.inputs.get(position).copied().flatten()?].value {
        Some(Value::F32(values)) => Some(values),
        _ => None,
    };
    let (weights, bias) = match op.op {
        BuiltinOp::CONV_2D | BuiltinOp::DEPTHWISE_CONV_2D | BuiltinOp::FULLY_CONNECTED => (1, 2),
        BuiltinOp::TRANSPOSE_CONV => (1, 3),
        _ => {
            let large = |position: &usize| values(*position).is_some_and(|v| v.len() >= WORTHWHILE_ELSEWHERE);
            let fits = |position: &usize| fits(graph, op, values(*position), notes);
            return (0..op.inputs.len()).filter(large).collect::<Vec<_>>().into_iter().filter(fits).collect();
        }
    };
    if values(weights).is_none_or(|values| values.len() < WORTHWHILE) {
        return Vec::new();
    }
    let together: Vec<usize> = [weights, bias].into_iter().filter(|position| values(*position).is_some()).collect();
    match together.iter().all(|position| fits(graph, op, values(*position), notes)) {
        true => together,
        false => Vec::new(),
    }
}

fn fits(graph: &Graph, op: &Op, values: Option<&Vec<f32>>, notes: &mut Vec<String>) -> bool {
    let Some(values) = values else { return false };
    let Some(why) = beyond_half(values) else { return true };
    let note = format!("{} stays float32: {why}", name(graph, op.node, values.len()));
    if !notes.contains(&note) {
        notes.push(note);
    }
    false
}

/// The ONNX constant of that size that a node reads, or the node where the constant was made while lowering.
fn name(graph: &Graph, node: usize, len: usize) -> String {
    let node = graph.nodes.get(node);
    let constants = node.into_iter().flat_map(|node| &node.inputs);
    let mut named = constants.filter(|name| graph.constant(name).is_some_and(|tensor| tensor.len() == len));
    match (named.next(), node) {
        (Some(name), _) => name.clone(),
        (None, Some(node)) => format!("a constant of {}", node.label()),
        (None, None) => "a constant".to_owned(),
    }
}
