//! What the order of samples tells: whether a series is steady, and if not, how it moves.
//!
//! The series is cut into blocks; the medians of the blocks are tested for a trend (Mann 1945, Kendall 1975), for a step
//! (Pettitt 1979) and for wandering (autocorrelation). A finding counts only if it is both unlikely to be chance and large
//! enough to matter. Two speeds that alternate all the time show as two modes of the samples themselves.

use crate::percentile::pick;
use crate::special::normal_cdf;

/// Findings that chance explains with at least this probability are none.
const SIGNIFICANCE: f64 = 0.01;
/// Changes below this share of the median do not matter.
pub const TOLERANCE: f64 = 0.03;
/// Blocks of a series.
const BLOCKS: usize = 60;
/// From fewer samples nothing is told of modes, and little of movement.
pub const LEAST_SAMPLES: u64 = 64;
/// Fewer blocks tell nothing.
const LEAST_BLOCKS: usize = 8;

/// How a series moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Movement {
    /// It does not.
    Steady,
    /// It rises or falls all the way: by this share of the median.
    Ramp(f64),
    /// It changes level once, before the sample of this index, by this share of the median.
    Step(usize, f64),
    /// It wanders, over this share of the median.
    Drift(f64),
}

/// The median of each of up to [`BLOCKS`] blocks of equal length, and that length.
pub fn block_medians(series: &[u64]) -> (Vec<f64>, usize) {
    let length = series.len().div_ceil(BLOCKS).max(1);
    let median = |block: &[u64]| {
        let mut sorted = block.to_vec();
        sorted.sort_unstable();
        pick(&sorted, 0.5).unwrap_or_default() as f64
    };
    (series.chunks_exact(length).map(median).collect(), length)
}

/// How a series moves; too short a series is steady.
pub fn movement(series: &[u64]) -> Movement {
    let (medians, length) = block_medians(series);
    let n = medians.len();
    if n < LEAST_BLOCKS {
        return Movement::Steady;
    }
    let middle = median(&medians);
    if middle <= 0.0 {
        return Movement::Steady;
    }
    let (at, step_p) = pettitt(&medians);
    let step = (median(&medians[at..]) - median(&medians[..at])) / middle;
    let (slope, intercept) = theil_sen(&medians);
    let ramp = slope * (n - 1) as f64 / middle;
    let line = residual(&medians, |index| intercept + slope * index as f64);
    let (before, after) = (median(&medians[..at]), median(&medians[at..]));
    let levels = residual(&medians, |index| if index < at { before } else { after });
    let is_step = step_p < SIGNIFICANCE && step.abs() > TOLERANCE;
    let is_ramp = mann_kendall(&medians) < SIGNIFICANCE && ramp.abs() > TOLERANCE;
    let flat = residual(&medians, |_| middle);
    // A line or a step must explain most of what happens, or it is neither.
    if is_step && levels <= line && levels < 0.5 * flat {
        return Movement::Step(at * length, step);
    }
    if is_ramp && line < 0.5 * flat {
        return Movement::Ramp(ramp);
    }
    let mut sorted = medians.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let spread = (sorted[n - 1 - n / 20] - sorted[n / 20]) / middle;
    // Twice the standard error of an autocorrelation of independent values is 2/√n; real wandering is far above.
    if spread > TOLERANCE && autocorrelation(&medians, 1) > (4.0 / (n as f64).sqrt()).min(0.6) {
        return Movement::Drift(spread);
    }
    Movement::Steady
}

/// The share by which the slower of two modes is slower, if the samples have two.
///
/// The samples, without the slowest per cent, are parted where the variance within the parts is least (Otsu 1979). There
/// are two modes if both parts have a twentieth of the samples, their means differ by more than [`TOLERANCE`], and the middle
/// between the means is at most half as dense as the sparser of the surroundings of the two means.
pub fn two_modes(series: &[u64]) -> Option<f64> {
    let mut sorted = series.to_vec();
    sorted.sort_unstable();
    sorted.truncate(sorted.len() - sorted.len() / 100);
    let n = sorted.len();
    if (n as u64) < LEAST_SAMPLES {
        return None;
    }
    let total: f64 = sorted.iter().map(|x| *x as f64).sum();
    let (mut sum, mut best, mut cut) = (0.0, 0.0, 0);
    for (index, x) in sorted.iter().enumerate().take(n - 1) {
        sum += *x as f64;
        let (left, right) = ((index + 1) as f64, (n - index - 1) as f64);
        let between = left * right * (sum / left - (total - sum) / right).powi(2);
        if between > best {
            (best, cut) = (between, index + 1);
        }
    }
    if cut < n / 20 || n - cut < n / 20 {
        return None;
    }
    let mean = |part: &[u64]| part.iter().map(|x| *x as f64).sum::<f64>() / part.len() as f64;
    let (low, high) = (mean(&sorted[..cut]), mean(&sorted[cut..]));
    let gap = (high - low) / low;
    let reach = (high - low) / 6.0;
    let around = |centre: f64| {
        let below = |limit: f64| sorted.partition_point(|x| (*x as f64) < limit);
        (below(centre + reach) - below(centre - reach)) as f64
    };
    let valley = around((low + high) / 2.0);
    (gap > TOLERANCE && valley <= 0.5 * around(low).min(around(high))).then_some(gap)
}

