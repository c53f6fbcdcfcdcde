//! Operators along one axis that order or accumulate: `TopK` and `CumSum`.

use edgeyard_tflite::{BuiltinOp, Options, TensorType, op_options as opt};

use super::super::LowerError;
use super::super::draft::{Op, TensorId, Value};
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;

/// `TopK` with a constant count: TFLite's gives the largest along the last dimension, sorted; the smallest are the
/// largest of the negated.
pub(super) fn top_k(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let axis = super::axis(walk, walk.node().int("axis", -1), rank)?;
    let k = match walk.integers(1, "k")?.unwrap_or_default()[..] {
        [k] if k > 0 && k as u64 <= x.dims[axis] as u64 => k,
        ref given => {
            let why = format!("it wants {given:?} of {} elements", x.dims[axis]);
            return Err(walk.refuse(why, "repair the model"));
        }
    };
    let mut layout: Vec<Option<usize>> = (0..rank).filter(|&other| other != axis).map(Some).collect();
    layout.push(Some(axis));
    let largest = walk.node().int("largest", 1) != 0;
    let mut input = x.in_axes(&mut walk.draft, walk.at, &layout);
    if !largest {
        let shape = walk.draft.tensors[input].shape.clone();
        input = negated(walk, input, &shape);
        walk.draft.tensors[input].keeps_float = true;
    }
    let mut dims = x.dims.clone();
    dims[axis] = k as usize;
    let shape = stored_shape(&dims, &layout);
    let count = walk.draft.constant(&[1], Value::I32(vec![k as i32]));
    let origin = walk.origin();
    let mut values = walk.draft.computed(&shape, origin);
    let places = walk.draft.computed(&shape, None);
    walk.draft.tensors[places].dtype = TensorType::Int32;
    walk.draft.ops.push(Op {
        op: BuiltinOp::TOPK_V2,
        options: Options::Empty(34),
        inputs: vec![Some(input), Some(count)],
        outputs: vec![values, places],
        node: walk.at,
        clamp: (0.0, 0.0),
    });
    if largest {
        walk.draft.tensors[values].non_negative = walk.draft.tensors[input].non_negative;
    } else {
        (walk.draft.tensors[values].keeps_float, walk.draft.tensors[values].origin) = (true, None);
        values = negated(walk, values, &shape);
        walk.draft.tensors[values].origin = walk.origin().map(str::to_owned);
    }
    let options = opt::Cast { in_data_type: TensorType::Int32, out_data_type: TensorType::Int64 };
    let wide = walk.emit_inner(BuiltinOp::CAST, options, &[places], &shape);
    walk.draft.tensors[wide].dtype = TensorType::Int64;
    walk.draft.tensors[wide].non_negative = true;
    for (index, tensor) in [values, wide].into_iter().enumerate() {
        walk.define_as(index, Stored { tensor, dims: dims.clone(), layout: Layout::Axes(layout.clone()) });
    }
    Ok(())
}

fn negated(walk: &mut Walk<'_>, x: TensorId, shape: &[usize]) -> TensorId {
    let minus = walk.draft.constant(&[1], Value::F32(vec![-1.0]));
    walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[x, minus], shape)
}

/// `CumSum` along a constant axis.
pub(super) fn cum_sum(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let axis = match walk.integers(1, "axis")?.unwrap_or_default()[..] {
        [axis] => super::axis(walk, axis, rank)?,
        _ => return Err(walk.refuse("its axis is not one number", "repair the model")),
    };
    let layout = x.axes_with([axis]).map_or_else(|| Layout::identity(rank), <[_]>::to_vec);
    let input = x.in_axes(&mut walk.draft, walk.at, &layout);
    let position = layout.iter().position(|at| *at == Some(axis)).expect("the layout shows the axis");
    let position = walk.draft.constant(&[], Value::I32(vec![position as i32]));
    let node = walk.node();
    let options = opt::Cumsum { exclusive: node.int("exclusive", 0) != 0, reverse: node.int("reverse", 0) != 0 };
    let shape = walk.draft.tensors[input].shape.clone();
    let output = walk.emit(BuiltinOp::CUMSUM, options, &[input, position], &shape);
    walk.draft.tensors[output].non_negative = walk.draft.tensors[input].non_negative;
    walk.define(output, x.dims, layout);
    Ok(())
}
