//! Weights, biases and other constants in int8. Weights are symmetric in [-127, 127], with a scale per output channel;
//! for microcontrollers, matrix products have one scale, since not every build of TensorFlow Lite Micro takes more.
//! Biases are 32-bit in the scale of the accumulator.

use edgeyard_tflite::{BuiltinOp, Quantization};

use super::super::Int8Io;
use super::super::draft::{Draft, TensorId, Value};
use super::{Affine, bounds};

/// Where an operator has its input, weights and bias, and along which dimension of the weights scales run.
struct Roles {
    input: usize,
    weights: usize,
    bias: usize,
    channel: Option<usize>,
}

fn roles(op: BuiltinOp, io: Int8Io) -> Option<Roles> {
    let (input, weights, bias, channel) = match op {
        BuiltinOp::CONV_2D => (0, 1, 2, Some(0)),
        BuiltinOp::DEPTHWISE_CONV_2D => (0, 1, 2, Some(3)),
        BuiltinOp::TRANSPOSE_CONV => (2, 1, 3, Some(0)),
        BuiltinOp::FULLY_CONNECTED => (0, 1, 2, (io == Int8Io::Float).then_some(0)),
        _ => return None,
    };
    Some(Roles { input, weights, bias, channel })
}

/// Replaces every float constant by integers.
pub(super) fn quantize(draft: &mut Draft, parameters: &[Option<Affine>], io: Int8Io) {
    for at in 0..draft.ops.len() {
        let op = draft.ops[at].clone();
        if op.outputs.iter().all(|&tensor| draft.tensors[tensor].keeps_float) {
            continue;
        }
        let Some(roles) = roles(op.op, io) else {
            for (position, tensor) in op.inputs.iter().enumerate().filter_map(|(at, tensor)| Some((at, (*tensor)?))) {
                operand(draft, at, position, parameters.get(tensor).copied().flatten());
            }
            continue;
        };
        let tensor = |position: usize| op.inputs.get(position).copied().flatten();
        let (Some(input), Some(weights)) = (tensor(roles.input), tensor(roles.weights)) else { continue };
        let input_scale = parameters[input].map_or(1.0, |affine| affine.scale);
        let bias = tensor(roles.bias);
        // A constant may serve two operators with inputs of different scale: each gets its own.
        let scales = quantize_weights(draft, at, roles.weights, weights, bias, input_scale, roles.channel);
        if let Some(bias) = bias {
            quantize_bias(draft, at, roles.bias, bias, input_scale, &scales);
        }
    }
}

fn floats(draft: &Draft, tensor: TensorId) -> Option<Vec<f32>> {
    match &draft.tensors[tensor].value {
        Some(Value::F32(values)) => Some(values.clone()),
        _ => None,
    }
}

fn replace(draft: &mut Draft, op: usize, position: usize, value: Value, quantization: Quantization) {
    let Some(old) = draft.ops[op].inputs[position] else { return };
    let shape = draft.tensors[old].shape.clone();
    let new = draft.constant(&shape, value);
    draft.tensors[new].quantization = Some(quantization);
    draft.ops[op].inputs[position] = Some(new);
}

fn quantize_weights(
    draft: &mut Draft,
    op: usize,
    position: usize,
    weights: TensorId,
    bias: Option<TensorId>,
    input_scale: f32,
    channel: Option<usize>,
) -> Vec<f32> {
    let Some(values) = floats(draft, weights) else { return vec![1.0] };
    let shape = &draft.tensors[weights].shape;
    // Elements of one channel lie `inner` apart in runs; channel = (index / inner) % count.
    let (count, inner) = match channel {
        Some(axis) => (shape[axis], shape[axis + 1..].iter().product::<usize>()),
        None => (1, values.len().max(1)),
    };
    let of = |index: usize| (index / inner.max(1)) % count.max(1);
    let mut largest = vec![0.0_f32; count];
    for (index, value) in values.iter().enumerate() {
        largest[of(index)] = largest[of(index)].max(value.abs());
    }
    let bias = bias.and_then(|bias| floats(draft, bias)).unwrap_or_default();
    let scales: Vec<f32> = largest
        .iter()
        .enumerate()
        .map(|(at, &largest)| {
            // The bias has to fit 30 bits of the accumulator: a channel of nearly no weights gets a larger scale.
            let bias = if count == 1 {
                bias.iter().fold(0.0_f32, |largest, bias| largest.max(bias.abs()))
            } else {
                bias.get(at).map_or(0.0, |bias| bias.abs())
            };
            let least = f64::from(bias) / (f64::from(input_scale) * f64::from(1_u32 << 30));
            let scale = (f64::from(largest) / 127.0).max(least) as f32;
            if scale > f32::MIN_POSITIVE { scale } else { 1.0 }
        })
        .collect();
    let integers = values
        .iter()
        .enumerate()
        .map(|(index, value)| (f64::from(*value) / f64::from(scales[of(index)])).round().clamp(-127.0, 127.0) as i8)
        .collect();
    let quantization = match channel {
        Some(axis) => Quantization::per_channel(scales.clone(), axis as i32),
        None => Quantization::per_tensor(scales[0], 0),
    };
    replace(draft, op, position, Value::I8(integers), quantization);
    scales
}

fn quantize_bias(
    draft: &mut Draft,
    op: usize,
    position: usize,
    bias: TensorId,
    input_scale: f32,
    weight_scales: &[f32],
) {
    let Some(values) = floats(draft, bias) else { return };
    let scales: Vec<f32> = weight_scales.iter().map(|scale| scale * input_scale).collect();
    let integers = values
        .iter()
        .enumerate()
        .map(|(at, value)| (f64::from(*value) / f64::from(scales[at % scales.len()])).round() as i32)
        .collect();
    let quantization =
        if scales.len() == 1 { Quantization::per_tensor(scales[0], 0) } else { Quantization::per_channel(scales, 0) };
    replace(draft, op, position, Value::I32(integers), quantization);
}

/// A constant that is computed with like an activation: in its group's scale, or its own.
fn operand(draft: &mut Draft, op: usize, position: usize, group: Option<Affine>) {
    let Some(values) = draft.ops[op].inputs[position].and_then(|tensor| floats(draft, tensor)) else { return };
    let affine = group.unwrap_or_else(|| Affine::covering(bounds::extremes(&values)));
    let integers = values.iter().map(|&value| affine.quantize(value)).collect();
    replace(draft, op, position, Value::I8(integers), affine.quantization());
}
