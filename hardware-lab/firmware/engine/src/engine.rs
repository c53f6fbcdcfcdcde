//! Loading (check, prepare, plan) and running. Loading is where every promise is established that the kernels rely on:
//! shapes that agree, tensors written once before they are read, places that do not overlap.

use crate::Error;
use crate::carve::Carver;
use crate::ops::{self, Op};
use crate::plan::{self, Buffer};
use crate::schema::{Model, OpCode};
use crate::tensor::{Memory, Place, Tensor};

/// Bytes of the arena that a model uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tensors and working memory, at the peak.
    pub tensors: usize,
    /// Tables that live as long as the model.
    pub tables: usize,
}

impl Usage {
    /// All of it.
    pub fn total(&self) -> usize {
        self.tensors + self.tables
    }
}

/// One operator, ready to run.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub code: OpCode,
    pub op: Op<'a>,
    pub scratch: u32,
    pub scratch_len: u32,
}

/// A loaded model.
pub struct Engine<'a> {
    model: Model<'a>,
    memory: Memory<'a>,
    tensors: &'a [Tensor],
    steps: &'a [Step<'a>],
    inputs: &'a [u32],
    outputs: &'a [u32],
    usage: Usage,
}

const UNBORN: u32 = u32::MAX;

impl<'a> Engine<'a> {
    /// Checks and prepares a model. `bytes` is the whole `.tflite` file; `arena` holds everything the engine writes.
    pub fn load(bytes: &'a [u8], arena: &'a mut [u8]) -> Result<Self, Error> {
        let model = Model::read(bytes)?;
        let mut carver = Carver::new(arena);
        let tensors = carver.array(model.graph.tensors.len(), Tensor::NONE)?;
        for (i, slot) in tensors.iter_mut().enumerate() {
            let record = model.tensor(i)?;
            *slot = Tensor::read(i, &record)?;
            let data = if record.buffer == 0 { &[] } else { model.buffer(record.buffer)? };
            if !data.is_empty() {
                if slot.dtype.size().is_some() && data.len() != slot.len() {
                    return Err(Error::Graph { tensor: i, why: "its constant data is not as long as its shape says" });
                }
                slot.place = Place::Model((data.as_ptr() as usize - bytes.as_ptr() as usize) as u32);
            }
        }
        let inputs = indices(&mut carver, model.graph.inputs, tensors)?;
        let outputs = indices(&mut carver, model.graph.outputs, tensors)?;
        let count = model.graph.operators.len();
        if count >= UNBORN as usize / 2 {
            return Err(Error::Malformed("operators"));
        }
        let nothing = Step { code: OpCode(-1), op: Op::Nothing, scratch: 0, scratch_len: 0 };
        let steps = carver.array(count, nothing)?;
        for (index, slot) in steps.iter_mut().enumerate() {
            *slot = ops::prepare(&model, bytes, tensors, &mut carver, index)?;
        }
        let peak = place(&model, tensors, steps, inputs, outputs, &mut carver)?;
        let have = carver.whole();
        let usage = Usage { tensors: peak, tables: have - carver.left() };
        let heap = carver.finish();
        // The planned offsets are multiples of the alignment; the heap must start on one too.
        let skew = heap.as_ptr().align_offset(plan::ALIGNMENT as usize);
        let heap = match heap.get_mut(skew..) {
            Some(h) if h.len() >= peak => h,
            _ => return Err(Error::ArenaTooSmall { need: usage.total() + skew, have }),
        };
        Ok(Engine { model, memory: Memory::new(bytes, heap), tensors, steps, inputs, outputs, usage })
    }

    /// Bytes of the arena in use.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Number of operators.
    pub fn ops(&self) -> usize {
        self.steps.len()
    }

