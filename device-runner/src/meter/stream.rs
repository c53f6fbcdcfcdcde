//! Readings of power from a stream of samples: averages over a millisecond, at the sensor's own times.
//!
//! The sensor counts samples; its first ones came just before they arrived, and from there its own clock goes on.

use edgeyard_measure::energy::Reading;

use super::decode::Piece;
use super::failed;
use crate::error::Failure;

/// Time between readings in nanoseconds.
pub const PERIOD: u64 = 1_000_000;
/// The stream may lag behind by what buffers hold, and may run ahead by how early the first bytes came.
const MOST_BEHIND: u64 = 1_000_000_000;
const MOST_AHEAD: u64 = 250_000_000;
/// Whatever counts more lost samples at once than some minutes' is no analyser's clock.
const MOST_LOST: u64 = 10_000_000;
/// More current than this flows backwards only in a stream that is out of step.
const MOST_BACKWARDS: f64 = -0.01;

/// A stream that is being averaged.
#[derive(Debug)]
pub struct Stream {
    /// Nanoseconds of one sample.
    sample: u64,
    /// Samples of one reading.
    block: u64,
    volts: f64,
    begun: Option<u64>,
    /// Samples so far, lost ones included.
    samples: u64,
    lost: u64,
    sum: f64,
    count: u64,
}

impl Stream {
    /// A stream of `frequency` samples a second (1,000 or more), measured at a supply voltage.
    pub fn new(frequency: u64, millivolts: u64) -> Self {
        let block = (frequency / 1000).max(1);
        Self {
            sample: 1_000_000_000 / frequency.max(1),
            block,
            volts: millivolts as f64 / 1e3,
            begun: None,
            samples: 0,
            lost: 0,
            sum: 0.0,
            count: 0,
        }
    }

    /// Takes what arrived by `now`.
    pub fn take(&mut self, pieces: &[Piece], now: u64) -> Result<Vec<Reading>, Failure> {
        let readings = self.average(pieces, now)?;
        if let Some(begun) = self.begun {
            let time = begun + self.samples * self.sample;
            if time + MOST_BEHIND < now {
                return Err(failed(format!(
                    "the stream is {} ms behind: it stopped, or much was lost",
                    (now - time) / 1_000_000
                )));
            }
            if now + MOST_AHEAD < time {
                return Err(failed(format!(
                    "the stream is {} ms ahead of this machine's clock: one of the clocks jumped, or the frequency is another",
                    (time - now) / 1_000_000
                )));
            }
        }
        Ok(readings)
    }

    /// The same without a look at the clock, for recordings.
    pub fn average(&mut self, pieces: &[Piece], now: u64) -> Result<Vec<Reading>, Failure> {
        if pieces.is_empty() {
            return Ok(Vec::new());
        }
        let begun = *self.begun.get_or_insert_with(|| now.saturating_sub(pieces.len() as u64 * self.sample));
        let mut readings = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Amperes(amperes) => {
                    self.sum += amperes;
                    self.count += 1;
                    self.samples += 1;
                    readings.extend(self.close(begun)?);
                }
                Piece::Lost(lost) if *lost > MOST_LOST => {
                    return Err(failed(format!("{lost} samples were lost at once: the stream is out of step")));
                }
                Piece::Lost(lost) => {
                    self.lost += lost;
                    for _ in 0..*lost {
                        self.samples += 1;
                        readings.extend(self.close(begun)?);
                    }
                }
            }
        }
        Ok(readings)
    }

    /// The reading of a block, at its middle, when the block is full and not all of it was lost.
    fn close(&mut self, begun: u64) -> Result<Option<Reading>, Failure> {
        if !self.samples.is_multiple_of(self.block) {
            return Ok(None);
        }
        let (sum, count) = (std::mem::take(&mut self.sum), std::mem::take(&mut self.count));
        if count == 0 {
            return Ok(None);
        }
        let value = sum / count as f64 * self.volts;
        if !value.is_finite() || !(MOST_BACKWARDS..=5_000.0).contains(&value) {
            return Err(failed(format!(
                "the stream came to {value} W, which cannot be: it is out of step or in other units"
            )));
        }
        let middle = (self.samples - self.block) * self.sample + self.block * self.sample / 2;
        Ok(Some(Reading { nanoseconds: begun + middle, value }))
    }

    /// Share of samples that were lost.
    pub fn lost(&self) -> f64 {
        if self.samples == 0 { 0.0 } else { self.lost as f64 / self.samples as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millisecond_of_samples_is_one_reading() {
        let mut stream = Stream::new(10_000, 2000);
        let pieces: Vec<Piece> = (0..25).map(|index| Piece::Amperes(f64::from(index))).collect();
        let readings = stream.take(&pieces, 10_000_000).unwrap();
        // 25 samples of 100 µs came by 10 ms, so the first began at 7.5 ms; means 4.5 and 14.5 A at 2 V.
        assert_eq!(
            readings,
            [Reading { nanoseconds: 8_000_000, value: 9.0 }, Reading { nanoseconds: 9_000_000, value: 29.0 }]
        );
        // Two are lost: the third block has the five samples from 20 to 24 and three more; time goes on.
        let mut more = vec![Piece::Lost(2)];
        more.extend([Piece::Amperes(22.0); 3]);
        let readings = stream.take(&more, 10_500_000).unwrap();
        assert_eq!(readings, [Reading { nanoseconds: 10_000_000, value: 44.0 }]);
        assert!((stream.lost() - 2.0 / 30.0).abs() < 1e-12);
    }

    #[test]
    fn noise_is_no_stream_and_never_a_crash() {
        use crate::meter::decode::Decoder;
        use crate::meter::lpm01a::{BinaryDecoder, TextDecoder};
        use crate::meter::ppk2::{Calibration, Ppk2Decoder};
        let calibration = Calibration::parse("R0: 1000\nR1: 100\nR2: 10\nR3: 1\nR4: 0.1\n").unwrap();
        let mut random = edgeyard_measure::random::Random::new(11);
        let mut refused = 0;
        for round in 0..300 {
            let mut decoder: Box<dyn Decoder> = match round % 3 {
                0 => Box::new(BinaryDecoder::new(10_000)),
                1 => Box::new(TextDecoder::new(10_000)),
                _ => Box::new(Ppk2Decoder::new(calibration, 3300)),
            };
            let mut stream = Stream::new(10_000, 3300);
            for _ in 0..50 {
                let bytes: Vec<u8> = (0..random.below(200))
                    .map(|_| match random.below(4) {
                        // Bytes that mean something to one of them.
                        0 => *b"\xf0\xf3\xff\xf1\n-0T".get(random.below(8)).unwrap(),
                        _ => random.below(256) as u8,
                    })
                    .collect();
                let mut pieces = Vec::new();
                if decoder.feed(&bytes, &mut pieces).and_then(|()| stream.take(&pieces, 1)).is_err() {
                    refused += 1;
                    break;
                }
            }
        }
        assert!(refused > 250, "{refused} of 300 were refused");
    }

    #[test]
    fn clocks_that_part_are_found() {
        let mut stream = Stream::new(1000, 1000);
        stream.take(&[Piece::Amperes(1.0)], 5_000_000_000).unwrap();
        assert!(stream.take(&[], 6_500_000_000).unwrap_err().message.contains("behind"));
        let ahead = vec![Piece::Amperes(1.0); 400];
        assert!(stream.take(&ahead, 5_000_000_000).unwrap_err().message.contains("ahead"));
        let mut odd = Stream::new(1000, 1000);
        assert!(odd.take(&[Piece::Amperes(1e7)], 0).unwrap_err().message.contains("cannot be"));
    }
}
