//! Pooling.

use edgeyard_tflite::{BuiltinOp, Options, Padding, op_options as opt};

use super::super::LowerError;
use super::super::draft::{MAXIMUM_MINIMUM_OPTIONS, PADV2_OPTIONS, TensorId, Value};
use super::super::layout::{Layout, Stored, stored_shape};
use super::super::walk::Walk;
use super::conv;
use super::window::Window;

/// `MaxPool`.
pub(super) fn max_pool(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    if walk.node().outputs.get(1).is_some_and(|name| !name.is_empty()) {
        return Err(walk.refuse("its indices are used", "TFLite has no pooling that gives indices"));
    }
    let (x, axes, window) = window_of(walk)?;
    max_pool_over(walk, x, axes, &window)
}

/// `GlobalMaxPool`: one window over everything.
pub(super) fn global_max_pool(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let axes = channels_last(walk, &x)?;
    let kernel = x.dims[2..].to_vec();
    let window = Window::of(walk, &x.dims, &kernel)?;
    max_pool_over(walk, x, axes, &window)
}

fn max_pool_over(walk: &mut Walk<'_>, x: Stored, axes: Vec<Option<usize>>, window: &Window) -> Result<(), LowerError> {
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let non_negative = walk.draft.tensors[input].non_negative;
    let (input, padding) = match window.padding() {
        Some(padding) if padding == Padding::Valid || window.dilation == [1, 1] => (input, padding),
        // Zero is the least value of what is never negative.
        _ if non_negative => (conv::pad(walk, input, window), Padding::Valid),
        _ => (pad_with_lowest(walk, input, window), Padding::Valid),
    };
    let dims = pooled(&x.dims, window);
    let shape = stored_shape(&dims, &axes);
    let output = if window.dilation == [1, 1] {
        pool(walk, BuiltinOp::MAX_POOL_2D, input, padding, window, &shape)
    } else {
        dilated_max_pool(walk, input, window, &shape)
    };
    walk.draft.tensors[output].origin = walk.origin().map(str::to_owned);
    walk.draft.tensors[output].non_negative = non_negative;
    walk.define(output, dims, axes);
    Ok(())
}

/// `AveragePool`. TFLite divides by the elements inside the input, ONNX by what `count_include_pad` says: where the two
/// differ, zeros are padded and a constant per position corrects the divisor.
pub(super) fn average_pool(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let (x, axes, window) = window_of(walk)?;
    if window.dilation != [1, 1] {
        return Err(walk.refuse("it is dilated", "TFLite has no dilated average pooling"));
    }
    let include = walk.node().int("count_include_pad", 0) != 0;
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let dims = pooled(&x.dims, &window);
    let shape = stored_shape(&dims, &axes);
    let direct = match window.padding() {
        Some(Padding::Same) if include => None,
        padding => padding,
    };
    let non_negative = walk.draft.tensors[input].non_negative;
    let output = match direct {
        Some(padding) => pool(walk, BuiltinOp::AVERAGE_POOL_2D, input, padding, &window, &shape),
        None => {
            let padded = conv::pad(walk, input, &window);
            let sum = pool(walk, BuiltinOp::AVERAGE_POOL_2D, padded, Padding::Valid, &window, &shape);
            let factors = divisor_corrections(&window, include);
            if factors.iter().all(|&factor| factor == 1.0) {
                sum
            } else {
                let factors = walk.draft.constant(&[1, window.output[0], window.output[1], 1], Value::F32(factors));
                walk.emit(BuiltinOp::MUL, opt::Mul::default(), &[sum, factors], &shape)
            }
        }
    };
    walk.draft.tensors[output].origin = walk.origin().map(str::to_owned);
    walk.draft.tensors[output].non_negative = non_negative;
    walk.define(output, dims, axes);
    Ok(())
}

fn channels_last(walk: &Walk<'_>, x: &Stored) -> Result<Vec<Option<usize>>, LowerError> {
    let rank = x.dims.len();
    Layout::channels_last(rank)
        .filter(|_| rank >= 3)
        .ok_or_else(|| walk.refuse(format!("its input has {rank} dimensions"), "only 1-D and 2-D pooling is lowered"))
}

