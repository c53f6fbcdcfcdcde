//! Compares each variant with the first, which took turns with it: the windows' medians, and the samples that only one of
//! the two answers right. The windows, not the inferences, are what is compared: inferences of one window share its fate.

use std::collections::BTreeMap;

use edgeyard_measure::compare::{holm, mcnemar};
use edgeyard_measure::series;
use edgeyard_measure::verdict::{Shift, Verdict};
use edgeyard_record::{AccuracyComparison, Comparison, LatencyComparison, VariantResult};

use crate::accuracy::Score;

/// Fewer windows tell nothing: the least probability that Mann and Whitney's test of three and three has is a tenth.
const LEAST_WINDOWS: usize = 4;

/// A question whose probability Holm's correction has to know.
enum Asked {
    Latency(usize, Shift),
    Accuracy(usize),
}

/// Fills in `comparison` of all results but the first. `seed` fixes the noise floor's splits; latencies of variants that were
/// served at rates of their own are not compared.
pub fn with_the_first(results: &mut [VariantResult], scores: &[Option<Score>], own_rates: bool, seed: u64) {
    let Some((reference, others)) = results.split_first_mut() else { return };
    reference.unavailable.insert("comparison".into(), "IsReference".into());
    let (mut asked, mut p_values) = (Vec::new(), Vec::new());
    for (index, (other, score)) in others.iter_mut().zip(&scores[1..]).enumerate() {
        if other.failure.is_some() || reference.failure.is_some() {
            let whose = if other.failure.is_some() { "VariantFailed" } else { "ReferenceFailed" };
            other.unavailable.insert("comparison".into(), whose.into());
            continue;
        }
        let mut unavailable = BTreeMap::new();
        let latency = latency(reference, other, seed).filter(|_| !own_rates).map(|(comparison, shift)| {
            p_values.push(shift.p);
            asked.push(Asked::Latency(index, shift));
            if shift.floor.is_none() {
                unavailable.insert("latency.noiseFloorRatio".into(), "TooFewWindows".into());
            }
            comparison
        });
        if latency.is_none() {
            let timed = reference.latency.is_some() && other.latency.is_some();
            let why = match (timed, own_rates) {
                (false, _) => "EmulatedClock",
                (true, true) => "RatesDiffer",
                (true, false) => "TooFewWindows",
            };
            unavailable.insert("latency".into(), why.into());
        }
        let both = scores[0].as_ref().zip(score.as_ref());
        let accuracy = both.and_then(|(first, second)| accuracy(first, second)).map(|(comparison, p)| {
            p_values.push(p);
            asked.push(Asked::Accuracy(index));
            comparison
        });
        if accuracy.is_none() {
            // A metric that counts no right answers has none to pair.
            let why = if both.is_some() { "NoRightAnswers" } else { "NotRequested" };
            unavailable.insert("accuracy".into(), why.into());
        }
        let label = format!("{}/{}/{}", reference.model, reference.variant, reference.target);
        let verdict = Verdict::Inconclusive.name().into();
        other.comparison = Some(Comparison { reference: label, latency, accuracy, verdict, unavailable });
    }
    for (asked, p) in asked.into_iter().zip(holm(&p_values)) {
        match asked {
            Asked::Latency(index, shift) => {
                let Some(comparison) = &mut others[index].comparison else { continue };
                comparison.verdict = shift.verdict(p).name().into();
                if let Some(latency) = &mut comparison.latency {
                    latency.p_adjusted = probability(p);
                }
            }
            Asked::Accuracy(index) => {
                if let Some(accuracy) = others[index].comparison.as_mut().and_then(|found| found.accuracy.as_mut()) {
                    accuracy.p_adjusted = probability(p);
                }
            }
        }
    }
}

fn probability(p: f64) -> String {
    format!("{p:.6}")
}

fn latency(reference: &VariantResult, other: &VariantResult, seed: u64) -> Option<(LatencyComparison, Shift)> {
    let medians = |result: &VariantResult| -> Option<Vec<f64>> {
        let windows = &result.latency.as_ref()?.windows;
        (windows.len() >= LEAST_WINDOWS)
            .then(|| windows.iter().map(|window| window.median_nanoseconds as f64).collect())
    };
    let (a, b) = (medians(reference)?, medians(other)?);
    let shift = Shift::between(&a, &b, seed)?;
    let middle = series::median(&a);
    let nanoseconds = |ratio: f64| (ratio * middle).round() as i64;
    let comparison = LatencyComparison {
        shift_nanoseconds: nanoseconds(shift.ratio),
        lower_nanoseconds: nanoseconds(shift.interval.lower),
        upper_nanoseconds: nanoseconds(shift.interval.upper),
        shift_ratio: format!("{:.6}", shift.ratio),
        noise_floor_ratio: shift.floor.map(|floor| format!("{floor:.6}")),
        p_value: probability(shift.p),
        p_adjusted: String::new(),
    };
    Some((comparison, shift))
}

fn accuracy(reference: &Score, other: &Score) -> Option<(AccuracyComparison, f64)> {
    let (first, second) = (reference.right.as_ref()?, other.right.as_ref()?);
    let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count() as u64;
    let (only_reference, only_this) = (only(first, second), only(second, first));
    let p = mcnemar(only_reference, only_this);
    Some((AccuracyComparison { only_reference, only_this, p_value: probability(p), p_adjusted: String::new() }, p))
}
