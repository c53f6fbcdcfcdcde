//! The operators: each has a `prepare`, which checks everything that its kernel relies on and folds what can be folded,
//! and a `run`. Semantics, down to rounding, are those of TensorFlow Lite Micro's reference kernels.

mod conv;
mod depthwise;
mod fully_connected;
mod pool;
mod elementwise;
mod table;
mod softmax;
mod mean;
mod layout;
mod edge;
mod channels;
mod window;

pub(crate) use channels::{Channel, Finish};
pub(crate) use window::Window;

use crate::carve::Carver;
use crate::engine::Step;
use crate::flatbuffer::Table;
use crate::schema::{DType, Model, OpCode, OperatorRecord, TensorRecord};
use crate::tensor::{Memory, Tensor};
use crate::{Error, fixed};

/// A prepared operator.
#[derive(Clone, Copy)]
pub(crate) enum Op<'a> {
    Nothing,
    Conv(conv::Conv<'a>),
    Depthwise(depthwise::Depthwise<'a>),
    FullyConnected(fully_connected::FullyConnected<'a>),
    Pool(pool::Pool),
    Elementwise(elementwise::Elementwise),
    Table(table::LookUp<'a>),
    Softmax(softmax::Softmax<'a>),
    Mean(mean::Mean),
    Copy(layout::Copy),
    Pad(layout::Pad),
    Walk(layout::Walk),
    Concat(layout::Concat<'a>),
    Split(layout::Split<'a>),
    Resize(layout::Resize),
    Quantize(edge::Quantize),
    Dequantize(edge::Dequantize),
}

/// What preparing an operator may look at.
pub(crate) struct Prepare<'m, 'c, 'a> {
    model: &'m Model<'a>,
    bytes: &'a [u8],
    tensors: &'m [Tensor],
    pub carver: &'c mut Carver<'a>,
    index: usize,
    record: OperatorRecord<'a>,
}

pub(crate) fn prepare<'a>(
    model: &Model<'a>,
    bytes: &'a [u8],
    tensors: &[Tensor],
    carver: &mut Carver<'a>,
    index: usize,
) -> Result<Step<'a>, Error> {
    let record = model.operator(index)?;
    let (code, version) = (record.code, record.version);
    if let Some(known) = code.newest_version().filter(|known| version > *known) {
        return Err(Error::OpVersion { index, code, version, known });
    }
    let mut p = Prepare { model, bytes, tensors, carver, index, record };
    let (op, scratch_len) = match code {
        OpCode::CONV_2D => conv::prepare(&mut p)?,
        OpCode::DEPTHWISE_CONV_2D => depthwise::prepare(&mut p)?,
        OpCode::FULLY_CONNECTED => fully_connected::prepare(&mut p)?,
        OpCode::AVERAGE_POOL_2D | OpCode::MAX_POOL_2D => (pool::prepare(&p, code)?, 0),
        OpCode::ADD | OpCode::SUB | OpCode::MUL => (elementwise::prepare(&p, code)?, 0),
        OpCode::RELU | OpCode::RELU6 | OpCode::LOGISTIC | OpCode::TANH | OpCode::HARD_SWISH => {
            (table::prepare(&mut p, code)?, 0)
        }
        OpCode::SOFTMAX => (softmax::prepare(&mut p)?, 0),
        OpCode::MEAN => mean::prepare(&p)?,
        OpCode::RESHAPE | OpCode::SQUEEZE | OpCode::EXPAND_DIMS => (layout::prepare_copy(&p)?, 0),
        OpCode::PAD | OpCode::PADV2 => (layout::prepare_pad(&p)?, 0),
        OpCode::STRIDED_SLICE => (layout::prepare_strided_slice(&p)?, 0),
        OpCode::TRANSPOSE => (layout::prepare_transpose(&p)?, 0),
        OpCode::CONCATENATION => (layout::prepare_concat(&mut p)?, 0),
        OpCode::SPLIT => (layout::prepare_split(&mut p)?, 0),
        OpCode::RESIZE_NEAREST_NEIGHBOR => (layout::prepare_resize(&p)?, 0),
        OpCode::QUANTIZE => (edge::prepare_quantize(&mut p)?, 0),
        OpCode::DEQUANTIZE => (edge::prepare_dequantize(&p)?, 0),
        code => return Err(Error::UnknownOp { index, code }),
    };
    Ok(Step { code, op, scratch: 0, scratch_len })
}

pub(crate) fn run(step: &Step<'_>, tensors: &[Tensor], memory: &Memory<'_>) {
    // SAFETY of every call below: loading gave the operator's inputs, outputs and scratch disjoint places, and the caller
    // holds the engine mutably, so that nobody else looks at the heap.
    let scratch = unsafe { memory.scratch(step.scratch, step.scratch_len) };
    match &step.op {
        Op::Nothing => {}
        Op::Conv(o) => o.run(tensors, memory, scratch),
        Op::Depthwise(o) => o.run(tensors, memory, scratch),
        Op::FullyConnected(o) => o.run(tensors, memory, scratch),
        Op::Pool(o) => o.run(tensors, memory),
        Op::Elementwise(o) => o.run(tensors, memory),
        Op::Table(o) => o.run(tensors, memory),
        Op::Softmax(o) => o.run(tensors, memory),
        Op::Mean(o) => o.run(tensors, memory, scratch),
        Op::Copy(o) => o.run(tensors, memory),
        Op::Pad(o) => o.run(tensors, memory),
        Op::Walk(o) => o.run(tensors, memory),
        Op::Concat(o) => o.run(tensors, memory),
        Op::Split(o) => o.run(tensors, memory),
        Op::Resize(o) => o.run(tensors, memory),
        Op::Quantize(o) => o.run(tensors, memory),
        Op::Dequantize(o) => o.run(tensors, memory),
    }
}

/// A tensor's number and description.
pub(crate) type Numbered<'m> = (u32, &'m Tensor);

impl<'m, 'a> Prepare<'m, '_, 'a> {
    pub fn unsupported(&self, why: &'static str) -> Error {
        Error::Unsupported { index: self.index, code: self.record.code, why }
    }

    fn numbered(&self, list: crate::flatbuffer::Vector<'_>, i: usize) -> Result<Option<Numbered<'m>>, Error> {
        if i >= list.len() {
            return Ok(None);
        }
        let Ok(t) = u32::try_from(list.i32(i)?) else { return Ok(None) };
        let tensor = self.tensors.get(t as usize).ok_or(Error::Malformed("tensor number"))?;
        Ok(Some((t, tensor)))
    }

    pub fn inputs(&self) -> usize {
        self.record.inputs.len()
    }

    pub fn outputs(&self) -> usize {
        self.record.outputs.len()
    }

    /// Input `i`, which must be there.
    pub fn input(&self, i: usize) -> Result<Numbered<'m>, Error> {
        self.optional(i)?.ok_or_else(|| self.unsupported("an input is missing"))
    }

    /// Input `i`, if the model gives it.
    pub fn optional(&self, i: usize) -> Result<Option<Numbered<'m>>, Error> {
        self.numbered(self.record.inputs, i)
    }

    /// Output `i`, which must be there.
    pub fn output(&self, i: usize) -> Result<Numbered<'m>, Error> {
        self.numbered(self.record.outputs, i)?.ok_or_else(|| self.unsupported("an output is missing"))
    }

    /// Refuses anything but int8 with a scale.
    pub fn int8(&self, t: &Tensor) -> Result<(), Error> {
        if t.dtype != DType::Int8 {
            let tensor = self.tensors.iter().position(|other| core::ptr::eq(other, t)).unwrap_or(usize::MAX);
            return Err(Error::Type { index: self.index, code: self.record.code, tensor, found: t.dtype });
        }
        if t.scale > 0.0 && t.scale.is_finite() {
            Ok(())
        } else {
            Err(self.unsupported("an INT8 tensor without a positive scale"))
        }
    }

    /// Input `i` as int8 that is computed or constant, with at least one element.
    pub fn input8(&self, i: usize) -> Result<Numbered<'m>, Error> {
        let (n, t) = self.input(i)?;
        self.int8(t)?;
        self.filled(t)?;
        Ok((n, t))
    }

    /// Output `i` as int8, with at least one element.
    pub fn output8(&self, i: usize) -> Result<Numbered<'m>, Error> {
        let (n, t) = self.output(i)?;
        self.int8(t)?;
        self.filled(t)?;
        Ok((n, t))
    }

    pub fn filled(&self, t: &Tensor) -> Result<(), Error> {
        if t.is_empty() { Err(self.unsupported("a tensor without elements")) } else { Ok(()) }
    }

    /// The file's description of tensor `n`.
    pub fn tensor_record(&self, n: u32) -> Result<TensorRecord<'a>, Error> {
        Ok(self.model.tensor(n as usize)?)
    }

    /// The constant bytes of a tensor.
    pub fn constant(&self, t: &Tensor, why: &'static str) -> Result<&'a [u8], Error> {
        match t.place {
            crate::tensor::Place::Model(offset) => {
                let start = offset as usize;
                self.bytes.get(start..start + t.len()).ok_or(Error::Malformed("constant data"))
            }
            _ => Err(self.unsupported(why)),
        }
    }

    /// Up to `N` constant `i32`, with their count.
    pub fn constant_i32<const N: usize>(&self, t: &Tensor, why: &'static str) -> Result<([i32; N], usize), Error> {
        let bytes = self.constant(t, why)?;
        if t.dtype != DType::Int32 || bytes.len() / 4 > N {
            return Err(self.unsupported(why));
        }
        let mut out = [0; N];
        for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
            *o = i32_le(b);
        }
        Ok((out, bytes.len() / 4))
    }

    /// An `i32` option.
    pub fn option_i32(&self, slot: usize, default: i32) -> Result<i32, Error> {
        self.record.options.map_or(Ok(default), |o: Table<'_>| Ok(o.i32(slot, default)?))
    }

    /// A byte option.
    pub fn option_u8(&self, slot: usize, default: u8) -> Result<u8, Error> {
        self.record.options.map_or(Ok(default), |o| Ok(o.u8(slot, default)?))
    }

    /// A float option.
    pub fn option_f32(&self, slot: usize, default: f32) -> Result<f32, Error> {
        self.record.options.map_or(Ok(default), |o| Ok(o.f32(slot, default)?))
    }

    /// Bounds of the output under the fused activation in option `slot`.
    pub fn activation(&self, slot: usize, out: &Tensor) -> Result<(i32, i32), Error> {
        let quantized = |real: f32| out.zero_point.saturating_add(fixed::round(real / out.scale));
        let (low, high) = match self.option_u8(slot, 0)? {
            0 => (-128, 127),
            1 => (quantized(0.0), 127),
            2 => (quantized(-1.0), quantized(1.0)),
            3 => (quantized(0.0), quantized(6.0)),
            _ => return Err(self.unsupported("this fused activation (only RELU, RELU6 and RELU_N1_TO_1)")),
        };
        Ok((low.max(-128), high.min(127)))
    }

    /// A factor as a multiplier.
    pub fn multiplier(&self, factor: f64) -> Result<fixed::Multiplier, Error> {
        fixed::Multiplier::from_f64(factor).ok_or_else(|| self.unsupported("a scale that no multiplier can express"))
    }
}

pub(crate) fn i32_le(bytes: &[u8]) -> i32 {
    bytes.try_into().map(i32::from_le_bytes).unwrap_or(0)
}

/// The tensor with a number that `prepare` checked.
pub(crate) fn at(tensors: &[Tensor], n: u32) -> &Tensor {
    tensors.get(n as usize).unwrap_or(&Tensor::NONE)
}
