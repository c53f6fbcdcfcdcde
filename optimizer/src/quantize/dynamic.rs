//! 8-bit weights without calibration. Matrix products are computed in integers: their input is quantised while the
//! model runs, by DynamicQuantizeLinear, in the pattern that ONNX Runtime fuses into one kernel. Convolutions are
//! computed in float32 from stored integers, since their integer kernels with ranges found at run time are several
//! times slower than float32.

use std::collections::BTreeMap;

use super::parameters::{check_weights, quantize_weights};
use super::qdq::QdqError;
use crate::ir::{Attribute, DataType, Graph, Node, Tensor, TensorData};

/// Smaller weights save less than what stores them apart costs.
const WORTHWHILE: usize = 256;

/// Rewrites the graph (opset 11 or later); gives remarks for people.
///
/// # Errors
/// [`QdqError::Weight`], or [`QdqError::NothingToDo`] when no operator has enough weights.
pub fn dynamic(graph: &mut Graph) -> Result<Vec<String>, QdqError> {
    check_weights(graph)?;
    let mut pass = Pass { inputs: BTreeMap::new(), stored: BTreeMap::new(), products: 0, convolutions: 0 };
    for node in std::mem::take(&mut graph.nodes) {
        match pass.product(graph, &node).or_else(|| pass.convolution(graph, &node)) {
            Some(nodes) => graph.nodes.extend(nodes),
            None => graph.nodes.push(node),
        }
    }
    if pass.products + pass.convolutions == 0 {
        return Err(QdqError::NothingToDo);
    }
    crate::simplify::remove_dead(graph);
    let mut notes = Vec::new();
    if pass.products > 0 {
        notes.push(format!("{} matrix products in 8-bit integers, their inputs quantised at run time", pass.products));
    }
    if pass.convolutions > 0 {
        notes.push(format!("weights of {} convolutions in 8-bit integers, computed in float32", pass.convolutions));
    }
    Ok(notes)
}

struct Pass {
    /// Quantised inputs: integers, scale, zero point, by tensor.
    inputs: BTreeMap<String, [String; 3]>,
    /// Widened weights of convolutions, by constant.
    stored: BTreeMap<String, String>,
    products: usize,
    convolutions: usize,
}

impl Pass {
    fn product(&mut self, graph: &mut Graph, node: &Node) -> Option<Vec<Node>> {
        let gemm = node.is("Gemm");
        if !gemm && !node.is("MatMul") {
            return None;
        }
        let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0 && node.int("transA", 0) == 0;
        let (input, name) = (node.input(0)?, node.input(1)?);
        let weights = graph.constant(name)?;
        if !plain || weights.dims.len() != 2 || weights.len() < WORTHWHILE || graph.constant(input).is_some() {
            return None;
        }
        let turned = gemm && node.int("transB", 0) != 0;
        let data = weights.as_f32()?;
        let [rows, columns] = [weights.dims[0], weights.dims[1]];
        let (dims, data) = match turned {
            true => ([columns, rows], (0..columns * rows).map(|at| data[at % rows * columns + at / rows]).collect()),
            false => ([rows, columns], data.to_vec()),
        };
        let (values, scales) = quantize_weights(&data, &dims, Some(1));
        let stem = node.output().to_owned();
        let fresh = |graph: &mut Graph, part: &str| {
            let name = graph.fresh(&format!("{stem}_{part}"));
            graph.note(&name, DataType::Undefined, &[]);
            name
        };
        let constant = |graph: &mut Graph, part: &str, dims: &[usize], data: TensorData| {
            let name = graph.fresh(&format!("{stem}_{part}"));
            graph.initializers.insert(name.clone(), Tensor { dims: dims.to_vec(), data });
            name
        };
        let mut nodes = Vec::new();
        let [quantized, scale, zero] = match self.inputs.get(input) {
            Some(known) => known.clone(),
            None => {
                let [a, b, c] = ["input_uint8", "input_scale", "input_zero_point"].map(|part| fresh(graph, part));
                nodes.push(Node::new("DynamicQuantizeLinear", &format!("{stem}_quantize"), &[input], &[&a, &b, &c]));
                self.inputs.insert(input.to_owned(), [a.clone(), b.clone(), c.clone()]);
                [a, b, c]
            }
        };
        let stored = constant(graph, "weights_int8", &dims, TensorData::I8(values));
        let weight_scale = constant(graph, "weights_scale", &[scales.len()], TensorData::F32(scales));
        let weight_zero = constant(graph, "weights_zero_point", &[], TensorData::I8(vec![0]));
        let [sum, float, step] = ["integers", "floats", "scale"].map(|part| fresh(graph, part));
        let bias = node.input(2).filter(|_| gemm).map(str::to_owned);
        let product = if bias.is_some() { fresh(graph, "product") } else { stem.clone() };
        let inputs = [quantized.as_str(), &stored, &zero, &weight_zero];
        nodes.push(Node::new("MatMulInteger", &format!("{stem}_integer"), &inputs, &[&sum]));
        let cast = Node::new("Cast", &format!("{stem}_cast"), &[&sum], &[&float]);
        nodes.push(Node::new("Mul", &format!("{stem}_scales"), &[&scale, &weight_scale], &[&step]));
        nodes.push(cast.with("to", Attribute::Int(DataType::F32.onnx())));
        nodes.push(Node::new("Mul", &format!("{stem}_dequantize"), &[&float, &step], &[&product]));
        if let Some(bias) = bias {
            nodes.push(Node::new("Add", &format!("{stem}_bias"), &[&product, &bias], &[&stem]));
        }
        self.products += 1;
        Some(nodes)
    }

    fn convolution(&mut self, graph: &mut Graph, node: &Node) -> Option<Vec<Node>> {
        let name = node.input(1).filter(|_| node.is("Conv") || node.is("ConvTranspose"))?.to_owned();
        let mut nodes = Vec::new();
        if !self.stored.contains_key(&name) {
            let tensor = graph.constant(&name).filter(|tensor| tensor.len() >= WORTHWHILE)?;
            let dims = tensor.dims.clone();
            // Of a grouped ConvTranspose, output channels are an axis only together with the group: input channels do.
            let (values, scales) = quantize_weights(tensor.as_f32()?, &dims, Some(0));
            let stored = graph.fresh(&format!("{name}_int8"));
            graph.initializers.insert(stored.clone(), Tensor { dims: dims.clone(), data: TensorData::I8(values) });
            let scale = graph.fresh(&format!("{name}_scale"));
            let mut scale_dims = vec![1; dims.len()];
            scale_dims[0] = scales.len();
            graph.initializers.insert(scale.clone(), Tensor::f32(&scale_dims, scales));
            let [integers, floats] = ["integers", "floats"].map(|part| {
                let name = graph.fresh(&format!("{name}_{part}"));
                graph.note(&name, DataType::F32, &dims);
                name
            });
            // Both fold when ONNX Runtime loads the model; a DequantizeLinear would be computed with every inference.
            let cast = Node::new("Cast", &format!("{name}_cast"), &[&stored], &[&integers]);
            nodes.push(cast.with("to", Attribute::Int(DataType::F32.onnx())));
            nodes.push(Node::new("Mul", &format!("{name}_dequantize"), &[&integers, &scale], &[&floats]));
            self.stored.insert(name.clone(), floats);
        }
        let mut node = node.clone();
        node.touch();
        node.inputs[1].clone_from(&self.stored[&name]);
        nodes.push(node);
        self.convolutions += 1;
        Some(nodes)
    }
}
