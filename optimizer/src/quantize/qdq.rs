//! Static 8-bit quantisation in ONNX's own terms: QuantizeLinear and DequantizeLinear around every operator that has
//! an integer kernel, placed so that ONNX Runtime's optimiser turns each group into that kernel. Inputs and outputs of
//! the model stay float32.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_job::spec::Granularity;
use thiserror::Error;

use super::parameters::{Asymmetric, Element, WeightError, check_weights, quantize_weights};
use crate::calibrate::{Range, Ranges};
use crate::ir::{Attribute, Graph, Node, Tensor, TensorData};

/// How to quantise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QdqOptions {
    /// How activations are stored.
    pub activations: Element,
    /// Zero points are all 0, with int8 activations: what TensorRT takes.
    pub symmetric: bool,
    /// How many scales weights have.
    pub granularity: Granularity,
    /// Operators that stay in floating point, by the first tensor they make.
    pub keep_float: BTreeSet<String>,
}

impl QdqOptions {
    /// Asymmetric, nothing kept in floating point.
    pub fn new(activations: Element, granularity: Granularity) -> Self {
        Self { activations, symmetric: false, granularity, keep_float: BTreeSet::new() }
    }
}

/// A quantised graph and what to tell about it.
#[derive(Debug)]
pub struct Quantized {
    /// The graph.
    pub graph: Graph,
    /// Remarks for people.
    pub notes: Vec<String>,
}

/// Why a graph cannot be quantised.
#[derive(Debug, Error)]
pub enum QdqError {
    /// No operator of it has an integer kernel.
    #[error("int8 would change nothing: the model has no operator with an integer kernel (Conv, Gemm, MatMul, Add, …)")]
    NothingToDo,
    /// DequantizeLinear for each channel came with opset 13.
    #[error("int8 needs opset 13 or later, the model has {0}: export it again with a later opset")]
    Opset(i64),
    /// A weight is not a number.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// A block size that no runtime takes.
    #[error("passes: blockSize {0} cannot be used: take a power of two from 16 to 256")]
    BlockSize(u32),
    /// DequantizeLinear takes 4-bit integers from opset 21 on.
    #[error("4-bit weights as DequantizeLinear need opset 21, the model has {0}: export it again with a later opset")]
    Int4Opset(i64),
}

/// Quantises the graph with the given ranges.
pub fn quantize(graph: &Graph, ranges: &Ranges, options: &QdqOptions) -> Result<Quantized, QdqError> {
    if graph.opset < 13 {
        return Err(QdqError::Opset(graph.opset));
    }
    check_weights(graph)?;
    let (graph, ranges, options) = (graph.clone(), ranges.clone(), options.clone());
    let mut pass = Pass { graph, ranges, options, notes: Vec::new(), stored: BTreeMap::new() };
    pass.absorb_activations();
    let integer = pass.integer_nodes();
    if integer.is_empty() {
        return Err(QdqError::NothingToDo);
    }
    let parameters = pass.parameters(&integer);
    pass.rewrite(&integer, &parameters);
    pass.report(&integer);
    let Pass { mut graph, notes, .. } = pass;
    crate::simplify::remove_dead(&mut graph);
    Ok(Quantized { graph, notes })
}

/// The operators that would become integers and may be kept in floating point instead: the first tensor each makes,
/// and its name.
pub(super) fn candidates(graph: &Graph, ranges: &Ranges, options: &QdqOptions) -> Vec<(String, String)> {
    let (graph, ranges, options) = (graph.clone(), ranges.clone(), options.clone());
    let pass = Pass { graph, ranges, options, notes: Vec::new(), stored: BTreeMap::new() };
    let costs = |node: &&Node| kind(node).is_some_and(|kind| kind != Kind::Move) && pass.is_integer(node);
    let nodes = pass.graph.nodes.iter().filter(costs);
    nodes.map(|node| (node.output().to_owned(), node.label().to_owned())).collect()
}

/// What an operator does with stored integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Multiplies by constant or computed weights.
    Product,
    /// Computes new values from one or more tensors.
    Compute,
    /// Moves or selects values: input and output share scale and zero point.
    Move,
}

