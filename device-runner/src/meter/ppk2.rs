//! Nordic's Power Profiler Kit II: 100,000 samples a second, four bytes each, little-endian: 14 bits of the converter, 3 of the
//! range, 6 of a counter, 8 of logic inputs. Protocol as in Nordic's pc-nrfconnect-ppk; constants of its calibration come from
//! the device's own metadata.
//!
//! `ppk2:DEVICE@MILLIVOLTS` supplies the board; `ppk2:DEVICE@MILLIVOLTS,ampere` measures a board that is supplied otherwise.

use edgeyard_measure::energy::Reading;

use super::decode::{Decoder, Piece, device_and_millivolts};
use super::serial::Serial;
use super::stream::{PERIOD, Stream};
use super::{Meter, failed};
use crate::error::Failure;
use crate::machine::Root;

/// Samples a second.
pub const FREQUENCY: u64 = 100_000;
const AVERAGE_START: u8 = 0x06;
const AVERAGE_STOP: u8 = 0x07;
const DEVICE_RUNNING: u8 = 0x0c;
const REGULATOR: u8 = 0x0d;
const POWER_MODE: u8 = 0x11;
const METADATA: u8 = 0x19;
const RANGES: usize = 5;
/// After the range changes so many samples are not settled; the mean before stands for them.
const UNSETTLED: u32 = 3;
/// Weight of a sample in that mean.
const WEIGHT: f64 = 0.18;

/// What the device's metadata say of its five ranges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    resistor: [f64; RANGES],
    gain_slope: [f64; RANGES],
    gain: [f64; RANGES],
    offset: [f64; RANGES],
    slope: [f64; RANGES],
    intercept: [f64; RANGES],
    user_gain: [f64; RANGES],
}

impl Calibration {
    /// Reads lines such as `R0: 1003.3506`; a range without a resistor is refused, what else is missing has no effect.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut found = Self {
            resistor: [f64::NAN; RANGES],
            gain_slope: [0.0; RANGES],
            gain: [1.0; RANGES],
            offset: [0.0; RANGES],
            slope: [0.0; RANGES],
            intercept: [0.0; RANGES],
            user_gain: [1.0; RANGES],
        };
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once(": ") else { continue };
            let digit = key.len() - usize::from(key.ends_with(|c: char| c.is_ascii_digit()));
            let (kind, range) = key.split_at(digit);
            let table = match kind {
                "R" => &mut found.resistor,
                "GS" => &mut found.gain_slope,
                "GI" => &mut found.gain,
                "O" => &mut found.offset,
                "S" => &mut found.slope,
                "I" => &mut found.intercept,
                "UG" => &mut found.user_gain,
                _ => continue,
            };
            let refused = || failed(format!("the PPK2's metadata hold {line:?}, which is no calibration"));
            let range: usize = range.parse().ok().filter(|range| *range < RANGES).ok_or_else(refused)?;
            table[range] = value.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(refused)?;
        }
        if let Some(range) = found.resistor.iter().position(|resistor| resistor.is_nan() || *resistor <= 0.0) {
            return Err(failed(format!("the PPK2's metadata have no R{range}: {text:?}")));
        }
        Ok(found)
    }

    /// Amperes of a converter's value in a range, at a supply voltage.
    fn amperes(&self, value: u32, range: usize, volts: f64) -> f64 {
        // The converter's reference and gain, from Nordic's application.
        const STEP: f64 = 1.8 / 163_840.0;
        let raw = (f64::from(value) * 4.0 - self.offset[range]) * (STEP / self.resistor[range]);
        let scaled = raw * (self.gain_slope[range] * raw + self.gain[range]);
        self.user_gain[range] * (scaled + self.slope[range] * volts + self.intercept[range])
    }
}

/// Decodes the stream.
#[derive(Debug)]
pub struct Ppk2Decoder {
    calibration: Calibration,
    volts: f64,
    cut: Vec<u8>,
    counter: Option<u32>,
    range: Option<usize>,
    unsettled: u32,
    mean: f64,
}

impl Ppk2Decoder {
    /// A decoder for a device at a supply voltage.
    pub const fn new(calibration: Calibration, millivolts: u64) -> Self {
        let volts = millivolts as f64 / 1e3;
        Self { calibration, volts, cut: Vec::new(), counter: None, range: None, unsettled: 0, mean: 0.0 }
    }
}

impl Decoder for Ppk2Decoder {
    fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), Failure> {
        self.cut.extend_from_slice(bytes);
        let whole = self.cut.len() / 4 * 4;
        for word in self.cut[..whole].chunks_exact(4) {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let (value, range, counter) = (word & 0x3fff, (word >> 14 & 7) as usize, word >> 18 & 0x3f);
            if range >= RANGES {
                return Err(failed(format!(
                    "the PPK2 sent {word:#010x}, range {range} of {RANGES}: the stream is out of step"
                )));
            }
            let lost = self.counter.map_or(0, |before| (counter + 64 - (before + 1) % 64) % 64);
            self.counter = Some(counter);
            if lost > 0 {
                pieces.push(Piece::Lost(u64::from(lost)));
            }
            let amperes = self.calibration.amperes(value, range, self.volts);
            if self.range.replace(range).is_some_and(|before| before != range) {
                self.unsettled = UNSETTLED;
            }
            if self.unsettled > 0 {
                self.unsettled -= 1;
                pieces.push(Piece::Amperes(self.mean));
            } else {
                self.mean = if self.mean == 0.0 { amperes } else { self.mean + WEIGHT * (amperes - self.mean) };
                pieces.push(Piece::Amperes(amperes));
            }
        }
        self.cut.drain(..whole);
        Ok(())
    }
}

