//! Operators that pick or place elements by index. With constant indices they are one GATHER over the flat tensor: every
//! runtime has that, for integers too, and no index is computed while the model runs.

use edgeyard_tflite::{BuiltinOp, Options, op_options as opt};

use super::super::LowerError;
use super::super::draft::{TensorId, Value};
use super::super::layout::{Layout, Stored};
use super::super::walk::Walk;

/// More rows than this are not listed in the file, 4 bytes each.
const MOST_ROWS: usize = 1 << 22;

/// `GatherElements` with constant indices.
pub(super) fn gather_elements(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let (dims, indices) = indices(walk, 1)?;
    let places = along_axis(walk, &x.dims, &dims, &indices)?;
    pick(walk, &x, 1, &places, dims)
}

/// `GatherND` with constant indices and no batch dimensions.
pub(super) fn gather_nd(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    if walk.node().int("batch_dims", 0) != 0 {
        return Err(walk.refuse("it has batch dimensions", "only batch_dims 0 is lowered"));
    }
    let (dims, indices) = indices(walk, 1)?;
    let (rows, inner) = coordinates(walk, &x.dims, &dims, &indices)?;
    let depth = dims[dims.len() - 1];
    let shape = [&dims[..dims.len() - 1], &x.dims[depth..]].concat();
    pick(walk, &x, inner, &rows, shape)
}

/// `ScatterND` with constant indices.
pub(super) fn scatter_nd(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let (dims, indices) = indices(walk, 1)?;
    let (rows, inner) = coordinates(walk, &x.dims, &dims, &indices)?;
    place(walk, &x, inner, &rows)
}

/// `ScatterElements` with constant indices.
pub(super) fn scatter_elements(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let (dims, indices) = indices(walk, 1)?;
    let places = along_axis(walk, &x.dims, &dims, &indices)?;
    place(walk, &x, 1, &places)
}

/// The shape and values of a constant of indices.
fn indices(walk: &Walk<'_>, index: usize) -> Result<(Vec<usize>, Vec<i64>), LowerError> {
    let dims = walk.shape(walk.input(index)?)?;
    let values = walk.integers(index, "indices")?.unwrap_or_default();
    if values.is_empty() || dims.is_empty() {
        return Err(walk.refuse("it has no indices", "repair the model"));
    }
    Ok((dims, values))
}

fn counted(walk: &Walk<'_>, index: i64, size: usize) -> Result<usize, LowerError> {
    let counted = if index < 0 { index.saturating_add(size as i64) } else { index };
    usize::try_from(counted)
        .ok()
        .filter(|&index| index < size)
        .ok_or_else(|| walk.refuse(format!("index {index} is outside an axis of {size}"), "repair the model"))
}

/// Flat positions in `shape` of indices that replace one coordinate of their own place.
fn along_axis(walk: &Walk<'_>, shape: &[usize], dims: &[usize], indices: &[i64]) -> Result<Vec<usize>, LowerError> {
    let rank = shape.len();
    let axis = super::axis(walk, walk.node().int("axis", 0), rank)?;
    if dims.len() != rank || (0..rank).any(|at| at != axis && dims[at] > shape[at]) {
        let why = format!("indices of shape {dims:?} do not fit its input of shape {shape:?}");
        return Err(walk.refuse(why, "repair the model"));
    }
    let mut places = Vec::with_capacity(indices.len());
    for (flat, &index) in indices.iter().enumerate() {
        let (mut rest, mut place, mut stride) = (flat, 0, 1);
        for at in (0..rank).rev() {
            let own = rest % dims[at];
            rest /= dims[at];
            place += stride * if at == axis { counted(walk, index, shape[axis])? } else { own };
            stride *= shape[at];
        }
        places.push(place);
    }
    Ok(places)
}

/// Rows that lists of coordinates name, and the elements of a row.
fn coordinates(
    walk: &Walk<'_>,
    shape: &[usize],
    dims: &[usize],
    indices: &[i64],
) -> Result<(Vec<usize>, usize), LowerError> {
    let depth = dims[dims.len() - 1];
    if depth == 0 || depth > shape.len() {
        let why = format!("{depth} coordinates do not fit its input of shape {shape:?}");
        return Err(walk.refuse(why, "repair the model"));
    }
    let row = |list: &[i64]| {
        list.iter()
            .zip(shape)
            .try_fold(0, |row, (&index, &size)| Ok::<_, LowerError>(row * size + counted(walk, index, size)?))
    };
    let rows = indices.chunks(depth).map(row).collect::<Result<_, _>>()?;
    Ok((rows, shape[depth..].iter().product()))
}

