//! Confidence intervals that need no assumption about the distribution of latencies.

use crate::special::{binomial_cdf, normal_quantile};

/// The confidence of every interval in a record.
pub const CONFIDENCE: f64 = 0.95;

/// An interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub lower: f64,
    /// Its upper end.
    pub upper: f64,
}

/// Wilson's score interval (1927) of a proportion; `None` for no trials.
pub fn wilson(successes: u64, trials: u64, confidence: f64) -> Option<Interval> {
    if trials == 0 {
        return None;
    }
    let z = normal_quantile(0.5 + confidence / 2.0);
    let n = trials as f64;
    let p = successes as f64 / n;
    let middle = p + z * z / (2.0 * n);
    let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    Some(Interval { lower: ((middle - half) / scale).max(0.0), upper: ((middle + half) / scale).min(1.0) })
}

/// Places, in `n` sorted samples, of a distribution-free interval of the quantile `p` (David and Nagaraja, Order
/// Statistics, 7.1): each end is exceeded with a probability of at most (1 - confidence)/2. `None` where the samples are
/// too few for that end.
pub fn order_statistic(n: usize, p: f64, confidence: f64) -> (Option<usize>, Option<usize>) {
    let tail = (1.0 - confidence) / 2.0;
    let below = |k: i64| binomial_cdf(k, n as u64, p);
    // The place k (from 0) is above the quantile with probability P(Bin ≤ k).
    let lower = last_where(n, |k| below(k as i64) <= tail);
    // The place k is below the quantile with probability P(Bin > k).
    let upper = last_where(n, |k| below(k as i64) < 1.0 - tail).map_or(0, |k| k + 1);
    (lower, (upper < n).then_some(upper))
}

/// The last of `0..n` for which a condition holds that holds for a beginning of them only.
fn last_where(n: usize, holds: impl Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (0, n);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Wanted: scipy.stats.binomtest(k, n).proportion_ci(method="wilson"), SciPy 1.17.1.
    #[test]
    fn wilson_is_scipys() {
        for (k, n, lower, upper) in [
            (9770, 10_000, 0.973_873_641_037_088_3, 0.979_760_024_517_286_2),
            (0, 10, 0.0, 0.277_532_799_862_889_26),
            (10, 10, 0.722_467_200_137_110_7, 1.0),
        ] {
            let found = wilson(k, n, 0.95).unwrap();
            assert!((found.lower - lower).abs() < 1e-12 && (found.upper - upper).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(wilson(0, 0, 0.95), None);
    }

    /// By definition: the outermost places whose tail probabilities are still small enough.
    fn brute_force(n: usize, p: f64, tail: f64) -> (Option<usize>, Option<usize>) {
        let below = |k: usize| binomial_cdf(k as i64, n as u64, p);
        ((0..n).filter(|k| below(*k) <= tail).max(), (0..n).filter(|k| 1.0 - below(*k) <= tail).min())
    }

    #[test]
    fn order_statistics_agree_with_their_definition() {
        for n in 1..200 {
            for p in [0.5, 0.9, 0.99] {
                assert_eq!(order_statistic(n, p, 0.95), brute_force(n, p, 0.025), "n {n} p {p}");
            }
        }
        // The textbook's interval of a median: 8th and 18th of 25.
        assert_eq!(order_statistic(25, 0.5, 0.95), (Some(7), Some(17)));
    }
}
