//! Comparing two variants: rank tests that assume no distribution, paired counts of right answers, and the correction for
//! asking several questions at once.

use crate::interval::Interval;
use crate::special::{binomial_cdf, normal_cdf, normal_quantile};

/// Sizes of groups of equal values, those of more than one only.
pub(crate) fn ties(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.chunk_by(|a, b| a == b).map(|group| group.len() as f64).filter(|size| *size > 1.0).collect()
}

/// What a Mann–Whitney test found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// The statistic of the first sample.
    pub u: f64,
    /// Two-sided probability of as much difference by chance.
    pub p: f64,
}

/// Whether one sample tends to be larger than the other (Mann and Whitney 1947): normal approximation with corrections for
/// ties and continuity, as `scipy.stats.mannwhitneyu(method="asymptotic")`. `None` if a sample is empty.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Option<MannWhitney> {
    let (m, n) = (a.len() as f64, b.len() as f64);
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = a.iter().map(|x| (*x, true)).chain(b.iter().map(|x| (*x, false))).collect();
    all.sort_unstable_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut place, mut tied) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|x, y| x.0 == y.0) {
        let size = group.len() as f64;
        let rank = place + (size + 1.0) / 2.0;
        rank_sum += rank * group.iter().filter(|(_, first)| *first).count() as f64;
        place += size;
        tied += size.powi(3) - size;
    }
    let u = rank_sum - m * (m + 1.0) / 2.0;
    let total = m + n;
    let variance = m * n / 12.0 * (total + 1.0 - tied / (total * (total - 1.0)));
    let p = if variance <= 0.0 {
        1.0
    } else {
        let z = ((u - m * n / 2.0).abs() - 0.5) / variance.sqrt();
        (2.0 * normal_cdf(-z)).min(1.0)
    };
    Some(MannWhitney { u, p })
}

/// By how much the values of `b` exceed those of `a`: the median of all differences (Hodges and Lehmann 1963), and its
/// interval from the differences that the Mann–Whitney test would not reject (Lehmann, Nonparametrics, 2.6). `None` if the
/// samples are too small for that confidence; at 0.95 four and four are enough.
pub fn hodges_lehmann(a: &[f64], b: &[f64], confidence: f64) -> Option<(f64, Interval)> {
    let place = critical_place(a.len(), b.len(), (1.0 - confidence) / 2.0)?;
    let mut differences: Vec<f64> = b.iter().flat_map(|y| a.iter().map(move |x| y - x)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let interval = Interval { lower: differences[place], upper: differences[differences.len() - 1 - place] };
    Some((crate::series::median(&differences), interval))
}

/// The largest place k (from 0) with P(U ≤ k) ≤ `tail`, where U is Mann and Whitney's statistic of samples of one
/// distribution: exactly for small samples, by the normal approximation with continuity correction for others.
fn critical_place(m: usize, n: usize, tail: f64) -> Option<usize> {
    const MOST_EXACT: usize = 400;
    if m == 0 || n == 0 {
        return None;
    }
    if m * n > MOST_EXACT {
        let (m, n) = (m as f64, n as f64);
        let place = m * n / 2.0 + normal_quantile(tail) * (m * n * (m + n + 1.0) / 12.0).sqrt() - 0.5;
        return (place >= 0.0).then_some(place as usize);
    }
    let counts = orders(m, n);
    let all: f64 = counts.iter().sum();
    let mut below = 0.0;
    let places = counts.iter().take_while(|count| {
        below += **count;
        below / all <= tail
    });
    places.count().checked_sub(1)
}

/// In how many of the orders of `m` and `n` values the statistic is 0, 1, … `m·n` (Mann and Whitney's recurrence: the
/// largest value is either of the first sample, and above all `n` of the second, or of the second).
fn orders(m: usize, n: usize) -> Vec<f64> {
    // Row j: counts for the present number of first values and j second ones.
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; n + 1];
    for i in 1..=m {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=n {
            let mut counts = vec![0.0; i * j + 1];
            for (u, count) in rows[j].iter().enumerate() {
                counts[u + j] += count;
            }
            for (u, count) in next[j - 1].iter().enumerate() {
                counts[u] += count;
            }
            next.push(counts);
        }
        rows = next;
    }
    rows.pop().unwrap_or_default()
}

