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
                // The window's first value; anything if none of it lies inside the image.
                let line = (top + ys.start as isize) as usize;
                let column = (left + xs.start as isize) as usize;
                let first = line.wrapping_mul(w.in_w).wrapping_add(column).wrapping_mul(w.in_c);
                for (block, out) in pixel.chunks_mut(BLOCK).enumerate() {
                    let mut sums = [if self.average { 0 } else { -128 }; BLOCK];
                    for line in 0..ys.len() {
                        let start = first + line * w.in_w * w.in_c + block * BLOCK;
                        for values in image.get(start..).unwrap_or(&[]).chunks(w.in_c).take(xs.len()) {
                            gather(&mut sums, values, out.len(), self.average);
                        }
                    }
                    for (out, sum) in out.iter_mut().zip(sums) {
                        let value = if self.average { average(sum, count) } else { sum };
                        *out = value.max(self.low).min(self.high) as i8;
                    }
                }
            }
        }
    }
}

/// Channels that are pooled at once, so that the window's geometry is paid for once.
const BLOCK: usize = 8;

/// Adds a pixel's channels to the sums, or keeps the larger.
#[inline(always)]
fn gather(sums: &mut [i32; BLOCK], values: &[i8], channels: usize, average: bool) {
    let add = |(sum, value): (&mut i32, &i8)| {
        let value = i32::from(*value);
        *sum = if average { *sum + value } else { value.max(*sum) };
    };
    match values.first_chunk::<BLOCK>() {
        // A length that the compiler knows.
        Some(values) if channels == BLOCK => sums.iter_mut().zip(values).for_each(add),
        _ => sums.iter_mut().zip(values).take(channels).for_each(add),
    }
}

/// Rounds half away from zero.
fn average(sum: i32, count: i32) -> i32 {
    let half = count / 2;
    (if sum > 0 { sum + half } else { sum - half }).checked_div(count).unwrap_or(0)
}
