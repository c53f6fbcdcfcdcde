//! Energy from what meters tell: readings of power, or of a counter of energy, at the sensor's own time stamps.
//!
//! Power is integrated by trapezoids; of a counter the difference is taken. What has gaps, lost readings, a clock that jumps
//! or numbers that are none is refused, never mended.

/// A reading of a meter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The sensor's time stamp in nanoseconds.
    pub nanoseconds: u64,
    /// Watts, or joules since the first reading: see [`Quantity`].
    pub value: f64,
}

/// What a meter tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Power in watts.
    Power,
    /// Energy in joules since the first reading, unwrapped: it never falls.
    Energy,
}

/// Readings of one meter, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What the values are.
    pub quantity: Quantity,
    /// Nominal time between readings in nanoseconds; 0: not known, then nothing counts as missing.
    pub period: u64,
    /// The readings.
    pub readings: Vec<Reading>,
    /// Share of samples that the meter itself says were lost (by its sequence numbers).
    pub lost: f64,
}

/// The energy of an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// Joules.
    pub joules: f64,
    /// Seconds of the interval that readings cover.
    pub seconds: f64,
    /// Readings that counted.
    pub readings: u64,
    /// Share of the expected readings that did not come.
    pub dropped: f64,
    /// Standard uncertainty of `joules` from what happened between readings, in joules. The meter's calibration is not in it.
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
    /// Nothing for many periods, or not until the interval's end.
    #[error("the meter told nothing for {nanoseconds} ns, more than {most} ns")]
    Gap {
        /// How long.
        nanoseconds: u64,
        /// How long is allowed.
        most: u64,
    },
    /// More than one in a thousand is missing.
    #[error("{:.2} % of the meter's readings are missing, more than 0.1 %", dropped * 100.0)]
    Dropped {
        /// The share.
        dropped: f64,
    },
    /// Not a power, or a counter that fell.
    #[error("the meter read {value}, which is no power, or less energy than before")]
    Malformed {
        /// What it read.
        value: f64,
    },
}

/// More than this share of readings missing invalidates.
pub const MOST_DROPPED: f64 = 0.001;
/// A silence of power readings that is longer than so many periods invalidates, however few readings it costs.
pub const MOST_PERIODS: u64 = 10;

impl Series {
    /// A series without readings.
    pub const fn new(quantity: Quantity, period: u64) -> Self {
        Self { quantity, period, readings: Vec::new(), lost: 0.0 }
    }

    /// The energy of the interval from `from` to `to` nanoseconds.
    ///
    /// Power: `E = Σ ½·(pᵢ + pᵢ₊₁)·(tᵢ₊₁ − tᵢ)` (trapezoidal rule), the ends interpolated. A gap of more than one and a half
    /// periods counts what is missing in it as dropped. Counter: the difference of the two ends, interpolated. A late look at
    /// a counter loses nothing, so nothing is counted as dropped.
    ///
    /// Uncertainty: what is between two readings lies between the two values, all equally likely (JCGM 100:2008, 4.3.7:
    /// `u = width / √12`): of power in each panel, `|pᵢ₊₁ − pᵢ|·Δt / √12`, summed in quadrature; of a counter only at the two
    /// ends, `(Eᵢ₊₁ − Eᵢ) / √12` each.
    ///
    /// # Errors
    /// [`EnergyError`]: what cannot be trusted is not integrated.
    pub fn integrate(&self, from: u64, to: u64) -> Result<Energy, EnergyError> {
        let Self { quantity, period, readings, lost } = self;
        for pair in readings.windows(2) {
            if pair[1].nanoseconds <= pair[0].nanoseconds {
                return Err(EnergyError::ClockJumped { before: pair[0].nanoseconds, after: pair[1].nanoseconds });
            }
            if *quantity == Quantity::Energy && pair[1].value < pair[0].value {
                return Err(EnergyError::Malformed { value: pair[1].value });
            }
        }
        if let Some(odd) = readings.iter().find(|reading| !reading.value.is_finite()) {
            return Err(EnergyError::Malformed { value: odd.value });
        }
        if *lost > MOST_DROPPED {
            return Err(EnergyError::Dropped { dropped: *lost });
        }
        // One reading outside on each side lets the ends be interpolated.
        let first = readings.partition_point(|reading| reading.nanoseconds <= from).saturating_sub(1);
        let last = (readings.partition_point(|reading| reading.nanoseconds < to) + 1).min(readings.len());
        let used = &readings[first.min(last)..last];
        let [begin, .., end] = used else { return Err(EnergyError::TooFew(used.len())) };
        if *period > 0 {
            // Readings that begin after the interval, or end before it, are a silence too.
            let most = period * MOST_PERIODS;
            let outside = begin.nanoseconds.saturating_sub(from).max(to.saturating_sub(end.nanoseconds));
            let inside = used.windows(2).map(|pair| pair[1].nanoseconds - pair[0].nanoseconds).max().unwrap_or(0);
            let silence = if *quantity == Quantity::Power { outside.max(inside) } else { outside };
            if silence > most {
                return Err(EnergyError::Gap { nanoseconds: silence, most });
            }
        }
        match quantity {
            Quantity::Power => of_power(used, from, to, *period),
            Quantity::Energy => Ok(of_counter(used, from, to)),
        }
    }
}

