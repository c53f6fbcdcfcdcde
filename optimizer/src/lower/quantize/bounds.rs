//! Ranges of tensors that calibration has not seen because lowering made them, by interval arithmetic on the operation
//! that computes them.

use edgeyard_tflite::{Activation, BuiltinOp, Options};

use super::super::draft::{Draft, Op, TensorId, Value};
use super::super::ranges::Range;
use super::Activations;

/// The range of an operation's result from those of its inputs, for the operations decompositions are made of.
pub(super) fn of(draft: &Draft, op: &Op, known: impl Fn(TensorId) -> Option<Range>) -> Option<Range> {
    let input = |at: usize| -> Option<Range> {
        let tensor = (*op.inputs.get(at)?)?;
        match &draft.tensors[tensor].value {
            Some(Value::F32(values)) => Some(extremes(values)),
            _ => known(tensor),
        }
    };
    let over = |values: [f32; 4]| extremes(&values);
    let range = match op.op {
        BuiltinOp::MUL => {
            let (a, b) = (input(0)?, input(1)?);
            over([a.min * b.min, a.min * b.max, a.max * b.min, a.max * b.max])
        }
        BuiltinOp::ADD => {
            let (a, b) = (input(0)?, input(1)?);
            Range { min: a.min + b.min, max: a.max + b.max }
        }
        BuiltinOp::SUB => {
            let (a, b) = (input(0)?, input(1)?);
            Range { min: a.min - b.max, max: a.max - b.min }
        }
        BuiltinOp::RELU => Range { min: input(0)?.min.max(0.0), max: input(0)?.max.max(0.0) },
        BuiltinOp::MEAN | BuiltinOp::QUANTIZE => input(0)?,
        BuiltinOp::FULLY_CONNECTED => fully_connected(draft, op, input(0)?)?,
        _ => return None,
    };
    Some(range)
}

/// The interval that a tensor's readers tell apart, by tensor; beyond its ends every reader gives the same as at the
/// end, so that integers may saturate there, and the steps between them are the finer for it. HardSwish is 0 up to
/// -3; the integer results of sigmoid and tangent reach their last value at some point.
pub(super) fn told_apart(draft: &Draft, activations: Activations) -> Vec<Range> {
    const NOTHING: Range = Range { min: f32::INFINITY, max: f32::NEG_INFINITY };
    const ALL: Range = Range { min: f32::NEG_INFINITY, max: f32::INFINITY };
    let mut told = vec![NOTHING; draft.tensors.len()];
    for (_, tensor) in &draft.outputs {
        told[*tensor] = ALL;
    }
    for op in draft.ops.iter().rev() {
        let output = clamped_by(op, told[op.outputs[0]]);
        for (at, tensor) in op.inputs.iter().enumerate().filter_map(|(at, tensor)| Some((at, (*tensor)?))) {
            let seen = if op.outputs.len() == 1 { seen(draft, op, at, output, activations) } else { ALL };
            told[tensor] = hull(told[tensor], seen);
        }
    }
    // What nobody reads is left as it is, and so is what a factor near zero carries beyond all numbers.
    let usable = |range: &Range| range.min <= range.max && range.min < f32::INFINITY && range.max > f32::NEG_INFINITY;
    told.into_iter().map(|range| if usable(&range) { range } else { ALL }).collect()
}

