//! Kernels in plain Rust.

use super::{Rows, Taps};

pub(super) fn rows_scratch(_length: usize, gathered: usize) -> usize {
    gathered
}

pub(super) fn multiply(rows: &Rows<'_>, input: &[i8], output: &mut [i8], _scratch: &mut [i8]) {
    let pixels = output.chunks_exact_mut(rows.channels.len());
    for (row, pixel) in input.chunks_exact(rows.length).zip(pixels) {
        multiply_row(rows, row, pixel);
    }
}

pub(super) fn multiply_gathered(
    rows: &Rows<'_>,
    gather: impl Fn(usize, &mut [i8]),
    output: &mut [i8],
    scratch: &mut [i8],
) {
    for (n, pixel) in output.chunks_exact_mut(rows.channels.len()).enumerate() {
        gather(n, scratch);
        multiply_row(rows, scratch, pixel);
    }
}

fn multiply_row(rows: &Rows<'_>, row: &[i8], pixel: &mut [i8]) {
    let weights = rows.weights.chunks_exact(rows.length);
    for ((out, channel), weights) in pixel.iter_mut().zip(rows.channels).zip(weights) {
        let sum =
            weights.iter().zip(row).fold(channel.start, |sum, (w, x)| sum.wrapping_add(i32::from(*w) * i32::from(*x)));
        *out = rows.finish.apply(channel, sum);
    }
}

pub(super) fn depthwise_pixel(taps: &Taps<'_>, row: &[i8], output: &mut [i8]) {
    let out_c = taps.channels.len();
    let in_c = out_c / taps.multiplier;
    for (c, (out, channel)) in output.iter_mut().zip(taps.channels).enumerate() {
        let weights = taps.weights.get(c..).unwrap_or(&[]).iter().step_by(out_c);
        let values = row.get(c / taps.multiplier..).unwrap_or(&[]).iter().step_by(in_c);
        let sum =
            weights.zip(values).fold(channel.start, |sum, (w, x)| sum.wrapping_add(i32::from(*w) * i32::from(*x)));
        *out = taps.finish.apply(channel, sum);
    }
}
