//! Tensors as the engine keeps them after loading, and the memory that they lie in.

use crate::Error;
use crate::schema::{DType, TensorRecord};

/// Dimensions of a tensor, at most six.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    rank: u8,
    dims: [u32; Shape::MAX_RANK],
}

impl Shape {
    /// The most dimensions a tensor may have here.
    pub const MAX_RANK: usize = 6;

    /// From a slice of at most six dimensions.
    pub fn new(dims: &[u32]) -> Option<Self> {
        let mut shape = Shape { rank: dims.len() as u8, dims: [1; Self::MAX_RANK] };
        shape.dims.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(shape)
    }

    /// The dimensions.
    pub fn dims(&self) -> &[u32] {
        &self.dims[..usize::from(self.rank)]
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// Number of elements; loading made sure that it fits.
    pub fn elements(&self) -> usize {
        self.dims().iter().map(|d| *d as usize).product()
    }

    /// The dimensions with ones put in front until there are `N`; none if there are more.
    pub fn padded<const N: usize>(&self) -> Option<[usize; N]> {
        let mut out = [1; N];
        let lead = N.checked_sub(self.rank())?;
        for (o, d) in out[lead..].iter_mut().zip(self.dims()) {
            *o = *d as usize;
        }
        Some(out)
    }
}

/// Where a tensor's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not used by the graph.
    Nowhere,
    /// At this offset of the model file.
    Model(u32),
    /// At this offset of the heap.
    Heap(u32),
}

/// One tensor of a loaded model.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    /// Dimensions.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Real value of one step; 0 if it is not quantised.
    pub scale: f32,
    /// Quantised value that stands for zero.
    pub zero_point: i32,
    pub(crate) bytes: u32,
    pub(crate) place: Place,
}

impl Tensor {
    pub(crate) const NONE: Tensor = Tensor {
        shape: Shape { rank: 0, dims: [1; Shape::MAX_RANK] },
        dtype: DType::Int8,
        scale: 0.0,
        zero_point: 0,
        bytes: 0,
        place: Place::Nowhere,
    };

    pub(crate) fn read(index: usize, record: &TensorRecord<'_>) -> Result<Tensor, Error> {
        let fail = |why| Error::Graph { tensor: index, why };
        let mut dims = [1u32; Shape::MAX_RANK];
        let rank = record.shape.len();
        let mut elements = 1u32;
        for (i, dim) in dims.iter_mut().enumerate().take(rank) {
            *dim = u32::try_from(record.shape.i32(i)?)
                .map_err(|_| fail("a dimension is not known (static shapes only)"))?;
            elements = elements.checked_mul(*dim).filter(|n| *n <= i32::MAX as u32).ok_or(fail("too many elements"))?;
        }
        let shape = dims.get(..rank).and_then(Shape::new).ok_or(fail("more than six dimensions"))?;
        let dtype = DType::from_code(record.dtype);
        let bytes = elements.checked_mul(dtype.size().unwrap_or(1) as u32).ok_or(fail("too many bytes"))?;
        let scale = if record.scales.is_empty() { 0.0 } else { record.scales.f32(0)? };
        let zero_point = if record.zero_points.is_empty() { 0 } else { record.zero_points.i64(0)? };
        let zero_point = i32::try_from(zero_point).map_err(|_| fail("zero point out of range"))?;
        if dtype == DType::Int8 && !(-128..=127).contains(&zero_point) {
            return Err(fail("zero point out of the range of INT8"));
        }
        Ok(Tensor { shape, dtype, scale, zero_point, bytes, place: Place::Nowhere })
    }

    /// Bytes of its data.
    pub fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn is_constant(&self) -> bool {
        matches!(self.place, Place::Model(_))
    }
}

/// The model file and the planned part of the arena.
///
/// Operators need a writable slice of their output beside readable slices of their inputs, all out of one buffer; the
/// planner gives tensors that are alive together disjoint places, and the engine checks that once after planning.
pub(crate) struct Memory<'a> {
    pub model: &'a [u8],
    heap: *mut u8,
    heap_len: usize,
    owner: core::marker::PhantomData<&'a mut [u8]>,
}

impl<'a> Memory<'a> {
    pub fn new(model: &'a [u8], heap: &'a mut [u8]) -> Self {
        Memory { model, heap: heap.as_mut_ptr(), heap_len: heap.len(), owner: core::marker::PhantomData }
    }

    fn heap_range(&self, offset: u32, len: usize) -> Option<*mut u8> {
        let offset = offset as usize;
        if offset.checked_add(len)? > self.heap_len {
            return None;
        }
        // SAFETY: the offset lies within the buffer that `heap` points to.
        Some(unsafe { self.heap.add(offset) })
    }

    /// A tensor's bytes; empty if it has no place.
    ///
    /// # Safety
    /// No slice from [`Memory::bytes_mut`] or [`Memory::scratch`] that overlaps may be alive.
    pub unsafe fn bytes(&self, t: &Tensor) -> &[u8] {
        match t.place {
            Place::Nowhere => &[],
            Place::Model(offset) => {
                let offset = offset as usize;
                self.model.get(offset..offset + t.len()).unwrap_or(&[])
            }
            Place::Heap(offset) => match self.heap_range(offset, t.len()) {
                // SAFETY: in bounds by `heap_range`; the caller keeps writers away.
                Some(p) => unsafe { core::slice::from_raw_parts(p, t.len()) },
                None => &[],
            },
        }
    }

    /// Bytes of the model file that follow a constant tensor.
    pub fn slack(&self, t: &Tensor) -> usize {
        match t.place {
            Place::Model(offset) => self.model.len().saturating_sub(offset as usize + t.len()),
            _ => 0,
        }
    }

    /// A tensor's bytes as `i8`.
    ///
    /// # Safety
    /// As [`Memory::bytes`].
    pub unsafe fn i8(&self, t: &Tensor) -> &[i8] {
        // SAFETY: the caller's promise is the same.
        let bytes = unsafe { self.bytes(t) };
        // SAFETY: `i8` and `u8` have the same layout.
        unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
    }

    /// A tensor's bytes for writing; empty if it has no place in the heap.
    ///
    /// # Safety
    /// No other slice that overlaps may be alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn bytes_mut(&self, t: &Tensor) -> &mut [u8] {
        match t.place {
            // SAFETY: in bounds by `heap_range`; the caller keeps others away.
            Place::Heap(offset) => match self.heap_range(offset, t.len()) {
                Some(p) => unsafe { core::slice::from_raw_parts_mut(p, t.len()) },
                None => &mut [],
            },
            _ => &mut [],
        }
    }

    /// A tensor's bytes as `i8` for writing.
    ///
    /// # Safety
    /// As [`Memory::bytes_mut`].
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn i8_mut(&self, t: &Tensor) -> &mut [i8] {
        // SAFETY: the caller's promise is the same.
        let bytes = unsafe { self.bytes_mut(t) };
        // SAFETY: `i8` and `u8` have the same layout.
        unsafe { core::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }

    /// An operator's own piece of the heap.
    ///
    /// # Safety
    /// No other slice that overlaps may be alive.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn scratch(&self, offset: u32, len: u32) -> &mut [i8] {
        match self.heap_range(offset, len as usize) {
            // SAFETY: in bounds by `heap_range`; the caller keeps others away.
            Some(p) => unsafe { core::slice::from_raw_parts_mut(p.cast(), len as usize) },
            None => &mut [],
        }
    }
}
