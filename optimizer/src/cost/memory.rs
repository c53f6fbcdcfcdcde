//! The memory that activations need at once. A tensor lives from the operator that makes it to the last that reads it;
//! inputs of the graph from the start, outputs to the end. What every runtime does without a copy shares memory:
//! reshapes, elementwise functions whose input nobody else reads, and the two sides of a quantisation.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{DataType, Graph, Node};

use super::Shaped;

/// Functions of one tensor that runtimes compute in place or within the operator before.
const IN_PLACE: &[&str] = &[
    "Relu",
    "Clip",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Tanh",
    "Softplus",
    "Softsign",
    "Exp",
    "Log",
    "Sqrt",
    "Abs",
    "Neg",
    "Erf",
    "Gelu",
    "Mish",
    "BatchNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "Softmax",
];
const VIEWS: &[&str] = &["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"];

/// The peak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peak {
    /// Bytes.
    pub bytes: u64,
    /// Tensors that are not counted because their shape or type is not known.
    pub unknown: Vec<String>,
}

/// One piece of memory and when it is needed: from step `from` to step `to`, both included.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    bytes: u64,
    from: usize,
    to: usize,
}

/// The peak of live activation bytes over the graph's operators in order.
pub fn peak(graph: &Graph, shaped: &Shaped) -> Peak {
    let mut unknown = Vec::new();
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for name in graph.nodes.iter().flat_map(Node::reads) {
        *readers.entry(name).or_default() += 1;
    }
    let end = graph.nodes.len();
    let mut buffers: Vec<Buffer> = Vec::new();
    let mut place: BTreeMap<&str, usize> = BTreeMap::new();
    // Made from constants alone: computed once, not for each inference.
    let mut constant: BTreeSet<&str> = graph.initializers.keys().map(String::as_str).collect();
    let bytes = |name: &str| -> Option<u64> {
        let (dtype, shape) = (shaped.dtype(name)?, shaped.shape(graph, name)?);
        let size = if dtype == DataType::Undefined { None } else { dtype.size() }?;
        shape.iter().try_fold(size as u64, |len, dim| len.checked_mul(*dim as u64))
    };
    for input in &graph.inputs {
        match bytes(&input.name) {
            Some(bytes) => {
                place.insert(&input.name, buffers.len());
                buffers.push(Buffer { bytes, from: 0, to: 0 });
            }
            None => unknown.push(input.name.clone()),
        }
    }
    for (step, node) in graph.nodes.iter().enumerate() {
        for name in node.reads() {
            if let Some(at) = place.get(name) {
                buffers[*at].to = step;
            }
        }
        if node.reads().all(|name| constant.contains(name) || shaped.computed(name).is_some()) {
            constant.extend(node.outputs.iter().map(String::as_str));
            continue;
        }
        for (index, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if shaped.computed(name).is_some() {
                continue;
            }
            let Some(bytes) = bytes(name) else {
                unknown.push(name.clone());
                continue;
            };
            let source = node.input(0).filter(|_| index == 0 && node.is_standard());
            let shared = source.and_then(|input| {
                let alone = readers.get(input) == Some(&1) && !graph.is_output(input) && !is_input(graph, input);
                let view = VIEWS.contains(&node.op_type.as_str());
                (view || alone && IN_PLACE.contains(&node.op_type.as_str())).then(|| place.get(input).copied())?
            });
            match shared {
                // Quantised within the operator before: the wide form never exists.
                Some(at) => {
                    place.insert(name, at);
                    buffers[at].bytes = buffers[at].bytes.min(bytes);
                    buffers[at].to = step;
                }
                None => {
                    place.insert(name, buffers.len());
                    buffers.push(Buffer { bytes, from: step, to: step });
                }
            }
        }
    }
    for output in &graph.outputs {
        if let Some(at) = place.get(output.name.as_str()) {
            buffers[*at].to = end;
        }
    }
    // Changes of the live sum at each step; what ends at a step is still needed there.
    let mut change = vec![0i128; end + 2];
    for Buffer { bytes, from, to } in buffers {
        change[from] += i128::from(bytes);
        change[to + 1] -= i128::from(bytes);
    }
    let (mut live, mut most) = (0i128, 0i128);
    for step in change {
        live += step;
        most = most.max(live);
    }
    Peak { bytes: u64::try_from(most).unwrap_or(u64::MAX), unknown }
}

fn is_input(graph: &Graph, name: &str) -> bool {
    graph.inputs.iter().any(|input| input.name == name)
}
