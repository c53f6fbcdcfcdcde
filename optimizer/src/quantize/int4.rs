//! 4-bit weights, two to a byte, symmetric; computation in floating point. Matrices with blocks become ONNX Runtime's
//! MatMulNBits, which reads the integers as they are; what else has weights gets a DequantizeLinear of an int4 tensor.

use super::parameters::check_weights;
use super::qdq::QdqError;
use crate::ir::wire::Writer;
use crate::ir::{Attribute, Model, Node, Tensor, TensorData};

/// Smaller weights save less than what stores them apart costs.
const WORTHWHILE: usize = 256;
/// ONNX Runtime's own operators.
const MICROSOFT: &str = "com.microsoft";
/// ONNX's DequantizeLinear takes int4 and blocks from here on.
const INT4_OPSET: i64 = 21;
/// The format version with int4 tensors.
const INT4_IR: i64 = 10;
/// `TensorProto.INT4`.
const INT4: i64 = 22;

/// How 4-bit weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int4Form {
    /// For ONNX Runtime: with a block size matrices as `MatMulNBits`; the rest by its DequantizeLinear before opset 21,
    /// by ONNX's own from then on.
    MatMulNBits,
    /// For any reader of ONNX: DequantizeLinear of int4 tensors throughout; needs opset 21.
    Qdq,
}

/// Rewrites the model; gives remarks for people. `block_size`: weights of a matrix that share a scale, along its input;
/// absent: one scale for each output channel, which convolutions always have.
///
/// # Errors
/// [`QdqError`]: a block size that is no power of two from 16 to 256, weights that are not finite, an opset below 21 for
/// [`Int4Form::Qdq`], or nothing to do.
pub fn int4(model: &mut Model, block_size: Option<u32>, form: Int4Form) -> Result<Vec<String>, QdqError> {
    let block = match block_size {
        Some(size) if size.is_power_of_two() && (16..=256).contains(&size) => Some(size as usize),
        Some(size) => return Err(QdqError::BlockSize(size)),
        None => None,
    };
    if form == Int4Form::Qdq && model.graph.opset < INT4_OPSET {
        return Err(QdqError::Int4Opset(model.graph.opset));
    }
    check_weights(&model.graph)?;
    let (mut matrices, mut convolutions, mut foreign) = (0, 0, false);
    for node in std::mem::take(&mut model.graph.nodes) {
        let made = match weights(model, &node) {
            Some(Weights { convolution: false, tensor, inputs_axis })
                if block.is_some() && form == Int4Form::MatMulNBits =>
            {
                foreign = true;
                matrices += 1;
                n_bits(model, &node, &tensor, inputs_axis, block.unwrap_or(16))
            }
            Some(found) => {
                *(if found.convolution { &mut convolutions } else { &mut matrices }) += 1;
                foreign |= model.graph.opset < INT4_OPSET;
                dequantized(model, &node, &found, block.filter(|_| model.graph.opset >= INT4_OPSET))
            }
            None => vec![node],
        };
        model.graph.nodes.extend(made);
    }
    if matrices + convolutions == 0 {
        return Err(QdqError::NothingToDo);
    }
    if foreign {
        model.opsets.entry(MICROSOFT.to_owned()).or_insert(1);
    }
    model.ir_version = model.ir_version.max(INT4_IR);
    crate::simplify::remove_dead(&mut model.graph);
    let mut notes = Vec::new();
    if matrices > 0 {
        let scales = block.map_or("a scale for each output channel".to_owned(), |size| format!("blocks of {size}"));
        notes.push(format!("weights of {matrices} matrix products in 4-bit integers, {scales}"));
    }
    if convolutions > 0 {
        let scales = "a scale for each output channel";
        notes.push(format!("weights of {convolutions} convolutions in 4-bit integers, {scales}"));
    }
    Ok(notes)
}

/// A constant that becomes 4-bit integers.
struct Weights {
    tensor: Tensor,
    convolution: bool,
    /// Of a matrix: the axis along which products are summed.
    inputs_axis: usize,
}

fn weights(model: &Model, node: &Node) -> Option<Weights> {
    let graph = &model.graph;
    let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0 && node.int("transA", 0) == 0;
    let convolution = node.is("Conv");
    let product = node.is("MatMul") || (node.is("Gemm") && plain);
    if !convolution && !product {
        return None;
    }
    let tensor = graph.constant(node.input(1)?)?.clone();
    let rank = if convolution { tensor.dims.len() >= 3 } else { tensor.dims.len() == 2 };
    let worthwhile = rank && tensor.len() >= WORTHWHILE && tensor.as_f32().is_some();
    let inputs_axis = usize::from(node.is("Gemm") && node.int("transB", 0) != 0);
    worthwhile.then_some(Weights { tensor, convolution, inputs_axis })
}

/// Two integers to a byte, the first in the low half.
fn packed(values: &[u8]) -> Vec<u8> {
    values.chunks(2).map(|pair| (pair[0] & 0xf) | (pair.get(1).copied().unwrap_or(0) & 0xf) << 4).collect()
}

