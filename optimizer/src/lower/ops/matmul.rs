//! Matrix products: FULLY_CONNECTED when one side is a constant matrix, BATCH_MATMUL otherwise.

use edgeyard_tflite::{Activation, BuiltinOp, op_options as opt};

use super::super::LowerError;
use super::super::draft::{TensorId, Value, permuted_order};
use super::super::layout::{Layout, Stored};
use super::super::walk::Walk;
use super::elementwise;

/// `Gemm`: alpha * A' * B' + beta * C.
pub(super) fn gemm(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let node = walk.node();
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let (turn_a, turn_b) = (node.int("transA", 0) != 0, node.int("transB", 0) != 0);
    let mut a = walk.operand(0)?;
    if a.dims.len() != 2 {
        return Err(walk.refuse(format!("its A of shape {:?} is no matrix", a.dims), "repair the model"));
    }
    if turn_a {
        a = turned(walk, &a);
    }
    let Some((shape, weights)) = walk.optional_floats(walk.input(1)?) else {
        return gemm_of_two(walk, a, turn_b, alpha, beta);
    };
    if shape.len() != 2 {
        return Err(walk.refuse(format!("its B of shape {shape:?} is no matrix"), "repair the model"));
    }
    // TFLite wants the weights as [outputs, inputs], which is B transposed.
    let (outputs, inputs, mut weights) = if turn_b {
        (shape[0], shape[1], weights)
    } else {
        let order = permuted_order(shape, &[1, 0]);
        (shape[1], shape[0], order.into_iter().map(|at| weights[at]).collect())
    };
    for weight in &mut weights {
        *weight *= alpha;
    }
    let dims = vec![a.dims[0], outputs];
    let bias = match walk.node().input(2).map(|name| (name, walk.optional_floats(name))) {
        None => Ok(vec![0.0; outputs]),
        Some((_, Some((shape, values)))) if shape.iter().rev().skip(1).all(|&dim| dim == 1) => {
            let repeated = if values.len() == 1 { vec![values[0]; outputs] } else { values };
            if repeated.len() != outputs {
                return Err(walk.refuse(format!("its C of shape {shape:?} does not fit"), "repair the model"));
            }
            Ok(repeated.iter().map(|value| value * beta).collect())
        }
        Some((name, _)) => Err(name),
    };
    let later = bias.as_ref().err().copied();
    let product = fully_connected(walk, &a, inputs, weights, bias.unwrap_or_else(|_| vec![0.0; outputs]), &dims)?;
    let axes = Layout::identity(2);
    if let Some(name) = later {
        return add_c(walk, product, &dims, name, beta);
    }
    walk.define(product, dims, axes);
    Ok(())
}

/// A Gemm whose B is computed.
fn gemm_of_two(walk: &mut Walk<'_>, a: Stored, turn_b: bool, alpha: f32, beta: f32) -> Result<(), LowerError> {
    let b = walk.operand(1)?;
    if b.dims.len() != 2 {
        return Err(walk.refuse(format!("its B of shape {:?} is no matrix", b.dims), "repair the model"));
    }
    if alpha != 1.0 {
        return Err(walk.refuse("its B is computed and alpha is not 1", "multiply by alpha in a node of its own"));
    }
    let outputs = if turn_b { b.dims[0] } else { b.dims[1] };
    let dims = vec![a.dims[0], outputs];
    let (left, right) = (a.plain(&mut walk.draft, walk.at), b.plain(&mut walk.draft, walk.at));
    let options = opt::BatchMatMul { adj_y: turn_b, ..opt::BatchMatMul::default() };
    let product = walk.emit(BuiltinOp::BATCH_MATMUL, options, &[left, right], &dims);
    match walk.node().input(2) {
        Some(name) => add_c(walk, product, &dims, name, beta),
        None => {
            walk.define(product, dims, Layout::identity(2));
            Ok(())
        }
    }
}

fn add_c(walk: &mut Walk<'_>, product: TensorId, dims: &[usize], c: &str, beta: f32) -> Result<(), LowerError> {
    if beta != 1.0 {
        return Err(
            walk.refuse("its C is not a constant row and beta is not 1", "multiply by beta in a node of its own")
        );
    }
    // The product's own range is not calibrated: it is bounded from its operands.
    walk.draft.tensors[product].origin = None;
    let product = Stored { tensor: product, dims: dims.to_vec(), layout: Layout::Axes(Layout::identity(2)) };
    let c = walk.value(c)?;
    elementwise::binary_of(walk, BuiltinOp::ADD, elementwise::add_options(), &product, &c)
}

