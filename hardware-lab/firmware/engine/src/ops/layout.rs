//! Operators that only move bytes: RESHAPE and its kin, PAD, STRIDED_SLICE, TRANSPOSE, CONCATENATION, SPLIT and
//! RESIZE_NEAREST_NEIGHBOR.

use super::{Op, Prepare, at};
use crate::Error;
use crate::fixed;
use crate::schema::DType;
use crate::tensor::{Memory, Shape, Tensor};

const RANK: usize = Shape::MAX_RANK;

/// The next index in row-major order.
pub(crate) fn advance(index: &mut [usize], dims: &[usize]) {
    for (i, d) in index.iter_mut().zip(dims).rev() {
        *i += 1;
        if *i < *d {
            return;
        }
        *i = 0;
    }
}

/// All bytes as they are.
#[derive(Clone, Copy)]
pub(crate) struct Copy {
    input: u32,
    output: u32,
}

pub(crate) fn prepare_copy<'a>(p: &Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, output) = (p.input(0)?, p.output(0)?);
    p.filled(input.1)?;
    if !matches!(input.1.dtype, DType::Int8 | DType::Int32 | DType::Float32) {
        p.int8(input.1)?;
    }
    if input.1.dtype != output.1.dtype || input.1.len() != output.1.len() {
        return Err(p.unsupported("different sizes or types of input and output"));
    }
    Ok(Op::Copy(Copy { input: input.0, output: output.0 }))
}

impl Copy {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        // SAFETY: see `ops::run`.
        let (x, out) = unsafe { (memory.bytes(at(tensors, self.input)), memory.bytes_mut(at(tensors, self.output))) };
        if x.len() == out.len() {
            out.copy_from_slice(x);
        }
    }
}

/// A border of one value.
#[derive(Clone, Copy)]
pub(crate) struct Pad {
    input: u32,
    output: u32,
    before: [u32; RANK],
    value: i8,
}

pub(crate) fn prepare_pad<'a>(p: &Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, paddings, output) = (p.input8(0)?, p.input(1)?, p.output8(0)?);
    let rank = input.1.shape.rank();
    let (amounts, n) = p.constant_i32::<{ 2 * RANK }>(paddings.1, "paddings that are not constant INT32")?;
    if n != 2 * rank || output.1.shape.rank() != rank {
        return Err(p.unsupported("paddings that do not match the number of dimensions"));
    }
    let mut before = [0; RANK];
    for i in 0..rank {
        let (Ok(lead), Ok(trail)) = (u32::try_from(amounts[2 * i]), u32::try_from(amounts[2 * i + 1])) else {
            return Err(p.unsupported("a negative padding"));
        };
        let want = u64::from(lead) + u64::from(trail) + u64::from(input.1.shape.dims()[i]);
        if u64::from(output.1.shape.dims()[i]) != want {
            return Err(p.unsupported("an output whose size does not follow from the paddings"));
        }
        before[i] = lead;
    }
    let value = match p.optional(2)? {
        None => output.1.zero_point as i8,
        Some((_, t)) => {
            p.int8(t)?;
            *p.constant(t, "a padding value that is not constant")?.first().ok_or(p.unsupported("no padding value"))?
                as i8
        }
    };
    Ok(Op::Pad(Pad { input: input.0, output: output.0, before, value }))
}

impl Pad {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        let (input, output) = (at(tensors, self.input), at(tensors, self.output));
        let rank = input.shape.rank();
        // SAFETY: see `ops::run`.
        let (x, out) = unsafe { (memory.i8(input), memory.i8_mut(output)) };
        out.fill(self.value);
        let Some((row, outer)) = input.shape.dims().split_last() else {
            return;
        };
        let mut dims = [1; RANK];
        for (d, n) in dims.iter_mut().zip(outer) {
            *d = *n as usize;
        }
        let mut index = [0; RANK];
        for line in x.chunks_exact(*row as usize) {
            let mut start = 0;
            // The index stays 0 along the last dimension, of which a line is all.
            let places = index.iter().zip(self.before).zip(output.shape.dims());
            for ((at, before), size) in places.take(rank) {
                start = start * *size as usize + at + before as usize;
            }
            if let Some(to) = out.get_mut(start..start + line.len()) {
                to.copy_from_slice(line);
            }
            advance(&mut index[..outer.len()], &dims[..outer.len()]);
        }
    }
}

