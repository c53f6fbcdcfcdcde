//! Depthwise convolutions with any window: a block of channels at a time, tap after tap, straight from the image; taps that lie
//! outside of it take the padding's value. The 3x3 window has faster loops of its own, in dsp.rs and mve.rs.

use super::Planes;
use crate::ops::Window;
use core::ops::Range;

#[cfg(feature = "dsp")]
pub(super) use dsp::BLOCK;
#[cfg(feature = "dsp")]
use dsp::{WEIGHT, pack, sums};
#[cfg(feature = "mve")]
pub(super) use mve::BLOCK;
#[cfg(feature = "mve")]
use mve::{WEIGHT, pack, sums};

/// A part of a window: where its values lie (`BLOCK` channels at `at`, then those of the next column, and of the next line), and
/// its weights, with `gap` bytes between lines.
#[derive(Clone, Copy)]
struct Part {
    at: *const i8,
    column: usize,
    line: usize,
    weights: *const i8,
    gap: usize,
    lines: usize,
    columns: usize,
}

/// Whether these loops take the convolution.
pub(super) fn can(window: &Window) -> bool {
    window.in_c == window.out_c && window.out_c >= BLOCK
}

pub(super) fn scratch(window: &Window) -> usize {
    window.taps() * WEIGHT
}

pub(super) fn convolve(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let (count, taps) = (w.out_c, w.taps());
    let (column, line) = (w.dilation_w * w.in_c, w.dilation_h * w.in_w * w.in_c);
    let Some(weights) = scratch.get_mut(..taps * WEIGHT) else { return };
    if image.len() < w.in_h * w.in_w * w.in_c || !weights.as_ptr().cast::<u32>().is_aligned() {
        return;
    }
    let outside = [planes.fill; BLOCK];
    for b in 0..count.div_ceil(BLOCK) {
        // The last block overlaps its neighbour if the channels are no multiple of a block.
        let first = (b * BLOCK).min(count - BLOCK);
        for (packed, tap) in weights.chunks_exact_mut(WEIGHT).zip(planes.weights.chunks_exact(count)) {
            if let Some(values) = tap.get(first..).and_then(|rest| rest.first_chunk()) {
                pack(values, packed);
            }
        }
        let Some(channels) = planes.channels.get(first..).and_then(|rest| rest.first_chunk::<BLOCK>()) else { return };
        let starts = channels.map(|channel| channel.start);
        let (mut top, mut left, mut x) = (-w.pad_h, -w.pad_w, 0);
        for pixel in output.chunks_exact_mut(count) {
            let ys = inside(top, w.k_h, w.dilation_h, w.in_h);
            let xs = inside(left, w.k_w, w.dilation_w, w.in_w);
            let part = |lines: &Range<usize>, columns: &Range<usize>| Part {
                at: outside.as_ptr(),
                column: 0,
                line: 0,
                // SAFETY: the part's first tap is one of the window's, or the part is empty.
                weights: unsafe { weights.as_ptr().add((lines.start * w.k_w + columns.start) * WEIGHT) },
                gap: (w.k_w - columns.len()) * WEIGHT,
                lines: lines.len(),
                columns: columns.len(),
            };
            let mut acc = starts;
            // SAFETY of every sum: `weights` has an entry for each tap; outside the image the same values stand for all taps.
            if ys.len() < w.k_h || xs.len() < w.k_w {
                for lines in [0..ys.start, ys.end..w.k_h] {
                    acc = unsafe { sums(&part(&lines, &(0..w.k_w)), acc) };
                }
                for columns in [0..xs.start, xs.end..w.k_w] {
                    acc = unsafe { sums(&part(&ys, &columns), acc) };
                }
            }
            if !ys.is_empty() && !xs.is_empty() {
                let y = (top + (ys.start * w.dilation_h) as isize) as usize;
                let x = (left + (xs.start * w.dilation_w) as isize) as usize;
                // SAFETY: the part's first value lies within the image, and so do all others.
                let at = unsafe { image.as_ptr().add((y * w.in_w + x) * w.in_c + first) };
                acc = unsafe { sums(&Part { at, column, line, ..part(&ys, &xs) }, acc) };
            }
            if let Some(out) = pixel.get_mut(first..).and_then(|rest| rest.first_chunk_mut::<BLOCK>()) {
                for ((out, channel), sum) in out.iter_mut().zip(channels).zip(acc) {
                    *out = if planes.finish.plain {
                        planes.finish.apply_plain(channel, sum)
                    } else {
                        planes.finish.apply(channel, sum)
                    };
                }
            }
            (x, left) = (x + 1, left + w.stride_w as isize);
            if x == w.out_w {
                (x, left, top) = (0, -w.pad_w, top + w.stride_h as isize);
            }
        }
    }
}

