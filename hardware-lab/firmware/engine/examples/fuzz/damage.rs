//! Damage that gets past the file's structure: it knows where a TFLite file keeps its shapes, types, scales, options and tensor
//! numbers, and gives them values that agree with nothing, or with each other by chance. Plain damage to bytes comes besides.

/// splitmix64: a state per execution, from the seed and its number.
#[derive(Clone, Copy)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, number: u64) -> Self {
        let mut random = Random(seed ^ number.wrapping_mul(0xD134_2543_DE82_EF95));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`, and 0 if that is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

/// What a place in the file holds.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Byte,
    Int,
    Float,
    Long,
    /// A dimension: changed in every tensor that has the same, or shapes would hardly ever agree.
    Dimension,
    /// Constant data: start and length.
    Data(usize),
}

/// Where the file keeps what.
pub struct Fields(Vec<(usize, Kind)>);

/// What a field of a table leads to.
enum Slot {
    Is(Kind),
    /// A vector of elements of this kind and size.
    Of(Kind, usize),
    Data,
    Table(&'static [(usize, Slot)]),
    Tables(&'static [(usize, Slot)]),
}

use Slot::{Is, Of, Table, Tables};

const MODEL: &[(usize, Slot)] = &[(0, Is(Kind::Int)), (1, Tables(CODE)), (2, Tables(GRAPH)), (4, Tables(BUFFER))];
const CODE: &[(usize, Slot)] = &[(0, Is(Kind::Byte)), (2, Is(Kind::Int)), (3, Is(Kind::Int))];
const BUFFER: &[(usize, Slot)] = &[(0, Slot::Data)];
const GRAPH: &[(usize, Slot)] =
    &[(0, Tables(TENSOR)), (1, Of(Kind::Int, 4)), (2, Of(Kind::Int, 4)), (3, Tables(OPERATOR))];
const TENSOR: &[(usize, Slot)] =
    &[(0, Of(Kind::Dimension, 4)), (1, Is(Kind::Byte)), (2, Is(Kind::Int)), (4, Table(QUANTIZATION))];
const QUANTIZATION: &[(usize, Slot)] = &[(2, Of(Kind::Float, 4)), (3, Of(Kind::Long, 8)), (6, Is(Kind::Int))];
const OPERATOR: &[(usize, Slot)] = &[
    (0, Is(Kind::Int)),
    (1, Of(Kind::Int, 4)),
    (2, Of(Kind::Int, 4)),
    (3, Is(Kind::Byte)),
    // Which of them are bytes and which are words depends on the operator.
    (4, Table(OPTIONS)),
];
const OPTIONS: &[(usize, Slot)] = &[
    (0, Is(Kind::Byte)),
    (1, Is(Kind::Int)),
    (2, Is(Kind::Int)),
    (3, Is(Kind::Byte)),
    (4, Is(Kind::Byte)),
    (5, Is(Kind::Int)),
    (6, Is(Kind::Int)),
    (7, Is(Kind::Byte)),
];

fn word(model: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*model.get(at..)?.first_chunk()?) as usize)
}

impl Fields {
    /// Those of a well-formed model.
    pub fn of(model: &[u8]) -> Self {
        let mut fields = Fields(Vec::new());
        if let Some(root) = word(model, 0) {
            fields.table(model, root, MODEL);
        }
        fields
    }

    fn table(&mut self, model: &[u8], start: usize, slots: &[(usize, Slot)]) -> Option<()> {
        let vtable = (start as i64 - i64::from(word(model, start)? as u32 as i32)) as usize;
        let size = word(model, vtable)? & 0xffff;
        for (number, slot) in slots {
            let entry = 4 + 2 * number;
            if entry + 2 > size {
                continue;
            }
            let offset = usize::from(u16::from_le_bytes(*model.get(vtable + entry..)?.first_chunk()?));
            if offset == 0 {
                continue;
            }
            let at = start + offset;
            if let Is(kind) = slot {
                self.0.push((at, *kind));
                continue;
            }
            let to = at + word(model, at)?;
            let count = word(model, to)?;
            match slot {
                Is(_) => {}
                Of(kind, size) => {
                    // The count itself, and a few elements: a long vector must not crowd out all else.
                    self.0.push((to, Kind::Int));
                    self.0.extend((0..count.min(8)).map(|i| (to + 4 + size * i, *kind)));
                }
                Slot::Data => self.0.push((to + 4, Kind::Data(count))),
                Table(slots) => self.table(model, to, slots)?,
                Tables(slots) => {
                    for i in 0..count {
                        let element = to + 4 + 4 * i;
                        self.table(model, element + word(model, element)?, slots)?;
                    }
                }
            }
        }
        Some(())
    }
}

/// Changes a few places.
pub fn damage(model: &mut Vec<u8>, fields: &Fields, random: &mut Random) {
    let (values, bytes) = random.pick(&[(1, 0), (1, 0), (2, 0), (3, 0), (5, 0), (1, 1), (0, 1), (0, 4), (0, 8)]);
    for _ in 0..values {
        let (at, kind) = random.pick(&fields.0);
        change(model, fields, at, kind, random);
    }
    for _ in 0..bytes {
        break_bytes(model, random);
    }
}

fn change(model: &mut [u8], fields: &Fields, at: usize, kind: Kind, random: &mut Random) {
    let old = word(model, at).unwrap_or(0) as i32;
    let small = random.below(20) as i32;
    let int = random.pick(&[
        0,
        1,
        2,
        -1,
        small,
        small,
        old.wrapping_add(1),
        old.wrapping_sub(1),
        old.wrapping_mul(2),
        old / 2,
    ]) ^ random.pick(&[0, 0, 0, 0, 0, 0, 0, 1 << 15, 1 << 16, 1 << 24, i32::MIN]);
    match kind {
        Kind::Byte => put(model, at, &[int as u8]),
        Kind::Int if random.below(2) == 0 => {
            // Another number of the file, which may be one of the right range.
            let (from, _) = random.pick(&fields.0);
            let other = word(model, from).unwrap_or(0) as u32;
            put(model, at, &other.to_le_bytes());
        }
        Kind::Int => put(model, at, &int.to_le_bytes()),
        Kind::Dimension => {
            let everywhere = random.below(2) == 0;
            for (other, kind) in &fields.0 {
                if *other == at || (everywhere && *kind == Kind::Dimension && word(model, *other) == Some(old as usize))
                {
                    put(model, *other, &int.to_le_bytes());
                }
            }
        }
        Kind::Float => {
            let old = f32::from_bits(old as u32);
            let values =
                [0.0, -old, old * 2.0, old / 3.0, old * 1e6, old * 1e-6, 1.0, 1e-38, 3e38, f32::NAN, f32::INFINITY];
            put(model, at, &random.pick(&values).to_le_bytes());
        }
        Kind::Long => {
            let value = random.pick(&[-128i64, 127, -129, 128, 0, i64::MIN, i64::MAX, i64::from(int)]);
            put(model, at, &value.to_le_bytes());
        }
        Kind::Data(len) => {
            let extreme = random.pick(&[0x80, 0x7f, 0xff]);
            let noise = random.below(2) == 0;
            if let Some(data) = model.get_mut(at..at + len) {
                // At most a part of it: whole tensors of weights would take most of the time.
                let start = random.below(len);
                for byte in data.iter_mut().skip(start).take(256) {
                    *byte = if noise { random.below(256) as u8 } else { extreme };
                }
            }
        }
    }
}

fn put(model: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = model.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn break_bytes(model: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(model.len());
    match random.below(6) {
        0 => model[at] ^= 1 << random.below(8),
        1 => model[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        2 => model[at..].iter_mut().take(4).for_each(|b| *b = 0xff),
        3 => model[at..].iter_mut().take(4).for_each(|b| *b = random.below(256) as u8),
        4 => {
            let from = random.below(model.len());
            let word: Vec<u8> = model[from..].iter().take(4).copied().collect();
            model[at..].iter_mut().zip(word).for_each(|(b, w)| *b = w);
        }
        _ => model.truncate(at.max(8)),
    }
}
