//! What analysers on a serial line send, in common: samples of current, and samples that were lost on the way.

use crate::error::Failure;

/// Part of a decoded stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece {
    /// A sample of the current in amperes.
    Amperes(f64),
    /// So many samples did not come.
    Lost(u64),
}

/// Turns bytes into samples; a sample may be cut anywhere between two calls.
pub trait Decoder: Send {
    /// Appends what the bytes hold.
    ///
    /// # Errors
    /// `MeterFailed` when they hold no samples.
    fn feed(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), Failure>;
}

/// `DEVICE@MILLIVOLTS`. Without the voltage nothing is switched on: a wrong one destroys boards.
pub fn device_and_millivolts<'a>(
    kind: &str,
    text: &'a str,
    allowed: std::ops::RangeInclusive<u64>,
) -> Result<(&'a str, u64), Failure> {
    let refused = || {
        Failure::bad_input(
            "UnknownMeter",
            format!(
                "meter {kind}:{text}: name the supply voltage too, as in {kind}:/dev/ttyACM0@3300, from {} to {} mV",
                allowed.start(),
                allowed.end()
            ),
        )
    };
    let (device, millivolts) = text.rsplit_once('@').ok_or_else(refused)?;
    let millivolts = millivolts.parse().ok().filter(|told| allowed.contains(told)).ok_or_else(refused)?;
    if device.starts_with('/') { Ok((device, millivolts)) } else { Err(refused()) }
}