/// What a reader tells apart in one of its inputs if its own readers tell `output` apart. The limits of sigmoid and
/// tangent are where 8 (16) bits saturate, and a quarter more: an end of the scale is rounded to a step.
fn seen(draft: &Draft, op: &Op, input: usize, output: Range, activations: Activations) -> Range {
    const ALL: Range = Range { min: f32::NEG_INFINITY, max: f32::INFINITY };
    let narrow = activations == Activations::Int8;
    let scalar = || match &draft.tensors[(*op.inputs.get(1 - input.min(1))?)?].value {
        Some(Value::F32(values)) if values.len() == 1 => Some(values[0]),
        _ => None,
    };
    match op.op {
        BuiltinOp::HARD_SWISH => Range { min: -3.0, max: f32::INFINITY },
        // ln 511 and ln (254.5 / 1.5); ln 65535 and ln (32766.5 / 1.5).
        BuiltinOp::LOGISTIC if narrow => Range { min: -6.5, max: 5.4 },
        BuiltinOp::LOGISTIC => Range { min: -11.35, max: 10.25 },
        // Half the logarithms of 511 and of 131071.
        BuiltinOp::TANH if narrow => Range { min: -3.375, max: 3.375 },
        BuiltinOp::TANH => Range { min: -6.15, max: 6.15 },
        BuiltinOp::RELU => Range { min: 0.0, max: output.max.max(0.0) },
        // These pick: which value they pick does not depend on where the others end.
        BuiltinOp::RESHAPE
        | BuiltinOp::TRANSPOSE
        | BuiltinOp::MAX_POOL_2D
        | BuiltinOp::PAD
        | BuiltinOp::SLICE
        | BuiltinOp::STRIDED_SLICE
        | BuiltinOp::GATHER
        | BuiltinOp::RESIZE_NEAREST_NEIGHBOR
        | BuiltinOp::SPACE_TO_DEPTH
        | BuiltinOp::DEPTH_TO_SPACE
        | BuiltinOp::CONCATENATION
        | BuiltinOp::QUANTIZE => output,
        BuiltinOp::MUL => match scalar() {
            Some(by) if by > 0.0 => Range { min: output.min / by, max: output.max / by },
            _ => ALL,
        },
        BuiltinOp::ADD => scalar().map_or(ALL, |by| Range { min: output.min - by, max: output.max - by }),
        _ => ALL,
    }
}

/// Beyond a clamp nothing is told apart.
fn clamped_by(op: &Op, told: Range) -> Range {
    let fused = match &op.options {
        Options::Add(options) => options.fused_activation_function,
        Options::Mul(options) => options.fused_activation_function,
        _ => Activation::None,
    };
    let (mut lower, mut upper) = match fused {
        Activation::Relu => (0.0, f32::INFINITY),
        Activation::Relu6 => (0.0, 6.0),
        Activation::ReluN1To1 => (-1.0, 1.0),
        _ => (f32::NEG_INFINITY, f32::INFINITY),
    };
    if op.clamp != (0.0, 0.0) {
        (lower, upper) = (op.clamp.0.max(lower), op.clamp.1.min(upper));
    }
    if told.min > told.max {
        return told;
    }
    Range { min: told.min.max(lower).min(upper), max: told.max.min(upper).max(lower) }
}

/// What a clamp that was left to saturation allows.
pub(super) fn clamped(op: &Op, range: Range) -> Range {
    let (lower, upper) = op.clamp;
    if (lower, upper) == (0.0, 0.0) {
        return range;
    }
    Range { min: range.min.clamp(lower, upper), max: range.max.clamp(lower, upper) }
}

/// The interval that holds both.
pub(super) fn hull(one: Range, other: Range) -> Range {
    Range { min: one.min.min(other.min), max: one.max.max(other.max) }
}

pub(super) fn extremes(values: &[f32]) -> Range {
    let fold = |start: f32, pick: fn(f32, f32) -> f32| values.iter().copied().fold(start, pick);
    Range { min: fold(f32::INFINITY, f32::min), max: fold(f32::NEG_INFINITY, f32::max) }
}

/// The widest row: exact for independent inputs, wide for real ones, but never too narrow.
fn fully_connected(draft: &Draft, op: &Op, input: Range) -> Option<Range> {
    let constant = |at: usize| match &draft.tensors[(*op.inputs.get(at)?)?].value {
        Some(Value::F32(values)) => Some(values),
        _ => None,
    };
    let (weights, bias) = (constant(1)?, constant(2)?);
    let columns = weights.len() / bias.len().max(1);
    let rows: Vec<f32> = weights
        .chunks_exact(columns.max(1))
        .zip(bias)
        .flat_map(|(row, &bias)| {
            let low: f32 = row.iter().map(|&weight| (weight * input.min).min(weight * input.max)).sum();
            let high: f32 = row.iter().map(|&weight| (weight * input.min).max(weight * input.max)).sum();
            [bias + low, bias + high]
        })
        .collect();
    Some(extremes(&rows))
}