/// The taps along one axis that lie inside the image, for a window that starts at `origin`.
fn inside(origin: isize, taps: usize, dilation: usize, size: usize) -> Range<usize> {
    let end = size as isize - ((taps - 1) * dilation) as isize;
    if origin >= 0 && origin < end {
        return 0..taps;
    }
    let reach = |to: isize| (to.max(0) as usize).div_ceil(dilation).min(taps);
    let (start, end) = (reach(-origin), reach(size as isize - origin));
    start.min(end)..end
}

#[cfg(feature = "dsp")]
mod dsp {
    use super::Part;
    use core::arch::asm;

    pub const BLOCK: usize = 4;
    /// Two words: weights 0 and 2, weights 1 and 3, 16 bits each.
    pub const WEIGHT: usize = 8;

    pub fn pack(values: &[i8; BLOCK], to: &mut [i8]) {
        let order = [values[0], values[2], values[1], values[3]];
        for (value, slot) in order.into_iter().zip(to.as_chunks_mut::<2>().0) {
            *slot = i16::from(value).to_le_bytes().map(|byte| byte as i8);
        }
    }

    /// # Safety
    /// The part's values and packed weights are there, the weights on a multiple of four.
    #[inline(always)]
    pub unsafe fn sums(part: &Part, starts: [i32; BLOCK]) -> [i32; BLOCK] {
        if part.lines == 0 || part.columns == 0 {
            return starts;
        }
        // SAFETY: as promised.
        unsafe {
            match part.columns {
                2 => lines::<2>(part, starts),
                3 => lines::<3>(part, starts),
                4 => lines::<4>(part, starts),
                5 => lines::<5>(part, starts),
                6 => lines::<6>(part, starts),
                7 => lines::<7>(part, starts),
                _ => lines::<1>(part, starts),
            }
        }
    }

    /// `K` taps of a line without a loop between.
    ///
    /// # Safety
    /// As [`sums`]; `K` is the number of columns, or one.
    #[inline(never)]
    unsafe fn lines<const K: usize>(part: &Part, starts: [i32; BLOCK]) -> [i32; BLOCK] {
        let Part { mut at, column, line, mut weights, gap, lines, columns } = *part;
        let [mut a, mut b, mut c, mut d] = starts;
        for _ in 0..lines {
            // With K above one a line is K taps: no loop is left.
            for _ in 0..if K > 1 { 1 } else { columns } {
                for _ in 0..K {
                    // SAFETY: reads four values and one entry of weights, which the caller promised.
                    unsafe {
                        asm!(
                            "ldr {v}, [{x}]",
                            "add {x}, {step}",
                            "ldrd {e}, {o}, [{w}], #8",
                            "sxtb16 {t}, {v}",
                            "sxtb16 {v}, {v}, ror #8",
                            "smlabb {a}, {t}, {e}, {a}",
                            "smlatt {c}, {t}, {e}, {c}",
                            "smlabb {b}, {v}, {o}, {b}",
                            "smlatt {d}, {v}, {o}, {d}",
                            x = inout(reg) at, w = inout(reg) weights, step = in(reg) column,
                            a = inout(reg) a, b = inout(reg) b, c = inout(reg) c, d = inout(reg) d,
                            v = out(reg) _, t = out(reg) _, e = out(reg) _, o = out(reg) _,
                            options(readonly, nostack, preserves_flags),
                        );
                    }
                }
            }
            at = at.wrapping_add(line).wrapping_sub(columns * column);
            weights = weights.wrapping_add(gap);
        }
        [a, b, c, d]
    }
}

#[cfg(feature = "mve")]
mod mve {
    use super::Part;

    pub const BLOCK: usize = 8;
    /// As they are.
    pub const WEIGHT: usize = 8;

    /// Arguments of the loop over taps; mve.s knows the offsets.
    #[repr(C)]
    struct TapsArguments {
        at: *const i8,
        weights: *const i8,
        column: usize,
        /// Bytes from the end of a line of the window to the next, modulo 2^32.
        back: usize,
        lines: usize,
        columns: usize,
        sums: *mut i32,
        gap: usize,
    }

    unsafe extern "C" {
        fn edgeyard_mve_taps(arguments: *const TapsArguments);
    }

    pub fn pack(values: &[i8; BLOCK], to: &mut [i8]) {
        for (value, slot) in values.iter().zip(to) {
            *slot = *value;
        }
    }

    /// # Safety
    /// The part's values and weights are there.
    pub unsafe fn sums(part: &Part, s: [i32; BLOCK]) -> [i32; BLOCK] {
        let Part { at, column, line, weights, gap, lines, columns } = *part;
        if lines == 0 || columns == 0 {
            return s;
        }
        // Even channels, then odd ones.
        let mut sums = [s[0], s[2], s[4], s[6], s[1], s[3], s[5], s[7]];
        let back = line.wrapping_sub(columns * column);
        let arguments = TapsArguments { at, weights, column, back, lines, columns, sums: sums.as_mut_ptr(), gap };
        // SAFETY: as promised.
        unsafe { edgeyard_mve_taps(&arguments) };
        [sums[0], sums[4], sums[1], sums[5], sums[2], sums[6], sums[3], sums[7]]
    }
}
