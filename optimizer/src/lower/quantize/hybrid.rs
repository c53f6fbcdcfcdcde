//! Models of floats whose weights are integers. The runtime quantises what meets them while it runs (TFLite calls this
//! dynamic range), so no calibration is needed. Weights in 4 bits are stored two to a byte.

use edgeyard_job::spec::Granularity;
use edgeyard_tflite::{BuiltinOp, Options, Quantization};

use super::super::draft::{Draft, TensorId, Value};
use super::super::{Choices, LowerError};
use super::{chosen_floats, expand_clamps};
use crate::ir::Graph;
use crate::quantize::check_weights;

/// Weights below this many elements stay: quantising what meets them costs more than they save.
const WORTHWHILE: usize = 256;

/// Bits of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum WeightBits {
    Four,
    Eight,
}

/// Replaces the weights of matrix products and convolutions by integers.
pub(in super::super) fn weights(
    graph: &Graph,
    draft: &mut Draft,
    bits: WeightBits,
    choices: &Choices,
    notes: &mut Vec<String>,
) -> Result<(), LowerError> {
    check_weights(graph)?;
    expand_clamps(draft);
    let chosen = chosen_floats(graph, choices);
    let (mut narrow, mut wide) = (0, 0);
    for at in 0..draft.ops.len() {
        let op = &draft.ops[at];
        let axis = match op.op {
            BuiltinOp::CONV_2D | BuiltinOp::FULLY_CONNECTED => 0,
            BuiltinOp::DEPTHWISE_CONV_2D => 3,
            _ => continue,
        };
        let Some(tensor) = op.inputs.get(1).copied().flatten().filter(|_| !chosen.contains(&op.node)) else { continue };
        let Some(Value::F32(values)) = &draft.tensors[tensor].value else { continue };
        if values.len() < WORTHWHILE {
            continue;
        }
        // Depthwise convolutions have no kernel for 4 bits and floats.
        let bits = if op.op == BuiltinOp::DEPTHWISE_CONV_2D { WeightBits::Eight } else { bits };
        let axis = (choices.granularity == Granularity::PerChannel || bits == WeightBits::Four).then_some(axis);
        let (value, quantization) = stored(values, &draft.tensors[tensor].shape, axis, bits);
        *(if bits == WeightBits::Four { &mut narrow } else { &mut wide }) += 1;
        place(draft, at, tensor, value, quantization);
    }
    let count = |count: usize, bits: u8| format!("weights of {count} operators in {bits}-bit integers");
    notes.extend([(narrow, 4), (wide, 8)].iter().filter(|(n, _)| *n > 0).map(|(n, bits)| count(*n, *bits)));
    if narrow + wide == 0 {
        notes.push(format!("no operator has {WORTHWHILE} weights or more: all stay float32"));
    }
    Ok(())
}

fn stored(values: &[f32], shape: &[usize], axis: Option<usize>, bits: WeightBits) -> (Value, Quantization) {
    let limit = match bits {
        WeightBits::Four => 7.0,
        WeightBits::Eight => 127.0,
    };
    let (count, inner) = match axis {
        Some(axis) => (shape[axis], shape[axis + 1..].iter().product::<usize>().max(1)),
        None => (1, values.len().max(1)),
    };
    let of = |index: usize| (index / inner) % count;
    let mut scales = vec![0f32; count];
    for (index, value) in values.iter().enumerate() {
        scales[of(index)] = scales[of(index)].max(value.abs());
    }
    for scale in &mut scales {
        *scale = if *scale > f32::MIN_POSITIVE * 256.0 { *scale / limit } else { 1.0 };
    }
    let integers = values
        .iter()
        .enumerate()
        .map(|(index, value)| (value / scales[of(index)]).round().clamp(-limit, limit) as i8)
        .collect();
    let value = match bits {
        WeightBits::Four => Value::I4(integers),
        WeightBits::Eight => Value::I8(integers),
    };
    let quantization = match axis {
        Some(axis) => Quantization::per_channel(scales, axis as i32),
        None => Quantization::per_tensor(scales[0], 0),
    };
    (value, quantization)
}

fn place(draft: &mut Draft, op: usize, old: TensorId, value: Value, quantization: Quantization) {
    let shape = draft.tensors[old].shape.clone();
    let new = draft.constant(&shape, value);
    draft.tensors[new].quantization = Some(quantization);
    let op = &mut draft.ops[op];
    op.inputs[1] = Some(new);
    if let Options::FullyConnected(options) = &mut op.options {
        // A zero point for what meets the weights: half of the noise where it is never negative.
        options.asymmetric_quantize_inputs = true;
    }
}
