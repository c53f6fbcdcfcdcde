//! Nodes and their attributes, with typed getters; a node that came from a file keeps its bytes until it is changed.

use std::collections::BTreeMap;

use super::tensor::Tensor;

/// One operation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its name; may be empty.
    pub name: String,
    /// The operator.
    pub op_type: String,
    /// The operator's domain; empty for ONNX's own.
    pub domain: String,
    /// Tensors it reads; an empty name is an optional input left out.
    pub inputs: Vec<String>,
    /// Tensors it makes; an empty name is an output nobody wants.
    pub outputs: Vec<String>,
    /// Its settings.
    pub attributes: BTreeMap<String, Attribute>,
    /// Tensors that graphs inside its attributes read from around it.
    pub captures: Vec<String>,
    /// The `NodeProto` as it stood in the file; see [`Node::touch`].
    pub(crate) raw: Option<Vec<u8>>,
}

/// A setting of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A float.
    Float(f32),
    /// An integer.
    Int(i64),
    /// Text or bytes.
    String(Vec<u8>),
    /// A constant.
    Tensor(Tensor),
    /// Floats.
    Floats(Vec<f32>),
    /// Integers.
    Ints(Vec<i64>),
    /// Texts.
    Strings(Vec<Vec<u8>>),
    /// Anything else (graphs, types): the `AttributeProto` as it stood in the file.
    Opaque(Vec<u8>),
}

impl Node {
    /// A new node of ONNX's own domain.
    pub fn new(op_type: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            inputs: inputs.iter().map(|name| (*name).to_owned()).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The same node with one more attribute.
    pub fn with(mut self, name: &str, value: Attribute) -> Self {
        self.set(name, value);
        self
    }

    /// Sets an attribute.
    pub fn set(&mut self, name: &str, value: Attribute) {
        self.touch();
        self.attributes.insert(name.to_owned(), value);
    }

    /// Must be called by whoever changes a field of a node: from now on it is written from its fields.
    pub fn touch(&mut self) {
        self.raw = None;
    }

    /// True when it is an operator of ONNX's own domain.
    pub fn is(&self, op_type: &str) -> bool {
        self.op_type == op_type && self.is_standard()
    }

    /// True for ONNX's own domain.
    pub fn is_standard(&self) -> bool {
        self.domain.is_empty() || self.domain == "ai.onnx"
    }

    /// The name of input `index`; `None` when it is left out.
    pub fn input(&self, index: usize) -> Option<&str> {
        self.inputs.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of the first output; empty when it has none.
    pub fn output(&self) -> &str {
        self.outputs.first().map_or("", String::as_str)
    }

    /// Every tensor it needs, those its inner graphs capture included.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().chain(&self.captures).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Its name, or what it makes when it has no name: for messages.
    pub fn label(&self) -> &str {
        if self.name.is_empty() { self.output() } else { &self.name }
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => *value,
            _ => default,
        }
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    /// A list of floats.
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        match self.attributes.get(name) {
            Some(Attribute::Floats(values)) => Some(values),
            _ => None,
        }
    }

    /// A text; `None` when absent or not UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::String(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A constant.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        match self.attributes.get(name) {
            Some(Attribute::Tensor(tensor)) => Some(tensor),
            _ => None,
        }
    }

    /// True when the attribute is there.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }
}
