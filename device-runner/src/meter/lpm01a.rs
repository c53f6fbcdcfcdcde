//! ST's X-NUCLEO-LPM01A power shield (UM2269): commands in ASCII, samples in binary or ASCII.
//!
//! A binary sample is two bytes, big-endian: four bits of a negative exponent of 16, twelve of a mantissa, in amperes. A first
//! byte of 0xf0 begins a message instead, which 0xffff ends; 0xf3 is the shield's time in milliseconds and how full its buffer
//! is. In ASCII a line is `6409-07` for 6409·10⁻⁷ A, or `TimeStamp: 003s 000ms, buff 00%`.

use edgeyard_measure::energy::Reading;

use super::decode::{Decoder, Piece, device_and_millivolts};
use super::serial::Serial;
use super::stream::{PERIOD, Stream};
use super::{Meter, failed};
use crate::error::Failure;
use crate::machine::Root;

/// Samples a second; the shield can do ten times as many, which its link does not always bear.
pub const FREQUENCY: u64 = 10_000;
const MESSAGE: u8 = 0xf0;
const ERROR: u8 = 0xf1;
const TIME: u8 = 0xf3;
const END: u8 = 0xf4;
const TIME_BYTES: usize = 5;
/// A message that does not end is none.
const LONGEST: usize = 512;

/// Compares the shield's time with what came: the shield tells nothing else of lost samples.
#[derive(Debug, Default)]
struct Tally {
    /// The first time stamp in milliseconds.
    first: Option<u64>,
    /// Samples since, lost ones included.
    samples: u64,
}

impl Tally {
    fn time(&mut self, milliseconds: u64, frequency: u64) -> Option<Piece> {
        let Some(first) = self.first else {
            self.first = Some(milliseconds);
            self.samples = 0;
            return None;
        };
        let expected = milliseconds.saturating_sub(first) * frequency / 1000;
        // Stamps are whole milliseconds, so two of them may be off by as many.
        let lost = expected.saturating_sub(self.samples);
        if lost <= 2 * frequency / 1000 {
            return None;
        }
        self.samples = expected;
        Some(Piece::Lost(lost))
    }
}

/// Decodes binary samples.
#[derive(Debug)]
pub struct BinaryDecoder {
    frequency: u64,
    cut: Vec<u8>,
    tally: Tally,
    /// The first message came: what is before it is the end of an answer, not samples.
    begun: bool,
}

impl BinaryDecoder {
    /// A decoder for so many samples a second.
    pub fn new(frequency: u64) -> Self {
        Self { frequency, cut: Vec::new(), tally: Tally::default(), begun: false }
    }

    /// Length of the message that begins `bytes`, with its end; `None`: there is more to come.
    fn message(bytes: &[u8]) -> Option<usize> {
        let from = if bytes.get(1) == Some(&TIME) { 2 + TIME_BYTES } else { 2 };
        let at = bytes.get(from..)?.windows(2).position(|pair| pair == [0xff, 0xff])?;
        Some(from + at + 2)
    }
}

impl Decoder for BinaryDecoder {
    fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), Failure> {
        self.cut.extend_from_slice(bytes);
        let mut at = 0;
        if !self.begun {
            at = self.cut.iter().position(|byte| *byte == MESSAGE).unwrap_or(self.cut.len());
            self.begun = at < self.cut.len();
        }
        while let [first, second, ..] = self.cut[at..] {
            if first != MESSAGE {
                let exponent = i32::from(first >> 4);
                let mantissa = u16::from(first & 0xf) << 8 | u16::from(second);
                pieces.push(Piece::Amperes(f64::from(mantissa) * 16_f64.powi(-exponent)));
                self.tally.samples += 1;
                at += 2;
                continue;
            }
            let rest = &self.cut[at..];
            let Some(length) = Self::message(rest) else {
                if rest.len() > LONGEST {
                    return Err(failed("the LPM01A sent a message without an end: the stream is out of step"));
                }
                break;
            };
            match second {
                TIME => {
                    let milliseconds = u32::from_be_bytes([rest[2], rest[3], rest[4], rest[5]]);
                    pieces.extend(self.tally.time(u64::from(milliseconds), self.frequency));
                }
                ERROR => {
                    let text = String::from_utf8_lossy(&rest[2..length - 2]).trim().to_owned();
                    return Err(failed(format!("the LPM01A says: {text}")));
                }
                END => return Err(failed("the LPM01A ended the acquisition")),
                _ => (),
            }
            at += length;
        }
        self.cut.drain(..at);
        Ok(())
    }
}

/// Decodes lines.
#[derive(Debug)]
pub struct TextDecoder {
    frequency: u64,
    cut: Vec<u8>,
    tally: Tally,
}

impl TextDecoder {
    /// A decoder for so many samples a second.
    pub fn new(frequency: u64) -> Self {
        Self { frequency, cut: Vec::new(), tally: Tally::default() }
    }

    /// Seconds and milliseconds of a time stamp.
    fn time(line: &str) -> Option<u64> {
        let (seconds, rest) = line.strip_prefix("TimeStamp:")?.trim().split_once("s ")?;
        let milliseconds: u64 = rest.split_once("ms")?.0.trim().parse().ok()?;
        Some(seconds.trim().parse::<u64>().ok()? * 1000 + milliseconds)
    }

    fn amperes(line: &str) -> Option<f64> {
        let (mantissa, exponent) = line.split_at_checked(line.find(['-', '+'])?)?;
        Some(mantissa.parse::<u32>().ok()? as f64 * 10_f64.powi(exponent.parse().ok()?))
    }
}

