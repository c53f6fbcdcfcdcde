//! Weights, biases and other constants in int8. Weights are symmetric in [-127, 127], with a scale per output channel;
//! for microcontrollers, matrix products have one scale, since not every build of TensorFlow Lite Micro takes more.
//! Biases are 32-bit in the scale of the accumulator.

use edgeyard_tflite::{BuiltinOp, Quantization};

use edgeyard_job::spec::Granularity;

use super::super::Int8Io;
use super::super::draft::{Draft, TensorId, Value};
use super::{Activations, Affine, Plan, bounds};

/// Where an operator has its input, weights and bias, and along which dimension of the weights scales run.
struct Roles {
    input: usize,
    weights: usize,
    bias: usize,
    channel: Option<usize>,
}

fn roles(op: BuiltinOp, plan: Plan<'_>) -> Option<Roles> {
    let one_for_matrices = plan.io == Int8Io::Int8 || plan.activations == Activations::Int16;
    let (input, weights, bias, channel) = match op {
        BuiltinOp::CONV_2D => (0, 1, 2, Some(0)),
        BuiltinOp::DEPTHWISE_CONV_2D => (0, 1, 2, Some(3)),
        BuiltinOp::TRANSPOSE_CONV => (2, 1, 3, Some(0)),
        BuiltinOp::FULLY_CONNECTED => (0, 1, 2, (!one_for_matrices).then_some(0)),
        _ => return None,
    };
    let channel = channel.filter(|_| plan.choices.granularity == Granularity::PerChannel);
    Some(Roles { input, weights, bias, channel })
}

/// Replaces every float constant by integers.
pub(super) fn quantize(draft: &mut Draft, parameters: &[Option<Affine>], plan: Plan<'_>) {
    for at in 0..draft.ops.len() {
        let op = draft.ops[at].clone();
        // What is computed in floats keeps its constants; a comparison shows by its inputs alone that it is, since it gives truth values.
        let floats = |tensor: &TensorId| draft.tensors[*tensor].keeps_float;
        if op.outputs.iter().all(floats) || op.inputs.iter().flatten().any(floats) {
            continue;
        }
        let Some(roles) = roles(op.op, plan) else {
            for (position, tensor) in op.inputs.iter().enumerate().filter_map(|(at, tensor)| Some((at, (*tensor)?))) {
                operand(draft, at, position, parameters.get(tensor).copied().flatten(), plan.activations);
            }
            continue;
        };
        let tensor = |position: usize| op.inputs.get(position).copied().flatten();
        let (Some(input), Some(weights)) = (tensor(roles.input), tensor(roles.weights)) else { continue };
        let input_scale = parameters[input].map_or(1.0, |affine| affine.scale);
        let bias = tensor(roles.bias);
        // The bias has to fit the accumulator with room to spare: 30 bits of 32, 40 of the 64 with 16-bit activations.
        let room = match plan.activations {
            Activations::Int8 => 30,
            Activations::Int16 => 40,
        };
        // A constant may serve two operators with inputs of different scale: each gets its own.
        let scales = quantize_weights(draft, at, &roles, weights, bias, f64::from(input_scale) * 2f64.powi(room));
        if let Some(bias) = bias {
            quantize_bias(draft, at, roles.bias, bias, input_scale, &scales, plan.activations);
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
    roles: &Roles,
    weights: TensorId,
    bias: Option<TensorId>,
    bias_limit: f64,
) -> Vec<f32> {
    let (position, channel) = (roles.weights, roles.channel);
    let Some(Value::F32(values)) = &draft.tensors[weights].value else { return vec![1.0] };
    let shape = &draft.tensors[weights].shape;
    // Elements of one channel lie in runs of `inner`; of runs, every `count`th is the same channel's.
    let (count, inner) = match channel {
        Some(axis) => (shape[axis], shape[axis + 1..].iter().product::<usize>()),
        None => (1, values.len()),
    };
    let runs = || values.chunks(inner.max(1)).enumerate().map(|(run, values)| (run % count.max(1), values));
    let mut largest = vec![0.0_f32; count];
    for (channel, values) in runs() {
        largest[channel] = values.iter().fold(largest[channel], |largest, value| largest.max(value.abs()));
    }
    let bias = bias.and_then(|bias| floats(draft, bias)).unwrap_or_default();
    let scales: Vec<f32> = largest
        .iter()
        .enumerate()
        .map(|(at, &largest)| {
            // A channel of nearly no weights gets a larger scale, so that the bias fits.
            let bias = if count == 1 {
                bias.iter().fold(0.0_f32, |largest, bias| largest.max(bias.abs()))
            } else {
                bias.get(at).map_or(0.0, |bias| bias.abs())
            };
            let least = f64::from(bias) / bias_limit;
            let scale = (f64::from(largest) / 127.0).max(least) as f32;
            if scale > f32::MIN_POSITIVE { scale } else { 1.0 }
        })
        .collect();
    let mut integers = Vec::with_capacity(values.len());
    for (channel, values) in runs() {
        let scale = f64::from(scales[channel]);
        integers.extend(values.iter().map(|value| nearest(f64::from(*value) / scale)));
    }
    let quantization = match channel {
        Some(axis) => Quantization::per_channel(scales.clone(), axis as i32),
        None => Quantization::per_tensor(scales[0], 0),
    };
    replace(draft, op, position, Value::I8(integers), quantization);
    scales
}

/// The nearest stored weight, halves away from zero as `f64::round` has them. Without a call into the C library, which
/// is most of the time that a million weights take.
fn nearest(value: f64) -> i8 {
    let whole = value.clamp(-127.0, 127.0);
    let towards_zero = whole as i32;
    let rest = whole - f64::from(towards_zero);
    (towards_zero + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)) as i8
}

fn quantize_bias(
    draft: &mut Draft,
    op: usize,
    position: usize,
    bias: TensorId,
    input_scale: f32,
    weight_scales: &[f32],
    activations: Activations,
) {
    let Some(values) = floats(draft, bias) else { return };
    let scales: Vec<f32> = weight_scales.iter().map(|scale| scale * input_scale).collect();
    let integer = |(at, value): (usize, &f32)| (f64::from(*value) / f64::from(scales[at % scales.len()])).round();
    let integers = values.iter().enumerate().map(integer);
    let integers = match activations {
        Activations::Int8 => Value::I32(integers.map(|value| value as i32).collect()),
        Activations::Int16 => Value::I64(integers.map(|value| value as i64).collect()),
    };
    let quantization =
        if scales.len() == 1 { Quantization::per_tensor(scales[0], 0) } else { Quantization::per_channel(scales, 0) };
    replace(draft, op, position, integers, quantization);
}

/// A constant that is computed with like an activation: in its group's scale, or its own.
fn operand(draft: &mut Draft, op: usize, position: usize, group: Option<Affine>, activations: Activations) {
    let Some(values) = draft.ops[op].inputs[position].and_then(|tensor| floats(draft, tensor)) else { return };
    let affine = group.unwrap_or_else(|| activations.covering(bounds::extremes(&values)));
    replace(draft, op, position, activations.store(&values, affine), affine.quantization());
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn weights_go_to_the_nearest_integer_as_the_library_rounds() {
        for at in -140_000i32..=140_000 {
            let value = f64::from(at) / 1000.0;
            for value in [value, value.next_up(), value.next_down()] {
                assert_eq!(nearest(value), value.round().clamp(-127.0, 127.0) as i8, "{value}");
            }
        }
        assert_eq!(nearest(f64::NAN), 0);
    }
}
