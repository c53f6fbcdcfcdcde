//! Reductions along axes.

use edgeyard_tflite::{BuiltinOp, TensorType, op_options as opt};

use super::super::LowerError;
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;

/// `GlobalAveragePool`.
pub(super) fn global_average_pool(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let axes: Vec<usize> = (2..x.dims.len()).collect();
    along(walk, BuiltinOp::MEAN, &x, &axes, true)
}

/// `ReduceMean`, `ReduceSum`, `ReduceMax`, `ReduceMin`.
pub(super) fn reduce(walk: &mut Walk<'_>, op: BuiltinOp) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let keep = walk.node().int("keepdims", 1) != 0;
    let given = walk.integers(1, "axes")?.unwrap_or_default();
    if given.is_empty() && walk.node().int("noop_with_empty_axes", 0) != 0 {
        walk.define_as(0, x);
        return Ok(());
    }
    let mut axes: Vec<usize> = if given.is_empty() {
        (0..rank).collect()
    } else {
        given.iter().map(|&axis| super::axis(walk, axis, rank)).collect::<Result<_, _>>()?
    };
    axes.sort_unstable();
    axes.dedup();
    along(walk, op, &x, &axes, keep)
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
    walk.define(output, dims, layout);
    Ok(())
}

fn along(walk: &mut Walk<'_>, op: BuiltinOp, x: &Stored, axes: &[usize], keep: bool) -> Result<(), LowerError> {
    let rank = x.dims.len();
    let layout = x.axes_with(axes.iter().copied()).map_or_else(|| Layout::identity(rank), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &layout);
    let reduced = |axis: usize| axes.contains(&axis);
    let positions: Vec<usize> = (0..layout.len()).filter(|&at| layout[at].is_some_and(reduced)).collect();
    let (dims, layout): (Vec<usize>, Vec<Option<usize>>) = if keep {
        (x.dims.iter().enumerate().map(|(axis, &dim)| if reduced(axis) { 1 } else { dim }).collect(), layout)
    } else {
        let renumbered = |axis: usize| axis - axes.iter().filter(|&&other| other < axis).count();
        (
            (0..rank).filter(|&axis| !reduced(axis)).map(|axis| x.dims[axis]).collect(),
            layout.iter().filter(|axis| !axis.is_some_and(reduced)).map(|axis| axis.map(renumbered)).collect(),
        )
    };
    let positions = walk.draft.ints(&positions);
    let shape = stored_shape(&dims, &layout);
    let output = walk.emit(op, opt::Reducer { keep_dims: keep }, &[input, positions], &shape);
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    walk.define(output, dims, layout);
    Ok(())
}
