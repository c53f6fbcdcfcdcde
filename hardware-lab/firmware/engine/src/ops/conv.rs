//! CONV_2D, grouped too: gather the input below a window into a row, multiply it with every channel's weights.

use super::channels::{self, Channel, Finish};
use super::window::{Options, Window};
use super::{Op, Prepare, at};
use crate::Error;
use crate::kernels::{self, Rows, Windows};
use crate::tensor::{Memory, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct Conv<'a> {
    input: u32,
    weights: u32,
    output: u32,
    window: Window,
    groups: usize,
    channels: &'a [Channel],
    finish: Finish,
}

pub(crate) fn prepare<'a>(p: &mut Prepare<'_, '_, 'a>) -> Result<(Op<'a>, u32), Error> {
    let (input, weights, output) = (p.input8(0)?, p.input(1)?, p.output8(0)?);
    let bytes = channels::weights(p, weights.1)?;
    let &[out_c, k_h, k_w, group_c] = weights.1.shape.dims() else {
        return Err(p.unsupported("weights that are not 4-dimensional"));
    };
    let options = Options {
        same: p.option_u8(0, 0)? == 0,
        kernel: (k_h as usize, k_w as usize),
        stride: (p.option_i32(2, 0)?, p.option_i32(1, 0)?),
        dilation: (p.option_i32(5, 1)?, p.option_i32(4, 1)?),
    };
    let window = Window::new(p, input.1, output.1, &options)?;
    let (group_c, out_c) = (group_c as usize, out_c as usize);
    let groups = window.in_c / group_c;
    if groups * group_c != window.in_c || out_c != window.out_c || !out_c.is_multiple_of(groups) {
        return Err(p.unsupported("weights whose channels do not divide those of input and output"));
    }
    let length = window.taps() * group_c;
    let sum = |c: usize| channels::sum(bytes, c * length..(c + 1) * length);
    let channels = channels::channels(p, (input, weights, output), (out_c, 0), sum)?;
    let finish = Finish::new(output.1.zero_point, p.activation(3, output.1)?, channels, length);
    let direct = window.is_pointwise() && groups == 1;
    let pixels = if groups == 1 { window.out_h * window.out_w } else { 1 };
    let scratch = kernels::rows_scratch(length, out_c / groups, pixels, !direct);
    let scratch = u32::try_from(scratch).map_err(|_| p.unsupported("a window too large"))?;
    let conv = Conv { input: input.0, weights: weights.0, output: output.0, window, groups, channels, finish };
    Ok((Op::Conv(conv), scratch))
}

impl Conv<'_> {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>, scratch: &mut [i8]) {
        let (input, weights, output) = (at(tensors, self.input), at(tensors, self.weights), at(tensors, self.output));
        let (fill, slack) = (input.zero_point as i8, memory.slack(weights));
        // SAFETY: see `ops::run`.
        let (input, weights, output) = unsafe { (memory.i8(input), memory.i8(weights), memory.i8_mut(output)) };
        let w = &self.window;
        let length = w.taps() * w.in_c / self.groups;
        let rows = Rows { weights, slack, length, channels: self.channels, finish: &self.finish };
        if w.is_pointwise() && self.groups == 1 {
            rows.multiply(input, output, scratch);
            return;
        }
        let (image, pixel) = (w.in_h * w.in_w * w.in_c, w.out_c);
        let images = input.chunks_exact(image).zip(output.chunks_exact_mut(w.out_h * w.out_w * pixel));
        for (input, output) in images {
            if self.groups == 1 {
                let windows = Windows { window: w, image: input, channels: (0, w.in_c), first: 0, fill };
                rows.multiply_windows(&windows, output, scratch);
            } else {
                self.run_groups(&rows, input, output, fill, scratch);
            }
        }
    }

    fn run_groups(&self, rows: &Rows<'_>, image: &[i8], output: &mut [i8], fill: i8, scratch: &mut [i8]) {
        let window = &self.window;
        let (group_in, group_out) = (window.in_c / self.groups, window.out_c / self.groups);
        for (first, pixel) in output.chunks_exact_mut(window.out_c).enumerate() {
            for (g, out) in pixel.chunks_exact_mut(group_out).enumerate() {
                let windows = Windows { window, image, channels: (g * group_in, group_in), first, fill };
                rows.group(g, group_out).multiply_windows(&windows, out, scratch);
            }
        }
    }
}
