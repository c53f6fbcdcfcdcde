//! DEPTHWISE_CONV_2D, with any depth multiplier.

use super::channels::{self, Channel, Finish};
use super::window::{Options, Window};
use super::{Op, Prepare, at};
use crate::Error;
use crate::kernels::{self, Planes};
use crate::tensor::{Memory, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct Depthwise<'a> {
    input: u32,
    weights: u32,
    output: u32,
    window: Window,
    channels: &'a [Channel],
    finish: Finish,
}

pub(crate) fn prepare<'a>(p: &mut Prepare<'_, '_, 'a>) -> Result<(Op<'a>, u32), Error> {
    let (input, weights, output) = (p.input8(0)?, p.input(1)?, p.output8(0)?);
    let bytes = channels::weights(p, weights.1)?;
    let &[1, k_h, k_w, out_c] = weights.1.shape.dims() else {
        return Err(p.unsupported("weights whose shape is not [1, height, width, channels]"));
    };
    let options = Options {
        same: p.option_u8(0, 0)? == 0,
        kernel: (k_h as usize, k_w as usize),
        stride: (p.option_i32(2, 0)?, p.option_i32(1, 0)?),
        dilation: (p.option_i32(6, 1)?, p.option_i32(5, 1)?),
    };
    let window = Window::new(p, input.1, output.1, &options)?;
    let out_c = out_c as usize;
    if out_c != window.out_c || !out_c.is_multiple_of(window.in_c) {
        return Err(p.unsupported("output channels that are no multiple of the input channels"));
    }
    let sum = |c: usize| channels::sum(bytes, (0..window.taps()).map(|t| t * out_c + c));
    let channels = channels::channels(p, (input, weights, output), (out_c, 3), sum)?;
    let finish = Finish::new(output.1.zero_point, p.activation(4, output.1)?, channels, window.taps());
    let finish = Finish { symmetric: !bytes.contains(&0x80), ..finish };
    let scratch =
        u32::try_from(kernels::planes_scratch(&window, &finish)).map_err(|_| p.unsupported("a window too large"))?;
    Ok((
        Op::Depthwise(Depthwise { input: input.0, weights: weights.0, output: output.0, window, channels, finish }),
        scratch,
    ))
}

impl Depthwise<'_> {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>, scratch: &mut [i8]) {
        let (input, weights, output) = (at(tensors, self.input), at(tensors, self.weights), at(tensors, self.output));
        let fill = input.zero_point as i8;
        // SAFETY: see `ops::run`.
        let (input, weights, output) = unsafe { (memory.i8(input), memory.i8(weights), memory.i8_mut(output)) };
        let w = &self.window;
        let planes = Planes { weights, channels: self.channels, window: w, fill, finish: &self.finish };
        let images =
            input.chunks_exact(w.in_h * w.in_w * w.in_c).zip(output.chunks_exact_mut(w.out_h * w.out_w * w.out_c));
        for (input, output) in images {
            planes.convolve(input, output, scratch);
        }
    }
}
