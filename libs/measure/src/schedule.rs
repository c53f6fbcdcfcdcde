//! When queries are issued, as LoadGen's Server scenario does it: as a Poisson process whose seed is recorded; and the
//! search for the highest rate that still keeps a bound.

use crate::random::Random;

/// Nanoseconds, from 0, at which `n` queries are issued at a mean rate per second.
pub fn poisson(rate: f64, n: usize, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let mut time = 0.0;
    (0..n)
        .map(|_| {
            time += random.exponential() / rate * 1e9;
            time as u64
        })
        .collect()
}

/// The greatest difference between the distribution of some values and an expected one (Kolmogorov), and the probability
/// of as much by chance (Marsaglia's asymptotic series with Stephens' correction).
pub fn kolmogorov_smirnov(values: &[f64], expected: impl Fn(f64) -> f64) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let d = sorted.iter().enumerate().fold(0.0_f64, |d, (index, x)| {
        let f = expected(*x);
        d.max(f - index as f64 / n).max((index + 1) as f64 / n - f)
    });
    let t = d * (n.sqrt() + 0.12 + 0.11 / n.sqrt());
    let p: f64 = (1..=100)
        .map(|k| {
            let k = f64::from(k);
            let sign = if k % 2.0 == 1.0 { 2.0 } else { -2.0 };
            sign * (-2.0 * k * k * t * t).exp()
        })
        .sum();
    (d, if t < 0.2 { 1.0 } else { p.clamp(0.0, 1.0) })
}

/// Latencies of queries that are issued at `arrivals` and served one after the other, each for `service` nanoseconds.
pub fn queue(arrivals: &[u64], service: u64) -> Vec<u64> {
    let mut free = 0;
    arrivals
        .iter()
        .map(|arrival| {
            free = free.max(*arrival) + service;
            free - arrival
        })
        .collect()
}

/// The highest rate between `low` and `high` that passes, to a relative precision; `None` if `low` does not pass.
pub fn highest_rate(low: f64, high: f64, precision: f64, mut passes: impl FnMut(f64) -> bool) -> Option<f64> {
    if !passes(low) {
        return None;
    }
    if passes(high) {
        return Some(high);
    }
    let (mut low, mut high) = (low, high);
    while high / low > 1.0 + precision {
        // The middle of the logarithms: a rate is as far from its double as from its half.
        let middle = (low * high).sqrt();
        if passes(middle) { low = middle } else { high = middle }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::percentile::pick;

    #[test]
    fn gaps_are_exponential() {
        let times = poisson(1000.0, 20_000, 42);
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e9).collect();
        let (_, p) = kolmogorov_smirnov(&gaps, |x| 1.0 - (-1000.0 * x).exp());
        assert!(p > 0.01, "{p}");
        let (_, wrong) = kolmogorov_smirnov(&gaps, |x| 1.0 - (-1100.0 * x).exp());
        assert!(wrong < 1e-6, "{wrong}");
        assert_eq!(times, poisson(1000.0, 20_000, 42));
    }

    // scipy.stats.kstest([0.1, 0.2, 0.35, 0.6, 0.9], "uniform"): D = 0.25, p = 0.8446 (exact).
    #[test]
    fn the_test_agrees_with_scipy() {
        let (d, p) = kolmogorov_smirnov(&[0.1, 0.2, 0.35, 0.6, 0.9], |x| x);
        assert!((d - 0.25).abs() < 1e-12 && (p - 0.84).abs() < 0.05, "{d} {p}");
    }

    #[test]
    fn the_known_capacity_of_a_queue_is_found() {
        // Service of 1 ms: an M/D/1 queue is stable below 1,000 queries a second. With a bound far above the service time the
        // found rate lies just below that.
        let rate = highest_rate(10.0, 10_000.0, 0.01, |rate| {
            let mut latencies = queue(&poisson(rate, 50_000, 7), 1_000_000);
            latencies.sort_unstable();
            pick(&latencies, 0.99).unwrap() <= 50_000_000
        });
        assert!(rate.is_some_and(|rate| (900.0..1000.0).contains(&rate)), "{rate:?}");
        assert_eq!(highest_rate(1.0, 2.0, 0.01, |_| false), None);
        assert_eq!(highest_rate(1.0, 2.0, 0.01, |_| true), Some(2.0));
    }
}