/// Defines the node's output as rows of a tensor, each of `inner` elements.
fn pick(walk: &mut Walk<'_>, x: &Stored, inner: usize, rows: &[usize], dims: Vec<usize>) -> Result<(), LowerError> {
    if dims.contains(&0) {
        return Err(walk.refuse("its result is empty", "repair the model"));
    }
    let source = flat(walk, x, inner);
    let picked = gathered(walk, source, inner, rows);
    walk.draft.tensors[picked].non_negative = walk.draft.tensors[x.tensor].non_negative;
    let tensor = walk.draft.reshaped(walk.at, picked, &dims);
    let axes = Layout::identity(dims.len());
    walk.define(tensor, dims, axes);
    Ok(())
}

/// Defines the node's output as a tensor some rows of which are updates: behind one another, what is left of the tensor
/// and the updates are picked from.
fn place(walk: &mut Walk<'_>, x: &Stored, inner: usize, rows: &[usize]) -> Result<(), LowerError> {
    if walk.node().string("reduction").is_some_and(|reduction| reduction != "none") {
        return Err(walk.refuse("it reduces what meets in one place", "only reduction none is lowered"));
    }
    let updates = walk.any(2)?;
    if updates.dims.iter().product::<usize>() != rows.len() * inner || inner == 0 {
        let why = format!("updates of shape {:?} do not fit its indices", updates.dims);
        return Err(walk.refuse(why, "repair the model"));
    }
    let types = [x.tensor, updates.tensor].map(|tensor| walk.draft.tensors[tensor].dtype);
    if types[0] != types[1] {
        return Err(walk.refuse(format!("it places {} in {}", types[1], types[0]), "repair the model"));
    }
    let all = x.dims.iter().product::<usize>() / inner;
    if all > MOST_ROWS {
        let why = format!("a list of {all} places would be stored for it");
        return Err(walk.refuse(why, "replace it by Slice and Concat before exporting"));
    }
    let mut order: Vec<usize> = (0..all).collect();
    for (at, &row) in rows.iter().enumerate() {
        if std::mem::replace(&mut order[row], all + at) >= all {
            return Err(walk.refuse("two updates meet in one place", "ONNX does not say which of them stays"));
        }
    }
    let parts = [flat(walk, x, inner), flat(walk, &updates, inner)];
    let options = opt::Concatenation { axis: 0, ..opt::Concatenation::default() };
    let both = walk.emit(BuiltinOp::CONCATENATION, options, &parts, &[all + rows.len(), inner]);
    let placed = gathered(walk, both, inner, &order);
    let tensor = walk.draft.reshaped(walk.at, placed, &x.dims);
    walk.define(tensor, x.dims.clone(), Layout::identity(x.dims.len()));
    Ok(())
}

fn flat(walk: &mut Walk<'_>, x: &Stored, inner: usize) -> TensorId {
    let plain = x.plain(&mut walk.draft, walk.at);
    let rows = x.dims.iter().product::<usize>() / inner.max(1);
    walk.draft.reshaped(walk.at, plain, &[rows, inner])
}

fn gathered(walk: &mut Walk<'_>, source: TensorId, inner: usize, rows: &[usize]) -> TensorId {
    let indices = walk.draft.ints(rows);
    let options = opt::Gather { axis: 0, batch_dims: 0 };
    walk.emit(BuiltinOp::GATHER, options, &[source, indices], &[rows.len(), inner])
}

