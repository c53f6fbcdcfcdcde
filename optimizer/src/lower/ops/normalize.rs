//! Normalisations over a tensor's own values. TFLite has no operator for most of them: they become the arithmetic they
//! stand for.

use edgeyard_tflite::{BuiltinOp, Options, op_options as opt};

use super::super::LowerError;
use super::super::draft::{TensorId, Value};
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;
use super::elementwise;

/// `LayerNormalization` from an axis to the last.
pub(super) fn layer(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    if walk.node().outputs[1..].iter().any(|name| !name.is_empty()) {
        return Err(walk.refuse("its mean or deviation is used", "only the normalised tensor is lowered"));
    }
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let first = super::axis(walk, walk.node().int("axis", -1), rank)?;
    let epsilon = walk.node().float("epsilon", 1e-5);
    let axes = Layout::identity(rank);
    let input = x.plain(&mut walk.draft, walk.at);
    let positions: Vec<usize> = (first..rank).collect();
    let normal = normalized(walk, input, &positions, epsilon);
    let (shape, scale) = walk.floats(1, "scale")?;
    let scale = walk.draft.constant(shape, Value::F32(scale));
    let dims = x.dims.clone();
    let mut output = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[normal, scale], &dims);
    if walk.node().input(2).is_some() {
        walk.draft.tensors[output].keeps_float = true;
        let (shape, bias) = walk.floats(2, "bias")?;
        let bias = walk.draft.constant(shape, Value::F32(bias));
        output = walk.emit_inner(BuiltinOp::ADD, elementwise::add_options(), &[output, bias], &dims);
    }
    walk.draft.tensors[output].origin = walk.origin().map(str::to_owned);
    walk.define(output, dims, axes);
    Ok(())
}

/// `InstanceNormalization` over an image's height and width.
pub(super) fn instance(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let Some(axes) = Layout::channels_last(x.dims.len()).filter(|_| x.dims.len() >= 3) else {
        return Err(walk.refuse(format!("its input has {} dimensions", x.dims.len()), "3 or 4 are lowered"));
    };
    let epsilon = walk.node().float("epsilon", 1e-5);
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let normal = normalized(walk, input, &[1, 2], epsilon);
    let (_, scale) = walk.floats(1, "scale")?;
    let (_, bias) = walk.floats(2, "bias")?;
    let channels = [x.dims[1]];
    let scale = walk.draft.constant(&channels, Value::F32(scale));
    let bias = walk.draft.constant(&channels, Value::F32(bias));
    let shape = stored_shape(&x.dims, &axes);
    let scaled = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[normal, scale], &shape);
    walk.draft.tensors[scaled].keeps_float = true;
    let output = walk.emit(BuiltinOp::ADD, elementwise::add_options(), &[scaled, bias], &shape);
    walk.define(output, x.dims, axes);
    Ok(())
}

/// `GroupNormalization`: channels in groups, each over all its values.
pub(super) fn group(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let groups = usize::try_from(walk.node().int("num_groups", 0)).unwrap_or(0);
    let [batch, channels, ref image @ ..] = x.dims[..] else {
        return Err(walk.refuse(format!("its input has the shape {:?}", x.dims), "repair the model"));
    };
    if groups == 0 || channels % groups != 0 {
        return Err(walk.refuse(format!("{channels} channels are not {groups} groups"), "repair the model"));
    }
    let epsilon = walk.node().float("epsilon", 1e-5);
    let pixels = image.iter().product::<usize>();
    // Before operator set 21 scale and bias are one number a group.
    let spread = |values: Vec<f32>| -> Option<Vec<f32>> {
        match values.len() {
            len if len == channels => Some(values),
            len if len == groups => Some((0..channels).map(|at| values[at / (channels / groups)]).collect()),
            _ => None,
        }
    };
    let mut factors = Vec::new();
    for (index, what) in [(1, "scale"), (2, "bias")] {
        let values = spread(walk.floats(index, what)?.1)
            .ok_or_else(|| walk.refuse(format!("its {what} fits neither channels nor groups"), "repair the model"))?;
        factors.push(walk.draft.constant(&[channels, 1], Value::F32(values)));
    }
    let plain = x.plain(&mut walk.draft, walk.at);
    let input = walk.draft.reshaped(walk.at, plain, &[batch, groups, channels / groups * pixels]);
    let normal = normalized(walk, input, &[2], epsilon);
    let shape = [batch, channels, pixels];
    let normal = walk.draft.reshaped(walk.at, normal, &shape);
    walk.draft.tensors[normal].keeps_float = true;
    let scaled = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[normal, factors[0]], &shape);
    walk.draft.tensors[scaled].keeps_float = true;
    let output = walk.emit(BuiltinOp::ADD, elementwise::add_options(), &[scaled, factors[1]], &shape);
    let output = walk.draft.reshaped(walk.at, output, &x.dims);
    walk.define(output, x.dims.clone(), Layout::identity(x.dims.len()));
    Ok(())
}

