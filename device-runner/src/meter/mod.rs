//! Meters of electrical energy. Each reads below a root, from a device or from a recorded series, so that a board is not
//! needed to test one; each says what it measures (its scope) and how often.
//!
//! A meter only tells: [`Sampler`] reads it in time, and what the readings come to is computed elsewhere.

pub mod check;
mod decode;
mod exec;
mod hwmon;
mod jetson;
mod lpm01a;
mod nvml;
mod ppk2;
pub mod rapl;
mod replay;
mod rpi5;
mod sampler;
mod serial;
mod stream;

use std::time::Duration;

use edgeyard_measure::energy::{Quantity, Reading};

use crate::agent;
use crate::error::Failure;
use crate::machine::Root;

pub use sampler::{Recording, Sampler};

/// What `--meter` takes, for people.
pub const SYNTAX: &str = "rapl, hwmon:CHIP[/LABEL], agent:rapl, jetson, rpi5-pmic, nvml[:INDEX], lpm01a:DEVICE@MILLIVOLTS, \
                          ppk2:DEVICE@MILLIVOLTS, exec:COMMAND or replay:DIR";

/// Something that tells power or energy.
pub trait Meter: Send {
    /// A name for the record, such as `hwmon:ina226`.
    fn name(&self) -> String;

    /// What is measured: a rail or a package.
    fn scope(&self) -> String;

    /// Whether readings are watts, or joules since the first one.
    fn quantity(&self) -> Quantity {
        Quantity::Power
    }

    /// Nominal time between readings in nanoseconds; 0: not known yet.
    fn period(&self) -> u64;

    /// Time between two looks: shorter than the period, so that a look that comes late is no lost reading.
    fn pause(&self) -> Duration {
        Duration::from_nanos(self.period() / 4).clamp(Duration::from_millis(1), Duration::from_millis(100))
    }

    /// Called before the first `read` of each recording: what was sent until now is stale.
    ///
    /// # Errors
    /// `MeterFailed` when the meter is gone.
    fn begin(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Called after the last `read` of each recording; the meter may be idle for long now.
    fn end(&mut self) {}

    /// The next readings since the last call, at `now` nanoseconds of the run's clock; none yet is no error.
    ///
    /// # Errors
    /// `MeterFailed` when the meter is gone or tells nonsense.
    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure>;

    /// Share of samples that were lost so far, where the meter numbers them.
    fn lost(&self) -> f64 {
        0.0
    }

    /// The supply voltage in millivolts that was seen last, where the meter knows it.
    fn millivolts(&self) -> Option<u64> {
        None
    }
}

/// The meter that a text names; see [`SYNTAX`].
///
/// # Errors
/// `UnknownMeter`, `MeterMissing` when the machine has none of the kind, `MeterFailed` when it has and it does not answer
/// as it should, `NoSensor` for devices that are known to have none, `NoNodeAgent`.
pub fn open(text: &str, root: &Root) -> Result<Box<dyn Meter>, Failure> {
    let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    Ok(match (kind, rest) {
        ("rapl", None) => Box::new(rapl::Rapl::here(root)?),
        ("agent", Some("rapl")) => {
            let client = agent::Client::from_environment().ok_or_else(|| {
                Failure::infrastructure(
                    "NoNodeAgent",
                    format!("meter {text:?} needs the node agent: {} is not set to http://IP:PORT", agent::VARIABLE),
                )
            })?;
            Box::new(rapl::Rapl::from_agent(client)?)
        }
        ("hwmon", Some(chip)) => Box::new(hwmon::Hwmon::open(root, chip)?),
        ("jetson", None) => jetson::open(root)?,
        ("rpi5-pmic", None) => Box::new(rpi5::Pmic::open(root)?),
        ("nvml", index) => Box::new(nvml::Nvml::open(index)?),
        ("lpm01a", Some(device)) => Box::new(lpm01a::Lpm01a::open(root, device)?),
        ("ppk2", Some(device)) => Box::new(ppk2::Ppk2::open(root, device)?),
        ("exec", Some(command)) => Box::new(exec::Exec::open(command)?),
        ("replay", Some(folder)) => Box::new(replay::Replay::open(folder.as_ref())?),
        ("coral-usb", None) => {
            return Err(Failure::infrastructure(
                "NoSensor",
                "a Coral USB Accelerator has no sensor of power: measure its USB supply with a meter of its own",
            ));
        }
        _ => {
            return Err(Failure::bad_input("UnknownMeter", format!("meter {text:?} is not known: use {SYNTAX}")));
        }
    })
}

fn missing(message: impl Into<String>) -> Failure {
    Failure::infrastructure("MeterMissing", message)
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::infrastructure("MeterFailed", message)
}

/// The number in a file of sysfs, which holds nothing else.
fn number(root: &Root, path: &str) -> Result<i64, Failure> {
    let text = root.read(path).ok_or_else(|| failed(format!("{path} cannot be read any more")))?;
    text.parse().map_err(|_| failed(format!("{path} holds {text:?}, which is no whole number")))
}

/// Devices that these meters are for draw microwatts to kilowatts: what is outside that is in another unit.
fn plausible(watts: f64, told: &str) -> Result<f64, Failure> {
    if (0.0..=5_000.0).contains(&watts) {
        Ok(watts)
    } else {
        Err(failed(format!("{told}: that is {watts} W, which cannot be; check shunt and units")))
    }
}
