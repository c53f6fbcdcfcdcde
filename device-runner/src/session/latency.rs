//! What a series of samples says: percentiles with intervals, as far as their number allows.

use std::collections::BTreeMap;

use edgeyard_measure::series::{self, Movement};
use edgeyard_measure::{Sample, bootstrap, early_stopping, interval, minimum_queries, order_statistic, pick, samples};
use edgeyard_record::{Disturbance, EarlyStopping, Latency, Percentile, Samples};

use super::subject::Series;
use crate::timing::percentile_name;

/// Percentiles of a record, by name.
const PERCENTILES: [(&str, f64); 6] =
    [("50", 0.5), ("90", 0.9), ("95", 0.95), ("97", 0.97), ("99", 0.99), ("99.9", 0.999)];
/// Packed samples above this are a blob of their own.
const LARGEST_INLINE: usize = 64 * 1024;

/// What a variant's samples say.
pub struct Measured {
    /// For the record.
    pub latency: Latency,
    /// How the series moves.
    pub movement: Movement,
    /// By how much the slower of two modes is slower, if there are two.
    pub modes: Option<f64>,
}

/// What a series says of the percentile that counts and of the others; `None` without samples. A query is
/// `inferences_per_query`; `seed` fixes the resampling. Samples that are too
/// many for the record become a blob.
pub fn latency(
    subject: &Series,
    percentile: f64,
    inferences_per_query: u64,
    seed: u64,
    blobs: &mut Vec<Vec<u8>>,
) -> Option<Measured> {
    let durations = subject.durations();
    let mut sorted = durations.clone();
    sorted.sort_unstable();
    let (minimum, maximum) = (*sorted.first()?, *sorted.last()?);
    let n = sorted.len();
    let mut percentiles = BTreeMap::new();
    let mut unavailable = BTreeMap::new();
    for (name, p) in PERCENTILES {
        // The median needs no tail; the others are told from as many samples as LoadGen asks for.
        if p > 0.5 && (n as u64) < minimum_queries(p) {
            unavailable.insert(format!("percentiles.{name}"), "TooFewSamples".to_owned());
            continue;
        }
        let Some(value_nanoseconds) = pick(&sorted, p) else { continue };
        let (lower, upper) = order_statistic(n, p, interval::CONFIDENCE);
        for (end, place) in [("lower", lower), ("upper", upper)] {
            if place.is_none() {
                unavailable.insert(format!("percentiles.{name}.{end}Nanoseconds"), "TooFewSamples".to_owned());
            }
        }
        let at = |place: Option<usize>| place.map(|place| sorted[place]);
        percentiles.insert(
            name.to_owned(),
            Percentile { value_nanoseconds, lower_nanoseconds: at(lower), upper_nanoseconds: at(upper) },
        );
    }
    let stopping = early_stopping(percentile, n as u64).ok().and_then(|stopping| {
        Some(EarlyStopping {
            percentile: percentile_name(percentile),
            discarded: stopping.discarded,
            estimate_nanoseconds: stopping.estimate(&sorted)?,
        })
    });
    if stopping.is_none() {
        unavailable.insert("earlyStopping".into(), "TooFewSamples".into());
    }
    if subject.disturbance.waited_nanoseconds.is_none() {
        unavailable.insert("disturbance.waitedNanoseconds".into(), "NotReadable".into());
    }
    if subject.throttled_periods.is_none() {
        unavailable.insert("disturbance.throttledPeriods".into(), "NoQuota".into());
    }
    let kept = packed(&subject.samples, blobs);
    let warmed_up = subject.warmed_up.unwrap_or(crate::lane::protocol::WarmedUp {
        count: 0,
        nanoseconds: 0,
        median_nanoseconds: 0,
        steady: false,
    });
    let as_floats: Vec<f64> = durations.iter().map(|duration| *duration as f64).collect();
    let mean = bootstrap::mean(&as_floats, interval::CONFIDENCE, seed);
    let median = bootstrap::median(&as_floats, interval::CONFIDENCE, seed);
    for (name, missing) in [("mean", mean.is_none()), ("median", median.is_none())] {
        for end in ["Lower", "Upper"].iter().filter(|_| missing) {
            unavailable.insert(format!("{name}{end}Nanoseconds"), "TooFewSamples".into());
        }
    }
    let medians: Vec<f64> = subject.windows.iter().map(|window| window.median_nanoseconds as f64).collect();
    for (field, count) in [("windowVariation", medians.len()), ("autocorrelation", n)] {
        if count < 2 {
            unavailable.insert(field.into(), "TooFewSamples".into());
        }
    }
    let sum: u128 = sorted.iter().map(|n| u128::from(*n)).sum();
    let latency = Latency {
        count: n as u64,
        inferences_per_query,
        sample_every: subject.sample_every.max(1),
        warm_up_count: warmed_up.count,
        warm_up_steady: warmed_up.steady,
        minimum_nanoseconds: minimum,
        maximum_nanoseconds: maximum,
        mean_nanoseconds: ((sum + n as u128 / 2) / n as u128) as u64,
        mean_lower_nanoseconds: mean.map(|mean| mean.lower.round() as u64),
        mean_upper_nanoseconds: mean.map(|mean| mean.upper.round() as u64),
        median_lower_nanoseconds: median.map(|median| median.lower.round() as u64),
        median_upper_nanoseconds: median.map(|median| median.upper.round() as u64),
        window_variation: (medians.len() > 1).then(|| format!("{:.6}", series::coefficient_of_variation(&medians))),
        autocorrelation: (n > 1).then(|| format!("{:.6}", series::autocorrelation(&as_floats, 1))),
        percentile_method: edgeyard_measure::PERCENTILE_METHOD.into(),
        percentiles,
        early_stopping: stopping,
        disturbance: Disturbance {
            involuntary_context_switches: subject.disturbance.involuntary_switches,
            voluntary_context_switches: subject.disturbance.voluntary_switches,
            minor_page_faults: subject.disturbance.minor_faults,
            major_page_faults: subject.disturbance.major_faults,
            waited_nanoseconds: subject.disturbance.waited_nanoseconds,
            throttled_periods: subject.throttled_periods,
        },
        unavailable,
        windows: subject.windows.clone(),
        samples: Some(kept),
    };
    Some(Measured { latency, movement: series::movement(&durations), modes: series::two_modes(&durations) })
}

/// Samples as they stand in a record; too many of them are a blob of their own.
pub fn packed(all: &[Sample], blobs: &mut Vec<Vec<u8>>) -> Samples {
    let packed = samples::pack(all);
    if packed.len() <= LARGEST_INLINE {
        return Samples { encoding: samples::ENCODING.into(), data: Some(samples::to_text(&packed)), digest: None };
    }
    let digest = Some(edgeyard_record::digest(&packed));
    blobs.push(packed);
    Samples { encoding: samples::BLOB_ENCODING.into(), data: None, digest }
}
