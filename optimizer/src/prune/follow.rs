//! How each operator ties the channels of its tensors together. An operator that is not known here keeps all its channels.

use crate::ir::{Graph, Node, axis, permutation, slice_ranges};

use super::labels::{Axes, FROZEN, Labels};
use crate::cost::Shaped;

/// Functions of one tensor, element by element; further inputs are settings.
const ELEMENTWISE: &[&str] = &[
    "Relu",
    "Sigmoid",
    "Tanh",
    "HardSwish",
    "HardSigmoid",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Softplus",
    "Softsign",
    "Exp",
    "Log",
    "Sqrt",
    "Abs",
    "Neg",
    "Floor",
    "Ceil",
    "Round",
    "Erf",
    "Sign",
    "Reciprocal",
    "Sin",
    "Cos",
    "Tan",
    "Clip",
    "Identity",
    "Gelu",
    "Mish",
    "ThresholdedRelu",
    "Celu",
    "Not",
    "Cast",
    "Dropout",
];
const BROADCAST: &[&str] = &["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu", "Sum", "Mean", "Where"];

/// Finds the labels of every tensor.
pub(super) struct Follow<'a> {
    pub graph: &'a Graph,
    /// Shapes for one sample.
    pub shaped: &'a Shaped,
    /// Shapes for two, which show where the batch is.
    pub two: &'a Shaped,
    pub labels: Labels,
}

