//! Reductions along axes.

use edgeyard_tflite::{BuiltinOp, Options, TensorType, op_options as opt};

use super::super::LowerError;
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;

/// `GlobalAveragePool`.
pub(super) fn global_average_pool(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let axes: Vec<usize> = (2..x.dims.len()).collect();
    along(walk, BuiltinOp::MEAN, &x, &axes, true)
}

/// `ReduceMean`, `ReduceSum`, `ReduceMax`, `ReduceMin`, `ReduceProd`.
pub(super) fn reduce(walk: &mut Walk<'_>, op: BuiltinOp) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    match axes_of(walk, &x)? {
        Some((axes, keep)) => along(walk, op, &x, &axes, keep),
        None => {
            walk.define_as(0, x);
            Ok(())
        }
    }
}

/// A reduction that is a sum between functions of single elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    /// The sum of sizes.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The sum of squares.
    SumSquare,
    /// The logarithm of the sum.
    LogSum,
    /// The logarithm of the sum of powers of e.
    LogSumExp,
}

/// `ReduceL1`, `ReduceL2`, `ReduceSumSquare`, `ReduceLogSum`, `ReduceLogSumExp`, inside in floats.
pub(super) fn norm(walk: &mut Walk<'_>, norm: Norm) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    // Without axes to reduce the functions still apply.
    let (axes, keep) = axes_of(walk, &x)?.unwrap_or_default();
    let layout = x.axes_with(axes.iter().copied()).map_or_else(|| Layout::identity(x.dims.len()), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &layout);
    let shape = walk.draft.tensors[input].shape.clone();
    let positions: Vec<usize> =
        (0..layout.len()).filter(|&at| layout[at].is_some_and(|axis| axes.contains(&axis))).collect();
    let mut kept = shape.clone();
    for &at in &positions {
        kept[at] = 1;
    }
    let positions = walk.draft.ints(&positions);
    let mut made = Vec::new();
    let mut apply = |op: BuiltinOp, options: Options, inputs: &[usize], shape: &[usize]| {
        let tensor = walk.emit_inner(op, options, inputs, shape);
        made.push(tensor);
        tensor
    };
    let reducer = || opt::Reducer { keep_dims: true }.into();
    let (squares, sub) = (opt::Mul::default(), opt::Sub { pot_scale_int16: false, ..opt::Sub::default() });
    // The largest comes off before powers are taken, or they overflow.
    let peak = (norm == Norm::LogSumExp).then(|| apply(BuiltinOp::REDUCE_MAX, reducer(), &[input, positions], &kept));
    let parts = match (norm, peak) {
        (Norm::L1, _) => apply(BuiltinOp::ABS, Options::Empty(78), &[input], &shape),
        (Norm::L2 | Norm::SumSquare, _) => apply(BuiltinOp::MUL, squares.into(), &[input, input], &shape),
        (_, Some(peak)) => {
            let low = apply(BuiltinOp::SUB, sub.into(), &[input, peak], &shape);
            apply(BuiltinOp::EXP, Options::Empty(33), &[low], &shape)
        }
        _ => input,
    };
    let mut result = apply(BuiltinOp::SUM, reducer(), &[parts, positions], &kept);
    result = match norm {
        Norm::L1 | Norm::SumSquare => result,
        Norm::L2 => apply(BuiltinOp::SQRT, Options::None, &[result], &kept),
        Norm::LogSum | Norm::LogSumExp => apply(BuiltinOp::LOG, Options::None, &[result], &kept),
    };
    if let Some(peak) = peak {
        result = apply(BuiltinOp::ADD, super::elementwise::add_options(), &[result, peak], &kept);
    }
    for tensor in made {
        walk.draft.tensors[tensor].keeps_float = true;
    }
    let origin = walk.origin().map(str::to_owned);
    let slot = &mut walk.draft.tensors[result];
    (slot.keeps_float, slot.origin) = (false, origin);
    slot.non_negative = matches!(norm, Norm::L1 | Norm::L2 | Norm::SumSquare);
    let (dims, layout) = reduced(&x.dims, &layout, &axes, keep);
    let shape = stored_shape(&dims, &layout);
    let result = walk.draft.reshaped(walk.at, result, &shape);
    walk.define(result, dims, layout);
    Ok(())
}

