//! Operators on two tensors with broadcasting.

use edgeyard_tflite::{BuiltinOp, Options, TensorType, op_options as opt};

use super::super::LowerError;
use super::super::draft::{MAXIMUM_MINIMUM_OPTIONS, TensorId, Value};
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;
use super::{logic, matmul};

/// Options of an ADD as converters write them.
pub(super) fn add_options() -> Options {
    opt::Add { pot_scale_int16: false, ..opt::Add::default() }.into()
}

/// `Add`; a constant added to a convolution or matrix product goes into its bias.
pub(super) fn add(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    for (one, other) in [(0, 1), (1, 0)] {
        let (computed, constant) = (walk.input(one)?, walk.input(other)?);
        if let Some((dims, values)) = walk.optional_floats(constant)
            && matmul::absorb_bias(walk, computed, dims, &values)
        {
            return Ok(());
        }
    }
    binary(walk, BuiltinOp::ADD, add_options())
}

/// `Sub`.
pub(super) fn sub(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    binary(walk, BuiltinOp::SUB, opt::Sub { pot_scale_int16: false, ..opt::Sub::default() })
}

/// `Mul`.
pub(super) fn mul(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    binary(walk, BuiltinOp::MUL, opt::Mul::default())
}

/// `Div`; by a constant it is a multiplication, which every runtime has for integers too.
pub(super) fn div(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let Some((dims, values)) = walk.optional_floats(walk.input(1)?) else {
        return binary(walk, BuiltinOp::DIV, opt::Div::default());
    };
    if values.contains(&0.0) {
        return Err(walk.refuse("it divides by zero", "repair the model"));
    }
    let x = walk.operand(0)?;
    let tensor = walk.draft.constant(dims, Value::F32(values.iter().map(|value| 1.0 / value).collect()));
    let factor = Stored { tensor, dims: dims.to_vec(), layout: Layout::Axes(Layout::identity(dims.len())) };
    binary_of(walk, BuiltinOp::MUL, opt::Mul::default(), &x, &factor)
}

/// `Neg`: TensorFlow Lite Micro's NEG takes no integers, its MUL does.
pub(super) fn neg(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let tensor = walk.draft.constant(&[1], Value::F32(vec![-1.0]));
    let minus = Stored { tensor, dims: vec![1], layout: Layout::Axes(Layout::identity(1)) };
    let x = if x.dims.is_empty() { Stored { dims: vec![1], layout: Layout::Axes(vec![Some(0)]), ..x } } else { x };
    binary_of(walk, BuiltinOp::MUL, opt::Mul::default(), &x, &minus)
}

/// `Min` and `Max` of any number of tensors.
pub(super) fn extreme(walk: &mut Walk<'_>, op: BuiltinOp) -> Result<(), LowerError> {
    let count = walk.node().inputs.len();
    let mut result = walk.operand(0)?;
    for at in 1..count {
        let next = walk.operand(at)?;
        binary_of(walk, op, Options::Empty(MAXIMUM_MINIMUM_OPTIONS), &result, &next)?;
        result = walk.value(walk.node().output())?;
    }
    walk.define_as(0, result);
    Ok(())
}

/// `Pow` with the exponents that have an operator.
pub(super) fn pow(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    match walk.optional_floats(walk.input(1)?) {
        Some((_, values)) if values == [1.0] => {
            walk.define_as(0, x);
            Ok(())
        }
        Some((_, values)) if values == [2.0] => binary_of(walk, BuiltinOp::MUL, opt::Mul::default(), &x, &x),
        Some((_, values)) if values == [0.5] => super::activation::unary(walk, BuiltinOp::SQRT, true),
        _ => binary(walk, BuiltinOp::POW, Options::Empty(56)),
    }
}

/// `Mod`: TFLite's takes the divisor's sign, as ONNX's does for integers; for floats (`fmod`) it is the dividend's.
pub(super) fn modulo(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let (a, b) = (walk.any(0)?, walk.any(1)?);
    if walk.draft.tensors[a.tensor].dtype != walk.draft.tensors[b.tensor].dtype {
        return Err(walk.refuse("its operands are of two types", "repair the model"));
    }
    let truncates = walk.node().int("fmod", 0) != 0;
    let floats = walk.draft.tensors[a.tensor].dtype == TensorType::Float32;
    if !floats && truncates {
        return Err(walk.refuse("its fmod is 1 for integers", "only the integer Mod with fmod 0 is lowered"));
    }
    let floor_mod = Options::Empty(72);
    if !floats {
        return binary_of(walk, BuiltinOp::FLOOR_MOD, floor_mod, &a, &b);
    }
    let mut inner = |op: BuiltinOp, options: Options, x: &Stored| {
        let shape = walk.draft.tensors[x.tensor].shape.clone();
        let tensor = walk.emit_inner(op, options, &[x.tensor], &shape);
        walk.draft.tensors[tensor].keeps_float = true;
        Stored { tensor, ..x.clone() }
    };
    let sign = inner(BuiltinOp::SIGN, Options::None, &a);
    let sizes = [&a, &b].map(|x| inner(BuiltinOp::ABS, Options::Empty(78), x));
    binary_of(walk, BuiltinOp::FLOOR_MOD, floor_mod, &sizes[0], &sizes[1])?;
    let rest = walk.value(walk.node().output())?;
    let slot = &mut walk.draft.tensors[rest.tensor];
    (slot.keeps_float, slot.origin) = (true, None);
    binary_of(walk, BuiltinOp::MUL, opt::Mul::default(), &rest, &sign)
}