impl Follow<'_> {
    /// Walks the graph.
    pub fn run(mut self) -> Labels {
        let graph = self.graph;
        for input in &graph.inputs {
            self.frozen(&input.name);
        }
        for node in &graph.nodes {
            if self.shaped.computed(node.output()).is_some() {
                continue;
            }
            let known = if node.is_standard() && node.captures.is_empty() { self.node(node) } else { None };
            if let Some(outputs) = known {
                for (name, axes) in node.outputs.iter().zip(outputs) {
                    let shape = self.shaped.shape(graph, name);
                    let fits = shape.is_some_and(|shape| shape.iter().copied().eq(axes.iter().map(Vec::len)));
                    debug_assert!(fits || name.is_empty(), "{name}: {shape:?}");
                    self.labels.tensors.insert(name.clone(), axes);
                }
            } else {
                let reason = format!("{} {}", node.op_type, node.label());
                for name in node.reads() {
                    self.freeze_tensor(name, &reason);
                }
                for name in &node.outputs {
                    self.frozen(name);
                }
            }
        }
        for output in &graph.outputs {
            self.freeze_tensor(&output.name, &format!("output {}", output.name));
        }
        self.labels
    }

    /// A tensor of which nothing can go.
    fn frozen(&mut self, name: &str) {
        if let Some(shape) = self.shaped.shape(self.graph, name) {
            self.labels.tensors.insert(name.to_owned(), shape.iter().map(|len| vec![FROZEN; *len]).collect());
        }
    }

    fn freeze_tensor(&mut self, name: &str, reason: &str) {
        for axis in self.of(name).unwrap_or_default() {
            self.labels.freeze(&axis, reason);
        }
    }

    /// The labels of a tensor; constants get theirs when they are met first.
    fn of(&mut self, name: &str) -> Option<Axes> {
        if let Some(axes) = self.labels.tensors.get(name) {
            return Some(axes.clone());
        }
        let tensor = self.graph.constant(name)?;
        let axes: Axes = match tensor.as_f32() {
            Some(_) => tensor.dims.iter().map(|len| self.labels.fresh(*len)).collect(),
            // Only float32 constants are cut.
            None => tensor.dims.iter().map(|len| vec![FROZEN; *len]).collect(),
        };
        self.labels.tensors.insert(name.to_owned(), axes.clone());
        Some(axes)
    }

    fn input(&mut self, node: &Node, index: usize) -> Option<Axes> {
        self.of(node.input(index)?)
    }

    /// Labels of all outputs; `None` when the operator keeps everything.
    fn node(&mut self, node: &Node) -> Option<Vec<Axes>> {
        let reason = format!("{} {}", node.op_type, node.label());
        let graph = self.graph;
        let shape = self.shaped.shape(graph, node.output())?.to_vec();
        match node.op_type.as_str() {
            "Conv" => self.conv(node, &shape),
            "ConvTranspose" => self.conv_transpose(node, &shape),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "BatchNormalization" | "InstanceNormalization" if node.outputs.iter().skip(1).all(String::is_empty) => {
                let x = self.input(node, 0)?;
                for index in 1..node.inputs.len() {
                    let parameter = self.input(node, index)?;
                    self.labels.join_axes(x.get(1)?, parameter.first()?).then_some(())?;
                }
                Some(vec![x])
            }
            name if ELEMENTWISE.contains(&name) => {
                let x = self.input(node, 0)?;
                Some(node.outputs.iter().map(|_| x.clone()).collect())
            }
            name if BROADCAST.contains(&name) => {
                let inputs: Option<Vec<Axes>> = (0..node.inputs.len()).map(|index| self.input(node, index)).collect();
                Some(vec![self.broadcast(&inputs?, &shape, &reason)?])
            }
            "MaxPool" | "AveragePool" | "LpPool" | "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let x = self.input(node, 0)?;
                if node.outputs.iter().skip(1).any(|name| !name.is_empty()) {
                    return None;
                }
                Some(vec![self.spatial(&x, x.get(1)?.clone(), &shape, &reason)?])
            }
            "Softmax" | "LogSoftmax" => {
                let x = self.input(node, 0)?;
                let at = axis(node.int("axis", if graph.opset < 13 { 1 } else { -1 }), x.len())?;
                let across = if graph.opset < 13 { at..x.len() } else { at..at + 1 };
                x[across].iter().for_each(|axis| self.labels.freeze(axis, &reason));
                Some(vec![x])
            }
            "LayerNormalization" if node.outputs.len() == 1 => {
                let x = self.input(node, 0)?;
                let at = axis(node.int("axis", -1), x.len())?;
                x[at..].iter().for_each(|axis| self.labels.freeze(axis, &reason));
                for index in 1..node.inputs.len() {
                    self.freeze_tensor(node.input(index)?, &reason);
                }
                Some(vec![x])
            }
            "Concat" => self.concat(node, &reason),
            "Split" => {
                let x = self.input(node, 0)?;
                let at = axis(node.int("axis", 0), x.len())?;
                let mut first = 0;
                let mut outputs = Vec::new();
                for name in &node.outputs {
                    let size = self.shaped.shape(graph, name)?[at];
                    let mut part = x.clone();
                    part[at] = x[at].get(first..first + size)?.to_vec();
                    first += size;
                    outputs.push(part);
                }
                Some(outputs)
            }
            "Slice" => {
                let mut x = self.input(node, 0)?;
                let dims: Vec<usize> = x.iter().map(Vec::len).collect();
                let ranges = slice_ranges(graph, node, &dims).ok()??;
                for (labels, range) in x.iter_mut().zip(ranges) {
                    if range.step != 1 {
                        self.labels.freeze(labels, &reason);
                        *labels = vec![FROZEN; range.count];
                    } else {
                        *labels = labels.get(range.start..range.start + range.count)?.to_vec();
                    }
                }
                Some(vec![x])
            }
            "Pad" => {
                let x = self.input(node, 0)?;
                self.same_or_frozen(x, &shape, &reason)
            }
            "Resize" => {
                // New sizes must be a constant that can be rewritten.
                if node.input(3).is_some_and(|sizes| graph.constant(sizes).is_none()) || node.has("axes") {
                    return None;
                }
                let x = self.input(node, 0)?;
                self.same_or_frozen(x, &shape, &reason)
            }
            "Transpose" => {
                let x = self.input(node, 0)?;
                let order = permutation(node, x.len()).ok()?;
                Some(vec![order.into_iter().map(|axis| x[axis].clone()).collect()])
            }
            "Reshape" => {
                reshape_target(graph, self.shaped, self.two, node)?;
                let x = self.input(node, 0)?;
                Some(vec![self.labels.reshape(&x, &shape, &reason)])
            }
            "Flatten" | "Squeeze" | "Unsqueeze" => {
                let x = self.input(node, 0)?;
                Some(vec![self.labels.reshape(&x, &shape, &reason)])
            }
            name if name.starts_with("Reduce") => self.reduce(node, &shape, &reason),
            _ => None,
        }
    }

    /// Channels as given, other axes of an image frozen on both sides but the batch.
    fn spatial(&mut self, x: &Axes, channels: Vec<u32>, shape: &[usize], reason: &str) -> Option<Axes> {
        x.get(2..)?.iter().for_each(|axis| self.labels.freeze(axis, reason));
        let mut out = vec![x[0].clone(), channels];
        out.extend(shape.get(2..)?.iter().map(|len| vec![FROZEN; *len]));
        Some(out)
    }

    /// Ties input channels and rows of weights of a grouped convolution. With more groups than channels in a group, whole groups go
    /// (a depthwise convolution is the extreme); with few wide groups, the same channels of every group.
    fn grouped(&mut self, inputs: &[u32], outputs: &[u32], groups: usize) -> Option<bool> {
        let (per_in, per_out) = (inputs.len() / groups, outputs.len() / groups);
        if per_in * groups != inputs.len() || per_out * groups != outputs.len() || per_in * per_out == 0 {
            return None;
        }
        let whole = groups >= per_in;
        if whole {
            for group in 0..groups {
                let first = inputs[group * per_in];
                let members = inputs[group * per_in..(group + 1) * per_in].iter();
                for label in members.chain(&outputs[group * per_out..(group + 1) * per_out]) {
                    self.labels.join(first, *label);
                }
            }
        } else {
            for (list, per) in [(inputs, per_in), (outputs, per_out)] {
                for at in per..list.len() {
                    self.labels.join(list[at % per], list[at]);
                }
            }
        }
        Some(whole)
    }

    fn conv(&mut self, node: &Node, shape: &[usize]) -> Option<Vec<Axes>> {
        let reason = format!("Conv {}", node.label());
        let (x, w) = (self.input(node, 0)?, self.input(node, 1)?);
        let groups = usize::try_from(node.int("group", 1)).ok().filter(|groups| *groups > 0)?;
        w.get(2..)?.iter().for_each(|axis| self.labels.keep(axis));
        if graph_input(self.graph, node, 1) {
            w.iter().for_each(|axis| self.labels.freeze(axis, &reason));
        }
        if groups == 1 {
            self.labels.join_axes(x.get(1)?, &w[1]).then_some(())?;
        } else {
            match self.grouped(x.get(1)?, &w[0], groups)? {
                true => self.labels.keep(&w[1]),
                false => {
                    self.labels.join_axes(&x[1][..w[1].len()], &w[1]).then_some(())?;
                }
            }
        }
        if node.input(2).is_some() {
            let bias = self.input(node, 2)?;
            self.labels.join_axes(bias.first()?, &w[0]).then_some(())?;
        }
        Some(vec![self.spatial(&x, w[0].clone(), shape, &reason)?])
    }

    fn conv_transpose(&mut self, node: &Node, shape: &[usize]) -> Option<Vec<Axes>> {
        let reason = format!("ConvTranspose {}", node.label());
        let (x, w) = (self.input(node, 0)?, self.input(node, 1)?);
        let groups = usize::try_from(node.int("group", 1)).ok().filter(|groups| *groups > 0)?;
        w.get(2..)?.iter().for_each(|axis| self.labels.keep(axis));
        if graph_input(self.graph, node, 1) {
            w.iter().for_each(|axis| self.labels.freeze(axis, &reason));
        }
        self.labels.join_axes(x.get(1)?, &w[0]).then_some(())?;
        let outputs = if groups == 1 {
            w[1].clone()
        } else {
            // Weights [inputs, outputs of a group]: every group has the same columns.
            let outputs = self.labels.fresh(w[1].len() * groups);
            match self.grouped(&w[0], &outputs, groups)? {
                true => self.labels.keep(&w[1]),
                false => {
                    self.labels.join_axes(&outputs[..w[1].len()], &w[1]).then_some(())?;
                }
            }
            outputs
        };
        if node.input(2).is_some() {
            let bias = self.input(node, 2)?;
            self.labels.join_axes(bias.first()?, &outputs).then_some(())?;
        }
        Some(vec![self.spatial(&x, outputs, shape, &reason)?])
    }

    fn gemm(&mut self, node: &Node) -> Option<Vec<Axes>> {
        let (a, b) = (self.input(node, 0)?, self.input(node, 1)?);
        if !is_constant(self.graph, node, 0) && !is_constant(self.graph, node, 1) {
            return None;
        }
        let (mut a, mut b) = (a, b);
        if node.int("transA", 0) != 0 {
            a.reverse();
        }
        if node.int("transB", 0) != 0 {
            b.reverse();
        }
        let ([rows, inner], [inner_b, columns]) = (a.as_slice(), b.as_slice()) else { return None };
        self.labels.join_axes(inner, inner_b).then_some(())?;
        let out = vec![rows.clone(), columns.clone()];
        if node.input(2).is_some() {
            let bias = self.input(node, 2)?;
            let shape: Vec<usize> = out.iter().map(Vec::len).collect();
            return Some(vec![self.broadcast(&[out, bias], &shape, &format!("Gemm {}", node.label()))?]);
        }
        Some(vec![out])
    }

    fn matmul(&mut self, node: &Node) -> Option<Vec<Axes>> {
        if !is_constant(self.graph, node, 0) && !is_constant(self.graph, node, 1) {
            return None;
        }
        let (a, b) = (self.input(node, 0)?, self.input(node, 1)?);
        let ([batch_a @ .., rows, inner], [batch_b @ .., inner_b, columns]) = (a.as_slice(), b.as_slice()) else {
            return None;
        };
        self.labels.join_axes(inner, inner_b).then_some(())?;
        let shape = self.shaped.shape(self.graph, node.output())?;
        let batch = shape[..shape.len() - 2].to_vec();
        let reason = format!("MatMul {}", node.label());
        let mut out = self.broadcast(&[batch_a.to_vec(), batch_b.to_vec()], &batch, &reason)?;
        out.push(rows.clone());
        out.push(columns.clone());
        Some(vec![out])
    }

    /// Joins what meets; an index that meets many must stay.
    fn broadcast(&mut self, inputs: &[Axes], shape: &[usize], reason: &str) -> Option<Axes> {
        let mut out = Vec::with_capacity(shape.len());
        for (position, len) in shape.iter().enumerate() {
            let mut axis: Option<Vec<u32>> = None;
            for input in inputs {
                let Some(own) = (position + input.len()).checked_sub(shape.len()).map(|at| &input[at]) else {
                    continue;
                };
                if own.len() != *len {
                    self.labels.freeze(own, reason);
                    continue;
                }
                match &axis {
                    None => axis = Some(own.clone()),
                    Some(first) => {
                        self.labels.join_axes(first, own).then_some(())?;
                    }
                }
            }
            out.push(axis?);
        }
        Some(out)
    }

    fn concat(&mut self, node: &Node, reason: &str) -> Option<Vec<Axes>> {
        let inputs: Option<Vec<Axes>> = (0..node.inputs.len()).map(|index| self.input(node, index)).collect();
        let inputs = inputs?;
        let mut out = inputs.first()?.clone();
        let at = axis(node.int("axis", 0), out.len())?;
        for input in &inputs[1..] {
            for position in 0..out.len() {
                if position == at {
                    let mut more = input.get(at)?.clone();
                    out[at].append(&mut more);
                } else if !self.labels.join_axes(&out[position].clone(), input.get(position)?) {
                    self.labels.freeze(&input[position], reason);
                    return None;
                }
            }
        }
        Some(vec![out])
    }

    /// Axes that keep their length keep their labels, others stay whole.
    fn same_or_frozen(&mut self, x: Axes, shape: &[usize], reason: &str) -> Option<Vec<Axes>> {
        if x.len() != shape.len() {
            return None;
        }
        let axes = x.into_iter().zip(shape).map(|(labels, len)| {
            if labels.len() == *len {
                return labels;
            }
            self.labels.freeze(&labels, reason);
            vec![FROZEN; *len]
        });
        Some(vec![axes.collect()])
    }

    fn reduce(&mut self, node: &Node, shape: &[usize], reason: &str) -> Option<Vec<Axes>> {
        let x = self.input(node, 0)?;
        let given = match node.input(1) {
            Some(name) => Some(self.graph.constant(name)?.to_i64()?),
            None => node.ints("axes").map(<[i64]>::to_vec),
        };
        let axes: Vec<usize> = match given {
            Some(axes) if !axes.is_empty() => axes.iter().map(|value| axis(*value, x.len())).collect::<Option<_>>()?,
            _ if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
            _ => (0..x.len()).collect(),
        };
        let keep = node.int("keepdims", 1) != 0;
        let mut out = Vec::with_capacity(shape.len());
        for (position, labels) in x.into_iter().enumerate() {
            if !axes.contains(&position) {
                out.push(labels);
                continue;
            }
            self.labels.freeze(&labels, reason);
            if keep {
                out.push(vec![FROZEN]);
            }
        }
        Some(vec![out])
    }
}

