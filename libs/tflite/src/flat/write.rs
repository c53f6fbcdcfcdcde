//! Writes FlatBuffers from the last byte to the first, so that children lie behind their parents. Bytes are kept
//! reversed while growing; a position is the distance of an object's first byte from the end of the file.
//! Alignment holds because the finished file is padded to a multiple of 16.

use std::collections::HashMap;

/// Distance from the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Position(u32);

/// A field of a table under construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Inline {
    Scalar { bytes: [u8; 8], size: usize },
    Child(Position),
}

/// The fields of one table; absent slots read as their defaults.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(u16, Inline)>);

/// A file under construction.
#[derive(Default)]
pub(crate) struct Builder {
    reversed: Vec<u8>,
    vtables: HashMap<Vec<u8>, Position>,
    vectors: HashMap<(usize, usize, Vec<u8>), Position>,
    tables: HashMap<Vec<(u16, Inline)>, Position>,
}

impl Inline {
    fn size(&self) -> usize {
        match self {
            Inline::Scalar { size, .. } => *size,
            Inline::Child(_) => 4,
        }
    }
}

impl Fields {
    fn scalar<const N: usize>(&mut self, slot: u16, value: [u8; N]) {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&value);
        self.0.push((slot, Inline::Scalar { bytes, size: N }));
    }

    pub(crate) fn u8(&mut self, slot: u16, value: u8, default: u8) {
        if value != default {
            self.scalar(slot, [value]);
        }
    }

    pub(crate) fn u32(&mut self, slot: u16, value: u32, default: u32) {
        if value != default {
            self.scalar(slot, value.to_le_bytes());
        }
    }

    pub(crate) fn i32(&mut self, slot: u16, value: i32, default: i32) {
        if value != default {
            self.scalar(slot, value.to_le_bytes());
        }
    }

    pub(crate) fn u64(&mut self, slot: u16, value: u64, default: u64) {
        if value != default {
            self.scalar(slot, value.to_le_bytes());
        }
    }

    pub(crate) fn f32(&mut self, slot: u16, value: f32, default: f32) {
        // Bits, not values: -0.0 and NaN have to survive.
        if value.to_bits() != default.to_bits() {
            self.scalar(slot, value.to_le_bytes());
        }
    }

    pub(crate) fn child(&mut self, slot: u16, position: Position) {
        self.0.push((slot, Inline::Child(position)));
    }
}

impl Builder {
    fn distance(&self) -> usize {
        self.reversed.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    /// Pads so that an object of `size` bytes pushed next starts at a multiple of `align`.
    fn align(&mut self, size: usize, align: usize) {
        let padded = (self.distance() + size).next_multiple_of(align);
        self.reversed.resize(padded - size, 0);
    }

    fn here(&self) -> Position {
        // The writer refuses files past 2 GiB before building them (`encode`), so this cannot truncate.
        Position(self.distance() as u32)
    }

    /// A vector of scalars given as little-endian bytes. Equal vectors are stored once.
    pub(crate) fn vector(&mut self, bytes: Vec<u8>, element: usize, align: usize) -> Position {
        let key = (element, align, bytes);
        if let Some(&known) = self.vectors.get(&key) {
            return known;
        }
        let position = self.unshared_vector(&key.2, element, align);
        self.vectors.insert(key, position);
        position
    }

    /// A vector that is not remembered for sharing, for data too large to be worth the copy.
    pub(crate) fn unshared_vector(&mut self, bytes: &[u8], element: usize, align: usize) -> Position {
        self.align(bytes.len(), align.max(4));
        self.push(bytes);
        self.push(&((bytes.len() / element) as u32).to_le_bytes());
        self.here()
    }

    pub(crate) fn i32s(&mut self, values: &[i32]) -> Position {
        self.vector(values.iter().flat_map(|v| v.to_le_bytes()).collect(), 4, 4)
    }

    pub(crate) fn i64s(&mut self, values: &[i64]) -> Position {
        self.vector(values.iter().flat_map(|v| v.to_le_bytes()).collect(), 8, 8)
    }

    pub(crate) fn f32s(&mut self, values: &[f32]) -> Position {
        self.vector(values.iter().flat_map(|v| v.to_le_bytes()).collect(), 4, 4)
    }

    pub(crate) fn string(&mut self, text: &str) -> Position {
        // Element size 0 marks strings among the shared vectors: they carry a terminator that is not counted.
        let key = (0, 4, text.as_bytes().to_vec());
        if let Some(&known) = self.vectors.get(&key) {
            return known;
        }
        self.align(text.len() + 1, 4);
        self.push(&[0]);
        self.push(text.as_bytes());
        self.push(&(text.len() as u32).to_le_bytes());
        let position = self.here();
        self.vectors.insert(key, position);
        position
    }

    pub(crate) fn tables(&mut self, children: &[Position]) -> Position {
        self.align(children.len() * 4, 4);
        for child in children.iter().rev() {
            let offset = self.distance() as u32 + 4 - child.0;
            self.push(&offset.to_le_bytes());
        }
        self.push(&(children.len() as u32).to_le_bytes());
        self.here()
    }

    /// A table that equal tables may share: options, quantization parameters.
    pub(crate) fn shared_table(&mut self, fields: Fields) -> Position {
        if let Some(&known) = self.tables.get(&fields.0) {
            return known;
        }
        let key = fields.0.clone();
        let position = self.table(fields);
        self.tables.insert(key, position);
        position
    }

    pub(crate) fn table(&mut self, Fields(mut fields): Fields) -> Position {
        fields.sort_by_key(|(slot, inline)| (std::cmp::Reverse(inline.size()), *slot));
        let align = fields.iter().map(|(_, inline)| inline.size()).max().unwrap_or(4).max(4);
        let mut size = 4_usize;
        let mut layout = Vec::with_capacity(fields.len());
        for (slot, inline) in fields {
            size = size.next_multiple_of(inline.size());
            layout.push((slot, size, inline));
            size += inline.size();
        }
        self.align(size, align);
        let distance = self.distance() + size;

        let slots = layout.iter().map(|(slot, ..)| usize::from(*slot) + 1).max().unwrap_or(0);
        let mut vtable = vec![0_u16; 2 + slots];
        vtable[0] = (2 * vtable.len()) as u16;
        vtable[1] = size as u16;
        let mut bytes = vec![0; size];
        for (slot, offset, inline) in layout {
            vtable[2 + usize::from(slot)] = offset as u16;
            match inline {
                Inline::Scalar { bytes: value, size } => bytes[offset..offset + size].copy_from_slice(&value[..size]),
                Inline::Child(child) => {
                    let value = (distance - offset) as u32 - child.0;
                    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        let vtable: Vec<u8> = vtable.iter().flat_map(|v| v.to_le_bytes()).collect();
        let known = self.vtables.get(&vtable).copied();
        let vtable_distance = known.map_or(distance + vtable.len(), |position| position.0 as usize);
        let back = (vtable_distance as i64 - distance as i64) as i32;
        bytes[..4].copy_from_slice(&back.to_le_bytes());
        self.push(&bytes);
        let position = self.here();
        if known.is_none() {
            self.push(&vtable);
            let at = self.here();
            self.vtables.insert(vtable, at);
        }
        position
    }

    /// The finished file.
    pub(crate) fn finish(mut self, root: Position, identifier: &[u8; 4]) -> Vec<u8> {
        self.align(8, 16);
        self.push(identifier);
        let offset = self.distance() as u32 + 4 - root.0;
        self.push(&offset.to_le_bytes());
        self.reversed.reverse();
        self.reversed
    }
}
