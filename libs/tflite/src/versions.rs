//! Operator versions: which one an operator needs for its types and options, and the first TensorFlow release that
//! knows it. Both tables restate TensorFlow's own versioning (`op_version`, `runtime_version`) for the operators that
//! lowering produces; the lower the version, the older the runtimes and vendor compilers that take the file.

use crate::model::{Operator, Subgraph};
use crate::ops::BuiltinOp;
use crate::options::Options;
use crate::types::TensorType;

/// The version a builtin operator of `subgraph` needs.
pub fn operator_version(subgraph: &Subgraph, operator: &Operator) -> i32 {
    use BuiltinOp as Op;
    let tensor = |list: &[i32], at: usize| {
        list.get(at).and_then(|&index| usize::try_from(index).ok()).and_then(|index| subgraph.tensors.get(index))
    };
    let dtype = |at: usize| tensor(&operator.inputs, at).map(|tensor| tensor.dtype);
    let rank = |at: usize| tensor(&operator.inputs, at).map_or(0, |tensor| tensor.shape.len());
    let int8 = dtype(0) == Some(TensorType::Int8);
    let int16 = dtype(0) == Some(TensorType::Int16);
    let hybrid = dtype(0) == Some(TensorType::Float32) && dtype(1) == Some(TensorType::Int8);
    let scales = |list: &[i32], at: usize| {
        tensor(list, at).and_then(|tensor| Some(tensor.quantization.as_ref()?.scale.len())).unwrap_or(0)
    };
    let scale = |list: &[i32], at: usize| {
        tensor(list, at).and_then(|tensor| tensor.quantization.as_ref()?.scale.first().copied()).map_or(0.0, f64::from)
    };
    let blocks = tensor(&operator.inputs, 1)
        .is_some_and(|tensor| tensor.quantization.as_ref().is_some_and(|found| found.blocks.is_some()));
    let plain = if int8 { 2 } else { 1 };
    let broadcast = || {
        let shape = |at| tensor(&operator.inputs, at).map(|tensor| &tensor.shape);
        shape(0) != shape(1) && rank(0).max(rank(1)) > 4
    };
    match operator.code.builtin {
        Op::ADD | Op::PACK if int16 => 3,
        Op::SUB if int16 => 5,
        Op::MUL | Op::MAXIMUM | Op::MINIMUM | Op::SLICE | Op::GATHER if int16 => 4,
        Op::RESIZE_BILINEAR | Op::RESIZE_NEAREST_NEIGHBOR if int16 => 4,
        Op::TRANSPOSE if int16 => 5,
        Op::LEAKY_RELU if int16 => 2,
        Op::MAX_POOL_2D
        | Op::AVERAGE_POOL_2D
        | Op::TANH
        | Op::LOGISTIC
        | Op::BATCH_MATMUL
        | Op::PAD
        | Op::PADV2
        | Op::CONCATENATION
        | Op::SOFTMAX
        | Op::MEAN
        | Op::MIRROR_PAD
        | Op::REDUCE_MAX
        | Op::REDUCE_MIN
        | Op::RELU
        | Op::RELU6
        | Op::RSQRT
        | Op::ABS
            if int16 =>
        {
            3
        }
        Op::QUANTIZE if tensor(&operator.outputs, 0).is_some_and(|tensor| tensor.dtype == TensorType::Int16) => 2,
        Op::CONV_2D if hybrid && scales(&operator.inputs, 1) <= 1 => 2,
        Op::DEPTHWISE_CONV_2D if hybrid && scales(&operator.inputs, 1) <= 1 => 4,
        Op::FULLY_CONNECTED if hybrid && scales(&operator.inputs, 1) > 1 => 12,
        // TensorFlow's own table has no line for blocks: nothing older than the newest that quantises inputs.
        Op::FULLY_CONNECTED if blocks => 12,
        Op::FULLY_CONNECTED
            if hybrid
                && matches!(&operator.options, Options::FullyConnected(options) if options.asymmetric_quantize_inputs) =>
        {
            9
        }
        Op::CONV_2D => {
            let channels =
                |at| tensor(&operator.inputs, at).and_then(|tensor| tensor.shape.get(3)).copied().unwrap_or(0);
            match (channels(0) != channels(1), int8, dtype(1)) {
                (true, ..) => 6,
                (_, true, _) => 3,
                (_, false, Some(TensorType::Int8)) => 5,
                _ => 1,
            }
        }
        Op::DEPTHWISE_CONV_2D => match &operator.options {
            _ if int8 => 3,
            _ if dtype(1) == Some(TensorType::Int8) => 6,
            Options::DepthwiseConv2D(options) if (options.dilation_h_factor, options.dilation_w_factor) != (1, 1) => 2,
            _ => 1,
        },
        Op::FULLY_CONNECTED => match &operator.options {
            _ if operator.inputs.len() == 2 => 6,
            Options::FullyConnected(options) if options.keep_num_dims => 5,
            _ if int8 => 4,
            _ if dtype(1) == Some(TensorType::Int8) => 3,
            _ => 1,
        },
        Op::MUL if int8 => {
            let output = scale(&operator.outputs, 0);
            let product = scale(&operator.inputs, 0) * scale(&operator.inputs, 1);
            if output != 0.0 && product / output >= 1.0 { 3 } else { 2 }
        }
        Op::TRANSPOSE | Op::STRIDED_SLICE if rank(0) > 4 => 4,
        Op::SLICE if rank(0) > 4 => 5,
        Op::PAD | Op::PADV2 if rank(0) > 4 => 4,
        Op::SUB | Op::MAXIMUM | Op::MINIMUM if broadcast() => 3,
        Op::DIV if broadcast() => 2,
        Op::TRANSPOSE_CONV => match &operator.options {
            Options::TransposeConv(options) if options.fused_activation_function as u8 != 0 => 4,
            _ if operator.inputs.get(3).is_some_and(|&bias| bias >= 0) => 3,
            _ if dtype(1) == Some(TensorType::Int8) => 2,
            _ => 1,
        },
        Op::SPLIT => match dtype(1) {
            Some(TensorType::Int32) => 3,
            Some(TensorType::Int8) => 2,
            _ => 1,
        },
        Op::DEQUANTIZE => match dtype(0) {
            Some(TensorType::Float16 | TensorType::Int16) => 3,
            Some(TensorType::Int8) => {
                let scales = tensor(&operator.inputs, 0).and_then(|t| Some(t.quantization.as_ref()?.scale.len()));
                if scales.unwrap_or(0) > 1 { 5 } else { 2 }
            }
            _ => 1,
        },
        Op::RESIZE_BILINEAR => match &operator.options {
            Options::ResizeBilinear(options) if options.half_pixel_centers => 3,
            _ => plain,
        },
        Op::RESIZE_NEAREST_NEIGHBOR => match &operator.options {
            Options::ResizeNearestNeighbor(options) if options.half_pixel_centers || options.align_corners => 3,
            _ => plain,
        },
        Op::TILE if int8 => 3,
        Op::ADD
        | Op::SUB
        | Op::MUL
        | Op::MAX_POOL_2D
        | Op::AVERAGE_POOL_2D
        | Op::TRANSPOSE
        | Op::SLICE
        | Op::STRIDED_SLICE
        | Op::GATHER
        | Op::MAXIMUM
        | Op::MINIMUM
        | Op::PACK
        | Op::TANH
        | Op::LOGISTIC
        | Op::BATCH_MATMUL
        | Op::PAD
        | Op::PADV2
        | Op::CONCATENATION
        | Op::SOFTMAX
        | Op::LOG_SOFTMAX
        | Op::MEAN
        | Op::SUM
        | Op::MIRROR_PAD
        | Op::REDUCE_MAX
        | Op::REDUCE_MIN
        | Op::RELU
        | Op::RELU6
        | Op::RSQRT
        | Op::EXP
        | Op::ABS
        | Op::L2_NORMALIZATION
        | Op::GREATER
        | Op::GREATER_EQUAL
        | Op::LESS
        | Op::LESS_EQUAL
        | Op::EQUAL
        | Op::SPACE_TO_DEPTH => plain,
        _ => 1,
    }
}

