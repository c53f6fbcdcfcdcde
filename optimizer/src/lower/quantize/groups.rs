//! Which tensors share a scale, and what it is. Tensors joined by operators that move values form a group; the group's
//! scale covers what its sources take, or is the fixed one of the operator that makes it. Operators with several
//! inputs of one scale get a QUANTIZE where an input cannot follow.

use std::collections::BTreeMap;

use edgeyard_tflite::{BuiltinOp, TensorType};

use super::super::LowerError;
use super::super::draft::{Draft, QUANTIZE_OPTIONS, TensorId, Value};
use super::super::ranges::{Range, Ranges};
use super::super::walk::refusal;
use super::{Activations, Affine, bounds, conversion, rules};
use crate::ir::Graph;

/// Gives every input of an equalizing operator a tensor that can take the output's scale.
pub(super) fn insert_requantization(draft: &mut Draft, activations: Activations) {
    let readers = draft.readers();
    let mut at = 0;
    while at < draft.ops.len() {
        if rules::equalizes(draft.ops[at].op) && !draft.tensors[draft.ops[at].outputs[0]].keeps_float {
            for position in 0..draft.ops[at].inputs.len() {
                let Some(tensor) = draft.ops[at].inputs[position] else { continue };
                if draft.tensors[tensor].value.is_some() || follows(draft, &readers, tensor, activations) {
                    continue;
                }
                let shape = draft.tensors[tensor].shape.clone();
                let own = draft.computed(&shape, None);
                draft.ops[at].inputs[position] = Some(own);
                let node = draft.ops[at].node;
                draft.ops.insert(at, conversion(BuiltinOp::QUANTIZE, QUANTIZE_OPTIONS, tensor, own, node));
                at += 1;
            }
        }
        at += 1;
    }
}

/// True if a tensor is made by an operator that can give any scale and is read once: then it costs nothing, and spoils
/// nobody's precision, to make it in the scale its reader wants.
fn follows(draft: &Draft, readers: &[usize], tensor: TensorId, activations: Activations) -> bool {
    readers.get(tensor) == Some(&1)
        && draft.producer(tensor).is_some_and(|producer| rules::is_free(draft.ops[producer].op, activations))
}

