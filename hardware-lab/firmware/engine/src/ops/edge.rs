//! QUANTIZE and DEQUANTIZE: the model's edge to floats. Between int8 scales QUANTIZE is a table.

use super::{Op, Prepare, at, table};
use crate::Error;
use crate::fixed;
use crate::schema::{DType, OpCode};
use crate::tensor::{Memory, Tensor};

#[derive(Clone, Copy)]
pub(crate) struct Quantize {
    input: u32,
    output: u32,
}

#[derive(Clone, Copy)]
pub(crate) struct Dequantize {
    input: u32,
    output: u32,
}

pub(crate) fn prepare_quantize<'a>(p: &mut Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, output) = (p.input(0)?, p.output8(0)?);
    if input.1.dtype != DType::Float32 {
        return table::prepare(p, OpCode::QUANTIZE);
    }
    if input.1.shape.elements() != output.1.len() {
        return Err(p.unsupported("different sizes of input and output"));
    }
    Ok(Op::Quantize(Quantize { input: input.0, output: output.0 }))
}

pub(crate) fn prepare_dequantize<'a>(p: &Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, output) = (p.input8(0)?, p.output(0)?);
    if output.1.dtype != DType::Float32 || output.1.shape.elements() != input.1.len() {
        return Err(p.unsupported("an output that is not FLOAT32 of the input's size"));
    }
    Ok(Op::Dequantize(Dequantize { input: input.0, output: output.0 }))
}

impl Quantize {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        let output = at(tensors, self.output);
        // SAFETY: see `ops::run`.
        let (x, out) = unsafe { (memory.bytes(at(tensors, self.input)), memory.i8_mut(output)) };
        for (o, bytes) in out.iter_mut().zip(x.as_chunks::<4>().0) {
            let value = fixed::round(f32::from_le_bytes(*bytes) / output.scale);
            *o = value.saturating_add(output.zero_point).clamp(-128, 127) as i8;
        }
    }
}

impl Dequantize {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        let input = at(tensors, self.input);
        // SAFETY: see `ops::run`.
        let (x, out) = unsafe { (memory.i8(input), memory.bytes_mut(at(tensors, self.output))) };
        for (o, x) in out.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // A product of two values that f64 holds exactly, rounded once: the same as the reference's.
            *o = (input.scale * (i32::from(*x) - input.zero_point) as f32).to_le_bytes();
        }
    }
}