/// The first TensorFlow release whose interpreter knows this version of the operator, for the pairs
/// [`operator_version`] gives.
pub(crate) fn runtime_version(op: BuiltinOp, version: i32) -> Option<(u32, u32, u32)> {
    use BuiltinOp as Op;
    Some(match (op, version) {
        (Op::ADD, 3) | (Op::SUB, 5) | (Op::BATCH_MATMUL, 3) | (Op::PAD | Op::PADV2, 3) => (2, 4, 0),
        (Op::TRANSPOSE, 5) | (Op::SLICE | Op::GATHER, 4) | (Op::MEAN, 3) => (2, 4, 0),
        (Op::RELU6 | Op::REDUCE_MAX | Op::REDUCE_MIN, 3) | (Op::RESIZE_BILINEAR, 4) => (2, 5, 0),
        (Op::MUL | Op::MAXIMUM | Op::MINIMUM, 4) | (Op::LEAKY_RELU, 2) => (2, 3, 0),
        (Op::MAX_POOL_2D | Op::AVERAGE_POOL_2D | Op::TANH | Op::LOGISTIC | Op::CONCATENATION | Op::SOFTMAX, 3) => {
            (2, 3, 0)
        }
        (Op::RESIZE_NEAREST_NEIGHBOR, 4) => (2, 4, 0),
        (Op::FULLY_CONNECTED, 12) => (2, 17, 0),
        (Op::FULLY_CONNECTED, 9) => (2, 3, 0),
        (Op::FULLY_CONNECTED, 6) => (2, 1, 0),
        (Op::FULLY_CONNECTED, 5) => (2, 0, 0),
        (Op::BATCH_MATMUL, _) => (2, 3, 0),
        (Op::CONV_2D, 6) => (2, 9, 0),
        (Op::CONV_2D, 5) | (Op::ABS, 2) => (2, 4, 0),
        (Op::DEQUANTIZE, 5) => (2, 7, 0),
        (Op::RELU, 2) => (2, 1, 0),
        (Op::EXP, 2) => (2, 12, 0),
        (Op::RSQRT, 2) => (2, 5, 0),
        (Op::MIRROR_PAD, 2) => (2, 3, 0),
        (Op::DEPTHWISE_CONV_2D, 2) => (1, 12, 0),
        (Op::DEPTHWISE_CONV_2D, 6) => (2, 3, 0),
        (Op::DEPTHWISE_CONV_2D, 4) => (2, 2, 0),
        (Op::MUL, 3) => (1, 15, 0),
        (Op::SUB | Op::MAXIMUM | Op::MINIMUM, 3) | (Op::DIV, 2) => (2, 3, 0),
        (Op::TRANSPOSE, 4) => (2, 3, 0),
        (Op::STRIDED_SLICE, 4) => (2, 2, 0),
        (Op::SLICE, 5) => (2, 5, 0),
        (Op::PAD | Op::PADV2, 4) => (2, 6, 0),
        (Op::TRANSPOSE_CONV, 4) => (2, 13, 0),
        (Op::TRANSPOSE_CONV, 3) => (2, 3, 0),
        (Op::TRANSPOSE_CONV, 2) => (2, 2, 0),
        (Op::RESIZE_BILINEAR, 3) => (2, 2, 0),
        (Op::RESIZE_NEAREST_NEIGHBOR, 3) => (2, 3, 0),
        (Op::TILE, 3) => (2, 8, 0),
        (Op::DEQUANTIZE, 3) => (1, 15, 0),
        (Op::QUANTIZE, 1) => (1, 14, 0),
        (Op::HARD_SWISH, _) => (1, 15, 0),
        (Op::DEPTH_TO_SPACE, 1) => (2, 1, 0),
        (Op::DEPTH_TO_SPACE, 2) => (2, 5, 0),
        (Op::SUM, 2) => (1, 15, 0),
        (Op::GELU, _) => (2, 9, 0),
        (Op::CUMSUM, _) => (2, 4, 0),
        (Op::TOPK_V2, 1) => (1, 7, 0),
        (Op::FLOOR_MOD, 1) => (1, 13, 1),
        (_, version) if version >= 2 => (1, 14, 0),
        (Op::LOGISTIC | Op::TANH | Op::SLICE | Op::MAXIMUM | Op::MINIMUM | Op::LOG_SOFTMAX | Op::LOG, 1) => (1, 14, 0),
        (Op::ELU | Op::FLOOR_DIV | Op::ROUND | Op::CEIL | Op::SELECT | Op::GATHER_ND, 1) => (1, 14, 0),
        (Op::SELECT_V2, 1) => (2, 2, 0),
        (Op::LEAKY_RELU | Op::SPLIT_V | Op::RESIZE_NEAREST_NEIGHBOR | Op::DEQUANTIZE, 1) => (1, 13, 1),
        (Op::SQUARED_DIFFERENCE | Op::MIRROR_PAD, 1) => (1, 13, 1),
        (Op::ABS, 1) => (1, 13, 0),
        (Op::SQUARE, 1) => (1, 12, 0),
        (Op::PACK | Op::UNPACK | Op::REDUCE_MAX | Op::REDUCE_MIN | Op::REDUCE_PROD | Op::ONE_HOT, 1) => (1, 11, 0),
        (Op::SUM | Op::EXPAND_DIMS | Op::SHAPE | Op::POW | Op::SQRT | Op::RSQRT, 1) => (1, 10, 0),
        (Op::TILE, 1) => (1, 10, 1),
        (Op::PADV2 | Op::TRANSPOSE_CONV | Op::ARG_MAX | Op::ARG_MIN | Op::NEG | Op::FLOOR, 1) => (1, 9, 0),
        (Op::PRELU, 1) => (1, 8, 0),
        (Op::RESIZE_BILINEAR | Op::EXP, 1) => (1, 7, 0),
        (Op::MEAN | Op::TRANSPOSE | Op::SUB | Op::DIV | Op::STRIDED_SLICE | Op::GATHER | Op::SQUEEZE, 1) => (1, 6, 0),
        _ => (1, 5, 0),
    })
}
