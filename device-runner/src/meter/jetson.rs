//! The total power of an NVIDIA Jetson: the rail that feeds the module, never a sum of rails, because rails feed one another.
//!
//! JetPack 5 and later use the kernel's hwmon driver (labels in `inN_label`); JetPack 4 an IIO driver of NVIDIA's with power in
//! milliwatts (`rail_name_N`, `in_powerN_input`). Rails: Jetson Linux Developer Guide, Software-Based Power Consumption Modeling.

use edgeyard_measure::energy::Reading;

use super::hwmon::{self, Hwmon};
use super::{Meter, missing, number, plausible};
use crate::error::Failure;
use crate::machine::Root;

/// What the rail is called on TX2, Xavier NX, Orin Nano and NX; on the Nano; and in documents of the Xavier NX.
const TOTALS: [&str; 3] = ["VDD_IN", "POM_5V_IN", "5V_IN"];
const IIO: &str = "/sys/bus/i2c/drivers/ina3221x";
const PERIOD: u64 = 20_000_000;

/// The rail that feeds the module.
pub fn open(root: &Root) -> Result<Box<dyn Meter>, Failure> {
    let channels = hwmon::channels(root);
    let rails = || channels.iter().filter(|channel| channel.chip == "ina3221");
    let is_total = |label: &str| TOTALS.contains(&label);
    if let Some(total) = rails().find(|channel| channel.label.as_deref().is_some_and(is_total)) {
        return Ok(Box::new(Hwmon::of(root, total, "jetson".into())?));
    }
    let iio = iio_rails(root);
    if let Some((folder, index, label)) = iio.iter().find(|(_, _, label)| is_total(label)) {
        let file = |kind: &str| format!("{folder}/in_{kind}{index}_input");
        let (power, voltage) = (file("power"), file("voltage"));
        return Ok(Box::new(Iio { root: root.clone(), scope: label.clone(), power, voltage, millivolts: None }));
    }
    let names: Vec<String> =
        rails().filter_map(|channel| channel.label.clone()).chain(iio.into_iter().map(|(_, _, label)| label)).collect();
    Err(missing(if names.is_empty() {
        format!("there is no Jetson here: neither {} nor {IIO} has an INA3221", hwmon::FOLDER)
    } else {
        format!(
            "this Jetson has no rail for the whole module, only {}: rails feed one another and are never added. Measure one \
             with hwmon:ina3221/LABEL, or the supply with a meter of its own",
            names.join(", ")
        )
    }))
}

/// Folder, number and name of each rail of JetPack 4.
fn iio_rails(root: &Root) -> Vec<(String, u32, String)> {
    let mut rails = Vec::new();
    for chip in root.list(IIO) {
        for device in root.list(&format!("{IIO}/{chip}")).iter().filter(|name| name.starts_with("iio:device")) {
            let folder = format!("{IIO}/{chip}/{device}");
            for index in 0..3 {
                if let Some(name) = root.read(&format!("{folder}/rail_name_{index}")) {
                    rails.push((folder.clone(), index, name));
                }
            }
        }
    }
    rails
}

struct Iio {
    root: Root,
    scope: String,
    power: String,
    voltage: String,
    millivolts: Option<u64>,
}

impl Meter for Iio {
    fn name(&self) -> String {
        "jetson".into()
    }

    fn scope(&self) -> String {
        self.scope.clone()
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let milliwatts = number(&self.root, &self.power)?;
        let value = plausible(milliwatts as f64 / 1e3, &format!("{} holds {milliwatts}", self.power))?;
        self.millivolts = u64::try_from(number(&self.root, &self.voltage)?).ok();
        Ok(vec![Reading { nanoseconds: now, value }])
    }

    fn millivolts(&self) -> Option<u64> {
        self.millivolts
    }
}
