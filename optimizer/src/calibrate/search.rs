//! Ranges from a finished histogram: the one whose 256 steps resemble the values most. Both searches leave out outliers
//! that cost the many more precision than the few are worth.

use super::{Histogram, Range};

/// Ranges that are tried, from a sixteenth of what was seen to all of it.
const CANDIDATES: usize = 96;
/// Steps of an 8-bit integer.
const LEVELS: f64 = 255.0;

/// The range with the least Kullback-Leibler divergence of the quantised distribution from the values' own, as TensorRT
/// chooses it (Migacz 2017, 8-bit Inference with TensorRT); the same bound on both sides of zero, as far as values
/// reach. `None` before any value.
pub fn least_divergence(histogram: &Histogram) -> Option<Range> {
    let seen = histogram.seen()?;
    let values = histogram.values();
    let widest = seen.max.max(-seen.min);
    let within = |bound: f32| Range { min: seen.min.max(-bound), max: seen.max.min(bound) };
    let candidates = (0..CANDIDATES).map(|at| within(widest * share(at)));
    best(candidates, |range| divergence(&values, range)).or(Some(seen))
}

/// The range with the least mean squared error of the quantised values; each side for itself. `None` before any value.
pub fn least_error(histogram: &Histogram) -> Option<Range> {
    let seen = histogram.seen()?;
    let values = histogram.values();
    let mut range = seen;
    // One side after the other, twice: the sides matter to one another through the step alone.
    for _ in 0..2 {
        let low = (0..CANDIDATES).map(|at| Range { min: seen.min * share(at), ..range });
        range = best(low, |range| squared_error(&values, range)).unwrap_or(range);
        let high = (0..CANDIDATES).map(|at| Range { max: seen.max * share(at), ..range });
        range = best(high, |range| squared_error(&values, range)).unwrap_or(range);
    }
    Some(range)
}

/// From 1 down, so that among equals the widest wins.
fn share(at: usize) -> f32 {
    16f32.powf(-(at as f32) / (CANDIDATES - 1) as f32)
}

fn best(candidates: impl Iterator<Item = Range>, cost: impl Fn(Range) -> f64) -> Option<Range> {
    let costs = candidates.map(|range| (cost(range), range)).filter(|(cost, _)| cost.is_finite());
    costs.min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, range)| range)
}

/// First stored value's real number, and the step, of integers that cover a range and zero.
fn grid(range: Range) -> (f64, f64) {
    let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
    let step = (max - min) / LEVELS;
    // Zero is one of the stored values.
    ((min / step).round() * step, step)
}

fn squared_error(values: &[(f64, u64)], range: Range) -> f64 {
    let (first, step) = grid(range);
    if step <= 0.0 || step.is_nan() {
        return f64::INFINITY;
    }
    let error = |value: f64| {
        let stored = ((value - first) / step).round().clamp(0.0, LEVELS);
        (first + stored * step - value).powi(2)
    };
    values.iter().map(|(value, count)| error(*value) * *count as f64).sum()
}

