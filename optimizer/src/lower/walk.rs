//! Walks the ONNX graph in order and builds the draft: looks up operands in the layout an operator asks for, records
//! where each result lies, and fuses activations into what precedes them.

use std::collections::BTreeMap;

use edgeyard_tflite::{Activation, BuiltinOp, Options, TensorType, op_options};

use super::LowerError;
use super::draft::{Draft, TensorId, Value};
use super::layout::{Layout, Stored};
use super::ops;
use crate::ir::{DataType, Graph, Node, TensorData};

/// A tensor of more elements than this (256 MiB of floats) is refused, before lists as long are made for it.
const MAX_ELEMENTS: usize = 1 << 26;

/// The state of the walk, and what operators' lowerings see.
pub(super) struct Walk<'g> {
    pub graph: &'g Graph,
    pub draft: Draft,
    pub notes: Vec<String>,
    /// Index of the node being lowered.
    pub at: usize,
    /// Operators that compute whole sequences in floats are there.
    pub sequences: bool,
    stored: BTreeMap<&'g str, Stored>,
    /// How many nodes and graph outputs read each ONNX tensor.
    readers: BTreeMap<&'g str, usize>,
}

/// Lowers every node; `sequences` allows operators that compute whole sequences in floats.
pub(super) fn walk(graph: &Graph, sequences: bool) -> Result<(Draft, Vec<String>), LowerError> {
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for name in graph.nodes.iter().flat_map(|node| &node.inputs).chain(graph.outputs.iter().map(|value| &value.name)) {
        *readers.entry(name).or_default() += 1;
    }
    let mut walk =
        Walk { graph, draft: Draft::default(), notes: Vec::new(), at: 0, sequences, stored: BTreeMap::new(), readers };
    walk.inputs()?;
    for (at, node) in graph.nodes.iter().enumerate() {
        walk.at = at;
        for shape in node.outputs.iter().filter_map(|name| graph.shape_of(name)) {
            walk.room(shape.iter().copied())?;
        }
        ops::lower(&mut walk, node)?;
    }
    walk.outputs()?;
    walk.names();
    Ok((walk.draft, walk.notes))
}

impl<'g> Walk<'g> {
    fn inputs(&mut self) -> Result<(), LowerError> {
        for value in &self.graph.inputs {
            let error = |why: String, remedy: &str| LowerError::Input {
                name: value.name.clone(),
                why,
                remedy: remedy.to_owned(),
            };
            let Some(dims) = value.static_shape().or_else(|| self.graph.shape_of(&value.name).map(<[usize]>::to_vec))
            else {
                return Err(error("its shape is not static".into(), "fix its dimensions, the batch to 1"));
            };
            let kind = match value.dtype {
                DataType::F32 => TensorType::Float32,
                // Microcontrollers have no 64-bit kernels, and no index or class number needs one: what feeds the model
                // gives 32 bits.
                DataType::I32 | DataType::I64 => TensorType::Int32,
                DataType::U8 => TensorType::Uint8,
                other => {
                    let remedy = "float32, int32, int64 and uint8 are; an input that is always the same can be made a \
                                  constant (--input-value)";
                    return Err(error(format!("inputs of type {other} are not lowered"), remedy));
                }
            };
            let mut tensor = self.draft.computed(&dims, Some(&value.name));
            self.draft.tensors[tensor].dtype = kind;
            self.draft.inputs.push((value.name.clone(), tensor));
            if value.dtype == DataType::I64 {
                // Other 64-bit integers may meet it; what takes 32 bits reads past this (`Walk::narrow`).
                let options = op_options::Cast { in_data_type: kind, out_data_type: TensorType::Int64 };
                tensor = self.draft.emit(0, BuiltinOp::CAST, options, &[tensor], &dims, None);
                self.draft.tensors[tensor].dtype = TensorType::Int64;
            }
            let layout = Layout::Axes(Layout::identity(dims.len()));
            self.stored.insert(&value.name, Stored { tensor, dims, layout });
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<(), LowerError> {
        self.at = self.graph.nodes.len().saturating_sub(1);
        for value in &self.graph.outputs {
            let stored = self.value(&value.name)?;
            let mut tensor = stored.plain(&mut self.draft, self.at);
            let taken = |tensor: TensorId| {
                self.draft.inputs.iter().chain(&self.draft.outputs).any(|(_, other)| *other == tensor)
                    || self.draft.tensors[tensor].value.is_some()
            };
            if taken(tensor) {
                // A tensor cannot be fed and read, or read twice, under two names: copy it.
                let shape = self.draft.tensors[tensor].shape.clone();
                let new_shape = shape.iter().map(|&dim| dim as i32).collect();
                let options = edgeyard_tflite::op_options::Reshape { new_shape };
                tensor = self.draft.emit(self.at, BuiltinOp::RESHAPE, options, &[tensor], &shape, Some(&value.name));
            }
            self.draft.outputs.push((value.name.clone(), tensor));
        }
        Ok(())
    }

    /// Says which ONNX tensors the draft's tensors are, so that what runs can be compared with the source layer by layer. Of
    /// several that one tensor stands for it is the last: what was fused into an operation changed its result.
    fn names(&mut self) {
        for name in self.graph.nodes.iter().flat_map(|node| &node.outputs) {
            let Some(stored) = self.stored.get(name.as_str()) else { continue };
            let computed = self.draft.tensors[stored.tensor].value.is_none();
            if computed && stored.axes().is_some() && !self.graph.is_output(name) {
                self.draft.names.insert(stored.tensor, name.clone());
            }
        }
    }

    /// The node being lowered.
    pub(super) fn node(&self) -> &'g Node {
        &self.graph.nodes[self.at]
    }

    /// An error about the current node.
    pub(super) fn refuse(&self, why: impl Into<String>, remedy: impl Into<String>) -> LowerError {
        refusal(self.graph, self.at, why, remedy)
    }

    /// Refuses the current node if no device has room for what it makes; for sizes that inference did not see, too.
    pub(super) fn room(&self, shape: impl Iterator<Item = usize> + Clone) -> Result<(), LowerError> {
        // A dimension of nothing must not hide an endless one.
        let len = shape.clone().try_fold(1_usize, |len, dim| len.checked_mul(dim.max(1)));
        if len.is_none_or(|len| len > MAX_ELEMENTS) {
            let shape: Vec<usize> = shape.collect();
            let remedy = "devices that run .tflite have no room for it: feed smaller inputs";
            return Err(self.refuse(format!("its output has the shape {shape:?}"), remedy));
        }
        Ok(())
    }

    /// The name of a required input.
    pub(super) fn input(&self, index: usize) -> Result<&'g str, LowerError> {
        self.node()
            .input(index)
            .ok_or_else(|| self.refuse(format!("input {index} is missing"), "the model is not valid ONNX"))
    }