/// `LRN` over neighbouring channels. TFLite's alpha is of every neighbour, ONNX's of all `size` together.
pub(super) fn local_response(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let node = walk.node();
    let Some(axes) = Layout::channels_last(x.dims.len()).filter(|_| x.dims.len() == 4) else {
        return Err(walk.refuse(format!("its input has {} dimensions", x.dims.len()), "4 are lowered"));
    };
    let size = node.int("size", 0);
    if size < 1 || size % 2 == 0 || size > i64::from(i32::MAX) {
        return Err(walk.refuse(format!("its size is {size}"), "odd sizes are lowered, which have a middle"));
    }
    let options = opt::LocalResponseNormalization {
        radius: (size / 2) as i32,
        bias: node.float("bias", 1.0),
        alpha: node.float("alpha", 1e-4) / size as f32,
        beta: node.float("beta", 0.75),
    };
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let shape = stored_shape(&x.dims, &axes);
    let output = walk.emit(BuiltinOp::LOCAL_RESPONSE_NORMALIZATION, options, &[input], &shape);
    walk.define(output, x.dims, axes);
    Ok(())
}

/// (x - mean) / sqrt(variance + epsilon) over stored dimensions. Squares of small deviations need floats, also in an
/// int8 model.
fn normalized(walk: &mut Walk<'_>, input: TensorId, positions: &[usize], epsilon: f32) -> TensorId {
    let shape = walk.draft.tensors[input].shape.clone();
    let mut reduced = shape.clone();
    for &at in positions {
        reduced[at] = 1;
    }
    let keep = || opt::Reducer { keep_dims: true };
    let axes = walk.draft.ints(positions);
    let mean = walk.emit_inner(BuiltinOp::MEAN, keep(), &[input, axes], &reduced);
    let options = opt::Sub { pot_scale_int16: false, ..opt::Sub::default() };
    let centred = walk.emit_inner(BuiltinOp::SUB, options, &[input, mean], &shape);
    let squares = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[centred, centred], &shape);
    let variance = walk.emit_inner(BuiltinOp::MEAN, keep(), &[squares, axes], &reduced);
    let epsilon = walk.draft.constant(&[1], Value::F32(vec![epsilon]));
    let safe = walk.emit_inner(BuiltinOp::ADD, elementwise::add_options(), &[variance, epsilon], &reduced);
    let factor = walk.emit_inner(BuiltinOp::RSQRT, Options::None, &[safe], &reduced);
    let normal = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[centred, factor], &shape);
    for inner in [mean, centred, squares, variance, safe, factor, normal] {
        walk.draft.tensors[inner].keeps_float = true;
    }
    normal
}

/// `LpNormalization` with p = 2 along one axis.
pub(super) fn l2(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    if walk.node().int("p", 2) != 2 {
        return Err(walk.refuse("its p is not 2", "only the Euclidean norm is lowered"));
    }
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let axis = super::axis(walk, walk.node().int("axis", -1), rank)?;
    let mut axes: Vec<Option<usize>> = (0..rank).filter(|&other| other != axis).map(Some).collect();
    axes.push(Some(axis));
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let shape = stored_shape(&x.dims, &axes);
    let tensor = walk.emit(BuiltinOp::L2_NORMALIZATION, opt::L2Norm::default(), &[input], &shape);
    walk.define_as(0, Stored { tensor, dims: x.dims, layout: Layout::Axes(axes) });
    Ok(())
}
