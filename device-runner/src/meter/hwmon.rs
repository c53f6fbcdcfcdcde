//! INA2xx and INA3221, and other sensors of power behind Linux hwmon (Documentation/hwmon/sysfs-interface, ina2xx, ina3221):
//! power in microwatts, voltage in millivolts, current in milliamperes. INA3221 tells no power: it is the product.

use edgeyard_measure::energy::Reading;

use super::{Meter, missing, number, plausible};
use crate::error::Failure;
use crate::machine::Root;

/// Where the kernel lists them.
pub const FOLDER: &str = "/sys/class/hwmon";
/// A multiple of what the drivers' default conversion times come to.
const PERIOD: u64 = 20_000_000;
const CHANNELS: std::ops::RangeInclusive<u32> = 1..=8;

/// One channel of a chip.
pub struct Hwmon {
    root: Root,
    name: String,
    scope: String,
    power: Option<String>,
    voltage: String,
    current: String,
    millivolts: Option<u64>,
}

/// A channel that tells power.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// `/sys/class/hwmon/hwmon3`.
    pub folder: String,
    /// The driver's name for the chip, `ina3221`.
    pub chip: String,
    /// From 1.
    pub index: u32,
    /// What the board's description calls it.
    pub label: Option<String>,
    /// The file with its power; without one, voltage and current are multiplied.
    power: Option<String>,
}

/// All channels that tell power.
pub fn channels(root: &Root) -> Vec<Channel> {
    let mut found = Vec::new();
    for entry in root.list(FOLDER) {
        let folder = format!("{FOLDER}/{entry}");
        let Some(chip) = root.read(&format!("{folder}/name")) else { continue };
        for index in CHANNELS {
            let label = ["in", "power"].iter().find_map(|kind| root.read(&format!("{folder}/{kind}{index}_label")));
            // The sum of shunts that an INA3221 computes (in7, curr4) is no channel of its own.
            let power = ["input", "average"]
                .iter()
                .map(|kind| format!("{folder}/power{index}_{kind}"))
                .find(|path| root.exists(path));
            let both = ["in", "curr"].iter().all(|kind| root.exists(&format!("{folder}/{kind}{index}_input")));
            if power.is_some() || both {
                found.push(Channel { folder: folder.clone(), chip: chip.clone(), index, label, power });
            }
        }
    }
    found
}

impl Hwmon {
    /// A channel of a chip, by the driver's name or the folder's, and by label if there are several: `ina3221/VDD_IN`.
    pub fn open(root: &Root, wanted: &str) -> Result<Self, Failure> {
        let (chip, label) = wanted.split_once('/').map_or((wanted, None), |(chip, label)| (chip, Some(label)));
        let all = channels(root);
        let name = |channel: &Channel| match &channel.label {
            Some(label) => format!("{}/{label}", channel.chip),
            None => channel.chip.clone(),
        };
        let known = || {
            let names: Vec<String> = all.iter().map(name).collect();
            if names.is_empty() { "no hwmon chip that tells power".into() } else { names.join(", ") }
        };
        let fits = |channel: &&Channel| {
            (channel.chip == chip || channel.folder.ends_with(&format!("/{chip}")))
                && label.is_none_or(|label| channel.label.as_deref() == Some(label))
        };
        let fitting: Vec<&Channel> = all.iter().filter(fits).collect();
        match fitting.as_slice() {
            [] => Err(missing(format!("there is no hwmon:{wanted}: this machine has {}", known()))),
            [one] => Self::of(root, one, format!("hwmon:{chip}")),
            several => {
                let names: Vec<String> =
                    several.iter().map(|channel| format!("{} in {}", name(channel), channel.folder)).collect();
                Err(Failure::bad_input(
                    "AmbiguousMeter",
                    format!(
                        "hwmon:{wanted} could be {}: name one as hwmon:CHIP/LABEL, or by the folder's name, as in hwmon:hwmon3",
                        names.join(", ")
                    ),
                ))
            }
        }
    }

    /// A channel under a name for the record.
    pub fn of(root: &Root, channel: &Channel, name: String) -> Result<Self, Failure> {
        let Channel { folder, chip: _, index, label, power } = channel;
        let mut meter = Self {
            root: root.clone(),
            name,
            scope: label.clone().unwrap_or_else(|| format!("channel {index}")),
            power: power.clone(),
            voltage: format!("{folder}/in{index}_input"),
            current: format!("{folder}/curr{index}_input"),
            millivolts: None,
        };
        // A chip that tells all three can be checked against itself: a power in another unit shows at once.
        let told = meter.watts()?;
        if meter.power.is_some() && root.exists(&meter.voltage) && root.exists(&meter.current) {
            let product = meter.product()?;
            if told.max(product) > 0.05 && (told > 10.0 * product || product > 10.0 * told) {
                return Err(super::failed(format!(
                    "{} says {told} W, and {} times {} says {product} W: one of them is in another unit",
                    meter.power.as_deref().unwrap_or_default(),
                    meter.voltage,
                    meter.current
                )));
            }
        }
        Ok(meter)
    }

    fn product(&self) -> Result<f64, Failure> {
        let (millivolts, milliamperes) = (number(&self.root, &self.voltage)?, number(&self.root, &self.current)?);
        let told = format!("{} holds {millivolts} and {} holds {milliamperes}", self.voltage, self.current);
        plausible(millivolts as f64 * milliamperes as f64 / 1e6, &told)
    }

    fn watts(&mut self) -> Result<f64, Failure> {
        if self.root.exists(&self.voltage) {
            self.millivolts = u64::try_from(number(&self.root, &self.voltage)?).ok();
        }
        let Some(path) = &self.power else { return self.product() };
        let microwatts = number(&self.root, path)?;
        plausible(microwatts as f64 / 1e6, &format!("{path} holds {microwatts}"))
    }
}

impl Meter for Hwmon {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn scope(&self) -> String {
        self.scope.clone()
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        Ok(vec![Reading { nanoseconds: now, value: self.watts()? }])
    }

    fn millivolts(&self) -> Option<u64> {
        self.millivolts
    }
}
