//! A recording in place of a meter, so that a whole system can be shown without one. A folder with `meter.json`,
//! `{"name", "scope", "periodNanoseconds", "supplyMillivolts"?, "protocol"?, "repeat"?}`, and one of
//!
//! - `readings.csv` with the columns `nanoseconds,watts`, or `nanoseconds,joules` of a counter that never falls;
//! - `stream.bin`, the bytes of a serial analyser whose `protocol` is `ppk2` (its metadata are in `metadata.txt`), `lpm01a` or
//!   `lpm01a-ascii`; the period is then that of one sample.
//!
//! It is played back from its first look on, and again from the start when it is over; with `"repeat": false` the meter is gone
//! then.

use std::path::Path;

use edgeyard_measure::energy::{Quantity, Reading};
use serde::Deserialize;

use super::decode::{Decoder, Piece};
use super::lpm01a::{BinaryDecoder, TextDecoder};
use super::ppk2::{Calibration, Ppk2Decoder};
use super::stream::{self, Stream};
use super::{Meter, failed};
use crate::error::Failure;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    name: String,
    scope: String,
    period_nanoseconds: u64,
    #[serde(default, alias = "millivolts")]
    supply_millivolts: Option<u64>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default = "yes")]
    repeat: bool,
}

const fn yes() -> bool {
    true
}

/// A recorded series.
pub struct Replay {
    about: Description,
    quantity: Quantity,
    readings: Vec<Reading>,
    lost: f64,
    /// Where the series began in the run's time.
    begun: Option<u64>,
    /// Readings told, over all rounds.
    told: usize,
}

impl Replay {
    /// Reads a recording.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let refused = |why: String| Failure::bad_input("RecordingMalformed", format!("{}: {why}", folder.display()));
        let about = fs_err::read_to_string(folder.join("meter.json"))?;
        let mut about: Description =
            serde_json::from_str(&about).map_err(|error| refused(format!("meter.json: {error}")))?;
        if about.period_nanoseconds == 0 {
            return Err(refused("meter.json: periodNanoseconds is above zero".into()));
        }
        let (quantity, readings, lost) = match &about.protocol {
            None => {
                let text = fs_err::read_to_string(folder.join("readings.csv"))?;
                let (quantity, readings) = table(&text).map_err(refused)?;
                (quantity, readings, 0.0)
            }
            Some(protocol) => {
                let (readings, lost) = decode(folder, protocol, &about).map_err(|failure| refused(failure.message))?;
                about.period_nanoseconds = about.period_nanoseconds.max(stream::PERIOD);
                (Quantity::Power, readings, lost)
            }
        };
        if readings.len() < 2 {
            return Err(refused("a recording has two readings or more".into()));
        }
        Ok(Self { about, quantity, readings, lost, begun: None, told: 0 })
    }

    /// A reading by its number since playing began, rounds included.
    fn reading(&self, number: usize, begun: u64) -> Reading {
        let n = self.readings.len();
        let (first, last) = (self.readings[0], self.readings[n - 1]);
        let (round, one) = ((number / n) as u64, self.readings[number % n]);
        let length = last.nanoseconds - first.nanoseconds;
        let nanoseconds =
            begun + round * (length + self.about.period_nanoseconds) + (one.nanoseconds - first.nanoseconds);
        let value = match self.quantity {
            Quantity::Power => one.value,
            // A counter goes on, and between two rounds at its mean rate.
            Quantity::Energy => {
                let counted = last.value - first.value;
                let seam = counted * self.about.period_nanoseconds as f64 / length as f64;
                round as f64 * (counted + seam) + (one.value - first.value)
            }
        };
        Reading { nanoseconds, value }
    }
}

/// The readings of a `readings.csv`, or why they are none.
fn table(text: &str) -> Result<(Quantity, Vec<Reading>), String> {
    let mut lines = text.lines();
    let quantity = match lines.next().map(str::trim) {
        Some("nanoseconds,watts") => Quantity::Power,
        Some("nanoseconds,joules") => Quantity::Energy,
        other => {
            return Err(format!(
                "readings.csv begins with {:?}: nanoseconds,watts or nanoseconds,joules was expected, no other units are taken",
                other.unwrap_or_default()
            ));
        }
    };
    let parse = |line: &str| {
        let (time, value) = line.split_once(',')?;
        let value: f64 = value.trim().parse().ok()?;
        Some(Reading { nanoseconds: time.trim().parse().ok()?, value: Some(value).filter(|value| value.is_finite())? })
    };
    let mut readings: Vec<Reading> = Vec::new();
    for (at, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let refused = |why: &str| format!("readings.csv, line {}: {line:?} {why}", at + 2);
        let reading = parse(line).ok_or_else(|| refused("is no reading"))?;
        if quantity == Quantity::Power && !(0.0..=5_000.0).contains(&reading.value) {
            return Err(refused("is no power in watts"));
        }
        if let Some(before) = readings.last() {
            if reading.nanoseconds <= before.nanoseconds {
                return Err(refused("is not later than the line before"));
            }
            if quantity == Quantity::Energy && reading.value < before.value {
                return Err(refused("is less energy than the line before"));
            }
        }
        readings.push(reading);
    }
    Ok((quantity, readings))
}