    /// Where an ONNX tensor lies; constants are entered at first use.
    pub(super) fn value(&mut self, name: &str) -> Result<Stored, LowerError> {
        if let Some(stored) = self.stored.get(name) {
            return Ok(stored.clone());
        }
        let Some((key, constant)) = self.graph.initializers.get_key_value(name) else {
            return Err(self.refuse(format!("tensor {name} is not computed by any node before it"), "repair the model"));
        };
        let value = match (&constant.data, constant.to_f32()) {
            (_, Some(values)) => Value::F32(values),
            (TensorData::I64(values), _) => Value::I64(values.clone()),
            (TensorData::I32(values), _) => Value::I32(values.clone()),
            (TensorData::Bool(values), _) => Value::Bool(values.clone()),
            _ => {
                let why = format!("constant {name} is of type {}", constant.dtype());
                return Err(self.refuse(why, "only floats, integers and truth values are lowered"));
            }
        };
        let tensor = self.draft.constant(&constant.dims, value);
        let layout = Layout::Axes(Layout::identity(constant.dims.len()));
        let stored = Stored { tensor, dims: constant.dims.clone(), layout };
        self.stored.insert(key, stored.clone());
        Ok(stored)
    }

    /// The operand at `index`, of any type: for operators that move elements or say what they do with each type.
    pub(super) fn any(&mut self, index: usize) -> Result<Stored, LowerError> {
        let name = self.input(index)?;
        self.value(name)
    }

    /// The 32-bit integers that a tensor of 64-bit ones was widened from; other tensors as they are.
    pub(super) fn narrow(&self, tensor: TensorId) -> TensorId {
        let widened = self.draft.producer(tensor).map(|at| &self.draft.ops[at]).filter(|op| op.op == BuiltinOp::CAST);
        match widened.and_then(|op| op.inputs[0]) {
            Some(source)
                if self.draft.tensors[tensor].dtype == TensorType::Int64
                    && self.draft.tensors[source].dtype == TensorType::Int32 =>
            {
                source
            }
            _ => tensor,
        }
    }

    /// The operand at `index`, which has to be floating-point.
    pub(super) fn operand(&mut self, index: usize) -> Result<Stored, LowerError> {
        let name = self.input(index)?;
        let stored = self.value(name)?;
        let dtype = self.draft.tensors[stored.tensor].dtype;
        if dtype != edgeyard_tflite::TensorType::Float32 {
            return Err(self.refuse(format!("{name} is of type {dtype}"), "only float32 tensors are computed with"));
        }
        Ok(stored)
    }

