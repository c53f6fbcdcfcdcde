//! The graph between ONNX and the file: TFLite operators over float tensors in their final layouts, before a mode
//! decides how numbers are stored. Indices are stable; what nothing reads any more is dropped when the file is made.

use std::collections::BTreeMap;

use edgeyard_tflite::{Activation, BuiltinOp, Options, Quantization, TensorType, op_options as opt};

/// Index of a tensor in a [`Draft`].
pub(super) type TensorId = usize;

/// A clamp to any interval, resolved by each mode in its own way; TFLite has no such operator.
pub(super) const CLAMP: BuiltinOp = BuiltinOp(-1);

/// Constant data.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    F32(Vec<f32>),
    F16(Vec<u16>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    I16(Vec<i16>),
    I8(Vec<i8>),
    /// From -8 to 7; two share a byte in the file, the first in its low half.
    I4(Vec<i8>),
    Bool(Vec<bool>),
}

/// A tensor: computed, fed, or constant.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub shape: Vec<usize>,
    pub dtype: TensorType,
    pub value: Option<Value>,
    pub quantization: Option<Quantization>,
    /// The scales of blocks of a row and the size of a block, instead of `quantization`.
    pub blocks: Option<(TensorId, usize)>,
    /// The ONNX tensor whose calibrated range holds for this one.
    pub origin: Option<String>,
    /// Stays float in an int8 model: it lies inside an operator without an integer kernel.
    pub keeps_float: bool,
    /// Never below zero, whatever the input: after a ReLU, for instance.
    pub non_negative: bool,
    /// State that the operator reading it keeps from one inference to the next.
    pub variable: bool,
}

/// An operation; inputs that are left out are `None`.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub op: BuiltinOp,
    pub options: Options,
    pub inputs: Vec<Option<TensorId>>,
    pub outputs: Vec<TensorId>,
    /// Index of the ONNX node it comes from, for messages.
    pub node: usize,
    /// The interval of a [`CLAMP`].
    pub clamp: (f32, f32),
}

/// The whole graph.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub tensors: Vec<Slot>,
    pub ops: Vec<Op>,
    /// Names and tensors, in the ONNX model's order.
    pub inputs: Vec<(String, TensorId)>,
    pub outputs: Vec<(String, TensorId)>,
    /// ONNX tensors inside the model, by what holds their values in the end, element for element in some order of their
    /// dimensions.
    pub names: BTreeMap<TensorId, String>,
    /// Floats inside an integer model, each with the tensor that stands for it outside its stretch of float.
    pub twins: Vec<(TensorId, TensorId)>,
}

impl Value {
    pub(super) fn dtype(&self) -> TensorType {
        match self {
            Self::F32(_) => TensorType::Float32,
            Self::F16(_) => TensorType::Float16,
            Self::I64(_) => TensorType::Int64,
            Self::I32(_) => TensorType::Int32,
            Self::I16(_) => TensorType::Int16,
            Self::I8(_) => TensorType::Int8,
            Self::I4(_) => TensorType::Int4,
            Self::Bool(_) => TensorType::Bool,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I8(values) => values.iter().map(|value| *value as u8).collect(),
            Self::Bool(values) => values.iter().map(|value| u8::from(*value)).collect(),
            Self::I4(values) => values
                .chunks(2)
                .map(|pair| (pair[0] as u8 & 0xf) | (pair.get(1).map_or(0, |second| *second as u8) << 4))
                .collect(),
        }
    }

    /// The elements in the order of permuted dimensions: output dimension `i` is input dimension `permutation[i]`.
    pub(super) fn permuted(&self, shape: &[usize], permutation: &[usize]) -> Self {
        let order = permuted_order(shape, permutation);
        match self {
            Self::F32(values) => Self::F32(order.iter().map(|&at| values[at]).collect()),
            Self::F16(values) => Self::F16(order.iter().map(|&at| values[at]).collect()),
            Self::I64(values) => Self::I64(order.iter().map(|&at| values[at]).collect()),
            Self::I32(values) => Self::I32(order.iter().map(|&at| values[at]).collect()),
            Self::I16(values) => Self::I16(order.iter().map(|&at| values[at]).collect()),
            Self::I8(values) => Self::I8(order.iter().map(|&at| values[at]).collect()),
            Self::I4(values) => Self::I4(order.iter().map(|&at| values[at]).collect()),
            Self::Bool(values) => Self::Bool(order.iter().map(|&at| values[at]).collect()),
        }
    }
}

