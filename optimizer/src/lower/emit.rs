//! From draft to file: only what is read stays, and equal constants become one tensor. What stands for an ONNX tensor keeps
//! its name, which layers are compared by; constants and what lies inside an operator's lowering have none, so that a small
//! model stays small.

use std::collections::{HashMap, HashSet};

use edgeyard_tflite::{Blocks, Model, Operator, Quantization, Subgraph, Tensor, WriteError, operator_version, write};

use super::draft::{Draft, TensorId};

pub(super) fn emit(draft: &Draft) -> Result<Vec<u8>, WriteError> {
    let (mut model, _) = model(draft);
    model.set_min_runtime_version();
    write(&model)
}

/// The file's contents, and the ONNX node that each operator comes from.
pub(super) fn model(draft: &Draft) -> (Model, Vec<usize>) {
    let mut nodes = Vec::new();
    let mut model = Model::new("");
    let mut graph = Subgraph::default();
    let mut emitter =
        Emitter { draft, model: &mut model, graph: &mut graph, ids: HashMap::new(), constants: Vec::new() };
    let live = live(draft);
    for (name, tensor) in &draft.inputs {
        let id = emitter.tensor(*tensor, name);
        emitter.graph.inputs.push(id);
    }
    let names = names(draft, &live);
    for (op, _) in draft.ops.iter().zip(&live).filter(|(_, live)| **live) {
        let mut inputs: Vec<i32> =
            op.inputs.iter().map(|input| input.map_or(-1, |tensor| emitter.tensor(tensor, ""))).collect();
        while inputs.last() == Some(&-1) {
            inputs.pop();
        }
        let outputs =
            op.outputs.iter().map(|tensor| emitter.tensor(*tensor, names.get(tensor).unwrap_or(&""))).collect();
        nodes.push(op.node);
        emitter.graph.operators.push(Operator::builtin(op.op, op.options.clone(), inputs, outputs));
    }
    for (name, tensor) in &draft.outputs {
        let id = emitter.tensor(*tensor, name);
        emitter.graph.outputs.push(id);
    }
    for at in 0..graph.operators.len() {
        graph.operators[at].code.version = operator_version(&graph, &graph.operators[at]);
    }
    // One entry per operator kind: the newest version in use covers the others, and older runtimes that lack it could
    // not run the model anyway.
    let newest = graph.operators.iter().fold(HashMap::new(), |mut newest: HashMap<_, i32>, operator| {
        let version = newest.entry(operator.code.builtin).or_default();
        *version = (*version).max(operator.code.version);
        newest
    });
    for operator in &mut graph.operators {
        operator.code.version = newest[&operator.code.builtin];
    }
    model.subgraphs.push(graph);
    (model, nodes)
}

/// What computed tensors are called.
fn names<'a>(draft: &'a Draft, live: &[bool]) -> HashMap<TensorId, &'a str> {
    let mut names: HashMap<TensorId, &str> =
        draft.names.iter().map(|(tensor, name)| (*tensor, name.as_str())).collect();
    let made: HashSet<TensorId> =
        draft.ops.iter().zip(live).filter(|(_, live)| **live).flat_map(|(op, _)| op.outputs.iter().copied()).collect();
    // Where everything that reads a tensor is float, only its float form is there.
    for (outside, inside) in draft.twins.iter().filter(|(outside, _)| !made.contains(outside)) {
        if let Some(name) = names.get(outside).copied() {
            names.insert(*inside, name);
        }
    }
    names.extend(draft.outputs.iter().map(|(name, tensor)| (*tensor, name.as_str())));
    names
}

/// Which operations an output depends on.
fn live(draft: &Draft) -> Vec<bool> {
    let mut wanted = vec![false; draft.tensors.len()];
    for (_, tensor) in &draft.outputs {
        wanted[*tensor] = true;
    }
    let mut live = vec![false; draft.ops.len()];
    for (at, op) in draft.ops.iter().enumerate().rev() {
        live[at] = op.outputs.iter().any(|&tensor| wanted[tensor]);
        if live[at] {
            for &tensor in op.inputs.iter().flatten() {
                wanted[tensor] = true;
            }
        }
    }
    live
}

struct Emitter<'a> {
    draft: &'a Draft,
    model: &'a mut Model,
    graph: &'a mut Subgraph,
    ids: HashMap<TensorId, i32>,
    constants: Vec<i32>,
}

impl Emitter<'_> {
    /// The index of a tensor in the file; adds it at first use.
    fn tensor(&mut self, id: TensorId, name: &str) -> i32 {
        if let Some(&known) = self.ids.get(&id) {
            return known;
        }
        let slot = &self.draft.tensors[id];
        let blocks = slot.blocks.map(|(scales, size)| Blocks {
            scales: self.tensor(scales, ""),
            zero_points: -1,
            size: size as i32,
        });
        let quantization = match blocks {
            Some(_) => Some(Quantization { blocks, ..Quantization::default() }),
            None => slot.quantization.clone(),
        };
        let shape = slot.shape.iter().map(|&dim| dim as i32).collect();
        let mut tensor = Tensor {
            name: name.to_owned(),
            quantization,
            is_variable: slot.variable,
            ..Tensor::new(slot.dtype, shape)
        };
        if let Some(value) = &slot.value {
            let bytes = value.bytes();
            let twin = self.constants.iter().copied().find(|&other| {
                let other = &self.graph.tensors[other as usize];
                (other.dtype, &other.shape, &other.quantization) == (tensor.dtype, &tensor.shape, &tensor.quantization)
                    && self.model.data_of(other) == bytes
            });
            if let Some(twin) = twin {
                self.ids.insert(id, twin);
                return twin;
            }
            tensor.buffer = self.model.add_buffer(bytes);
            self.constants.push(self.graph.tensors.len() as i32);
        }
        self.graph.tensors.push(tensor);
        let index = (self.graph.tensors.len() - 1) as i32;
        self.ids.insert(id, index);
        index
    }
}
