//! Energy of the variants' windows, from a meter that is read while they run and while the machine idles before and after.
//!
//! The run's policy decides what a meter's failure means: with `Required` it ends the run, with `BestEffort` the energy is
//! unknown for a reason that has a name, with `Disabled` no meter is touched.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use edgeyard_job::spec::EnergyPolicy;
use edgeyard_measure::energy::{Energy as Measured, EnergyError, Quantity, per_inference};
use edgeyard_record::{Energy, Window};

use super::Context;
use crate::error::Failure;
use crate::machine::Root;
use crate::meter::{self, Meter, Recording, Sampler};
use crate::plan::Plan;
use crate::timing::Timing;

/// A plan's meter, or why there is none.
pub struct Metering(Result<State, Why>);

/// Why there is no energy.
type Why = String;

enum State {
    /// Opened, not read yet: it may have been switched on by that, and must not be a second time.
    Open(Box<dyn Meter>),
    /// Being read; when the machine idled.
    Reading(Sampler, (u64, u64)),
}

/// What a meter told of a run.
pub struct Metered {
    told: Result<Told, Why>,
    policy: EnergyPolicy,
}

struct Told {
    recording: Recording,
    idle: [(u64, u64); 2],
}

impl Metering {
    /// Opens the plan's meter, before any variant is loaded.
    ///
    /// # Errors
    /// With `Required`: `MeterMissing`, `MeterFailed` and the like. `UnknownMeter` always: nobody meant that.
    pub fn open(plan: &Plan, root: &Root) -> Result<Self, Failure> {
        let required = plan.energy == EnergyPolicy::Required;
        let opened = match (plan.energy, &plan.meter) {
            (EnergyPolicy::Disabled, _) => Err("Disabled".to_owned()),
            (_, None) if required => {
                return Err(Failure::infrastructure(
                    "MeterMissing",
                    "energy is required, and the device has no meter: name one in its class or device, or ask for BestEffort",
                ));
            }
            (_, None) => Err("NoMeter".to_owned()),
            (_, Some(name)) => match meter::open(name, root) {
                Ok(meter) => Ok(State::Open(meter)),
                Err(failure) if required || failure.reason == "UnknownMeter" => return Err(failure),
                Err(failure) => Err(unknown(&failure)),
            },
        };
        Ok(Self(opened))
    }

    /// Begins to read, and idles for a while.
    ///
    /// # Errors
    /// With `Required`, what the meter fails with; `Cancelled` and the like.
    pub fn start(self, context: &mut Context, timing: &Timing) -> Result<Self, Failure> {
        let State::Open(meter) = (match self.0 {
            Ok(state) => state,
            Err(why) => return Ok(Self(Err(why))),
        }) else {
            return Err(Failure::infrastructure("MeterFailed", "the meter is being read already"));
        };
        match Sampler::start(meter, context.epoch) {
            Ok(sampler) => {
                let idle = idle(context, timing.idle)?;
                Ok(Self(Ok(State::Reading(sampler, idle))))
            }
            Err(failure) if context.plan.energy == EnergyPolicy::Required => Err(failure),
            Err(failure) => Ok(Self(Err(unknown(&failure)))),
        }
    }

    /// Idles again and ends reading.
    ///
    /// # Errors
    /// With `Required`, what the meter failed with; `Cancelled` and the like.
    pub fn finish(self, context: &mut Context, timing: &Timing) -> Result<Metered, Failure> {
        let policy = context.plan.energy;
        let told = match self.0 {
            Ok(State::Reading(sampler, before)) => {
                let after = idle(context, timing.idle)?;
                match sampler.finish() {
                    Ok(recording) => Ok(Told { recording, idle: [before, after] }),
                    Err(failure) if policy == EnergyPolicy::Required => return Err(failure),
                    Err(failure) => Err(unknown(&failure)),
                }
            }
            Ok(State::Open(_)) => Err("NotRead".to_owned()),
            Err(why) => Err(why),
        };
        if policy == EnergyPolicy::Required
            && let Ok(Told { recording: Recording { failure: Some(failure), .. }, .. }) = &told
        {
            return Err(failure.clone());
        }
        Ok(Metered { told, policy })
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
    /// Nothing, for a reason.
    #[cfg(test)]
    pub fn none(why: &str) -> Self {
        Self { told: Err(why.into()), policy: EnergyPolicy::BestEffort }
    }

    /// What the meter told, or why it told nothing.
    pub fn recording(&self) -> Result<&Recording, &str> {
        self.told.as_ref().map(|told| &told.recording).map_err(String::as_str)
    }

    /// The energy of one inference of a variant that had these turns, or why there is none.
    pub fn of_variant(&self, windows: &[Window]) -> Result<Energy, String> {
        let Told { recording, idle } = self.told.as_ref().map_err(Clone::clone)?;
        if let Some(failure) = &recording.failure {
            return Err(failure.reason.clone());
        }
        recording.of_windows(*idle, windows)
    }

    /// With `Required`, fails if a variant with these turns has no energy.
    ///
    /// # Errors
    /// `MeterFailed`, with the reason.
    pub fn demand(&self, label: &str, windows: &[Window]) -> Result<(), Failure> {
        match self.of_variant(windows) {
            Err(why) if self.policy == EnergyPolicy::Required => Err(Failure::infrastructure(
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

    /// Power over time: at most `most` points of nanoseconds and watts, each the mean since the one before.
    pub fn power(&self, most: usize) -> Vec<(u64, f64)> {
        let readings = &self.series.readings;
        let step = readings.len().div_ceil(most.max(1)).max(1);
        match self.series.quantity {
            Quantity::Power => readings
                .chunks(step)
                .map(|chunk| {
                    let mean = chunk.iter().map(|reading| reading.value).sum::<f64>() / chunk.len() as f64;
                    (chunk[chunk.len() - 1].nanoseconds, mean)
                })
                .collect(),
            Quantity::Energy => {
                let ends: Vec<_> = readings.iter().step_by(step).collect();
                ends.windows(2)
                    .filter(|pair| pair[1].nanoseconds > pair[0].nanoseconds)
                    .map(|pair| {
                        let seconds = (pair[1].nanoseconds - pair[0].nanoseconds) as f64 / 1e9;
                        (pair[1].nanoseconds, (pair[1].value - pair[0].value) / seconds)
                    })
                    .collect()
            }
        }
    }
}
