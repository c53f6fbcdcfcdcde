//! Checked access to FlatBuffers tables. Every offset is validated before it is followed, and a budget bounds
//! what a file whose tables share children can make the reader allocate.

use std::cell::Cell;

use crate::ReadError;

/// What reading one table costs, in bytes of the budget: about a tenth of what it occupies once owned.
const TABLE_COST: usize = 16;

/// A file being read.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    budget: Cell<usize>,
}

/// A table whose header and vtable were checked.
#[derive(Clone, Copy)]
pub(crate) struct Table<'r, 'a> {
    reader: &'r Reader<'a>,
    at: usize,
    size: usize,
    vtable: usize,
    vtable_size: usize,
}

/// A vector whose extent was checked; `at` is its first element.
#[derive(Clone, Copy)]
struct Vector {
    at: usize,
    len: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        // Files share children (one zero-point vector for many tensors), so more than the file's own length is read
        // from honest ones; sixteen times is far above any of them and keeps memory in proportion to the file.
        Self { bytes, budget: Cell::new(bytes.len().saturating_mul(16)) }
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The root table, after checking the file identifier.
    pub(crate) fn root(&self, identifier: &[u8; 4]) -> Result<Table<'_, 'a>, ReadError> {
        if self.bytes.get(4..8) != Some(identifier.as_slice()) {
            return Err(ReadError::NotTflite);
        }
        let at = self.u32_at(0, "root offset")? as usize;
        self.table(at, "model")
    }

    fn charge(&self, cost: usize, what: &'static str) -> Result<(), ReadError> {
        let left = self.budget.get().checked_sub(cost).ok_or(ReadError::Amplified { what })?;
        self.budget.set(left);
        Ok(())
    }

    fn slice(&self, at: usize, len: usize, what: &'static str) -> Result<&'a [u8], ReadError> {
        at.checked_add(len).and_then(|end| self.bytes.get(at..end)).ok_or(ReadError::OutOfBounds {
            what,
            offset: at,
            file: self.bytes.len(),
        })
    }

    fn array<const N: usize>(&self, at: usize, what: &'static str) -> Result<[u8; N], ReadError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(at, N, what)?);
        Ok(out)
    }

    fn u16_at(&self, at: usize, what: &'static str) -> Result<u16, ReadError> {
        Ok(u16::from_le_bytes(self.array(at, what)?))
    }

    fn u32_at(&self, at: usize, what: &'static str) -> Result<u32, ReadError> {
        Ok(u32::from_le_bytes(self.array(at, what)?))
    }

    fn follow(&self, at: usize, what: &'static str) -> Result<usize, ReadError> {
        let target = at
            .checked_add(self.u32_at(at, what)? as usize)
            .filter(|&target| target < self.bytes.len() && target != at)
            .ok_or(ReadError::OutOfBounds { what, offset: at, file: self.bytes.len() })?;
        Ok(target)
    }

    fn table(&self, at: usize, what: &'static str) -> Result<Table<'_, 'a>, ReadError> {
        self.charge(TABLE_COST, what)?;
        let back = i64::from(i32::from_le_bytes(self.array(at, what)?));
        let vtable = usize::try_from(at as i64 - back).map_err(|_| ReadError::OutOfBounds {
            what,
            offset: at,
            file: self.bytes.len(),
        })?;
        let vtable_size = usize::from(self.u16_at(vtable, what)?);
        let size = usize::from(self.u16_at(vtable.saturating_add(2), what)?);
        if vtable_size < 4 || !vtable_size.is_multiple_of(2) || size < 4 {
            return Err(ReadError::BadTable { what, offset: at });
        }
        self.slice(vtable, vtable_size, what)?;
        self.slice(at, size, what)?;
        Ok(Table { reader: self, at, size, vtable, vtable_size })
    }

    fn vector(&self, at: usize, element: usize, what: &'static str) -> Result<Vector, ReadError> {
        let len = self.u32_at(at, what)? as usize;
        let size =
            len.checked_mul(element).ok_or(ReadError::OutOfBounds { what, offset: at, file: self.bytes.len() })?;
        self.slice(at + 4, size, what)?;
        self.charge(size, what)?;
        Ok(Vector { at: at + 4, len })
    }
}

impl<'r, 'a> Table<'r, 'a> {
    /// Where the field in `slot` lies, or none when it is absent; `size` is what the field must hold.
    fn field(&self, slot: u16, size: usize, what: &'static str) -> Result<Option<usize>, ReadError> {
        let entry = 4 + 2 * usize::from(slot);
        if entry + 2 > self.vtable_size {
            return Ok(None);
        }
        let offset = usize::from(self.reader.u16_at(self.vtable + entry, what)?);
        if offset == 0 {
            return Ok(None);
        }
        if offset < 4 || offset + size > self.size {
            return Err(ReadError::BadTable { what, offset: self.at });
        }
        Ok(Some(self.at + offset))
    }

