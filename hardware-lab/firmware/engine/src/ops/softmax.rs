//! SOFTMAX over the last dimension, int8 to int8, in fixed point. The exponential of each possible distance to the row's
//! maximum is computed once while loading.

use super::{Op, Prepare, at};
use crate::Error;
use crate::fixed;
use crate::tensor::{Memory, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct Softmax<'a> {
    input: u32,
    output: u32,
    depth: usize,
    /// Exponential of `-distance` for the distances that count; longer ones are zero.
    exponentials: &'a [i32],
}

pub(crate) fn prepare<'a>(p: &mut Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, output) = (p.input8(0)?, p.output8(0)?);
    if input.1.shape != output.1.shape {
        return Err(p.unsupported("different shapes of input and output"));
    }
    if output.1.zero_point != -128 || output.1.scale != 1.0 / 256.0 {
        return Err(p.unsupported("an output that is not scale 1/256, zero point -128"));
    }
    let depth = *input.1.shape.dims().last().ok_or(p.unsupported("a scalar"))? as usize;
    let beta = p.option_f32(0, 0.0)?;
    let real = (f64::from(beta) * f64::from(input.1.scale) * f64::from(1u32 << 26)).min(f64::from(i32::MAX));
    if real.is_nan() || real <= 1.0 {
        return Err(p.unsupported("a product of beta and scale that is too small"));
    }
    // `multiplier` refuses a shift of 31, which the reference's cap on the factor allows.
    let capped = real.min(f64::from(1u32 << 30) * 1.999_999_999);
    let scale = p.multiplier(capped)?;
    let reach = fixed::input_radius(5, scale.shift).clamp(0, 255) as usize;
    let table = p.carver.array(reach + 1, 0i32)?;
    for (distance, e) in table.iter_mut().enumerate() {
        let scaled = fixed::doubling_high_mul((-(distance as i32)).wrapping_shl(scale.shift as u32), scale.value);
        *e = fixed::exp_on_negative(scaled, 5);
    }
    Ok(Op::Softmax(Softmax { input: input.0, output: output.0, depth, exponentials: table }))
}

impl Softmax<'_> {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        // SAFETY: see `ops::run`.
        let (input, output) = unsafe { (memory.i8(at(tensors, self.input)), memory.i8_mut(at(tensors, self.output))) };
        for (row, out) in input.chunks_exact(self.depth).zip(output.chunks_exact_mut(self.depth)) {
            let max = row.iter().copied().max().unwrap_or(-128);
            let exponential = |x: i8| self.exponentials.get((i32::from(max) - i32::from(x)) as usize).copied();
            let sum = row
                .iter()
                .filter_map(|x| exponential(*x))
                .fold(0i32, |sum, e| sum.wrapping_add(fixed::rounding_shift_right(e, 12)));
            let (scale, bits) = fixed::reciprocal_of_sum(sum);
            for (o, x) in out.iter_mut().zip(row) {
                *o = exponential(*x).map_or(-128, |e| {
                    let value = fixed::rounding_shift_right(fixed::doubling_high_mul(scale, e), bits + 31 - 8);
                    (value - 128).clamp(-128, 127) as i8
                });
            }
        }
    }
}