fn kind(node: &Node) -> Option<Kind> {
    if !node.is_standard() {
        return None;
    }
    Some(match node.op_type.as_str() {
        "Conv" | "Gemm" | "MatMul" => Kind::Product,
        "Add" | "Mul" | "AveragePool" | "GlobalAveragePool" | "Concat" | "Sigmoid" | "LeakyRelu" => Kind::Compute,
        "MaxPool" | "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" => Kind::Move,
        _ => return None,
    })
}

struct Pass {
    graph: Graph,
    ranges: Ranges,
    options: QdqOptions,
    notes: Vec<String>,
    /// Dequantised weights by name and axis: layers may share them.
    stored: BTreeMap<(String, Option<usize>), String>,
}

impl Pass {
    /// Removes ReLU and Clip after an operator that gets an integer kernel, where saturation does the same: the
    /// producer then writes the activation's output, whose range is already clamped.
    fn absorb_activations(&mut self) {
        let mut index = 0;
        while index < self.graph.nodes.len() {
            if self.absorb(index).is_none() {
                index += 1;
            }
        }
    }

    fn absorb(&mut self, index: usize) -> Option<()> {
        let node = &self.graph.nodes[index];
        let (low, high) = clamp(&self.graph, node)?;
        let (input, output) = (node.input(0)?.to_owned(), node.output().to_owned());
        let readers = self.graph.nodes.iter().flat_map(Node::reads).filter(|name| *name == input).count();
        let producer = self.graph.nodes.iter().position(|node| node.outputs.contains(&input))?;
        if readers != 1 || self.graph.is_output(&input) || !self.saturates(producer) {
            return None;
        }
        let range = self.ranges.get(&output)?;
        // The clamp must be what limits the stored values: no stored value may lie outside it.
        let range = Range { min: range.min.min(0.0).max(low), max: range.max.max(0.0).min(high) };
        if low > 0.0 || high < 0.0 {
            return None;
        }
        let covered = self.cover(range).range();
        let slack = (covered.max - covered.min) / 255.0 * 0.01;
        // A ReLU whose inputs are all positive clamps nothing that was seen, so saturation at 0 is still right.
        if covered.min < low - slack || covered.max > high + slack {
            return None;
        }
        self.ranges.insert(output.clone(), range);
        self.graph.nodes[producer].touch();
        self.graph.nodes[producer].outputs[0] = output;
        self.graph.nodes.remove(index);
        Some(())
    }

    /// True for a node whose output will be stored as integers.
    fn saturates(&self, index: usize) -> bool {
        let node = &self.graph.nodes[index];
        matches!(kind(node), Some(Kind::Product | Kind::Compute)) && node.outputs.len() == 1 && self.is_integer(node)
    }

    fn cover(&self, range: Range) -> Asymmetric {
        match self.options.symmetric {
            true => Asymmetric::symmetric(range, self.options.activations),
            false => Asymmetric::cover(range, self.options.activations),
        }
    }

    fn integer_nodes(&self) -> BTreeSet<usize> {
        let nodes = self.graph.nodes.iter().enumerate();
        let mut integer: BTreeSet<usize> =
            nodes.filter(|(_, node)| self.is_integer(node)).map(|(index, _)| index).collect();
        // Moving floats costs less than quantising them just to move them: a move is worth it only next to integers.
        let producers = self.graph.producers();
        loop {
            let before = integer.len();
            let useful = |index: &usize| {
                let node = &self.graph.nodes[*index];
                kind(node) != Some(Kind::Move)
                    || node.input(0).and_then(|name| producers.get(name)).is_some_and(|at| integer.contains(at))
            };
            let kept: BTreeSet<usize> = integer.iter().copied().filter(useful).collect();
            integer = kept;
            if integer.len() == before {
                return integer;
            }
        }
    }

    fn is_integer(&self, node: &Node) -> bool {
        let Some(kind) = kind(node) else { return false };
        if self.options.keep_float.contains(node.output()) {
            return false;
        }
        let ranged = |name: &str| self.ranges.contains_key(name);
        let output_known = node.outputs.len() == 1 && ranged(node.output());
        let activation = |index: usize| node.input(index).is_some_and(ranged);
        let float_constant =
            |index: usize| node.input(index).and_then(|n| self.graph.constant(n)).is_some_and(|t| t.as_f32().is_some());
        output_known
            && match kind {
                Kind::Product => {
                    let bias = match (node.op_type.as_str(), node.input(2)) {
                        ("MatMul", _) | (_, None) => true,
                        (_, Some(_)) => float_constant(2),
                    };
                    let plain =
                        node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0 && node.int("transA", 0) == 0;
                    let weights =
                        if node.is("MatMul") { float_constant(1) || activation(1) } else { float_constant(1) };
                    activation(0) && weights && bias && plain
                }
                Kind::Compute => (0..node.inputs.len()).all(|index| activation(index) || float_constant(index)),
                Kind::Move => activation(0),
            }
    }