    /// A required constant of floats: shape and elements.
    pub(super) fn floats(&self, index: usize, what: &str) -> Result<(&'g [usize], Vec<f32>), LowerError> {
        let name = self.input(index)?;
        self.optional_floats(name).ok_or_else(|| {
            self.refuse(format!("its {what} {name} is computed at run time"), format!("make the {what} a constant"))
        })
    }

    /// A constant of floats by name.
    pub(super) fn optional_floats(&self, name: &str) -> Option<(&'g [usize], Vec<f32>)> {
        let constant = self.graph.initializers.get(name)?;
        Some((&constant.dims, constant.to_f32()?))
    }

    /// A constant of integers at an input, or the attribute older operator sets have instead; `None` when neither is
    /// there.
    pub(super) fn integers(&self, index: usize, attribute: &str) -> Result<Option<Vec<i64>>, LowerError> {
        let node = self.node();
        let Some(name) = node.input(index) else {
            return Ok(node.ints(attribute).map(<[i64]>::to_vec));
        };
        match self.graph.initializers.get(name).and_then(|constant| constant.to_i64()) {
            Some(values) => Ok(Some(values)),
            None => Err(self.refuse(
                format!("its {attribute} {name} is computed at run time"),
                "fix the model's shapes so that it becomes a constant",
            )),
        }
    }

    /// The static shape of an ONNX tensor.
    pub(super) fn shape(&self, name: &str) -> Result<Vec<usize>, LowerError> {
        if let Some(stored) = self.stored.get(name) {
            return Ok(stored.dims.clone());
        }
        self.graph
            .shape_of(name)
            .map(<[usize]>::to_vec)
            .ok_or_else(|| self.refuse(format!("the shape of {name} is not known"), "fix the model's input dimensions"))
    }

    /// Records the node's first output.
    pub(super) fn define(&mut self, tensor: TensorId, dims: Vec<usize>, axes: Vec<Option<usize>>) {
        self.define_as(0, Stored { tensor, dims, layout: Layout::Axes(axes) });
    }

    /// Records an output.
    pub(super) fn define_as(&mut self, index: usize, stored: Stored) {
        if let Some(name) = self.node().outputs.get(index).filter(|name| !name.is_empty()) {
            self.stored.insert(name, stored);
        }
    }

    /// The name of the node's first output: what its calibrated range is known by.
    pub(super) fn origin(&self) -> Option<&'g str> {
        Some(self.node().output())
    }

    /// Adds an operation of the current node with its result's range under the node's output.
    pub(super) fn emit(
        &mut self,
        op: BuiltinOp,
        options: impl Into<Options>,
        inputs: &[TensorId],
        shape: &[usize],
    ) -> TensorId {
        let origin = self.origin();
        self.draft.emit(self.at, op, options, inputs, shape, origin)
    }

    /// Adds an operation whose result no ONNX tensor stands for.
    pub(super) fn emit_inner(
        &mut self,
        op: BuiltinOp,
        options: impl Into<Options>,
        inputs: &[TensorId],
        shape: &[usize],
    ) -> TensorId {
        self.draft.emit(self.at, op, options, inputs, shape, None)
    }

    /// The index of the operation that makes an ONNX tensor which nothing but the current node reads.
    pub(super) fn sole_producer(&self, name: &str) -> Option<usize> {
        if self.readers.get(name) != Some(&1) {
            return None;
        }
        let stored = self.stored.get(name)?;
        if self.draft.readers()[stored.tensor] != 0 {
            return None;
        }
        self.draft.producer(stored.tensor)
    }

    /// Fuses an activation into the operation that makes the first input, if that can take one. Then the node's output
    /// is that operation's.
    pub(super) fn fuse(&mut self, activation: Activation) -> Result<bool, LowerError> {
        let name = self.input(0)?;
        let Some(producer) = self.sole_producer(name) else { return Ok(false) };
        let Some(fused) = self.draft.ops[producer].activation_mut() else { return Ok(false) };
        if *fused != Activation::None {
            return Ok(false);
        }
        *fused = activation;
        let stored = self.value(name)?;
        let origin = self.origin().map(str::to_owned);
        let slot = &mut self.draft.tensors[stored.tensor];
        slot.origin = origin;
        slot.non_negative |= matches!(activation, Activation::Relu | Activation::Relu6);
        self.define_as(0, stored);
        Ok(true)
    }
}

/// An error about node `at` of the graph.
pub(super) fn refusal(graph: &Graph, at: usize, why: impl Into<String>, remedy: impl Into<String>) -> LowerError {
    let (op, node) = match graph.nodes.get(at) {
        Some(node) if node.is_standard() => (node.op_type.clone(), node.label().to_owned()),
        Some(node) => (format!("{}.{}", node.domain, node.op_type), node.label().to_owned()),
        None => (String::new(), String::new()),
    };
    LowerError::Op { op, node, why: why.into(), remedy: remedy.into() }
}