/// Whether two variants that answered the same questions differ in how many they get right (McNemar 1947), by the exact
/// binomial test: `only_first` and `only_second` count questions that one of them alone got right.
pub fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let n = only_first + only_second;
    (2.0 * binomial_cdf(only_first.min(only_second) as i64, n, 0.5)).min(1.0)
}

/// Probabilities corrected for asking several questions at once (Holm 1979), in the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max((p[index] * (p.len() - rank) as f64).min(1.0));
        adjusted[index] = largest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    // Wanted: scipy.stats.mannwhitneyu(a, b, method="asymptotic"), SciPy 1.17.1.
    #[test]
    fn mann_whitney_is_scipys() {
        let found = mann_whitney(&[19.0, 22.0, 16.0, 29.0, 24.0], &[20.0, 11.0, 17.0, 12.0]).unwrap();
        assert_eq!(found.u, 17.0);
        assert!((found.p - 0.111_346_886_533_140_41).abs() < 1e-12, "{}", found.p);
        let tied = mann_whitney(&[1.0, 2.0, 2.0, 3.0, 5.0], &[2.0, 3.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        assert_eq!(tied.u, 7.5);
        assert!((tied.p - 0.191_895_903_323_955_67).abs() < 1e-12, "{}", tied.p);
        assert_eq!(mann_whitney(&[1.0; 4], &[1.0; 4]).unwrap().p, 1.0);
        assert_eq!(mann_whitney(&[], &[1.0]), None);
    }

    #[test]
    fn the_shift_is_the_median_of_all_differences() {
        let (shift, interval) = hodges_lehmann(&[1.0, 2.0, 4.0], &[4.0, 6.0, 9.0, 5.0], 0.9).unwrap();
        // Differences: 0 1 2 2 3 3 4 4 5 5 7 8.
        assert_eq!(shift, 3.5);
        // P(U ≤ 0) = 1/35 is above 0.025, but not above 0.05.
        assert_eq!((interval.lower, interval.upper), (0.0, 8.0));
        assert_eq!(hodges_lehmann(&[1.0, 2.0, 4.0], &[4.0, 6.0, 9.0, 5.0], 0.95), None);
        assert_eq!(hodges_lehmann(&[], &[1.0], 0.95), None);
    }

    // Wanted: scipy.stats.binomtest(k, n, 0.5).pvalue.
    #[test]
    fn mcnemar_is_exact() {
        assert!((mcnemar(5, 15) - 0.041_389_465_332_031_25).abs() < 1e-12);
        assert_eq!(mcnemar(7, 7), 1.0);
        assert_eq!(mcnemar(0, 0), 1.0);
    }

    // Wanted: R, p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm").
    #[test]
    fn holm_is_rs() {
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, wanted) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - wanted).abs() < 1e-12, "{found}");
        }
    }

    #[test]
    fn the_places_of_intervals_are_those_of_the_tables() {
        // R: qwilcox(0.025, m, n) - 1; for 20 and 21 the normal approximation begins.
        assert_eq!(critical_place(5, 5, 0.025), Some(2));
        assert_eq!(critical_place(10, 10, 0.025), Some(23));
        assert_eq!(critical_place(20, 20, 0.025), Some(127));
        assert_eq!(critical_place(4, 4, 0.025), Some(0));
        assert_eq!(critical_place(3, 3, 0.025), None);
        assert_eq!(orders(2, 2), [1.0, 1.0, 2.0, 1.0, 1.0]);
        assert_eq!(orders(20, 20).iter().sum::<f64>(), 137_846_528_820.0);
        // The published table of critical values for 30 and 30 has 317.
        assert!(critical_place(30, 30, 0.025).is_some_and(|place| (316..=317).contains(&place)));
    }
}
