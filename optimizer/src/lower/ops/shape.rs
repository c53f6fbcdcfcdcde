//! Operators that move or regroup elements. Those that only rename axes cost nothing: they change what the walk knows
//! of the layout.

use std::collections::BTreeSet;

use edgeyard_tflite::{BuiltinOp, MirrorMode, Options, op_options as opt};

use super::super::LowerError;
use super::super::draft::{PAD_OPTIONS, PADV2_OPTIONS, Value};
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;

/// `Identity` and what is one at inference.
pub(super) fn identity(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    walk.define_as(0, x);
    Ok(())
}

/// `Flatten` to two dimensions.
pub(super) fn flatten(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let rank = x.dims.len();
    let axis = walk.node().int("axis", 1);
    let axis = if axis == rank as i64 { rank } else { super::axis(walk, axis, rank)? };
    let dims = vec![x.dims[..axis].iter().product(), x.dims[axis..].iter().product()];
    regroup(walk, &x, dims);
    Ok(())
}

/// `Reshape` to a shape that inference found.
pub(super) fn reshape(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let dims = walk.shape(walk.node().output())?;
    if dims.iter().product::<usize>() != x.dims.iter().product::<usize>() {
        return Err(walk.refuse(format!("{:?} cannot become {dims:?}", x.dims), "repair the model"));
    }
    regroup(walk, &x, dims);
    Ok(())
}

/// The same elements in ONNX's order under new dimensions.
fn regroup(walk: &mut Walk<'_>, x: &Stored, dims: Vec<usize>) {
    if dims == x.dims {
        return walk.define_as(0, x.clone());
    }
    if let Some(axes) = x.axes()
        && !x.is_in_onnx_order()
        && let [rows, columns] = dims[..]
        && rows == x.dims[0]
    {
        // Flattening an image whose channels lie last: a matrix product can take the elements as they are.
        let mut order: Vec<usize> = axes.iter().flatten().copied().collect();
        let missing: Vec<usize> = (0..x.dims.len()).filter(|axis| !order.contains(axis)).collect();
        order.extend(missing);
        if rows == 1 {
            order.retain(|&axis| axis != 0);
            order.insert(0, 0);
        }
        if order[0] == 0 {
            let tensor = walk.draft.reshaped(walk.at, x.tensor, &[rows, columns]);
            let layout = Layout::Flat { dims: x.dims.clone(), axes: order };
            return walk.define_as(0, Stored { tensor, dims, layout });
        }
    }
    let plain = x.plain(&mut walk.draft, walk.at);
    let tensor = walk.draft.reshaped(walk.at, plain, &dims);
    let axes = Layout::identity(dims.len());
    walk.define(tensor, dims, axes);
}

/// Renames axes: `renamed` gives the new number of an old axis, or none for one that goes.
fn relabel(walk: &mut Walk<'_>, x: &Stored, dims: Vec<usize>, renamed: impl Fn(usize) -> Option<usize>) {
    let (tensor, axes) = match x.axes() {
        Some(axes) => (x.tensor, axes.to_vec()),
        None => (x.plain(&mut walk.draft, walk.at), Layout::identity(x.dims.len())),
    };
    let axes = axes.into_iter().map(|axis| axis.and_then(&renamed)).collect();
    walk.define(tensor, dims, axes);
}

