//! Compares each variant with the first, which took turns with it: the windows' medians, and the samples that only one of
//! the two answers right. The windows, not the inferences, are what is compared: inferences of one window share its fate.

use std::collections::BTreeMap;

use edgeyard_measure::compare::{hodges_lehmann, holm, mann_whitney, mcnemar};
use edgeyard_measure::{interval, series};
use edgeyard_record::{AccuracyComparison, Comparison, LatencyComparison, VariantResult};

use crate::accuracy::Score;

/// Fewer windows tell nothing.
const LEAST_WINDOWS: usize = 4;

/// Fills in `comparison` of all results but the first.
pub fn with_the_first(results: &mut [VariantResult], scores: &[Option<Score>]) {
    let Some((reference, others)) = results.split_first_mut() else { return };
    reference.unavailable.insert("comparison".into(), "IsReference".into());
    let mut p_values = Vec::new();
    for (other, score) in others.iter_mut().zip(&scores[1..]) {
        if other.failure.is_some() || reference.failure.is_some() {
            let whose = if other.failure.is_some() { "VariantFailed" } else { "ReferenceFailed" };
            other.unavailable.insert("comparison".into(), whose.into());
            continue;
        }
        let mut unavailable = BTreeMap::new();
        let latency = latency(reference, other).map(|(comparison, p)| {
            p_values.push(p);
            comparison
        });
        if latency.is_none() {
            let timed = reference.latency.is_some() && other.latency.is_some();
            unavailable.insert("latency".into(), if timed { "TooFewWindows" } else { "EmulatedClock" }.into());
        }
        let accuracy = scores[0].as_ref().zip(score.as_ref()).map(|(first, second)| {
            let (comparison, p) = accuracy(first, second);
            p_values.push(p);
            comparison
        });
        if accuracy.is_none() {
            unavailable.insert("accuracy".into(), "NotRequested".into());
        }
        let label = format!("{}/{}/{}", reference.model, reference.variant, reference.target);
        other.comparison = Some(Comparison { reference: label, latency, accuracy, unavailable });
    }
    let mut adjusted = holm(&p_values).into_iter().map(probability);
    for comparison in others.iter_mut().filter_map(|other| other.comparison.as_mut()) {
        // In the order in which they were pushed.
        if let Some(latency) = &mut comparison.latency {
            latency.p_adjusted = adjusted.next().unwrap_or_default();
        }
        if let Some(accuracy) = &mut comparison.accuracy {
            accuracy.p_adjusted = adjusted.next().unwrap_or_default();
        }
    }
}

fn probability(p: f64) -> String {
    format!("{p:.6}")
}

fn latency(reference: &VariantResult, other: &VariantResult) -> Option<(LatencyComparison, f64)> {
    let medians = |result: &VariantResult| -> Option<Vec<f64>> {
        let windows = &result.latency.as_ref()?.windows;
        (windows.len() >= LEAST_WINDOWS)
            .then(|| windows.iter().map(|window| window.median_nanoseconds as f64).collect())
    };
    let (a, b) = (medians(reference)?, medians(other)?);
    let (shift, interval) = hodges_lehmann(&a, &b, interval::CONFIDENCE)?;
    let p = mann_whitney(&a, &b)?.p;
    let comparison = LatencyComparison {
        shift_nanoseconds: shift.round() as i64,
        lower_nanoseconds: interval.lower.round() as i64,
        upper_nanoseconds: interval.upper.round() as i64,
        shift_ratio: format!("{:.6}", shift / series::median(&a).max(1.0)),
        p_value: probability(p),
        p_adjusted: String::new(),
    };
    Some((comparison, p))
}

fn accuracy(reference: &Score, other: &Score) -> (AccuracyComparison, f64) {
    let only = |a: &Score, b: &Score| a.right.iter().zip(&b.right).filter(|(a, b)| **a && !**b).count() as u64;
    let (only_reference, only_this) = (only(reference, other), only(other, reference));
    let p = mcnemar(only_reference, only_this);
    (AccuracyComparison { only_reference, only_this, p_value: probability(p), p_adjusted: String::new() }, p)
}