/// Source offsets, in row-major order of the permuted shape.
pub(super) fn permuted_order(shape: &[usize], permutation: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    let mut order = vec![0];
    for &axis in permutation {
        order = order
            .iter()
            .flat_map(|&base| (0..shape[axis]).map(move |at| (base, at)))
            .map(|(base, at)| base + at * strides[axis])
            .collect();
    }
    order
}

/// The same permutation of fewer dimensions: those of size 1 go, those that stay neighbours become one. None if there
/// are no fewer.
fn merged_axes(shape: &[usize], permutation: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
    let moving: Vec<usize> = permutation.iter().copied().filter(|&axis| shape[axis] != 1).collect();
    let next = |axis: usize| (axis + 1..shape.len()).find(|&axis| shape[axis] != 1);
    // Runs of neighbours in the result's order: the first axis of each, and the size of all.
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for &axis in &moving {
        match runs.last_mut() {
            Some((_, last, size)) if next(*last) == Some(axis) => (*last, *size) = (axis, *size * shape[axis]),
            _ => runs.push((axis, axis, shape[axis])),
        }
    }
    let mut sorted = runs.clone();
    sorted.sort_unstable();
    let order: Option<Vec<usize>> = runs.iter().map(|run| sorted.iter().position(|other| other == run)).collect();
    (runs.len() < shape.len()).then_some(())?;
    Some((sorted.iter().map(|(.., size)| *size).collect(), order?))
}

impl Op {
    /// The fused activation of operators that have one.
    pub(super) fn activation_mut(&mut self) -> Option<&mut Activation> {
        Some(match &mut self.options {
            Options::Conv2D(options) => &mut options.fused_activation_function,
            Options::DepthwiseConv2D(options) => &mut options.fused_activation_function,
            Options::FullyConnected(options) => &mut options.fused_activation_function,
            Options::Add(options) => &mut options.fused_activation_function,
            Options::Sub(options) => &mut options.fused_activation_function,
            Options::Mul(options) => &mut options.fused_activation_function,
            Options::Pool2D(options) => &mut options.fused_activation_function,
            _ => return None,
        })
    }
}

impl Draft {
    /// A tensor that is computed or fed.
    pub(super) fn computed(&mut self, shape: &[usize], origin: Option<&str>) -> TensorId {
        self.push(Slot {
            shape: shape.to_vec(),
            dtype: TensorType::Float32,
            value: None,
            quantization: None,
            blocks: None,
            origin: origin.map(str::to_owned),
            keeps_float: false,
            non_negative: false,
            variable: false,
        })
    }

    /// A constant.
    pub(super) fn constant(&mut self, shape: &[usize], value: Value) -> TensorId {
        self.push(Slot {
            shape: shape.to_vec(),
            dtype: value.dtype(),
            value: Some(value),
            quantization: None,
            blocks: None,
            origin: None,
            keeps_float: false,
            non_negative: false,
            variable: false,
        })
    }

    fn push(&mut self, slot: Slot) -> TensorId {
        self.tensors.push(slot);
        self.tensors.len() - 1
    }

    /// Adds an operation with one output of the given shape and returns the output.
    pub(super) fn emit(
        &mut self,
        node: usize,
        op: BuiltinOp,
        options: impl Into<Options>,
        inputs: &[TensorId],
        shape: &[usize],
        origin: Option<&str>,
    ) -> TensorId {
        let output = self.computed(shape, origin);
        // Lists of axes and sizes may come before what is computed with.
        if !inputs.iter().any(|&input| self.tensors[input].dtype == TensorType::Float32)
            && let Some(&first) = inputs.first()
        {
            self.tensors[output].dtype = self.tensors[first].dtype;
        }
        let inputs = inputs.iter().copied().map(Some).collect();
        self.ops.push(Op { op, options: options.into(), inputs, outputs: vec![output], node, clamp: (0.0, 0.0) });
        output
    }

    /// The operation that makes a tensor.
    pub(super) fn producer(&self, tensor: TensorId) -> Option<usize> {
        self.ops.iter().rposition(|op| op.outputs.contains(&tensor))
    }