    /// What operator `i` is.
    pub fn op_code(&self, i: usize) -> Option<OpCode> {
        self.steps.get(i).map(|s| s.code)
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// Input `i` and its name.
    pub fn input(&self, i: usize) -> Option<(&Tensor, &'a [u8])> {
        self.describe(*self.inputs.get(i)?)
    }

    /// Output `i` and its name.
    pub fn output(&self, i: usize) -> Option<(&Tensor, &'a [u8])> {
        self.describe(*self.outputs.get(i)?)
    }

    /// The bytes of input `i`, to be filled before every run; empty if there is no such input.
    pub fn input_mut(&mut self, i: usize) -> &mut [u8] {
        match self.inputs.get(i).and_then(|t| self.tensors.get(*t as usize)) {
            // SAFETY: `self` is borrowed mutably, so that no other slice of the heap is alive.
            Some(t) => unsafe { self.memory.bytes_mut(t) },
            None => &mut [],
        }
    }

    /// The bytes of output `i` after a run; empty if there is no such output.
    pub fn output_bytes(&self, i: usize) -> &[u8] {
        match self.outputs.get(i).and_then(|t| self.tensors.get(*t as usize)) {
            // SAFETY: writing needs `&mut self`.
            Some(t) => unsafe { self.memory.bytes(t) },
            None => &[],
        }
    }

    /// Runs operator `i`. Operators run in order, each once per inference.
    pub fn run_op(&mut self, i: usize) {
        if let Some(step) = self.steps.get(i) {
            ops::run(step, self.tensors, &self.memory);
        }
    }

    /// One inference.
    pub fn run(&mut self) {
        for i in 0..self.steps.len() {
            self.run_op(i);
        }
    }

    fn describe(&self, tensor: u32) -> Option<(&Tensor, &'a [u8])> {
        let t = self.tensors.get(tensor as usize)?;
        Some((t, self.model.tensor(tensor as usize).map(|r| r.name).unwrap_or(b"")))
    }
}

fn indices<'a>(
    carver: &mut Carver<'a>,
    list: crate::flatbuffer::Vector<'_>,
    tensors: &[Tensor],
) -> Result<&'a [u32], Error> {
    let out = carver.array(list.len(), 0u32)?;
    for (i, slot) in out.iter_mut().enumerate() {
        let t = list.i32(i)?;
        *slot =
            u32::try_from(t).ok().filter(|t| (*t as usize) < tensors.len()).ok_or(Error::Malformed("tensor number"))?;
    }
    Ok(out)
}

/// Finds when each tensor lives, plans the heap, and checks what the kernels' safety rests on.
fn place(
    model: &Model<'_>,
    tensors: &mut [Tensor],
    steps: &mut [Step<'_>],
    inputs: &[u32],
    outputs: &[u32],
    carver: &mut Carver<'_>,
) -> Result<usize, Error> {
    let whole = carver.whole();
    let mut room = carver.scratch();
    let lives = room.array(tensors.len() + steps.len(), Buffer { first: UNBORN, ..Buffer::default() })?;
    let last_step = steps.len().max(1) as u32 - 1;
    let number = |t: u32| t as usize;
    for t in inputs.iter().map(|t| number(*t)) {
        let fail = |why| Error::Graph { tensor: t, why };
        if tensors[t].is_constant() {
            return Err(fail("a graph input has constant data"));
        }
        if lives[t].first != UNBORN {
            return Err(fail("is a graph input twice"));
        }
        lives[t].first = 0;
    }
    for index in 0..steps.len() {
        let record = model.operator(index)?;
        for i in 0..record.inputs.len() {
            let Ok(t) = usize::try_from(record.inputs.i32(i)?) else { continue };
            let fail = |why| Error::Graph { tensor: t, why };
            let tensor = tensors.get(t).ok_or(Error::Malformed("tensor number"))?;
            if !tensor.is_constant() {
                if lives[t].first == UNBORN {
                    return Err(fail("is read before any operator writes it"));
                }
                lives[t].last = index as u32;
            }
        }
        for i in 0..record.outputs.len() {
            let t = usize::try_from(record.outputs.i32(i)?).map_err(|_| Error::Malformed("tensor number"))?;
            let fail = |why| Error::Graph { tensor: t, why };
            let tensor = tensors.get(t).ok_or(Error::Malformed("tensor number"))?;
            if tensor.is_constant() || lives[t].first != UNBORN {
                return Err(fail("is written by more than one of: constant data, graph input, operators"));
            }
            lives[t].first = index as u32;
            lives[t].last = index as u32;
        }
        let life = &mut lives[tensors.len() + index];
        (life.first, life.last, life.size) = (index as u32, index as u32, steps[index].scratch_len);
    }
    for t in outputs.iter().map(|t| number(*t)) {
        if !tensors[t].is_constant() {
            if lives[t].first == UNBORN {
                return Err(Error::Graph { tensor: t, why: "is a graph output that no operator writes" });
            }
            lives[t].last = last_step;
        }
    }
    for (t, life) in lives.iter_mut().enumerate() {
        life.owner = t as u32;
        if let Some(tensor) = tensors.get(t) {
            life.size = if life.first == UNBORN { 0 } else { tensor.bytes };
        }
    }
    let peak = plan::plan(lives).ok_or(Error::ArenaTooSmall { need: usize::MAX, have: whole })?;
    for life in lives.iter().filter(|l| l.first != UNBORN) {
        let owner = number(life.owner);
        match tensors.get_mut(owner) {
            Some(t) => t.place = Place::Heap(life.offset),
            None => steps[owner - tensors.len()].scratch = life.offset,
        }
    }
    Ok(peak as usize)
}
