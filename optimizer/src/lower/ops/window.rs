//! Sliding windows: what convolutions and pools share. ONNX pads by any amount on each side; TFLite knows SAME and
//! VALID, and everything else becomes an explicit PAD.

use edgeyard_tflite::Padding;

use super::super::LowerError;
use super::super::walk::Walk;

/// What TFLite's 32 bits hold of a length; products of two fit in ours.
const LONGEST: usize = i32::MAX as usize;

/// A window along height and width; one-dimensional ones have a height of 1.
#[derive(Debug, Clone)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// What ONNX pads, before and after.
    pub pads: [(usize, usize); 2],
    /// What the windows actually reach past the end: less than padded when the last stride does not fit, more with
    /// `ceil_mode`.
    pub reached: [usize; 2],
    pub input: [usize; 2],
    pub output: [usize; 2],
}

impl Window {
    /// Reads a node's attributes for an input of ONNX shape `dims` (N, C, spatial…).
    pub(super) fn of(walk: &Walk<'_>, dims: &[usize], kernel: &[usize]) -> Result<Self, LowerError> {
        let node = walk.node();
        let spatial = dims.len() - 2;
        let bad = |what: &str| walk.refuse(format!("its attribute {what} is invalid"), "repair the model");
        let list = |name: &str, default: usize| -> Result<[usize; 2], LowerError> {
            let values: Vec<usize> = match node.ints(name) {
                None => vec![default; spatial],
                Some(values) => values
                    .iter()
                    .map(|&value| usize::try_from(value))
                    .collect::<Result<_, _>>()
                    .map_err(|_| bad(name))?,
            };
            match values[..] {
                [width] if spatial == 1 => Ok([default, width]),
                [height, width] if spatial == 2 => Ok([height, width]),
                _ => Err(bad(name)),
            }
        };
        let plane = |values: &[usize]| match *values {
            [width] => [1, width],
            [height, width] => [height, width],
            _ => [1, 1],
        };
        let kernel = plane(kernel);
        let input = plane(&dims[2..]);
        let (stride, dilation) = (list("strides", 1)?, list("dilations", 1)?);
        if stride.contains(&0) || dilation.contains(&0) || kernel.contains(&0) {
            return Err(bad("strides, dilations or kernel_shape"));
        }
        if [stride, dilation, kernel].iter().flatten().any(|&value| value > LONGEST) {
            return Err(bad("strides, dilations or kernel_shape"));
        }
        if input.contains(&0) {
            return Err(walk.refuse(format!("its input {dims:?} is empty"), "repair the model's input shape"));
        }
        let extent = |at: usize| (kernel[at] - 1) * dilation[at] + 1;
        let ceil = node.int("ceil_mode", 0) != 0;
        let mut pads = [(0, 0); 2];
        match node.string("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" | "" => {
                if let Some(values) = node.ints("pads") {
                    let values: Vec<usize> = values
                        .iter()
                        .map(|&value| usize::try_from(value))
                        .collect::<Result<_, _>>()
                        .map_err(|_| walk.refuse("it crops (negative pads)", "crop with a Slice before it"))?;
                    match values[..] {
                        [left, right] if spatial == 1 => pads[1] = (left, right),
                        [top, left, bottom, right] if spatial == 2 => pads = [(top, bottom), (left, right)],
                        _ => return Err(bad("pads")),
                    }
                    if pads.iter().any(|&(before, after)| before.max(after) > LONGEST) {
                        return Err(bad("pads"));
                    }
                }
            }
            "VALID" => {}
            mode @ ("SAME_UPPER" | "SAME_LOWER") => {
                for at in 0..2 {
                    let outputs = input[at].div_ceil(stride[at]);
                    let total = ((outputs - 1) * stride[at] + extent(at)).saturating_sub(input[at]);
                    let small = total / 2;
                    pads[at] = if mode == "SAME_UPPER" { (small, total - small) } else { (total - small, small) };
                }
            }
            _ => return Err(bad("auto_pad")),
        }
        let (mut output, mut reached) = ([1; 2], [0; 2]);
        for at in 0..2 {
            let padded = input[at] + pads[at].0 + pads[at].1;
            let room = padded.checked_sub(extent(at)).ok_or_else(|| {
                walk.refuse("its window is larger than the padded input", "repair the model's input shape")
            })?;
            output[at] = if ceil { room.div_ceil(stride[at]) } else { room / stride[at] } + 1;
            // ONNX drops a window that would start in the padding behind the end.
            if ceil && (output[at] - 1) * stride[at] >= input[at] + pads[at].0 {
                output[at] -= 1;
            }
            let end = (output[at] - 1) * stride[at] + extent(at);
            reached[at] = end.saturating_sub(input[at] + pads[at].0);
        }
        Ok(Self { kernel, stride, dilation, pads, reached, input, output })
    }

    /// TFLite's padding that does the same, if there is one.
    pub(super) fn padding(&self) -> Option<Padding> {
        let dimension = |at: usize| (self.pads[at].0, self.reached[at]);
        if (0..2).all(|at| dimension(at) == (0, 0)) {
            return Some(Padding::Valid);
        }
        let same = (0..2).all(|at| {
            let extent = (self.kernel[at] - 1) * self.dilation[at] + 1;
            let outputs = self.input[at].div_ceil(self.stride[at]);
            let total = ((outputs - 1) * self.stride[at] + extent).saturating_sub(self.input[at]);
            outputs == self.output[at] && dimension(at) == (total / 2, total - total / 2)
        });
        same.then_some(Padding::Same)
    }

    /// The shape after explicit padding.
    pub(super) fn padded(&self, shape: &[usize]) -> Vec<usize> {
        vec![
            shape[0],
            shape[1] + self.pads[0].0 + self.reached[0],
            shape[2] + self.pads[1].0 + self.reached[1],
            shape[3],
        ]
    }

    /// The paddings constant of PAD, per NHWC dimension.
    pub(super) fn paddings(&self) -> Vec<i32> {
        let [(top, _), (left, _)] = self.pads;
        [0, 0, top, self.reached[0], left, self.reached[1], 0, 0].map(|value| value as i32).to_vec()
    }
}
