//! AVERAGE_POOL_2D and MAX_POOL_2D: padding does not count.

use super::window::{Options, Window};
use super::{Op, Prepare, at};
use crate::Error;
use crate::schema::OpCode;
use crate::tensor::{Memory, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct Pool {
    input: u32,
    output: u32,
    average: bool,
    window: Window,
    low: i32,
    high: i32,
}

pub(crate) fn prepare<'a>(p: &Prepare<'_, '_, 'a>, code: OpCode) -> Result<Op<'a>, Error> {
    let (input, output) = (p.input8(0)?, p.output8(0)?);
    let size = |v: i32| usize::try_from(v).map_err(|_| p.unsupported("a window of negative size"));
    let options = Options {
        same: p.option_u8(0, 0)? == 0,
        kernel: (size(p.option_i32(4, 0)?)?, size(p.option_i32(3, 0)?)?),
        stride: (p.option_i32(2, 0)?, p.option_i32(1, 0)?),
        dilation: (1, 1),
    };
    let window = Window::new(p, input.1, output.1, &options)?;
    if window.in_c != window.out_c {
        return Err(p.unsupported("different channel counts of input and output"));
    }
    let (low, high) = p.activation(5, output.1)?;
    Ok(Op::Pool(Pool { input: input.0, output: output.0, average: code == OpCode::AVERAGE_POOL_2D, window, low, high }))
}

impl Pool {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        // SAFETY: see `ops::run`.
        let (input, output) = unsafe { (memory.i8(at(tensors, self.input)), memory.i8_mut(at(tensors, self.output))) };
        let w = &self.window;
        let images =
            input.chunks_exact(w.in_h * w.in_w * w.in_c).zip(output.chunks_exact_mut(w.out_h * w.out_w * w.out_c));
        for (image, output) in images {
            for (n, pixel) in output.chunks_exact_mut(w.out_c).enumerate() {
                let top = (n / w.out_w * w.stride_h) as isize - w.pad_h;
                let left = (n % w.out_w * w.stride_w) as isize - w.pad_w;
                let ys = Window::inside(top, w.k_h, w.in_h);
                let xs = Window::inside(left, w.k_w, w.in_w);
                let count = (ys.len() * xs.len()) as i32;
                for (c, out) in pixel.iter_mut().enumerate() {
                    let values = ys.clone().flat_map(|y| {
                        let first =
                            ((top + y as isize) as usize * w.in_w + (left + xs.start as isize) as usize) * w.in_c + c;
                        image.get(first..).unwrap_or(&[]).iter().step_by(w.in_c).take(xs.len())
                    });
                    let value = if self.average {
                        average(values, count)
                    } else {
                        values.copied().max().unwrap_or(-128).into()
                    };
                    *out = value.max(self.low).min(self.high) as i8;
                }
            }
        }
    }
}

fn average<'v>(values: impl Iterator<Item = &'v i8>, count: i32) -> i32 {
    let sum: i32 = values.map(|v| i32::from(*v)).sum();
    let half = count / 2;
    (if sum > 0 { sum + half } else { sum - half }).checked_div(count).unwrap_or(0)
}
