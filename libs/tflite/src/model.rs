//! A .tflite file as owned plain data. Operators carry their code and version directly; the file's table of operator
//! codes is made when writing.

use crate::ops::BuiltinOp;
use crate::options::Options;
use crate::types::TensorType;

/// A whole file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    /// Free text about the file's origin.
    pub description: String,
    /// The first one is the model's entry.
    pub subgraphs: Vec<Subgraph>,
    /// Constant data. Buffer 0 is always empty and stands for "no data".
    pub buffers: Vec<Vec<u8>>,
    /// Named blobs: name and index of a buffer.
    pub metadata: Vec<(String, u32)>,
    /// Named entries with named inputs and outputs.
    pub signatures: Vec<Signature>,
}

/// One graph of operators in execution order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Subgraph {
    /// Its name, for people.
    pub name: String,
    /// Tensors by index.
    pub tensors: Vec<Tensor>,
    /// Indices of the tensors that are fed.
    pub inputs: Vec<i32>,
    /// Indices of the tensors that are results.
    pub outputs: Vec<i32>,
    /// The operators.
    pub operators: Vec<Operator>,
}

/// A tensor of a subgraph.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// May be empty: runtimes address tensors by index.
    pub name: String,
    /// Dimensions; never negative.
    pub shape: Vec<i32>,
    /// Dimensions with -1 for those unknown until run time; empty when all are known.
    pub shape_signature: Vec<i32>,
    /// Element type.
    pub dtype: TensorType,
    /// Index of the constant data, 0 for none.
    pub buffer: u32,
    /// How integers stand for reals.
    pub quantization: Option<Quantization>,
    /// State kept between inferences.
    pub is_variable: bool,
    /// False only for tensors of unknown rank.
    pub has_rank: bool,
    /// The data is stored sparse. This crate reads such a model but does not write it.
    pub sparse: bool,
}

/// Affine quantization: real = scale * (integer - zero point).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Quantization {
    /// Informative, from a converter.
    pub min: Vec<f32>,
    /// Informative, from a converter.
    pub max: Vec<f32>,
    /// One for the tensor, or one per slice of `dimension`.
    pub scale: Vec<f32>,
    /// As many as scales.
    pub zero_point: Vec<i64>,
    /// The dimension the scales run along.
    pub dimension: i32,
    /// Scales of blocks instead of those above.
    pub blocks: Option<Blocks>,
    /// Custom details are present. This crate reads such a model but does not write it.
    pub has_details: bool,
}

/// Scales of a matrix [outputs, inputs] in another tensor, one for each block of a row: real = scale * integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// The tensor of scales, [outputs, inputs / size].
    pub scales: i32,
    /// The tensor of zero points; -1 for none.
    pub zero_points: i32,
    /// Elements of a block.
    pub size: i32,
}

/// Which operation, and which revision of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperatorCode {
    /// The builtin operator; `CUSTOM` when `custom` is set.
    pub builtin: BuiltinOp,
    /// Name of a custom operator.
    pub custom: Option<String>,
    /// Runtimes refuse versions they do not know.
    pub version: i32,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operator {
    /// What it does.
    pub code: OperatorCode,
    /// Tensor indices; -1 for an optional input that is absent.
    pub inputs: Vec<i32>,
    /// Tensor indices.
    pub outputs: Vec<i32>,
    /// Parameters of a builtin operator.
    pub options: Options,
    /// Parameters of a custom operator, opaque.
    pub custom_options: Vec<u8>,
    /// Which inputs the operator writes to; empty for none.
    pub mutating_inputs: Vec<u8>,
    /// Internal tensors with their quantization.
    pub intermediates: Vec<i32>,
}

/// A named entry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Signature {
    /// The entry's name, `serving_default` by custom.
    pub key: String,
    /// Names and tensor indices.
    pub inputs: Vec<(String, u32)>,
    /// Names and tensor indices.
    pub outputs: Vec<(String, u32)>,
    /// The subgraph it enters.
    pub subgraph: u32,
}

impl Tensor {
    /// A tensor without data, name or quantization.
    pub fn new(dtype: TensorType, shape: Vec<i32>) -> Self {
        Self {
            name: String::new(),
            shape,
            shape_signature: Vec::new(),
            dtype,
            buffer: 0,
            quantization: None,
            is_variable: false,
            has_rank: true,
            sparse: false,
        }
    }

    /// The product of the dimensions.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(usize::try_from(dim).ok()?))
    }

    /// Bytes of the dense data, or none for types without a fixed size.
    pub fn byte_size(&self) -> Option<usize> {
        Some(self.elements()?.checked_mul(self.dtype.bits()?)?.div_ceil(8))
    }
}

impl Quantization {
    /// One scale and zero point for the whole tensor.
    pub fn per_tensor(scale: f32, zero_point: i64) -> Self {
        Self { scale: vec![scale], zero_point: vec![zero_point], ..Self::default() }
    }

    /// A scale for each slice of `dimension`, symmetric.
    pub fn per_channel(scale: Vec<f32>, dimension: i32) -> Self {
        Self { zero_point: vec![0; scale.len()], scale, dimension, ..Self::default() }
    }
}

impl Operator {
    /// A builtin operator, version 1 until [`crate::operator_version`] says otherwise.
    pub fn builtin(op: BuiltinOp, options: impl Into<Options>, inputs: Vec<i32>, outputs: Vec<i32>) -> Self {
        Self {
            code: OperatorCode { builtin: op, custom: None, version: 1 },
            inputs,
            outputs,
            options: options.into(),
            custom_options: Vec::new(),
            mutating_inputs: Vec::new(),
            intermediates: Vec::new(),
        }
    }
}

impl Model {
    /// A model with the empty buffer 0 every file starts with.
    pub fn new(description: &str) -> Self {
        Self { description: description.to_owned(), buffers: vec![Vec::new()], ..Self::default() }
    }

    /// Adds constant data and gives its index. Empty data is buffer 0.
    pub fn add_buffer(&mut self, data: Vec<u8>) -> u32 {
        if data.is_empty() {
            return 0;
        }
        self.buffers.push(data);
        (self.buffers.len() - 1) as u32
    }

    /// The data of a tensor; empty for one that is computed.
    pub fn data_of(&self, tensor: &Tensor) -> &[u8] {
        self.buffers.get(tensor.buffer as usize).map_or(&[], Vec::as_slice)
    }

    /// Sets the metadata entry `min_runtime_version` that runtimes and converters show: the first TensorFlow release
    /// whose interpreter knows every operator version used.
    pub fn set_min_runtime_version(&mut self) {
        const NAME: &str = "min_runtime_version";
        let newest = self
            .subgraphs
            .iter()
            .flat_map(|subgraph| &subgraph.operators)
            .filter_map(|operator| crate::versions::runtime_version(operator.code.builtin, operator.code.version))
            .max()
            .unwrap_or((1, 5, 0));
        let mut text = format!("{}.{}.{}", newest.0, newest.1, newest.2).into_bytes();
        text.resize(16, 0);
        self.metadata.retain(|(name, _)| name != NAME);
        let buffer = self.add_buffer(text);
        self.metadata.push((NAME.to_owned(), buffer));
    }
}
