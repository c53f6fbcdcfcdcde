//! Intervals by resampling, for samples that follow on one another and so are not independent: whole blocks are drawn with
//! replacement (Carlstein 1986), and the interval is corrected for bias and acceleration (Efron 1987), the latter from
//! leaving out each block in turn.
//!
//! Time is bounded: there are at most [`MOST_BLOCKS`] blocks, a resample is only how often each was drawn, the mean needs one
//! sum a block and the median a walk through the middle of the sorted series.

use crate::interval::Interval;
use crate::random::Random;
use crate::series::autocorrelation;
use crate::special::{normal_cdf, normal_quantile};

/// Resamples that are drawn.
pub const RESAMPLES: usize = 2000;
/// Blocks of a series at most; longer series have longer blocks.
pub const MOST_BLOCKS: usize = 1000;
/// Shorter series have no interval.
pub const LEAST_SAMPLES: usize = 16;

/// How many samples a block holds: the cube root of the series' length, more if samples resemble their neighbours (Carlstein's
/// rule for a first order autoregression, (2ρ/(1-ρ²))^⅔ n^⅓), at most an eighth of the series, and enough that there are no
/// more than [`MOST_BLOCKS`] blocks.
pub fn block_length(series: &[f64]) -> usize {
    let root = (series.len() as f64).cbrt();
    let resemblance = autocorrelation(series, 1).clamp(0.0, 0.99);
    let rule = (2.0 * resemblance / (1.0 - resemblance * resemblance)).powf(2.0 / 3.0) * root;
    let length = rule.max(root).ceil() as usize;
    length.min(series.len() / 8).max(series.len().div_ceil(MOST_BLOCKS)).max(1)
}

/// The interval of the mean of a series in the order of time, in its unit; `None` for fewer than [`LEAST_SAMPLES`].
pub fn mean(series: &[f64], confidence: f64, seed: u64) -> Option<Interval> {
    mean_of_blocks(series, block_length(series), confidence, seed)
}

/// The interval of the median of a series in the order of time, in its unit; `None` for fewer than [`LEAST_SAMPLES`].
pub fn median(series: &[f64], confidence: f64, seed: u64) -> Option<Interval> {
    median_of_blocks(series, block_length(series), confidence, seed)
}

/// [`mean`] with blocks of a given length; 1 for independent values. The number of blocks is not bounded here.
pub fn mean_of_blocks(series: &[f64], length: usize, confidence: f64, seed: u64) -> Option<Interval> {
    if series.len() < LEAST_SAMPLES || length == 0 {
        return None;
    }
    let sums: Vec<(f64, f64)> = series.chunks(length).map(|block| (block.iter().sum(), block.len() as f64)).collect();
    let statistic = |drawn: &[u32]| {
        let (sum, count) = drawn.iter().zip(&sums).fold((0.0, 0.0), |(sum, count), (times, block)| {
            let times = f64::from(*times);
            (sum + times * block.0, count + times * block.1)
        });
        sum / count
    };
    bca(sums.len(), statistic, confidence, seed)
}

/// [`median`] with blocks of a given length; 1 for independent values. The number of blocks is not bounded here.
pub fn median_of_blocks(series: &[f64], length: usize, confidence: f64, seed: u64) -> Option<Interval> {
    if series.len() < LEAST_SAMPLES || length == 0 {
        return None;
    }
    let sorted = Sorted::new(series, length);
    bca(sorted.lengths.len(), |drawn| sorted.median(drawn), confidence, seed)
}

/// A series in the order of its values, that still knows the blocks.
struct Sorted {
    /// Values and the blocks they are of.
    values: Vec<(f64, u32)>,
    /// Samples of each block.
    lengths: Vec<u64>,
    /// Where a walk for the median begins: so low that hardly any resample's median is below.
    from: usize,
    /// Samples of each block before that place.
    before: Vec<u64>,
}

impl Sorted {
    fn new(series: &[f64], length: usize) -> Self {
        let mut values: Vec<(f64, u32)> =
            series.iter().enumerate().map(|(index, x)| (*x, (index / length) as u32)).collect();
        values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let lengths: Vec<u64> = series.chunks(length).map(|block| block.len() as u64).collect();
        // The number of drawn samples below the median deviates by at most √(n·length)/2, which is reached where blocks are
        // wholly below or above it. This is four times that.
        let n = series.len() as f64;
        let from = (n / 2.0 - 2.0 * (n * length as f64).sqrt()).max(0.0) as usize;
        let mut before = vec![0; lengths.len()];
        for (_, block) in &values[..from] {
            before[*block as usize] += 1;
        }
        Self { values, lengths, from, before }
    }

    /// The median of the blocks, each taken as often as it was drawn.
    fn median(&self, drawn: &[u32]) -> f64 {
        let count = |of: &[u64]| -> u64 { drawn.iter().zip(of).map(|(times, n)| u64::from(*times) * n).sum() };
        let total = count(&self.lengths);
        let (lower, upper) = ((total - 1) / 2, total / 2);
        let (mut place, mut passed) = (self.from, count(&self.before));
        if passed > lower {
            (place, passed) = (0, 0);
        }
        let mut low = None;
        for (value, block) in &self.values[place..] {
            passed += u64::from(drawn[*block as usize]);
            if low.is_none() && passed > lower {
                low = Some(*value);
            }
            if passed > upper {
                return f64::midpoint(low.unwrap_or(*value), *value);
            }
        }
        f64::NAN
    }
}