fn of_power(used: &[Reading], from: u64, to: u64, period: u64) -> Result<Energy, EnergyError> {
    let (mut joules, mut seconds, mut missing, mut variance) = (0.0, 0.0, 0.0, 0.0);
    for pair in used.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let gap = (b.nanoseconds - a.nanoseconds) as f64;
        if period > 0 && gap > 1.5 * period as f64 {
            missing += (gap / period as f64).round() - 1.0;
        }
        let (start, end) = (from.max(a.nanoseconds), to.min(b.nanoseconds));
        if end > start {
            let length = (end - start) as f64 / 1e9;
            joules += f64::midpoint(between(a, b, start), between(a, b, end)) * length;
            seconds += length;
            variance += ((b.value - a.value) * length).powi(2) / 12.0;
        }
    }
    let dropped = missing / (missing + used.len() as f64);
    if dropped > MOST_DROPPED {
        return Err(EnergyError::Dropped { dropped });
    }
    Ok(Energy { joules, seconds, readings: used.len() as u64, dropped, uncertainty: variance.sqrt() })
}

fn of_counter(used: &[Reading], from: u64, to: u64) -> Energy {
    let (first, last) = (used[0], used[used.len() - 1]);
    let (start, end) = (from.max(first.nanoseconds), to.min(last.nanoseconds));
    // The pair of readings around a time, for the ends.
    let around = |time: u64| {
        let after = used.partition_point(|reading| reading.nanoseconds < time).clamp(1, used.len() - 1);
        (used[after - 1], used[after])
    };
    let value = |time: u64| {
        let (a, b) = around(time);
        between(a, b, time)
    };
    // An end that falls on a reading is known.
    let variance = |time: u64| {
        let (a, b) = around(time);
        let known = time == a.nanoseconds || time == b.nanoseconds;
        if known { 0.0 } else { (b.value - a.value).powi(2) / 12.0 }
    };
    Energy {
        joules: value(end) - value(start),
        seconds: end.saturating_sub(start) as f64 / 1e9,
        readings: used.len() as u64,
        dropped: 0.0,
        uncertainty: (variance(start) + variance(end)).sqrt(),
    }
}

/// The value at a time between two readings, on the line through them.
fn between(a: Reading, b: Reading, time: u64) -> f64 {
    a.value + (b.value - a.value) * (time - a.nanoseconds) as f64 / (b.nanoseconds - a.nanoseconds) as f64
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
    /// Without what idling takes, in joules; below zero if idling took more.
    pub net: f64,
    /// Standard uncertainty of the net, in joules.
    pub uncertainty: f64,
    /// Energy-delay product: net energy times the time of an inference, in joule seconds (Gonzalez and Horowitz 1996).
    pub energy_delay: f64,
    /// Power of the idle machine: the mean of before and after, in watts.
    pub idle_watts: f64,
}

