//! Whether a variant is faster or slower than its reference, by as much as the device can tell at all.
//!
//! Two variants take turns (A B A B …) and each turn gives one number, the median of its latencies. A difference counts if it
//! is unlikely to be chance (Mann and Whitney, corrected by Holm over all that is asked) and above the device's noise floor:
//! the difference that the reference shows against itself.

use crate::compare::{hodges_lehmann, mann_whitney};
use crate::interval::{CONFIDENCE, Interval};
use crate::random::Random;
use crate::series::median;

/// Differences that chance explains with at least this probability, after Holm's correction, are none.
pub const SIGNIFICANCE: f64 = 0.01;
/// Windows of the reference without which it has no noise floor: halves of fewer hardly differ from one another.
pub const LEAST_WINDOWS: usize = 8;
/// Variants are the same if the interval of the shift is within this share, whatever the floor …
const EQUAL: f64 = 0.01;
/// … and a device whose floor is above this cannot say of any that they are.
const COARSE: f64 = 0.03;
/// Splits of the reference's windows.
const SPLITS: usize = 400;
/// The share of splits that stay below the noise floor.
const QUIET: f64 = 0.99;

/// What can be said about a variant beside its reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No difference that matters or that the device could tell.
    Same,
    /// Its latency is lower.
    Faster,
    /// Its latency is higher.
    Slower,
    /// There may be a difference, but it is not above the noise.
    Inconclusive,
}

impl Verdict {
    /// Its name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "Same",
            Self::Faster => "Faster",
            Self::Slower => "Slower",
            Self::Inconclusive => "Inconclusive",
        }
    }
}

/// By how much a variant's windows exceed its reference's, as shares of the reference's median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Hodges and Lehmann's estimate; above 0 the variant is slower.
    pub ratio: f64,
    /// Its 95 % interval.
    pub interval: Interval,
    /// The probability of as much difference by chance (Mann and Whitney, two-sided), before Holm's correction.
    pub p: f64,
    /// The device's noise floor; `None` if the reference has too few windows for one.
    pub floor: Option<f64>,
}

impl Shift {
    /// Compares windows, each in the order of time; `None` if there are fewer than four of either or the reference's median
    /// is not above 0. `seed` is that of the splits of [`noise_floor`].
    pub fn between(reference: &[f64], other: &[f64], seed: u64) -> Option<Self> {
        let middle = median(reference);
        if middle.is_nan() || middle <= 0.0 {
            return None;
        }
        let (shift, Interval { lower, upper }) = hodges_lehmann(reference, other, CONFIDENCE)?;
        let p = mann_whitney(reference, other)?.p;
        let interval = Interval { lower: lower / middle, upper: upper / middle };
        Some(Self { ratio: shift / middle, interval, p, floor: noise_floor(reference, seed) })
    }

    /// The verdict, given the probability after Holm's correction.
    pub fn verdict(&self, p_adjusted: f64) -> Verdict {
        let Self { ratio, interval, p: _, floor } = self;
        let Some(floor) = floor else { return Verdict::Inconclusive };
        if p_adjusted < SIGNIFICANCE && ratio.abs() > *floor {
            return if *ratio < 0.0 { Verdict::Faster } else { Verdict::Slower };
        }
        let margin = floor.max(EQUAL);
        if margin <= COARSE && -margin <= interval.lower && interval.upper <= margin {
            Verdict::Same
        } else {
            Verdict::Inconclusive
        }
    }
}

