//! Operators that take a part of a tensor.

use edgeyard_tflite::{BuiltinOp, Options, TensorType, op_options as opt};

use super::super::LowerError;
use super::super::draft::{SLICE_OPTIONS, TensorId, Value};
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;

/// Elements `start`, `start + step`, … of one axis.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    count: usize,
    step: usize,
}

/// `Slice` with constant bounds; backward steps pick elements one by one.
pub(super) fn slice(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let rank = x.dims.len();
    let missing = |what: &str| walk.refuse(format!("it has no {what}"), "repair the model");
    let starts = walk.integers(1, "starts")?.ok_or_else(|| missing("starts"))?;
    let ends = walk.integers(2, "ends")?.ok_or_else(|| missing("ends"))?;
    let axes = walk.integers(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = walk.integers(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|&len| len != starts.len()) {
        return Err(walk.refuse("its starts, ends, axes and steps differ in length", "repair the model"));
    }
    let mut parts: Vec<Part> = x.dims.iter().map(|&count| Part { start: 0, count, step: 1 }).collect();
    let mut backwards: Vec<(usize, Vec<usize>)> = Vec::new();
    for at in 0..starts.len() {
        let axis = super::axis(walk, axes[at], rank)?;
        let size = x.dims[axis] as i64;
        if steps[at] < 0 {
            if backwards.iter().any(|(other, _)| *other == axis) {
                return Err(walk.refuse("its axes repeat", "repair the model"));
            }
            let bound = |value: i64| if value < 0 { value.saturating_add(size).max(-1) } else { value.min(size - 1) };
            let (start, end) = (bound(starts[at]), bound(ends[at]));
            let far = (start - end).max(0) as u64;
            let count = far.div_ceil(steps[at].unsigned_abs());
            let indices =
                (0..count).map(|index| (start - (index * steps[at].unsigned_abs()) as i64) as usize).collect();
            backwards.push((axis, indices));
            continue;
        }
        let bound = |value: i64| if value < 0 { value.saturating_add(size).max(0) } else { value.min(size) };
        let (start, end) = (bound(starts[at]), bound(ends[at]));
        let step = usize::try_from(steps[at])
            .ok()
            .filter(|&step| step > 0)
            .ok_or_else(|| walk.refuse("its step is 0", "repair the model"))?;
        let count = usize::try_from(end - start).unwrap_or(0).div_ceil(step);
        parts[axis] = Part { start: start as usize, count, step };
    }
    let mut output = part_of(walk, &x, &parts, 0)?;
    for (axis, indices) in backwards {
        if indices.is_empty() {
            return Err(walk.refuse("its result is empty", "repair the model"));
        }
        output = picked(walk, &output, axis, &indices);
    }
    walk.define_as(0, output);
    Ok(())
}

/// Takes a part of every axis; `index` is the node's output it becomes.
fn part_of(walk: &mut Walk<'_>, x: &Stored, parts: &[Part], index: usize) -> Result<Stored, LowerError> {
    let whole = |axis: usize| parts[axis].start == 0 && parts[axis].count == x.dims[axis];
    if (0..parts.len()).all(whole) {
        return Ok(x.clone());
    }
    let needed = (0..parts.len()).filter(|&axis| !whole(axis));
    let axes = x.axes_with(needed).map_or_else(|| Layout::identity(parts.len()), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let dims: Vec<usize> = parts.iter().map(|part| part.count).collect();
    if dims.contains(&0) {
        return Err(walk.refuse("its result is empty", "repair the model"));
    }
    let shape = stored_shape(&dims, &axes);
    let per_axis = |value: fn(Part) -> usize, other: usize| -> Vec<usize> {
        axes.iter().map(|axis| axis.map_or(other, |axis| value(parts[axis]))).collect()
    };
    let begins = walk.draft.ints(&per_axis(|part| part.start, 0));
    let origin = walk.node().outputs.get(index).map(String::as_str);
    let (at, draft) = (walk.at, &mut walk.draft);
    let output = if parts.iter().all(|part| part.step == 1) {
        let sizes = draft.ints(&shape);
        let options = Options::Empty(SLICE_OPTIONS);
        draft.emit(at, BuiltinOp::SLICE, options, &[input, begins, sizes], &shape, origin)
    } else {
        let ends = per_axis(|part| part.start + (part.count - 1) * part.step + 1, 1);
        let (ends, steps) = (draft.ints(&ends), draft.ints(&per_axis(|part| part.step, 1)));
        let inputs = [input, begins, ends, steps];
        draft.emit(at, BuiltinOp::STRIDED_SLICE, opt::StridedSlice::default(), &inputs, &shape, origin)
    };
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    Ok(Stored { tensor: output, dims, layout: Layout::Axes(axes) })
}

/// `Split`: a slice per output.
pub(super) fn split(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let axis = super::axis(walk, walk.node().int("axis", 0), x.dims.len())?;
    let outputs = walk.node().outputs.len();
    let sizes: Vec<usize> = match walk.integers(1, "split")? {
        Some(sizes) => sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect(),
        None => {
            let each = x.dims[axis].div_ceil(outputs.max(1));
            (0..outputs).map(|at| each.min(x.dims[axis].saturating_sub(at * each))).collect()
        }
    };
    if sizes.len() != outputs || sizes.iter().sum::<usize>() != x.dims[axis] || sizes.contains(&0) {
        return Err(walk.refuse(format!("its parts {sizes:?} do not make up the axis"), "repair the model"));
    }
    let mut start = 0;
    for (index, &count) in sizes.iter().enumerate() {
        let mut parts: Vec<Part> = x.dims.iter().map(|&count| Part { start: 0, count, step: 1 }).collect();
        parts[axis] = Part { start, count, step: 1 };
        start += count;
        let output = part_of(walk, &x, &parts, index)?;
        walk.define_as(index, output);
    }
    Ok(())
}

/// `Gather`: a slice where the indices are constant and stand side by side, a table looked up where they are computed.
pub(super) fn gather(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let rank = x.dims.len();
    let axis = super::axis(walk, walk.node().int("axis", 0), rank)?;
    if !walk.graph.initializers.contains_key(walk.input(1)?) {
        return gather_computed(walk, &x, axis);
    }
    let index_dims = walk.shape(walk.input(1)?)?;
    let indices = walk.integers(1, "indices")?.unwrap_or_default();
    let size = x.dims[axis] as i64;
    let indices: Vec<usize> = indices
        .iter()
        .map(|&index| usize::try_from(if index < 0 { index + size } else { index }).ok())
        .collect::<Option<Vec<_>>>()
        .filter(|indices| indices.iter().all(|&index| index < x.dims[axis]))
        .ok_or_else(|| walk.refuse("an index is outside the axis", "repair the model"))?;
    if indices.is_empty() {
        return Err(walk.refuse("it has no indices", "repair the model"));
    }
    if index_dims.len() > 1 {
        // The list that the indices are, and its axis opened again.
        let list = picked(walk, &x, axis, &indices);
        let plain = list.plain(&mut walk.draft, walk.at);
        let dims = [&x.dims[..axis], &index_dims, &x.dims[axis + 1..]].concat();
        let tensor = walk.draft.reshaped(walk.at, plain, &dims);
        let axes = Layout::identity(dims.len());
        walk.define(tensor, dims, axes);
        return Ok(());
    }
    let picked = if indices.windows(2).all(|pair| pair[1] == pair[0] + 1) {
        let mut parts: Vec<Part> = x.dims.iter().map(|&count| Part { start: 0, count, step: 1 }).collect();
        parts[axis] = Part { start: indices[0], count: indices.len(), step: 1 };
        part_of(walk, &x, &parts, 0)?
    } else {
        picked(walk, &x, axis, &indices)
    };
    if !index_dims.is_empty() {
        walk.define_as(0, picked);
        return Ok(());
    }
    // A scalar index takes the axis away: it is of size 1 by now.
    let dims = (0..rank).filter(|&other| other != axis).map(|other| picked.dims[other]).collect();
    let (tensor, axes) = match picked.axes() {
        Some(axes) => (picked.tensor, axes.to_vec()),
        None => (picked.plain(&mut walk.draft, walk.at), Layout::identity(rank)),
    };
    let renamed = |other: usize| (other != axis).then(|| if other > axis { other - 1 } else { other });
    walk.define(tensor, dims, axes.into_iter().map(|axis| axis.and_then(renamed)).collect());
    Ok(())
}

/// `Gather` by what other nodes count or find. TFLite's kernels do not count from the end: a negative index is made a
/// positive one, unless it cannot be negative or is fed: words of an embedding are counted from the start, the kernels
/// refuse others by themselves, and TensorFlow Lite Micro has no choice between integers.
fn gather_computed(walk: &mut Walk<'_>, x: &Stored, axis: usize) -> Result<(), LowerError> {
    let index = walk.any(1)?;
    let plain = index.plain(&mut walk.draft, walk.at);
    let mut positions = walk.narrow(plain);
    let number: fn(i64) -> Value = match walk.draft.tensors[positions].dtype {
        TensorType::Int64 => |value| Value::I64(vec![value]),
        TensorType::Int32 => |value| Value::I32(vec![value as i32]),
        other => return Err(walk.refuse(format!("its indices are of type {other}"), "int32 and int64 are lowered")),
    };
    let fed = walk.draft.producer(positions).is_none();
    if !fed && !walk.draft.tensors[positions].non_negative {
        let [zero, size] = [0, x.dims[axis] as i64].map(|value| walk.draft.constant(&[1], number(value)));
        let below = walk.emit_inner(BuiltinOp::LESS, Options::Empty(41), &[positions, zero], &index.dims);
        walk.draft.tensors[below].dtype = TensorType::Bool;
        let counted =
            walk.emit_inner(BuiltinOp::ADD, super::elementwise::add_options(), &[positions, size], &index.dims);
        positions =
            walk.emit_inner(BuiltinOp::SELECT_V2, Options::Empty(98), &[below, counted, positions], &index.dims);
        walk.draft.tensors[positions].dtype = walk.draft.tensors[counted].dtype;
    }
    let input = x.plain(&mut walk.draft, walk.at);
    let dims = [&x.dims[..axis], &index.dims, &x.dims[axis + 1..]].concat();
    let options = opt::Gather { axis: axis as i32, batch_dims: 0 };
    let output = walk.emit(BuiltinOp::GATHER, options, &[input, positions], &dims);
    walk.draft.tensors[output].dtype = walk.draft.tensors[input].dtype;
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    let axes = Layout::identity(dims.len());
    walk.define(output, dims, axes);
    Ok(())
}

/// GATHER along one axis, in the order the tensor lies in.
pub(super) fn picked(walk: &mut Walk<'_>, x: &Stored, axis: usize, indices: &[usize]) -> Stored {
    let axes = x.axes_with([axis]).map_or_else(|| Layout::identity(x.dims.len()), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let mut dims = x.dims.clone();
    dims[axis] = indices.len();
    let along = axes.iter().position(|at| *at == Some(axis)).expect("the layout shows the axis");
    let tensor: TensorId =
        walk.draft.constant(&[indices.len()], Value::I32(indices.iter().map(|&index| index as i32).collect()));
    let options = opt::Gather { axis: along as i32, batch_dims: 0 };
    let shape = stored_shape(&dims, &axes);
    let output = walk.emit(BuiltinOp::GATHER, options, &[input, tensor], &shape);
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    Stored { tensor: output, dims, layout: Layout::Axes(axes) }
}
