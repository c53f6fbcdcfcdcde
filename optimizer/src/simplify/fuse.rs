//! Rewrites that save work at run time without changing results beyond rounding: batch normalisation and constant
//! scales and shifts go into the weights of the convolution or matrix product before them, a product and its bias
//! become one Gemm, and a batch normalisation that stays becomes a Mul and an Add.

use crate::ir::{Attribute, DataType, Graph, Node, Tensor};

/// Applies every rewrite once, wherever it fits.
pub fn fuse(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        let changed = match node.op_type.as_str() {
            _ if !node.is_standard() || node.outputs.iter().skip(1).any(|name| !name.is_empty()) => false,
            "BatchNormalization" => batch_normalization(graph, index),
            "Mul" | "Add" | "Sub" | "Div" => affine(graph, index) || bias(graph, index),
            _ => false,
        };
        if !changed {
            index += 1;
        }
    }
}

/// `y[c] = x[c] * scale[c] + shift[c]`.
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

fn normalization(graph: &Graph, node: &Node) -> Option<Affine> {
    if node.int("training_mode", 0) != 0 || node.outputs.iter().skip(1).any(|name| !name.is_empty()) {
        return None;
    }
    let constant = |index: usize| graph.constant(node.input(index)?)?.as_f32();
    let (gamma, beta, mean, variance) = (constant(1)?, constant(2)?, constant(3)?, constant(4)?);
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    if [beta.len(), mean.len(), variance.len()] != [gamma.len(); 3] {
        return None;
    }
    let (mut scale, mut shift) = (Vec::new(), Vec::new());
    for channel in 0..gamma.len() {
        let factor = f64::from(gamma[channel]) / (f64::from(variance[channel]) + epsilon).sqrt();
        scale.push(factor as f32);
        shift.push((f64::from(beta[channel]) - f64::from(mean[channel]) * factor) as f32);
    }
    Some(Affine { scale, shift })
}

fn batch_normalization(graph: &mut Graph, index: usize) -> bool {
    let node = graph.nodes[index].clone();
    let Some(affine) = normalization(graph, &node) else { return false };
    if into_producer(graph, index, &affine) {
        return true;
    }
    // Its rank must be known to shape the constants; a static shape or a declared one tells.
    let Some(input) = node.input(0).map(str::to_owned) else { return false };
    let rank = graph.shape_of(&input).map(<[usize]>::len);
    let Some(rank) = rank.or_else(|| graph.values.get(&input).filter(|v| v.has_shape).map(|v| v.shape.len())) else {
        return false;
    };
    if rank < 2 {
        return false;
    }
    let mut dims = vec![1; rank - 1];
    dims[0] = affine.scale.len();
    let output = node.output().to_owned();
    let scale = graph.fresh(&format!("{output}_scale"));
    graph.initializers.insert(scale.clone(), Tensor::f32(&dims, affine.scale));
    let shift = graph.fresh(&format!("{output}_shift"));
    graph.initializers.insert(shift.clone(), Tensor::f32(&dims, affine.shift));
    let scaled = graph.fresh(&format!("{output}_scaled"));
    if let Some(shape) = graph.shape_of(&input).map(<[usize]>::to_vec) {
        graph.note(&scaled, DataType::F32, &shape);
    }
    let add = Node::new("Add", &node.name, &[&scaled, &shift], &[&output]);
    graph.nodes[index] = Node::new("Mul", &format!("{}_scale", node.label()), &[&input, &scale], &[&scaled]);
    graph.nodes.insert(index + 1, add);
    true
}

/// A Mul, Add, Sub or Div by one constant for each channel.
fn affine(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let (Some(a), Some(b)) = (node.input(0), node.input(1)) else { return false };
    let (value, constant, swapped) = match (graph.constant(a), graph.constant(b)) {
        (None, Some(constant)) => (a, constant, false),
        (Some(constant), None) => (b, constant, true),
        _ => return false,
    };
    if swapped && matches!(node.op_type.as_str(), "Sub" | "Div") {
        return false;
    }
    let Some(producer) = graph.nodes.iter().find(|node| node.output() == value) else { return false };
    let Some(channels) = output_channels(graph, producer) else { return false };
    // Channels are at axis 1 of a Conv's output of rank n and at the last axis of a Gemm's.
    let after = if producer.is("Conv") {
        match producer.input(1).and_then(|weights| graph.shape_of(weights)) {
            Some(weights) => weights.len() - 2,
            None => return false,
        }
    } else {
        0
    };
    let Some(data) = constant.as_f32() else { return false };
    let per_channel = match data.len() {
        1 if constant.dims.len() <= after + 2 => vec![data[0]; channels],
        len if len == channels && is_channel_shape(&constant.dims, channels, after) => data.to_vec(),
        _ => return false,
    };
    let none = vec![0.0; channels];
    let ones = vec![1.0; channels];
    let affine = match node.op_type.as_str() {
        "Mul" => Affine { scale: per_channel, shift: none },
        "Div" if per_channel.iter().all(|value| *value != 0.0) => {
            Affine { scale: per_channel.iter().map(|value| 1.0 / value).collect(), shift: none }
        }
        "Add" => Affine { scale: ones, shift: per_channel },
        "Sub" => Affine { scale: ones, shift: per_channel.iter().map(|value| -value).collect() },
        _ => return false,
    };
    // `into_producer` looks at the first input; what is swapped commutes.
    if swapped {
        graph.nodes[index].touch();
        graph.nodes[index].inputs.swap(0, 1);
    }
    into_producer(graph, index, &affine)
}

