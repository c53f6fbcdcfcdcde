//! Full-integer models. Every float tensor gets a scale and a zero point from its calibrated range, under the rules of
//! TFLite's kernels: some operators give a fixed scale, some need one scale for all they touch (`groups`), weights
//! are symmetric and mostly per channel (`constants`).

mod bounds;
mod clamp;
mod constants;
mod groups;
mod islands;
mod rules;

pub(super) use clamp::expand_clamps;

use edgeyard_tflite::{BuiltinOp, Options, Quantization, TensorType};

use super::draft::{DEQUANTIZE_OPTIONS, Draft, Op, QUANTIZE_OPTIONS, TensorId};
use super::ranges::{Range, Ranges};
use super::walk::refusal;
use super::{Int8Io, LowerError};
use crate::ir::Graph;

/// Scale and zero point of a whole tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Affine {
    scale: f32,
    zero_point: i32,
}

impl Affine {
    /// Covers a range, and zero exactly, with all 256 values.
    fn covering(range: Range) -> Self {
        let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
        // A tensor that is always zero: any scale represents it.
        if max - min < f64::from(f32::MIN_POSITIVE) * 1024.0 {
            return Self { scale: 1.0, zero_point: 0 };
        }
        let scale = (max - min) / 255.0;
        let zero_point = (-128.0 - min / scale).round().clamp(-128.0, 127.0) as i32;
        Self { scale: scale as f32, zero_point }
    }

    fn quantize(self, value: f32) -> i8 {
        (f64::from(value) / f64::from(self.scale) + f64::from(self.zero_point)).round().clamp(-128.0, 127.0) as i8
    }

    fn quantization(self) -> Quantization {
        Quantization::per_tensor(self.scale, i64::from(self.zero_point))
    }
}

/// Turns a float draft into an int8 one.
pub(super) fn quantize(
    graph: &Graph,
    draft: &mut Draft,
    ranges: &Ranges,
    io: Int8Io,
    notes: &mut Vec<String>,
) -> Result<(), LowerError> {
    clamp::saturate_clamps(draft);
    drop_dead(draft);
    let float_only = draft.ops.iter().find(|op| islands::needs_float(draft, op));
    if let Some(node) = float_only.map(|op| op.node) {
        if io == Int8Io::Int8 {
            let missing = draft.ops.iter().find(|op| op.node == node && !rules::has_int8_kernel(op.op));
            let why = missing.map_or_else(
                || "integers are too coarse for it".to_owned(),
                |op| format!("its TFLite operator {} has no int8 kernel", op.op),
            );
            let remedy = "replace the operator, or use a target that takes floats inside the model";
            return Err(refusal(graph, node, why, remedy));
        }
        let kept = islands::surround(draft).into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("{kept}: computed in float32, for want of int8 kernels"));
        drop_dead(draft);
    }
    let wide = draft.ops.iter().find(|op| draft.tensors[op.outputs[0]].dtype == TensorType::Int64);
    if let Some(op) = wide
        && io == Int8Io::Int8
    {
        let why = "it gives 64-bit integers";
        return Err(refusal(graph, op.node, why, "leave it out of the model and do it on the result"));
    }
    groups::insert_requantization(draft);
    let parameters = groups::parameters(graph, draft, ranges)?;
    groups::drop_needless_requantization(draft, &parameters);
    constants::quantize(draft, &parameters, io);
    for (tensor, affine) in parameters.iter().enumerate() {
        let slot = &mut draft.tensors[tensor];
        if let Some(affine) = affine
            && slot.value.is_none()
            && !slot.keeps_float
            && slot.dtype == TensorType::Float32
        {
            slot.dtype = TensorType::Int8;
            slot.quantization = Some(affine.quantization());
        }
    }
    if io == Int8Io::Float {
        float_ends(draft);
    }
    Ok(())
}

fn computes_floats(draft: &Draft, op: &Op) -> bool {
    op.outputs.iter().any(|&tensor| draft.tensors[tensor].dtype == TensorType::Float32)
}

/// Operations without readers would otherwise ask for ranges.
fn drop_dead(draft: &mut Draft) {
    loop {
        let readers = draft.readers();
        let before = draft.ops.len();
        draft.ops.retain(|op| op.outputs.iter().any(|&tensor| readers[tensor] > 0));
        if draft.ops.len() == before {
            return;
        }
    }
}

/// Feeds and gives floats, with the conversions inside the model.
fn float_ends(draft: &mut Draft) {
    let mut first = Vec::new();
    for at in 0..draft.inputs.len() {
        let inner = draft.inputs[at].1;
        if draft.tensors[inner].dtype != TensorType::Int8 {
            continue;
        }
        let outer = float_twin(draft, inner);
        draft.inputs[at].1 = outer;
        first.push(conversion(BuiltinOp::QUANTIZE, QUANTIZE_OPTIONS, outer, inner, 0));
    }
    draft.ops.splice(0..0, first);
    for at in 0..draft.outputs.len() {
        let inner = draft.outputs[at].1;
        if draft.tensors[inner].dtype != TensorType::Int8 {
            continue;
        }
        let outer = float_twin(draft, inner);
        draft.outputs[at].1 = outer;
        let node = draft.ops.last().map_or(0, |op| op.node);
        draft.ops.push(conversion(BuiltinOp::DEQUANTIZE, DEQUANTIZE_OPTIONS, inner, outer, node));
    }
}

fn float_twin(draft: &mut Draft, tensor: TensorId) -> TensorId {
    let shape = draft.tensors[tensor].shape.clone();
    draft.computed(&shape, None)
}

fn conversion(op: BuiltinOp, options: u8, from: TensorId, to: TensorId, node: usize) -> Op {
    Op { op, options: Options::Empty(options), inputs: vec![Some(from)], outputs: vec![to], node, clamp: (0.0, 0.0) }
}