    /// The parameters of every activation that an integer operator reads or makes.
    fn parameters(&self, integer: &BTreeSet<usize>) -> BTreeMap<String, Asymmetric> {
        let mut parameters = BTreeMap::new();
        // In order, so that what moves values finds the parameters of what it moves.
        for index in integer {
            let node = &self.graph.nodes[*index];
            for name in node.inputs.iter().chain(&node.outputs) {
                let Some(range) = self.ranges.get(name) else { continue };
                let moved = kind(node) == Some(Kind::Move) && *name == node.outputs[0];
                let shared = moved.then(|| node.input(0).and_then(|input| parameters.get(input)).copied()).flatten();
                let own = || self.cover(self.told_apart(name, *range));
                match shared {
                    Some(shared) => drop(parameters.insert(name.clone(), shared)),
                    None => drop(parameters.entry(name.clone()).or_insert_with(own)),
                }
            }
        }
        parameters
    }

    /// The part of a tensor's range that its readers tell apart: HardSwish is 0 up to -3, a HardSigmoid is flat on both
    /// sides. Integers may saturate beyond, and the steps between are the finer for it.
    fn told_apart(&self, name: &str, range: Range) -> Range {
        let mut told: Option<Range> = None;
        if self.graph.is_output(name) {
            return range;
        }
        for node in self.graph.nodes.iter().filter(|node| node.reads().any(|read| read == name)) {
            let seen = match node.op_type.as_str() {
                "HardSwish" if node.is_standard() => Range { min: -3.0, max: f32::INFINITY },
                "HardSigmoid" if node.is_standard() && node.float("alpha", 0.2) > 0.0 => {
                    let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
                    Range { min: -beta / alpha, max: (1.0 - beta) / alpha }
                }
                _ => return range,
            };
            let before = told.unwrap_or(seen);
            told = Some(Range { min: before.min.min(seen.min), max: before.max.max(seen.max) });
        }
        match told {
            Some(told) if told.min <= told.max => {
                Range { min: range.min.clamp(told.min, told.max), max: range.max.clamp(told.min, told.max) }
            }
            _ => range,
        }
    }

    fn rewrite(&mut self, integer: &BTreeSet<usize>, parameters: &BTreeMap<String, Asymmetric>) {
        let nodes = std::mem::take(&mut self.graph.nodes);
        let float_tail = float_tails(&self.graph, &nodes, integer);
        let mut made: BTreeSet<&str> = BTreeSet::new();
        for index in integer.difference(&float_tail) {
            made.insert(nodes[*index].output());
        }
        let mut out = Vec::with_capacity(nodes.len() * 3);
        // The dequantised form of each tensor, made where it is first needed.
        let mut dequantized: BTreeMap<String, String> = BTreeMap::new();
        for input in self.graph.inputs.clone() {
            let wanted = integer.iter().any(|index| nodes[*index].inputs.contains(&input.name));
            if let (true, Some(parameters)) = (wanted, parameters.get(&input.name)) {
                let pair = self.pair(&mut out, &input.name, *parameters);
                dequantized.insert(input.name, pair);
            }
        }
        for (index, node) in nodes.iter().enumerate() {
            let mut node = node.clone();
            if integer.contains(&index) {
                for position in 0..node.inputs.len() {
                    let Some(name) = node.input(position).map(str::to_owned) else { continue };
                    let replacement = if let Some(parameters) = parameters.get(&name) {
                        if !dequantized.contains_key(&name) {
                            let pair = self.pair(&mut out, &name, *parameters);
                            dequantized.insert(name.clone(), pair);
                        }
                        dequantized[&name].clone()
                    } else if self.graph.constant(&name).is_some_and(|tensor| tensor.as_f32().is_some()) {
                        self.constant(&mut out, &node, position, parameters)
                    } else {
                        continue;
                    };
                    node.touch();
                    node.inputs[position] = replacement;
                }
            } else {
                let kept = self.options.keep_float.contains(node.output());
                for position in 0..node.inputs.len() {
                    let Some(name) = dequantized.get(&node.inputs[position]).cloned() else { continue };
                    if kept && self.graph.inputs.iter().any(|input| input.name == node.inputs[position]) {
                        continue;
                    }
                    // Readers in floating point see the same numbers as integer ones.
                    node.raw = None;
                    node.inputs[position] = match kept && position == 0 {
                        true => self.shielded(&mut out, &node, &name).unwrap_or(name),
                        false => name,
                    };
                }
            }
            let output = node.output().to_owned();
            if made.contains(output.as_str())
                && let Some(parameters) = parameters.get(&output)
            {
                // The operator writes under a name of its own; the dequantised tensor is what readers see. A graph
                // output keeps its name for the last of the three.
                let own = self.graph.fresh(&format!("{output}_float"));
                node.touch();
                node.outputs[0] = own.clone();
                out.push(node);
                let target = self.graph.is_output(&output).then(|| output.clone());
                let pair = self.named_pair(&mut out, &output, &own, target, *parameters);
                dequantized.insert(output, pair);
            } else {
                out.push(node);
            }
        }
        self.graph.nodes = out;
    }