/// `MatMulNBits`: rows of outputs, each in blocks, stored with 8 for 0. The largest value of a block becomes -8
/// exactly, whatever its sign: half a bit more than -7 to 7 would give.
fn n_bits(model: &mut Model, node: &Node, tensor: &Tensor, inputs_axis: usize, block: usize) -> Vec<Node> {
    let graph = &mut model.graph;
    let data = tensor.as_f32().unwrap_or_default();
    let (inputs, outputs) = (tensor.dims[inputs_axis], tensor.dims[1 - inputs_axis]);
    let at = |input: usize, output: usize| match inputs_axis {
        0 => data[input * outputs + output],
        _ => data[output * inputs + input],
    };
    let blocks = inputs.div_ceil(block);
    let (mut bytes, mut scales) = (Vec::with_capacity(outputs * blocks * block / 2), Vec::new());
    for output in 0..outputs {
        for first in (0..blocks).map(|index| index * block) {
            let row: Vec<f32> = (first..inputs.min(first + block)).map(|input| at(input, output)).collect();
            let peak = row.iter().fold(0f32, |peak, value| if value.abs() > peak.abs() { *value } else { peak });
            let scale = if peak.abs() > f32::MIN_POSITIVE * 256.0 { peak / -8.0 } else { 1.0 };
            let mut stored: Vec<u8> =
                row.iter().map(|value| ((value / scale).round() + 8.0).clamp(0.0, 15.0) as u8).collect();
            stored.resize(block, 8);
            bytes.extend(packed(&stored));
            scales.push(scale);
        }
    }
    let stem = node.output().to_owned();
    let mut constant = |part: &str, dims: &[usize], data: TensorData| {
        let name = graph.fresh(&format!("{stem}_{part}"));
        graph.initializers.insert(name.clone(), Tensor { dims: dims.to_vec(), data });
        name
    };
    let weights = constant("weights_int4", &[outputs, blocks, block / 2], TensorData::U8(bytes));
    let scale = constant("weights_scale", &[outputs * blocks], TensorData::F32(scales));
    let bias = node.input(2).filter(|_| node.is("Gemm")).map(str::to_owned);
    let product = if bias.is_some() { graph.fresh(&format!("{stem}_product")) } else { stem.clone() };
    let name = format!("{stem}_int4");
    let mut made = Node::new("MatMulNBits", &name, &[node.input(0).unwrap_or(""), &weights, &scale], &[&product]);
    MICROSOFT.clone_into(&mut made.domain);
    for (attribute, value) in [("K", inputs), ("N", outputs), ("bits", 4), ("block_size", block)] {
        made.set(attribute, Attribute::Int(value as i64));
    }
    let add = bias.map(|bias| Node::new("Add", &format!("{stem}_bias"), &[&product, &bias], &[&stem]));
    std::iter::once(made).chain(add).collect()
}

/// The node behind a DequantizeLinear of its weights.
fn dequantized(model: &mut Model, node: &Node, found: &Weights, block: Option<usize>) -> Vec<Node> {
    let opset = model.graph.opset;
    let graph = &mut model.graph;
    let dims = &found.tensor.dims;
    let data = found.tensor.as_f32().unwrap_or_default();
    let block = block.filter(|_| !found.convolution);
    let axis = match (found.convolution, block) {
        (true, _) => 0,
        (false, Some(_)) => found.inputs_axis,
        (false, None) => 1 - found.inputs_axis,
    };
    let inner: usize = dims[axis + 1..].iter().product::<usize>().max(1);
    let along = |index: usize| index / inner % dims[axis];
    // Where in the scales a weight has its own.
    let (scale_dims, slot): (Vec<usize>, Box<dyn Fn(usize) -> usize>) = match block {
        None => (vec![dims[axis]], Box::new(along)),
        Some(block) => {
            let blocks = dims[axis].div_ceil(block);
            let mut scale_dims = dims.clone();
            scale_dims[axis] = blocks;
            let size = dims[axis];
            let slot = move |index: usize| {
                (index / inner / size * blocks + index / inner % size / block) * inner + index % inner
            };
            (scale_dims, Box::new(slot))
        }
    };
    let mut scales = vec![0f32; scale_dims.iter().product()];
    for (index, value) in data.iter().enumerate() {
        let scale = &mut scales[slot(index)];
        *scale = scale.max(value.abs());
    }
    for scale in &mut scales {
        *scale = if *scale > f32::MIN_POSITIVE * 256.0 { *scale / 7.0 } else { 1.0 };
    }
    let stored: Vec<u8> = data
        .iter()
        .enumerate()
        .map(|(index, value)| (value / scales[slot(index)]).round().clamp(-7.0, 7.0) as i8 as u8)
        .collect();
    let old = node.inputs[1].clone();
    let integers = graph.fresh(&format!("{old}_int4"));
    graph.initializers.insert(integers.clone(), int4_tensor(&integers, dims, &packed(&stored)));
    let scale = graph.fresh(&format!("{old}_scale"));
    graph.initializers.insert(scale.clone(), Tensor::f32(&scale_dims, scales));
    let floats = graph.fresh(&format!("{old}_dequantized"));
    graph.note(&floats, crate::ir::DataType::F32, dims);
    let mut widen = Node::new("DequantizeLinear", &format!("{old}_dequantize"), &[&integers, &scale], &[&floats]);
    widen.set("axis", Attribute::Int(axis as i64));
    if let Some(block) = block {
        widen.set("block_size", Attribute::Int(block as i64));
    }
    if opset < INT4_OPSET {
        MICROSOFT.clone_into(&mut widen.domain);
    }
    let mut node = node.clone();
    node.touch();
    node.inputs[1] = floats;
    vec![widen, node]
}

/// A `TensorProto` of a type that the representation does not hold.
fn int4_tensor(name: &str, dims: &[usize], bytes: &[u8]) -> Tensor {
    let mut writer = Writer::default();
    writer.packed_ints(1, &dims.iter().map(|dim| *dim as i64).collect::<Vec<_>>());
    writer.int(2, INT4).bytes(8, name.as_bytes()).bytes(9, bytes);
    Tensor { dims: dims.to_vec(), data: TensorData::Opaque(writer.finish()) }
}
