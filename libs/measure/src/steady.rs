//! When a runtime is warm: a rule that is told each duration as it is measured and says when measuring may begin.
//!
//! Durations are gathered into blocks; the medians of the last third of them must show no trend (Mann 1945, Kendall 1975) that
//! matters (Theil and Sen's slope), and the device must not heat up meanwhile. After a cap measuring begins anyway, and the
//! record says that the device was not steady. What happens later is for [`crate::series::movement`] to find.

use crate::series::{mann_kendall, median, theil_sen};

/// Blocks whose medians are looked at, at least. The longer warm-up takes, the more they are: a third of all. A slow trend that
/// noise hides over ten blocks would otherwise pass at one of many looks.
pub const TREND_BLOCKS: usize = 10;
/// A trend that chance explains with at least this probability is none. Larger than elsewhere: to warm up a little longer
/// costs less than to begin too early.
const SIGNIFICANCE: f64 = 0.05;
/// A trend that changes the medians by no more than this share over the blocks looked at does not matter.
pub const TOLERANCE: f64 = 0.01;
/// A device that became warmer by no more than this over the blocks looked at, in thousandths of a degree Celsius, is warm.
pub const WARMER: i64 = 1500;
/// Durations of a block at least.
const LEAST_IN_BLOCK: usize = 5;

/// How long warm-up takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Inferences at least.
    pub minimum_count: u64,
    /// Time at least, in nanoseconds; also decides how long a block is: a tenth of it, and at least five inferences.
    pub minimum_nanoseconds: u64,
    /// The cap, in nanoseconds: then anyway, flagged.
    pub maximum_nanoseconds: u64,
}

/// How warm-up ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Inferences that were made.
    pub count: u64,
    /// How long they took, in nanoseconds.
    pub nanoseconds: u64,
    /// Whether the rule was met; otherwise the cap was.
    pub steady: bool,
    /// The trend over the blocks looked at, as a share of their median; `None` if there were too few.
    pub trend: Option<f64>,
    /// By how much the device became warmer meanwhile, in thousandths of a degree Celsius; `None` if nobody told.
    pub warmer: Option<i64>,
}

/// A warm-up that goes on.
#[derive(Clone, Debug)]
pub struct WarmUp {
    rule: Rule,
    count: u64,
    nanoseconds: u64,
    block: Vec<u64>,
    block_nanoseconds: u64,
    medians: Vec<f64>,
    temperature: Option<i64>,
    temperatures: Vec<Option<i64>>,
}

impl WarmUp {
    /// Begins.
    pub const fn new(rule: Rule) -> Self {
        Self {
            rule,
            count: 0,
            nanoseconds: 0,
            block: Vec::new(),
            block_nanoseconds: 0,
            medians: Vec::new(),
            temperature: None,
            temperatures: Vec::new(),
        }
    }

    /// Tells how warm the device is now, in thousandths of a degree Celsius; the last reading of a block counts.
    pub const fn temperature(&mut self, millidegrees: i64) {
        self.temperature = Some(millidegrees);
    }

    /// Takes the next duration in nanoseconds; the outcome, once warm-up is over.
    pub fn push(&mut self, duration: u64) -> Option<Outcome> {
        let Rule { minimum_count, minimum_nanoseconds, maximum_nanoseconds } = self.rule;
        self.count += 1;
        self.nanoseconds = self.nanoseconds.saturating_add(duration);
        self.block_nanoseconds = self.block_nanoseconds.saturating_add(duration);
        self.block.push(duration);
        let full =
            self.block.len() >= LEAST_IN_BLOCK && self.block_nanoseconds >= minimum_nanoseconds / TREND_BLOCKS as u64;
        let capped = self.nanoseconds >= maximum_nanoseconds;
        if full {
            self.close();
        }
        let enough = self.count >= minimum_count && self.nanoseconds >= minimum_nanoseconds;
        // A rule that is met at the cap is met.
        let steady = enough && full && self.is_steady();
        (steady || capped).then(|| Outcome {
            count: self.count,
            nanoseconds: self.nanoseconds,
            steady,
            trend: self.trend().map(|(trend, _)| trend),
            warmer: self.warmer(),
        })
    }

    fn close(&mut self) {
        self.block.sort_unstable();
        self.medians.push(self.block[self.block.len() / 2] as f64);
        self.temperatures.push(self.temperature.take());
        self.block.clear();
        self.block_nanoseconds = 0;
    }

    fn looked_at(&self) -> usize {
        TREND_BLOCKS.max(self.medians.len() / 3)
    }

