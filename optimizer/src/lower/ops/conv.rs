//! Convolutions and batch normalisation.

use edgeyard_tflite::{Activation, BuiltinOp, Options, Padding, op_options as opt};

use super::super::LowerError;
use super::super::draft::{PAD_OPTIONS, TensorId, Value, permuted_order};
use super::super::layout::{Layout, stored_shape};
use super::super::walk::Walk;
use super::window::Window;

/// `Conv`: CONV_2D, or DEPTHWISE_CONV_2D when every channel has a group of its own.
pub(super) fn conv(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let Some(axes) = Layout::channels_last(rank).filter(|_| rank >= 3) else {
        return Err(walk.refuse(
            format!("it is {}-dimensional", rank.saturating_sub(2)),
            "only 1-D and 2-D convolutions are lowered",
        ));
    };
    let (shape, weights) = walk.floats(1, "weights")?;
    if shape.len() != rank {
        return Err(walk.refuse(format!("weights {shape:?} do not fit an input {:?}", x.dims), "repair the model"));
    }
    let group = usize::try_from(walk.node().int("group", 1)).unwrap_or(0);
    let (outputs, channels) = (shape[0], x.dims[1]);
    if group == 0 || outputs % group != 0 || shape[1].checked_mul(group) != Some(channels) {
        let why = format!("weights {shape:?} in {group} groups do not fit an input of {channels} channels");
        return Err(walk.refuse(why, "repair the model"));
    }
    let window = Window::of(walk, &x.dims, &shape[2..])?;
    let bias = match walk.node().input(2) {
        Some(_) => walk.floats(2, "bias")?.1,
        None => vec![0.0; outputs],
    };

    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let (input, padding) = pad_with_zeros(walk, input, &window);
    let [kernel_h, kernel_w] = window.kernel;
    let source = [outputs, shape[1], kernel_h, kernel_w];
    let depthwise = group == channels && group > 1;
    let (stored, permutation) = if depthwise {
        ([1, kernel_h, kernel_w, outputs], [1, 2, 3, 0])
    } else {
        ([outputs, kernel_h, kernel_w, shape[1]], [0, 2, 3, 1])
    };
    let weights = permuted_order(&source, &permutation).into_iter().map(|at| weights[at]).collect();
    let weights = walk.draft.constant(&stored, Value::F32(weights));
    let bias = walk.draft.constant(&[outputs], Value::F32(bias));

    let mut dims = vec![x.dims[0], outputs];
    dims.extend(if rank == 3 { &window.output[1..] } else { &window.output[..] });
    let shape = stored_shape(&dims, &axes);
    let [stride_h, stride_w] = window.stride.map(|value| value as i32);
    let [dilation_h_factor, dilation_w_factor] = window.dilation.map(|value| value as i32);
    let output = if depthwise {
        let options = opt::DepthwiseConv2D {
            padding,
            stride_w,
            stride_h,
            depth_multiplier: (outputs / channels) as i32,
            fused_activation_function: Activation::None,
            dilation_w_factor,
            dilation_h_factor,
        };
        walk.emit(BuiltinOp::DEPTHWISE_CONV_2D, options, &[input, weights, bias], &shape)
    } else {
        let options =
            opt::Conv2D { padding, stride_w, stride_h, dilation_w_factor, dilation_h_factor, ..opt::Conv2D::default() };
        walk.emit(BuiltinOp::CONV_2D, options, &[input, weights, bias], &shape)
    };
    walk.define(output, dims, axes);
    Ok(())
}

/// Pads explicitly where TFLite's own padding cannot say it.
fn pad_with_zeros(walk: &mut Walk<'_>, input: TensorId, window: &Window) -> (TensorId, Padding) {
    if let Some(padding) = window.padding() {
        return (input, padding);
    }
    (pad(walk, input, window), Padding::Valid)
}

/// PAD with zeros as far as the windows reach.
pub(super) fn pad(walk: &mut Walk<'_>, input: TensorId, window: &Window) -> TensorId {
    let shape = window.padded(&walk.draft.tensors[input].shape);
    let paddings = walk.draft.constant(&[4, 2], Value::I32(window.paddings()));
    let origin = walk.draft.tensors[input].origin.clone();
    let output = walk.emit_inner(BuiltinOp::PAD, Options::Empty(PAD_OPTIONS), &[input, paddings], &shape);
    let non_negative = walk.draft.tensors[input].non_negative;
    let slot = &mut walk.draft.tensors[output];
    (slot.origin, slot.non_negative) = (origin, non_negative);
    output
}

/// `BatchNormalization` that no convolution could absorb: a depthwise convolution of one element, which int8 computes
/// with one rounding and per-channel scales.
pub(super) fn batch_normalization(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let Some(axes) = Layout::channels_last(x.dims.len()) else {
        return Err(walk.refuse(format!("its input has {} dimensions", x.dims.len()), "at most 4 are lowered"));
    };
    if walk.node().int("training_mode", 0) != 0 {
        return Err(walk.refuse("it is in training mode", "export the model for inference"));
    }
    let epsilon = walk.node().float("epsilon", 1e-5);
    let (_, scale) = walk.floats(1, "scale")?;
    let (_, bias) = walk.floats(2, "bias")?;
    let (_, mean) = walk.floats(3, "mean")?;
    let (_, variance) = walk.floats(4, "variance")?;
    let channels = x.dims[1];
    if [&scale, &bias, &mean, &variance].iter().any(|values| values.len() != channels) {
        return Err(walk.refuse(format!("its parameters do not have {channels} elements"), "repair the model"));
    }
    let factors: Vec<f32> =
        scale.iter().zip(&variance).map(|(scale, variance)| scale / (variance + epsilon).sqrt()).collect();
    let offsets = bias.iter().zip(&mean).zip(&factors).map(|((bias, mean), factor)| bias - mean * factor).collect();
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let weights = walk.draft.constant(&[1, 1, 1, channels], Value::F32(factors));
    let bias = walk.draft.constant(&[channels], Value::F32(offsets));
    let options = opt::DepthwiseConv2D {
        padding: Padding::Valid,
        stride_w: 1,
        stride_h: 1,
        depth_multiplier: 1,
        ..opt::DepthwiseConv2D::default()
    };
    let shape = stored_shape(&x.dims, &axes);
    let output = walk.emit(BuiltinOp::DEPTHWISE_CONV_2D, options, &[input, weights, bias], &shape);
    walk.define(output, x.dims, axes);
    Ok(())
}
