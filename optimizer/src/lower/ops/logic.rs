//! Operators that change or choose by element type: conversions, comparisons, and the choice between two tensors.

use edgeyard_tflite::{BuiltinOp, Options, TensorType, op_options as opt};

use super::super::LowerError;
use super::super::draft::Value;
use super::super::layout::{Layout, Stored};
use super::super::walk::Walk;
use super::elementwise;
use crate::ir::DataType;

/// `Cast` between floats, integers and truth values. All floats are 32-bit here.
pub(super) fn cast(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let x = Stored { tensor: walk.narrow(x.tensor), ..x };
    let from = walk.draft.tensors[x.tensor].dtype;
    let wanted = DataType::from_onnx(walk.node().int("to", 0));
    let to = match wanted {
        DataType::F32 | DataType::F16 | DataType::F64 => TensorType::Float32,
        DataType::I64 => TensorType::Int64,
        DataType::I32 => TensorType::Int32,
        DataType::Bool => TensorType::Bool,
        other => {
            return Err(walk.refuse(format!("it makes {other}"), "float32, int32, int64 and bool are lowered"));
        }
    };
    if from == to {
        walk.define_as(0, x);
        return Ok(());
    }
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let output = walk.emit(BuiltinOp::CAST, opt::Cast { in_data_type: from, out_data_type: to }, &[x.tensor], &shape);
    walk.draft.tensors[output].dtype = to;
    // Integers stand for themselves, not for what a scale makes of them.
    walk.define_as(0, Stored { tensor: output, ..x });
    Ok(())
}

/// `Greater`, `Less`, `Equal` and their kin.
pub(super) fn compare(walk: &mut Walk<'_>, op: BuiltinOp) -> Result<(), LowerError> {
    let (a, b) = (walk.any(0)?, walk.any(1)?);
    let options = match op {
        BuiltinOp::LESS => 41,
        BuiltinOp::GREATER => 44,
        BuiltinOp::GREATER_EQUAL => 45,
        BuiltinOp::LESS_EQUAL => 46,
        BuiltinOp::EQUAL => 53,
        BuiltinOp::LOGICAL_OR => 60,
        _ => 62,
    };
    let options = Options::Empty(options);
    elementwise::binary_of(walk, op, options, &a, &b)?;
    let made = walk.value(walk.node().output())?;
    walk.draft.tensors[made.tensor].dtype = TensorType::Bool;
    Ok(())
}

/// `Not`.
pub(super) fn not(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let output = walk.emit(BuiltinOp::LOGICAL_NOT, Options::Empty(63), &[x.tensor], &shape);
    walk.draft.tensors[output].dtype = TensorType::Bool;
    walk.define_as(0, Stored { tensor: output, ..x });
    Ok(())
}

/// `Where`: SELECT_V2 on three tensors of one order.
pub(super) fn choose(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let parts = [walk.any(0)?, walk.any(1)?, walk.any(2)?];
    let dims = walk.shape(walk.node().output())?;
    let rank = dims.len();
    if rank > 4 {
        return Err(walk.refuse(format!("it chooses in {rank} dimensions"), "at most 4 are lowered"));
    }
    let dtype = walk.draft.tensors[parts[1].tensor].dtype;
    if walk.draft.tensors[parts[2].tensor].dtype != dtype {
        return Err(walk.refuse("it chooses between tensors of two types", "repair the model"));
    }
    let mut inputs = Vec::new();
    for part in parts {
        let plain = part.plain(&mut walk.draft, walk.at);
        let mut shape = vec![1; rank - part.dims.len()];
        shape.extend(&part.dims);
        inputs.push(walk.draft.reshaped(walk.at, plain, &shape));
    }
    let output = walk.emit(BuiltinOp::SELECT_V2, Options::Empty(98), &inputs, &dims);
    walk.draft.tensors[output].dtype = dtype;
    walk.define(output, dims, Layout::identity(rank));
    Ok(())
}

