//! Operators on one tensor, element by element, and Softmax. They keep the order their input lies in.

use edgeyard_tflite::{Activation, BuiltinOp, Options, op_options as opt};

use super::super::LowerError;
use super::super::draft::{CLAMP, HARD_SWISH_OPTIONS, MAXIMUM_MINIMUM_OPTIONS, Value};
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;
use super::elementwise;

/// An operator without parameters.
pub(super) fn unary(walk: &mut Walk<'_>, op: BuiltinOp, non_negative: bool) -> Result<(), LowerError> {
    let options = match op {
        BuiltinOp::ABS => Options::Empty(78),
        BuiltinOp::COS => Options::Empty(84),
        BuiltinOp::EXP => Options::Empty(33),
        BuiltinOp::HARD_SWISH => Options::Empty(HARD_SWISH_OPTIONS),
        _ => Options::None,
    };
    with_options(walk, op, options, non_negative)
}

fn with_options(
    walk: &mut Walk<'_>,
    op: BuiltinOp,
    options: impl Into<Options>,
    non_negative: bool,
) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let output = walk.emit(op, options, &[x.tensor], &shape);
    walk.draft.tensors[output].non_negative = non_negative;
    walk.define_as(0, Stored { tensor: output, ..x });
    Ok(())
}

/// `Relu`.
pub(super) fn relu(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    if walk.fuse(Activation::Relu)? {
        return Ok(());
    }
    unary(walk, BuiltinOp::RELU, true)
}

/// `Clip`.
pub(super) fn clip(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let node = walk.node();
    let computed = |index: usize| node.input(index).is_some_and(|name| walk.optional_floats(name).is_none());
    if computed(1) || computed(2) {
        return clip_to_computed(walk);
    }
    let bound = |index: usize, attribute: &str, default: f32| -> Result<f32, LowerError> {
        if node.input(index).is_none() {
            return Ok(node.float(attribute, default));
        }
        match walk.floats(index, attribute)?.1[..] {
            [value] => Ok(value),
            _ => Err(walk.refuse(format!("its {attribute} is not a scalar"), "repair the model")),
        }
    };
    let lower = bound(1, "min", f32::NEG_INFINITY)?;
    let upper = bound(2, "max", f32::INFINITY)?;
    // Some exporters write the largest float for "no bound".
    let (lower, upper) = (
        if lower <= f32::MIN { f32::NEG_INFINITY } else { lower },
        if upper >= f32::MAX { f32::INFINITY } else { upper },
    );
    let fusable = match (lower, upper) {
        (0.0, f32::INFINITY) => return relu(walk),
        (0.0, 6.0) => Some(Activation::Relu6),
        (-1.0, 1.0) => Some(Activation::ReluN1To1),
        _ => None,
    };
    if let Some(activation) = fusable
        && walk.fuse(activation)?
    {
        return Ok(());
    }
    let x = walk.operand(0)?;
    let output = clamped(walk, &x, lower, upper);
    walk.define_as(0, output);
    Ok(())
}

/// `Clip` whose bounds other nodes compute: ONNX takes the upper one where they cross.
fn clip_to_computed(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let mut result = walk.operand(0)?;
    for (index, op) in [(1, BuiltinOp::MAXIMUM), (2, BuiltinOp::MINIMUM)] {
        if walk.node().input(index).is_none() {
            continue;
        }
        let bound = walk.operand(index)?;
        if bound.dims.iter().any(|&dim| dim != 1) {
            return Err(walk.refuse(format!("a bound has the shape {:?}", bound.dims), "repair the model"));
        }
        elementwise::binary_of(walk, op, Options::Empty(MAXIMUM_MINIMUM_OPTIONS), &result, &bound)?;
        result = walk.value(walk.node().output())?;
    }
    Ok(())
}

fn clamped(walk: &mut Walk<'_>, x: &Stored, lower: f32, upper: f32) -> Stored {
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let tensor = walk.emit(CLAMP, Options::None, &[x.tensor], &shape);
    if let Some(op) = walk.draft.ops.last_mut() {
        op.clamp = (lower, upper);
    }
    walk.draft.tensors[tensor].non_negative = lower >= 0.0;
    Stored { tensor, ..x.clone() }
}