    /// How many operation inputs and graph outputs read each tensor.
    pub(super) fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.tensors.len()];
        for &tensor in self.ops.iter().flat_map(|op| op.inputs.iter().flatten()) {
            readers[tensor] += 1;
        }
        for (_, tensor) in &self.outputs {
            readers[*tensor] += 1;
        }
        readers
    }

    /// The tensor with another shape and the same elements in the same order. Chains of reshapes collapse.
    pub(super) fn reshaped(&mut self, node: usize, tensor: TensorId, shape: &[usize]) -> TensorId {
        if self.tensors[tensor].shape == shape {
            return tensor;
        }
        if let Some(value) = self.tensors[tensor].value.clone() {
            return self.constant(shape, value);
        }
        if let Some(at) = self.producer(tensor)
            && self.ops[at].op == BuiltinOp::RESHAPE
            && let Some(source) = self.ops[at].inputs[0]
        {
            return self.reshaped(node, source, shape);
        }
        let known = self.ops.iter().find(|op| {
            op.op == BuiltinOp::RESHAPE && op.inputs[0] == Some(tensor) && self.tensors[op.outputs[0]].shape == shape
        });
        if let Some(known) = known {
            return known.outputs[0];
        }
        let origin = self.tensors[tensor].origin.clone();
        let new_shape = shape.iter().map(|&dim| dim as i32).collect();
        let output =
            self.emit(node, BuiltinOp::RESHAPE, opt::Reshape { new_shape }, &[tensor], shape, origin.as_deref());
        self.tensors[output].non_negative = self.tensors[tensor].non_negative;
        // Without a range of its own what lies inside a lowering stays there.
        self.tensors[output].keeps_float = self.tensors[tensor].keeps_float && origin.is_none();
        output
    }

    /// The tensor with its dimensions permuted.
    pub(super) fn transposed(&mut self, node: usize, tensor: TensorId, permutation: &[usize]) -> TensorId {
        if permutation.is_sorted() {
            return tensor;
        }
        let shape: Vec<usize> = permutation.iter().map(|&axis| self.tensors[tensor].shape[axis]).collect();
        if let Some(value) = &self.tensors[tensor].value {
            let value = value.permuted(&self.tensors[tensor].shape, permutation);
            return self.constant(&shape, value);
        }
        if permutation.len() > 4
            && let Some((open, order)) = merged_axes(&self.tensors[tensor].shape, permutation)
        {
            let merged = self.reshaped(node, tensor, &open);
            let moved = self.transposed(node, merged, &order);
            return self.reshaped(node, moved, &shape);
        }
        let wanted: Vec<i32> = permutation.iter().map(|&axis| axis as i32).collect();
        let known = self.ops.iter().find(|op| {
            let same = |id: TensorId| self.tensors[id].value == Some(Value::I32(wanted.clone()));
            op.op == BuiltinOp::TRANSPOSE && op.inputs[0] == Some(tensor) && op.inputs[1].is_some_and(same)
        });
        if let Some(known) = known {
            return known.outputs[0];
        }
        let origin = self.tensors[tensor].origin.clone();
        let permutation = self.constant(&[wanted.len()], Value::I32(wanted));
        let output = self.emit(
            node,
            BuiltinOp::TRANSPOSE,
            Options::Empty(TRANSPOSE_OPTIONS),
            &[tensor, permutation],
            &shape,
            origin.as_deref(),
        );
        self.tensors[output].non_negative = self.tensors[tensor].non_negative;
        self.tensors[output].keeps_float = self.tensors[tensor].keeps_float && origin.is_none();
        output
    }

    /// A list of 32-bit integers as a constant.
    pub(super) fn ints(&mut self, values: &[usize]) -> TensorId {
        self.constant(&[values.len()], Value::I32(values.iter().map(|&value| value as i32).collect()))
    }
}

/// Union numbers of options tables without fields that lowering writes.
pub(super) const PAD_OPTIONS: u8 = 22;
pub(super) const TRANSPOSE_OPTIONS: u8 = 26;
pub(super) const DEQUANTIZE_OPTIONS: u8 = 38;
pub(super) const MAXIMUM_MINIMUM_OPTIONS: u8 = 39;
pub(super) const PADV2_OPTIONS: u8 = 43;
pub(super) const SLICE_OPTIONS: u8 = 48;
pub(super) const QUANTIZE_OPTIONS: u8 = 89;
pub(super) const HARD_SWISH_OPTIONS: u8 = 91;
