//! Frames: magic, kind, version, length, payload, checksum. Written and read piece by piece, so that no frame needs a
//! buffer of its own size.

use crate::{semihosting, uart};

const MAGIC: [u8; 2] = *b"EY";
/// Version of the protocol, in every frame.
pub const VERSION: u8 = 1;

/// Where the bytes go.
#[derive(Clone, Copy)]
enum Channel {
    Files { input: usize, output: usize },
    Serial,
}

/// The connection to the host.
pub struct Link {
    channel: Channel,
    checksum: u32,
    buffer: [u8; 256],
    used: usize,
}

/// The other side went away or sent something that is no frame.
pub struct Broken;

/// Head of a frame that is being read.
#[derive(Clone, Copy)]
pub struct Head {
    pub kind: u8,
    pub length: usize,
}

impl Link {
    /// The serial port if the command line says `uart`, else the standard streams of the emulator.
    pub const fn new() -> Self {
        Link { channel: Channel::Serial, checksum: 0, buffer: [0; 256], used: 0 }
    }

    /// Chooses and opens the channel.
    pub fn open(&mut self) -> Result<(), Broken> {
        if !semihosting::started_with("uart") {
            let input = semihosting::open(c"/proc/self/fd/0", semihosting::Mode::Read).ok_or(Broken)?;
            let output = semihosting::open(c"/proc/self/fd/1", semihosting::Mode::Write).ok_or(Broken)?;
            self.channel = Channel::Files { input, output };
        }
        Ok(())
    }

    fn receive(&mut self, mut bytes: &mut [u8]) -> Result<(), Broken> {
        match self.channel {
            Channel::Serial => uart::read(bytes),
            Channel::Files { input, .. } => {
                while !bytes.is_empty() {
                    let n = semihosting::read(input, bytes);
                    if n == 0 {
                        return Err(Broken);
                    }
                    bytes = bytes.get_mut(n..).ok_or(Broken)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for the next frame.
    pub fn head(&mut self) -> Result<Head, Broken> {
        let mut head = [0u8; 8];
        self.receive(&mut head)?;
        if head[..2] != MAGIC || head[3] != VERSION {
            return Err(Broken);
        }
        self.checksum = update(u32::MAX, &head[2..]);
        Ok(Head { kind: head[2], length: u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize })
    }

    /// The next bytes of the payload.
    pub fn payload(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        self.receive(bytes)?;
        self.checksum = update(self.checksum, bytes);
        Ok(())
    }

    /// Reads and forgets the next bytes of the payload.
    pub fn skip(&mut self, mut count: usize) -> Result<(), Broken> {
        let mut bin = [0u8; 64];
        while count > 0 {
            let n = count.min(bin.len());
            self.payload(&mut bin[..n])?;
            count -= n;
        }
        Ok(())
    }

    /// Reads the checksum; false if it does not match.
    pub fn verify(&mut self) -> Result<bool, Broken> {
        let want = !self.checksum;
        let mut bytes = [0u8; 4];
        self.receive(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes) == want)
    }

    /// Starts a frame of `length` bytes of payload.
    pub fn begin(&mut self, kind: u8, length: usize) {
        self.used = 0;
        self.push(&MAGIC);
        self.checksum = u32::MAX;
        self.bytes(&[kind, VERSION]);
        self.u32(length as u32);
    }

    /// More of the payload.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.checksum = update(self.checksum, bytes);
        self.push(bytes);
    }

    /// A number, little-endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    /// A number, little-endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Bytes with their length before them.
    pub fn text(&mut self, text: &[u8]) {
        self.u32(text.len() as u32);
        self.bytes(text);
    }

    /// Ends the frame.
    pub fn end(&mut self) {
        let checksum = !self.checksum;
        self.push(&checksum.to_le_bytes());
        self.flush();
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.used == self.buffer.len() {
                self.flush();
            }
            let n = bytes.len().min(self.buffer.len() - self.used);
            let (now, later) = bytes.split_at(n);
            self.buffer[self.used..self.used + n].copy_from_slice(now);
            self.used += n;
            bytes = later;
        }
    }

    fn flush(&mut self) {
        let bytes = &self.buffer[..self.used];
        match self.channel {
            Channel::Serial => uart::write(bytes),
            Channel::Files { output, .. } => {
                semihosting::write(output, bytes);
            }
        }
        self.used = 0;
    }
}

/// CRC-32 (IEEE 802.3), four bits at a time: a table of 16 entries is worth its 64 bytes.
fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0u32; 16];
        let mut i = 0;
        while i < 16 {
            let mut value = i as u32;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 != 0 { value >> 1 ^ 0xEDB8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    for byte in bytes {
        crc ^= u32::from(*byte);
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
        crc = crc >> 4 ^ TABLE[(crc & 15) as usize];
    }
    crc
}