/// `[.., c, 1, 1]` with `after` ones behind the channels and nothing but ones before.
fn is_channel_shape(dims: &[usize], channels: usize, after: usize) -> bool {
    let Some(at) = dims.len().checked_sub(after + 1) else { return false };
    dims.len() <= after + 2 && dims.iter().enumerate().all(|(axis, dim)| *dim == if axis == at { channels } else { 1 })
}

fn output_channels(graph: &Graph, node: &Node) -> Option<usize> {
    let weights = graph.constant(node.input(1)?)?;
    weights.as_f32()?;
    match node.op_type.as_str() {
        _ if !node.is_standard() => None,
        "Conv" => weights.dims.first().copied(),
        "Gemm" if node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0 => {
            weights.dims.get(usize::from(node.int("transB", 0) == 0)).copied()
        }
        _ => None,
    }
}

/// Moves an affine map into the Conv or Gemm that makes the node's first input, if nobody else reads that.
fn into_producer(graph: &mut Graph, index: usize, affine: &Affine) -> bool {
    let node = &graph.nodes[index];
    let (Some(value), output) = (node.input(0).map(str::to_owned), node.output().to_owned()) else { return false };
    let Some(at) = graph.nodes.iter().position(|node| node.output() == value) else { return false };
    let producer = graph.nodes[at].clone();
    let readers = graph.nodes.iter().flat_map(Node::reads).filter(|name| *name == value).count();
    if readers != 1 || graph.is_output(&value) || output_channels(graph, &producer) != Some(affine.scale.len()) {
        return false;
    }
    let bias = match producer.input(2) {
        None => vec![0.0; affine.scale.len()],
        Some(name) => match graph.constant(name).and_then(|bias| Some((bias.as_f32()?, bias.dims.len()))) {
            Some((bias, _)) if bias.len() == affine.scale.len() => bias.to_vec(),
            Some((&[bias], _)) => vec![bias; affine.scale.len()],
            _ => return false,
        },
    };
    let bias = bias.iter().zip(&affine.scale).zip(&affine.shift).map(|((bias, scale), shift)| bias * scale + shift);
    let bias = Tensor::f32(&[affine.scale.len()], bias.collect());
    let Some(weights) = producer.input(1).and_then(|name| graph.constant(name)).cloned() else { return false };
    let Some(data) = weights.as_f32() else { return false };
    // Output channels are the first axis, but for a Gemm without transB, where they are the last.
    let first = producer.is("Conv") || producer.int("transB", 0) != 0;
    let run = data.len() / affine.scale.len().max(1);
    let channel = |position: usize| if first { position / run.max(1) } else { position % affine.scale.len() };
    let scaled = data.iter().enumerate().map(|(position, value)| value * affine.scale[channel(position)]).collect();
    let weights_name = graph.fresh(&format!("{output}_weights"));
    graph.initializers.insert(weights_name.clone(), Tensor::f32(&weights.dims, scaled));
    let bias_name = graph.fresh(&format!("{output}_bias"));
    graph.initializers.insert(bias_name.clone(), bias);
    let producer = &mut graph.nodes[at];
    producer.touch();
    producer.inputs.resize(3, String::new());
    producer.inputs[1] = weights_name;
    producer.inputs[2] = bias_name;
    producer.outputs[0] = output;
    graph.nodes.remove(index);
    true
}

/// MatMul by a constant matrix and Add of a constant vector: one Gemm, when the input is a matrix.
fn bias(graph: &mut Graph, index: usize) -> bool {
    let add = &graph.nodes[index];
    if !add.is("Add") || add.inputs.len() != 2 {
        return false;
    }
    let pairs = [(0, 1), (1, 0)];
    let found = pairs.into_iter().find_map(|(value, constant)| {
        let (value, constant) = (add.input(value)?, add.input(constant)?);
        let at = graph.nodes.iter().position(|node| node.is("MatMul") && node.outputs == [value])?;
        let weights = graph.constant(graph.nodes[at].input(1)?)?;
        let bias = graph.constant(constant)?;
        let columns = *weights.dims.get(1)?;
        let matrix = graph.shape_of(graph.nodes[at].input(0)?).is_some_and(|shape| shape.len() == 2);
        let vector = bias.dims == [columns] || bias.dims == [1, columns];
        let alone = graph.nodes.iter().flat_map(Node::reads).filter(|name| *name == value).count() == 1;
        let floats = weights.as_f32().is_some() && bias.as_f32().is_some();
        (matrix && vector && alone && floats && weights.dims.len() == 2 && !graph.is_output(value))
            .then(|| (at, constant.to_owned()))
    });
    let Some((at, constant)) = found else { return false };
    let output = add.output().to_owned();
    let matmul = &graph.nodes[at];
    let inputs = [matmul.inputs[0].clone(), matmul.inputs[1].clone(), constant];
    let gemm = Node::new("Gemm", &matmul.name, &inputs.each_ref().map(String::as_str), &[&output]);
    graph.nodes[at] = gemm.with("alpha", Attribute::Float(1.0)).with("beta", Attribute::Float(1.0));
    graph.nodes.remove(index);
    true
}