/// D(P‖Q): P is the distribution clipped to the range, what lies outside counted at its ends; Q has what P has without
/// the outliers, evened out over the values that share a stored integer.
fn divergence(values: &[(f64, u64)], range: Range) -> f64 {
    let (first, step) = grid(range);
    if step <= 0.0 || step.is_nan() {
        return f64::INFINITY;
    }
    let (low, high) = (first - step / 2.0, first + step * (LEVELS + 0.5));
    let inside: Vec<(f64, f64)> = values
        .iter()
        .filter(|(value, _)| (low..high).contains(value))
        .map(|(value, count)| (*value, *count as f64))
        .collect();
    if inside.is_empty() {
        return f64::INFINITY;
    }
    let beyond = |outside: &dyn Fn(f64) -> bool| {
        values.iter().filter(|(value, _)| outside(*value)).map(|(_, count)| *count as f64).sum::<f64>()
    };
    let mut p: Vec<f64> = inside.iter().map(|(_, count)| *count).collect();
    p[0] += beyond(&|value| value < low);
    *p.last_mut().unwrap_or(&mut 0.0) += beyond(&|value| value >= high);
    // Zero and the ends of the range are stored exactly. Where an activation clamps, much of all values lies there, and
    // evening it out over neighbours would make every wide range look bad.
    let (lowest, highest) = (values.first().map(|value| value.0), values.last().map(|value| value.0));
    let exact = |value: f64| value == 0.0 || Some(value) == lowest || Some(value) == highest;
    let level = |value: f64| (((value - first) / step).round(), exact(value));
    let mut q = Vec::with_capacity(inside.len());
    for group in inside.chunk_by(|one, other| level(one.0) == level(other.0)) {
        let mean = group.iter().map(|(_, count)| count).sum::<f64>() / group.len() as f64;
        q.extend(std::iter::repeat_n(mean, group.len()));
    }
    let (sum_p, sum_q) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    p.iter().zip(&q).map(|(p, q)| p / sum_p * ((p / sum_p) / (q / sum_q)).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        histogram.add(values, super::super::look::range(values).unwrap());
        histogram
    }

    /// Values about normal, and a few outliers.
    fn heavy_tailed() -> Vec<f32> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1u64 << 24) as f64
        };
        let mut values: Vec<f32> = (0..50_000).map(|_| ((0..6).map(|_| next()).sum::<f64>() - 3.0) as f32).collect();
        values.extend([40.0, -25.0]);
        values
    }

    /// The same error from the values themselves, for every range of a fine grid.
    fn exact_error(values: &[f32], range: Range) -> f64 {
        let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
        let step = (max - min) / 255.0;
        let zero = (-min / step).round();
        let back = |value: f64| ((value / step).round().clamp(-zero, 255.0 - zero)) * step;
        values.iter().map(|value| (back(f64::from(*value)) - f64::from(*value)).powi(2)).sum()
    }

    #[test]
    fn no_range_has_a_smaller_error_than_the_one_that_is_found() {
        let values = heavy_tailed();
        let found = least_error(&histogram(&values)).unwrap();
        let error = exact_error(&values, found);
        let mut least = f64::INFINITY;
        for low in 1..=25 {
            for high in 1..=40 {
                least = least.min(exact_error(&values, Range { min: -(low as f32), max: high as f32 }));
            }
        }
        assert!(error < least * 1.05, "{found:?}: {error} against {least} by brute force");
        assert!(error < exact_error(&values, Range { min: -25.0, max: 40.0 }) * 0.9);
    }

    #[test]
    fn divergence_leaves_outliers_out_and_keeps_the_bulk() {
        let values = heavy_tailed();
        let found = least_divergence(&histogram(&values)).unwrap();
        assert!(found.max < 20.0 && found.max > 2.0 && found.min == -found.max.min(25.0), "{found:?}");
    }

    #[test]
    fn values_that_fill_the_integers_evenly_keep_their_whole_range() {
        let values: Vec<f32> = (0..4096).map(|at| at as f32 / 4095.0).collect();
        for found in [least_error(&histogram(&values)).unwrap(), least_divergence(&histogram(&values)).unwrap()] {
            assert!(found.min == 0.0 && found.max > 0.97, "{found:?}");
        }
    }

    #[test]
    fn constant_and_missing_values_give_what_was_seen() {
        for search in [least_error, least_divergence] {
            assert_eq!(search(&Histogram::default()), None);
            let zeros = search(&histogram(&[0.0; 9])).unwrap();
            assert_eq!((zeros.min, zeros.max), (0.0, 0.0));
            let constant = search(&histogram(&[2.5; 9])).unwrap();
            assert!((constant.max - 2.5).abs() < 0.1, "{constant:?}");
        }
    }
}
