//! FULLY_CONNECTED: each row of the input times every channel's weights.

use super::channels::{self, Channel, Finish};
use super::{Op, Prepare, at};
use crate::Error;
use crate::kernels::{self, Rows};
use crate::tensor::{Memory, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct FullyConnected<'a> {
    input: u32,
    weights: u32,
    output: u32,
    length: usize,
    channels: &'a [Channel],
    finish: Finish,
}

pub(crate) fn prepare<'a>(p: &mut Prepare<'_, '_, 'a>) -> Result<(Op<'a>, u32), Error> {
    let (input, weights, output) = (p.input8(0)?, p.input(1)?, p.output8(0)?);
    let bytes = channels::weights(p, weights.1)?;
    let &[out_c, length] = weights.1.shape.dims() else {
        return Err(p.unsupported("weights that are not 2-dimensional"));
    };
    let (out_c, length) = (out_c as usize, length as usize);
    if p.option_u8(1, 0)? != 0 {
        return Err(p.unsupported("shuffled weights"));
    }
    let batches = input.1.len() / length;
    if batches * length != input.1.len() || batches * out_c != output.1.len() {
        return Err(p.unsupported("weights that do not fit input and output"));
    }
    let record = p.tensor_record(weights.0)?;
    let per_channel = record.scales.len() > 1;
    let sum = |c: usize| channels::sum(bytes, c * length..(c + 1) * length);
    let channels = if per_channel {
        channels::channels(p, (input, weights, output), (out_c, 0), sum)?
    } else {
        per_tensor(p, input.1, weights.1, output.1, out_c, sum)?
    };
    let finish = Finish::new(output.1.zero_point, p.activation(0, output.1)?, channels, length);
    let scratch = u32::try_from(kernels::rows_scratch(length, out_c, batches, false))
        .map_err(|_| p.unsupported("rows too long"))?;
    let op = FullyConnected { input: input.0, weights: weights.0, output: output.0, length, channels, finish };
    Ok((Op::FullyConnected(op), scratch))
}

/// One scale for all channels: here the reference multiplies the two scales as floats before it goes to doubles.
fn per_tensor<'a>(
    p: &mut Prepare<'_, '_, 'a>,
    input: &Tensor,
    weights: &Tensor,
    output: &Tensor,
    out_c: usize,
    weight_sum: impl Fn(usize) -> i32,
) -> Result<&'a [Channel], Error> {
    let bias = channels::bias(p, out_c)?;
    let scale = p.multiplier(f64::from(input.scale * weights.scale) / f64::from(output.scale))?;
    let table = p.carver.array(out_c, Channel { start: 0, scale })?;
    for (c, slot) in table.iter_mut().enumerate() {
        let start = bias.and_then(|b| b.get(4 * c..4 * c + 4)).map_or(0, super::i32_le);
        slot.start = start.wrapping_sub(input.zero_point.wrapping_mul(weight_sum(c)));
    }
    Ok(table)
}

impl FullyConnected<'_> {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>, scratch: &mut [i8]) {
        let (input, weights, output) = (at(tensors, self.input), at(tensors, self.weights), at(tensors, self.output));
        let slack = memory.slack(weights);
        // SAFETY: see `ops::run`.
        let (input, weights, output) = unsafe { (memory.i8(input), memory.i8(weights), memory.i8_mut(output)) };
        let rows = Rows { weights, slack, length: self.length, channels: self.channels, finish: &self.finish };
        rows.multiply(input, output, scratch);
    }
}
