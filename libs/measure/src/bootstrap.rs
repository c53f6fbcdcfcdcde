//! Intervals by resampling, for samples that follow on one another and so are not independent: whole blocks are drawn
//! (Künsch 1989), and the interval is corrected for bias and acceleration (Efron 1987).

use crate::interval::Interval;
use crate::random::Random;
use crate::special::{normal_cdf, normal_quantile};

/// Resamples that are drawn.
pub const RESAMPLES: usize = 2000;

/// The interval of the mean of a series; `None` for fewer than 16 samples or blocks that are too few.
///
/// Blocks are of the cube root of the series' length, as Künsch's rate asks, and of so many samples that there are at most
/// a thousand: the mean of a resample then costs a thousand additions whatever the length.
pub fn mean(series: &[f64], confidence: f64, seed: u64) -> Option<Interval> {
    if series.len() < 16 {
        return None;
    }
    let length = ((series.len() as f64).cbrt().ceil() as usize).max(series.len().div_ceil(1000));
    let blocks: Vec<f64> = series.chunks_exact(length).map(|block| block.iter().sum::<f64>() / length as f64).collect();
    bca(&blocks, |blocks| blocks.iter().sum::<f64>() / blocks.len() as f64, confidence, seed)
}

/// The interval of the median of a series, from its blocks' medians.
pub fn median(series: &[f64], confidence: f64, seed: u64) -> Option<Interval> {
    if series.len() < 16 {
        return None;
    }
    let length = ((series.len() as f64).cbrt().ceil() as usize).max(series.len().div_ceil(200));
    let blocks: Vec<f64> = series.chunks_exact(length).map(crate::series::median).collect();
    bca(&blocks, crate::series::median, confidence, seed)
}

/// The BCa interval of a statistic of independent values; `None` for fewer than 4.
pub fn bca(values: &[f64], statistic: impl Fn(&[f64]) -> f64, confidence: f64, seed: u64) -> Option<Interval> {
    let n = values.len();
    if n < 4 {
        return None;
    }
    let observed = statistic(values);
    let mut random = Random::new(seed);
    let mut sample = vec![0.0; n];
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            sample.iter_mut().for_each(|slot| *slot = values[random.below(n)]);
            statistic(&sample)
        })
        .collect();
    resampled.sort_unstable_by(f64::total_cmp);
    // Half of those that are equal count as below, or a statistic with few values would seem biased.
    let below = resampled.iter().map(|x| {
        if *x < observed {
            1.0
        } else if *x == observed {
            0.5
        } else {
            0.0
        }
    });
    let share = (below.sum::<f64>() / RESAMPLES as f64).clamp(0.5 / RESAMPLES as f64, 1.0 - 0.5 / RESAMPLES as f64);
    let bias = normal_quantile(share);
    let left_out: Vec<f64> = (0..n)
        .map(|out| {
            let rest: Vec<f64> =
                values.iter().enumerate().filter(|(index, _)| *index != out).map(|(_, x)| *x).collect();
            statistic(&rest)
        })
        .collect();
    let centre = left_out.iter().sum::<f64>() / n as f64;
    let (cubes, squares) = left_out.iter().fold((0.0, 0.0), |(cubes, squares), x| {
        let d = centre - x;
        (cubes + d.powi(3), squares + d.powi(2))
    });
    let acceleration = if squares > 0.0 { cubes / (6.0 * squares.powf(1.5)) } else { 0.0 };
    let at = |p: f64| {
        let z = bias + normal_quantile(p);
        let corrected = normal_cdf(bias + z / (1.0 - acceleration * z));
        resampled[((corrected * RESAMPLES as f64) as usize).min(RESAMPLES - 1)]
    };
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { lower: at(tail), upper: at(1.0 - tail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples that follow on one another: each keeps half of the deviation of the one before.
    fn related(random: &mut Random, n: usize) -> Vec<f64> {
        let mut last = 0.0;
        (0..n)
            .map(|_| {
                last = 0.5 * last + random.normal();
                100.0 + last
            })
            .collect()
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = Random::new(11);
        let (mut means, mut medians) = (0, 0);
        for seed in 0..200 {
            let series = related(&mut random, 2000);
            let holds = |interval: Interval| interval.lower <= 100.0 && 100.0 <= interval.upper;
            means += usize::from(holds(mean(&series, 0.95, seed).unwrap()));
            medians += usize::from(holds(median(&series, 0.95, seed).unwrap()));
        }
        // Binomial(200, 0.95) is below 178 once in a thousand times.
        assert!((178..=200).contains(&means) && (174..=200).contains(&medians), "{means} {medians}");
    }

    // scipy.stats.bootstrap(method="BCa", n_resamples=200_000) of these gives [2.9, 6.1].
    #[test]
    fn a_skewed_sample_agrees_with_scipy() {
        let values = [1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0];
        let interval = bca(&values, |x| x.iter().sum::<f64>() / x.len() as f64, 0.95, 1).unwrap();
        assert!((interval.lower - 2.9).abs() < 0.2 && (interval.upper - 6.1).abs() < 0.3, "{interval:?}");
        assert_eq!(bca(&[1.0], |x| x[0], 0.95, 1), None);
        let constant = bca(&[7.0; 9], |x| x[0], 0.95, 1).unwrap();
        assert_eq!((constant.lower, constant.upper), (7.0, 7.0));
    }
}
