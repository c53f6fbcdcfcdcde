//! The protobuf wire format, read and written by hand. The optimizer needs two things a generated decoder does not give:
//! the byte offset at which a damaged file stops making sense, and the original bytes of every field, so that what a
//! pass does not touch is written back unchanged. Nothing here knows ONNX.

use thiserror::Error;

/// Bytes that are no protobuf message.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum WireError {
    /// The data ends inside a value.
    #[error("truncated at byte {at}: {wanted} more bytes were announced, {left} are left")]
    Truncated {
        /// Where the value starts, counted from the start of the file.
        at: usize,
        /// The bytes it announced.
        wanted: u64,
        /// The bytes that are there.
        left: usize,
    },
    /// The bytes are there but mean nothing.
    #[error("damaged at byte {at}: {what}")]
    Malformed {
        /// Where, counted from the start of the file.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// One field's value.
#[derive(Debug, Clone, Copy)]
pub enum Scalar<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(Reader<'a>),
    /// Wire type 5.
    Fixed32(u32),
}

/// A field with where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// The field number.
    pub number: u32,
    /// Its value.
    pub value: Scalar<'a>,
    /// Tag and value as they stand in the file.
    pub raw: &'a [u8],
    /// Offset of the tag from the start of the file.
    pub at: usize,
}

/// Reads fields from a message; knows its place in the file.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    data: &'a [u8],
    base: usize,
    pos: usize,
}

impl<'a> Reader<'a> {
    /// Reads `data` as the whole file.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, base: 0, pos: 0 }
    }

    /// All bytes of this message.
    pub fn bytes(&self) -> &'a [u8] {
        self.data
    }

    /// Offset of the next byte from the start of the file.
    pub fn at(&self) -> usize {
        self.base + self.pos
    }

    /// The next field, or `None` at the end.
    pub fn field(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.pos == self.data.len() {
            return Ok(None);
        }
        let (start, at) = (self.pos, self.at());
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireError::Malformed { at, what: "field number out of range" });
        }
        let value = match tag & 7 {
            0 => Scalar::Varint(self.varint()?),
            1 => Scalar::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Scalar::Bytes(self.message()?),
            5 => Scalar::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::Malformed { at, what: "unknown wire type" }),
        };
        Ok(Some(Field { number, value, raw: &self.data[start..self.pos], at }))
    }

    /// A base-128 number.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let at = self.at();
        let mut value = 0u64;
        for shift in 0..10 {
            let Some(&byte) = self.data.get(self.pos) else {
                return Err(WireError::Truncated { at, wanted: 1, left: 0 });
            };
            self.pos += 1;
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed { at, what: "a number longer than ten bytes" })
    }

    /// True when all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.pos == self.data.len()
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let at = self.at();
        let rest = &self.data[self.pos..];
        let Some(head) = rest.first_chunk::<N>() else {
            return Err(WireError::Truncated { at, wanted: N as u64, left: rest.len() });
        };
        self.pos += N;
        Ok(*head)
    }

    fn message(&mut self) -> Result<Reader<'a>, WireError> {
        let at = self.at();
        let wanted = self.varint()?;
        let left = self.data.len() - self.pos;
        let len = usize::try_from(wanted).ok().filter(|len| *len <= left);
        let Some(len) = len else { return Err(WireError::Truncated { at, wanted, left }) };
        let inner = Reader { data: &self.data[self.pos..self.pos + len], base: self.at(), pos: 0 };
        self.pos += len;
        Ok(inner)
    }
}

impl<'a> Field<'a> {
    /// The value as a signed number.
    pub fn int(&self) -> Result<i64, WireError> {
        match self.value {
            Scalar::Varint(value) => Ok(value as i64),
            _ => Err(self.wrong("expected a number")),
        }
    }