/// Which axes a reduction is over, and whether they stay as 1; none if it does nothing.
fn axes_of(walk: &Walk<'_>, x: &Stored) -> Result<Option<(Vec<usize>, bool)>, LowerError> {
    let rank = x.dims.len();
    let keep = walk.node().int("keepdims", 1) != 0;
    let given = walk.integers(1, "axes")?.unwrap_or_default();
    if given.is_empty() && walk.node().int("noop_with_empty_axes", 0) != 0 {
        return Ok(None);
    }
    let mut axes: Vec<usize> = if given.is_empty() {
        (0..rank).collect()
    } else {
        given.iter().map(|&axis| super::axis(walk, axis, rank)).collect::<Result<_, _>>()?
    };
    axes.sort_unstable();
    axes.dedup();
    Ok(Some((axes, keep)))
}

/// `ArgMax` and `ArgMin`.
pub(super) fn arg(walk: &mut Walk<'_>, op: BuiltinOp) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let axis = super::axis(walk, walk.node().int("axis", 0), rank)?;
    if walk.node().int("select_last_index", 0) != 0 {
        return Err(walk.refuse("it selects the last index", "TFLite gives the first of equal values"));
    }
    let mut layout = x.axes_with([axis]).map_or_else(|| Layout::identity(rank), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &layout);
    let position = layout.iter().position(|at| *at == Some(axis)).expect("the layout shows the axis");
    layout.remove(position);
    let mut dims = x.dims.clone();
    if walk.node().int("keepdims", 1) != 0 {
        dims[axis] = 1;
    } else {
        dims.remove(axis);
        layout = layout.into_iter().map(|at| at.map(|at| if at > axis { at - 1 } else { at })).collect();
    }
    let position = walk.draft.ints(&[position]);
    let shape = stored_shape(&dims, &layout);
    let output = if op == BuiltinOp::ARG_MAX {
        walk.emit(op, opt::ArgMax { output_type: TensorType::Int64 }, &[input, position], &shape)
    } else {
        walk.emit(op, opt::ArgMin { output_type: TensorType::Int64 }, &[input, position], &shape)
    };
    walk.draft.tensors[output].dtype = TensorType::Int64;
    walk.draft.tensors[output].non_negative = true;
    walk.define(output, dims, layout);
    Ok(())
}

fn along(walk: &mut Walk<'_>, op: BuiltinOp, x: &Stored, axes: &[usize], keep: bool) -> Result<(), LowerError> {
    let rank = x.dims.len();
    let layout = x.axes_with(axes.iter().copied()).map_or_else(|| Layout::identity(rank), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &layout);
    let positions: Vec<usize> =
        (0..layout.len()).filter(|&at| layout[at].is_some_and(|axis| axes.contains(&axis))).collect();
    let (dims, layout) = reduced(&x.dims, &layout, axes, keep);
    let positions = walk.draft.ints(&positions);
    let shape = stored_shape(&dims, &layout);
    let output = walk.emit(op, opt::Reducer { keep_dims: keep }, &[input, positions], &shape);
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    walk.define(output, dims, layout);
    Ok(())
}

/// The shape and layout that are left of a reduction.
fn reduced(dims: &[usize], layout: &[Option<usize>], axes: &[usize], keep: bool) -> (Vec<usize>, Vec<Option<usize>>) {
    let reduced = |axis: usize| axes.contains(&axis);
    if keep {
        let dims = dims.iter().enumerate().map(|(axis, &dim)| if reduced(axis) { 1 } else { dim }).collect();
        return (dims, layout.to_vec());
    }
    let renumbered = |axis: usize| axis - axes.iter().filter(|&&other| other < axis).count();
    (
        (0..dims.len()).filter(|&axis| !reduced(axis)).map(|axis| dims[axis]).collect(),
        layout.iter().filter(|axis| !axis.is_some_and(reduced)).map(|axis| axis.map(renumbered)).collect(),
    )
}
