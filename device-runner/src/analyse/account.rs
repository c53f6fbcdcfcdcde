//! What can be told from LoadGen's account of a run, and what is null for want of latencies.

use std::collections::BTreeMap;

use clap::ValueEnum as _;

use super::loadgen::Summary;
use super::{Analysis, Scenario, Stopping, name, stopping, too_few, wanted};
use crate::validity;

/// What can be told from LoadGen's account of a run, which holds no latencies.
pub fn of_summary(summary: &Summary, asked: Option<Scenario>, percentile: Option<f64>) -> Analysis {
    let Summary { format, queries, over, mean, minimum, maximum, .. } = summary;
    let named = summary.scenario.as_deref().and_then(|name| Scenario::from_str(name, true).ok());
    let scenario = asked.or(named).unwrap_or(Scenario::SingleStream);
    let percentile = percentile.or(scenario.percentile().and(summary.percentile)).or(scenario.percentile());
    const NO_SAMPLES: &str = "NoLatencies: the file holds none; analyse the run's trace or your own list of latencies";
    let mut unavailable = BTreeMap::new();
    let (mut percentiles, mut intervals) = (BTreeMap::new(), BTreeMap::new());
    for (name, p) in wanted(percentile) {
        let value = summary.percentiles.get(&name).copied();
        let reason = match (value, queries) {
            (None, _) => Some("NotInFile: the file does not have it".to_owned()),
            (Some(_), None) => Some("UnknownCount: the file does not say how many queries there were".to_owned()),
            (Some(_), Some(n)) => too_few(*n, p),
        };
        percentiles.insert(name.clone(), value.filter(|_| reason.is_none()));
        if let Some(reason) = reason {
            unavailable.insert(format!("percentiles.{name}"), reason);
        }
        unavailable.insert(format!("intervals.{name}"), NO_SAMPLES.into());
        intervals.insert(name, None);
    }
    for field in ["mean", "median"] {
        intervals.insert(field.into(), None);
        unavailable.insert(format!("intervals.{field}"), NO_SAMPLES.into());
    }
    for (field, value) in [("mean", mean), ("minimum", minimum), ("maximum", maximum)] {
        if value.is_none() {
            unavailable.insert(field.into(), "NotInFile: the file does not have it".into());
        }
    }
    if queries.is_none() {
        unavailable.insert("n".into(), "UnknownCount: the file does not say how many queries there were".into());
    }
    unavailable.insert("windowVariation".into(), NO_SAMPLES.into());
    unavailable.insert("autocorrelation".into(), NO_SAMPLES.into());
    let mut early_stopping = stopping(percentile, *queries, &mut unavailable);
    let mut verdict = Verdict::default();
    if let (Scenario::Server, Some(p), Some(n), Some(over)) = (scenario, percentile, *queries, *over) {
        // LoadGen judges a Server run by its bound and estimates nothing.
        early_stopping.met = Some(edgeyard_measure::early_stopping::keeps_bound(p, n, over));
        if early_stopping.met == Some(false) {
            let advice = format!("{over} of {n} queries were above the bound: lower the rate, or issue more queries");
            verdict.add(true, "BoundNotKept", advice);
        }
    }
    // Whoever asks for another percentile than the run's has no estimate of it.
    early_stopping.estimate = percentile.and_then(|p| summary.estimates.get(&name(p)).copied());
    if early_stopping.estimate.is_none() {
        let reason = "NotInFile: the file has no estimate of this percentile".to_owned();
        unavailable.entry("earlyStopping.estimate".into()).or_insert(reason);
    }
    verdict.judge(summary, percentile, &early_stopping);
    let Verdict { invalid, reasons, recommendations } = verdict;
    Analysis {
        n: *queries,
        unit: "ns",
        format,
        scenario: asked.map(|scenario| format!("{scenario:?}")).or_else(|| summary.scenario.clone()),
        percentile_method: edgeyard_measure::PERCENTILE_METHOD,
        percentiles,
        early_stopping,
        intervals,
        mean: *mean,
        minimum: *minimum,
        maximum: *maximum,
        window_variation: None,
        autocorrelation: None,
        validity: if invalid { validity::INVALID } else { validity::INCONCLUSIVE }.into(),
        reasons,
        recommendations,
        unavailable,
    }
}

#[derive(Default)]
struct Verdict {
    invalid: bool,
    reasons: Vec<String>,
    recommendations: Vec<String>,
}

impl Verdict {
    fn add(&mut self, invalid: bool, reason: &str, recommendation: String) {
        self.invalid |= invalid;
        self.reasons.push(reason.into());
        self.recommendations.push(recommendation);
    }

    fn judge(&mut self, summary: &Summary, percentile: Option<f64>, early_stopping: &Stopping) {
        let Summary { queries, discarded, valid, why, errors, .. } = summary;
        if *valid == Some(false) {
            let why = if why.is_empty() { "it does not say why".to_owned() } else { why.join("; ") };
            self.add(true, "LoadGenInvalid", format!("LoadGen calls the run invalid: {why}"));
        }
        if !errors.is_empty() {
            self.add(true, "LoadGenErrors", format!("LoadGen logged errors: {}", errors.join("; ")));
        }
        if let (Some(p), Some(n)) = (percentile, queries)
            && let Some(needed) = early_stopping.minimum_n.filter(|needed| n < needed)
        {
            self.add(false, "TooFewSamples", format!("{n} queries: p{} needs at least {needed}", name(p)));
        }
        // Only if it is about the same percentile.
        if let (Some(theirs), Some(ours)) = (discarded, early_stopping.discarded)
            && percentile == summary.percentile.or(percentile)
            && *theirs != ours
        {
            let advice =
                format!("LoadGen would discard {theirs} queries, by its rule it is {ours}: check which log this is");
            self.add(false, "EarlyStoppingDiffers", advice);
        }
        if valid.is_some() && summary.percentiles.is_empty() && percentile.is_some() {
            let advice = "the log has a verdict but no percentiles: it seems cut off".into();
            self.add(false, "LogIncomplete", advice);
        }
        let advice = "whether the run was steady cannot be told without latencies: analyse its trace or your own list";
        self.add(false, "NoLatencies", advice.into());
    }
}
