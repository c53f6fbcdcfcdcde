//! Functions of one int8 value: computed once for all 256 of them while loading, then looked up. RELU, RELU6, LOGISTIC,
//! TANH, HARD_SWISH, and QUANTIZE between int8 scales.

use super::{Op, Prepare, at};
use crate::Error;
use crate::fixed::{self, Multiplier};
use crate::schema::OpCode;
use crate::tensor::{Memory, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct LookUp<'a> {
    input: u32,
    output: u32,
    /// Indexed by the byte, so that 0x80 is -128.
    table: &'a [i8; 256],
}

pub(crate) fn prepare<'a>(p: &mut Prepare<'_, '_, 'a>, code: OpCode) -> Result<Op<'a>, Error> {
    let (input, output) = (p.input8(0)?, p.output8(0)?);
    if input.1.len() != output.1.len() {
        return Err(p.unsupported("different sizes of input and output"));
    }
    let (i, o) = (input.1, output.1);
    let table = match code {
        OpCode::RELU => relu(p, i, o)?,
        OpCode::RELU6 => relu6(p, i)?,
        OpCode::LOGISTIC => logistic(p, i, o)?,
        OpCode::TANH => tanh(p, i)?,
        OpCode::HARD_SWISH => hard_swish(p, i, o)?,
        _ => requantize(p, i, o)?,
    };
    let [table] = p.carver.array(1, table)? else { return Err(Error::Malformed("table")) };
    Ok(Op::Table(LookUp { input: input.0, output: output.0, table }))
}

impl LookUp<'_> {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        // SAFETY: see `ops::run`.
        let (input, output) = unsafe { (memory.i8(at(tensors, self.input)), memory.i8_mut(at(tensors, self.output))) };
        for (o, x) in output.iter_mut().zip(input) {
            *o = self.table[usize::from(*x as u8)];
        }
    }
}

fn tabulate(f: impl Fn(i32) -> i32) -> [i8; 256] {
    core::array::from_fn(|byte| f(i32::from(byte as u8 as i8)).clamp(-128, 127) as i8)
}

fn requantize(p: &Prepare<'_, '_, '_>, i: &Tensor, o: &Tensor) -> Result<[i8; 256], Error> {
    let scale = p.multiplier(f64::from(i.scale) / f64::from(o.scale))?;
    Ok(tabulate(|x| scale.apply(x - i.zero_point).saturating_add(o.zero_point)))
}

fn relu(p: &Prepare<'_, '_, '_>, i: &Tensor, o: &Tensor) -> Result<[i8; 256], Error> {
    let scale = p.multiplier(f64::from(i.scale) / f64::from(o.scale))?;
    Ok(tabulate(|x| scale.apply(x - i.zero_point).saturating_add(o.zero_point).max(o.zero_point)))
}

/// The reference clamps and does not rescale.
fn relu6(p: &Prepare<'_, '_, '_>, i: &Tensor) -> Result<[i8; 256], Error> {
    let six = i.zero_point.saturating_add(fixed::round(6.0 / i.scale)).min(127);
    if six < i.zero_point {
        return Err(p.unsupported("a scale too small for six"));
    }
    Ok(tabulate(|x| x.max(i.zero_point).min(six)))
}

/// Scale and radius for a function that takes 4 integer bits.
fn into_q4(p: &Prepare<'_, '_, '_>, i: &Tensor) -> Result<(Multiplier, i32), Error> {
    let scale = p.multiplier(f64::from(i.scale) * f64::from(1u32 << 27))?;
    Ok((scale, fixed::input_radius(4, scale.shift)))
}

fn logistic(p: &Prepare<'_, '_, '_>, i: &Tensor, o: &Tensor) -> Result<[i8; 256], Error> {
    if o.zero_point != -128 {
        return Err(p.unsupported("an output zero point other than -128"));
    }
    let (scale, radius) = into_q4(p, i)?;
    Ok(tabulate(|x| match x - i.zero_point {
        x if x <= -radius => -128,
        x if x >= radius => 127,
        x => fixed::rounding_shift_right(fixed::logistic(scale.apply(x)), 23) - 128,
    }))
}

fn tanh(p: &Prepare<'_, '_, '_>, i: &Tensor) -> Result<[i8; 256], Error> {
    let (scale, radius) = into_q4(p, i)?;
    Ok(tabulate(|x| match x - i.zero_point {
        x if x <= -radius => -128,
        x if x >= radius => 127,
        x => fixed::rounding_shift_right(fixed::tanh(scale.apply(x)), 24),
    }))
}

fn hard_swish(p: &Prepare<'_, '_, '_>, i: &Tensor, o: &Tensor) -> Result<[i8; 256], Error> {
    // The reference forms these scales as floats.
    let hires = (1.0f32 / 128.0) * i.scale;
    let out = p.multiplier(f64::from(hires / o.scale))?;
    let reluish = p.multiplier(f64::from(hires / (3.0f32 / 32768.0)))?;
    if out.shift > 0 {
        return Err(p.unsupported("an output scale far below the input's"));
    }
    let (out16, reluish16) = (to_i16(out.value), to_i16(reluish.value));
    Ok(tabulate(|x| {
        let hires = ((x - i.zero_point) * (1 << 7)) as i16;
        let preshift = doubling_high_mul_rounded(hires, out16);
        let mut gate = hires;
        if reluish.shift > 0 {
            gate = saturating_shift_left(gate, reluish.shift - 1);
        }
        gate = doubling_high_mul_rounded(gate, reluish16);
        if reluish.shift > 0 {
            gate = saturating_shift_left(gate, 1);
        }
        if reluish.shift < 0 {
            gate = fixed::rounding_shift_right(gate.into(), -reluish.shift) as i16;
        }
        let gate = (i32::from(gate) + (1 << 15)) >> 1;
        let product = if gate == -32768 && preshift == -32768 { 32767 } else { gate * i32::from(preshift) / (1 << 15) };
        let value = fixed::rounding_shift_right(product, -out.shift) as i16;
        i32::from(value.wrapping_add(o.zero_point as i16))
    }))
}

fn to_i16(value: i32) -> i16 {
    value.checked_add(1 << 15).map_or(i16::MAX, |v| (v >> 16) as i16)
}

fn doubling_high_mul_rounded(a: i16, b: i16) -> i16 {
    if a == i16::MIN && b == i16::MIN { i16::MAX } else { ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16 }
}

fn saturating_shift_left(value: i16, amount: i32) -> i16 {
    (i64::from(value) << amount.clamp(0, 40)).clamp(i16::MIN.into(), i16::MAX.into()) as i16
}
