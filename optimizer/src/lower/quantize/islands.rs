//! Operators that no integer kernel computes, or that shall stay float. In a model that may contain floats they stay, between conversions;
//! neighbours share one stretch of float.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_tflite::{BuiltinOp, TensorType};

use super::super::draft::{DEQUANTIZE_OPTIONS, Draft, Op, QUANTIZE_OPTIONS, TensorId};
use super::{Activations, computes_floats, conversion, float_twin, rules};

/// True if the operator is not computed in integers: it has no kernel, its lowering needs the precision of floats, or
/// it is among the `chosen` nodes.
pub(super) fn needs_float(draft: &Draft, op: &Op, activations: Activations, chosen: &BTreeSet<usize>) -> bool {
    let tensors = || op.inputs.iter().flatten().chain(&op.outputs);
    // Positions are found in integers of 8 bits, but not of 16.
    let finds = activations == Activations::Int16 && matches!(op.op, BuiltinOp::ARG_MAX | BuiltinOp::ARG_MIN);
    (computes_floats(draft, op) || finds)
        && (!rules::has_kernel(op.op, activations)
            || chosen.contains(&op.node)
            || tensors().any(|&tensor| draft.tensors[tensor].keeps_float))
}

/// Surrounds every operator that needs floats by conversions. Returns those without a kernel.
pub(super) fn surround(draft: &mut Draft, activations: Activations, chosen: &BTreeSet<usize>) -> BTreeSet<String> {
    let mut floats: BTreeMap<TensorId, TensorId> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for mut op in std::mem::take(&mut draft.ops) {
        if !needs_float(draft, &op, activations, chosen) {
            draft.ops.push(op);
            continue;
        }
        if !rules::has_kernel(op.op, activations) {
            kept.insert(op.op.to_string());
        }
        for input in op.inputs.iter_mut().flatten() {
            let slot = &draft.tensors[*input];
            if slot.value.is_some() || slot.keeps_float || slot.dtype != TensorType::Float32 {
                continue;
            }
            let outside = *input;
            *input = *floats.entry(outside).or_insert_with(|| {
                let inside = float_twin(draft, outside);
                draft.tensors[inside].keeps_float = true;
                draft.ops.push(conversion(BuiltinOp::DEQUANTIZE, DEQUANTIZE_OPTIONS, outside, inside, op.node));
                inside
            });
        }
        let node = op.node;
        let mut back = Vec::new();
        for output in &mut op.outputs {
            let outside = *output;
            if draft.tensors[outside].keeps_float || draft.tensors[outside].dtype != TensorType::Float32 {
                continue;
            }
            *output = float_twin(draft, outside);
            draft.tensors[*output].keeps_float = true;
            floats.insert(outside, *output);
            draft.twins.push((outside, *output));
            back.push(conversion(BuiltinOp::QUANTIZE, QUANTIZE_OPTIONS, *output, outside, node));
        }
        draft.ops.push(op);
        draft.ops.extend(back);
    }
    kept
}
