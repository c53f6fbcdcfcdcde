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
    let chosen = chosen_floats(graph, draft, choices);
    let block = choices.block_size.map_or(0, |size| size as usize);
    let (mut narrow, mut wide, mut in_blocks) = (0, 0, 0);
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
        if bits == WeightBits::Four
            && op.op == BuiltinOp::FULLY_CONNECTED
            && let Some((integers, scales)) = blockwise(values, &draft.tensors[tensor].shape, block)
        {
            let outputs = draft.tensors[tensor].shape[0];
            let shape = [outputs, scales.len() / outputs.max(1)];
            let scales = draft.constant(&shape, Value::F16(scales));
            let new = place(draft, at, tensor, Value::I4(integers), None);
            draft.tensors[new].blocks = Some((scales, block));
            in_blocks += 1;
            continue;
        }
        let axis = (choices.granularity == Granularity::PerChannel || bits == WeightBits::Four).then_some(axis);
        let (value, quantization) = stored(values, &draft.tensors[tensor].shape, axis, bits);
        *(if bits == WeightBits::Four { &mut narrow } else { &mut wide }) += 1;
        place(draft, at, tensor, value, Some(quantization));
    }
    let count = |count: usize, bits: u8| format!("weights of {count} operators in {bits}-bit integers");
    if in_blocks > 0 {
        notes.push(format!("weights of {in_blocks} matrix products in 4-bit integers, in blocks of {block}"));
    }
    notes.extend([(narrow, 4), (wide, 8)].iter().filter(|(n, _)| *n > 0).map(|(n, bits)| count(*n, *bits)));
    if narrow + wide + in_blocks == 0 {
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

/// The smallest normal half: kernels refuse smaller scales.
const LEAST_SCALE: f32 = 6.103_515_6e-5;

/// A matrix [outputs, inputs] in 4-bit integers with a scale, a 16-bit float, for each block of a row. None where blocks
/// do not divide a row, or where the weights are too small for such scales.
fn blockwise(values: &[f32], shape: &[usize], block: usize) -> Option<(Vec<i8>, Vec<u16>)> {
    let inputs = *shape.last()?;
    if block == 0 || inputs % block != 0 {
        return None;
    }
    let mut integers = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / block);
    for row in values.chunks(block) {
        let peak = row.iter().fold(0f32, |peak, value| peak.max(value.abs()));
        let scale = half::f16::from_f32((peak / 7.0).max(LEAST_SCALE));
        // Weights meet the scale as it is stored. Where it was rounded down, -8 is there too.
        let real = scale.to_f32();
        integers.extend(row.iter().map(|value| (value / real).round().clamp(-8.0, 7.0) as i8));
        scales.push(scale);
    }
    // A block below the least scale may lose its weights; a matrix of such blocks would lose all.
    let largest = scales.iter().map(|scale| scale.to_f32()).fold(0f32, f32::max);
    (largest.is_finite() && largest >= LEAST_SCALE * 16.0)
        .then(|| (integers, scales.iter().map(|scale| scale.to_bits()).collect()))
}

/// Gives an operator other weights; returns the new tensor.
fn place(draft: &mut Draft, op: usize, old: TensorId, value: Value, quantization: Option<Quantization>) -> TensorId {
    let shape = draft.tensors[old].shape.clone();
    let new = draft.constant(&shape, value);
    draft.tensors[new].quantization = quantization;
    let op = &mut draft.ops[op];
    op.inputs[1] = Some(new);
    if let Options::FullyConnected(options) = &mut op.options {
        // A zero point for what meets the weights: half of the noise where it is never negative.
        options.asymmetric_quantize_inputs = true;
    }
    new
}