    /// Dequantises once more, with a scale for each channel, all of them the same. ONNX Runtime would take an operator
    /// between a DequantizeLinear of one scale and a QuantizeLinear for one that forgot to quantise its weights, and do
    /// so, with one scale for all of them.
    fn shielded(&mut self, out: &mut Vec<Node>, node: &Node, dequantized: &str) -> Option<String> {
        let weights = node.input(1).and_then(|name| self.graph.constant(name))?;
        let channels = match node.op_type.as_str() {
            _ if self.options.symmetric => return None,
            "Conv" => weights.dims.get(1)? * usize::try_from(node.int("group", 1)).ok()?,
            "ConvTranspose" => *weights.dims.first()?,
            "Gemm" => *weights.dims.get(usize::from(node.int("transB", 0) != 0))?,
            _ => return None,
        };
        let source = out.iter().rev().find(|node| node.output() == dequantized)?;
        let [quantized, scale, zero] = [0, 1, 2].map(|at| source.input(at).unwrap_or_default().to_owned());
        let scale = self.graph.constant(&scale)?.as_f32()?.first().copied()?;
        let zero = match &self.graph.constant(&zero)?.data {
            TensorData::U8(zero) => TensorData::U8(vec![*zero.first()?; channels]),
            TensorData::I8(zero) => TensorData::I8(vec![*zero.first()?; channels]),
            _ => return None,
        };
        let stem = format!("{}_channels", node.output());
        let scales = self.graph.fresh(&format!("{stem}_scale"));
        self.graph.initializers.insert(scales.clone(), Tensor::f32(&[channels], vec![scale; channels]));
        let zeros = self.graph.fresh(&format!("{stem}_zero_point"));
        self.graph.initializers.insert(zeros.clone(), Tensor { dims: vec![channels], data: zero });
        let shielded = self.reserve(&stem);
        let inputs = [quantized.as_str(), &scales, &zeros];
        let widen = Node::new("DequantizeLinear", &format!("{stem}_dequantize"), &inputs, &[&shielded]);
        out.push(widen.with("axis", Attribute::Int(1)));
        Some(shielded)
    }

    /// Quantises and dequantises tensor `name`; gives the dequantised one.
    fn pair(&mut self, out: &mut Vec<Node>, name: &str, parameters: Asymmetric) -> String {
        self.named_pair(out, name, name, None, parameters)
    }

    fn named_pair(
        &mut self,
        out: &mut Vec<Node>,
        stem: &str,
        source: &str,
        target: Option<String>,
        parameters: Asymmetric,
    ) -> String {
        let (scale, zero) = self.parameter_constants(stem, parameters);
        let quantized = self.reserve(&format!("{stem}_quantized"));
        let dequantized = match target {
            Some(target) => target,
            None => self.reserve(&format!("{stem}_dequantized")),
        };
        out.push(Node::new("QuantizeLinear", &format!("{stem}_quantize"), &[source, &scale, &zero], &[&quantized]));
        let inputs = [quantized.as_str(), &scale, &zero];
        out.push(Node::new("DequantizeLinear", &format!("{stem}_dequantize"), &inputs, &[&dequantized]));
        dequantized
    }

