//! Ranges of tensors that calibration has not seen because lowering made them, by interval arithmetic on the operation
//! that computes them.

use edgeyard_tflite::BuiltinOp;

use super::super::draft::{Draft, Op, TensorId, Value};
use super::super::ranges::Range;

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

/// What a clamp that was left to saturation allows.
pub(super) fn clamped(op: &Op, range: Range) -> Range {
    let (lower, upper) = op.clamp;
    if (lower, upper) == (0.0, 0.0) {
        return range;
    }
    Range { min: range.min.clamp(lower, upper), max: range.max.clamp(lower, upper) }
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
