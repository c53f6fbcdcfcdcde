//! `meters` lists what can measure on this machine; `meter-test` reads a meter for a while, beside a known load.

use std::time::Duration;

use edgeyard_measure::energy::{Quantity, Series};
use serde::Serialize;

use super::{Meter as _, Recording, Sampler, hwmon, jetson, rapl, rpi5};
use crate::cli::{self, Output};
use crate::error::Failure;
use crate::machine::{Root, vcgencmd};
use crate::{agent, clock, table};

/// List the meters of this machine.
#[derive(clap::Args, Debug)]
pub struct MetersArguments {
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Read a meter for a while and say whether it can be trusted; with a known load, whether it is right.
#[derive(clap::Args, Debug)]
pub struct MeterTest {
    /// The meter: rapl, agent:rapl, hwmon:CHIP[/LABEL], jetson, rpi5-pmic, nvml[:INDEX], lpm01a:DEVICE@MILLIVOLTS,
    /// ppk2:DEVICE@MILLIVOLTS, exec:COMMAND or replay:DIR.
    #[arg(long)]
    pub meter: String,
    /// What the load is known to take, in watts.
    #[arg(long, conflicts_with_all = ["resistor_ohms", "volts"])]
    pub watts: Option<f64>,
    /// The load is a resistor of so many ohms.
    #[arg(long, value_name = "OHMS", requires = "volts")]
    pub resistor_ohms: Option<f64>,
    /// At so many volts.
    #[arg(long, requires = "resistor_ohms")]
    pub volts: Option<f64>,
    /// How far the mean may be from the load, in percent of it.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub tolerance: f64,
    /// For how long it is read.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// A meter that was found.
#[derive(Serialize, Debug, PartialEq, Eq)]
struct Found {
    /// As `--meter` takes it.
    meter: String,
    /// What it measures.
    scope: String,
}

/// What a test came to.
#[derive(Serialize, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Report {
    meter: String,
    scope: String,
    supply_millivolts: Option<u64>,
    readings: usize,
    readings_per_second: f64,
    dropped_ratio: f64,
    mean_watts: Option<f64>,
    standard_uncertainty_watts: Option<f64>,
    known_watts: Option<f64>,
    difference_ratio: Option<f64>,
    passed: bool,
    /// Why it did not pass.
    reasons: Vec<String>,
}

/// Lists meters.
///
/// # Errors
/// None at present.
pub fn execute_list(arguments: &MetersArguments) -> Result<(), Failure> {
    let found = found(&Root::default());
    match arguments.output {
        Output::Json => cli::print(&serde_json::to_string_pretty(&found).unwrap_or_default()),
        Output::Table if found.is_empty() => {
            cli::print(
                "no meter was found: see `run --help` for what --meter takes, and the guides in hardware-lab/meters",
            );
        }
        Output::Table => {
            let mut rows = vec![vec!["METER".to_owned(), "SCOPE".to_owned()]];
            rows.extend(found.into_iter().map(|Found { meter, scope }| vec![meter, scope]));
            cli::print(&table::align(&rows));
        }
    }
    Ok(())
}

/// What answers on a machine. Serial analysers are named but not asked: to ask them is to switch a supply.
fn found(root: &Root) -> Vec<Found> {
    let mut found = Vec::new();
    if let Ok(jetson) = jetson::open(root) {
        found.push(Found { meter: "jetson".into(), scope: jetson.scope() });
    }
    for hwmon::Channel { folder, chip, index, label, .. } in hwmon::channels(root) {
        let channel = label.clone().unwrap_or_else(|| format!("channel {index}"));
        let meter = match label {
            Some(label) => format!("hwmon:{chip}/{label}"),
            None => format!("hwmon:{}", folder.rsplit('/').next().unwrap_or(&chip)),
        };
        found.push(Found { meter, scope: format!("{channel} of {chip}") });
    }
    if let Ok(rapl) = rapl::Rapl::here(root) {
        found.push(Found { meter: "rapl".into(), scope: rapl.scope() });
    } else if let Some(Ok(rapl)) = agent::Client::from_environment().map(rapl::Rapl::from_agent) {
        found.push(Found { meter: "agent:rapl".into(), scope: rapl.scope() });
    }
    if vcgencmd::is_here(root)
        && let Ok(pmic) = rpi5::Pmic::open(root)
    {
        found.push(Found { meter: "rpi5-pmic".into(), scope: pmic.scope() });
    }
    for index in 0..16 {
        let Ok(gpu) = super::nvml::Nvml::open(Some(&index.to_string())) else { break };
        found.push(Found { meter: format!("nvml:{index}"), scope: gpu.scope() });
    }
    const SERIAL: &str = "/dev/serial/by-id";
    for name in root.list(SERIAL) {
        // The kit has two interfaces on some firmware; the first is the one that measures.
        let kind = if name.contains("PPK2") && !name.ends_with("if03") {
            "ppk2"
        } else if name.contains("PowerShield") {
            "lpm01a"
        } else {
            continue;
        };
        found.push(Found { meter: format!("{kind}:{SERIAL}/{name}@MILLIVOLTS"), scope: "supply of the board".into() });
    }
    found
}

/// Tests a meter.
///
/// # Errors
/// What the meter fails with; `MeterTestFailed` when it does not pass.
pub fn execute_test(arguments: &MeterTest) -> Result<(), Failure> {
    let MeterTest { meter, watts, resistor_ohms, volts, tolerance, seconds, output } = arguments;
    let known = known_load(*watts, *resistor_ohms, *volts)?;
    if tolerance.is_nan() || *tolerance <= 0.0 {
        return Err(Failure::bad_input(
            "ToleranceMalformed",
            format!("--tolerance {tolerance}: it must be above zero"),
        ));
    }
    let epoch = clock::now();
    let sampler = Sampler::start(super::open(meter, &Root::default())?, epoch)?;
    let from = clock::now() - epoch;
    std::thread::sleep(Duration::from_secs(*seconds));
    let to = clock::now() - epoch;
    let (recording, _) = sampler.finish()?;
    let report = judge(&recording, (from, to), known, *tolerance / 100.0);
    match output {
        Output::Json => cli::print(&serde_json::to_string_pretty(&report).unwrap_or_default()),
        Output::Table => cli::print(&for_people(&report)),
    }
    if report.passed { Ok(()) } else { Err(Failure::infrastructure("MeterTestFailed", report.reasons.join("; "))) }
}

/// The load's power, if it is known: a resistor takes U²/R.
fn known_load(watts: Option<f64>, ohms: Option<f64>, volts: Option<f64>) -> Result<Option<f64>, Failure> {
    let known = watts.or_else(|| ohms.zip(volts).map(|(ohms, volts)| volts * volts / ohms));
    match known {
        Some(watts) if !(watts.is_finite() && watts > 0.0) => Err(Failure::bad_input(
            "LoadMalformed",
            format!("the known load comes to {watts} W: watts, ohms and volts must be above zero"),
        )),
        known => Ok(known),
    }
}

fn judge(recording: &Recording, (from, to): (u64, u64), known: Option<f64>, tolerance: f64) -> Report {
    let Recording { name, scope, millivolts, series, failure } = recording;
    let Series { readings, period, quantity, lost } = series;
    let mut reasons: Vec<String> = failure.iter().map(ToString::to_string).collect();
    let span = readings.last().zip(readings.first()).map_or(0, |(last, first)| last.nanoseconds - first.nanoseconds);
    let energy = series.integrate(from, to).map_err(|error| reasons.push(error.to_string())).ok();
    let mean_watts = energy.as_ref().map(|energy| energy.joules / energy.seconds);
    let difference_ratio = mean_watts.zip(known).map(|(mean, known)| (mean - known) / known);
    if let Some(difference) = difference_ratio.filter(|difference| difference.abs() > tolerance) {
        reasons.push(format!(
            "the mean is {:+.2} % away from the load, more than {:.2} %",
            difference * 100.0,
            tolerance * 100.0
        ));
    }
    let expected = if *period > 0 && *quantity == Quantity::Power { span / period + 1 } else { readings.len() as u64 };
    let missing = expected.saturating_sub(readings.len() as u64) as f64 / expected.max(1) as f64;
    Report {
        meter: name.clone(),
        scope: scope.clone(),
        supply_millivolts: *millivolts,
        readings: readings.len(),
        readings_per_second: if span > 0 { (readings.len() - 1) as f64 * 1e9 / span as f64 } else { 0.0 },
        dropped_ratio: missing.max(*lost),
        mean_watts,
        standard_uncertainty_watts: energy.as_ref().map(|energy| energy.uncertainty / energy.seconds),
        known_watts: known,
        difference_ratio,
        passed: reasons.is_empty(),
        reasons,
    }
}

fn for_people(report: &Report) -> String {
    let number = |value: Option<f64>, unit: &str| value.map_or("unknown".into(), |value| format!("{value:.6} {unit}"));
    let percent = |value: f64| format!("{:.3} %", value * 100.0);
    let mut rows = vec![
        ["meter", &report.meter].map(str::to_owned).to_vec(),
        ["scope", &report.scope].map(str::to_owned).to_vec(),
        vec!["supply".into(), report.supply_millivolts.map_or("unknown".into(), |told| format!("{told} mV"))],
        vec!["readings".into(), format!("{} ({:.1} a second)", report.readings, report.readings_per_second)],
        vec!["dropped".into(), percent(report.dropped_ratio)],
        vec!["mean".into(), number(report.mean_watts, "W")],
        vec!["uncertainty".into(), number(report.standard_uncertainty_watts, "W, without calibration")],
    ];
    if let Some(known) = report.known_watts {
        rows.push(vec!["known load".into(), number(Some(known), "W")]);
        rows.push(vec!["difference".into(), report.difference_ratio.map_or("unknown".into(), percent)]);
    }
    rows.push(vec!["result".into(), if report.passed { "passed".into() } else { "FAILED".into() }]);
    table::align(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeyard_measure::energy::Reading;

    fn recording(watts: f64, keep: impl Fn(u64) -> bool) -> Recording {
        let mut series = Series::new(Quantity::Power, 1_000_000);
        series.readings = (0..=1000)
            .filter(|index| keep(*index))
            .map(|index| Reading { nanoseconds: index * 1_000_000, value: watts })
            .collect();
        Recording { name: "lab".into(), scope: "board".into(), millivolts: Some(5000), series, failure: None }
    }

    #[test]
    fn a_resistor_tells_whether_a_meter_is_right() {
        // 5 V at 10 Ω.
        let known = known_load(None, Some(10.0), Some(5.0)).unwrap();
        assert_eq!(known, Some(2.5));
        let right = judge(&recording(2.45, |_| true), (0, 1_000_000_000), known, 0.05);
        assert!(right.passed && right.reasons.is_empty(), "{right:?}");
        assert!((right.difference_ratio.unwrap() + 0.02).abs() < 1e-9);
        assert!((right.readings_per_second - 1000.0).abs() < 1e-9);
        let wrong = judge(&recording(2.45, |_| true), (0, 1_000_000_000), known, 0.01);
        assert!(!wrong.passed && wrong.reasons[0].contains("-2.00 %"), "{wrong:?}");
        let holes = judge(&recording(2.5, |index| index % 100 != 50), (0, 1_000_000_000), known, 0.05);
        assert!(!holes.passed && holes.reasons[0].contains("missing"), "{holes:?}");
        assert!((holes.dropped_ratio - 10.0 / 1001.0).abs() < 1e-9, "{holes:?}");
        assert_eq!(known_load(None, Some(0.0), Some(5.0)).unwrap_err().reason, "LoadMalformed");
        assert_eq!(known_load(Some(-1.0), None, None).unwrap_err().reason, "LoadMalformed");
        assert_eq!(known_load(None, None, None).unwrap(), None);
    }

    #[test]
    fn meters_of_a_recorded_machine_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (file, text) in
            [("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1200")]
        {
            write(&format!("sys/class/hwmon/hwmon2/{file}"), text);
        }
        write("dev/serial/by-id/usb-Nordic_Semiconductor_PPK2_C0FFEE-if01", "");
        write("dev/serial/by-id/usb-Somebody_Else-if00", "");
        let meters: Vec<String> = found(&Root::new(folder.path())).into_iter().map(|found| found.meter).collect();
        assert_eq!(
            meters,
            [
                "jetson",
                "hwmon:ina3221/VDD_IN",
                "ppk2:/dev/serial/by-id/usb-Nordic_Semiconductor_PPK2_C0FFEE-if01@MILLIVOLTS"
            ]
        );
    }
}
