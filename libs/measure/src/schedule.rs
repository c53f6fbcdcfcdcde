//! When queries are issued, as LoadGen's Server scenario does it: as a Poisson process whose seed is recorded; and the test
//! that says whether a schedule is one.

use crate::random::Random;

/// Nanoseconds, from 0, at which `n` queries are issued at a mean rate per second: exponential gaps, drawn from the seed alone,
/// so that the same seed at another rate gives the same schedule, stretched.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
