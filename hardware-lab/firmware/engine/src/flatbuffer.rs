//! A reader of FlatBuffers that never trusts the bytes: every offset is checked against the buffer before it is followed,
//! so that a corrupt file ends in [`Malformed`] and never in a wild read. It reads in place and allocates nothing.

/// The buffer does not hold what its offsets promise; names what was being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

type Result<T> = core::result::Result<T, Malformed>;

/// A table inside a buffer.
#[derive(Clone, Copy)]
pub struct Table<'b> {
    bytes: &'b [u8],
    start: usize,
    vtable: usize,
    vtable_len: usize,
}

/// A vector inside a buffer, of elements of a size that the caller knows.
#[derive(Clone, Copy)]
pub struct Vector<'b> {
    bytes: &'b [u8],
    start: usize,
    len: usize,
}

fn array<const N: usize>(bytes: &[u8], at: usize, what: &'static str) -> Result<[u8; N]> {
    let end = at.checked_add(N).ok_or(Malformed(what))?;
    bytes.get(at..end).and_then(|s| s.try_into().ok()).ok_or(Malformed(what))
}

fn u16_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u16> {
    array(bytes, at, what).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u32> {
    array(bytes, at, what).map(u32::from_le_bytes)
}

/// Follows the forward offset stored at `at`.
fn follow(bytes: &[u8], at: usize, what: &'static str) -> Result<usize> {
    let offset = u32_at(bytes, at, what)? as usize;
    let target = at.checked_add(offset).ok_or(Malformed(what))?;
    if offset == 0 || target >= bytes.len() { Err(Malformed(what)) } else { Ok(target) }
}

/// The root table of a buffer with a file identifier.
pub fn root<'b>(bytes: &'b [u8], identifier: &[u8; 4]) -> Result<Table<'b>> {
    if array::<4>(bytes, 4, "file identifier")? != *identifier {
        return Err(Malformed("file identifier"));
    }
    Table::at(bytes, follow(bytes, 0, "root table")?)
}

impl<'b> Table<'b> {
    fn at(bytes: &'b [u8], start: usize) -> Result<Self> {
        let back = u32_at(bytes, start, "table")? as i32;
        let vtable = (start as i64) - i64::from(back);
        let vtable = usize::try_from(vtable).map_err(|_| Malformed("vtable"))?;
        let vtable_len = usize::from(u16_at(bytes, vtable, "vtable")?);
        let end = vtable.checked_add(vtable_len).ok_or(Malformed("vtable"))?;
        if vtable_len < 4 || end > bytes.len() {
            return Err(Malformed("vtable"));
        }
        Ok(Table { bytes, start, vtable, vtable_len })
    }

    /// Where field `slot` lies, or none if the table leaves it at its default.
    fn field(&self, slot: usize) -> Result<Option<usize>> {
        let entry = 4 + 2 * slot;
        if entry + 2 > self.vtable_len {
            return Ok(None);
        }
        match u16_at(self.bytes, self.vtable + entry, "field offset")? {
            0 => Ok(None),
            offset => Ok(Some(self.start + usize::from(offset))),
        }
    }

    /// An unsigned byte field; booleans and small enumerations too.
    pub fn u8(&self, slot: usize, default: u8) -> Result<u8> {
        self.field(slot)?.map_or(Ok(default), |at| array::<1>(self.bytes, at, "byte field").map(|b| b[0]))
    }

    /// An `i32` field.
    pub fn i32(&self, slot: usize, default: i32) -> Result<i32> {
        self.field(slot)?.map_or(Ok(default), |at| u32_at(self.bytes, at, "int field").map(|v| v as i32))
    }

    /// A `u32` field.
    pub fn u32(&self, slot: usize, default: u32) -> Result<u32> {
        self.field(slot)?.map_or(Ok(default), |at| u32_at(self.bytes, at, "int field"))
    }

    /// A `u64` field.
    pub fn u64(&self, slot: usize, default: u64) -> Result<u64> {
        self.field(slot)?.map_or(Ok(default), |at| array(self.bytes, at, "long field").map(u64::from_le_bytes))
    }

    /// An `f32` field.
    pub fn f32(&self, slot: usize, default: f32) -> Result<f32> {
        self.field(slot)?.map_or(Ok(default), |at| u32_at(self.bytes, at, "float field").map(f32::from_bits))
    }

    /// A table held by reference.
    pub fn table(&self, slot: usize) -> Result<Option<Table<'b>>> {
        match self.field(slot)? {
            None => Ok(None),
            Some(at) => Table::at(self.bytes, follow(self.bytes, at, "table reference")?).map(Some),
        }
    }

    /// A vector of elements of `size` bytes; absent is empty.
    pub fn vector(&self, slot: usize, size: usize) -> Result<Vector<'b>> {
        let Some(at) = self.field(slot)? else { return Ok(Vector::empty()) };
        let at = follow(self.bytes, at, "vector reference")?;
        let len = u32_at(self.bytes, at, "vector length")? as usize;
        let start = at + 4;
        let end = len.checked_mul(size).and_then(|n| n.checked_add(start)).ok_or(Malformed("vector length"))?;
        if end > self.bytes.len() {
            Err(Malformed("vector length"))
        } else {
            Ok(Vector { bytes: self.bytes, start, len })
        }
    }

    /// A string, as bytes; absent is empty.
    pub fn string(&self, slot: usize) -> Result<&'b [u8]> {
        self.vector(slot, 1)?.as_bytes()
    }
}

impl<'b> Vector<'b> {
    /// A vector that is not in the file.
    pub fn empty() -> Self {
        Vector { bytes: &[], start: 0, len: 0 }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements of a vector of bytes.
    pub fn as_bytes(&self) -> Result<&'b [u8]> {
        self.bytes.get(self.start..self.start + self.len).ok_or(Malformed("byte vector"))
    }

    /// Element `i` of a vector of `i32`.
    pub fn i32(&self, i: usize) -> Result<i32> {
        self.check(i)?;
        u32_at(self.bytes, self.start + 4 * i, "int vector").map(|v| v as i32)
    }

    /// Element `i` of a vector of `f32`.
    pub fn f32(&self, i: usize) -> Result<f32> {
        self.i32(i).map(|v| f32::from_bits(v as u32))
    }

    /// Element `i` of a vector of `i64`.
    pub fn i64(&self, i: usize) -> Result<i64> {
        self.check(i)?;
        array(self.bytes, self.start + 8 * i, "long vector").map(i64::from_le_bytes)
    }

    /// Element `i` of a vector of tables.
    pub fn table(&self, i: usize) -> Result<Table<'b>> {
        self.check(i)?;
        Table::at(self.bytes, follow(self.bytes, self.start + 4 * i, "table reference")?)
    }

    fn check(&self, i: usize) -> Result<()> {
        if i < self.len { Ok(()) } else { Err(Malformed("vector index")) }
    }
}