    /// A fresh name that the next call of `fresh` knows, although no node of the graph has it yet.
    fn reserve(&mut self, stem: &str) -> String {
        let name = self.graph.fresh(stem);
        self.graph.note(&name, crate::ir::DataType::Undefined, &[]);
        name
    }

    fn parameter_constants(&mut self, stem: &str, parameters: Asymmetric) -> (String, String) {
        let scale = self.graph.fresh(&format!("{stem}_scale"));
        self.graph.initializers.insert(scale.clone(), Tensor::f32(&[], vec![parameters.scale]));
        let zero = self.graph.fresh(&format!("{stem}_zero_point"));
        let data = match parameters.element {
            Element::UInt8 => TensorData::U8(vec![parameters.zero_point as u8]),
            Element::Int8 => TensorData::I8(vec![parameters.zero_point as i8]),
        };
        self.graph.initializers.insert(zero.clone(), Tensor { dims: Vec::new(), data });
        (scale, zero)
    }

    /// Stores constant input `position` as integers; gives the dequantised tensor's name.
    fn constant(
        &mut self,
        out: &mut Vec<Node>,
        node: &Node,
        position: usize,
        parameters: &BTreeMap<String, Asymmetric>,
    ) -> String {
        let name = node.inputs[position].clone();
        let tensor = self.graph.initializers[&name].clone();
        let data = tensor.as_f32().unwrap_or_default();
        let is_weights = kind(node) == Some(Kind::Product) && position == 1;
        let shared = (name.clone(), self.weight_axis(node, &tensor));
        if let Some(known) = self.stored.get(&shared).filter(|_| is_weights) {
            return known.clone();
        }
        let dequantized = self.reserve(&format!("{name}_dequantized"));
        let stored = self.graph.fresh(&format!("{name}_int8"));
        let (value, scales, zero, axis) = match (kind(node), position) {
            (Some(Kind::Product), 1) => {
                let axis = shared.1;
                self.stored.insert(shared, dequantized.clone());
                let (values, scales) = quantize_weights(data, &tensor.dims, axis);
                let zero = TensorData::I8(vec![0; scales.len()]);
                (TensorData::I8(values), scales, zero, axis)
            }
            (Some(Kind::Product), 2) => {
                let input = node.input(0).and_then(|name| self.source_of(name, out)).and_then(|n| parameters.get(n));
                let step = input.map_or(1.0, |parameters| parameters.scale);
                let weights = self.weight_scales(node, out);
                let scales: Vec<f32> = weights.iter().map(|scale| scale * step).collect();
                let scale = |at: usize| f64::from(scales[at % scales.len()]);
                let limit = f64::from(i32::MAX);
                let channels = tensor.dims.last().copied().unwrap_or(1).max(1);
                let quantize = |(at, value): (usize, &f32)| {
                    (f64::from(*value) / scale(at % channels)).round().clamp(-limit, limit) as i32
                };
                let values = data.iter().enumerate().map(quantize).collect();
                let axis = (scales.len() > 1).then(|| tensor.dims.len().saturating_sub(1));
                let zero = TensorData::I32(vec![0; scales.len()]);
                (TensorData::I32(values), scales, zero, axis)
            }
            _ => {
                // The other operand of an Add or Mul: stored as activations are.
                let (min, max) = data.iter().fold((0f32, 0f32), |(low, high), v| (low.min(*v), high.max(*v)));
                let own = self.cover(Range { min, max });
                let (low, high) = own.element.limits();
                let store = |value: &f32| ((value / own.scale).round() as i32 + own.zero_point).clamp(low, high);
                let (values, zero) = match own.element {
                    Element::UInt8 => (
                        TensorData::U8(data.iter().map(|value| store(value) as u8).collect()),
                        TensorData::U8(vec![own.zero_point as u8]),
                    ),
                    Element::Int8 => (
                        TensorData::I8(data.iter().map(|value| store(value) as i8).collect()),
                        TensorData::I8(vec![own.zero_point as i8]),
                    ),
                };
                (values, vec![own.scale], zero, None)
            }
        };
        self.graph.initializers.insert(stored.clone(), Tensor { dims: tensor.dims.clone(), data: value });
        let dims = if axis.is_some() { vec![scales.len()] } else { Vec::new() };
        let scale_name = self.graph.fresh(&format!("{name}_scale"));
        self.graph.initializers.insert(scale_name.clone(), Tensor::f32(&dims, scales));
        let zero_name = self.graph.fresh(&format!("{name}_zero_point"));
        self.graph.initializers.insert(zero_name.clone(), Tensor { dims, data: zero });
        let inputs = [stored.as_str(), &scale_name, &zero_name];
        let mut dequantize = Node::new("DequantizeLinear", &format!("{name}_dequantize"), &inputs, &[&dequantized]);
        if let Some(axis) = axis {
            dequantize.set("axis", Attribute::Int(axis as i64));
        }
        out.push(dequantize);
        dequantized
    }

