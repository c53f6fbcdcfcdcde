//! Energy from what meters tell: readings of power at the sensor's own time stamps, or of a counter that wraps round.

/// A reading of power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The sensor's time stamp in nanoseconds.
    pub nanoseconds: u64,
    /// Power in watts.
    pub watts: f64,
}

/// The energy of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// Joules.
    pub joules: f64,
    /// Seconds between the first and the last reading that counted.
    pub seconds: f64,
    /// Readings that counted.
    pub readings: u64,
    /// Share of the expected readings that did not come.
    pub dropped: f64,
    /// Standard uncertainty from the readings' scatter, in joules.
    pub uncertainty: f64,
}

/// Why readings make no energy.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum EnergyError {
    /// Fewer than two in the interval.
    #[error("the meter gave {0} readings in the interval: at least two are needed")]
    TooFew(usize),
    /// Time stamps go back or stand still.
    #[error("the meter's time stamps do not grow: {before} ns is followed by {after} ns")]
    ClockJumped {
        /// A time stamp.
        before: u64,
        /// The one after it.
        after: u64,
    },
    /// More than one in a thousand is missing.
    #[error("{:.2} % of the meter's readings are missing, more than 0.1 %", dropped * 100.0)]
    Dropped {
        /// The share.
        dropped: f64,
    },
    /// Not a power.
    #[error("the meter read {watts} W, which is no power")]
    Malformed {
        /// What it read.
        watts: f64,
    },
}

/// More than this share of readings missing invalidates (MLPerf Tiny's rules for energy).
pub const MOST_DROPPED: f64 = 0.001;

/// Integrates power over the interval from `from` to `to` nanoseconds, by trapezoids, with the ends interpolated.
///
/// `period` is the nominal time between readings in nanoseconds: a gap of more than one and a half of it counts what is
/// missing in it as dropped.
///
/// # Errors
/// [`EnergyError`]: what cannot be trusted is not integrated.
pub fn integrate(readings: &[Reading], from: u64, to: u64, period: u64) -> Result<Energy, EnergyError> {
    for pair in readings.windows(2) {
        if pair[1].nanoseconds <= pair[0].nanoseconds {
            return Err(EnergyError::ClockJumped { before: pair[0].nanoseconds, after: pair[1].nanoseconds });
        }
    }
    if let Some(odd) = readings.iter().find(|reading| !reading.watts.is_finite()) {
        return Err(EnergyError::Malformed { watts: odd.watts });
    }
    // One reading outside on each side lets the ends be interpolated.
    let first = readings.partition_point(|reading| reading.nanoseconds <= from).saturating_sub(1);
    let last = (readings.partition_point(|reading| reading.nanoseconds < to) + 1).min(readings.len());
    let used = &readings[first.min(last)..last];
    if used.len() < 2 {
        return Err(EnergyError::TooFew(used.len()));
    }
    let (mut joules, mut seconds, mut missing, mut scatter) = (0.0, 0.0, 0.0, 0.0);
    for pair in used.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let gap = (b.nanoseconds - a.nanoseconds) as f64;
        if period > 0 && gap > 1.5 * period as f64 {
            missing += (gap / period as f64).round() - 1.0;
        }
        let at = |time: u64| a.watts + (b.watts - a.watts) * (time - a.nanoseconds) as f64 / gap;
        let (start, end) = (from.max(a.nanoseconds), to.min(b.nanoseconds));
        if end > start {
            let length = (end - start) as f64 / 1e9;
            joules += f64::midpoint(at(start), at(end)) * length;
            seconds += length;
            scatter += ((b.watts - a.watts) * length).powi(2) / 2.0;
        }
    }
    let dropped = missing / (missing + used.len() as f64);
    if dropped > MOST_DROPPED {
        return Err(EnergyError::Dropped { dropped });
    }
    Ok(Energy { joules, seconds, readings: used.len() as u64, dropped, uncertainty: scatter.sqrt() })
}

/// What a counter that starts again at 0 after `limit` has counted from one reading to the next. It must be read more often
/// than it wraps.
pub const fn wrapped(before: u64, after: u64, limit: u64) -> u64 {
    if after >= before { after - before } else { limit - before + after + 1 }
}

