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
    convert(walk, x, to);
    Ok(())
}

/// `CastLike`: the type is another tensor's.
pub(super) fn cast_like(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let (x, like) = (walk.any(0)?, walk.any(1)?);
    let to = walk.draft.tensors[like.tensor].dtype;
    convert(walk, x, to);
    Ok(())
}

fn convert(walk: &mut Walk<'_>, x: Stored, to: TensorType) {
    let from = walk.draft.tensors[x.tensor].dtype;
    if from == to {
        return walk.define_as(0, x);
    }
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let output = walk.emit(BuiltinOp::CAST, opt::Cast { in_data_type: from, out_data_type: to }, &[x.tensor], &shape);
    walk.draft.tensors[output].dtype = to;
    // Integers stand for themselves, not for what a scale makes of them.
    walk.define_as(0, Stored { tensor: output, ..x });
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
    elementwise::binary_of(walk, op, options, &a, &b)
}

/// True if the operator's result is one truth value an element.
pub(super) fn gives_truth(op: BuiltinOp) -> bool {
    matches!(
        op,
        BuiltinOp::GREATER
            | BuiltinOp::GREATER_EQUAL
            | BuiltinOp::LESS
            | BuiltinOp::LESS_EQUAL
            | BuiltinOp::EQUAL
            | BuiltinOp::LOGICAL_AND
            | BuiltinOp::LOGICAL_OR
    )
}

/// `Xor`: the operands are not equal.
pub(super) fn xor(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    compare(walk, BuiltinOp::EQUAL)?;
    let same = walk.value(walk.node().output())?;
    negated(walk, &same);
    Ok(())
}

/// `IsNaN`: what does not equal itself.
pub(super) fn is_nan(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let same = truth(walk, BuiltinOp::EQUAL, 53, &x, x.tensor);
    negated(walk, &same);
    Ok(())
}

/// `IsInf`, of both signs or one.
pub(super) fn is_inf(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let mut x = walk.operand(0)?;
    let (below, above) = (walk.node().int("detect_negative", 1) != 0, walk.node().int("detect_positive", 1) != 0);
    let limit = match (below, above) {
        (true, true) => {
            let shape = walk.draft.tensors[x.tensor].shape.clone();
            let tensor = walk.emit_inner(BuiltinOp::ABS, Options::Empty(78), &[x.tensor], &shape);
            walk.draft.tensors[tensor].keeps_float = true;
            x = Stored { tensor, ..x };
            f32::INFINITY
        }
        (false, true) => f32::INFINITY,
        (true, false) => f32::NEG_INFINITY,
        (false, false) => return Err(walk.refuse("it detects neither sign", "leave it out of the model")),
    };
    let limit = walk.draft.constant(&[1], Value::F32(vec![limit]));
    let found = truth(walk, BuiltinOp::EQUAL, 53, &x, limit);
    walk.define_as(0, found);
    Ok(())
}

/// `ThresholdedRelu`: x where it is above alpha, else 0.
pub(super) fn thresholded(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let alpha = walk.draft.constant(&[1], Value::F32(vec![walk.node().float("alpha", 1.0)]));
    let passes = truth(walk, BuiltinOp::GREATER, 44, &x, alpha);
    let output = chosen(walk, passes.tensor, &x, x.tensor);
    walk.draft.tensors[output].non_negative = walk.node().float("alpha", 1.0) >= 0.0;
    walk.define_as(0, Stored { tensor: output, ..x });
    Ok(())
}

/// `Shrink`: x moved towards 0 by a bias where its size is above lambd, else 0.
pub(super) fn shrink(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let (lambd, bias) = (walk.node().float("lambd", 0.5), walk.node().float("bias", 0.0));
    let [lambd, bias] = [lambd, bias].map(|value| walk.draft.constant(&[1], Value::F32(vec![value])));
    let size = walk.emit_inner(BuiltinOp::ABS, Options::Empty(78), &[x.tensor], &shape);
    let sign = walk.emit_inner(BuiltinOp::SIGN, Options::None, &[x.tensor], &shape);
    let step = walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[sign, bias], &shape);
    let options = opt::Sub { pot_scale_int16: false, ..opt::Sub::default() };
    let moved = walk.emit_inner(BuiltinOp::SUB, options, &[x.tensor, step], &shape);
    for inner in [size, sign, step, moved] {
        walk.draft.tensors[inner].keeps_float = true;
    }
    let passes = truth(walk, BuiltinOp::GREATER, 44, &Stored { tensor: size, ..x.clone() }, lambd);
    let tensor = chosen(walk, passes.tensor, &x, moved);
    walk.define_as(0, Stored { tensor, ..x });
    Ok(())
}