/// Splits measured energy into that of one inference, net of the idle power `p = (p₁ + p₂) / 2` measured before and after:
///
/// `net = (E − p·T) / n`, `u(net)² = (u(E)² + T²·u(p)²) / n²`, `u(p)² = (u(p₁)² + u(p₂)²) / 4 + (p₁ − p₂)² / 12`.
///
/// The last term is for a baseline that moved: it was somewhere between the two, all equally likely (JCGM 100:2008, 4.3.7
/// and 5.1.2). `None` without inferences or without time.
pub fn per_inference(measured: &Energy, idle: [&Energy; 2], inferences: u64) -> Option<PerInference> {
    if inferences == 0 || measured.seconds <= 0.0 || idle.iter().any(|idle| idle.seconds <= 0.0) {
        return None;
    }
    let n = inferences as f64;
    let [before, after] = idle.map(|idle| idle.joules / idle.seconds);
    let [u_before, u_after] = idle.map(|idle| idle.uncertainty / idle.seconds);
    let idle_watts = f64::midpoint(before, after);
    let idle_variance = (u_before.powi(2) + u_after.powi(2)) / 4.0 + (before - after).powi(2) / 12.0;
    let net = (measured.joules - idle_watts * measured.seconds) / n;
    Some(PerInference {
        gross: measured.joules / n,
        net,
        uncertainty: (measured.uncertainty.powi(2) + measured.seconds.powi(2) * idle_variance).sqrt() / n,
        energy_delay: net * measured.seconds / n,
        idle_watts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;
    use std::f64::consts::TAU;

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MS;

    /// 2.1 seconds at 1 kHz from −50 ms on (time 0 is at 50 ms), with jittered time stamps.
    fn sampled(power: impl Fn(f64) -> f64, jitter: u64) -> Series {
        let mut random = Random::new(5);
        let mut series = Series::new(Quantity::Power, MS);
        series.readings = (0..=2100)
            .map(|index| {
                let nanoseconds = index * MS + if jitter > 0 { random.below(jitter as usize) as u64 } else { 0 };
                Reading { nanoseconds, value: power(nanoseconds as f64 / 1e9 - 0.05) }
            })
            .collect();
        series
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-3 * wanted, "{found} is not {wanted}");
    }

    /// From 0 to `to` seconds of the waveform.
    fn energy(series: &Series, from: f64, to: f64) -> f64 {
        let at = |time: f64| ((time + 0.05) * 1e9) as u64;
        series.integrate(at(from), at(to)).unwrap().joules
    }

    #[test]
    fn closed_forms_are_met_to_a_tenth_of_a_per_cent() {
        for jitter in [0, 100_000, 400_000] {
            near(energy(&sampled(|_| 2.5, jitter), 0.0, 1.0), 2.5);
            // ∫ (1 + 4t) dt from 0.1 to 1.6: 1.5 + 2·(2.56 − 0.01).
            near(energy(&sampled(|t| 1.0 + 4.0 * t, jitter), 0.1, 1.6), 6.6);
            // Whole periods of 50 Hz, and a quarter of a period more: 3·t + (1 − cos) / ω.
            let sine = sampled(|t| 3.0 + (t * 50.0 * TAU).sin(), jitter);
            near(energy(&sine, 0.0, 1.0), 3.0);
            near(energy(&sine, 0.0, 1.005), 3.015 + 1.0 / (50.0 * TAU));
            // Bursts of 50 ms out of every 100: the positive half of a sine.
            let bursts = sampled(|t| 0.5 + (t * 10.0 * TAU).sin().max(0.0), jitter);
            near(energy(&bursts, 0.0, 2.0), 1.0 + 2.0 / std::f64::consts::PI);
        }
    }

    #[test]
    fn a_lost_reading_in_a_thousand_is_borne_and_still_met() {
        let mut sine = sampled(|t| 3.0 + (t * 50.0 * TAU).sin(), 100_000);
        sine.readings.remove(777);
        let found = sine.integrate(50 * MS, 2050 * MS).unwrap();
        near(found.joules, 6.0);
        near(found.dropped, 1.0 / 2001.0);
    }

    #[test]
    fn a_counter_is_met_through_its_wraps() {
        // 7.3 W counted in microjoules by a counter of a million: it wraps seven times a second.
        let limit = 999_999;
        let count = |time: u64| (7.3 * time as f64 / 1e3).floor() as u64;
        let mut random = Random::new(9);
        let mut series = Series::new(Quantity::Energy, 10 * MS);
        let (mut total, mut before) = (0, 0);
        for index in 0..=200 {
            let time = index * 10 * MS + random.below(3_000_000) as u64;
            let told = count(time) % (limit + 1);
            total += if index == 0 { 0 } else { wrapped(before, told, limit) };
            before = told;
            series.readings.push(Reading { nanoseconds: time, value: total as f64 / 1e6 });
        }
        let found = series.integrate(123_456_789, 1_923_456_789).unwrap();
        near(found.joules, 7.3 * 1.8);
        near(found.seconds, 1.8);
        // Two ends, each somewhere in about 10 ms of 7.3 W.
        assert!((0.02..0.06).contains(&found.uncertainty), "{found:?}");
        // Half of the looks: a counter loses nothing by that.
        let mut index = 0;
        series.readings.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        near(series.integrate(123_456_789, 1_923_456_789).unwrap().joules, 7.3 * 1.8);
        series.readings[40].value = 0.0;
        assert!(matches!(series.integrate(SECOND, SECOND * 2), Err(EnergyError::Malformed { .. })));
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let steady = || sampled(|_| 1.0, 0);
        let mut drops = steady();
        drops.readings.drain(500..503);
        assert!(
            matches!(drops.integrate(0, 1000 * MS), Err(EnergyError::Dropped { dropped }) if dropped > 0.002),
            "{:?}",
            drops.integrate(0, 1000 * MS)
        );
        let mut gap = steady();
        gap.readings.drain(500..511);
        assert_eq!(gap.integrate(0, 2000 * MS), Err(EnergyError::Gap { nanoseconds: 12 * MS, most: 10 * MS }));
        // The meter fell silent before the end, or spoke too late.
        let short = steady();
        assert!(
            matches!(short.integrate(0, 2111 * MS), Err(EnergyError::Gap { nanoseconds, .. }) if nanoseconds == 11 * MS)
        );
        let mut late = steady();
        late.readings.drain(..100);
        assert!(matches!(late.integrate(0, SECOND), Err(EnergyError::Gap { .. })));
        let mut told = steady();
        told.lost = 0.002;
        assert_eq!(told.integrate(0, SECOND), Err(EnergyError::Dropped { dropped: 0.002 }));
        let mut back = steady();
        back.readings[10].nanoseconds = 3;
        assert!(matches!(back.integrate(0, SECOND), Err(EnergyError::ClockJumped { .. })));
        let mut odd = steady();
        odd.readings[7].value = f64::NAN;
        assert!(matches!(odd.integrate(0, SECOND), Err(EnergyError::Malformed { .. })));
        assert_eq!(Series::new(Quantity::Power, MS).integrate(0, 1), Err(EnergyError::TooFew(0)));
    }

    #[test]
    fn a_counter_wraps_round() {
        assert_eq!(wrapped(10, 25, 99), 15);
        assert_eq!(wrapped(95, 4, 99), 9);
        assert_eq!(wrapped(99, 0, 99), 1);
    }

    #[test]
    fn idling_is_taken_off() {
        let energy =
            |joules, seconds, uncertainty| Energy { joules, seconds, readings: 2000, dropped: 0.0, uncertainty };
        let measured = energy(10.0, 2.0, 0.0);
        let found = per_inference(&measured, [&energy(1.9, 1.0, 0.0), &energy(4.2, 2.0, 0.0)], 1000).unwrap();
        near(found.gross, 0.01);
        near(found.idle_watts, 2.0);
        near(found.net, 0.006);
        // 0.2 W wide, for 2 s, of 1000 inferences.
        near(found.uncertainty, 0.2 / 12_f64.sqrt() * 2.0 / 1000.0);
        near(found.energy_delay, 0.006 * 0.002);
        // All three sources: 0.3 of the measurement; idle 0.1 W and 0.2 W, halved, for 2 s.
        let idle = [&energy(2.0, 1.0, 0.1), &energy(2.0, 1.0, 0.2)];
        let found = per_inference(&energy(10.0, 2.0, 0.3), idle, 1).unwrap();
        near(found.uncertainty, (0.09_f64 + 4.0 * (0.01 + 0.04) / 4.0).sqrt());
        assert_eq!(per_inference(&measured, idle, 0), None);
        assert_eq!(per_inference(&measured, [&energy(0.0, 0.0, 0.0), idle[0]], 5), None);
    }

    proptest! {
        /// Adjacent windows add up to the whole, wherever they are cut, for both kinds.
        #[test]
        fn integration_is_additive(
            gaps in prop::collection::vec((1_u64..3_000_000, 0.0_f64..50.0), 2..200),
            cuts in prop::array::uniform3(0.0_f64..1.0),
            counts in any::<bool>(),
        ) {
            let mut series = Series::new(if counts { Quantity::Energy } else { Quantity::Power }, 0);
            let (mut time, mut total) = (1_000, 0.0);
            for (gap, value) in gaps {
                time += gap;
                total += value;
                series.readings.push(Reading { nanoseconds: time, value: if counts { total } else { value } });
            }
            let (begin, end) = (series.readings[0].nanoseconds, time);
            let mut at = cuts.map(|cut| begin + ((end - begin) as f64 * cut) as u64);
            at.sort_unstable();
            let [from, middle, to] = at;
            prop_assume!(from < middle && middle < to);
            let joules = |from, to| series.integrate(from, to).unwrap().joules;
            let (parts, whole) = (joules(from, middle) + joules(middle, to), joules(from, to));
            prop_assert!((parts - whole).abs() <= 1e-9 * (1.0 + whole.abs()), "{parts} {whole}");
            prop_assert!(whole >= 0.0);
        }
    }
}
