//! Energy of the variants' windows, from a meter that is read while they run and while the machine idles before and after.
//!
//! The run's policy decides what a meter's failure means: with `Required` it ends the run, with `BestEffort` the energy is
//! unknown for a reason that has a name, with `Disabled` no meter is touched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use edgeyard_job::spec::EnergyPolicy;
use edgeyard_measure::energy::{Energy as Measured, EnergyError, Quantity, Reading, per_inference};
use edgeyard_record::{Energy, Window};

use super::Context;
use crate::error::{Class, Failure};
use crate::machine::Root;
use crate::meter::{self, Meter, Recording, Sampler};
use crate::plan::Plan;
use crate::timing::Timing;

/// A plan's meter. It stays open from one round to the next: opening one may switch a supply.
pub struct Metering(State);

/// Why there is no energy.
type Why = String;

enum State {
    /// Not being read.
    Idle(Box<dyn Meter>),
    /// Being read; when the machine idled.
    Reading(Sampler, (u64, u64)),
    /// It does not work.
    Failed(Why),
}

/// What a meter told of a run.
pub struct Metered(Result<Told, Why>);

struct Told {
    recording: Recording,
    idle: [(u64, u64); 2],
}

impl Metering {
    /// Opens the plan's meter, before any variant is loaded, or says why there is none.
    ///
    /// # Errors
    /// With `Required`: `MeterMissing`, `MeterFailed` and the like, or `EnergyUnavailable` on an emulated device. A meter
    /// that is named wrongly always: nobody meant that.
    pub fn open(plan: &Plan, clock_is_emulated: bool, root: &Root) -> Result<Result<Self, Why>, Failure> {
        let required = plan.energy == EnergyPolicy::Required;
        match &plan.meter {
            _ if plan.energy == EnergyPolicy::Disabled => Ok(Err("Disabled".into())),
            _ if clock_is_emulated && required => Err(Failure::bad_input(
                "EnergyUnavailable",
                "energy is required, and an emulated device has none to measure: choose a real device, or BestEffort",
            )),
            _ if clock_is_emulated => Ok(Err("EmulatedClock".into())),
            None if required => Err(Failure::bad_input(
                "MeterMissing",
                "energy is required, and the device names no meter: choose a device with one, or BestEffort",
            )),
            None => Ok(Err("NoMeter".into())),
            Some(name) => match meter::open(name, root) {
                Ok(meter) => Ok(Ok(Self(State::Idle(meter)))),
                Err(failure) if required || failure.class == Class::BadInput => Err(failure),
                Err(failure) => Ok(Err(unknown(&failure))),
            },
        }
    }

    /// Begins to read, and idles for a while.
    ///
    /// # Errors
    /// With `Required`, what the meter fails with; `Cancelled` and the like.
    pub fn start(&mut self, context: &mut Context, timing: &Timing) -> Result<(), Failure> {
        let next = match std::mem::replace(&mut self.0, State::Failed("MeterFailed".into())) {
            State::Idle(meter) => match Sampler::start(meter, context.epoch) {
                Ok(sampler) => State::Reading(sampler, idle(context, timing.idle)?),
                Err(failure) if context.plan.energy == EnergyPolicy::Required => return Err(failure),
                Err(failure) => State::Failed(unknown(&failure)),
            },
            other => other,
        };
        self.0 = next;
        Ok(())
    }

    /// Idles again and ends reading.
    ///
    /// # Errors
    /// With `Required`, what the meter failed with; `Cancelled` and the like.
    pub fn finish(&mut self, context: &mut Context, timing: &Timing) -> Result<Metered, Failure> {
        let required = context.plan.energy == EnergyPolicy::Required;
        match std::mem::replace(&mut self.0, State::Failed("MeterFailed".into())) {
            State::Reading(sampler, before) => {
                let after = idle(context, timing.idle)?;
                let (recording, meter) = match sampler.finish() {
                    Ok(ended) => ended,
                    Err(failure) if required => return Err(failure),
                    Err(failure) => return Ok(Metered(Err(unknown(&failure)))),
                };
                match &recording.failure {
                    Some(failure) if required => return Err(failure.clone()),
                    Some(failure) => self.0 = State::Failed(unknown(failure)),
                    None => self.0 = State::Idle(meter),
                }
                Ok(Metered(Ok(Told { recording, idle: [before, after] })))
            }
            State::Failed(why) => {
                self.0 = State::Failed(why.clone());
                Ok(Metered(Err(why)))
            }
            idle @ State::Idle(_) => {
                self.0 = idle;
                Ok(Metered(Err("NotRead".into())))
            }
        }
    }
}

