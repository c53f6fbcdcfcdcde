//! Functions TFLite has no operator for, written as the arithmetic they are.

use edgeyard_tflite::{BuiltinOp, Options, op_options as opt};

use super::super::LowerError;
use super::super::draft::{TensorId, Value};
use super::super::layout::{Layout, Stored};
use super::super::walk::Walk;
use super::elementwise;

/// Writes down one operation after another on tensors of one shape. What lies between is computed in floats, also in an
/// int8 model: most of it has no calibrated range.
struct Formula<'a, 'g> {
    walk: &'a mut Walk<'g>,
    shape: Vec<usize>,
}

impl Formula<'_, '_> {
    fn number(&mut self, value: f32) -> TensorId {
        self.walk.draft.constant(&[1], Value::F32(vec![value]))
    }

    fn apply(&mut self, op: BuiltinOp, inputs: &[TensorId]) -> TensorId {
        let options = match op {
            BuiltinOp::MUL => opt::Mul::default().into(),
            BuiltinOp::ADD => elementwise::add_options(),
            BuiltinOp::SUB => opt::Sub { pot_scale_int16: false, ..opt::Sub::default() }.into(),
            BuiltinOp::DIV => opt::Div::default().into(),
            BuiltinOp::ABS => Options::Empty(78),
            BuiltinOp::EXP => Options::Empty(33),
            BuiltinOp::COS => Options::Empty(84),
            _ => Options::None,
        };
        let output = self.walk.emit_inner(op, options, inputs, &self.shape);
        self.walk.draft.tensors[output].keeps_float = true;
        output
    }

    fn scale(&mut self, x: TensorId, factor: f32) -> TensorId {
        let factor = self.number(factor);
        self.apply(BuiltinOp::MUL, &[x, factor])
    }

    fn shift(&mut self, x: TensorId, by: f32) -> TensorId {
        let by = self.number(by);
        self.apply(BuiltinOp::ADD, &[x, by])
    }

    fn softplus(&mut self, x: TensorId) -> TensorId {
        let power = self.apply(BuiltinOp::EXP, &[x]);
        let sum = self.shift(power, 1.0);
        self.apply(BuiltinOp::LOG, &[sum])
    }
}

fn write(
    walk: &mut Walk<'_>,
    formula: impl FnOnce(&mut Formula<'_, '_>, TensorId) -> TensorId,
) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let tensor = formula(&mut Formula { walk, shape }, x.tensor);
    let slot = &mut walk.draft.tensors[tensor];
    slot.keeps_float = false;
    let origin = walk.origin().map(str::to_owned);
    walk.draft.tensors[tensor].origin = origin;
    walk.define_as(0, Stored { tensor, ..x });
    Ok(())
}

/// `Erf` by Abramowitz and Stegun, formula 7.1.26: sign(x) (1 - (a1 t + … + a5 t^5) exp(-x^2)), t = 1 / (1 + p |x|); the
/// error is below 1.5e-7.
pub(super) fn erf(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    write(walk, |f, x| {
        let size = f.apply(BuiltinOp::ABS, &[x]);
        let scaled = f.scale(size, 0.327_591_1);
        let shifted = f.shift(scaled, 1.0);
        let one = f.number(1.0);
        let t = f.apply(BuiltinOp::DIV, &[one, shifted]);
        let mut sum = f.scale(t, 1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            let next = f.shift(sum, coefficient);
            sum = f.apply(BuiltinOp::MUL, &[next, t]);
        }
        let square = f.apply(BuiltinOp::MUL, &[x, x]);
        let negative = f.scale(square, -1.0);
        let bell = f.apply(BuiltinOp::EXP, &[negative]);
        let tail = f.apply(BuiltinOp::MUL, &[sum, bell]);
        let one = f.number(1.0);
        let positive = f.apply(BuiltinOp::SUB, &[one, tail]);
        let sign = f.apply(BuiltinOp::SIGN, &[x]);
        f.apply(BuiltinOp::MUL, &[positive, sign])
    })
}

/// `Reciprocal`.
pub(super) fn reciprocal(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    write(walk, |f, x| {
        let one = f.number(1.0);
        f.apply(BuiltinOp::DIV, &[one, x])
    })
}

/// `Tan`: sin(x) / cos(x).
pub(super) fn tangent(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    write(walk, |f, x| {
        let (sine, cosine) = (f.apply(BuiltinOp::SIN, &[x]), f.apply(BuiltinOp::COS, &[x]));
        f.apply(BuiltinOp::DIV, &[sine, cosine])
    })
}

/// `Mish`: x tanh(softplus(x)).
pub(super) fn mish(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    write(walk, |f, x| {
        let soft = f.softplus(x);
        let gate = f.apply(BuiltinOp::TANH, &[soft]);
        f.apply(BuiltinOp::MUL, &[x, gate])
    })
}

/// `Softsign`: x / (1 + |x|).
pub(super) fn softsign(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    write(walk, |f, x| {
        let size = f.apply(BuiltinOp::ABS, &[x]);
        let below = f.shift(size, 1.0);
        f.apply(BuiltinOp::DIV, &[x, below])
    })
}

/// `Elu` of any slope, `Selu` and `Celu`: gain * (max(x, 0) + alpha * elu(min(x, 0) / stretch)).
pub(super) fn elu_like(walk: &mut Walk<'_>, alpha: f32, gain: f32, stretch: f32) -> Result<(), LowerError> {
    write(walk, |f, x| {
        let above = f.apply(BuiltinOp::RELU, &[x]);
        let below = f.apply(BuiltinOp::SUB, &[x, above]);
        let narrow = f.scale(below, 1.0 / stretch);
        let curve = f.apply(BuiltinOp::ELU, &[narrow]);
        let curve = f.scale(curve, alpha);
        let sum = f.apply(BuiltinOp::ADD, &[above, curve]);
        f.scale(sum, gain)
    })
}

/// `Sum` and `Mean` of any number of tensors.
pub(super) fn sum(walk: &mut Walk<'_>, mean: bool) -> Result<(), LowerError> {
    let count = walk.node().inputs.len();
    let mut result = walk.operand(0)?;
    for at in 1..count {
        let next = walk.operand(at)?;
        elementwise::binary_of(walk, BuiltinOp::ADD, elementwise::add_options(), &result, &next)?;
        result = walk.value(walk.node().output())?;
        if at + 1 < count || mean {
            // A part of the sum, not the calibrated whole.
            walk.draft.tensors[result.tensor].origin = None;
        }
    }
    if mean && count > 1 {
        let share = walk.draft.constant(&[1], Value::F32(vec![1.0 / count as f32]));
        let share = Stored { tensor: share, dims: vec![1], layout: Layout::Axes(Layout::identity(1)) };
        return elementwise::binary_of(walk, BuiltinOp::MUL, opt::Mul::default(), &result, &share);
    }
    walk.define_as(0, result);
    Ok(())
}