impl Decoder for TextDecoder {
    fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), Failure> {
        self.cut.extend_from_slice(bytes);
        while let Some(end) = self.cut.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.cut.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\0');
            if let Some(milliseconds) = Self::time(line) {
                pieces.extend(self.tally.time(milliseconds, self.frequency));
            } else if let Some(amperes) = Self::amperes(line) {
                pieces.push(Piece::Amperes(amperes));
                self.tally.samples += 1;
            } else if !line.is_empty() && !line.starts_with("PowerShield") {
                return Err(failed(format!("the LPM01A sent {line:?}, which is no sample")));
            }
        }
        Ok(())
    }
}

/// A shield that measures.
#[derive(Debug)]
pub struct Lpm01a {
    serial: Serial,
    decoder: BinaryDecoder,
    /// What came with the last answer.
    rest: Vec<u8>,
    stream: Stream,
    millivolts: u64,
}

impl Lpm01a {
    /// Takes control, and sets supply and rate.
    pub fn open(root: &Root, text: &str) -> Result<Self, Failure> {
        let (device, millivolts) = device_and_millivolts("lpm01a", text, 1800..=3300)?;
        let mut shield = Self {
            serial: Serial::open(root, device)?,
            decoder: BinaryDecoder::new(FREQUENCY),
            rest: Vec::new(),
            stream: Stream::new(FREQUENCY, millivolts),
            millivolts,
        };
        let settings = [
            "htc".to_owned(),
            "format bin_hexa".to_owned(),
            format!("volt {millivolts}m"),
            format!("freq {FREQUENCY}"),
            "acqtime 0".to_owned(),
        ];
        for command in settings {
            shield.ask(&command)?;
        }
        Ok(shield)
    }

    /// Sends a command and waits until it is taken. A refusal has no `ack`; then the wait ends with what was said.
    fn ask(&mut self, command: &str) -> Result<(), Failure> {
        self.serial.send(format!("{command}\n").as_bytes())?;
        let (_, rest) = self.serial.receive_until(format!("ack {command}").as_bytes())?;
        self.rest = rest;
        Ok(())
    }
}

impl Meter for Lpm01a {
    fn name(&self) -> String {
        "lpm01a".into()
    }

    fn scope(&self) -> String {
        "supply of the board".into()
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn pause(&self) -> std::time::Duration {
        std::time::Duration::from_millis(10)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.serial.receive()?;
        self.decoder = BinaryDecoder::new(FREQUENCY);
        self.stream = Stream::new(FREQUENCY, self.millivolts);
        self.ask("start")
    }

    fn end(&mut self) {
        // A shield that is gone needs no stop.
        let _ = self.serial.send(b"stop\n");
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend(self.serial.receive()?);
        let mut pieces = Vec::new();
        self.decoder.feed(&bytes, &mut pieces)?;
        self.stream.take(&pieces, now)
    }

    fn lost(&self) -> f64 {
        self.stream.lost()
    }

    fn millivolts(&self) -> Option<u64> {
        Some(self.millivolts)
    }
}

impl Drop for Lpm01a {
    fn drop(&mut self) {
        self.end();
        // Control goes back to its own buttons.
        let _ = self.serial.send(b"hrc\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(milliseconds: u32) -> Vec<u8> {
        let mut message = vec![0xf0, 0xf3];
        message.extend(milliseconds.to_be_bytes());
        message.extend([3, 0xff, 0xff]);
        message
    }

    #[test]
    fn binary_samples_and_messages_cut_anywhere() {
        let mut decoder = BinaryDecoder::new(1000);
        // 0x5a31: 0xa31 / 16^5.
        let mut bytes = b"\r\n".to_vec();
        bytes.extend(time(0));
        bytes.extend([0x5a, 0x31].repeat(4));
        // A time stamp whose own bytes look like an end.
        bytes.extend(time(0x0000_ffff));
        bytes.extend([0x10, 0x01]);
        let mut pieces = Vec::new();
        for byte in bytes {
            decoder.feed(&[byte], &mut pieces).unwrap();
        }
        let wanted = f64::from(0xa31) / f64::from(1 << 20);
        assert_eq!(pieces[..4], [Piece::Amperes(wanted); 4]);
        // 65,535 ms at 1 kHz, of which four came.
        assert_eq!(pieces[4..], [Piece::Lost(65_531), Piece::Amperes(1.0 / 16.0)]);
        let mut said = vec![0xf0, 0xf1];
        said.extend(b"overcurrent");
        said.extend([0xff, 0xff]);
        assert!(decoder.feed(&said, &mut pieces).unwrap_err().message.contains("overcurrent"));
    }

    #[test]
    fn lines_are_read_and_nonsense_is_refused() {
        let mut decoder = TextDecoder::new(1000);
        let mut pieces = Vec::new();
        let text = "PowerShield > ack start\r\nTimeStamp: 000s 000ms, buff 00%\r\n\u{0}6409-07\r\n5000-04\r\nTimeStamp: 000s 003ms, buff 00%\r\n12";
        decoder.feed(text.as_bytes(), &mut pieces).unwrap();
        assert_eq!(pieces.len(), 2);
        for (piece, wanted) in pieces.iter().zip([6409e-7, 0.5]) {
            assert!(matches!(piece, Piece::Amperes(amperes) if (amperes - wanted).abs() < 1e-12), "{piece:?}");
        }
        assert!(decoder.feed(b"x4-07\r\n", &mut pieces).unwrap_err().message.contains("12x4-07"));
    }
}