fn turned(walk: &mut Walk<'_>, a: &Stored) -> Stored {
    let tensor = a.plain(&mut walk.draft, walk.at);
    let tensor = walk.draft.transposed(walk.at, tensor, &[1, 0]);
    Stored { tensor, dims: vec![a.dims[1], a.dims[0]], layout: Layout::Axes(Layout::identity(2)) }
}

/// FULLY_CONNECTED with weights [outputs, inputs]. An operand that is a flattened image keeps its own order: the
/// weights' columns are permuted instead.
fn fully_connected(
    walk: &mut Walk<'_>,
    a: &Stored,
    inputs: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    dims: &[usize],
) -> Result<TensorId, LowerError> {
    if a.dims.last() != Some(&inputs) {
        let why = format!("an operand of shape {:?} meets {inputs} rows of weights", a.dims);
        return Err(walk.refuse(why, "repair the model"));
    }
    let outputs = bias.len();
    let (tensor, weights) = match &a.layout {
        // Only when the rows are not split up: the batch stays in front.
        Layout::Flat { dims: image, axes } if axes[0] == 0 => {
            let mut shape = vec![outputs];
            shape.extend(&image[1..]);
            let order = permuted_order(&shape, axes);
            (a.tensor, order.into_iter().map(|at| weights[at]).collect())
        }
        _ => (a.plain(&mut walk.draft, walk.at), weights),
    };
    let weights = walk.draft.constant(&[outputs, inputs], Value::F32(weights));
    let bias = walk.draft.constant(&[outputs], Value::F32(bias));
    let options = opt::FullyConnected { keep_num_dims: dims.len() != 2, ..opt::FullyConnected::default() };
    Ok(walk.emit(BuiltinOp::FULLY_CONNECTED, options, &[tensor, weights, bias], dims))
}

/// `MatMul`; a vector counts as a matrix of one row or column.
pub(super) fn matmul(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let a = walk.operand(0)?;
    let b = walk.operand(1)?;
    let vectors = (a.dims.len() == 1, b.dims.len() == 1);
    if vectors != (false, false) {
        return of_vector(walk, a, b, vectors);
    }
    let dims = walk.shape(walk.node().output())?;
    let constant = walk.optional_floats(walk.input(1)?).map(|(_, values)| values);
    multiply(walk, a, b, constant, dims)
}

/// The vector becomes a matrix, and the product loses the axis again.
fn of_vector(walk: &mut Walk<'_>, a: Stored, b: Stored, vectors: (bool, bool)) -> Result<(), LowerError> {
    let node = walk.node();
    let shown = walk.shape(node.output())?;
    let mut dims = shown.clone();
    let as_matrix = |walk: &mut Walk<'_>, x: Stored, dims: Vec<usize>| {
        let plain = x.plain(&mut walk.draft, walk.at);
        let tensor = walk.draft.reshaped(walk.at, plain, &dims);
        let layout = Layout::Axes(Layout::identity(dims.len()));
        Stored { tensor, dims, layout }
    };
    let (a, b) = match vectors {
        (true, true) => {
            dims = vec![1, 1];
            let size = (a.dims[0], b.dims[0]);
            (as_matrix(walk, a, vec![1, size.0]), as_matrix(walk, b, vec![size.1, 1]))
        }
        (true, false) => {
            dims.insert(dims.len() - 1, 1);
            let size = a.dims[0];
            (as_matrix(walk, a, vec![1, size]), b)
        }
        _ => {
            dims.push(1);
            let size = b.dims[0];
            (a, as_matrix(walk, b, vec![size, 1]))
        }
    };
    let constant = match walk.optional_floats(walk.input(1)?) {
        Some((shape, values)) if vectors.1 => Some((shape, values)).filter(|(shape, _)| shape.len() == 1),
        other => other,
    };
    multiply(walk, a, b, constant.map(|(_, values)| values), dims)?;
    let product = walk.value(walk.node().output())?;
    let plain = product.plain(&mut walk.draft, walk.at);
    let tensor = walk.draft.reshaped(walk.at, plain, &shown);
    let axes = Layout::identity(shown.len());
    walk.define(tensor, shown, axes);
    Ok(())
}