/// A device that measures.
#[derive(Debug)]
pub struct Ppk2 {
    serial: Serial,
    decoder: Ppk2Decoder,
    stream: Stream,
    millivolts: u64,
    scope: &'static str,
}

impl Ppk2 {
    /// Reads the calibration, and sets and switches the supply if it is to be the source.
    pub fn open(root: &Root, text: &str) -> Result<Self, Failure> {
        let (text, supplies) = text.strip_suffix(",ampere").map_or((text, true), |text| (text, false));
        let (device, millivolts) = device_and_millivolts("ppk2", text, 800..=5000)?;
        let mut serial = Serial::open(root, device)?;
        serial.send(&[AVERAGE_STOP])?;
        serial.receive()?;
        serial.send(&[METADATA])?;
        let (metadata, _) = serial.receive_until(b"END")?;
        // What was under way when it was told to stop may come before the text.
        let text = String::from_utf8_lossy(&metadata);
        let calibration = Calibration::parse(&text)?;
        serial.send(&[POWER_MODE, if supplies { 2 } else { 1 }])?;
        if supplies {
            // 800 mV is (3, 32); one more each millivolt.
            let steps = millivolts - 800 + 32;
            serial.send(&[REGULATOR, 3 + (steps / 256) as u8, (steps % 256) as u8])?;
        }
        serial.send(&[DEVICE_RUNNING, 1])?;
        Ok(Self {
            serial,
            decoder: Ppk2Decoder::new(calibration, millivolts),
            stream: Stream::new(FREQUENCY, millivolts),
            millivolts,
            scope: if supplies { "supply of the board" } else { "supply of the board, at the voltage that was named" },
        })
    }
}

impl Meter for Ppk2 {
    fn name(&self) -> String {
        "ppk2".into()
    }

    fn scope(&self) -> String {
        self.scope.into()
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn pause(&self) -> std::time::Duration {
        std::time::Duration::from_millis(10)
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.serial.receive()?;
        self.decoder = Ppk2Decoder::new(self.decoder.calibration, self.millivolts);
        self.stream = Stream::new(FREQUENCY, self.millivolts);
        self.serial.send(&[AVERAGE_START])
    }

    fn end(&mut self) {
        // A device that is gone needs no stop.
        let _ = self.serial.send(&[AVERAGE_STOP]);
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let mut pieces = Vec::new();
        let bytes = self.serial.receive()?;
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

impl Drop for Ppk2 {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = "Calibrated: 0\nR0: 1031.64\nR1: 101.65\nR2: 10.15\nR3: 0.94\nR4: 0.043\nGS0: 0\nGS1: 0\nGS2: 0\n\
                            GS3: 0\nGS4: 0\nGI0: 1\nGI1: 1\nGI2: 1\nGI3: 1\nGI4: 1\nO0: 0\nO4: 100\nS4: 0.001\nI4: 0.002\n\
                            UG4: 1.5\nVDD: 3000\nHW: 41625\nmode: 2\nIA: 56\nEND";

    fn word(value: u32, range: u32, counter: u32) -> [u8; 4] {
        (value | range << 14 | (counter % 64) << 18 | 0xa5 << 24).to_le_bytes()
    }

    #[test]
    fn a_sample_is_worth_what_the_calibration_says() {
        let calibration = Calibration::parse(METADATA).unwrap();
        // By hand: 4·1000·(1.8/163840)/0.94 A.
        assert!((calibration.amperes(1000, 3, 3.3) - 0.046_750_332).abs() < 1e-8);
        // Range 4: ((4000 − 100)·(1.8/163840)/0.043 + 0.001·3.3 + 0.002)·1.5.
        assert!(
            (calibration.amperes(1000, 4, 3.3) - 1.502_601_617).abs() < 1e-6,
            "{}",
            calibration.amperes(1000, 4, 3.3)
        );
        for bad in ["R0: one", "R7: 1.0", "R0: inf", ""] {
            let text = METADATA.replace("R0: 1031.64", bad);
            assert_eq!(Calibration::parse(&text).unwrap_err().reason, "MeterFailed", "{bad}");
        }
    }

    #[test]
    fn cut_samples_lost_ones_and_changes_of_range() {
        let mut decoder = Ppk2Decoder::new(Calibration::parse(METADATA).unwrap(), 3300);
        let mut bytes: Vec<u8> = (61..66).flat_map(|counter| word(1000, 3, counter)).collect();
        bytes.extend(word(1000, 3, 69));
        let mut pieces = Vec::new();
        for byte in bytes {
            decoder.feed(&[byte], &mut pieces).unwrap();
        }
        let lost: Vec<usize> =
            pieces.iter().enumerate().filter(|(_, piece)| **piece == Piece::Lost(3)).map(|(at, _)| at).collect();
        assert_eq!((pieces.len(), lost), (7, vec![5]));
        // Three samples after the change are not settled: the mean before stands for them.
        pieces.clear();
        for counter in 70..75 {
            decoder.feed(&word(1000, 4, counter), &mut pieces).unwrap();
        }
        let amperes: Vec<f64> = pieces
            .iter()
            .filter_map(|piece| if let Piece::Amperes(amperes) = piece { Some(*amperes) } else { None })
            .collect();
        assert!(amperes[..3].iter().all(|amperes| (amperes - 0.046_750_332).abs() < 1e-8), "{amperes:?}");
        assert!(amperes[3..].iter().all(|amperes| *amperes > 1.5), "{amperes:?}");
        assert!(decoder.feed(&word(0, 6, 75), &mut pieces).unwrap_err().message.contains("out of step"));
    }
}