/// Why energy is unknown, where it may be; the log has the whole story.
fn unknown(failure: &Failure) -> Why {
    tracing::warn!(reason = failure.reason, "energy is unknown: {failure}");
    failure.reason.clone()
}

/// Does nothing for a while, and says from when to when.
fn idle(context: &mut Context, length: Duration) -> Result<(u64, u64), Failure> {
    context.step("Idle", "", 0);
    let start = context.now();
    let end = Instant::now() + length;
    while Instant::now() < end {
        context.watch.check()?;
        std::thread::sleep(Duration::from_millis(10).min(length));
    }
    context.phase("Idle", None, start);
    Ok((start, context.now()))
}

const fn reason(error: &EnergyError) -> &'static str {
    match error {
        EnergyError::TooFew(_) => "TooFewReadings",
        EnergyError::ClockJumped { .. } => "MeterClockJumped",
        EnergyError::Gap { .. } => "MeterSilent",
        EnergyError::Dropped { .. } => "ReadingsDropped",
        EnergyError::Malformed { .. } => "MeterFailed",
    }
}

impl Metered {
    /// All that the meter told, also when it failed later; nothing if it failed at the start.
    pub fn recording(&self) -> Option<&Recording> {
        self.0.as_ref().ok().map(|told| &told.recording)
    }

    /// Why it told nothing at all.
    pub fn failure(&self) -> Option<&str> {
        self.0.as_ref().err().map(String::as_str)
    }

    /// The energy of one inference of a variant that had these turns, or why there is none.
    pub fn of_variant(&self, windows: &[Window]) -> Result<Energy, String> {
        let Told { recording, idle } = self.0.as_ref().map_err(Clone::clone)?;
        if let Some(failure) = &recording.failure {
            return Err(failure.reason.clone());
        }
        recording.of_windows(*idle, windows)
    }

    /// With `Required`, fails if a variant with these turns has no energy.
    ///
    /// # Errors
    /// `MeterFailed`, with the reason.
    pub fn demand(&self, policy: EnergyPolicy, label: &str, windows: &[Window]) -> Result<(), Failure> {
        match self.of_variant(windows) {
            Err(why) if policy == EnergyPolicy::Required => Err(Failure::infrastructure(
                "MeterFailed",
                format!("energy is required, and that of {label} cannot be told: {why}"),
            )),
            _ => Ok(()),
        }
    }
}

impl Recording {
    fn of_windows(&self, idle: [(u64, u64); 2], windows: &[Window]) -> Result<Energy, String> {
        let Self { name, scope, millivolts, series, failure: _ } = self;
        let between = |(from, to): (u64, u64)| {
            series.integrate(from, to).map_err(|error| {
                tracing::warn!(from, to, "energy is unknown: {error}");
                reason(&error).to_owned()
            })
        };
        let idle = [between(idle[0])?, between(idle[1])?];
        let mut sum = Measured { joules: 0.0, seconds: 0.0, readings: 0, dropped: 0.0, uncertainty: 0.0 };
        for window in windows {
            let part = between((window.start_nanoseconds, window.end_nanoseconds))?;
            sum.joules += part.joules;
            sum.seconds += part.seconds;
            sum.readings += part.readings;
            sum.uncertainty = sum.uncertainty.hypot(part.uncertainty);
        }
        let count = windows.iter().map(|window| window.count).sum();
        let one = per_inference(&sum, [&idle[0], &idle[1]], count).ok_or("NoInferences")?;
        let mut unavailable = BTreeMap::new();
        if millivolts.is_none() {
            unavailable.insert("supplyMillivolts".into(), "NotTold".into());
        }
        let idle_microwatts =
            idle.iter().map(|idle| (idle.joules / idle.seconds * 1e6).round().max(0.0) as u64).collect();
        Ok(Energy {
            meter: name.clone(),
            scope: scope.clone(),
            supply_millivolts: *millivolts,
            gross_nanojoules: (one.gross * 1e9).round().max(0.0) as u64,
            net_nanojoules: (one.net * 1e9).round() as i64,
            uncertainty_nanojoules: (one.uncertainty * 1e9).round() as u64,
            energy_delay_joule_seconds: format!("{:.15}", one.energy_delay),
            idle_microwatts,
            readings: sum.readings,
            unavailable,
        })
    }

