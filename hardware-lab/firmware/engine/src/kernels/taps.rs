//! Depthwise convolutions with any window: a block of channels at a time, tap after tap, straight from the image where the window
//! lies inside it and from a gathered copy where it does not. The 3x3 window has faster loops of its own, in dsp.rs and mve.rs.

use super::Planes;
use crate::ops::Window;

#[cfg(feature = "dsp")]
pub(super) use dsp::BLOCK;
#[cfg(feature = "dsp")]
use dsp::{WEIGHT, pack, sums};
#[cfg(feature = "mve")]
pub(super) use mve::BLOCK;
#[cfg(feature = "mve")]
use mve::{WEIGHT, pack, sums};

/// Where a window's values lie: `BLOCK` channels at `at`, then those of the next column, and of the next line.
#[derive(Clone, Copy)]
struct Source {
    at: *const i8,
    column: usize,
    line: usize,
}

/// Whether these loops take the convolution.
pub(super) fn can(window: &Window) -> bool {
    window.in_c == window.out_c && window.out_c >= BLOCK
}

pub(super) fn scratch(window: &Window) -> usize {
    window.taps() * (WEIGHT + BLOCK)
}

pub(super) fn convolve(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let (count, taps) = (w.out_c, w.taps());
    let Some((weights, row)) = scratch.split_at_mut_checked(taps * WEIGHT) else { return };
    let Some(row) = row.get_mut(..taps * BLOCK) else { return };
    if image.len() < w.in_h * w.in_w * w.in_c || !weights.as_ptr().cast::<u32>().is_aligned() {
        return;
    }
    let (last_top, last_left) = (
        w.in_h as isize - ((w.k_h - 1) * w.dilation_h + 1) as isize,
        w.in_w as isize - ((w.k_w - 1) * w.dilation_w + 1) as isize,
    );
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
        for (n, pixel) in output.chunks_exact_mut(count).enumerate() {
            let (y, x) = (n / w.out_w, n % w.out_w);
            let (top, left) = ((y * w.stride_h) as isize - w.pad_h, (x * w.stride_w) as isize - w.pad_w);
            let source = if top >= 0 && left >= 0 && top <= last_top && left <= last_left {
                let at = (top as usize * w.in_w + left as usize) * w.in_c + first;
                let (column, line) = (w.dilation_w * w.in_c, w.dilation_h * w.in_w * w.in_c);
                // SAFETY: the window's first value lies within the image.
                Source { at: unsafe { image.as_ptr().add(at) }, column, line }
            } else {
                w.gather(image, (y, x), (first, BLOCK), planes.fill, row);
                Source { at: row.as_ptr(), column: BLOCK, line: w.k_w * BLOCK }
            };
            // SAFETY: all taps of the window lie within the image or the row; `weights` has one entry for each.
            let sums = unsafe { sums(source, weights.as_ptr(), (w.k_h, w.k_w), starts) };
            if let Some(out) = pixel.get_mut(first..).and_then(|rest| rest.first_chunk_mut::<BLOCK>()) {
                for ((out, channel), sum) in out.iter_mut().zip(channels).zip(sums) {
                    *out = planes.finish.apply(channel, sum);
                }
            }
        }
    }
}

#[cfg(feature = "dsp")]
mod dsp {
    use super::Source;
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
    /// `source` holds all taps of the window, `weights` as many packed entries, on a multiple of four.
    pub unsafe fn sums(source: Source, weights: *const i8, (k_h, k_w): (usize, usize), starts: [i32; 4]) -> [i32; 4] {
        // SAFETY: as promised.
        unsafe {
            match k_w {
                3 => lines::<3>(source, weights, k_h, 3, starts),
                5 => lines::<5>(source, weights, k_h, 5, starts),
                7 => lines::<7>(source, weights, k_h, 7, starts),
                _ => lines::<1>(source, weights, k_h, k_w, starts),
            }
        }
    }

    /// `K` taps of a line without a loop between, as long as as many are left; then one by one.
    ///
    /// # Safety
    /// As [`sums`].
    #[inline(always)]
    unsafe fn lines<const K: usize>(
        source: Source,
        mut weights: *const i8,
        k_h: usize,
        k_w: usize,
        starts: [i32; 4],
    ) -> [i32; 4] {
        let Source { mut at, column, line } = source;
        let [mut a, mut b, mut c, mut d] = starts;
        for _ in 0..k_h {
            for _ in 0..k_w / K {
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
            at = at.wrapping_add(line).wrapping_sub(k_w * column);
        }
        [a, b, c, d]
    }
}

#[cfg(feature = "mve")]
mod mve {
    use super::Source;

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
    /// `source` holds all taps of the window, `weights` as many entries.
    pub unsafe fn sums(source: Source, weights: *const i8, (k_h, k_w): (usize, usize), s: [i32; 8]) -> [i32; 8] {
        let Source { at, column, line } = source;
        // Even channels, then odd ones.
        let mut sums = [s[0], s[2], s[4], s[6], s[1], s[3], s[5], s[7]];
        let back = line.wrapping_sub(k_w * column);
        let arguments =
            TapsArguments { at, weights, column, back, lines: k_h, columns: k_w, sums: sums.as_mut_ptr() };
        // SAFETY: as promised.
        unsafe { edgeyard_mve_taps(&arguments) };
        [sums[0], sums[4], sums[1], sums[5], sums[2], sums[6], sums[3], sums[7]]
    }
}
