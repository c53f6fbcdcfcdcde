//! Measures of weighted samples: a weight counts how often a sample was drawn, so that a bootstrap costs one pass a resample
//! instead of a copy.

use edgeyard_measure::interval::{CONFIDENCE, Interval};
use edgeyard_measure::pick;
use edgeyard_measure::random::Random;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// The interval of a measure by the percentiles of resamples (Efron 1979); `None` if the measure is of none of them. `measure`
/// takes a weight for each sample; resamples without a measure, such as a curve of one class, are left out.
pub fn bootstrap(count: usize, seed: u64, measure: impl Fn(&[u32]) -> Option<f64>) -> Option<Interval> {
    let mut random = Random::new(seed);
    let mut weights = vec![0_u32; count];
    let mut values = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        weights.fill(0);
        for _ in 0..count {
            weights[random.below(count)] += 1;
        }
        values.extend(measure(&weights).filter(|value| value.is_finite()));
    }
    values.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some(Interval { lower: pick(&values, tail)?, upper: pick(&values, 1.0 - tail)? })
}

/// The area under the ROC curve: the share of pairs of a positive and a negative sample that the score orders right, ties
/// counting half (Hanley and McNeil 1982). `None` with one class only, or with a score that is not a number.
pub fn area_under_curve<'a>(scores: &'a [f64], positive: &'a [bool]) -> impl Fn(&[u32]) -> Option<f64> + 'a {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let is_number = scores.iter().all(|score| !score.is_nan());
    move |weights| {
        let (mut below, mut right, mut positives) = (0.0, 0.0, 0.0);
        for tied in order.chunk_by(|a, b| scores[*a] == scores[*b]) {
            let sum = |wanted: bool| {
                let own = tied.iter().filter(|index| positive[**index] == wanted);
                own.map(|index| f64::from(weights[*index])).sum::<f64>()
            };
            let (up, down) = (sum(true), sum(false));
            right += up * (below + down / 2.0);
            below += down;
            positives += up;
        }
        (is_number && positives > 0.0 && below > 0.0).then(|| right / (positives * below))
    }
}

/// The unweighted mean of the F1 scores of the classes that occur, in truth or as an answer (as
/// `sklearn.metrics.f1_score(average="macro")`).
pub fn macro_f1<'a>(truth: &'a [usize], answers: &'a [usize], classes: usize) -> impl Fn(&[u32]) -> Option<f64> + 'a {
    move |weights| {
        // Right answers, and what was right or answered, by class.
        let mut hits = vec![(0_u64, 0_u64); classes];
        for ((wanted, found), weight) in truth.iter().zip(answers).zip(weights) {
            let weight = u64::from(*weight);
            hits[*wanted].1 += weight;
            hits[*found].1 += weight;
            if wanted == found {
                hits[*wanted].0 += weight;
            }
        }
        let scores: Vec<f64> =
            hits.iter().filter(|(_, all)| *all > 0).map(|(hits, all)| 2.0 * *hits as f64 / *all as f64).collect();
        (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
    }
}

/// The mean.
pub fn weighted_mean(values: &[f64]) -> impl Fn(&[u32]) -> Option<f64> + '_ {
    move |weights| {
        let count: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let sum: f64 = values.iter().zip(weights).map(|(value, weight)| value * f64::from(*weight)).sum();
        (count > 0).then(|| sum / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand, as scikit-learn's documentation of roc_auc_score has it: 0.75.
    #[test]
    fn the_area_is_the_share_of_pairs_in_order() {
        let (scores, positive) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
        assert_eq!(area_under_curve(&scores, &positive)(&[1; 4]), Some(0.75));
        assert_eq!(area_under_curve(&scores, &positive)(&[1, 1, 0, 1]), Some(1.0));
        assert_eq!(area_under_curve(&[0.5; 4], &positive)(&[1; 4]), Some(0.5));
        assert_eq!(area_under_curve(&scores, &positive)(&[1, 1, 0, 0]), None);
        assert_eq!(area_under_curve(&[f64::NAN; 4], &positive)(&[1; 4]), None);
    }

    // scikit-learn's documentation of f1_score: y_true = [0, 1, 2, 0, 1, 2], y_pred = [0, 2, 1, 0, 0, 1], macro: 0.26…
    #[test]
    fn f1_is_the_mean_over_classes() {
        let found = macro_f1(&[0, 1, 2, 0, 1, 2], &[0, 2, 1, 0, 0, 1], 4)(&[1; 6]).unwrap();
        assert!((found - 0.8 / 3.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn a_bootstrap_agrees_with_the_normal_interval_of_a_mean() {
        let mut random = Random::new(5);
        let values: Vec<f64> = (0..400).map(|_| 10.0 + random.normal()).collect();
        let mean = weighted_mean(&values)(&[1; 400]).unwrap();
        let spread = edgeyard_measure::series::coefficient_of_variation(&values) * mean;
        let half = 1.96 * spread / 20.0;
        let found = bootstrap(400, 1, weighted_mean(&values)).unwrap();
        assert!((found.lower - (mean - half)).abs() < 0.03 && (found.upper - (mean + half)).abs() < 0.03, "{found:?}");
        assert_eq!(bootstrap(400, 1, weighted_mean(&values)), Some(found));
    }
}
