//! A recorded series in place of a meter: `meter.json` with `{"name", "scope", "periodNanoseconds", "millivolts"?}` and
//! `readings.csv` with the columns `nanoseconds,watts`. It is played back from its first look on, and again from the start
//! when it is over.

use std::path::Path;

use edgeyard_measure::energy::Reading;
use serde::Deserialize;

use super::Meter;
use crate::error::Failure;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    name: String,
    scope: String,
    period_nanoseconds: u64,
    #[serde(default)]
    millivolts: Option<u64>,
}

/// A recorded series.
pub struct Replay {
    about: Description,
    readings: Vec<Reading>,
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
        let about: Description =
            serde_json::from_str(&about).map_err(|error| refused(format!("meter.json: {error}")))?;
        let text = fs_err::read_to_string(folder.join("readings.csv"))?;
        let mut lines = text.lines();
        if lines.next().map(str::trim) != Some("nanoseconds,watts") {
            return Err(refused("readings.csv must begin with nanoseconds,watts: no other units are taken".into()));
        }
        let parse = |line: &str| {
            let (time, watts) = line.split_once(',')?;
            Some(Reading { nanoseconds: time.trim().parse().ok()?, watts: watts.trim().parse().ok()? })
        };
        let readings = lines
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(at, line)| parse(line).ok_or_else(|| refused(format!("readings.csv, line {}: {line:?}", at + 2))))
            .collect::<Result<Vec<_>, _>>()?;
        if readings.len() < 2 || about.period_nanoseconds == 0 {
            return Err(refused("a recording has two readings or more and a period above zero".into()));
        }
        Ok(Self { about, readings, begun: None, told: 0 })
    }

    /// The time of a reading since the recording began, rounds included.
    fn time(&self, index: usize) -> u64 {
        let n = self.readings.len();
        let first = self.readings[0].nanoseconds;
        let round = self.readings[n - 1].nanoseconds - first + self.about.period_nanoseconds;
        (index / n) as u64 * round + self.readings[index % n].nanoseconds - first
    }
}

impl Meter for Replay {
    fn name(&self) -> String {
        format!("replay:{}", self.about.name)
    }

    fn scope(&self) -> String {
        self.about.scope.clone()
    }

    fn period(&self) -> u64 {
        self.about.period_nanoseconds
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let begun = *self.begun.get_or_insert(now);
        let mut new = Vec::new();
        while begun + self.time(self.told) <= now {
            let nanoseconds = begun + self.time(self.told);
            new.push(Reading { nanoseconds, watts: self.readings[self.told % self.readings.len()].watts });
            self.told += 1;
        }
        Ok(new)
    }

    fn millivolts(&self) -> Option<u64> {
        self.about.millivolts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_played_round_and_round() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write("meter.json", r#"{"name": "lab", "scope": "board", "periodNanoseconds": 10, "millivolts": 3300}"#);
        write("readings.csv", "nanoseconds,watts\n100,1.0\n110,2.0\n120,3.0\n");
        let mut meter = Replay::open(folder.path()).unwrap();
        assert_eq!(meter.read(1000).unwrap(), [Reading { nanoseconds: 1000, watts: 1.0 }]);
        let more = meter.read(1035).unwrap();
        assert_eq!(
            more.iter().map(|r| (r.nanoseconds, r.watts as u32)).collect::<Vec<_>>(),
            [(1010, 2), (1020, 3), (1030, 1)]
        );
        assert_eq!((meter.millivolts(), meter.period()), (Some(3300), 10));
        write("readings.csv", "ms,mW\n1,2\n");
        assert_eq!(Replay::open(folder.path()).err().unwrap().reason, "RecordingMalformed");
        write("readings.csv", "nanoseconds,watts\n100,1.0\n110,two\n");
        assert!(Replay::open(folder.path()).err().unwrap().message.contains("line 3"));
    }
}