/// The output in order, the input by steps: slices and transpositions.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    input: u32,
    output: u32,
    start: i32,
    steps: [i32; RANK],
    dims: [u32; RANK],
}

/// Steps between neighbours along each dimension, row-major.
fn row_major(shape: &Shape) -> [i32; RANK] {
    let mut steps = [0; RANK];
    let mut step = 1i32;
    for (i, d) in shape.dims().iter().enumerate().rev() {
        steps[i] = step;
        step = step.saturating_mul(*d as i32);
    }
    steps
}

pub(crate) fn prepare_transpose<'a>(p: &Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, order, output) = (p.input8(0)?, p.input(1)?, p.output8(0)?);
    let shape = input.1.shape;
    let (order, n) = p.constant_i32::<RANK>(order.1, "an order that is not constant INT32")?;
    let bad = p.unsupported("an order that is no permutation of the dimensions");
    if n != shape.rank() || output.1.shape.rank() != n {
        return Err(bad);
    }
    let mut seen = [false; RANK];
    let (mut steps, mut dims) = ([0; RANK], [1; RANK]);
    let strides = row_major(&shape);
    for i in 0..n {
        let from = order[i] + if order[i] < 0 { n as i32 } else { 0 };
        let from = usize::try_from(from).ok().filter(|f| *f < n && !seen[*f]).ok_or(bad)?;
        seen[from] = true;
        steps[i] = strides[from];
        dims[i] = shape.dims()[from];
        if output.1.shape.dims()[i] != dims[i] {
            return Err(p.unsupported("an output whose shape does not follow from the order"));
        }
    }
    Ok(Op::Walk(Walk { input: input.0, output: output.0, start: 0, steps, dims }))
}

pub(crate) fn prepare_strided_slice<'a>(p: &Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, output) = (p.input8(0)?, p.output8(0)?);
    let why = "begin, end or strides that are not constant INT32";
    let (begin, n) = p.constant_i32::<RANK>(p.input(1)?.1, why)?;
    let (end, n_end) = p.constant_i32::<RANK>(p.input(2)?.1, why)?;
    let (stride, n_stride) = p.constant_i32::<RANK>(p.input(3)?.1, why)?;
    let shape = input.1.shape;
    if n != n_end || n != n_stride || n > shape.rank() {
        return Err(p.unsupported("begin, end and strides of different lengths"));
    }
    if p.option_i32(2, 0)? != 0 || p.option_i32(3, 0)? != 0 {
        return Err(p.unsupported("an ellipsis or new-axis mask"));
    }
    let (begin_mask, end_mask, shrink) = (p.option_i32(0, 0)?, p.option_i32(1, 0)?, p.option_i32(4, 0)?);
    let strides = row_major(&shape);
    let (mut steps, mut dims, mut start, mut count) = ([0; RANK], [1u32; RANK], 0i64, 1u64);
    for (i, d) in shape.dims().iter().enumerate() {
        let d = i64::from(*d);
        let (from, length, step) = if i >= n {
            (0, d, 1)
        } else {
            let step = i64::from(stride[i]);
            if step == 0 {
                return Err(p.unsupported("a stride of zero"));
            }
            let masked = |mask: i32| mask & (1 << i) != 0;
            let (lowest, highest) = if step > 0 { (0, d) } else { (-1, d - 1) };
            let place = |v: i32| (i64::from(v) + if v < 0 { d } else { 0 }).clamp(lowest, highest);
            let from = if masked(begin_mask) { if step > 0 { 0 } else { d - 1 } } else { place(begin[i]) };
            if masked(shrink) {
                if !(0..d).contains(&from) {
                    return Err(p.unsupported("an index out of range"));
                }
                (from, 1, 1)
            } else {
                let to = if masked(end_mask) { if step > 0 { d } else { -1 } } else { place(end[i]) };
                (from, ((to - from + step - step.signum()) / step).max(0), step)
            }
        };
        start += from * i64::from(strides[i]);
        steps[i] = i32::try_from(step * i64::from(strides[i])).map_err(|_| p.unsupported("a stride too large"))?;
        dims[i] = length as u32;
        count = count.saturating_mul(length as u64);
    }
    if count != output.1.len() as u64 {
        return Err(p.unsupported("an output whose size does not follow from begin, end and strides"));
    }
    Ok(Op::Walk(Walk { input: input.0, output: output.0, start: start as i32, steps, dims }))
}