/// The smallest shift that the device can tell, as a share, from the reference's windows in the order of time; `None` for
/// fewer than [`LEAST_WINDOWS`] or a median that is not above 0.
///
/// The windows are compared with themselves (A/A): of each pair of neighbours one goes to either side by lot, as the variants
/// took turns, so that what drifts slowly falls on both. The floor is the 99th percentile, over 400 such splits, of the shift
/// between the sides (Hodges and Lehmann's) over the median. Either side has half the windows, which makes the floor √2 of
/// what the whole comparison could reach: on the safe side.
pub fn noise_floor(windows: &[f64], seed: u64) -> Option<f64> {
    let middle = median(windows);
    if windows.len() < LEAST_WINDOWS || middle.is_nan() || middle <= 0.0 {
        return None;
    }
    let mut random = Random::new(seed);
    let mut shifts: Vec<f64> = (0..SPLITS)
        .map(|_| {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for pair in windows.chunks_exact(2) {
                let first = (random.next_u64() >> 63) as usize;
                one.push(pair[first]);
                other.push(pair[1 - first]);
            }
            let mut differences: Vec<f64> = other.iter().flat_map(|y| one.iter().map(move |x| y - x)).collect();
            // The upper of two middles will do: the sides are as likely the other way round.
            let half = differences.len() / 2;
            differences.select_nth_unstable_by(half, f64::total_cmp).1.abs() / middle
        })
        .collect();
    shifts.sort_unstable_by(f64::total_cmp);
    crate::percentile::pick(&shifts, QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of a variant at the profile `Standard`.
    const WINDOWS: usize = 30;

    /// Turns of two variants on a machine whose speed wanders (each turn keeps six tenths of the deviation before it, 1 % in
    /// all) and that is disturbed by a twentieth in every twentieth turn.
    fn turns(random: &mut Random, slowdown: f64) -> [Vec<f64>; 2] {
        let mut variants = [Vec::new(), Vec::new()];
        let mut state = 0.01 * random.normal();
        for turn in 0..2 * WINDOWS {
            state = 0.6 * state + 0.008 * random.normal();
            let disturbed = if random.unit() < 0.05 { 0.05 } else { 0.0 };
            let own = if turn % 2 == 0 { 1.0 } else { slowdown };
            variants[turn % 2].push(250_000.0 * own * (1.0 + state + disturbed));
        }
        variants
    }

    fn verdict(random: &mut Random, slowdown: f64, seed: u64) -> Verdict {
        let [a, b] = turns(random, slowdown);
        let shift = Shift::between(&a, &b, seed).unwrap();
        shift.verdict(shift.p)
    }

    #[test]
    fn the_same_twice_raises_an_alarm_once_in_a_hundred_times_at_most() {
        let mut random = Random::new(41);
        let found: Vec<Verdict> = (0..600).map(|seed| verdict(&mut random, 1.0, seed)).collect();
        let count = |wanted: Verdict| found.iter().filter(|verdict| **verdict == wanted).count();
        let alarms = count(Verdict::Faster) + count(Verdict::Slower);
        assert!(alarms <= 6, "{alarms} of 600");
        assert!(count(Verdict::Same) >= 480, "{} of 600 are told to be the same", count(Verdict::Same));
    }

    #[test]
    fn three_per_cent_are_found() {
        let mut random = Random::new(42);
        let slower = (0..300).filter(|seed| verdict(&mut random, 1.03, *seed) == Verdict::Slower).count();
        assert!(slower >= 285, "{slower} of 300");
        let faster = (0..300).filter(|seed| verdict(&mut random, 0.97, *seed) == Verdict::Faster).count();
        assert!(faster >= 285, "{faster} of 300");
    }

    #[test]
    fn a_noisy_device_says_neither_same_nor_slower() {
        let mut random = Random::new(43);
        let noisy = |random: &mut Random| -> Vec<f64> {
            (0..WINDOWS).map(|_| 1000.0 * (1.0 + 0.1 * random.normal())).collect()
        };
        let mut slower = 0;
        for seed in 0..50 {
            let (a, mut b) = (noisy(&mut random), noisy(&mut random));
            b.iter_mut().for_each(|x| *x *= 1.03);
            let shift = Shift::between(&a, &b, seed).unwrap();
            assert!(shift.floor.is_some_and(|floor| floor > 0.03), "{shift:?}");
            match shift.verdict(shift.p) {
                Verdict::Inconclusive => {}
                // Chance may add to what is there.
                Verdict::Slower => slower += 1,
                wrong => panic!("{wrong:?} {shift:?}"),
            }
        }
        assert!(slower <= 3, "{slower} of 50");
    }

    #[test]
    fn what_is_significant_but_below_the_floor_is_no_difference() {
        let shift =
            Shift { ratio: 0.004, interval: Interval { lower: 0.002, upper: 0.006 }, p: 1e-9, floor: Some(0.008) };
        assert_eq!(shift.verdict(shift.p), Verdict::Same);
        assert_eq!(Shift { floor: Some(0.003), ..shift }.verdict(shift.p), Verdict::Slower);
        assert_eq!(Shift { floor: None, ..shift }.verdict(shift.p), Verdict::Inconclusive);
        let wide = Interval { lower: -0.02, upper: 0.03 };
        assert_eq!(Shift { interval: wide, ..shift }.verdict(0.5), Verdict::Inconclusive);
    }

    #[test]
    fn the_floor_of_known_noise() {
        // Independent windows of 1 %: halves of fifteen differ with a deviation of 1 % · √(2/15) · √(π/3), the 99th percentile
        // of whose size is 2.58 times that.
        let mut random = Random::new(44);
        let wanted = 0.01 * (2.0_f64 / 15.0).sqrt() * (std::f64::consts::PI / 3.0).sqrt() * 2.576;
        let floors: Vec<f64> = (0..100)
            .map(|seed| {
                let windows: Vec<f64> = (0..WINDOWS).map(|_| 5.0 * (1.0 + 0.01 * random.normal())).collect();
                noise_floor(&windows, seed).unwrap()
            })
            .collect();
        assert!((median(&floors) / wanted - 1.0).abs() < 0.15, "{} is not {wanted}", median(&floors));
        assert_eq!(noise_floor(&[1.0; 7], 1), None);
        assert_eq!(noise_floor(&[0.0; 30], 1), None);
        assert_eq!(noise_floor(&[3.0; 30], 1), Some(0.0));
        assert_eq!(Shift::between(&[1.0; 3], &[1.0; 3], 1), None);
    }
}
