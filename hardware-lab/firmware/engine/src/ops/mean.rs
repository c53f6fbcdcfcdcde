//! MEAN over any axes.

use super::{Op, Prepare, at, layout};
use crate::Error;
use crate::fixed::Multiplier;
use crate::tensor::{Memory, Shape, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct Mean {
    input: u32,
    output: u32,
    /// Steps through the output for each dimension of the input; 0 along the axes that are averaged.
    strides: [usize; Shape::MAX_RANK],
    count: i32,
    /// From sums to the output, the division by `count` included.
    scale: Multiplier,
}

pub(crate) fn prepare<'a>(p: &Prepare<'_, '_, 'a>) -> Result<(Op<'a>, u32), Error> {
    let (input, axes, output) = (p.input8(0)?, p.input(1)?, p.output8(0)?);
    let rank = input.1.shape.rank();
    let (axes, n) = p.constant_i32::<{ Shape::MAX_RANK }>(axes.1, "axes that are not constant INT32")?;
    let mut averaged = [false; Shape::MAX_RANK];
    for axis in &axes[..n] {
        let axis = if *axis < 0 { axis + rank as i32 } else { *axis };
        let slot = usize::try_from(axis).ok().filter(|a| *a < rank).and_then(|a| averaged.get_mut(a));
        *slot.ok_or_else(|| p.unsupported("an axis out of range"))? = true;
    }
    let mut strides = [0; Shape::MAX_RANK];
    let (mut step, mut count) = (1usize, 1usize);
    for (i, d) in input.1.shape.dims().iter().enumerate().rev() {
        if averaged[i] {
            count *= *d as usize;
        } else {
            strides[i] = step;
            step *= *d as usize;
        }
    }
    if step != output.1.len() {
        return Err(p.unsupported("an output whose size does not follow from the axes"));
    }
    let scale = divide(p.multiplier(f64::from(input.1.scale) / f64::from(output.1.scale))?, count);
    let scratch = u32::try_from(step * 4).map_err(|_| p.unsupported("an output too large"))?;
    Ok((Op::Mean(Mean { input: input.0, output: output.0, strides, count: count as i32, scale }), scratch))
}

/// Takes `1 / count` into the multiplier, as far as its precision allows.
fn divide(scale: Multiplier, count: usize) -> Multiplier {
    let shift = (63 - (count as u64).leading_zeros() as i32).min(32).min(31 + scale.shift);
    let value = (i64::from(scale.value) << shift.max(0)) / count as i64;
    Multiplier { value: value as i32, shift: scale.shift - shift }
}

impl Mean {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>, scratch: &mut [i8]) {
        let (input, output) = (at(tensors, self.input), at(tensors, self.output));
        let (zi, zo) = (input.zero_point, output.zero_point);
        let mut dims = [1; Shape::MAX_RANK];
        for (d, n) in dims.iter_mut().zip(input.shape.dims()) {
            *d = *n as usize;
        }
        // Dimensions are left-aligned here, so that index and strides run together from the first.
        let rank = input.shape.rank();
        // SAFETY: see `ops::run`.
        let (x, out) = unsafe { (memory.i8(input), memory.i8_mut(output)) };
        let (sums, _) = scratch.as_chunks_mut::<4>();
        sums.fill([0; 4]);
        let mut index = [0; Shape::MAX_RANK];
        for v in x {
            let o: usize = index.iter().zip(self.strides).map(|(i, s)| i * s).sum();
            if let Some(sum) = sums.get_mut(o) {
                *sum = store(load(*sum).wrapping_add(i32::from(*v)));
            }
            layout::advance(&mut index[..rank], &dims[..rank]);
        }
        for (o, sum) in out.iter_mut().zip(sums) {
            let sum = load(*sum);
            let shifted = sum.wrapping_sub(zi.wrapping_mul(self.count));
            *o = self.scale.apply(shifted).wrapping_add(zo).clamp(-128, 127) as i8;
        }
    }
}

fn load(bytes: [i8; 4]) -> i32 {
    i32::from_le_bytes(bytes.map(|b| b as u8))
}

fn store(value: i32) -> [i8; 4] {
    value.to_le_bytes().map(|b| b as i8)
}