impl Walk {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        // SAFETY: see `ops::run`.
        let (x, out) = unsafe { (memory.i8(at(tensors, self.input)), memory.i8_mut(at(tensors, self.output))) };
        let dims = self.dims.map(|d| d as usize);
        let mut index = [0usize; RANK];
        for o in out {
            let from = index.iter().zip(self.steps).fold(self.start, |sum, (i, s)| sum + *i as i32 * s);
            if let Some(v) = usize::try_from(from).ok().and_then(|f| x.get(f)) {
                *o = *v;
            }
            advance(&mut index, &dims);
        }
    }
}

/// Pieces laid side by side along one axis.
#[derive(Clone, Copy)]
pub(crate) struct Concat<'a> {
    /// Tensor number and bytes per outer step.
    parts: &'a [(u32, u32)],
    output: u32,
    row: usize,
}

/// The axis in an option or a constant, counted from the front.
fn axis_of(p: &Prepare<'_, '_, '_>, axis: i32, rank: usize) -> Result<usize, Error> {
    let axis = if axis < 0 { axis + rank as i32 } else { axis };
    usize::try_from(axis).ok().filter(|a| *a < rank).ok_or_else(|| p.unsupported("an axis out of range"))
}

fn inner(shape: &Shape, axis: usize) -> u32 {
    shape.dims()[axis..].iter().product()
}

pub(crate) fn prepare_concat<'a>(p: &mut Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let output = p.output8(0)?;
    let shape = output.1.shape;
    let axis = axis_of(p, p.option_i32(0, 0)?, shape.rank())?;
    if p.option_u8(1, 0)? != 0 {
        return Err(p.unsupported("a fused activation"));
    }
    let parts = p.carver.array(p.inputs(), (0u32, 0u32))?;
    let mut along = 0u64;
    for (i, part) in parts.iter_mut().enumerate() {
        let (n, t) = p.input8(i)?;
        let agrees = |d: usize| d == axis || t.shape.dims()[d] == shape.dims()[d];
        if t.shape.rank() != shape.rank() || !(0..shape.rank()).all(agrees) {
            return Err(p.unsupported("inputs whose shapes differ beyond the axis"));
        }
        along += u64::from(t.shape.dims()[axis]);
        *part = (n, inner(&t.shape, axis));
    }
    if along != u64::from(shape.dims()[axis]) {
        return Err(p.unsupported("an output whose size is not the sum of the inputs'"));
    }
    Ok(Op::Concat(Concat { parts, output: output.0, row: inner(&shape, axis) as usize }))
}

impl Concat<'_> {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        // SAFETY: see `ops::run`.
        let out = unsafe { memory.i8_mut(at(tensors, self.output)) };
        let mut offset = 0;
        for (n, piece) in self.parts {
            let piece = *piece as usize;
            // SAFETY: see `ops::run`; an input never overlaps the output.
            let x = unsafe { memory.i8(at(tensors, *n)) };
            for (row, from) in out.chunks_exact_mut(self.row).zip(x.chunks_exact(piece)) {
                if let Some(to) = row.get_mut(offset..offset + piece) {
                    to.copy_from_slice(from);
                }
            }
            offset += piece;
        }
    }
}

/// Equal pieces along one axis.
#[derive(Clone, Copy)]
pub(crate) struct Split<'a> {
    input: u32,
    outputs: &'a [u32],
    row: usize,
}

pub(crate) fn prepare_split<'a>(p: &mut Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (axis, input) = (p.input(0)?, p.input8(1)?);
    let (axis, n) = p.constant_i32::<1>(axis.1, "an axis that is not constant INT32")?;
    let shape = input.1.shape;
    let axis = axis_of(p, if n == 1 { axis[0] } else { i32::MAX }, shape.rank())?;
    let count = p.outputs();
    let outputs = p.carver.array(count, 0u32)?;
    for (i, slot) in outputs.iter_mut().enumerate() {
        let (n, t) = p.output8(i)?;
        let fits =
            |d: usize| t.shape.dims()[d] as usize * if d == axis { count } else { 1 } == shape.dims()[d] as usize;
        if t.shape.rank() != shape.rank() || !(0..shape.rank()).all(fits) {
            return Err(p.unsupported("outputs that are not equal parts of the input"));
        }
        *slot = n;
    }
    Ok(Op::Split(Split { input: input.0, outputs, row: inner(&shape, axis) as usize }))
}

