//! The inner loops, where nearly all instructions of an inference are spent. `portable` runs everywhere and defines the
//! results; a core's own versions must agree with it to the bit.

mod portable;

use crate::ops::{Channel, Finish};

/// A matrix of weights, one row per output channel, that rows of input are multiplied with.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'k> {
    /// `channels.len()` rows of `length`.
    pub weights: &'k [i8],
    /// Values per row.
    pub length: usize,
    /// One per row.
    pub channels: &'k [Channel],
    /// What follows the scaling.
    pub finish: &'k Finish,
}

/// Scratch bytes that [`Rows`] wants for rows of `length`, of which `gathered` values must be gathered first.
pub(crate) fn rows_scratch(length: usize, gathered: usize) -> usize {
    portable::rows_scratch(length, gathered)
}

impl Rows<'_> {
    /// Multiplies rows that lie one after the other in `input`; `output` gets one pixel of channels per row.
    pub fn multiply(&self, input: &[i8], output: &mut [i8], scratch: &mut [i8]) {
        portable::multiply(self, input, output, scratch);
    }

    /// Multiplies rows that `gather(n, row)` makes.
    pub fn multiply_gathered(&self, gather: impl Fn(usize, &mut [i8]), output: &mut [i8], scratch: &mut [i8]) {
        portable::multiply_gathered(self, gather, output, scratch);
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

/// Depthwise weights: `taps` rows with one weight per output channel.
#[derive(Clone, Copy)]
pub(crate) struct Taps<'k> {
    /// `taps` rows of `channels.len()`.
    pub weights: &'k [i8],
    /// One per output channel.
    pub channels: &'k [Channel],
    /// Output channels per input channel.
    pub multiplier: usize,
    /// What follows the scaling.
    pub finish: &'k Finish,
}

impl Taps<'_> {
    /// One output pixel from the gathered window `row`: `taps` rows with one value per input channel.
    pub fn pixel(&self, row: &[i8], output: &mut [i8]) {
        portable::depthwise_pixel(self, row, output);
    }
}
