//! .tflite as a source: the operators of a file, written as the ONNX they mean, so that everything that works on ONNX
//! works on it. Quantised tensors become the floats they stand for: weights with the precision they have left, activations
//! without rounding. A model that shall stay as it is must not come this way.
//!
//! Inputs and outputs keep the file's names, order and shapes (channels last); spatial operators stand between
//! transposes, which simplification and lowering take out again.

mod ops;
mod recurrent;
mod spatial;

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_tflite as tfl;
use half::f16;
use thiserror::Error;

use super::{Attribute, DataType, Graph, Model, Node, Tensor, TensorData, Value};

/// The first operator set that has all that is written here (Gelu).
const OPSET: i64 = 20;
/// The format version that belongs to it.
const IR_VERSION: i64 = 9;

/// Why a .tflite cannot be taken as a source.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It is damaged.
    #[error("the .tflite cannot be read")]
    Read(#[from] tfl::ReadError),
    /// An operator has no counterpart here.
    #[error("operator {index} ({op}) of the .tflite cannot be imported: {why}; give the ONNX model it was made from")]
    Operator {
        /// Counts from 0.
        index: usize,
        /// The builtin operator's name, or a custom one's.
        op: String,
        /// What is in the way.
        why: String,
    },
    /// Something else about the file.
    #[error("the .tflite cannot be imported: {0}")]
    Model(String),
}

/// Reads a .tflite of one subgraph as an ONNX graph over floats.
///
/// # Errors
/// Says what is malformed, or names the operator that has no counterpart.
pub fn import_tflite(bytes: &[u8]) -> Result<Model, ImportError> {
    let model = tfl::read(bytes)?;
    let [source] = &model.subgraphs[..] else {
        return Err(ImportError::Model(format!(
            "it has {} subgraphs, control flow among them; one is imported",
            model.subgraphs.len()
        )));
    };
    if let Some(tensor) = source.tensors.iter().find(|tensor| tensor.shape.len() > super::load::MAX_RANK) {
        return Err(ImportError::Model(format!("tensor {} has {} dimensions", tensor.name, tensor.shape.len())));
    }
    let mut import = Import {
        model: &model,
        source,
        names: names(source),
        graph: Graph { name: "imported".to_owned(), opset: OPSET, ..Graph::default() },
        known: BTreeSet::new(),
        at: 0,
    };
    import.run()?;
    super::load::check_numbers(&import.graph).map_err(|error| ImportError::Model(error.to_string()))?;
    Ok(Model {
        ir_version: IR_VERSION,
        opsets: BTreeMap::from([(String::new(), OPSET)]),
        graph: import.graph,
        rest: Vec::new(),
    })
}

/// The state of an import.
struct Import<'a> {
    model: &'a tfl::Model,
    source: &'a tfl::Subgraph,
    /// An ONNX name for every tensor.
    names: Vec<String>,
    graph: Graph,
    /// Tensors that are fed, made or constant by now.
    known: BTreeSet<usize>,
    /// Index of the operator.
    at: usize,
}

/// Names of the file where they are there and differ, others made up.
fn names(source: &tfl::Subgraph) -> Vec<String> {
    let mut used = BTreeSet::new();
    let named = source.tensors.iter().enumerate().map(|(at, tensor)| {
        let mut name = if tensor.name.is_empty() { format!("tensor_{at}") } else { tensor.name.clone() };
        while !used.insert(name.clone()) {
            name = format!("{name}_{at}");
        }
        name
    });
    named.collect()
}

impl<'a> Import<'a> {
    fn run(&mut self) -> Result<(), ImportError> {
        for &input in &self.source.inputs {
            let at = input as usize;
            if !self.known.insert(at) || !self.data(at).is_empty() {
                return Err(ImportError::Model(format!("input {} is fed twice or constant", self.names[at])));
            }
            let value = Value::fixed(&self.names[at], self.dtype(at)?, &self.shape(at));
            self.graph.inputs.push(value);
        }
        for (at, operator) in self.source.operators.iter().enumerate() {
            self.at = at;
            self.operator(operator)?;
            for &output in &operator.outputs {
                if !self.known.insert(output as usize) {
                    return Err(self.refuse("it makes a tensor that is there already"));
                }
            }
        }
        let mut shown = BTreeSet::new();
        for &output in &self.source.outputs {
            let at = output as usize;
            if !self.known.contains(&at) || !shown.insert(at) {
                return Err(ImportError::Model(format!(
                    "output {} is made by nothing, or given twice",
                    self.names[at]
                )));
            }
            let value = Value::fixed(&self.names[at], self.dtype(at)?, &self.shape(at));
            self.graph.outputs.push(value);
        }
        Ok(())
    }