/// The readings in a `stream.bin`, and the share of samples that it says were lost.
fn decode(folder: &Path, protocol: &str, about: &Description) -> Result<(Vec<Reading>, f64), Failure> {
    let bytes = fs_err::read(folder.join("stream.bin"))?;
    let frequency = 1_000_000_000 / about.period_nanoseconds;
    let millivolts = about
        .supply_millivolts
        .ok_or_else(|| failed("meter.json: an analyser tells a current: supplyMillivolts makes it a power"))?;
    let mut decoder: Box<dyn Decoder> = match protocol {
        "ppk2" => {
            let metadata = fs_err::read_to_string(folder.join("metadata.txt"))?;
            Box::new(Ppk2Decoder::new(Calibration::parse(&metadata)?, millivolts))
        }
        "lpm01a" => Box::new(BinaryDecoder::new(frequency)),
        "lpm01a-ascii" => Box::new(TextDecoder::new(frequency)),
        other => return Err(failed(format!("meter.json: protocol {other:?} is not ppk2, lpm01a or lpm01a-ascii"))),
    };
    let mut pieces: Vec<Piece> = Vec::new();
    decoder.feed(&bytes, &mut pieces)?;
    let mut stream = Stream::new(frequency, millivolts);
    let readings = stream.average(&pieces, 0)?;
    Ok((readings, stream.lost()))
}

impl Meter for Replay {
    fn name(&self) -> String {
        format!("replay:{}", self.about.name)
    }

    fn scope(&self) -> String {
        self.about.scope.clone()
    }

    fn quantity(&self) -> Quantity {
        self.quantity
    }

    fn period(&self) -> u64 {
        self.about.period_nanoseconds
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let begun = *self.begun.get_or_insert(now);
        let mut new = Vec::new();
        loop {
            if !self.about.repeat && self.told >= self.readings.len() {
                // What is left is handed over first; then the meter is gone.
                return if new.is_empty() {
                    Err(failed("the recording is over, as if the meter was unplugged"))
                } else {
                    Ok(new)
                };
            }
            let next = self.reading(self.told, begun);
            if next.nanoseconds > now {
                return Ok(new);
            }
            new.push(next);
            self.told += 1;
        }
    }

    fn lost(&self) -> f64 {
        self.lost
    }

    fn millivolts(&self) -> Option<u64> {
        self.about.supply_millivolts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(about: &str, readings: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let about = format!(r#"{{"name": "lab", "scope": "board", "periodNanoseconds": 10{about}}}"#);
        std::fs::write(folder.path().join("meter.json"), about).unwrap();
        std::fs::write(folder.path().join("readings.csv"), readings).unwrap();
        folder
    }

    fn told(meter: &mut Replay, now: u64) -> Vec<(u64, f64)> {
        meter.read(now).unwrap().into_iter().map(|reading| (reading.nanoseconds, reading.value)).collect()
    }

    #[test]
    fn a_recording_is_played_round_and_round() {
        let folder = recording(r#", "supplyMillivolts": 3300"#, "nanoseconds,watts\n100,1.0\n110,2.0\n120,3.0\n");
        let mut meter = Replay::open(folder.path()).unwrap();
        assert_eq!(told(&mut meter, 1000), [(1000, 1.0)]);
        assert_eq!(told(&mut meter, 1035), [(1010, 2.0), (1020, 3.0), (1030, 1.0)]);
        assert_eq!((meter.millivolts(), meter.period()), (Some(3300), 10));
    }

    #[test]
    fn a_counter_goes_on_from_round_to_round() {
        let folder = recording("", "nanoseconds,joules\n0,7.0\n10,8.0\n20,9.0\n");
        let mut meter = Replay::open(folder.path()).unwrap();
        assert_eq!(meter.quantity(), Quantity::Energy);
        assert_eq!(told(&mut meter, 0), [(0, 0.0)]);
        assert_eq!(told(&mut meter, 40), [(10, 1.0), (20, 2.0), (30, 3.0), (40, 4.0)]);
    }

    #[test]
    fn a_recording_that_does_not_repeat_ends_as_an_unplugged_meter_does() {
        let folder = recording(r#", "repeat": false"#, "nanoseconds,watts\n100,1.0\n110,2.0\n");
        let mut meter = Replay::open(folder.path()).unwrap();
        assert_eq!(told(&mut meter, 5), [(5, 1.0)]);
        assert_eq!(told(&mut meter, 5000), [(15, 2.0)]);
        assert_eq!(meter.read(6000).unwrap_err().reason, "MeterFailed");
    }

    #[test]
    fn malformed_recordings_are_refused_by_line_and_value() {
        for (readings, said) in [
            ("ms,mW\n1,2\n3,4\n", "ms,mW"),
            ("nanoseconds,watts\n100,1.0\n110,two\n", "line 3"),
            ("nanoseconds,watts\n100,1.0\n110,2500000\n", "2500000"),
            ("nanoseconds,watts\n100,1.0\n110,-2\n", "no power"),
            ("nanoseconds,watts\n100,1.0\n100,2\n", "not later"),
            ("nanoseconds,joules\n100,1.0\n110,0.5\n", "less energy"),
            ("nanoseconds,watts\n100,1.0\n", "two readings"),
        ] {
            let failure = Replay::open(recording("", readings).path()).err().unwrap();
            assert_eq!(failure.reason, "RecordingMalformed", "{readings}");
            assert!(failure.message.contains(said), "{failure}");
        }
        let failure = Replay::open(recording(r#", "milliVolts": 1"#, "").path()).err().unwrap();
        assert!(failure.message.contains("milliVolts"), "{failure}");
    }
}
