//! Transposed convolution.

use edgeyard_tflite::{BuiltinOp, Options, Padding, op_options as opt};

use super::super::LowerError;
use super::super::draft::{SLICE_OPTIONS, Value};
use super::super::layout::{Layout, stored_shape};
use super::super::walk::Walk;

/// One spatial dimension of a transposed convolution.
struct Extent {
    kernel: usize,
    dilation: usize,
    stride: usize,
    before: usize,
    output: usize,
    /// What the kernel writes when nothing is cut off, or what is wanted if that reaches further.
    full: usize,
    /// TFLite's SAME cuts off the same elements.
    same: bool,
}

/// `ConvTranspose`: TRANSPOSE_CONV, with a SLICE where TFLite's padding cannot say what is cut off.
pub(super) fn conv_transpose(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let x = walk.operand(0)?;
    let rank = x.dims.len();
    let Some(axes) = Layout::channels_last(rank).filter(|_| rank >= 3) else {
        return Err(walk.refuse(format!("its input has {rank} dimensions"), "only 1-D and 2-D ones are lowered"));
    };
    let (shape, weights) = walk.floats(1, "weights")?;
    let group = usize::try_from(walk.node().int("group", 1)).unwrap_or(0);
    if shape.len() != rank || shape[0] != x.dims[1] || group == 0 || !shape[0].is_multiple_of(group) {
        return Err(walk.refuse(format!("weights {shape:?} do not fit its input"), "repair the model"));
    }
    let dims = walk.shape(walk.node().output())?;
    let (per_group, outputs) = (shape[1], shape[1] * group);
    if group > 1 {
        let label = walk.node().label();
        walk.notes.push(format!(
            "{label}: TFLite has no grouped transposed convolution; this one is computed as a whole, with {group} times \
             the multiplications"
        ));
    }
    let extents: Vec<Extent> =
        (2..rank).map(|axis| extent(walk, axis, &x.dims, shape, &dims)).collect::<Result<_, _>>()?;
    let unit = Extent { kernel: 1, dilation: 1, stride: 1, before: 0, output: 1, full: 1, same: true };
    let (height, width) = match &extents[..] {
        [width] => (&unit, width),
        [height, width] => (height, width),
        _ => return Err(walk.refuse("it has more than two spatial dimensions", "only 1-D and 2-D ones are lowered")),
    };
    let bias = match walk.node().input(2) {
        Some(_) => walk.floats(2, "bias")?.1,
        None => vec![0.0; outputs],
    };
    // [C, M, h, w] to [M, h, w, C], holes of a dilated kernel filled with zeros.
    let spread = |extent: &Extent| (extent.kernel - 1) * extent.dilation + 1;
    let stored = [outputs, spread(height), spread(width), x.dims[1]];
    let mut kernel = vec![0.0; stored.iter().product()];
    for channel in 0..x.dims[1] {
        // Weights between groups are zero.
        let first = channel / (x.dims[1] / group) * per_group;
        for of_group in 0..per_group {
            let output = first + of_group;
            for row in 0..height.kernel {
                for column in 0..width.kernel {
                    let from = ((channel * per_group + of_group) * height.kernel + row) * width.kernel + column;
                    let to = (output * stored[1] + row * height.dilation) * stored[2] + column * width.dilation;
                    kernel[to * stored[3] + channel] = weights[from];
                }
            }
        }
    }
    let input = x.in_axes(&mut walk.draft, walk.at, &axes);
    let weights = walk.draft.constant(&stored, Value::F32(kernel));
    let bias = walk.draft.constant(&[outputs], Value::F32(bias));
    let whole = |extent: &Extent| extent.before == 0 && extent.full == extent.output;
    let (padding, crop) = if whole(height) && whole(width) {
        (Padding::Valid, false)
    } else if height.same && width.same {
        (Padding::Same, false)
    } else {
        (Padding::Valid, true)
    };
    let length = |extent: &Extent| if crop { extent.full } else { extent.output };
    let computed = [x.dims[0], length(height), length(width), outputs];
    let sizes = walk.draft.ints(&computed);
    let options = opt::TransposeConv {
        padding,
        stride_w: width.stride as i32,
        stride_h: height.stride as i32,
        ..opt::TransposeConv::default()
    };
    let mut output = walk.emit(BuiltinOp::TRANSPOSE_CONV, options, &[sizes, weights, input, bias], &computed);
    if crop {
        let shape = stored_shape(&dims, &axes);
        let begins = walk.draft.ints(&[0, height.before, width.before, 0]);
        let sizes = walk.draft.ints(&shape);
        output = walk.emit(BuiltinOp::SLICE, Options::Empty(SLICE_OPTIONS), &[output, begins, sizes], &shape);
    }
    walk.define(output, dims, axes);
    Ok(())
}

fn extent(
    walk: &Walk<'_>,
    axis: usize,
    input: &[usize],
    weights: &[usize],
    output: &[usize],
) -> Result<Extent, LowerError> {
    let node = walk.node();
    let at = axis - 2;
    let spatial = input.len() - 2;
    let value = |name: &str, at: usize, default: usize| {
        node.ints(name).and_then(|values| values.get(at)).map_or(Ok(default), |&value| {
            usize::try_from(value)
                .map_err(|_| walk.refuse(format!("its {name} is negative"), "only positive values are lowered"))
        })
    };
    let (stride, dilation) = (value("strides", at, 1)?.max(1), value("dilations", at, 1)?.max(1));
    let kernel = weights[axis];
    let reach = (kernel - 1) * dilation + 1;
    let natural = stride * (input[axis] - 1) + reach;
    let before = match node.string("auto_pad").unwrap_or("NOTSET") {
        "NOTSET" | "" if node.ints("output_shape").is_none() => value("pads", at, 0)?,
        "VALID" => 0,
        mode => {
            // The pads follow from the output's size; the odd one goes where the mode says.
            let extra = value("output_padding", at, 0)?;
            let total = (natural + extra).saturating_sub(output[axis]);
            if mode == "SAME_UPPER" { total / 2 } else { total - total / 2 }
        }
    };
    debug_assert!(spatial >= 1);
    let total = (stride * (input[axis] - 1) + reach).saturating_sub(output[axis]);
    let same = output[axis].div_ceil(stride) == input[axis] && before == total / 2;
    Ok(Extent {
        kernel,
        dilation,
        stride,
        before,
        output: output[axis],
        full: natural.max(before + output[axis]),
        same,
    })
}