    /// An error about the current operator.
    fn refuse(&self, why: impl Into<String>) -> ImportError {
        let code = &self.source.operators[self.at].code;
        let op = code.custom.clone().unwrap_or_else(|| code.builtin.to_string());
        ImportError::Operator { index: self.at, op, why: why.into() }
    }

    fn operand(&self, position: usize) -> Result<usize, ImportError> {
        self.optional(position).ok_or_else(|| self.refuse(format!("its input {position} is missing")))
    }

    fn optional(&self, position: usize) -> Option<usize> {
        usize::try_from(*self.source.operators[self.at].inputs.get(position)?).ok()
    }

    fn output(&self) -> Result<usize, ImportError> {
        let output = self.source.operators[self.at].outputs.first();
        output.map(|&at| at as usize).ok_or_else(|| self.refuse("it has no output"))
    }

    fn data(&self, at: usize) -> &'a [u8] {
        self.model.data_of(&self.source.tensors[at])
    }

    /// The shape; the reader lets no negative dimension pass.
    fn shape(&self, at: usize) -> Vec<usize> {
        self.source.tensors[at].shape.iter().map(|&dim| dim as usize).collect()
    }

    fn is_quantised(&self, at: usize) -> bool {
        self.source.tensors[at].quantization.as_ref().is_some_and(|found| !found.scale.is_empty())
    }

    /// The element type the tensor has here.
    fn dtype(&self, at: usize) -> Result<DataType, ImportError> {
        Ok(match self.source.tensors[at].dtype {
            _ if self.is_quantised(at) => DataType::F32,
            tfl::TensorType::Float32 | tfl::TensorType::Float16 => DataType::F32,
            tfl::TensorType::Int32 => DataType::I32,
            tfl::TensorType::Int64 => DataType::I64,
            tfl::TensorType::Bool => DataType::Bool,
            tfl::TensorType::Uint8 => DataType::U8,
            other => {
                let name = &self.names[at];
                return Err(ImportError::Model(format!("tensor {name} is of type {other}")));
            }
        })
    }

    /// The name of what an operator reads; constants are entered at first use.
    fn read(&mut self, position: usize) -> Result<String, ImportError> {
        let at = self.operand(position)?;
        if self.known.contains(&at) {
            return Ok(self.names[at].clone());
        }
        let tensor = self.constant(at)?;
        self.known.insert(at);
        self.graph.initializers.insert(self.names[at].clone(), tensor);
        Ok(self.names[at].clone())
    }

    /// A constant as it is here: floats, or integers as they are.
    fn constant(&self, at: usize) -> Result<Tensor, ImportError> {
        let (tensor, bytes) = (&self.source.tensors[at], self.data(at));
        let dims = self.shape(at);
        let wrong = || self.refuse(format!("{} is made by no operator before it", self.names[at]));
        if bytes.is_empty() && dims.iter().product::<usize>() != 0 {
            return Err(wrong());
        }
        if tensor.sparse {
            return Err(self.refuse(format!("constant {} is sparse", self.names[at])));
        }
        let stored = match tensor.dtype {
            tfl::TensorType::Float32 => DataType::F32,
            tfl::TensorType::Float16 => DataType::F16,
            tfl::TensorType::Int64 => DataType::I64,
            tfl::TensorType::Int32 => DataType::I32,
            tfl::TensorType::Int16 => DataType::I16,
            tfl::TensorType::Int8 => DataType::I8,
            tfl::TensorType::Uint8 => DataType::U8,
            tfl::TensorType::Bool => DataType::Bool,
            other => return Err(self.refuse(format!("constant {} is of type {other}", self.names[at]))),
        };
        let raw = Tensor::from_bytes(dims, stored, bytes).ok_or_else(wrong)?;
        if self.is_quantised(at) {
            return self.dequantised(at, &raw);
        }
        Ok(match &raw.data {
            TensorData::F16(bits) => {
                Tensor::f32(&raw.dims, bits.iter().map(|bits| f16::from_bits(*bits).to_f32()).collect())
            }
            _ => raw,
        })
    }

    /// real = scale * (integer - zero point), with a scale for the tensor or for each slice of one dimension.
    fn dequantised(&self, at: usize, raw: &Tensor) -> Result<Tensor, ImportError> {
        let Some(found) = &self.source.tensors[at].quantization else { return Ok(raw.clone()) };
        let bad = || self.refuse(format!("the scales of {} do not fit it", self.names[at]));
        let integers = raw.to_i64().ok_or_else(bad)?;
        let (count, inner) = if found.scale.len() == 1 {
            (1, 1)
        } else {
            let axis = usize::try_from(found.dimension).ok().filter(|axis| *axis < raw.dims.len()).ok_or_else(bad)?;
            (raw.dims[axis], raw.dims[axis + 1..].iter().product::<usize>().max(1))
        };
        if found.scale.len() != count || found.blocks.is_some() || found.has_details {
            return Err(bad());
        }
        let zero = |channel: usize| found.zero_point.get(channel).copied().unwrap_or(0);
        let real = |(index, value): (usize, &i64)| {
            let channel = index / inner % count;
            (value.saturating_sub(zero(channel)) as f64 * f64::from(found.scale[channel])) as f32
        };
        Ok(Tensor::f32(&raw.dims, integers.iter().enumerate().map(real).collect()))
    }

    /// A list of integers that an operator takes as a constant input.
    fn integers(&self, position: usize) -> Result<Vec<i64>, ImportError> {
        let at = self.operand(position)?;
        let constant = if self.data(at).is_empty() { None } else { self.constant(at)?.to_i64() };
        constant.ok_or_else(|| self.refuse(format!("its input {position} is computed at run time")))
    }

    /// Enters a constant under a name of its own.
    fn enter(&mut self, stem: &str, tensor: Tensor) -> String {
        let name = self.graph.fresh(&format!("{stem}_{}", self.at));
        self.graph.initializers.insert(name.clone(), tensor);
        name
    }

    fn list(&mut self, stem: &str, values: &[i64]) -> String {
        self.enter(stem, Tensor::i64(&[values.len()], values.to_vec()))
    }

    /// Adds a node that makes a tensor of its own; gives its name.
    fn inner(&mut self, op: &str, inputs: &[&str], attributes: Vec<(&str, Attribute)>) -> String {
        // Operators are counted, nodes of one operator too: no other name looks like this.
        let name = format!("{op}_{}_{}", self.at, self.graph.nodes.len());
        let name = if self.names.contains(&name) { format!("{name}_inner") } else { name };
        self.node(op, inputs, &name, attributes);
        name
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: Vec<(&str, Attribute)>) {
        let label = format!("{op}_{}_{}", self.at, self.graph.nodes.len());
        let node = attributes
            .into_iter()
            .fold(Node::new(op, &label, inputs, &[output]), |node, (name, value)| node.with(name, value));
        self.graph.nodes.push(node);
    }

    /// Ends an operator: its fused activation, under the output's name.
    fn finish(&mut self, made: &str, activation: tfl::Activation) -> Result<(), ImportError> {
        let output = self.names[self.output()?].clone();
        match activation {
            tfl::Activation::None => self.node("Identity", &[made], &output, Vec::new()),
            tfl::Activation::Relu => self.node("Relu", &[made], &output, Vec::new()),
            tfl::Activation::Tanh => self.node("Tanh", &[made], &output, Vec::new()),
            tfl::Activation::Relu6 => self.clip(made, &output, 0.0, 6.0),
            tfl::Activation::ReluN1To1 => self.clip(made, &output, -1.0, 1.0),
            tfl::Activation::SignBit => return Err(self.refuse("its activation is SIGN_BIT")),
        }
        Ok(())
    }

    fn clip(&mut self, x: &str, output: &str, low: f32, high: f32) {
        let low = self.enter("low", Tensor::f32(&[], vec![low]));
        let high = self.enter("high", Tensor::f32(&[], vec![high]));
        self.node("Clip", &[x, &low, &high], output, Vec::new());
    }
}
