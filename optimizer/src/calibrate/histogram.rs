//! A histogram that needs no second look at the data: it starts with the first batch's range and, when a value falls
//! outside, doubles its span by joining neighbouring bins until the value fits. Of what is counted a percentile is off
//! by at most one bin, and at least half of the bins span what was seen.

use super::Range;

/// Share of values inside the range that [`super::Calibrator::Percentile`] gives; half of the rest lies on each side.
pub const PERCENTILE: f64 = 99.99;

/// Even, so that two bins always join into one.
const BINS: usize = 8192;

/// Counts of values by size, in constant memory.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    low: f64,
    width: f64,
    total: u64,
    seen: Option<Range>,
}

impl Histogram {
    /// Counts finite values that lie in `seen`: all of them, or some of what `seen` is the range of.
    pub fn add(&mut self, values: &[f32], seen: Range) {
        let (min, max) = (f64::from(seen.min), f64::from(seen.max));
        let old = self.seen.unwrap_or(seen);
        self.seen = Some(Range { min: old.min.min(seen.min), max: old.max.max(seen.max) });
        if self.counts.is_empty() {
            self.counts = vec![0; BINS];
            self.low = min;
            // A little more than the range, so that the largest value is inside the last bin.
            let span = (max - min).max(f64::from(f32::MIN_POSITIVE)).max(max.abs() * 1e-6);
            self.width = span * 1.0001 / BINS as f64;
        }
        while min < self.low {
            self.grow_down();
        }
        while max >= self.low + self.width * BINS as f64 {
            self.grow_up();
        }
        let (low, inverse) = (self.low, 1.0 / self.width);
        for value in values {
            let bin = ((f64::from(*value) - low) * inverse) as usize;
            self.counts[bin.min(BINS - 1)] += 1;
        }
        self.total += values.len() as u64;
    }

    /// Smallest and largest value seen, counted or not.
    pub fn seen(&self) -> Option<Range> {
        self.seen
    }

    /// The values that bins which are not empty stand for, ascending, with their counts. A bin that holds zero stands
    /// for zero: after a ReLU that is half of all values, and they are exact in integers.
    pub fn values(&self) -> Vec<(f64, u64)> {
        let value = |bin: usize| {
            let low = self.low + self.width * bin as f64;
            if low <= 0.0 && low + self.width > 0.0 { 0.0 } else { low + self.width / 2.0 }
        };
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bin, count)| (value(bin), *count))
            .collect()
    }

    /// The range that holds `percent` of all values, as much left out on either side; `None` before any value.
    pub fn range(&self, percent: f64) -> Option<Range> {
        let seen = self.seen?;
        let tail = (100.0 - percent) / 200.0;
        let (low, high) = (self.quantile(tail), self.quantile(1.0 - tail));
        let within = |value: f64| (value as f32).clamp(seen.min, seen.max);
        Some(Range { min: within(low), max: within(high) })
    }

    /// The width of one bin: how far off a percentile may be.
    pub fn resolution(&self) -> f64 {
        self.width
    }

    /// Between the two values nearest to that share, as numpy interpolates.
    fn quantile(&self, share: f64) -> f64 {
        let rank = share * self.total.saturating_sub(1) as f64;
        let (low, high) = (self.ordered(rank.floor() as u64), self.ordered(rank.ceil() as u64));
        low + (high - low) * rank.fract()
    }

    /// The value with so many below it, to the width of a bin.
    fn ordered(&self, rank: u64) -> f64 {
        let mut below = 0u64;
        for (bin, count) in self.counts.iter().enumerate() {
            if below + count > rank {
                // Values are taken to lie evenly within a bin.
                let inside = ((rank - below) as f64 + 0.5) / *count as f64;
                return self.low + self.width * (bin as f64 + inside);
            }
            below += count;
        }
        self.low + self.width * BINS as f64
    }

    fn grow_up(&mut self) {
        for bin in 0..BINS / 2 {
            self.counts[bin] = self.counts[2 * bin] + self.counts[2 * bin + 1];
        }
        self.counts[BINS / 2..].fill(0);
        self.width *= 2.0;
    }

    fn grow_down(&mut self) {
        for bin in (0..BINS / 2).rev() {
            self.counts[BINS / 2 + bin] = self.counts[2 * bin] + self.counts[2 * bin + 1];
        }
        self.counts[..BINS / 2].fill(0);
        self.low -= self.width * BINS as f64;
        self.width *= 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::look::range;

    /// The smallest linear congruential generator that will do.
    fn noise(seed: u64, len: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        // A sum of uniform numbers is near enough to normal, with tails.
        (0..len).map(|_| ((0..6).map(|_| next()).sum::<f64>() - 3.0) as f32).collect()
    }

    fn exact(values: &[f32], percent: f64) -> Range {
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        let tail = (100.0 - percent) / 200.0;
        let at = |share: f64| {
            let rank = share * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
            low + (high - low) * rank.fract() as f32
        };
        Range { min: at(tail), max: at(1.0 - tail) }
    }

    #[test]
    fn percentiles_are_exact_to_a_few_bins_however_the_range_grew() {
        let mut histogram = Histogram::default();
        let mut all = Vec::new();
        for (batch, scale) in [0.01, 1.0, 0.3, 4.0, 2.0].into_iter().enumerate() {
            let values: Vec<f32> = noise(batch as u64, 20_000).iter().map(|v| v * scale + scale).collect();
            histogram.add(&values, range(&values).unwrap());
            all.extend(values);
        }
        assert_eq!(histogram.counts.iter().sum::<u64>(), all.len() as u64);
        for percent in [90.0, 99.0, 99.9] {
            let (found, right) = (histogram.range(percent).unwrap(), exact(&all, percent));
            let near = |a: f32, b: f32| f64::from((a - b).abs()) <= 3.0 * histogram.resolution();
            assert!(near(found.min, right.min) && near(found.max, right.max), "{percent}: {found:?} {right:?}");
        }
    }

    #[test]
    fn at_least_half_of_the_bins_span_what_was_seen() {
        let mut histogram = Histogram::default();
        for value in [1.0f32, -3.0, 1000.0, 1e-3] {
            histogram.add(&[value], Range { min: value, max: value });
        }
        assert!(histogram.resolution() * BINS as f64 <= 4.5 * 1003.0, "{}", histogram.resolution());
    }

    #[test]
    fn a_constant_tensor_has_a_range_of_one_value() {
        let mut histogram = Histogram::default();
        histogram.add(&[2.5; 64], Range { min: 2.5, max: 2.5 });
        assert_eq!(histogram.range(99.9), Some(Range { min: 2.5, max: 2.5 }));
        assert_eq!(Histogram::default().range(99.9), None);
    }
}