/// `PRelu` with constant slopes.
pub(super) fn prelu(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let (dims, slopes) = walk.floats(1, "slope")?;
    if let [slope] = slopes[..] {
        let x = walk.operand(0)?;
        let shape = walk.draft.tensors[x.tensor].shape.clone();
        let output = walk.emit(BuiltinOp::LEAKY_RELU, opt::LeakyRelu { alpha: slope }, &[x.tensor], &shape);
        walk.define_as(0, Stored { tensor: output, ..x });
        return Ok(());
    }
    let x = walk.operand(0)?;
    // Exporters write slopes per channel as [C, 1, 1] or, against the standard, as [C].
    let mut padded = vec![1; x.dims.len().saturating_sub(dims.len())];
    padded.extend(dims);
    if dims.len() == 1 && x.dims.len() > 2 && dims[0] == x.dims[1] && dims[0] != x.dims[x.dims.len() - 1] {
        padded = vec![1; x.dims.len()];
        padded[1] = dims[0];
    }
    let fits =
        padded.len() == x.dims.len() && padded.iter().zip(&x.dims).all(|(slope, dim)| *slope == 1 || slope == dim);
    if !fits || x.dims.is_empty() {
        let why = format!("slopes of shape {dims:?} do not stretch to its input of shape {:?}", x.dims);
        return Err(walk.refuse(why, "repair the model"));
    }
    let axes = x.axes_with(0..x.dims.len()).map_or_else(|| Layout::identity(x.dims.len()), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let tensor = walk.draft.constant(&padded, Value::F32(slopes));
    let slopes = Stored { tensor, layout: Layout::Axes(Layout::identity(padded.len())), dims: padded };
    let slopes = slopes.in_axes(&mut walk.draft, walk.at, &axes);
    // The kernels want the slopes without the batch dimension.
    let shape = walk.draft.tensors[slopes].shape.clone();
    let slopes = walk.draft.reshaped(walk.at, slopes, &shape[1..]);
    let shape = stored_shape(&x.dims, &axes);
    let output = walk.emit(BuiltinOp::PRELU, Options::None, &[input, slopes], &shape);
    walk.define(output, x.dims, axes);
    Ok(())
}

fn binary(walk: &mut Walk<'_>, op: BuiltinOp, options: impl Into<Options>) -> Result<(), LowerError> {
    let (a, b) = (walk.operand(0)?, walk.operand(1)?);
    binary_of(walk, op, options, &a, &b)
}

/// An operator on two operands; the result lies as the larger operand does.
pub(super) fn binary_of(
    walk: &mut Walk<'_>,
    op: BuiltinOp,
    options: impl Into<Options>,
    a: &Stored,
    b: &Stored,
) -> Result<(), LowerError> {
    let rank = a.dims.len().max(b.dims.len());
    let wide = |dims: &[usize]| {
        let mut wide = vec![1; rank - dims.len()];
        wide.extend(dims);
        wide
    };
    let (wide_a, wide_b) = (wide(&a.dims), wide(&b.dims));
    let mut dims = Vec::with_capacity(rank);
    for (&one, &other) in wide_a.iter().zip(&wide_b) {
        if one != other && one != 1 && other != 1 {
            let why = format!("shapes {:?} and {:?} do not broadcast", a.dims, b.dims);
            return Err(walk.refuse(why, "repair the model"));
        }
        dims.push(if one == 1 { other } else { one });
    }
    // An operand's own order will do if it shows every axis of the result. Constants follow, they cost nothing to move.
    let usable = |walk: &Walk<'_>, operand: &Stored| -> Option<(bool, Vec<Option<usize>>)> {
        let offset = rank - operand.dims.len();
        let axes: Vec<Option<usize>> = operand.axes()?.iter().map(|axis| axis.map(|axis| axis + offset)).collect();
        let shown = dims.iter().enumerate().all(|(axis, &dim)| dim == 1 || axes.contains(&Some(axis)));
        let constant = walk.draft.tensors[operand.tensor].value.is_some();
        shown.then_some((!constant && !operand.is_in_onnx_order(), axes))
    };
    let full = |stored: &Stored| stored.dims.iter().product::<usize>() == dims.iter().product::<usize>();
    let mut candidates: Vec<(bool, bool, bool, Vec<Option<usize>>)> = [a, b]
        .into_iter()
        .filter_map(|operand| {
            let constant = walk.draft.tensors[operand.tensor].value.is_some();
            usable(walk, operand).map(|(moved, axes)| (!constant, full(operand), moved, axes))
        })
        .collect();
    candidates.sort_by_key(|(computed, full, moved, _)| std::cmp::Reverse((*computed, *full, *moved)));
    let axes = candidates.into_iter().next().map_or_else(|| Layout::identity(rank), |(.., axes)| axes);
    let place = |walk: &mut Walk<'_>, operand: &Stored| -> TensorId {
        let offset = rank - operand.dims.len();
        let own: Vec<Option<usize>> = axes.iter().map(|axis| axis.and_then(|axis| axis.checked_sub(offset))).collect();
        let tensor = operand.in_axes(&mut walk.draft, walk.at, &own);
        if walk.draft.tensors[tensor].value.is_none() {
            return tensor;
        }
        // Leading ones say nothing.
        let shape = &walk.draft.tensors[tensor].shape;
        let ones = shape.iter().take_while(|&&dim| dim == 1).count().min(shape.len().saturating_sub(1));
        let shape = shape[ones..].to_vec();
        walk.draft.reshaped(walk.at, tensor, &shape)
    };
    let (mut left, mut right) = (place(walk, a), place(walk, b));
    let shape = stored_shape(&dims, &axes);
    let mut made = shape.clone();
    if walk.draft.tensors[left].shape != walk.draft.tensors[right].shape && shape.len() > BROADCAST_RANK {
        (left, right, made) = narrowed(walk, left, right, &shape)?;
    }
    let output = walk.emit(op, options, &[left, right], &made);
    if logic::gives_truth(op) {
        walk.draft.tensors[output].dtype = TensorType::Bool;
    }
    let output = walk.draft.reshaped(walk.at, output, &shape);
    walk.define(output, dims, axes);
    Ok(())
}

