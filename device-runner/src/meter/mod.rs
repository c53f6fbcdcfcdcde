//! Meters of electrical energy. Each reads below a root or from a recorded series, so that a board is not needed to test
//! one; each says what it measures (its scope) and how often.

mod hwmon;
mod rapl;
mod replay;
mod sampler;

use edgeyard_measure::energy::Reading;

use crate::error::Failure;
use crate::machine::Root;

pub use sampler::{Recording, Sampler};

/// Something that tells power.
pub trait Meter: Send {
    /// A name for the record, such as `hwmon:ina226`.
    fn name(&self) -> String;

    /// What is measured: a rail or a package.
    fn scope(&self) -> String;

    /// Nominal time between readings in nanoseconds.
    fn period(&self) -> u64;

    /// The next readings since the last call, at `now` nanoseconds of the run's clock; none yet is no error.
    ///
    /// # Errors
    /// `MeterFailed` when the meter is gone or tells nonsense.
    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure>;

    /// The supply voltage in millivolts that was seen last, where the meter knows it.
    fn millivolts(&self) -> Option<u64> {
        None
    }
}

/// The meter that a text names: `rapl`, `hwmon:CHIP`, `hwmon:CHIP/LABEL` or `replay:DIR`.
///
/// # Errors
/// `UnknownMeter`, or `MeterMissing` when the machine has none of the kind.
pub fn open(text: &str, root: &Root) -> Result<Box<dyn Meter>, Failure> {
    match text.split_once(':') {
        None if text == "rapl" => Ok(Box::new(rapl::Rapl::open(root)?)),
        Some(("hwmon", chip)) => Ok(Box::new(hwmon::Hwmon::open(root, chip)?)),
        Some(("replay", folder)) => Ok(Box::new(replay::Replay::open(folder.as_ref())?)),
        _ => Err(Failure::bad_input(
            "UnknownMeter",
            format!("meter {text:?} is not known: use rapl, hwmon:CHIP, hwmon:CHIP/LABEL or replay:DIR"),
        )),
    }
}

fn missing(message: String) -> Failure {
    Failure::infrastructure("MeterMissing", message)
}

fn failed(message: String) -> Failure {
    Failure::infrastructure("MeterFailed", message)
}
