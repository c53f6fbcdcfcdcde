//! Frames of the firmware protocol (hardware-lab/firmware/PROTOCOL.md): magic, version, kind, length, payload, CRC-32.

use super::CortexMError;
use std::io::{self, Read};

const MAGIC: [u8; 2] = *b"EY";
const VERSION: u8 = 1;
/// No answer is longer: outputs and tables of a model that fits a microcontroller.
const LONGEST: u32 = 64 << 20;

/// Requests of the host.
pub mod request {
    pub const HELLO: u8 = 0x01;
    pub const LOAD: u8 = 0x02;
    pub const RUN: u8 = 0x03;
    pub const MEMORY: u8 = 0x04;
    #[cfg(test)]
    pub const TRAP: u8 = 0x7f;
}

/// Answers of the firmware.
pub mod reply {
    pub const HELLO: u8 = 0x81;
    pub const LOAD: u8 = 0x82;
    pub const RUN: u8 = 0x83;
    pub const MEMORY: u8 = 0x84;
    pub const REFUSED: u8 = 0x90;
    pub const FAULT: u8 = 0x91;
    pub const PANIC: u8 = 0x92;
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 12);
    bytes.extend(MAGIC);
    bytes.extend([kind, VERSION]);
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(payload);
    let crc = checksum(&bytes[2..]);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// The next frame; none at the end of the stream.
pub fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
    let bad = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut head = [0u8; 8];
    let mut got = 0;
    while got < head.len() {
        match from.read(&mut head[got..])? {
            0 if got == 0 => return Ok(None),
            0 => return Err(bad("the frame ends in its head")),
            n => got += n,
        }
    }
    if head[..2] != MAGIC || head[3] != VERSION {
        return Err(bad("not a frame of protocol version 1"));
    }
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if length > LONGEST {
        return Err(bad("a frame of an impossible length"));
    }
    let mut payload = vec![0; length as usize + 4];
    from.read_exact(&mut payload)?;
    let crc = payload.split_off(length as usize);
    let mut state = Checksum::default();
    state.update(&head[2..]);
    state.update(&payload);
    if state.value().to_le_bytes() != crc[..] {
        return Err(bad("checksum"));
    }
    Ok(Some(Frame { kind: head[2], payload }))
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut state = Checksum::default();
    state.update(bytes);
    state.value()
}

/// CRC-32 (IEEE 802.3).
#[derive(Default)]
struct Checksum(u32);

impl Checksum {
    fn update(&mut self, bytes: &[u8]) {
        const TABLE: [u32; 256] = {
            let mut table = [0u32; 256];
            let mut i = 0;
            while i < 256 {
                let mut value = i as u32;
                let mut bit = 0;
                while bit < 8 {
                    value = if value & 1 != 0 { value >> 1 ^ 0xEDB8_8320 } else { value >> 1 };
                    bit += 1;
                }
                table[i] = value;
                i += 1;
            }
            table
        };
        let mut crc = !self.0;
        for byte in bytes {
            crc = crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)];
        }
        self.0 = !crc;
    }

    fn value(&self) -> u32 {
        self.0
    }
}

/// Reads a payload from its start.
pub struct Fields<'p>(pub &'p [u8]);

impl<'p> Fields<'p> {
    pub fn bytes(&mut self, count: usize) -> Result<&'p [u8], CortexMError> {
        let (now, later) = self.0.split_at_checked(count).ok_or(CortexMError::Protocol("an answer is too short"))?;
        self.0 = later;
        Ok(now)
    }

    pub fn u32(&mut self) -> Result<u32, CortexMError> {
        self.bytes(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    pub fn u64(&mut self) -> Result<u64, CortexMError> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }

    pub fn text(&mut self) -> Result<String, CortexMError> {
        let length = self.u32()? as usize;
        self.bytes(length).map(|b| String::from_utf8_lossy(b).into_owned())
    }

    pub fn rest(self) -> &'p [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_the_published_one() {
        assert_eq!(checksum(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_frame_comes_back_and_a_damaged_one_does_not() {
        let bytes = encode(request::LOAD, b"model");
        let frame = read(&mut &bytes[..]).unwrap().unwrap();
        assert_eq!(frame, Frame { kind: request::LOAD, payload: b"model".to_vec() });
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(read(&mut &damaged[..]).is_err(), "byte {at}");
            assert!(read(&mut &bytes[..at]).is_err() || at == 0, "cut at {at}");
        }
        assert_eq!(read(&mut &b""[..]).unwrap(), None);
    }
}
