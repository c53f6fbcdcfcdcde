//! Geometry of a window that slides over an NHWC image: output sizes, padding, and gathering the input below one window
//! into a row, with padding filled in.

use super::Prepare;
use crate::Error;
use crate::tensor::{Shape, Tensor};

/// Sizes of input, window and output.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    pub in_h: usize,
    pub in_w: usize,
    pub in_c: usize,
    pub out_h: usize,
    pub out_w: usize,
    pub out_c: usize,
    pub k_h: usize,
    pub k_w: usize,
    pub stride_h: usize,
    pub stride_w: usize,
    pub dilation_h: usize,
    pub dilation_w: usize,
    pub pad_h: isize,
    pub pad_w: isize,
}

/// The window's own numbers, as the options give them.
pub(crate) struct Options {
    pub same: bool,
    pub kernel: (usize, usize),
    pub stride: (i32, i32),
    pub dilation: (i32, i32),
}

impl Window {
    /// Checks that input and output are images of the sizes that the window makes.
    pub fn new(p: &Prepare<'_, '_, '_>, input: &Tensor, output: &Tensor, o: &Options) -> Result<Self, Error> {
        let four = |s: &Shape| if s.rank() == 4 { s.padded::<4>() } else { None };
        let shape = p.unsupported("an input or output that is not a 4-dimensional image");
        let [batches, in_h, in_w, in_c] = four(&input.shape).ok_or(shape)?;
        let [out_n, out_h, out_w, out_c] = four(&output.shape).ok_or(shape)?;
        let positive = |v: i32| usize::try_from(v).ok().filter(|v| *v > 0 && *v < 1 << 16);
        let bad = p.unsupported("a stride or dilation that is not positive");
        let (stride_h, stride_w) = (positive(o.stride.0).ok_or(bad)?, positive(o.stride.1).ok_or(bad)?);
        let (dilation_h, dilation_w) = (positive(o.dilation.0).ok_or(bad)?, positive(o.dilation.1).ok_or(bad)?);
        let (k_h, k_w) = o.kernel;
        if k_h == 0 || k_w == 0 || k_h >= 1 << 15 || k_w >= 1 << 15 || in_h >= 1 << 24 || in_w >= 1 << 24 {
            return Err(p.unsupported("a window of size zero, or a window or image too large"));
        }
        let span = |k: usize, d: usize| (k as u64 - 1) * d as u64 + 1;
        let fit = |input: usize, k: usize, s: usize, d: usize| {
            let (input, s, span) = (input as u64, s as u64, span(k, d));
            let out = if o.same { input.div_ceil(s) } else { (input + s).saturating_sub(span) / s };
            let needed = out.saturating_sub(1) * s + span;
            (out, (needed.saturating_sub(input) / 2) as isize)
        };
        let (want_h, pad_h) = fit(in_h, k_h, stride_h, dilation_h);
        let (want_w, pad_w) = fit(in_w, k_w, stride_w, dilation_w);
        if (out_n, out_h as u64, out_w as u64) != (batches, want_h, want_w) {
            return Err(p.unsupported("an output whose size does not follow from input, window, stride and padding"));
        }
        Ok(Window {
            in_h,
            in_w,
            in_c,
            out_h,
            out_w,
            out_c,
            k_h,
            k_w,
            stride_h,
            stride_w,
            dilation_h,
            dilation_w,
            pad_h,
            pad_w,
        })
    }

    /// Whether each window is one pixel and the windows are all pixels in order: the image itself is the matrix.
    pub fn is_pointwise(&self) -> bool {
        self.k_h == 1 && self.k_w == 1 && self.stride_h == 1 && self.stride_w == 1
    }

    /// Window positions per window.
    pub fn taps(&self) -> usize {
        self.k_h * self.k_w
    }

    /// Copies channels `from..from + count` below the window of output pixel (`y`, `x`) into `row`, tap after tap;
    /// outside the image it writes `fill`.
    pub fn gather(
        &self,
        image: &[i8],
        (y, x): (usize, usize),
        (from, count): (usize, usize),
        fill: i8,
        row: &mut [i8],
    ) {
        let top = (y * self.stride_h) as isize - self.pad_h;
        let left = (x * self.stride_w) as isize - self.pad_w;
        let mut line = row;
        for ky in 0..self.k_h {
            let iy = top + (ky * self.dilation_h) as isize;
            let (this, rest) = line.split_at_mut((self.k_w * count).min(line.len()));
            line = rest;
            if iy < 0 || iy >= self.in_h as isize {
                this.fill(fill);
                continue;
            }
            let start = iy as usize * self.in_w;
            let inside = left >= 0 && left as usize + self.k_w <= self.in_w && self.dilation_w == 1;
            if inside && count == self.in_c {
                let from = (start + left as usize) * self.in_c;
                copy(this, image.get(from..from + this.len()));
                continue;
            }
            for (kx, tap) in this.chunks_exact_mut(count).enumerate() {
                let ix = left + (kx * self.dilation_w) as isize;
                if ix < 0 || ix >= self.in_w as isize {
                    tap.fill(fill);
                } else {
                    let from = (start + ix as usize) * self.in_c + from;
                    copy(tap, image.get(from..from + count));
                }
            }
        }
    }

    /// Window positions along one axis that lie inside the image, for a window that starts at `origin`.
    pub fn inside(origin: isize, kernel: usize, size: usize) -> core::ops::Range<usize> {
        let start = (-origin).max(0) as usize;
        let end = (size as isize - origin).clamp(0, kernel as isize) as usize;
        start.min(end)..end
    }
}

fn copy(to: &mut [i8], from: Option<&[i8]>) {
    if let Some(from) = from.filter(|f| f.len() == to.len()) {
        to.copy_from_slice(from);
    }
}