/// The BCa interval of a statistic of `blocks` blocks, given how often each was drawn; `None` for fewer than 4.
fn bca(blocks: usize, statistic: impl Fn(&[u32]) -> f64, confidence: f64, seed: u64) -> Option<Interval> {
    if blocks < 4 {
        return None;
    }
    let mut drawn = vec![1_u32; blocks];
    let observed = statistic(&drawn);
    let left_out: Vec<f64> = (0..blocks)
        .map(|out| {
            drawn[out] = 0;
            let rest = statistic(&drawn);
            drawn[out] = 1;
            rest
        })
        .collect();
    let mut random = Random::new(seed);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            drawn.fill(0);
            (0..blocks).for_each(|_| drawn[random.below(blocks)] += 1);
            statistic(&drawn)
        })
        .collect();
    resampled.sort_unstable_by(f64::total_cmp);
    let below = resampled.partition_point(|x| *x < observed);
    let equal = resampled[below..].partition_point(|x| *x <= observed);
    // Half of those that are equal count as below, or a statistic with few values would seem biased.
    let share = (below as f64 + equal as f64 / 2.0) / RESAMPLES as f64;
    let bias = normal_quantile(share.clamp(0.5 / RESAMPLES as f64, 1.0 - 0.5 / RESAMPLES as f64));
    let acceleration = acceleration(&left_out);
    let at = |p: f64| {
        let z = bias + normal_quantile(p);
        let scale = 1.0 - acceleration * z;
        // Beyond its pole the correction means nothing; the outermost resample is the best that can be said.
        let corrected = if scale > 0.0 { normal_cdf(bias + z / scale) } else { f64::from(z > 0.0) };
        resampled[((corrected * RESAMPLES as f64) as usize).min(RESAMPLES - 1)]
    };
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { lower: at(tail), upper: at(1.0 - tail) })
}

/// Σd³ / (6 (Σd²)^1.5) of the deviations of the statistic without each block (Efron 1987, 7.3); 0 if it never deviates.
fn acceleration(left_out: &[f64]) -> f64 {
    let centre = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let (cubes, squares) = left_out.iter().fold((0.0, 0.0), |(cubes, squares), x| {
        let d = centre - x;
        (cubes + d.powi(3), squares + d.powi(2))
    });
    // What rounding leaves of a constant is no deviation.
    if squares.sqrt() > 1e-12 * centre.abs() { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples that follow on one another: each keeps a share of the deviation of the one before.
    fn related(random: &mut Random, n: usize, share: f64) -> Vec<f64> {
        let mut last = 0.0;
        (0..n)
            .map(|_| {
                last = share * last + random.normal();
                100.0 + last
            })
            .collect()
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        const RUNS: u64 = 150;
        let mut random = Random::new(11);
        for share in [0.0, 0.7] {
            let (mut means, mut medians, mut naive) = (0, 0, 0);
            for seed in 0..RUNS {
                let series = related(&mut random, 400, share);
                let holds = |interval: Option<Interval>| {
                    let Interval { lower, upper } = interval.unwrap();
                    usize::from(lower <= 100.0 && 100.0 <= upper)
                };
                means += holds(mean(&series, 0.95, seed));
                medians += holds(median(&series, 0.95, seed));
                naive += holds(mean_of_blocks(&series, 1 + usize::from(share == 0.0), 0.95, seed));
            }
            // Binomial(150, 0.95) is below 133 twice in a thousand times; few blocks cost a little of the coverage.
            assert!(means >= 131 && medians >= 131, "{share}: {means} {medians}");
            assert!(share == 0.0 || naive < 120, "samples as if independent hold it {naive} times");
        }
    }

    #[test]
    fn a_resample_has_the_median_of_its_values() {
        let mut random = Random::new(5);
        for n in [16, 17, 100, 1001] {
            let series: Vec<f64> = (0..n).map(|_| random.below(50) as f64).collect();
            let sorted = Sorted::new(&series, 7);
            for _ in 0..50 {
                let drawn: Vec<u32> = sorted.lengths.iter().map(|_| random.below(3) as u32 + 1).collect();
                let values: Vec<f64> = series
                    .chunks(7)
                    .zip(&drawn)
                    .flat_map(|(block, times)| std::iter::repeat_n(block, *times as usize).flatten().copied())
                    .collect();
                assert_eq!(sorted.median(&drawn), crate::series::median(&values));
            }
        }
    }

    #[test]
    fn a_walk_that_begins_too_high_begins_again() {
        // Only the block of the lowest values is drawn: its median is far below that of all.
        let series: Vec<f64> = (0..10_000).map(f64::from).collect();
        let sorted = Sorted::new(&series, 10);
        assert!(sorted.from > 100);
        let mut drawn = vec![0; 1000];
        drawn[0] = 1000;
        assert_eq!(sorted.median(&drawn), 4.5);
    }

    #[test]
    fn blocks_grow_with_the_series_and_with_resemblance() {
        let mut random = Random::new(2);
        assert_eq!(block_length(&related(&mut random, 1000, 0.0)), 10);
        assert!(block_length(&related(&mut random, 1000, 0.8)) > 20);
        assert_eq!(block_length(&vec![1.0; 2_000_000]), 2000);
        assert_eq!(block_length(&[]), 1);
    }

    #[test]
    fn what_cannot_be_told_is_not() {
        assert_eq!(mean(&[1.0; 15], 0.95, 1), None);
        assert_eq!(mean_of_blocks(&[1.0; 100], 0, 0.95, 1), None);
        assert_eq!(mean_of_blocks(&[1.0; 100], 40, 0.95, 1), None);
        assert_eq!(mean(&[7.0; 99], 0.95, 1), Some(Interval { lower: 7.0, upper: 7.0 }));
        assert_eq!(median(&[7.0; 99], 0.95, 1), Some(Interval { lower: 7.0, upper: 7.0 }));
    }
}