/// Kernels of microcontrollers broadcast in at most so many dimensions, LiteRT's of comparisons too.
const BROADCAST_RANK: usize = 4;

/// Copies of one operand that are written out before a broadcast is refused.
const COPIES: usize = 64;

/// Operands of a broadcast in more dimensions than kernels have, and the result's shape: neighbouring dimensions that
/// broadcast alike become one. Where they alternate too often for that, operands are repeated, the smaller one first.
fn narrowed(
    walk: &mut Walk<'_>,
    left: TensorId,
    right: TensorId,
    shape: &[usize],
) -> Result<(TensorId, TensorId, Vec<usize>), LowerError> {
    let mut sides = [left, right];
    let mut shapes = sides.map(|side| {
        let have = &walk.draft.tensors[side].shape;
        let mut wide = vec![1; shape.len() - have.len()];
        wide.extend(have);
        wide
    });
    let mut order = [0, 1];
    order.sort_by_key(|&side| shapes[side].iter().product::<usize>());
    for side in order {
        if merged(&shapes[0], &shapes[1]).len() <= BROADCAST_RANK {
            break;
        }
        let mut tensor = walk.draft.reshaped(walk.at, sides[side], &shapes[side]);
        for (axis, &size) in shape.iter().enumerate() {
            if shapes[side][axis] == size {
                continue;
            }
            if size > COPIES {
                let why = format!("it broadcasts in {} dimensions, {size} times along one", shape.len());
                return Err(walk.refuse(why, "reshape its inputs so that at most 4 dimensions are left"));
            }
            shapes[side][axis] = size;
            let options = opt::Concatenation { axis: axis as i32, ..opt::Concatenation::default() };
            let origin = walk.draft.tensors[tensor].origin.clone();
            let copies = vec![tensor; size];
            tensor =
                walk.draft.emit(walk.at, BuiltinOp::CONCATENATION, options, &copies, &shapes[side], origin.as_deref());
        }
        sides[side] = tensor;
    }
    let merged = merged(&shapes[0], &shapes[1]);
    let narrow: [Vec<usize>; 2] =
        [merged.iter().map(|(left, _)| *left).collect(), merged.iter().map(|(_, right)| *right).collect()];
    let [left, right] = [0, 1].map(|side| walk.draft.reshaped(walk.at, sides[side], &narrow[side]));
    Ok((left, right, merged.iter().map(|(left, right)| *left.max(right)).collect()))
}

/// The sizes of both sides, with neighbouring dimensions that broadcast alike as one.
fn merged(left: &[usize], right: &[usize]) -> Vec<(usize, usize)> {
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (&l, &r) in left.iter().zip(right).filter(|sizes| *sizes != (&1, &1)) {
        match merged.last_mut() {
            Some((a, b)) if (*a == 1) == (l == 1) && (*b == 1) == (r == 1) => {
                *a *= l;
                *b *= r;
            }
            _ => merged.push((l, r)),
        }
    }
    merged
}