fn window_of(walk: &mut Walk<'_>) -> Result<(Stored, Vec<Option<usize>>, Window), LowerError> {
    let x = walk.operand(0)?;
    let axes = channels_last(walk, &x)?;
    let kernel: Option<Vec<usize>> = walk
        .node()
        .ints("kernel_shape")
        .and_then(|values| values.iter().map(|&value| usize::try_from(value).ok()).collect());
    let kernel = kernel
        .filter(|kernel| kernel.len() == x.dims.len() - 2)
        .ok_or_else(|| walk.refuse("its kernel_shape does not fit its input", "repair the model"))?;
    let window = Window::of(walk, &x.dims, &kernel)?;
    Ok((x, axes, window))
}

fn pooled(dims: &[usize], window: &Window) -> Vec<usize> {
    let mut pooled = dims[..2].to_vec();
    pooled.extend(if dims.len() == 3 { &window.output[1..] } else { &window.output[..] });
    pooled
}

fn pool(
    walk: &mut Walk<'_>,
    op: BuiltinOp,
    input: TensorId,
    padding: Padding,
    window: &Window,
    shape: &[usize],
) -> TensorId {
    let [stride_h, stride_w] = window.stride.map(|value| value as i32);
    let [filter_height, filter_width] = window.kernel.map(|value| value as i32);
    let options = opt::Pool2D { padding, stride_w, stride_h, filter_width, filter_height, ..opt::Pool2D::default() };
    walk.emit_inner(op, options, &[input], shape)
}

/// TFLite has no dilated pooling: the largest of the input shifted to every element of the kernel.
fn dilated_max_pool(walk: &mut Walk<'_>, input: TensorId, window: &Window, shape: &[usize]) -> TensorId {
    let origin = walk.draft.tensors[input].origin.clone();
    let mut largest = None;
    for row in 0..window.kernel[0] {
        for column in 0..window.kernel[1] {
            let begin = [0, row * window.dilation[0], column * window.dilation[1], 0];
            let last = |at: usize| begin[at + 1] + (window.output[at] - 1) * window.stride[at] + 1;
            let end = [shape[0], last(0), last(1), shape[3]];
            let strides = [1, window.stride[0], window.stride[1], 1];
            let [begin, end, strides] = [begin, end, strides].map(|list| walk.draft.ints(&list));
            let options = opt::StridedSlice::default();
            let part = walk.emit_inner(BuiltinOp::STRIDED_SLICE, options, &[input, begin, end, strides], shape);
            walk.draft.tensors[part].origin.clone_from(&origin);
            largest = Some(match largest {
                None => part,
                Some(known) => {
                    let options = Options::Empty(MAXIMUM_MINIMUM_OPTIONS);
                    walk.emit_inner(BuiltinOp::MAXIMUM, options, &[known, part], shape)
                }
            });
        }
    }
    largest.unwrap_or(input)
}

fn pad_with_lowest(walk: &mut Walk<'_>, input: TensorId, window: &Window) -> TensorId {
    let shape = window.padded(&walk.draft.tensors[input].shape);
    let paddings = walk.draft.constant(&[4, 2], Value::I32(window.paddings()));
    let lowest = walk.draft.constant(&[1], Value::F32(vec![f32::MIN]));
    let origin = walk.draft.tensors[input].origin.clone();
    let inputs = [input, paddings, lowest];
    let output = walk.emit_inner(BuiltinOp::PADV2, Options::Empty(PADV2_OPTIONS), &inputs, &shape);
    walk.draft.tensors[output].origin = origin;
    output
}

/// What the mean over a whole window has to be multiplied by, per output position.
fn divisor_corrections(window: &Window, include: bool) -> Vec<f32> {
    let counts = |at: usize| -> Vec<usize> {
        let (before, after) = window.pads[at];
        let counted = if include { 0..before + window.input[at] + after } else { before..before + window.input[at] };
        (0..window.output[at])
            .map(|output| {
                let start = output * window.stride[at];
                (start..start + window.kernel[at]).filter(|position| counted.contains(position)).count()
            })
            .collect()
    };
    let whole = (window.kernel[0] * window.kernel[1]) as f32;
    let (rows, columns) = (counts(0), counts(1));
    rows.iter().flat_map(|row| columns.iter().map(move |column| whole / (row * column) as f32)).collect()
}