    /// The change over the last blocks, and the probability of as much by chance.
    fn trend(&self) -> Option<(f64, f64)> {
        let last = &self.medians[self.medians.len().checked_sub(self.looked_at())?..];
        let middle = median(last);
        let (slope, _) = theil_sen(last);
        let change = slope * (last.len() - 1) as f64;
        Some((if middle > 0.0 { change / middle } else { 0.0 }, mann_kendall(last)))
    }

    fn warmer(&self) -> Option<i64> {
        let last = &self.temperatures[self.temperatures.len().saturating_sub(self.looked_at())..];
        let told: Vec<i64> = last.iter().copied().flatten().collect();
        (told.len() > 1).then(|| told[told.len() - 1] - told[0])
    }

    fn is_steady(&self) -> bool {
        let flat = self.trend().is_some_and(|(trend, p)| p >= SIGNIFICANCE || trend.abs() <= TOLERANCE);
        flat && self.warmer().is_none_or(|warmer| warmer <= WARMER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const RULE: Rule = Rule { minimum_count: 20, minimum_nanoseconds: 50_000_000, maximum_nanoseconds: 1_000_000_000 };

    /// Warms up on durations of 100 µs times a level that depends on the time passed, in seconds.
    fn warm(rule: Rule, seed: u64, level: impl Fn(f64) -> f64, celsius: impl Fn(f64) -> Option<f64>) -> Outcome {
        let mut random = Random::new(seed);
        let mut warm_up = WarmUp::new(rule);
        let mut passed = 0;
        loop {
            let seconds = passed as f64 / 1e9;
            if let Some(degrees) = celsius(seconds) {
                warm_up.temperature((degrees * 1000.0) as i64);
            }
            let duration = (100_000.0 * level(seconds) * (1.0 + 0.02 * random.normal())) as u64;
            passed += duration;
            if let Some(outcome) = warm_up.push(duration) {
                assert_eq!(outcome.nanoseconds, passed);
                return outcome;
            }
        }
    }

    #[test]
    fn what_is_steady_from_the_beginning_takes_the_minimum() {
        let outcome = warm(RULE, 1, |_| 1.0, |_| None);
        assert!(outcome.steady && outcome.nanoseconds < 60_000_000, "{outcome:?}");
        assert_eq!(outcome.warmer, None);
    }

    #[test]
    fn what_settles_is_waited_for() {
        // Twice as slow in the beginning, a time constant of 60 ms: within 1 % over the last third after about 400 ms.
        let outcome = warm(RULE, 2, |t| 1.0 + (-t / 0.06).exp(), |_| None);
        assert!(outcome.steady && (150_000_000..600_000_000).contains(&outcome.nanoseconds), "{outcome:?}");
    }

    #[test]
    fn what_never_settles_meets_the_cap_and_is_flagged() {
        let outcome = warm(RULE, 3, |t| 1.0 + t, |_| None);
        assert!(!outcome.steady && outcome.nanoseconds >= 1_000_000_000, "{outcome:?}");
        assert!(outcome.trend.is_some_and(|trend| trend > 0.01), "{outcome:?}");
    }

    #[test]
    fn a_device_that_heats_up_is_not_warm() {
        // 10 °C and a time constant of 0.1 s: less than 1.5 °C in 50 ms after 100 ms · ln(10 · 0.65 / 1.5) = 0.1 s and a half.
        let outcome = warm(RULE, 4, |_| 1.0, |t| Some(50.0 + 10.0 * (1.0 - (-t / 0.1).exp())));
        assert!(outcome.steady && (100_000_000..300_000_000).contains(&outcome.nanoseconds), "{outcome:?}");
        let hot = warm(RULE, 5, |_| 1.0, |t| Some(50.0 + 60.0 * t));
        assert!(!hot.steady && hot.warmer.is_some_and(|warmer| warmer > WARMER), "{hot:?}");
    }

    #[test]
    fn slow_models_end_at_the_cap() {
        let rule = Rule { minimum_count: 1, minimum_nanoseconds: 1, maximum_nanoseconds: 250_000 };
        let outcome = warm(rule, 6, |_| 1.0, |_| None);
        assert_eq!((outcome.count, outcome.steady, outcome.trend), (3, false, None));
    }

    #[test]
    fn steady_devices_seldom_wait() {
        let waits = (0..300).filter(|seed| warm(RULE, 100 + seed, |_| 1.0, |_| None).nanoseconds > 60_000_000).count();
        assert!(waits <= 15, "{waits} of 300");
    }
}