/// Defines the node's output as a product of two tensors of two or more dimensions; `constant` are the elements of `b`
/// where they are known.
pub(super) fn multiply(
    walk: &mut Walk<'_>,
    a: Stored,
    b: Stored,
    constant: Option<Vec<f32>>,
    dims: Vec<usize>,
) -> Result<(), LowerError> {
    let (rank_a, rank_b) = (a.dims.len(), b.dims.len());
    if a.dims[rank_a - 1] != b.dims[rank_b - 2] {
        return Err(walk.refuse(format!("shapes {:?} and {:?} do not fit", a.dims, b.dims), "repair the model"));
    }
    if let Some(weights) = constant
        && rank_b == 2
    {
        let shape = &b.dims;
        let weights = permuted_order(shape, &[1, 0]).into_iter().map(|at| weights[at]).collect();
        let output = fully_connected(walk, &a, shape[0], weights, vec![0.0; shape[1]], &dims)?;
        walk.define(output, dims, Layout::identity(rank_a));
        return Ok(());
    }
    let rank = rank_a.max(rank_b);
    // Both sides get the same number of dimensions: not every kernel broadcasts batches of different rank.
    let sides = [a, b].map(|side| {
        let plain = side.plain(&mut walk.draft, walk.at);
        let mut shape = vec![1; rank - side.dims.len()];
        shape.extend(&side.dims);
        walk.draft.reshaped(walk.at, plain, &shape)
    });
    if rank > 4 {
        // Equal batches of more axes are one.
        let shapes = sides.map(|side| walk.draft.tensors[side].shape.clone());
        if shapes[0][..rank - 2] != shapes[1][..rank - 2] {
            let why = format!("it multiplies {rank}-dimensional tensors of different batches");
            return Err(walk.refuse(why, "at most 4 dimensions are lowered"));
        }
        let batch: usize = dims[..rank - 2].iter().product();
        let flat = |shape: &[usize]| vec![batch, shape[rank - 2], shape[rank - 1]];
        let [left, right] = [0, 1].map(|at| walk.draft.reshaped(walk.at, sides[at], &flat(&shapes[at])));
        let options = opt::BatchMatMul::default();
        let output = walk.emit(BuiltinOp::BATCH_MATMUL, options, &[left, right], &flat(&dims));
        let output = walk.draft.reshaped(walk.at, output, &dims);
        walk.define(output, dims, Layout::identity(rank));
        return Ok(());
    }
    let output = walk.emit(BuiltinOp::BATCH_MATMUL, opt::BatchMatMul::default(), &sides, &dims);
    walk.define(output, dims, Layout::identity(rank));
    Ok(())
}

/// Adds a constant per output channel into the bias of the operation that makes `name`, if nothing else reads it.
pub(super) fn absorb_bias(walk: &mut Walk<'_>, name: &str, dims: &[usize], values: &[f32]) -> bool {
    let Some(producer) = walk.sole_producer(name) else { return false };
    let op = &mut walk.draft.ops[producer];
    let (channels, along) = match op.op {
        BuiltinOp::CONV_2D | BuiltinOp::DEPTHWISE_CONV_2D => (1, 1),
        BuiltinOp::FULLY_CONNECTED => (0, 0),
        _ => return false,
    };
    if op.activation_mut().is_none_or(|activation| *activation != Activation::None) {
        return false;
    }
    let Some(bias) = op.inputs[2] else { return false };
    let Ok(stored) = walk.value(name) else { return false };
    // The constant may vary along the channel axis only: the second for convolutions, the last for matrices.
    let axis = if along == 1 { channels } else { stored.dims.len() - 1 };
    let from_end = stored.dims.len() - axis;
    let varies = |at: usize| dims.len() - at == from_end;
    if dims.len() > stored.dims.len() || dims.iter().enumerate().any(|(at, &dim)| dim != 1 && !varies(at)) {
        return false;
    }
    let Some(Value::F32(known)) = &mut walk.draft.tensors[bias].value else { return false };
    if values.len() != 1 && values.len() != known.len() {
        return false;
    }
    for (at, bias) in known.iter_mut().enumerate() {
        *bias += values[if values.len() == 1 { 0 } else { at }];
    }
    let origin = walk.origin().map(str::to_owned);
    walk.draft.tensors[stored.tensor].origin = origin;
    walk.define_as(0, stored);
    true
}