/// `LeakyRelu`.
pub(super) fn leaky_relu(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let alpha = walk.node().float("alpha", 0.01);
    with_options(walk, BuiltinOp::LEAKY_RELU, opt::LeakyRelu { alpha }, false)
}

/// `Gelu`, exact or by tanh.
pub(super) fn gelu(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let approximate = walk.node().string("approximate") == Some("tanh");
    with_options(walk, BuiltinOp::GELU, opt::Gelu { approximate }, false)
}

/// `Softplus`: log(1 + exp(x)).
pub(super) fn softplus(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let one = walk.draft.constant(&[1], Value::F32(vec![1.0]));
    let power = walk.emit_inner(BuiltinOp::EXP, Options::Empty(33), &[x.tensor], &shape);
    let sum = walk.emit_inner(BuiltinOp::ADD, elementwise::add_options(), &[power, one], &shape);
    for inner in [power, sum] {
        walk.draft.tensors[inner].keeps_float = true;
    }
    let tensor = walk.emit(BuiltinOp::LOG, Options::None, &[sum], &shape);
    walk.draft.tensors[tensor].non_negative = true;
    walk.define_as(0, Stored { tensor, ..x });
    Ok(())
}

/// `LogSoftmax`, which TFLite computes along the last stored dimension.
pub(super) fn log_softmax(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    along_last(walk, BuiltinOp::LOG_SOFTMAX, Options::Empty(36), false)
}

/// `Elu`; TFLite's own has a slope of 1.
pub(super) fn elu(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let alpha = walk.node().float("alpha", 1.0);
    if alpha != 1.0 {
        return super::formula::elu_like(walk, alpha, 1.0, 1.0);
    }
    unary(walk, BuiltinOp::ELU, false)
}

/// `HardSigmoid`: max(0, min(1, alpha * x + beta)).
pub(super) fn hard_sigmoid(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let (alpha, beta) = (walk.node().float("alpha", 0.2), walk.node().float("beta", 0.5));
    let x = walk.operand(0)?;
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let (alpha, beta) =
        (walk.draft.constant(&[1], Value::F32(vec![alpha])), walk.draft.constant(&[1], Value::F32(vec![beta])));
    let scaled = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[x.tensor, alpha], &shape);
    let shifted = walk.emit_inner(BuiltinOp::ADD, elementwise::add_options(), &[scaled, beta], &shape);
    let output = clamped(walk, &Stored { tensor: shifted, ..x }, 0.0, 1.0);
    walk.define_as(0, output);
    Ok(())
}

/// `HardSwish`.
pub(super) fn hard_swish(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    unary(walk, BuiltinOp::HARD_SWISH, false)
}

/// `Softmax`, which TFLite computes along the last stored dimension.
pub(super) fn softmax(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    along_last(walk, BuiltinOp::SOFTMAX, opt::Softmax { beta: 1.0 }.into(), true)
}

fn along_last(walk: &mut Walk<'_>, op: BuiltinOp, options: Options, non_negative: bool) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let modern = walk.graph.opset >= 13;
    let axis = walk.node().int("axis", if modern { -1 } else { 1 });
    let axis = super::axis(walk, axis, rank)?;
    if !modern && x.dims[axis + 1..].iter().any(|&dim| dim != 1) {
        // Before operator set 13 everything from the axis on is one vector.
        let plain = x.plain(&mut walk.draft, walk.at);
        let rows = x.dims[..axis].iter().product();
        let flat = [rows, x.dims[axis..].iter().product()];
        let input = walk.draft.reshaped(walk.at, plain, &flat);
        let output = walk.emit(op, options, &[input], &flat);
        walk.draft.tensors[output].non_negative = non_negative;
        let output = walk.draft.reshaped(walk.at, output, &x.dims);
        walk.define(output, x.dims, Layout::identity(rank));
        return Ok(());
    }
    let axes = match x.axes() {
        Some(axes) if axes.last() == Some(&Some(axis)) => axes.to_vec(),
        _ => {
            let mut axes: Vec<Option<usize>> = (0..rank).filter(|&other| other != axis).map(Some).collect();
            axes.push(Some(axis));
            axes
        }
    };
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let shape = stored_shape(&x.dims, &axes);
    let output = walk.emit(op, options, &[input], &shape);
    walk.draft.tensors[output].non_negative = non_negative;
    walk.define(output, x.dims, axes);
    Ok(())
}
