//! The power chip of a Raspberry Pi 5, as `vcgencmd pmic_read_adc` tells it: voltage and current of each of its outputs.
//!
//! Its outputs are all fed from the 5 V input side by side, so they add up. What takes 5 V directly (USB, fan, HATs) and what
//! the chip itself loses is not in it, so this is less than the board draws.

use std::collections::BTreeMap;
use std::time::Duration;

use edgeyard_measure::energy::Reading;

use super::{Meter, failed, missing, plausible};
use crate::error::Failure;
use crate::machine::{Root, vcgencmd};

const QUESTION: &str = "pmic_read_adc";
const PERIOD: u64 = 100_000_000;

/// The chip.
pub struct Pmic {
    root: Root,
    millivolts: Option<u64>,
}

impl Pmic {
    /// Asks the firmware once.
    pub fn open(root: &Root) -> Result<Self, Failure> {
        if !vcgencmd::is_here(root) {
            return Err(missing(
                "there is neither /dev/vcio nor /usr/bin/vcgencmd: this is no Raspberry Pi, or the pod may not use it",
            ));
        }
        let mut meter = Self { root: root.clone(), millivolts: None };
        meter.ask()?;
        Ok(meter)
    }

    fn ask(&mut self) -> Result<f64, Failure> {
        let text = vcgencmd::ask(&self.root, QUESTION)
            .ok_or_else(|| failed(format!("the firmware does not answer {QUESTION}: only a Raspberry Pi 5 does")))?;
        let (watts, volts) = total(&text)?;
        self.millivolts = volts.map(|volts| (volts * 1e3).round() as u64);
        Ok(watts)
    }
}

/// The sum of all outputs in watts, and the input's voltage.
fn total(text: &str) -> Result<(f64, Option<f64>), Failure> {
    let (mut amperes, mut volts) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let refused =
            || failed(format!("{QUESTION} told {line:?}: NAME_A current(N)=…A or NAME_V volt(N)=…V was expected"));
        let (name, told) = line.split_once(' ').ok_or_else(refused)?;
        let (kind, value) = told.trim().split_once('=').ok_or_else(refused)?;
        let (rail, table, unit, most) = if let Some(rail) = name.strip_suffix("_A") {
            (rail, &mut amperes, 'A', 20.0)
        } else if let Some(rail) = name.strip_suffix("_V") {
            (rail, &mut volts, 'V', 6.0)
        } else {
            return Err(refused());
        };
        let expected = if unit == 'A' { "current(" } else { "volt(" };
        let value: f64 = value.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(refused)?;
        if !kind.starts_with(expected) || !(0.0..=most).contains(&value) {
            return Err(refused());
        }
        table.insert(rail, value);
    }
    if amperes.is_empty() {
        return Err(failed(format!("{QUESTION} told no current: {text:?}")));
    }
    let mut watts = 0.0;
    for (rail, amperes) in &amperes {
        let volts = volts.get(rail).ok_or_else(|| failed(format!("{QUESTION} told {rail}_A but no {rail}_V")))?;
        watts += amperes * volts;
    }
    Ok((plausible(watts, QUESTION)?, volts.get("EXT5V").copied()))
}

impl Meter for Pmic {
    fn name(&self) -> String {
        "rpi5-pmic".into()
    }

    fn scope(&self) -> String {
        "outputs of the power chip, without USB, fan and HATs".into()
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn pause(&self) -> Duration {
        Duration::from_nanos(PERIOD / 2)
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        Ok(vec![Reading { nanoseconds: now, value: self.ask()? }])
    }

    fn millivolts(&self) -> Option<u64> {
        self.millivolts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_paired_by_name_and_added() {
        let text = " 3V7_WL_SW_A current(0)=0.10000000A\n   VDD_CORE_A current(7)=2.00000000A\n \
                    3V7_WL_SW_V volt(8)=3.70000000V\n   VDD_CORE_V volt(15)=0.80000000V\n     EXT5V_V volt(24)=5.12000000V\n";
        let (watts, input) = total(text).unwrap();
        assert!((watts - (0.37 + 1.6)).abs() < 1e-12);
        assert_eq!(input, Some(5.12));
        for (good, bad) in [
            ("current(7)=2.00000000A", "current(7)=2.00000000mA"),
            ("current(7)=2.00000000A", "current(7)=2000.0A"),
            ("current(7)=2.00000000A", "current(7)=-2.0A"),
            ("current(7)=2.00000000A", "current(7)=nanA"),
            ("volt(15)=0.80000000V", "volt(15)=800.0V"),
            ("VDD_CORE_V", "OTHER_V"),
            ("current(7)", "volt(7)"),
        ] {
            let failure = total(&text.replace(good, bad)).unwrap_err();
            assert_eq!(failure.reason, "MeterFailed", "{bad}");
            assert!(failure.message.contains("VDD_CORE"), "{failure}");
        }
        assert!(total("error=1 error_msg=\"Command not registered\"").unwrap_err().message.contains("not registered"));
    }
}
