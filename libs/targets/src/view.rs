//! A model as rules see it, whatever file it came from: operators by name and version, tensors by type and shape.

use std::collections::BTreeMap;

use edgeyard_job::spec::ModelFormat;

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The file format that it is, or will be.
    pub format: ModelFormat,
    /// How many graphs the file has.
    pub subgraphs: usize,
    /// The operator set of an ONNX model.
    pub opset: Option<i64>,
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// Indexes of the tensors that are fed.
    pub inputs: Vec<usize>,
    /// Indexes of the tensors that come out.
    pub outputs: Vec<usize>,
    /// What computes, in order.
    pub operators: Vec<Operator>,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its element type as NumPy names it: `float32`, `int8`, `uint8`, `int16`, `int32`, `int4`, …; empty: not known.
    pub dtype: String,
    /// Its dimensions, -1 for those that are free; `None`: not known.
    pub shape: Option<Vec<i64>>,
    /// Whether its values are in the file.
    pub constant: bool,
    /// How many scales it has; 0: it is not quantised.
    pub scales: usize,
    /// Its zero points, without repetition.
    pub zero_points: Vec<i64>,
}

/// An operator.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Operator {
    /// Its name for people: the node's, or that of what it makes.
    pub label: String,
    /// What it does: `Conv`, `com.microsoft.MatMulNBits`, `CONV_2D`.
    pub kind: String,
    /// Its version in a `.tflite`; 0 in ONNX, where the model's opset says it.
    pub version: i64,
    /// Indexes of the tensors it reads; `None` for one that is left out.
    pub inputs: Vec<Option<usize>>,
    /// Indexes of the tensors it makes.
    pub outputs: Vec<usize>,
    /// Its settings.
    pub attributes: BTreeMap<String, Attribute>,
}

/// A setting of an operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A number, or a truth value as 0 or 1.
    Int(i64),
    /// A number.
    Float(f64),
    /// A word.
    Text(String),
    /// Numbers.
    Ints(Vec<i64>),
}

impl View {
    /// Tensors that an operator reads, without those that are left out.
    pub fn reads<'a>(&'a self, operator: &'a Operator) -> impl Iterator<Item = &'a Tensor> {
        operator.inputs.iter().flatten().filter_map(|index| self.tensors.get(*index))
    }

    /// Tensors that an operator makes.
    pub fn makes<'a>(&'a self, operator: &'a Operator) -> impl Iterator<Item = &'a Tensor> {
        operator.outputs.iter().filter_map(|index| self.tensors.get(*index))
    }

    /// The tensor at an input's place.
    pub fn input<'a>(&'a self, operator: &Operator, place: usize) -> Option<&'a Tensor> {
        self.tensors.get((*operator.inputs.get(place)?)?)
    }
}