/// `Expand`: a product with ones, or copies side by side where there are few.
pub(super) fn expand(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let dims = walk.shape(walk.node().output())?;
    if dims.len() < x.dims.len() {
        return Err(walk.refuse(format!("{:?} does not expand to {dims:?}", x.dims), "repair the model"));
    }
    let mut wide = vec![1; dims.len() - x.dims.len()];
    wide.extend(&x.dims);
    let repeats: Vec<usize> = wide.iter().zip(&dims).map(|(have, want)| if have == want { 1 } else { *want }).collect();
    let float = walk.draft.tensors[x.tensor].dtype == TensorType::Float32;
    if float && dims.len() <= 4 && repeats.iter().product::<usize>() > 4 {
        let ones = walk.draft.constant(&repeats, Value::F32(vec![1.0; repeats.iter().product()]));
        let ones = Stored { tensor: ones, dims: repeats, layout: Layout::Axes(Layout::identity(dims.len())) };
        return elementwise::binary_of(walk, BuiltinOp::MUL, opt::Mul::default(), &x, &ones);
    }
    let plain = x.plain(&mut walk.draft, walk.at);
    let tensor = walk.draft.reshaped(walk.at, plain, &wide);
    let x = Stored { tensor, dims: wide, layout: Layout::Axes(Layout::identity(dims.len())) };
    super::shape::repeated(walk, &x, &repeats);
    Ok(())
}

/// `OneHot` of integers: whether they equal each class, as numbers. A class may also be counted from the end.
pub(super) fn one_hot(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    let kind = walk.draft.tensors[x.tensor].dtype;
    if !matches!(kind, TensorType::Int32 | TensorType::Int64) {
        return Err(walk.refuse(format!("its indices are {kind}"), "only integers of 32 or 64 bits are lowered"));
    }
    let dims = walk.shape(walk.node().output())?;
    let rank = dims.len();
    let axis = super::axis(walk, walk.node().int("axis", -1), rank)?;
    let (_, values) = walk.floats(2, "values")?;
    let [off, on] = values[..] else { return Err(walk.refuse("its values are not two", "repair the model")) };
    let plain = x.plain(&mut walk.draft, walk.at);
    let narrow = walk.narrow(plain);
    let mut wide = x.dims.clone();
    wide.insert(axis, 1);
    let indices = walk.draft.reshaped(walk.at, narrow, &wide);
    let classes = dims[axis] as i32;
    let mut row = vec![1; rank - axis];
    row[0] = dims[axis];
    let long = walk.draft.tensors[indices].dtype == TensorType::Int64;
    let equals = |walk: &mut Walk<'_>, first: i32| {
        let numbers = first..first + classes;
        let value = if long { Value::I64(numbers.map(i64::from).collect()) } else { Value::I32(numbers.collect()) };
        let row = walk.draft.constant(&row, value);
        let made = walk.emit_inner(BuiltinOp::EQUAL, Options::Empty(53), &[indices, row], &dims);
        walk.draft.tensors[made].dtype = TensorType::Bool;
        made
    };
    let (counted, backwards) = (equals(walk, 0), equals(walk, -classes));
    let either = walk.emit_inner(BuiltinOp::LOGICAL_OR, Options::Empty(60), &[counted, backwards], &dims);
    walk.draft.tensors[either].dtype = TensorType::Bool;
    let options = opt::Cast { in_data_type: TensorType::Bool, out_data_type: TensorType::Float32 };
    let mut made = walk.emit(BuiltinOp::CAST, options, &[either], &dims);
    walk.draft.tensors[made].dtype = TensorType::Float32;
    if (off, on) != (0.0, 1.0) {
        // What lies between was not calibrated, and the CAST is computed in floats anyway.
        walk.draft.tensors[made].origin = None;
        walk.draft.tensors[made].keeps_float = true;
        let factor = walk.draft.constant(&[1], Value::F32(vec![on - off]));
        made = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[made, factor], &dims);
        walk.draft.tensors[made].keeps_float = true;
        let start = walk.draft.constant(&[1], Value::F32(vec![off]));
        made = walk.emit(BuiltinOp::ADD, elementwise::add_options(), &[made, start], &dims);
    }
    walk.define(made, dims, Layout::identity(rank));
    Ok(())
}