    /// The value as a 32-bit float.
    pub fn float(&self) -> Result<f32, WireError> {
        match self.value {
            Scalar::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.wrong("expected a 32-bit float")),
        }
    }

    /// The value as bytes or a message.
    pub fn message(&self) -> Result<Reader<'a>, WireError> {
        match self.value {
            Scalar::Bytes(reader) => Ok(reader),
            _ => Err(self.wrong("expected bytes")),
        }
    }

    /// The value as text.
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.message()?.bytes()).map_err(|_| self.wrong("text that is not UTF-8"))
    }

    /// Numbers of a repeated field, packed or one at a time.
    pub fn ints(&self, into: &mut Vec<i64>) -> Result<(), WireError> {
        match self.value {
            Scalar::Varint(value) => into.push(value as i64),
            Scalar::Bytes(mut packed) => {
                while !packed.is_empty() {
                    into.push(packed.varint()? as i64);
                }
            }
            _ => return Err(self.wrong("expected numbers")),
        }
        Ok(())
    }

    /// 32-bit floats of a repeated field, packed or one at a time.
    pub fn floats(&self, into: &mut Vec<f32>) -> Result<(), WireError> {
        match self.value {
            Scalar::Fixed32(bits) => into.push(f32::from_bits(bits)),
            Scalar::Bytes(mut packed) => {
                while !packed.is_empty() {
                    into.push(f32::from_le_bytes(packed.array()?));
                }
            }
            _ => return Err(self.wrong("expected 32-bit floats")),
        }
        Ok(())
    }

    /// 64-bit floats of a repeated field, packed or one at a time.
    pub fn doubles(&self, into: &mut Vec<f64>) -> Result<(), WireError> {
        match self.value {
            Scalar::Fixed64(bits) => into.push(f64::from_bits(bits)),
            Scalar::Bytes(mut packed) => {
                while !packed.is_empty() {
                    into.push(f64::from_le_bytes(packed.array()?));
                }
            }
            _ => return Err(self.wrong("expected 64-bit floats")),
        }
        Ok(())
    }

    fn wrong(&self, what: &'static str) -> WireError {
        WireError::Malformed { at: self.at, what }
    }
}

/// Writes fields of a message.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes) }
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True before anything was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The bytes written.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A number.
    pub fn int(&mut self, number: u32, value: i64) -> &mut Self {
        self.varint(u64::from(number) << 3);
        self.varint(value as u64);
        self
    }

    /// A 32-bit float.
    pub fn float(&mut self, number: u32, value: f32) -> &mut Self {
        self.varint(u64::from(number) << 3 | 5);
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Bytes, text or a message.
    pub fn bytes(&mut self, number: u32, value: &[u8]) -> &mut Self {
        self.announce(number, value.len()).raw(value)
    }

    /// The start of a field of bytes; so many must follow.
    pub fn announce(&mut self, number: u32, len: usize) -> &mut Self {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(len as u64);
        self
    }

    /// Lets something else write at the end.
    pub fn append(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        put(&mut self.out);
        self
    }

    /// Packed numbers.
    pub fn packed_ints(&mut self, number: u32, values: &[i64]) -> &mut Self {
        let mut inner = Writer::default();
        values.iter().for_each(|value| inner.varint(*value as u64));
        self.bytes(number, &inner.out)
    }

    /// Fields as they stood in another message.
    pub fn raw(&mut self, fields: &[u8]) -> &mut Self {
        self.out.extend_from_slice(fields);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.int(1, -3).float(2, 1.5).bytes(3, b"abc").packed_ints(4, &[1, 300, -1]);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.field().unwrap() {
            fields.push(field);
        }
        assert_eq!(fields[0].int().unwrap(), -3);
        assert_eq!(fields[1].float().unwrap(), 1.5);
        assert_eq!(fields[2].text().unwrap(), "abc");
        let mut ints = Vec::new();
        fields[3].ints(&mut ints).unwrap();
        assert_eq!(ints, [1, 300, -1]);
        assert_eq!(fields.iter().flat_map(|field| field.raw.to_vec()).collect::<Vec<_>>(), bytes);
    }

    #[test]
    fn a_cut_message_says_where() {
        let mut writer = Writer::default();
        writer.int(1, 7).bytes(2, &[0; 100]);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes[..50]);
        reader.field().unwrap();
        assert_eq!(reader.field().unwrap_err(), WireError::Truncated { at: 3, wanted: 100, left: 46 });
    }
}
