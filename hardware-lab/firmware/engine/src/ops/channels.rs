//! Per-channel output scaling of the operators with weights: the bias with the input's zero point folded in, and the
//! multiplier. Kernels then only sum products of raw bytes.

use super::{Numbered, Prepare, i32_le};
use crate::Error;
use crate::fixed::Multiplier;
use crate::schema::DType;
use crate::tensor::Tensor;

/// One output channel.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Channel {
    /// Start of the sum: `bias - input zero point * sum of the channel's weights`.
    pub start: i32,
    /// Scale to the output.
    pub scale: Multiplier,
}

/// What follows the scaling.
#[derive(Clone, Copy, Default)]
pub(crate) struct Finish {
    pub zero_point: i32,
    pub low: i32,
    pub high: i32,
    /// Whether [`is_plain`] held: kernels for a core's own instructions rely on it.
    #[allow(dead_code)] // the portable kernels do not ask
    pub plain: bool,
    /// Whether no weight is -128, so that the sum of two products fits 16 bits. Only depthwise kernels ask.
    #[allow(dead_code)] // the portable kernels do not ask
    pub symmetric: bool,
}

impl Finish {
    pub fn new(zero_point: i32, (low, high): (i32, i32), channels: &[Channel], length: usize) -> Self {
        Finish { zero_point, low, high, plain: is_plain(channels, length), symmetric: false }
    }
}

/// Whether scaling can do without care for overflow: sums of `length` products stay below `2^30`, and every scale is a right
/// shift by 1 to 21, so that rounding and the zero point can be added before the shift.
fn is_plain(channels: &[Channel], length: usize) -> bool {
    let products = length as u64 * 128 * 128;
    channels
        .iter()
        .all(|c| products + u64::from(c.start.unsigned_abs()) < 1 << 30 && (-21..=-1).contains(&c.scale.shift))
}

impl Finish {
    /// The output value of a finished sum.
    #[inline(always)]
    pub fn apply(&self, channel: &Channel, sum: i32) -> i8 {
        channel.scale.apply(sum).wrapping_add(self.zero_point).max(self.low).min(self.high) as i8
    }

    /// As [`Finish::apply`] with fewer instructions, if `plain` holds.
    #[inline(always)]
    #[allow(dead_code)] // the portable kernels apply any scale
    pub fn apply_plain(&self, channel: &Channel, sum: i32) -> i8 {
        // Doubling comes first, so that the product's upper word is what remains: one instruction on cores with DSP.
        let product = i64::from(sum << 1) * i64::from(channel.scale.value);
        let high = ((product + (1 << 31)) >> 32) as i32;
        let shift = (-channel.scale.shift) as u32 & 31;
        // A negative value is lowered by one, which makes the rounding go away from zero.
        let scaled = (high + (high >> 31) + (1 << (shift - 1))) >> shift;
        (scaled + self.zero_point).max(self.low).min(self.high) as i8
    }
}

/// Builds the table of `count` channels; `weight_sum(c)` is the sum of a channel's weights.
pub(crate) fn channels<'a>(
    p: &mut Prepare<'_, '_, 'a>,
    (input, weights, output): (Numbered<'_>, Numbered<'_>, Numbered<'_>),
    (count, axis): (usize, i32),
    weight_sum: impl Fn(usize) -> i32,
) -> Result<&'a [Channel], Error> {
    let record = p.tensor_record(weights.0)?;
    let per_channel = record.scales.len() > 1;
    if per_channel && (record.scales.len() != count || record.axis != axis) {
        return Err(p.unsupported("per-channel scales that do not match the output channels"));
    }
    for i in 0..record.zero_points.len() {
        if record.zero_points.i64(i)? != 0 {
            return Err(p.unsupported("weights with a zero point other than 0"));
        }
    }
    let bias = bias(p, count)?;
    let table = p.carver.array(count, Channel::default())?;
    for (c, slot) in table.iter_mut().enumerate() {
        let weight_scale = record.scales.f32(if per_channel { c } else { 0 })?;
        let factor = f64::from(input.1.scale) * f64::from(weight_scale) / f64::from(output.1.scale);
        let start = bias.and_then(|b| b.get(4 * c..4 * c + 4)).map_or(0, i32_le);
        *slot = Channel {
            start: start.wrapping_sub(input.1.zero_point.wrapping_mul(weight_sum(c))),
            scale: p.multiplier(factor)?,
        };
    }
    Ok(table)
}

/// The constant bias, input 2, if the operator has one.
pub(crate) fn bias<'a>(p: &Prepare<'_, '_, 'a>, count: usize) -> Result<Option<&'a [u8]>, Error> {
    let Some((_, bias)) = p.optional(2)? else { return Ok(None) };
    if bias.dtype != DType::Int32 || bias.shape.elements() != count {
        return Err(p.unsupported("a bias that is not INT32 with one value per output channel"));
    }
    p.constant(bias, "a bias that is not constant").map(Some)
}

/// The weights as constant bytes, and the sum of those that `positions` picks.
pub(crate) fn sum(weights: &[u8], positions: impl Iterator<Item = usize>) -> i32 {
    positions.filter_map(|i| weights.get(i)).map(|b| i32::from(*b as i8)).fold(0, i32::wrapping_add)
}

/// Refuses weights that are not constant, symmetric int8.
pub(crate) fn weights<'a>(p: &Prepare<'_, '_, 'a>, t: &Tensor) -> Result<&'a [u8], Error> {
    p.int8(t)?;
    p.filled(t)?;
    if t.zero_point != 0 {
        return Err(p.unsupported("weights with a zero point other than 0"));
    }
    p.constant(t, "weights that are not constant")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::Multiplier;

    #[test]
    fn the_short_way_of_scaling_gives_the_same_values() {
        let sums =
            (0..4000).map(|i: i64| (i * i * i * 7919 % (1 << 30)) as i32).flat_map(|s| [s, -s, s >> 12, -(s >> 12)]);
        let finish = Finish { zero_point: -5, low: -128, high: 127, plain: true, symmetric: true };
        for sum in sums.chain(-70..70) {
            for shift in -21..=-1 {
                for value in [1 << 30, (1 << 30) + 12345, 1_717_986_918, i32::MAX] {
                    let channel = Channel { start: 0, scale: Multiplier { value, shift } };
                    let (short, full) = (finish.apply_plain(&channel, sum), finish.apply(&channel, sum));
                    assert_eq!(short, full, "{sum} times {value} shifted by {shift}");
                }
            }
        }
    }
}