    /// Power over time: nanoseconds and watts. Of a counter, the mean since the reading before. What a clock that jumped
    /// back stamped is left out.
    pub fn power(&self) -> Vec<(u64, f64)> {
        let readings = &self.series.readings;
        let mut last = None;
        let mut points = Vec::with_capacity(readings.len());
        for reading in readings {
            if last.is_some_and(|last: Reading| last.nanoseconds >= reading.nanoseconds) {
                continue;
            }
            match (self.series.quantity, last) {
                (Quantity::Power, _) => points.push((reading.nanoseconds, reading.value)),
                (Quantity::Energy, None) => (),
                (Quantity::Energy, Some(last)) => {
                    let seconds = (reading.nanoseconds - last.nanoseconds) as f64 / 1e9;
                    points.push((reading.nanoseconds, (reading.value - last.value) / seconds));
                }
            }
            last = Some(*reading);
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;
    use edgeyard_measure::energy::Series;

    const MS: u64 = 1_000_000;

    /// One watt for a second, three for two, one for a second.
    fn recording(quantity: Quantity) -> Recording {
        let mut series = Series::new(quantity, MS);
        let mut joules = 0.0;
        for index in 0..=4000 {
            let watts = if (1000..3000).contains(&index) { 3.0 } else { 1.0 };
            let value = if quantity == Quantity::Power { watts } else { joules };
            series.readings.push(Reading { nanoseconds: index * MS, value });
            joules += watts / 1e3;
        }
        Recording { name: "lab".into(), scope: "board".into(), millivolts: Some(5000), series, failure: None }
    }

    fn turns() -> Vec<Window> {
        let window = |start: u64, end: u64| Window {
            start_nanoseconds: start * MS,
            end_nanoseconds: end * MS,
            count: 50,
            median_nanoseconds: 10 * MS,
        };
        vec![window(1100, 1600), window(2100, 2600)]
    }

    fn metered(recording: Recording) -> Metered {
        Metered(Ok(Told { recording, idle: [(100 * MS, 900 * MS), (3100 * MS, 3900 * MS)] }))
    }

    #[test]
    fn a_variant_has_the_energy_of_its_turns_without_idling() {
        for quantity in [Quantity::Power, Quantity::Energy] {
            let energy = metered(recording(quantity)).of_variant(&turns()).unwrap();
            // A second of 3 W and of 2 W above idling, for 100 inferences of 10 ms.
            assert_eq!(energy.gross_nanojoules, 30_000_000, "{quantity:?}");
            assert_eq!((energy.net_nanojoules, energy.uncertainty_nanojoules), (20_000_000, 0), "{quantity:?}");
            assert_eq!(energy.energy_delay_joule_seconds.parse::<f64>().unwrap(), 0.0002);
            assert_eq!(energy.idle_microwatts, [1_000_000, 1_000_000]);
        }
    }

    #[test]
    fn a_plot_shows_power_also_of_a_counter() {
        for quantity in [Quantity::Power, Quantity::Energy] {
            let power = recording(quantity).power();
            let at = |time: u64| power.iter().find(|(at, _)| *at == time * MS).unwrap().1;
            assert!((at(500) - 1.0).abs() < 1e-6 && (at(2000) - 3.0).abs() < 1e-6, "{quantity:?}");
        }
        let mut jumped = recording(Quantity::Power);
        jumped.series.readings[700].nanoseconds = 3 * MS;
        assert!(jumped.power().windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn every_fault_has_a_name_and_required_makes_it_a_failure() {
        type Fault = (&'static str, fn(&mut Recording));
        let faults: [Fault; 6] = [
            ("MeterSilent", |told| drop(told.series.readings.drain(1200..1300))),
            ("ReadingsDropped", |told| drop(told.series.readings.drain(1200..1204))),
            ("ReadingsDropped", |told| told.series.lost = 0.01),
            ("MeterClockJumped", |told| told.series.readings[1200].nanoseconds = 5),
            ("MeterFailed", |told| told.series.readings[1200].value = f64::NAN),
            ("MeterFailed", |told| told.failure = Some(Failure::infrastructure("MeterFailed", "unplugged"))),
        ];
        for (reason, fault) in faults {
            let mut told = recording(Quantity::Power);
            fault(&mut told);
            let metered = metered(told);
            assert_eq!(metered.of_variant(&turns()).unwrap_err(), reason);
            assert!(metered.recording().is_some_and(|kept| kept.power().len() > 3800), "the data are kept");
            let failure = metered.demand(EnergyPolicy::Required, "m/a", &turns()).unwrap_err();
            assert!(failure.reason == "MeterFailed" && failure.message.contains(reason), "{failure}");
            assert_eq!(metered.demand(EnergyPolicy::BestEffort, "m/a", &turns()), Ok(()));
        }
        let nothing = Metered(Err("MeterMissing".into()));
        assert_eq!(nothing.of_variant(&turns()).unwrap_err(), "MeterMissing");
        assert!(nothing.recording().is_none());
        // A meter that ended before the machine idled again.
        let mut short = recording(Quantity::Power);
        short.series.readings.truncate(3500);
        assert_eq!(metered(short).of_variant(&turns()).unwrap_err(), "MeterSilent");
    }
}
