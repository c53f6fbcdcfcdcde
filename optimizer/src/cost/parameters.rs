//! Which constants are parameters, how many of them are zero, and in what range they lie.

use std::collections::BTreeSet;

use crate::ir::{DataType, Graph, Node, Tensor, TensorData};

/// The parameters that one node brings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Own {
    /// How many.
    pub count: u64,
    /// How many are not zero.
    pub nonzero: u64,
    /// Smallest and largest weight.
    pub range: Option<(f32, f32)>,
}

/// Counts each constant once, at the node that reads it first.
#[derive(Debug)]
pub struct Counted<'a> {
    graph: &'a Graph,
    seen: BTreeSet<&'a str>,
    /// What could not be looked into.
    pub notes: Vec<String>,
}

impl<'a> Counted<'a> {
    /// Nothing counted yet.
    pub fn new(graph: &'a Graph) -> Self {
        Self { graph, seen: BTreeSet::new(), notes: Vec::new() }
    }

    /// The parameters of the next node.
    pub fn of(&mut self, node: &'a Node) -> Own {
        let mut own = Own::default();
        for (index, name) in node.inputs.iter().enumerate() {
            let Some(tensor) = self.graph.initializers.get(name) else { continue };
            if !is_parameter(node, index, tensor) || !self.seen.insert(name) {
                continue;
            }
            if node.op_type == "MatMulNBits" && index == 1 {
                own.count += (node.int("K", 0) * node.int("N", 0)).max(0) as u64;
                own.nonzero += nibbles(node, tensor);
                continue;
            }
            own.count += tensor.len() as u64;
            let stored = Stored::new(self.graph, node, index, tensor);
            match stored.look(tensor) {
                Some((nonzero, low, high)) => {
                    own.nonzero += nonzero;
                    if is_weight(node, index, tensor) && low <= high {
                        let (a, b) = own.range.unwrap_or((low, high));
                        own.range = Some((a.min(low), b.max(high)));
                    }
                }
                None => {
                    own.nonzero += tensor.len() as u64;
                    self.notes.push(format!("zeros of {name} are not told apart: its element type is not read"));
                }
            }
        }
        own
    }
}

/// Inputs of an operator that are settings, not parameters: `(from, except)`.
fn is_parameter(node: &Node, index: usize, tensor: &Tensor) -> bool {
    if matches!(tensor.dtype(), DataType::Bool | DataType::I64 | DataType::Undefined | DataType::String) {
        return false;
    }
    match node.op_type.as_str() {
        "Clip" | "Pad" | "Resize" | "Upsample" | "Reshape" | "Slice" | "Expand" | "Tile" | "Dropout"
        | "QuantizeLinear" | "Range" | "OneHot" | "TopK" | "CumSum" | "Split" | "Squeeze" | "Unsqueeze" => false,
        "DequantizeLinear" => index == 0,
        "QLinearConv" => matches!(index, 3 | 8),
        "QLinearMatMul" => index == 3,
        "QGemm" => matches!(index, 3 | 6),
        "ConvInteger" | "MatMulInteger" => index == 1,
        "MatMulNBits" => matches!(index, 1 | 5),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Mod" | "Where" | "Sum" | "Mean" | "Equal"
        | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" => tensor.len() > 1,
        _ => tensor.dtype() != DataType::I32,
    }
}

/// Weights in the narrow sense: what products are made with.
fn is_weight(node: &Node, index: usize, tensor: &Tensor) -> bool {
    match node.op_type.as_str() {
        "QLinearConv" | "QLinearMatMul" | "QGemm" => index == 3,
        "DequantizeLinear" => tensor.dtype() != DataType::I32 && tensor.dims.len() > 1,
        "Conv" | "ConvTranspose" | "Gemm" | "ConvInteger" | "MatMulInteger" => index == 1,
        _ => tensor.dims.len() > 1,
    }
}

/// How stored integers become numbers.
struct Stored {
    scale: Option<Vec<f32>>,
    zero: Vec<i64>,
    /// Elements for each step along the quantised axis.
    inner: usize,
}

impl Stored {
    fn new(graph: &Graph, node: &Node, index: usize, tensor: &Tensor) -> Self {
        let (scale, zero, axis) = match (node.op_type.as_str(), index) {
            ("DequantizeLinear", 0) => (1, 2, node.int("axis", 1)),
            ("QLinearConv", 3) => (4, 5, 0),
            ("QLinearMatMul" | "QGemm", 3) => (4, 5, -1),
            _ => return Self { scale: None, zero: Vec::new(), inner: 1 },
        };
        let axis = crate::ir::axis(axis, tensor.dims.len()).unwrap_or(0);
        let constant = |at: usize| node.input(at).and_then(|name| graph.constant(name));
        let inner = tensor.dims.get(axis + 1..).unwrap_or_default().iter().product::<usize>().max(1);
        Self {
            scale: constant(scale).and_then(Tensor::to_f32),
            zero: constant(zero).and_then(Tensor::to_i64).unwrap_or_default(),
            inner,
        }
    }

    /// How many are not zero, the smallest and the largest.
    fn look(&self, tensor: &Tensor) -> Option<(u64, f32, f32)> {
        let integer = tensor.to_i64();
        let float = if integer.is_none() { tensor.to_f32() } else { None };
        if let TensorData::F64(values) = &tensor.data {
            let nonzero = values.iter().filter(|value| **value != 0.0).count() as u64;
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            return Some((nonzero, low as f32, high as f32));
        }
        let pick = |list: &[i64], at: usize| match list.len() {
            0 => 0,
            1 => list[0],
            len => list[at / self.inner % len],
        };
        let (mut nonzero, mut low, mut high) = (0, f32::INFINITY, f32::NEG_INFINITY);
        let mut see = |is_zero: bool, value: f32| {
            nonzero += u64::from(!is_zero);
            (low, high) = (low.min(value), high.max(value));
        };
        match (&integer, &float) {
            (Some(values), _) => {
                for (at, value) in values.iter().enumerate() {
                    let shifted = value - pick(&self.zero, at);
                    let scale = match self.scale.as_deref() {
                        Some([one]) => *one,
                        Some(list) if !list.is_empty() => list[at / self.inner % list.len()],
                        _ => 1.0,
                    };
                    see(shifted == 0, shifted as f32 * scale);
                }
            }
            (None, Some(values)) => values.iter().for_each(|value| see(*value == 0.0, *value)),
            (None, None) => return None,
        }
        Some((nonzero, low, high))
    }
}

/// Values of a `MatMulNBits` weight that are not its default zero point, 2^(bits − 1), padding of blocks left out.
fn nibbles(node: &Node, tensor: &Tensor) -> u64 {
    let all = (node.int("K", 0) * node.int("N", 0)).max(0) as u64;
    let (TensorData::U8(bytes), 4, None) = (&tensor.data, node.int("bits", 4), node.input(3)) else { return all };
    let (Ok(inner), [_, blocks, width]) = (usize::try_from(node.int("K", 0)), tensor.dims.as_slice()) else {
        return all;
    };
    let row = blocks * width;
    let value = |row: &[u8], at: usize| if at.is_multiple_of(2) { row[at / 2] & 15 } else { row[at / 2] >> 4 };
    if row * 2 < inner {
        return all;
    }
    bytes.chunks_exact(row).map(|row| (0..inner).filter(|at| value(row, *at) != 8).count() as u64).sum()
}
