//! What TFLite's integer kernels ask of scales, operator by operator. Both LiteRT and TensorFlow Lite Micro check these
//! when a model is prepared; breaking one is an error there, or silently wrong results.

use edgeyard_tflite::BuiltinOp as Op;

use super::{Activations, Affine};

/// True if LiteRT and TensorFlow Lite Micro both compute the operator with such activations.
pub(super) fn has_kernel(op: Op, activations: Activations) -> bool {
    match activations {
        Activations::Int8 => has_int8_kernel(op),
        Activations::Int16 => has_int16_kernel(op),
    }
}

fn has_int16_kernel(op: Op) -> bool {
    matches!(
        op,
        Op::CONV_2D
            | Op::DEPTHWISE_CONV_2D
            | Op::TRANSPOSE_CONV
            | Op::FULLY_CONNECTED
            | Op::BATCH_MATMUL
            | Op::ADD
            | Op::SUB
            | Op::MUL
            | Op::MEAN
            | Op::LEAKY_RELU
            | Op::RELU
            | Op::RELU6
            | Op::SOFTMAX
            | Op::LOGISTIC
            | Op::TANH
            | Op::RESHAPE
            | Op::TRANSPOSE
            | Op::MAX_POOL_2D
            | Op::AVERAGE_POOL_2D
            | Op::PAD
            | Op::SLICE
            | Op::STRIDED_SLICE
            | Op::CONCATENATION
            | Op::MAXIMUM
            | Op::MINIMUM
            | Op::QUANTIZE
    )
}

fn has_int8_kernel(op: Op) -> bool {
    fixed_output(op, Activations::Int8).is_some()
        || keeps_scale(op)
        || equalizes(op)
        || matches!(
            op,
            Op::CONV_2D
                | Op::DEPTHWISE_CONV_2D
                | Op::TRANSPOSE_CONV
                | Op::FULLY_CONNECTED
                | Op::BATCH_MATMUL
                | Op::ADD
                | Op::SUB
                | Op::MUL
                | Op::MEAN
                | Op::SUM
                | Op::RELU
                | Op::LEAKY_RELU
                | Op::PRELU
                | Op::HARD_SWISH
                | Op::ELU
                | Op::ABS
                | Op::QUANTIZE
        )
}

/// Operators whose output has one possible scale, because their values have one possible range.
pub(super) fn fixed_output(op: Op, activations: Activations) -> Option<Affine> {
    Some(match op {
        Op::SOFTMAX | Op::LOGISTIC | Op::TANH if activations == Activations::Int16 => {
            Affine { scale: 1.0 / 32768.0, zero_point: 0 }
        }
        Op::SOFTMAX | Op::LOGISTIC => Affine { scale: 1.0 / 256.0, zero_point: -128 },
        Op::TANH | Op::L2_NORMALIZATION => Affine { scale: 1.0 / 128.0, zero_point: 0 },
        _ => return None,
    })
}

/// Operators that move or pick values: the output has the input's scale.
pub(super) fn keeps_scale(op: Op) -> bool {
    matches!(
        op,
        Op::RESHAPE
            | Op::TRANSPOSE
            | Op::MAX_POOL_2D
            | Op::AVERAGE_POOL_2D
            | Op::PAD
            | Op::PADV2
            | Op::MIRROR_PAD
            | Op::SLICE
            | Op::STRIDED_SLICE
            | Op::GATHER
            | Op::RESIZE_BILINEAR
            | Op::RESIZE_NEAREST_NEIGHBOR
            | Op::SPACE_TO_DEPTH
            | Op::DEPTH_TO_SPACE
            | Op::REDUCE_MAX
            | Op::REDUCE_MIN
            // TensorFlow Lite Micro clamps the integers as they are.
            | Op::RELU6
    )
}

/// Operators whose several inputs share the output's scale.
pub(super) fn equalizes(op: Op) -> bool {
    matches!(op, Op::CONCATENATION | Op::MAXIMUM | Op::MINIMUM)
}

/// Operators that can give their result in any scale.
pub(super) fn is_free(op: Op, activations: Activations) -> bool {
    has_kernel(op, activations) && !keeps_scale(op) && !equalizes(op) && fixed_output(op, activations).is_none()
}