/// A comparison of a tensor with another of its shape, or a number.
fn truth(walk: &mut Walk<'_>, op: BuiltinOp, options: u8, x: &Stored, with: usize) -> Stored {
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let tensor = walk.emit_inner(op, Options::Empty(options), &[x.tensor, with], &shape);
    walk.draft.tensors[tensor].dtype = TensorType::Bool;
    Stored { tensor, ..x.clone() }
}

/// One tensor where a condition holds, 0 elsewhere; all lie as `like` does.
fn chosen(walk: &mut Walk<'_>, condition: usize, like: &Stored, tensor: usize) -> usize {
    let zero = walk.draft.constant(&[1], Value::F32(vec![0.0]));
    let shape = walk.draft.tensors[like.tensor].shape.clone();
    walk.emit(BuiltinOp::SELECT_V2, Options::Empty(98), &[condition, tensor, zero], &shape)
}

fn negated(walk: &mut Walk<'_>, x: &Stored) {
    let shape = walk.draft.tensors[x.tensor].shape.clone();
    let tensor = walk.emit(BuiltinOp::LOGICAL_NOT, Options::Empty(63), &[x.tensor], &shape);
    walk.draft.tensors[tensor].dtype = TensorType::Bool;
    walk.define_as(0, Stored { tensor, ..x.clone() });
}

/// `Not`.
pub(super) fn not(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.any(0)?;
    negated(walk, &x);
    Ok(())
}

/// `Where`: SELECT_V2 on three tensors of one order.
pub(super) fn choose(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let parts = [walk.any(0)?, walk.any(1)?, walk.any(2)?];
    let dims = walk.shape(walk.node().output())?;
    let rank = dims.len();
    let dtype = walk.draft.tensors[parts[1].tensor].dtype;
    if walk.draft.tensors[parts[2].tensor].dtype != dtype {
        return Err(walk.refuse("it chooses between tensors of two types", "repair the model"));
    }
    let mut inputs = Vec::new();
    for part in parts {
        let plain = part.plain(&mut walk.draft, walk.at);
        let mut shape = vec![1; rank - part.dims.len()];
        shape.extend(&part.dims);
        inputs.push((plain, shape));
    }
    let mut made = dims.clone();
    if rank > 4 {
        // Neighbouring dimensions in which the same of the three are stretched become one.
        let mut sizes: Vec<[usize; 3]> = Vec::new();
        made.clear();
        for axis in (0..rank).filter(|&axis| dims[axis] != 1) {
            let own = [0, 1, 2].map(|part: usize| inputs[part].1[axis]);
            match sizes.last_mut() {
                Some(last) if last.map(|size| size == 1) == own.map(|size| size == 1) => {
                    (0..3).for_each(|part| last[part] *= own[part]);
                }
                _ => {
                    sizes.push(own);
                    made.push(1);
                }
            }
            if let Some(last) = made.last_mut() {
                *last *= dims[axis];
            }
        }
        if made.len() > 4 {
            return Err(walk.refuse(format!("it chooses in {rank} dimensions"), "at most 4 are lowered"));
        }
        for (part, input) in inputs.iter_mut().enumerate() {
            input.1 = sizes.iter().map(|own| own[part]).collect();
        }
    }
    let inputs: Vec<usize> =
        inputs.into_iter().map(|(tensor, shape)| walk.draft.reshaped(walk.at, tensor, &shape)).collect();
    let output = walk.emit(BuiltinOp::SELECT_V2, Options::Empty(98), &inputs, &made);
    walk.draft.tensors[output].dtype = dtype;
    let output = walk.draft.reshaped(walk.at, output, &dims);
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