/// `Squeeze`.
pub(super) fn squeeze(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let rank = x.dims.len();
    let gone: Vec<usize> = match walk.integers(1, "axes")? {
        Some(axes) => axes.iter().map(|&axis| super::axis(walk, axis, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).filter(|&axis| x.dims[axis] == 1).collect(),
    };
    if gone.iter().collect::<BTreeSet<_>>().len() != gone.len() {
        return Err(walk.refuse("its axes repeat", "repair the model"));
    }
    if gone.iter().any(|&axis| x.dims[axis] != 1) {
        return Err(walk.refuse("it squeezes an axis that is larger than 1", "repair the model"));
    }
    let dims = (0..rank).filter(|axis| !gone.contains(axis)).map(|axis| x.dims[axis]).collect();
    relabel(walk, &x, dims, |axis| {
        (!gone.contains(&axis)).then(|| axis - gone.iter().filter(|&&other| other < axis).count())
    });
    Ok(())
}

/// `Unsqueeze`.
pub(super) fn unsqueeze(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let new = walk.integers(1, "axes")?.unwrap_or_default();
    let rank = x.dims.len() + new.len();
    let new: Vec<usize> = new.iter().map(|&axis| super::axis(walk, axis, rank)).collect::<Result<_, _>>()?;
    let old: Vec<usize> = (0..rank).filter(|axis| !new.contains(axis)).collect();
    if old.len() != x.dims.len() {
        return Err(walk.refuse("its axes repeat", "repair the model"));
    }
    let mut dims = vec![1; rank];
    for (&axis, &dim) in old.iter().zip(&x.dims) {
        dims[axis] = dim;
    }
    relabel(walk, &x, dims, |axis| Some(old[axis]));
    Ok(())
}

/// `Transpose`: no element moves until an operator needs it.
pub(super) fn transpose(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let rank = x.dims.len();
    let permutation: Vec<usize> = match walk.node().ints("perm") {
        Some(axes) => axes.iter().map(|&axis| super::axis(walk, axis, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let position = |axis: usize| permutation.iter().position(|&from| from == axis);
    if permutation.len() != rank || (0..rank).any(|axis| position(axis).is_none()) {
        return Err(walk.refuse(format!("its perm {permutation:?} is none of {rank} axes"), "repair the model"));
    }
    let dims = permutation.iter().map(|&axis| x.dims[axis]).collect();
    relabel(walk, &x, dims, position);
    Ok(())
}

/// `Concat`.
pub(super) fn concat(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let parts: Vec<Stored> = (0..walk.node().inputs.len()).map(|index| walk.any(index)).collect::<Result<_, _>>()?;
    let Some(first) = parts.first() else {
        return Err(walk.refuse("it has no inputs", "repair the model"));
    };
    let rank = first.dims.len();
    let axis = super::axis(walk, walk.node().int("axis", 0), rank)?;
    let fits = |part: &Stored| {
        part.dims.len() == rank && (0..rank).all(|other| other == axis || part.dims[other] == first.dims[other])
    };
    if !parts.iter().all(fits) {
        return Err(walk.refuse("its inputs differ in more than the axis", "repair the model"));
    }
    // The order of the first part that is not in ONNX's, if it shows every axis; the others follow.
    let axes = parts
        .iter()
        .filter(|part| !part.is_in_onnx_order())
        .find_map(|part| part.axes_with(0..rank))
        .map_or_else(|| Layout::identity(rank), <[_]>::to_vec);
    let inputs: Vec<usize> = parts.iter().map(|part| part.in_axes(&mut walk.draft, walk.at, &axes)).collect();
    let mut dims = first.dims.clone();
    dims[axis] = parts.iter().map(|part| part.dims[axis]).sum();
    let along = axes.iter().position(|at| *at == Some(axis)).expect("the layout shows every axis");
    let options = opt::Concatenation { axis: along as i32, ..opt::Concatenation::default() };
    let shape = stored_shape(&dims, &axes);
    let non_negative = inputs.iter().all(|&input| walk.draft.tensors[input].non_negative);
    let output = walk.emit(BuiltinOp::CONCATENATION, options, &inputs, &shape);
    walk.draft.tensors[output].non_negative = non_negative;
    walk.define(output, dims, axes);
    Ok(())
}

/// `Tile` with constant repeats.
pub(super) fn tile(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let repeats: Vec<usize> = walk
        .integers(1, "repeats")?
        .unwrap_or_default()
        .iter()
        .map(|&count| usize::try_from(count).unwrap_or(0))
        .collect();
    if repeats.len() != rank || repeats.contains(&0) {
        return Err(walk.refuse(format!("its repeats {repeats:?} do not fit its input"), "repair the model"));
    }
    walk.room(x.dims.iter().zip(&repeats).map(|(dim, count)| dim.saturating_mul(*count)))?;
    repeated(walk, &x, &repeats);
    Ok(())
}

/// Defines the node's output as copies of a tensor along every axis.
pub(super) fn repeated(walk: &mut Walk<'_>, x: &Stored, repeats: &[usize]) {
    let rank = x.dims.len();
    let needed = (0..rank).filter(|&axis| repeats[axis] != 1);
    let axes = x.axes_with(needed).map_or_else(|| Layout::identity(rank), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    // TensorFlow Lite Micro has no TILE; joining copies does the same everywhere.
    let mut output = input;
    for position in 0..axes.len() {
        let count = axes[position].map_or(1, |axis| repeats[axis]);
        if count > 1 {
            let mut shape = walk.draft.tensors[output].shape.clone();
            shape[position] *= count;
            let options = opt::Concatenation { axis: position as i32, ..opt::Concatenation::default() };
            output = walk.emit(BuiltinOp::CONCATENATION, options, &vec![output; count], &shape);
        }
    }
    let dims = x.dims.iter().zip(repeats).map(|(dim, count)| dim * count).collect();
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    walk.define(output, dims, axes);
}

/// `Pad`.
pub(super) fn pad(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let pads = walk.integers(1, "pads")?.unwrap_or_default();
    let padded: Vec<usize> = match walk.integers(3, "axes")? {
        Some(axes) => axes.iter().map(|&axis| super::axis(walk, axis, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * padded.len() {
        return Err(walk.refuse("its pads do not fit its input", "repair the model"));
    }
    let mut amounts = vec![(0, 0); rank];
    for (at, &axis) in padded.iter().enumerate() {
        let amount = |value: i64| {
            usize::try_from(value).map_err(|_| walk.refuse("it crops (negative pads)", "crop with a Slice instead"))
        };
        amounts[axis] = (amount(pads[at])?, amount(pads[at + padded.len()])?);
    }
    let sum = |(dim, (before, after)): (&usize, &(usize, usize))| dim.saturating_add(*before).saturating_add(*after);
    walk.room(x.dims.iter().zip(&amounts).map(sum))?;
    if amounts.iter().all(|&amount| amount == (0, 0)) {
        walk.define_as(0, x);
        return Ok(());
    }
    if let Some(mode @ ("edge" | "wrap")) = walk.node().string("mode") {
        // No operator repeats the border or the other end, but both are elements that can be picked.
        let mut x = x;
        for (axis, &(before, after)) in amounts.iter().enumerate().filter(|(_, amount)| **amount != (0, 0)) {
            let (size, before) = (x.dims[axis] as i64, before as i64);
            if size == 0 {
                return Err(walk.refuse("it repeats the border of nothing", "repair the model"));
            }
            let source = |at: i64| if mode == "edge" { at.clamp(0, size - 1) } else { at.rem_euclid(size) };
            let indices: Vec<usize> = (-before..size + after as i64).map(|at| source(at) as usize).collect();
            x = super::select::picked(walk, &x, axis, &indices);
        }
        walk.define_as(0, x);
        return Ok(());
    }
    let needed = (0..rank).filter(|&axis| amounts[axis] != (0, 0));
    let axes = x.axes_with(needed).map_or_else(|| Layout::identity(rank), <[_]>::to_vec);
    if axes.len() > 4 {
        return Err(walk.refuse(format!("it pads {} dimensions", axes.len()), "at most 4 are lowered"));
    }
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let paddings = axes
        .iter()
        .flat_map(|axis| axis.map_or([0, 0], |axis| [amounts[axis].0 as i32, amounts[axis].1 as i32]))
        .collect();
    let paddings = walk.draft.constant(&[axes.len(), 2], Value::I32(paddings));
    let dims: Vec<usize> = x.dims.iter().zip(&amounts).map(|(dim, (before, after))| dim + before + after).collect();
    let shape = stored_shape(&dims, &axes);
    let value = match walk.node().input(2) {
        Some(_) => walk.floats(2, "constant_value")?.1.first().copied().unwrap_or(0.0),
        None => walk.node().float("value", 0.0),
    };
    let non_negative = walk.draft.tensors[input].non_negative && value >= 0.0;
    let output = match walk.node().string("mode").unwrap_or("constant") {
        "constant" if value == 0.0 => {
            walk.emit(BuiltinOp::PAD, Options::Empty(PAD_OPTIONS), &[input, paddings], &shape)
        }
        "constant" => {
            let value = walk.draft.constant(&[1], Value::F32(vec![value]));
            walk.emit(BuiltinOp::PADV2, Options::Empty(PADV2_OPTIONS), &[input, paddings, value], &shape)
        }
        "reflect" => {
            let options = opt::MirrorPad { mode: MirrorMode::Reflect };
            walk.emit(BuiltinOp::MIRROR_PAD, options, &[input, paddings], &shape)
        }
        mode => {
            return Err(
                walk.refuse(format!("its mode is {mode}"), "modes constant, reflect, edge and wrap are lowered")
            );
        }
    };
    walk.draft.tensors[output].non_negative = non_negative;
    walk.define(output, dims, axes);
    Ok(())
}