impl Split<'_> {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        // SAFETY: see `ops::run`.
        let x = unsafe { memory.i8(at(tensors, self.input)) };
        let piece = self.row / self.outputs.len().max(1);
        for (i, n) in self.outputs.iter().enumerate() {
            // SAFETY: see `ops::run`; one output at a time.
            let out = unsafe { memory.i8_mut(at(tensors, *n)) };
            for (to, row) in out.chunks_exact_mut(piece).zip(x.chunks_exact(self.row)) {
                if let Some(from) = row.get(i * piece..(i + 1) * piece) {
                    to.copy_from_slice(from);
                }
            }
        }
    }
}

/// Nearest-neighbour scaling of an image.
#[derive(Clone, Copy)]
pub(crate) struct Resize {
    input: u32,
    output: u32,
    align_corners: bool,
}

pub(crate) fn prepare_resize<'a>(p: &Prepare<'_, '_, 'a>) -> Result<Op<'a>, Error> {
    let (input, size, output) = (p.input8(0)?, p.input(1)?, p.output8(0)?);
    let (size, n) = p.constant_i32::<2>(size.1, "a size that is not constant INT32")?;
    let (i, o) = (input.1.shape.dims(), output.1.shape.dims());
    let fits = n == 2 && i.len() == 4 && o.len() == 4 && (i[0], i[3]) == (o[0], o[3]);
    if !fits || i64::from(o[1]) != i64::from(size[0]) || i64::from(o[2]) != i64::from(size[1]) {
        return Err(p.unsupported("an output whose shape does not follow from the size"));
    }
    let align_corners = p.option_u8(0, 0)? != 0;
    // TensorFlow Lite Micro ignores half-pixel centres; take them only where they change nothing (as in whole upscaling).
    if p.option_u8(1, 0)? != 0 {
        let same = |i: u32, o: u32| {
            (0..o as usize).all(|at| source(at, i, o, align_corners, 0.5) == source(at, i, o, align_corners, 0.0))
        };
        if !same(i[1], o[1]) || !same(i[2], o[2]) {
            return Err(p.unsupported("half-pixel centres for a size that is no multiple of the input's"));
        }
    }
    Ok(Op::Resize(Resize { input: input.0, output: output.0, align_corners }))
}

/// Which of `input` positions feeds position `at` of `output`.
fn source(at: usize, input: u32, output: u32, align_corners: bool, offset: f32) -> usize {
    let aligned = align_corners && output > 1;
    let scale = if aligned { (input - 1) as f32 / (output - 1) as f32 } else { input as f32 / output as f32 };
    let place = (at as f32 + offset) * scale;
    // `place` is never negative, so that truncation is the floor.
    let place = if align_corners { fixed::round(place) } else { place as i32 };
    place.clamp(0, input as i32 - 1) as usize
}

impl Resize {
    pub fn run(&self, tensors: &[Tensor], memory: &Memory<'_>) {
        let (input, output) = (at(tensors, self.input), at(tensors, self.output));
        let (&[_, in_h, in_w, c], &[_, out_h, out_w, _]) = (input.shape.dims(), output.shape.dims()) else { return };
        // SAFETY: see `ops::run`.
        let (x, out) = unsafe { (memory.i8(input), memory.i8_mut(output)) };
        let c = c as usize;
        let images = x.chunks_exact(in_h as usize * in_w as usize * c);
        for (image, out) in images.zip(out.chunks_exact_mut(out_h as usize * out_w as usize * c)) {
            for (y, row) in out.chunks_exact_mut(out_w as usize * c).enumerate() {
                let start = source(y, in_h, out_h, self.align_corners, 0.0) * in_w as usize;
                for (x, pixel) in row.chunks_exact_mut(c).enumerate() {
                    let from = (start + source(x, in_w, out_w, self.align_corners, 0.0)) * c;
                    if let Some(from) = image.get(from..from + c) {
                        pixel.copy_from_slice(from);
                    }
                }
            }
        }
    }
}