    /// The axis of output channels, if weights get a scale for each.
    fn weight_axis(&self, node: &Node, weights: &Tensor) -> Option<usize> {
        if self.options.granularity == Granularity::PerTensor || weights.dims.len() < 2 {
            return None;
        }
        match node.op_type.as_str() {
            "Conv" => Some(0),
            "Gemm" => Some(usize::from(node.int("transB", 0) == 0)),
            // Integer matrix products take a scale for each column of a plain matrix only.
            "MatMul" if weights.dims.len() == 2 => Some(1),
            _ => None,
        }
    }

    /// The name that a dequantised tensor had before.
    fn source_of<'a>(&self, dequantized: &'a str, out: &'a [Node]) -> Option<&'a str> {
        // A pair is named for its stem, which is the key of the parameters.
        let node = out.iter().rev().find(|node| node.output() == dequantized)?;
        node.name.strip_suffix("_dequantize")
    }

    /// The scales of the weights that were just stored for this node.
    fn weight_scales(&self, node: &Node, out: &[Node]) -> Vec<f32> {
        let made = node.input(1).and_then(|name| out.iter().rev().find(|node| node.output() == name));
        let scale = made.and_then(|node| node.input(1)).and_then(|name| self.graph.constant(name));
        scale.and_then(Tensor::to_f32).unwrap_or_else(|| vec![1.0])
    }

    fn report(&mut self, integer: &BTreeSet<usize>) {
        let mut float: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &self.graph.nodes {
            let ours = matches!(node.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear");
            let float_output = node.outputs.iter().any(|name| self.ranges.contains_key(name));
            if !ours && kind(node).is_none() && float_output {
                *float.entry(node.op_type.as_str()).or_default() += 1;
            }
        }
        self.notes.push(format!("{} operators in 8-bit integers", integer.len()));
        if !float.is_empty() {
            let list: Vec<String> = float.iter().map(|(op, count)| format!("{count} {op}")).collect();
            self.notes.push(format!("kept in float32, without an integer kernel in ONNX Runtime: {}", list.join(", ")));
        }
    }
}

/// The bounds of a Relu or Clip.
fn clamp(graph: &Graph, node: &Node) -> Option<(f32, f32)> {
    if node.is("Relu") {
        return Some((0.0, f32::INFINITY));
    }
    if !node.is("Clip") {
        return None;
    }
    let bound = |index: usize, default: f32| match node.input(index) {
        None => Some(default),
        Some(name) => graph.constant(name)?.as_f32()?.first().copied(),
    };
    Some((bound(1, f32::NEG_INFINITY)?, bound(2, f32::INFINITY)?))
}

/// Products whose result only goes to outputs of the graph or to a last Softmax: their integer kernels give float32
/// at no cost, and the scores keep their resolution.
fn float_tails(graph: &Graph, nodes: &[Node], integer: &BTreeSet<usize>) -> BTreeSet<usize> {
    let is_tail = |index: &usize| {
        let node = &nodes[*index];
        if !matches!(node.op_type.as_str(), "Gemm" | "MatMul") {
            return false;
        }
        let mut readers = nodes.iter().filter(|reader| reader.reads().any(|name| name == node.output())).peekable();
        let output = graph.is_output(node.output());
        (output || readers.peek().is_some())
            && readers.all(|reader| matches!(reader.op_type.as_str(), "Softmax" | "LogSoftmax"))
    };
    integer.iter().copied().filter(is_tail).collect()
}