/// Gross and net energy of one inference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PerInference {
    /// Of all that happened, in joules.
    pub gross: f64,
    /// Without what idling takes, in joules.
    pub net: f64,
    /// Standard uncertainty of the net, in joules.
    pub uncertainty: f64,
    /// Net energy times latency, in joule seconds.
    pub energy_delay: f64,
}

/// Splits measured energy into that of one inference, net of the idle power measured before and after. The two idle powers
/// bound what idling took, so half their difference is an uncertainty too. `None` without inferences.
pub fn per_inference(measured: &Energy, idle: (f64, f64), inferences: u64) -> Option<PerInference> {
    if inferences == 0 {
        return None;
    }
    let n = inferences as f64;
    let idle_watts = f64::midpoint(idle.0, idle.1);
    let net = (measured.joules - idle_watts * measured.seconds) / n;
    let drift = (idle.0 - idle.1).abs() / 2.0 * measured.seconds;
    Some(PerInference {
        gross: measured.joules / n,
        net,
        uncertainty: measured.uncertainty.hypot(drift) / n,
        energy_delay: net * measured.seconds / n,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const MS: u64 = 1_000_000;

    /// One second at 1 kHz, with jittered time stamps.
    fn sampled(power: impl Fn(f64) -> f64, jitter: u64) -> Vec<Reading> {
        let mut random = Random::new(5);
        (0..=1100)
            .map(|index| {
                let nanoseconds = index * MS + if jitter > 0 { random.below(jitter as usize) as u64 } else { 0 };
                Reading { nanoseconds, watts: power(nanoseconds as f64 / 1e9) }
            })
            .collect()
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-3 * wanted, "{found} is not {wanted}");
    }

    #[test]
    fn closed_forms_are_met_to_a_tenth_of_a_per_cent() {
        let second = 1000 * MS;
        near(integrate(&sampled(|_| 2.5, 0), 0, second, MS).unwrap().joules, 2.5);
        near(integrate(&sampled(|t| 1.0 + 4.0 * t, 300_000), 100_000_000, 600_000_000, MS).unwrap().joules, 0.5 + 0.7);
        let sine = integrate(&sampled(|t| 3.0 + (t * 50.0 * std::f64::consts::TAU).sin(), 300_000), 0, second, MS);
        near(sine.unwrap().joules, 3.0);
        near(integrate(&sampled(|_| 2.0, 0), 333_333, second, MS).unwrap().seconds, 1.0 - 333_333e-9);
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let mut readings = sampled(|_| 1.0, 0);
        readings.drain(500..503);
        assert!(
            matches!(integrate(&readings, 0, 1000 * MS, MS), Err(EnergyError::Dropped { dropped }) if dropped > 0.002)
        );
        let mut back = sampled(|_| 1.0, 0);
        back[10].nanoseconds = 3;
        assert!(matches!(integrate(&back, 0, 1000 * MS, MS), Err(EnergyError::ClockJumped { .. })));
        let mut odd = sampled(|_| 1.0, 0);
        odd[7].watts = f64::NAN;
        assert!(matches!(integrate(&odd, 0, 1000 * MS, MS), Err(EnergyError::Malformed { .. })));
        assert_eq!(integrate(&[], 0, 1, MS), Err(EnergyError::TooFew(0)));
    }

    #[test]
    fn a_counter_wraps_round() {
        assert_eq!(wrapped(10, 25, 99), 15);
        assert_eq!(wrapped(95, 4, 99), 9);
    }

    #[test]
    fn idling_is_taken_off() {
        let measured = Energy { joules: 10.0, seconds: 2.0, readings: 2000, dropped: 0.0, uncertainty: 0.0 };
        let found = per_inference(&measured, (1.9, 2.1), 1000).unwrap();
        near(found.gross, 0.01);
        near(found.net, 0.006);
        near(found.uncertainty, 0.0002);
        near(found.energy_delay, 0.006 * 0.002);
        assert_eq!(per_inference(&measured, (1.0, 1.0), 0), None);
    }
}
