//! Operators over height and width: TFLite's images have channels last, ONNX's have them first.

use edgeyard_tflite::{Activation, Options, Padding};

use super::{Import, ImportError};
use crate::ir::{Attribute, Tensor};

/// A window along height and width.
struct Frame {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: Padding,
}

fn text(value: &str) -> Attribute {
    Attribute::String(value.into())
}

fn ints(values: &[usize]) -> Attribute {
    Attribute::Ints(values.iter().map(|&value| value as i64).collect())
}

impl Import<'_> {
    /// The input's name with channels first, and its shape with channels last.
    fn image(&mut self, position: usize) -> Result<(String, [usize; 4]), ImportError> {
        let shape = self.shape(self.operand(position)?);
        let [n, h, w, c] = shape[..] else {
            return Err(self.refuse(format!("its input has {} dimensions, not 4", shape.len())));
        };
        let x = self.read(position)?;
        let first = self.inner("Transpose", &[&x], vec![("perm", ints(&[0, 3, 1, 2]))]);
        Ok((first, [n, h, w, c]))
    }

    /// Ends a spatial operator: channels last again, then its activation.
    fn finish_image(&mut self, made: &str, activation: Activation) -> Result<(), ImportError> {
        let last = self.inner("Transpose", &[made], vec![("perm", ints(&[0, 2, 3, 1]))]);
        self.finish(&last, activation)
    }

    fn frame(
        &self,
        kernel: [usize; 2],
        strides: (i32, i32),
        dilations: (i32, i32),
        padding: Padding,
    ) -> Result<Frame, ImportError> {
        let sizes = |(h, w): (i32, i32)| [h, w].map(|value| usize::try_from(value).unwrap_or(0));
        let (stride, dilation) = (sizes(strides), sizes(dilations));
        let small = |values: [usize; 2]| values.iter().all(|value| (1..=1 << 20).contains(value));
        if !small(kernel) || !small(stride) || !small(dilation) {
            return Err(self.refuse("its kernel, strides or dilations are out of range"));
        }
        Ok(Frame { kernel, stride, dilation, padding })
    }

    /// What ONNX calls the window; SAME becomes the pads it stands for.
    fn attributes(&self, frame: &Frame, input: [usize; 4], pool: bool) -> Vec<(&'static str, Attribute)> {
        let mut pads = [0; 4];
        if frame.padding == Padding::Same {
            for at in 0..2 {
                let size = input[at + 1];
                let reach = (frame.kernel[at] - 1) * frame.dilation[at] + 1;
                let outputs = size.div_ceil(frame.stride[at]).max(1);
                let total = ((outputs - 1) * frame.stride[at] + reach).saturating_sub(size);
                (pads[at], pads[at + 2]) = (total / 2, total - total / 2);
            }
        }
        let mut attributes =
            vec![("kernel_shape", ints(&frame.kernel)), ("strides", ints(&frame.stride)), ("pads", ints(&pads))];
        if !pool {
            attributes.push(("dilations", ints(&frame.dilation)));
        }
        attributes
    }

    /// Weights as floats in another order of dimensions, entered under a name of their own.
    fn turned(&mut self, position: usize, order: [usize; 4]) -> Result<(String, [usize; 4]), ImportError> {
        let at = self.operand(position)?;
        let weights = self.constant(at)?;
        let (Some(values), &[a, b, c, d]) = (weights.to_f32(), &weights.dims[..]) else {
            return Err(self.refuse("its weights are not four-dimensional floats"));
        };
        let dims = [a, b, c, d];
        let strides = [b * c * d, c * d, d, 1];
        let to = order.map(|axis| dims[axis]);
        let mut turned = Vec::with_capacity(values.len());
        for i in 0..to[0] {
            for j in 0..to[1] {
                for k in 0..to[2] {
                    for l in 0..to[3] {
                        let index = [i, j, k, l];
                        turned.push(values[(0..4).map(|at| index[at] * strides[order[at]]).sum::<usize>()]);
                    }
                }
            }
        }
        Ok((self.enter("weights", Tensor::f32(&to, turned)), dims))
    }

    fn convolve(
        &mut self,
        frame: &Frame,
        (x, shape): (String, [usize; 4]),
        weights: String,
        group: usize,
        activation: Activation,
    ) -> Result<(), ImportError> {
        let mut attributes = self.attributes(frame, shape, false);
        attributes.push(("group", Attribute::Int(group as i64)));
        let mut inputs = vec![x, weights];
        if self.optional(2).is_some() {
            inputs.push(self.read(2)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let made = self.inner("Conv", &inputs, attributes);
        self.finish_image(&made, activation)
    }

    pub(super) fn conv(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::Conv2D(options) = options else { return Err(self.refuse("its options are missing")) };
        let image = self.image(0)?;
        let (weights, [_, height, width, channels]) = self.turned(1, [0, 3, 1, 2])?;
        if channels == 0 || !image.1[3].is_multiple_of(channels) {
            return Err(self.refuse("its weights do not fit its input"));
        }
        let strides = (options.stride_h, options.stride_w);
        let dilations = (options.dilation_h_factor, options.dilation_w_factor);
        let frame = self.frame([height, width], strides, dilations, options.padding)?;
        let group = image.1[3] / channels;
        self.convolve(&frame, image, weights, group, options.fused_activation_function)
    }

    pub(super) fn depthwise(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::DepthwiseConv2D(options) = options else { return Err(self.refuse("its options are missing")) };
        let image = self.image(0)?;
        let (weights, [_, height, width, _]) = self.turned(1, [3, 0, 1, 2])?;
        let strides = (options.stride_h, options.stride_w);
        let dilations = (options.dilation_h_factor, options.dilation_w_factor);
        let frame = self.frame([height, width], strides, dilations, options.padding)?;
        let group = image.1[3];
        self.convolve(&frame, image, weights, group, options.fused_activation_function)
    }

    /// The output's size says what is cut off.
    pub(super) fn transpose_conv(&mut self, options: &Options) -> Result<(), ImportError> {
        let Options::TransposeConv(options) = options else { return Err(self.refuse("its options are missing")) };
        let (x, [_, rows, columns, _]) = self.image(2)?;
        let (weights, [_, height, width, _]) = self.turned(1, [3, 0, 1, 2])?;
        let strides = (options.stride_h, options.stride_w);
        let frame = self.frame([height, width], strides, (1, 1), options.padding)?;
        let output = self.shape(self.output()?);
        let [_, out_rows, out_columns, _] = output[..] else {
            return Err(self.refuse("its output is no image"));
        };
        let (mut pads, mut extra) = ([0_usize; 4], [0_usize; 2]);
        for (at, (input, output)) in [(rows, out_rows), (columns, out_columns)].into_iter().enumerate() {
            let natural = input
                .saturating_sub(1)
                .checked_mul(frame.stride[at])
                .and_then(|size| size.checked_add(frame.kernel[at]))
                .ok_or_else(|| self.refuse("its strides are out of range"))?;
            let cut = natural.saturating_sub(output);
            (pads[at], pads[at + 2]) = (cut / 2, cut - cut / 2);
            extra[at] = output.saturating_sub(natural);
        }
        let attributes = vec![
            ("kernel_shape", ints(&frame.kernel)),
            ("strides", ints(&frame.stride)),
            ("pads", ints(&pads)),
            ("output_padding", ints(&extra)),
        ];
        let mut inputs = vec![x, weights];
        if self.optional(3).is_some() {
            inputs.push(self.read(3)?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let made = self.inner("ConvTranspose", &inputs, attributes);
        self.finish_image(&made, options.fused_activation_function)
    }

    pub(super) fn pool(&mut self, op: &str, options: &Options) -> Result<(), ImportError> {
        let Options::Pool2D(options) = options else { return Err(self.refuse("its options are missing")) };
        let (x, shape) = self.image(0)?;
        let kernel = [options.filter_height, options.filter_width].map(|size| usize::try_from(size).unwrap_or(0));
        let frame = self.frame(kernel, (options.stride_h, options.stride_w), (1, 1), options.padding)?;
        let attributes = self.attributes(&frame, shape, true);
        let made = self.inner(op, &[&x], attributes);
        self.finish_image(&made, options.fused_activation_function)
    }

    pub(super) fn resize(&mut self, options: &Options) -> Result<(), ImportError> {
        let (mode, corners, half) = match options {
            Options::ResizeBilinear(options) => ("linear", options.align_corners, options.half_pixel_centers),
            Options::ResizeNearestNeighbor(options) => ("nearest", options.align_corners, options.half_pixel_centers),
            _ => return Err(self.refuse("its options are missing")),
        };
        let (x, [n, _, _, c]) = self.image(0)?;
        let output = self.shape(self.output()?);
        let [_, height, width, _] = output[..] else { return Err(self.refuse("its output is no image")) };
        let sizes = self.list("sizes", &[n as i64, c as i64, height as i64, width as i64]);
        let coordinates = match (corners, half) {
            (true, _) => "align_corners",
            (false, true) => "half_pixel",
            (false, false) => "asymmetric",
        };
        // TFLite floors the coordinate; with half pixel centres it floors that of the middle, which rounds half up.
        let rounding = if corners || half { "round_prefer_ceil" } else { "floor" };
        let attributes = vec![
            ("mode", text(mode)),
            ("coordinate_transformation_mode", text(coordinates)),
            ("nearest_mode", text(rounding)),
        ];
        let made = self.inner("Resize", &[&x, "", "", &sizes], attributes);
        self.finish_image(&made, Activation::None)
    }

    pub(super) fn blocks(&mut self, options: &Options) -> Result<(), ImportError> {
        let (op, block) = match options {
            Options::DepthToSpace(options) => ("DepthToSpace", options.block_size),
            Options::SpaceToDepth(options) => ("SpaceToDepth", options.block_size),
            _ => return Err(self.refuse("its options are missing")),
        };
        let (x, _) = self.image(0)?;
        let made = self.inner(op, &[&x], vec![("blocksize", Attribute::Int(i64::from(block)))]);
        self.finish_image(&made, Activation::None)
    }
}
