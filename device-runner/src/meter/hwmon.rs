//! INA2xx and INA3221 behind Linux hwmon (Documentation/hwmon/sysfs-interface: power in microwatts, voltage in millivolts,
//! current in milliamperes).

use edgeyard_measure::energy::Reading;

use super::{Meter, failed, missing};
use crate::error::Failure;
use crate::machine::Root;

const FOLDER: &str = "/sys/class/hwmon";
/// The drivers convert continuously; 10 ms is slower than any of their default intervals.
const PERIOD: u64 = 10_000_000;

/// One channel of a chip.
pub struct Hwmon {
    root: Root,
    chip: String,
    folder: String,
    channel: u32,
    label: Option<String>,
    /// `power1_input` is there; otherwise power is voltage times current.
    has_power: bool,
    millivolts: Option<u64>,
}

impl Hwmon {
    /// The channel of a chip, by label if there are several: `ina3221/VDD_IN`.
    pub fn open(root: &Root, wanted: &str) -> Result<Self, Failure> {
        let (chip, label) = wanted.split_once('/').map_or((wanted, None), |(chip, label)| (chip, Some(label)));
        let names = root.list(FOLDER);
        let name_of = |entry: &String| root.read(&format!("{FOLDER}/{entry}/name"));
        let Some(entry) = names.iter().find(|entry| name_of(entry).as_deref() == Some(chip)) else {
            let found: Vec<String> = names.iter().filter_map(name_of).collect();
            return Err(missing(format!("there is no hwmon chip {chip:?}: this machine has {}", found.join(", "))));
        };
        let folder = format!("{FOLDER}/{entry}");
        let label_of = |channel: u32| root.read(&format!("{folder}/in{channel}_label"));
        let channel = match label {
            None => 1,
            Some(label) => (1..=8).find(|channel| label_of(*channel).as_deref() == Some(label)).ok_or_else(|| {
                let known: Vec<String> = (1..=8).filter_map(label_of).collect();
                missing(format!("chip {chip:?} has no channel {label:?}: it has {}", known.join(", ")))
            })?,
        };
        let has_power = root.exists(&format!("{folder}/power{channel}_input"));
        let hwmon = Self {
            root: root.clone(),
            chip: chip.into(),
            label: label_of(channel),
            folder,
            channel,
            has_power,
            millivolts: None,
        };
        let has_both = ["in", "curr"].iter().all(|kind| hwmon.number(kind).is_ok());
        if !has_power && !has_both {
            return Err(missing(format!(
                "chip {chip:?} tells neither power nor voltage and current on channel {channel}"
            )));
        }
        Ok(hwmon)
    }

    fn number(&self, kind: &str) -> Result<i64, Failure> {
        let path = format!("{}/{kind}{}_input", self.folder, self.channel);
        let text = self.root.read(&path).ok_or_else(|| failed(format!("{} cannot be read any more", self.name())))?;
        text.parse().map_err(|_| failed(format!("{} told {text:?} for {kind}, which is no integer", self.name())))
    }
}

impl Meter for Hwmon {
    fn name(&self) -> String {
        format!("hwmon:{}", self.chip)
    }

    fn scope(&self) -> String {
        self.label.clone().unwrap_or_else(|| format!("channel {}", self.channel))
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        self.millivolts = self.number("in").ok().and_then(|voltage| u64::try_from(voltage).ok());
        let watts = if self.has_power {
            self.number("power")? as f64 / 1e6
        } else {
            self.number("in")? as f64 * self.number("curr")? as f64 / 1e6
        };
        // A board of this kind draws milliwatts to hundreds of watts; anything else is a wrong unit.
        if !(0.0..=10_000.0).contains(&watts) {
            return Err(failed(format!(
                "{} told {watts} W, which cannot be: check the shunt and the units",
                self.name()
            )));
        }
        Ok(vec![Reading { nanoseconds: now, watts }])
    }

    fn millivolts(&self) -> Option<u64> {
        self.millivolts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("sys/class/hwmon").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::new(folder.path());
        (folder, root)
    }

    #[test]
    fn an_ina226_tells_microwatts() {
        let (folder, root) = tree(&[
            ("hwmon0/name", "cpu_thermal\n"),
            ("hwmon1/name", "ina226\n"),
            ("hwmon1/power1_input", "2500000\n"),
            ("hwmon1/in1_input", "5020\n"),
        ]);
        let mut meter = Hwmon::open(&root, "ina226").unwrap();
        assert_eq!(meter.read(7).unwrap(), [Reading { nanoseconds: 7, watts: 2.5 }]);
        assert_eq!(meter.millivolts(), Some(5020));
        let power = folder.path().join("sys/class/hwmon/hwmon1/power1_input");
        for nonsense in ["2.5 W", "-3000000", "99999999999999"] {
            std::fs::write(&power, nonsense).unwrap();
            assert_eq!(meter.read(8).unwrap_err().reason, "MeterFailed", "{nonsense}");
        }
        std::fs::remove_file(&power).unwrap();
        assert!(meter.read(9).unwrap_err().message.contains("any more"));
        assert!(Hwmon::open(&root, "ina219").err().unwrap().message.contains("ina226"));
    }

    #[test]
    fn an_ina3221_has_named_channels() {
        let (_folder, root) = tree(&[
            ("hwmon3/name", "ina3221"),
            ("hwmon3/in1_label", "VDD_IN"),
            ("hwmon3/in1_input", "5000"),
            ("hwmon3/curr1_input", "1200"),
            ("hwmon3/in2_label", "VDD_CPU_GPU_CV"),
            ("hwmon3/in2_input", "5000"),
            ("hwmon3/curr2_input", "300"),
        ]);
        let mut total = Hwmon::open(&root, "ina3221/VDD_IN").unwrap();
        assert_eq!(total.read(1).unwrap()[0].watts, 6.0);
        assert_eq!(total.scope(), "VDD_IN");
        assert!(Hwmon::open(&root, "ina3221/VDD_SOC").err().unwrap().message.contains("VDD_CPU_GPU_CV"));
    }
}
