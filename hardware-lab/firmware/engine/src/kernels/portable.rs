//! Kernels in plain Rust.

use super::{Planes, Rows, Windows};
use crate::ops::{Finish, Window};

#[allow(dead_code)] // a core with kernels of its own asks those
pub(super) fn rows_scratch(length: usize, _channels: usize, _pixels: usize, gathered: bool) -> usize {
    if gathered { length } else { 0 }
}

pub(super) fn multiply(rows: &Rows<'_>, input: &[i8], output: &mut [i8], _scratch: &mut [i8]) {
    let pixels = output.chunks_exact_mut(rows.channels.len());
    for (row, pixel) in input.chunks_exact(rows.length).zip(pixels) {
        multiply_row(rows, row, pixel);
    }
}

pub(super) fn multiply_windows(rows: &Rows<'_>, windows: &Windows<'_>, output: &mut [i8], scratch: &mut [i8]) {
    let Some(row) = scratch.get_mut(..rows.length) else { return };
    for (n, pixel) in output.chunks_exact_mut(rows.channels.len()).enumerate() {
        windows.gather(n, row);
        multiply_row(rows, row, pixel);
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

pub(super) fn planes_scratch(window: &Window, _finish: &Finish) -> usize {
    window.taps() * window.in_c
}

pub(super) fn convolve(planes: &Planes<'_>, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
    let w = planes.window;
    let Some(row) = scratch.get_mut(..w.taps() * w.in_c) else { return };
    for (n, pixel) in output.chunks_exact_mut(w.out_c).enumerate() {
        w.gather(image, (n / w.out_w, n % w.out_w), (0, w.in_c), planes.fill, row);
        convolve_pixel(planes, row, pixel);
    }
}

fn convolve_pixel(planes: &Planes<'_>, row: &[i8], pixel: &mut [i8]) {
    let (in_c, out_c) = (planes.window.in_c, planes.window.out_c);
    let multiplier = out_c / in_c;
    for (c, (out, channel)) in pixel.iter_mut().zip(planes.channels).enumerate() {
        let weights = planes.weights.get(c..).unwrap_or(&[]).iter().step_by(out_c);
        let values = row.get(c / multiplier..).unwrap_or(&[]).iter().step_by(in_c);
        let sum =
            weights.zip(values).fold(channel.start, |sum, (w, x)| sum.wrapping_add(i32::from(*w) * i32::from(*x)));
        *out = planes.finish.apply(channel, sum);
    }
}
