//! Energy of the variants' windows, from a meter that is read while they run and while the machine idles before and after.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use edgeyard_measure::energy::{EnergyError, integrate, per_inference};
use edgeyard_record::{Energy, Window};

use super::Context;
use crate::error::Failure;
use crate::meter::{self, Recording, Sampler};
use crate::timing::Timing;

/// A meter that is being read.
pub struct Metering {
    sampler: Sampler,
    idle: (u64, u64),
}

/// What a meter told of a run.
pub struct Metered {
    recording: Recording,
    idle: [(u64, u64); 2],
}

impl Metering {
    /// Begins to read the plan's meter, if it has one, and idles for a while.
    pub fn start(context: &mut Context, timing: &Timing) -> Result<Option<Self>, Failure> {
        let Some(name) = &context.plan.meter else { return Ok(None) };
        let meter = meter::open(name, &context.root)?;
        let sampler = Sampler::start(meter, context.epoch)?;
        let idle = idle(context, timing.idle)?;
        Ok(Some(Self { sampler, idle }))
    }

    /// Idles again and ends reading.
    pub fn finish(self, context: &mut Context, timing: &Timing) -> Result<Metered, Failure> {
        let after = idle(context, timing.idle)?;
        let recording = self.sampler.finish()?;
        Ok(Metered { recording, idle: [self.idle, after] })
    }
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

impl Metered {
    /// All that the meter told.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// The energy of one inference of a variant, or why there is none.
    pub fn of_variant(&self, windows: &[Window]) -> Result<Energy, &'static str> {
        let Recording { name, scope, period, millivolts, readings, failure } = &self.recording;
        if failure.is_some() {
            return Err("MeterFailed");
        }
        let reason = |error: EnergyError| match error {
            EnergyError::TooFew(_) => "TooFewReadings",
            EnergyError::ClockJumped { .. } => "MeterClockJumped",
            EnergyError::Dropped { .. } => "ReadingsDropped",
            EnergyError::Malformed { .. } => "MeterFailed",
        };
        let between = |(from, to): (u64, u64)| integrate(readings, from, to, *period).map_err(reason);
        let watts = |span| between(span).map(|energy| energy.joules / energy.seconds);
        let idle = (watts(self.idle[0])?, watts(self.idle[1])?);
        let mut sum =
            edgeyard_measure::energy::Energy { joules: 0.0, seconds: 0.0, readings: 0, dropped: 0.0, uncertainty: 0.0 };
        for window in windows {
            let part = between((window.start_nanoseconds, window.end_nanoseconds))?;
            sum.joules += part.joules;
            sum.seconds += part.seconds;
            sum.readings += part.readings;
            sum.uncertainty = sum.uncertainty.hypot(part.uncertainty);
        }
        let count = windows.iter().map(|window| window.count).sum();
        let one = per_inference(&sum, idle, count).ok_or("NoInferences")?;
        let mut unavailable = BTreeMap::new();
        if millivolts.is_none() {
            unavailable.insert("supplyMillivolts".into(), "NotTold".into());
        }
        Ok(Energy {
            meter: name.clone(),
            scope: scope.clone(),
            supply_millivolts: *millivolts,
            gross_nanojoules: (one.gross * 1e9).round().max(0.0) as u64,
            net_nanojoules: (one.net * 1e9).round() as i64,
            uncertainty_nanojoules: (one.uncertainty * 1e9).round() as u64,
            energy_delay_joule_seconds: format!("{:.15}", one.energy_delay),
            idle_microwatts: [idle.0, idle.1].map(|watts| (watts * 1e6).round().max(0.0) as u64).to_vec(),
            readings: sum.readings,
            unavailable,
        })
    }
}
