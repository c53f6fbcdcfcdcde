//! The inner loops, where nearly all instructions of an inference are spent. `portable` runs everywhere and defines the
//! results; a core's own versions must agree with it to the bit.

#[cfg(all(feature = "dsp", target_arch = "arm"))]
mod dsp;
#[cfg(all(feature = "mve", target_arch = "arm"))]
mod mve;
mod portable;
#[cfg(all(any(feature = "dsp", feature = "mve"), target_arch = "arm"))]
mod taps;

#[cfg(all(feature = "dsp", target_arch = "arm"))]
use dsp as best;
#[cfg(all(feature = "mve", target_arch = "arm"))]
use mve as best;
#[cfg(not(all(any(feature = "dsp", feature = "mve"), target_arch = "arm")))]
use portable as best;

use crate::ops::{Channel, Finish, Window};

/// A matrix of weights, one row per output channel, that rows of input are multiplied with.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'k> {
    /// `channels.len()` rows of `length`.
    pub weights: &'k [i8],
    /// Bytes that may be read after the last row; what they hold does not matter.
    #[allow(dead_code)] // the portable kernels do not ask
    pub slack: usize,
    /// Values per row.
    pub length: usize,
    /// One per row.
    pub channels: &'k [Channel],
    /// What follows the scaling.
    pub finish: &'k Finish,
}

/// Windows of an image as rows: row `n` is what lies below the window of output pixel `n`.
#[derive(Clone, Copy)]
pub(crate) struct Windows<'k> {
    /// Sizes, stride and padding.
    pub window: &'k Window,
    /// The image.
    pub image: &'k [i8],
    /// First channel and number of channels to take.
    pub channels: (usize, usize),
    /// The pixel that row 0 belongs to.
    pub first: usize,
    /// What lies outside the image: the input's zero point.
    pub fill: i8,
}

impl Windows<'_> {
    fn pixel(&self, n: usize) -> (usize, usize) {
        let n = n + self.first;
        (n / self.window.out_w, n % self.window.out_w)
    }

    fn gather(&self, n: usize, row: &mut [i8]) {
        self.window.gather(self.image, self.pixel(n), self.channels, self.fill, row);
    }
}

/// Scratch bytes for up to `pixels` rows of `length` times `channels` rows of weights; `gathered` if they are [`Windows`].
pub(crate) fn rows_scratch(length: usize, channels: usize, pixels: usize, gathered: bool) -> usize {
    best::rows_scratch(length, channels, pixels, gathered)
}

impl Rows<'_> {
    /// Multiplies rows that lie one after the other in `input`; `output` gets one pixel of channels per row.
    pub fn multiply(&self, input: &[i8], output: &mut [i8], scratch: &mut [i8]) {
        best::multiply(self, input, output, scratch);
    }

    /// Multiplies windows of an image.
    pub fn multiply_windows(&self, windows: &Windows<'_>, output: &mut [i8], scratch: &mut [i8]) {
        best::multiply_windows(self, windows, output, scratch);
    }

    /// The rows of group `g`, `count` channels each.
    pub fn group(&self, g: usize, count: usize) -> Self {
        Rows {
            weights: self.weights.get(g * count * self.length..(g + 1) * count * self.length).unwrap_or(&[]),
            channels: self.channels.get(g * count..(g + 1) * count).unwrap_or(&[]),
            ..*self
        }
    }
}

/// A depthwise convolution: `window.taps()` rows of weights with one weight per output channel.
#[derive(Clone, Copy)]
pub(crate) struct Planes<'k> {
    /// `window.taps()` rows of `channels.len()`.
    pub weights: &'k [i8],
    /// One per output channel.
    pub channels: &'k [Channel],
    /// Sizes, stride and padding.
    pub window: &'k Window,
    /// What lies outside the image: the input's zero point.
    pub fill: i8,
    /// What follows the scaling.
    pub finish: &'k Finish,
}

/// Scratch bytes that [`Planes::convolve`] wants.
pub(crate) fn planes_scratch(window: &Window, finish: &Finish) -> usize {
    best::planes_scratch(window, finish)
}

impl Planes<'_> {
    /// One image.
    pub fn convolve(&self, image: &[i8], output: &mut [i8], scratch: &mut [i8]) {
        best::convolve(self, image, output, scratch);
    }
}