/// `OneHot`: the place of an element counts up to its value, from the end for a negative one.
pub(super) fn one_hot(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let depth = match walk.integers(1, "depth")?.unwrap_or_default()[..] {
        [depth] if (1..=1 << 20).contains(&depth) => depth,
        _ => return Err(walk.refuse("its depth is not a number of classes", "repair the model")),
    };
    let values = walk.any(2)?;
    let Some(values) = walk.draft.tensors[values.tensor].value.clone() else {
        return Err(walk.refuse("its values are computed at run time", "make them a constant"));
    };
    let [off, on] = match values {
        Value::F32(values) if values.len() == 2 => [0, 1].map(|at| Value::F32(vec![values[at]])),
        Value::I64(values) if values.len() == 2 => [0, 1].map(|at| Value::I64(vec![values[at]])),
        Value::I32(values) if values.len() == 2 => [0, 1].map(|at| Value::I32(vec![values[at]])),
        Value::Bool(values) if values.len() == 2 => [0, 1].map(|at| Value::Bool(vec![values[at]])),
        _ => return Err(walk.refuse("its values are not two numbers", "repair the model")),
    };
    let axis = super::axis(walk, walk.node().int("axis", -1), x.dims.len() + 1)?;
    let (outer, inner) = (x.dims[..axis].iter().product::<usize>(), x.dims[axis..].iter().product::<usize>());
    let plain = x.plain(&mut walk.draft, walk.at);
    let index = walk.draft.reshaped(walk.at, plain, &[outer, 1, inner]);
    let from_start: Vec<i64> = (0..depth).collect();
    let from_end: Vec<i64> = (-depth..0).collect();
    let shape = [outer, depth as usize, inner];
    let mut hits = Vec::new();
    for classes in [from_start, from_end] {
        let classes = match walk.draft.tensors[index].dtype {
            edgeyard_tflite::TensorType::Int64 => Value::I64(classes),
            edgeyard_tflite::TensorType::Int32 => Value::I32(classes.iter().map(|&class| class as i32).collect()),
            edgeyard_tflite::TensorType::Float32 => Value::F32(classes.iter().map(|&class| class as f32).collect()),
            other => return Err(walk.refuse(format!("its indices are of type {other}"), "integers are lowered")),
        };
        let classes = walk.draft.constant(&[depth as usize, 1], classes);
        let hit = walk.emit_inner(BuiltinOp::EQUAL, Options::Empty(53), &[index, classes], &shape);
        walk.draft.tensors[hit].dtype = edgeyard_tflite::TensorType::Bool;
        hits.push(hit);
    }
    let hit = walk.emit_inner(BuiltinOp::LOGICAL_OR, Options::Empty(60), &hits, &shape);
    walk.draft.tensors[hit].dtype = edgeyard_tflite::TensorType::Bool;
    let dtype = on.dtype();
    let [on, off] = [on, off].map(|value| walk.draft.constant(&[1], value));
    let made = walk.emit(BuiltinOp::SELECT_V2, Options::Empty(98), &[hit, on, off], &shape);
    walk.draft.tensors[made].dtype = dtype;
    let mut dims = x.dims.clone();
    dims.insert(axis, depth as usize);
    let tensor = walk.draft.reshaped(walk.at, made, &dims);
    let axes = Layout::identity(dims.len());
    walk.define(tensor, dims, axes);
    Ok(())
}

/// `Trilu` with a constant diagonal.
pub(super) fn trilu(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let [outer @ .., rows, columns] = &x.dims[..] else {
        return Err(walk.refuse(format!("its input of shape {:?} is no matrix", x.dims), "repair the model"));
    };
    let diagonal = walk.integers(1, "k")?.and_then(|values| values.first().copied()).unwrap_or(0);
    let upper = walk.node().int("upper", 1) != 0;
    let distance = |row: usize, column: usize| (column as i64 - row as i64).saturating_sub(diagonal);
    let stays = (0..*rows)
        .flat_map(|row| (0..*columns).map(move |column| distance(row, column)))
        .map(|distance| if upper { distance >= 0 } else { distance <= 0 })
        .collect();
    let shape = [outer.iter().product(), *rows, *columns];
    let plain = x.plain(&mut walk.draft, walk.at);
    let input = walk.draft.reshaped(walk.at, plain, &shape);
    let mask = walk.draft.constant(&[1, *rows, *columns], Value::Bool(stays));
    let zero = walk.draft.constant(&[1], Value::F32(vec![0.0]));
    let made = walk.emit(BuiltinOp::SELECT_V2, Options::Empty(98), &[mask, input, zero], &shape);
    let tensor = walk.draft.reshaped(walk.at, made, &x.dims);
    walk.define(tensor, x.dims.clone(), Layout::identity(x.dims.len()));
    Ok(())
}
