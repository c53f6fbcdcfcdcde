//! The intermediate representation: an ONNX graph as plain data, with the bytes of what was not touched.
//! `load` reads it, `save` writes it, `shapes` fills in what every tensor looks like, `simplify` makes it small and
//! static. Passes and lowerings see only these types, never protobuf.

mod import;
mod infer;
mod infer_rare;
mod load;
mod node;
mod save;
mod tensor;
pub mod wire;

use std::collections::BTreeMap;

pub use import::{ImportError, import_tflite};
pub use infer::{
    InferError, SliceRange, Window, axis, broadcast, constant_value, infer, permutation, shape_slice, slice_ranges,
    window,
};
pub(crate) use load::inner_graph;
pub use load::{LoadError, load, load_file};
pub use node::{Attribute, Node};
pub use tensor::{DataType, Tensor, TensorData};

/// Opset versions of the default domain that the passes understand.
pub const OPSETS: std::ops::RangeInclusive<i64> = 11..=21;

/// A whole ONNX file.
#[derive(Debug, Clone)]
pub struct Model {
    /// The format version the file was written with.
    pub ir_version: i64,
    /// Operator sets by domain; the default domain is the empty string.
    pub opsets: BTreeMap<String, i64>,
    /// The graph.
    pub graph: Graph,
    /// Fields of the model that passes do not look at, as they stood in the file.
    pub rest: Vec<u8>,
}

/// A dataflow graph; nodes stand in an order in which they can run.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// What must be fed; initializers are not listed here.
    pub inputs: Vec<Value>,
    /// What comes out.
    pub outputs: Vec<Value>,
    /// The operations.
    pub nodes: Vec<Node>,
    /// The constants, by name.
    pub initializers: BTreeMap<String, Tensor>,
    /// The operator set of the default domain.
    pub opset: i64,
    /// Types and shapes of tensors, from the file or by inference.
    pub values: BTreeMap<String, Value>,
    /// Static shapes by tensor, filled by [`Graph::note`].
    pub(crate) shapes: BTreeMap<String, Vec<usize>>,
    /// Constants whose data lay in files beside the model, by name.
    pub(crate) external: BTreeMap<String, External>,
    /// Fields of the graph that passes do not look at, as they stood in the file.
    pub rest: Vec<u8>,
}

/// Where a constant came from that lay beside the model.
#[derive(Debug, Clone)]
pub(crate) struct External {
    /// The file, relative to the model.
    pub file: String,
    /// The `TensorProto` as it stood in the model.
    pub proto: Vec<u8>,
    /// Of the data: a constant that a pass changed is no longer what lies in the file.
    pub digest: u64,
}

/// A tensor's name, type and shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DataType,
    /// Its shape as far as it is known.
    pub shape: Vec<Dim>,
    /// False when the file gives no shape, not even the rank.
    pub has_shape: bool,
}

/// One dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Static(usize),
    /// A name; the same name is the same number.
    Symbol(String),
    /// Anything.
    Unknown,
}

impl Value {
    /// A value of static shape.
    pub fn fixed(name: &str, dtype: DataType, shape: &[usize]) -> Self {
        Self { name: name.to_owned(), dtype, shape: shape.iter().copied().map(Dim::Static).collect(), has_shape: true }
    }

    /// The shape, when every dimension is a number.
    pub fn static_shape(&self) -> Option<Vec<usize>> {
        if !self.has_shape {
            return None;
        }
        self.shape.iter().map(|dim| if let Dim::Static(size) = dim { Some(*size) } else { None }).collect()
    }
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Static(size) => write!(f, "{size}"),
            Self::Symbol(name) => f.write_str(name),
            Self::Unknown => f.write_str("?"),
        }
    }
}

impl Graph {
    /// The static shape of any tensor: input, constant or computed; `None` when it is not known.
    pub fn shape_of(&self, name: &str) -> Option<&[usize]> {
        match self.initializers.get(name) {
            Some(tensor) => Some(&tensor.dims),
            None => self.shapes.get(name).map(Vec::as_slice),
        }
    }

    /// The element type of any tensor; `None` when it is not known.
    pub fn dtype_of(&self, name: &str) -> Option<DataType> {
        match self.initializers.get(name) {
            Some(tensor) => Some(tensor.dtype()),
            None => self.values.get(name).map(|value| value.dtype).filter(|dtype| *dtype != DataType::Undefined),
        }
    }

    /// True when constants lay in files beside the model.
    pub fn has_external_data(&self) -> bool {
        !self.external.is_empty()
    }

    /// The constant of that name.
    pub fn constant(&self, name: &str) -> Option<&Tensor> {
        self.initializers.get(name)
    }

    /// Writes down what is known of a tensor.
    pub fn note(&mut self, name: &str, dtype: DataType, shape: &[usize]) {
        self.values.insert(name.to_owned(), Value::fixed(name, dtype, shape));
        self.shapes.insert(name.to_owned(), shape.to_vec());
    }

    /// Indexes of the nodes that read each tensor.
    pub fn consumers(&self) -> BTreeMap<&str, Vec<usize>> {
        let mut consumers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for input in node.reads() {
                let readers = consumers.entry(input).or_default();
                if readers.last() != Some(&index) {
                    readers.push(index);
                }
            }
        }
        consumers
    }

    /// Index of the node that makes each tensor.
    pub fn producers(&self) -> BTreeMap<&str, usize> {
        let outputs = |(index, node): (usize, &'_ Node)| (index, node.outputs.len());
        let mut producers = BTreeMap::new();
        for (index, count) in self.nodes.iter().enumerate().map(outputs) {
            for output in &self.nodes[index].outputs[..count] {
                if !output.is_empty() {
                    producers.insert(output.as_str(), index);
                }
            }
        }
        producers
    }

    /// True when the tensor is an output of the graph.
    pub fn is_output(&self, name: &str) -> bool {
        self.outputs.iter().any(|output| output.name == name)
    }

    /// A tensor name that nothing uses yet.
    pub fn fresh(&self, stem: &str) -> String {
        let used = |name: &str| {
            self.initializers.contains_key(name)
                || self.values.contains_key(name)
                || self.inputs.iter().any(|value| value.name == name)
                || self.nodes.iter().any(|node| {
                    node.outputs.iter().any(|output| output == name) || node.inputs.iter().any(|input| input == name)
                })
        };
        if !used(stem) {
            return stem.to_owned();
        }
        (1..).map(|n| format!("{stem}_{n}")).find(|name| !used(name)).expect("an unbounded range has an unused name")
    }
}