    pub(crate) fn has(&self, slot: u16) -> Result<bool, ReadError> {
        Ok(self.field(slot, 0, "field")?.is_some())
    }

    fn scalar<const N: usize>(&self, slot: u16, what: &'static str) -> Result<Option<[u8; N]>, ReadError> {
        self.field(slot, N, what)?.map(|at| self.reader.array(at, what)).transpose()
    }

    pub(crate) fn u8(&self, slot: u16, default: u8, what: &'static str) -> Result<u8, ReadError> {
        Ok(self.scalar::<1>(slot, what)?.map_or(default, |b| b[0]))
    }

    pub(crate) fn u32(&self, slot: u16, default: u32, what: &'static str) -> Result<u32, ReadError> {
        Ok(self.scalar(slot, what)?.map_or(default, u32::from_le_bytes))
    }

    pub(crate) fn i32(&self, slot: u16, default: i32, what: &'static str) -> Result<i32, ReadError> {
        Ok(self.scalar(slot, what)?.map_or(default, i32::from_le_bytes))
    }

    pub(crate) fn u64(&self, slot: u16, default: u64, what: &'static str) -> Result<u64, ReadError> {
        Ok(self.scalar(slot, what)?.map_or(default, u64::from_le_bytes))
    }

    pub(crate) fn f32(&self, slot: u16, default: f32, what: &'static str) -> Result<f32, ReadError> {
        Ok(self.scalar(slot, what)?.map_or(default, f32::from_le_bytes))
    }

    fn child(&self, slot: u16, what: &'static str) -> Result<Option<usize>, ReadError> {
        self.field(slot, 4, what)?.map(|at| self.reader.follow(at, what)).transpose()
    }

    pub(crate) fn table(&self, slot: u16, what: &'static str) -> Result<Option<Table<'r, 'a>>, ReadError> {
        self.child(slot, what)?.map(|at| self.reader.table(at, what)).transpose()
    }

    /// The tables of a vector; an absent vector is an empty one.
    pub(crate) fn tables(&self, slot: u16, what: &'static str) -> Result<Vec<Table<'r, 'a>>, ReadError> {
        let Some(at) = self.child(slot, what)? else { return Ok(Vec::new()) };
        let vector = self.reader.vector(at, 4, what)?;
        (0..vector.len).map(|i| self.reader.table(self.reader.follow(vector.at + 4 * i, what)?, what)).collect()
    }

    pub(crate) fn string(&self, slot: u16, what: &'static str) -> Result<Option<String>, ReadError> {
        let Some(bytes) = self.byte_vector(slot, what)? else { return Ok(None) };
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| ReadError::NotUtf8 { what })
    }

    pub(crate) fn byte_vector(&self, slot: u16, what: &'static str) -> Result<Option<&'a [u8]>, ReadError> {
        let Some(at) = self.child(slot, what)? else { return Ok(None) };
        let vector = self.reader.vector(at, 1, what)?;
        self.reader.slice(vector.at, vector.len, what).map(Some)
    }

    fn numbers<const N: usize, T>(
        &self,
        slot: u16,
        what: &'static str,
        from: fn([u8; N]) -> T,
    ) -> Result<Option<Vec<T>>, ReadError> {
        let Some(at) = self.child(slot, what)? else { return Ok(None) };
        let vector = self.reader.vector(at, N, what)?;
        let bytes = self.reader.slice(vector.at, vector.len * N, what)?;
        let (chunks, _) = bytes.as_chunks::<N>();
        Ok(Some(chunks.iter().map(|chunk| from(*chunk)).collect()))
    }

    pub(crate) fn i32s(&self, slot: u16, what: &'static str) -> Result<Option<Vec<i32>>, ReadError> {
        self.numbers(slot, what, i32::from_le_bytes)
    }

    pub(crate) fn i64s(&self, slot: u16, what: &'static str) -> Result<Option<Vec<i64>>, ReadError> {
        self.numbers(slot, what, i64::from_le_bytes)
    }

    pub(crate) fn f32s(&self, slot: u16, what: &'static str) -> Result<Option<Vec<f32>>, ReadError> {
        self.numbers(slot, what, f32::from_le_bytes)
    }
}