/// The autocorrelation at a lag; 0 for a constant or too short series.
pub fn autocorrelation(series: &[f64], lag: usize) -> f64 {
    if series.len() <= lag {
        return 0.0;
    }
    let mean = series.iter().sum::<f64>() / series.len() as f64;
    let variance: f64 = series.iter().map(|x| (x - mean).powi(2)).sum();
    if variance == 0.0 {
        return 0.0;
    }
    series.iter().zip(&series[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / variance
}

/// The standard deviation over the mean; 0 for fewer than two values.
pub fn coefficient_of_variation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    if mean == 0.0 { 0.0 } else { variance.sqrt() / mean }
}

/// The middle of values, the mean of two if their number is even; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

fn residual(values: &[f64], model: impl Fn(usize) -> f64) -> f64 {
    values.iter().enumerate().map(|(index, x)| (x - model(index)).powi(2)).sum()
}

/// Two-sided probability that values without a trend show as much of one, with the correction for ties.
pub fn mann_kendall(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mut s = 0.0;
    for (index, a) in values.iter().enumerate() {
        for b in &values[index + 1..] {
            s += sign(b - a);
        }
    }
    let mut variance = n * (n - 1.0) * (2.0 * n + 5.0);
    for tied in crate::compare::ties(values) {
        variance -= tied * (tied - 1.0) * (2.0 * tied + 5.0);
    }
    if variance <= 0.0 || s == 0.0 {
        return 1.0;
    }
    let z = (s - f64::signum(s)) / (variance / 18.0).sqrt();
    (2.0 * normal_cdf(-z.abs())).min(1.0)
}

/// 1, 0 or -1; of a zero of either sign 0.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// Median of the slopes of all pairs, and the intercept that goes with it (Theil 1950, Sen 1968).
pub(crate) fn theil_sen(values: &[f64]) -> (f64, f64) {
    let mut slopes = Vec::with_capacity(values.len() * values.len() / 2);
    for (i, a) in values.iter().enumerate() {
        for (j, b) in values.iter().enumerate().skip(i + 1) {
            slopes.push((b - a) / (j - i) as f64);
        }
    }
    let slope = median(&slopes);
    let intercepts: Vec<f64> = values.iter().enumerate().map(|(index, x)| x - slope * index as f64).collect();
    (slope, median(&intercepts))
}

/// The likeliest place of a step, and the probability that values without one show as much (Pettitt 1979).
pub fn pettitt(values: &[f64]) -> (usize, f64) {
    let n = values.len();
    let (mut best, mut at, mut u) = (0.0_f64, n / 2, 0.0);
    for t in 0..n.saturating_sub(1) {
        u += values.iter().map(|other| sign(values[t] - other)).sum::<f64>();
        if u.abs() > best.abs() {
            (best, at) = (u, t + 1);
        }
    }
    let n = n as f64;
    (at, (2.0 * (-6.0 * best * best / (n.powi(3) + n.powi(2))).exp()).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn noisy(n: usize, seed: u64, level: impl Fn(f64) -> f64) -> Vec<u64> {
        let mut random = Random::new(seed);
        (0..n)
            .map(|index| (100_000.0 * level(index as f64 / n as f64) * (1.0 + 0.01 * random.normal())) as u64)
            .collect()
    }

    #[test]
    fn each_movement_has_its_name() {
        assert_eq!(movement(&noisy(3000, 1, |_| 1.0)), Movement::Steady);
        assert!(
            matches!(movement(&noisy(3000, 2, |t| 1.0 + 0.1 * t)), Movement::Ramp(by) if (by - 0.095).abs() < 0.01)
        );
        let Movement::Step(at, by) = movement(&noisy(3000, 3, |t| if t < 0.7 { 1.0 } else { 1.06 })) else {
            panic!("no step")
        };
        assert!((2000..=2200).contains(&at) && (by - 0.06).abs() < 0.01, "{at} {by}");
        let wave = noisy(3000, 4, |t| 1.0 + 0.05 * (t * 4.0 * std::f64::consts::TAU).sin());
        assert!(matches!(movement(&wave), Movement::Drift(by) if by > 0.08));
        assert_eq!(movement(&[5; 3]), Movement::Steady);
        assert_eq!(movement(&[0; 3000]), Movement::Steady);
    }

    #[test]
    fn steady_series_raise_no_alarm() {
        let alarms = (0..500).filter(|seed| movement(&noisy(1200, *seed, |_| 1.0)) != Movement::Steady).count();
        assert!(alarms <= 5, "{alarms} of 500");
        // Neighbours that resemble one another, as on every machine, are no movement either.
        let related = |seed| -> Vec<u64> {
            let mut random = Random::new(seed);
            let mut state = 0.0;
            (0..1200)
                .map(|_| {
                    state = 0.9 * state + 0.005 * random.normal();
                    (100_000.0 * (1.0 + state + 0.005 * random.normal())) as u64
                })
                .collect()
        };
        let alarms = (0..300).filter(|seed| movement(&related(*seed)) != Movement::Steady).count();
        assert!(alarms <= 3, "{alarms} of 300 with related neighbours");
    }

    #[test]
    fn noise_has_one_mode() {
        let alarms = (0..300).filter(|seed| two_modes(&noisy(600, *seed, |_| 1.0)).is_some()).count();
        assert_eq!(alarms, 0);
        let mut random = Random::new(8);
        // Heavy tails: a thirtieth takes 10 to 60 % longer, at no speed of its own.
        let alarms = (0..200)
            .filter(|_| {
                let tailed: Vec<u64> = (0..1500)
                    .map(|_| {
                        let late = if random.unit() < 1.0 / 30.0 { 0.1 + 0.5 * random.unit() } else { 0.0 };
                        (100_000.0 * (1.0 + late + 0.01 * random.normal())) as u64
                    })
                    .collect();
                two_modes(&tailed).is_some()
            })
            .count();
        assert!(alarms <= 2, "{alarms} of 200");
    }

    #[test]
    fn two_speeds_are_two_modes_and_noise_is_not() {
        let mut random = Random::new(9);
        let speeds: Vec<u64> = (0..2000)
            .map(|_| if random.unit() < 0.4 { 110_000.0 } else { 100_000.0 } * (1.0 + 0.01 * random.normal()))
            .map(|x| x as u64)
            .collect();
        assert!(two_modes(&speeds).is_some_and(|gap| (gap - 0.1).abs() < 0.01));
        assert_eq!(two_modes(&noisy(2000, 5, |_| 1.0)), None);
        let mut random = Random::new(6);
        let uniform: Vec<u64> = (0..2000).map(|_| 100_000 + random.below(20_000) as u64).collect();
        assert_eq!(two_modes(&uniform), None);
        let skewed: Vec<u64> = (0..2000).map(|_| 100_000 + (20_000.0 * random.exponential()) as u64).collect();
        assert_eq!(two_modes(&skewed), None);
        assert_eq!(two_modes(&[1; 10]), None);
    }

    #[test]
    fn the_trend_test_is_kendalls() {
        // Five of the 45 pairs fall, so S = 40 - 5 = 35; the variance is n(n-1)(2n+5)/18.
        let values = [1.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0, 9.0, 10.0, 8.0];
        let p = mann_kendall(&values);
        let z = (35.0 - 1.0) / (10.0_f64 * 9.0 * 25.0 / 18.0).sqrt();
        assert!((p - 2.0 * normal_cdf(-z)).abs() < 1e-12, "{p}");
        assert_eq!(mann_kendall(&[4.0; 9]), 1.0);
    }

    #[test]
    fn autocorrelation_by_hand() {
        // Mean 2.5; products of neighbours 1.5·0.5 - 0.5·0.5 + 0.5·1.5 = 1.25 over 5.
        assert!((autocorrelation(&[1.0, 2.0, 3.0, 4.0], 1) - 0.25).abs() < 1e-12);
        assert_eq!(autocorrelation(&[3.0; 5], 1), 0.0);
        assert!((coefficient_of_variation(&[9.0, 11.0]) - 2.0_f64.sqrt() / 10.0).abs() < 1e-12);
    }
}