/// The parameters of every float tensor that shares its scale or is computed; weights and biases have none here.
pub(super) fn parameters(
    graph: &Graph,
    draft: &Draft,
    ranges: &Ranges,
    activations: Activations,
) -> Result<Vec<Option<Affine>>, LowerError> {
    let mut groups = Groups::new(draft.tensors.len());
    let is_float = |tensor: TensorId| {
        let slot = &draft.tensors[tensor];
        slot.dtype == TensorType::Float32 && !slot.keeps_float
    };
    for op in &draft.ops {
        if rules::keeps_scale(op.op) || rules::equalizes(op.op) {
            for &tensor in op.inputs.iter().flatten().filter(|&&tensor| is_float(tensor)) {
                groups.join(tensor, op.outputs[0]);
            }
        }
    }
    let mut fixed: BTreeMap<TensorId, Affine> = BTreeMap::new();
    let mut covered: BTreeMap<TensorId, Range> = BTreeMap::new();
    let mut cover = |group: TensorId, range: Range| {
        let group = covered.entry(group).or_insert(range);
        *group = bounds::hull(*group, range);
    };
    let calibrated = |tensor: TensorId| -> Result<Option<Range>, LowerError> {
        let Some(name) = &draft.tensors[tensor].origin else { return Ok(None) };
        match ranges.get(name) {
            None => Ok(None),
            Some(range) if range.min <= range.max && range.min.is_finite() && range.max.is_finite() => Ok(Some(*range)),
            Some(range) => {
                Err(LowerError::Range { tensor: name.clone(), why: format!("from {} to {}", range.min, range.max) })
            }
        }
    };
    let missing = |tensor: TensorId, node: Option<usize>| match (&draft.tensors[tensor].origin, node) {
        (Some(name), _) => LowerError::Range { tensor: name.clone(), why: "it was not calibrated".into() },
        (None, Some(node)) => refusal(
            graph,
            node,
            "a tensor inside its lowering cannot be given a range",
            "calibrate all tensors of the model",
        ),
        (None, None) => LowerError::NoRanges,
    };

    let told = bounds::told_apart(draft, activations);
    let told_apart = |tensor: TensorId, range: Range| {
        let told = told[tensor];
        Range { min: range.min.clamp(told.min, told.max), max: range.max.clamp(told.min, told.max) }
    };
    let mut own: Vec<Option<Range>> = vec![None; draft.tensors.len()];
    for &(_, tensor) in draft.inputs.iter().filter(|(_, tensor)| is_float(*tensor)) {
        let range = told_apart(tensor, calibrated(tensor)?.ok_or_else(|| missing(tensor, None))?);
        own[tensor] = Some(range);
        cover(groups.of(tensor), range);
    }
    for op in &draft.ops {
        let output = op.outputs[0];
        if draft.tensors[output].keeps_float {
            // For what becomes integers again inside a lowering, where no calibrated tensor says its range.
            let moved = || op.inputs.iter().flatten().filter_map(|&tensor| own[tensor]).reduce(bounds::hull);
            own[output] = calibrated(output)?.or_else(|| match op.op {
                BuiltinOp::DEQUANTIZE => moved(),
                other if rules::keeps_scale(other) || rules::equalizes(other) => moved(),
                _ => bounds::of(draft, op, |tensor| own[tensor]),
            });
        }
        if !is_float(output) {
            continue;
        }
        let moves = rules::keeps_scale(op.op) || rules::equalizes(op.op);
        if moves {
            // Padding and clamping constants: what is padded has to be representable, a bound does not.
            for &tensor in op.inputs.iter().flatten() {
                match &draft.tensors[tensor].value {
                    Some(Value::F32(values)) if op.op == BuiltinOp::PADV2 && values[0] == f32::MIN => {}
                    Some(Value::F32(values)) if matches!(op.op, BuiltinOp::PADV2 | BuiltinOp::CONCATENATION) => {
                        cover(groups.of(tensor), bounds::extremes(values));
                    }
                    // A table that is looked up: no other operand tells what comes out.
                    Some(Value::F32(values)) if op.op == BuiltinOp::GATHER => {
                        own[tensor] = Some(bounds::extremes(values));
                        cover(groups.of(tensor), bounds::extremes(values));
                    }
                    _ => {}
                }
            }
            own[output] = op.inputs.iter().flatten().find_map(|&tensor| own[tensor]);
            continue;
        }
        if let Some(affine) = rules::fixed_output(op.op, activations) {
            fixed.insert(groups.of(output), affine);
            let (low, high) = match activations {
                Activations::Int8 => (-128, 127),
                Activations::Int16 => (-32768, 32767),
            };
            let real = |stored: i32| (stored - affine.zero_point) as f32 * affine.scale;
            own[output] = Some(Range { min: real(low), max: real(high) });
            continue;
        }
        let range = match calibrated(output)? {
            Some(range) => range,
            None => bounds::of(draft, op, |tensor| own[tensor]).ok_or_else(|| missing(output, Some(op.node)))?,
        };
        let range = told_apart(output, bounds::clamped(op, range));
        own[output] = Some(range);
        cover(groups.of(output), range);
    }
    Ok((0..draft.tensors.len())
        .map(|tensor| {
            let group = groups.of(tensor);
            fixed.get(&group).copied().or_else(|| covered.get(&group).map(|range| activations.covering(*range)))
        })
        .collect())
}

/// A QUANTIZE between equal scales does nothing.
pub(super) fn drop_needless_requantization(draft: &mut Draft, parameters: &[Option<Affine>]) {
    let mut replaced: BTreeMap<TensorId, TensorId> = BTreeMap::new();
    draft.ops.retain_mut(|op| {
        for input in op.inputs.iter_mut().flatten() {
            if let Some(source) = replaced.get(input) {
                *input = *source;
            }
        }
        let (Some(Some(from)), to) = (op.inputs.first().copied(), op.outputs[0]) else { return true };
        if op.op == BuiltinOp::QUANTIZE && parameters[from] == parameters[to] {
            replaced.insert(to, from);
            return false;
        }
        true
    });
}

/// Union-find over tensors.
struct Groups(Vec<TensorId>);

impl Groups {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn of(&self, mut tensor: TensorId) -> TensorId {
        while self.0[tensor] != tensor {
            tensor = self.0[tensor];
        }
        tensor
    }

    fn join(&mut self, one: TensorId, other: TensorId) {
        let (one, other) = (self.of(one), self.of(other));
        self.0[one.max(other)] = one.min(other);
    }
}