fn is_constant(graph: &Graph, node: &Node, index: usize) -> bool {
    node.input(index).is_some_and(|name| graph.constant(name).is_some())
}

/// True when a weight is no constant.
fn graph_input(graph: &Graph, node: &Node, index: usize) -> bool {
    !is_constant(graph, node, index)
}

/// The target of a Reshape as a constant that holds for every batch, with 0 for "as in the input" and -1 for "the rest";
/// `None` when there is none.
pub(super) fn reshape_target(graph: &Graph, one: &Shaped, two: &Shaped, node: &Node) -> Option<Vec<i64>> {
    let name = node.input(1)?;
    if let Some(constant) = graph.constant(name) {
        return constant.to_i64();
    }
    if node.int("allowzero", 0) != 0 {
        return None;
    }
    let (first, second) = (one.computed(name)?.to_i64()?, two.computed(name)?.to_i64()?);
    if first.len() != second.len() {
        return None;
    }
    let input = node.input(0)?;
    let (in_one, in_two) = (one.shape(graph, input)?, two.shape(graph, input)?);
    first
        .iter()
        .zip(&second)
        .enumerate()
        .map(|(at, (a, b))| {
            let copied =
                || in_one.get(at).map(|d| *d as i64) == Some(*a) && in_two.get(at).map(|d| *d as i64) == Some(*b);
            if a == b { Some(*a) } else { copied().then_some(0) }
        })
        .collect()
}
