//! Whether a record is what was asked for, and the headlines that status shows of it.

use std::collections::BTreeMap;

use edgeyard_crds::benchmark_status::{Fidelity, Metric, ResultHeadline, Unavailable, Validity};
use edgeyard_crds::optimization_status::Accuracy;
use edgeyard_crds::scalars::{Key, ObjectName, Rate, Ratio, Reason, SignedRatio, TargetName};
use edgeyard_record::{Record, VariantResult};

use crate::optimization::signed_ratio;
use crate::{Refusal, reason};

use super::Run;

/// What a run asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Namespace of the BenchmarkRun.
    pub namespace: String,
    /// Its UID.
    pub uid: String,
    /// The attempt.
    pub attempt: u32,
    /// The device that was granted, with its namespace.
    pub device: (String, String),
    /// The lease's token.
    pub fencing_token: i64,
}

/// Checks a record against what was asked for.
///
/// # Errors
/// A [`Refusal`] that says what differs.
pub fn check(run: &Run, expected: &Expected, record: &Record) -> Result<(), Refusal> {
    let Expected { namespace, uid, attempt, device, fencing_token } = expected;
    let found = [
        ("metadata.namespace", record.metadata.namespace.clone(), namespace.clone()),
        ("metadata.name", Some(record.metadata.name.clone()), run.benchmark.clone()),
        ("metadata.uid", record.metadata.uid.clone(), uid.clone()),
        ("metadata.attempt", Some(record.metadata.attempt.to_string()), attempt.to_string()),
        ("device.namespace", record.device.namespace.clone(), device.0.clone()),
        ("device.name", record.device.name.clone(), device.1.clone()),
        ("device.request", record.device.request.clone(), run.request.name.0.clone()),
        ("device.fencingToken", record.device.fencing_token.map(|token| token.to_string()), fencing_token.to_string()),
        ("workload.seed", Some(record.workload.seed.to_string()), run.workload.seed.to_string()),
    ];
    for (field, found, wanted) in found {
        if found.as_deref() != Some(wanted.as_str()) {
            return Err(mismatch(&format!("{field} is {}, not {wanted}", found.as_deref().unwrap_or("null"))));
        }
    }
    if record.results.len() != run.variants.len() {
        return Err(mismatch(&format!("it has {} results, not {}", record.results.len(), run.variants.len())));
    }
    for (found, asked) in record.results.iter().zip(&run.variants) {
        let name = |model: &str, variant: &str, target: &str| format!("{model}/{variant}/{target}");
        let (found_name, asked_name) =
            (name(&found.model, &found.variant, &found.target), name(&asked.model, &asked.variant, &asked.target));
        if found_name != asked_name {
            return Err(mismatch(&format!("it has a result of {found_name} where {asked_name} was asked for")));
        }
        if found.digest != asked.digest {
            return Err(mismatch(&format!("{asked_name} is {}, not {}", found.digest, asked.digest)));
        }
        if let (Some(accuracy), Some(data)) = (&found.accuracy, &run.accuracy)
            && accuracy.dataset_digest != data.digest
        {
            return Err(mismatch(&format!(
                "{asked_name} was scored on {}, not {}",
                accuracy.dataset_digest, data.digest
            )));
        }
    }
    Ok(())
}

fn mismatch(what: &str) -> Refusal {
    Refusal::new(reason::RESULT_MISMATCH, format!("the record is not of this run: {what}"))
}

/// The headlines of a record, in its order. Times of emulated devices mean nothing and are left out whatever it says.
pub fn headlines(record: &Record, fidelity: Fidelity) -> Vec<ResultHeadline> {
    let mut first_of_model: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    record
        .results
        .iter()
        .map(|result| {
            let score = result.accuracy.as_ref().and_then(|accuracy| accuracy.value.parse::<f64>().ok());
            let drop = match first_of_model.get(result.model.as_str()) {
                Some(reference) => reference.zip(score).map(|(reference, own)| reference - own),
                None => {
                    first_of_model.insert(&result.model, score);
                    None
                }
            };
            headline(record, result, fidelity, drop)
        })
        .collect()
}

fn headline(record: &Record, result: &VariantResult, fidelity: Fidelity, drop: Option<f64>) -> ResultHeadline {
    let failure = result.failure.as_ref().map(|failure| word(&failure.reason, "Failed"));
    let percentile = |name: &str| {
        let latency = result.latency.as_ref().filter(|_| fidelity == Fidelity::Hardware)?;
        i64::try_from(latency.percentiles.get(name)?.value_nanoseconds).ok()
    };
    let amount = |amount: Option<u64>| amount.and_then(|amount| i64::try_from(amount).ok());
    let memory = result.peak_memory_bytes.or(result.microcontroller.as_ref().map(|memory| memory.ram_bytes));
    let median = result
        .latency
        .as_ref()
        .filter(|_| fidelity == Fidelity::Hardware)
        .and_then(|latency| latency.percentiles.get("50"));
    let energy = result.energy.as_ref().filter(|_| fidelity == Fidelity::Hardware);
    // What is no share of one, such as a mean error, is in the record only.
    let is_share = |text: &String| text.parse::<f64>().is_ok_and(|value| (0.0..=1.0).contains(&value));
    let share =
        result.accuracy.as_ref().filter(|found| [&found.value, &found.lower, &found.upper].into_iter().all(is_share));
    let accuracy = share.and_then(|found| {
        Some(Accuracy {
            value: Ratio(found.value.clone()),
            lower: Ratio(found.lower.clone()),
            upper: Ratio(found.upper.clone()),
            sample_count: i32::try_from(found.sample_count).ok().filter(|count| *count > 0)?,
        })
    });
    let mut unavailable = Vec::new();
    let mut missing = |metric: Metric, absent: bool, field: &str, otherwise: &str| {
        if absent {
            let why = result.unavailable.get(field).map_or(otherwise, String::as_str);
            unavailable.push(Unavailable { metric, reason: word(why, otherwise) });
        }
    };
    let otherwise = if failure.is_some() { "VariantFailed" } else { "NotMeasured" };
    let latency_p50_nanoseconds = percentile("50");
    let clock = match fidelity {
        Fidelity::Emulated => "EmulatedClock",
        Fidelity::Hardware => otherwise,
    };
    missing(Metric::LatencySeconds, latency_p50_nanoseconds.is_none(), "latency", clock);
    missing(Metric::EnergyJoules, energy.is_none(), "energy", clock);
    missing(Metric::Accuracy, accuracy.is_none(), "accuracy", otherwise);
    missing(
        Metric::InstructionsPerInference,
        result.instructions_per_inference.is_none(),
        "instructionsPerInference",
        "NotCounted",
    );
    missing(Metric::PeakMemoryBytes, memory.is_none(), "peakMemoryBytes", otherwise);
    ResultHeadline {
        model: Key(result.model.clone()),
        variant: Key(result.variant.clone()),
        target: TargetName(result.target.clone()),
        device: Key(record.device.request.clone().unwrap_or_default()),
        unit: ObjectName(record.device.name.clone().unwrap_or_default()),
        fidelity,
        validity: match result.validity.state.as_str() {
            "Valid" => Some(Validity::Valid),
            "Invalid" => Some(Validity::Invalid),
            _ => Some(Validity::Inconclusive),
        },
        failure,
        latency_p50_nanoseconds,
        latency_p90_nanoseconds: percentile("90"),
        latency_p99_nanoseconds: percentile("99"),
        latency_p50_lower_nanoseconds: amount(median.and_then(|median| median.lower_nanoseconds)),
        latency_p50_upper_nanoseconds: amount(median.and_then(|median| median.upper_nanoseconds)),
        samples_per_second: rate(result).filter(|_| fidelity == Fidelity::Hardware),
        energy_gross_nanojoules: amount(energy.map(|energy| energy.gross_nanojoules)),
        energy_net_nanojoules: energy.map(|energy| energy.net_nanojoules),
        energy_meter: energy.map(|energy| meter_name(&energy.meter)),
        instructions_per_inference: amount(result.instructions_per_inference),
        peak_memory_bytes: amount(memory),
        accuracy,
        accuracy_drop: drop.map(|drop| SignedRatio(signed_ratio(drop))),
        unavailable,
    }
}

/// Samples a second: all of them in `Offline` and `Tiny`, what kept the bound in `Server`.
fn rate(result: &VariantResult) -> Option<Rate> {
    let served = result.server.as_ref().and_then(|server| server.highest_queries_per_second.clone());
    let text = served.or_else(|| Some(result.throughput.as_ref()?.samples_per_second.clone()))?;
    let value: f64 = text.parse().ok().filter(|value| (0.0..1e15).contains(value))?;
    Some(Rate(format!("{value:.6}")))
}

/// A meter's name as the API server takes it; a command's words are only in the record.
fn meter_name(meter: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "-_./:".contains(*c);
    meter.chars().take_while(fits).take(48).collect()
}

/// A reason that the API server takes: the record's own if it has the shape.
fn word(found: &str, otherwise: &str) -> Reason {
    let head = found.split([':', ' ']).next().unwrap_or_default();
    let fits = head.len() <= 40
        && head.starts_with(|c: char| c.is_ascii_uppercase())
        && head.chars().all(|c| c.is_ascii_alphanumeric());
    Reason(if fits { head } else { otherwise }.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::{MINIMAL, from_yaml};
    use super::*;
    use serde_json::json;

    pub(crate) fn record() -> Record {
        let result = |variant: &str, digest: &str, score: &str| {
            json!({
                "model": "mnist", "variant": variant, "target": "litert", "format": "TFLite", "digest": digest,
                "sizeBytes": 10, "settings": {}, "outcome": "Succeeded", "failure": null,
                "latency": {
                    "count": 9, "warmUpCount": 1, "warmUpSteady": true, "disturbance": {"involuntaryContextSwitches": 0, "voluntaryContextSwitches": 0, "minorPageFaults": 0, "majorPageFaults": 0}, "minimumNanoseconds": 1, "maximumNanoseconds": 9, "meanNanoseconds": 5,
                    "percentileMethod": "floor", "percentiles": {"50": {"valueNanoseconds": 5, "lowerNanoseconds": null, "upperNanoseconds": null}},
                    "unavailable": {}, "windows": [], "samples": null
                },
                "loadNanoseconds": 1, "firstInferenceNanoseconds": 1, "instructionsPerInference": null, "operators": null,
                "peakMemoryBytes": 100, "microcontroller": null,
                "accuracy": {"metric": "Top1Accuracy", "value": score, "lower": "0.9", "upper": "1.0", "sampleCount": 10, "correct": 9, "datasetDigest": "sha256:9e"},
                "outputDigest": null, "validity": {"state": "Valid", "reasons": [], "recommendations": []},
                "unavailable": {"instructionsPerInference": "NoCounter: this CPU has none"}
            })
        };
        serde_json::from_value(json!({
            "schemaVersion": "1.0", "unavailable": {},
            "metadata": {"namespace": "vision", "name": "mnist-4f2a9c1", "uid": "u", "attempt": 2, "startedAt": "t", "finishedAt": "t", "unavailable": {}},
            "device": {"name": "m4-0", "namespace": "lab", "class": "c", "request": "m4", "fidelity": "Hardware", "fencingToken": 7, "unavailable": {}},
            "workload": {"scenario": "SingleStream", "profile": "Quick", "seed": 0, "threads": 1},
            "environment": {"fingerprintDigest": "sha256:0", "fingerprint": {}, "runtimes": {}, "settings": {}, "unavailable": {}},
            "harness": {"name": "h", "version": "v", "clock": "c", "clockOverheadNanoseconds": 1, "unavailable": {}},
            "phases": [],
            "results": [result("fp32", "sha256:f1", "0.980000"), result("int8", "sha256:c7", "0.981000")],
            "validity": {"state": "Valid", "reasons": [], "recommendations": []}
        }))
        .unwrap()
    }

    fn expected() -> Expected {
        Expected {
            namespace: "vision".into(),
            uid: "u".into(),
            attempt: 2,
            device: ("lab".into(), "m4-0".into()),
            fencing_token: 7,
        }
    }

    #[test]
    fn every_field_that_could_be_another_runs_is_checked() {
        type Change = fn(&mut Record);
        let run = from_yaml(MINIMAL).unwrap();
        check(&run, &expected(), &record()).unwrap();
        let changes: [(&str, Change); 7] = [
            ("metadata.uid", |r| r.metadata.uid = None),
            ("metadata.attempt", |r| r.metadata.attempt = 1),
            ("device.name", |r| r.device.name = Some("m4-1".into())),
            ("device.fencingToken", |r| r.device.fencing_token = Some(6)),
            ("sha256:00", |r| r.results[1].digest = "sha256:00".into()),
            ("1 results", |r| drop(r.results.pop())),
            ("scored on", |r| r.results[0].accuracy.as_mut().unwrap().dataset_digest = "sha256:1".into()),
        ];
        for (part, change) in changes {
            let mut changed = record();
            change(&mut changed);
            let refusal = check(&run, &expected(), &changed).unwrap_err();
            assert!(refusal.message.contains(part), "{refusal}");
        }
    }

    #[test]
    fn headlines_compare_with_the_first_variant() {
        let list = headlines(&record(), Fidelity::Hardware);
        assert_eq!(list[0].accuracy_drop, None);
        assert_eq!(list[1].accuracy_drop.as_ref().unwrap().0, "-0.0010");
        assert_eq!((list[0].latency_p50_nanoseconds, list[0].latency_p90_nanoseconds), (Some(5), None));
        let missing: Vec<_> =
            list[0].unavailable.iter().map(|missing| (missing.metric, missing.reason.0.as_str())).collect();
        assert_eq!(missing, [(Metric::EnergyJoules, "NotMeasured"), (Metric::InstructionsPerInference, "NoCounter")]);
    }

    #[test]
    fn emulated_times_are_never_shown() {
        let list = headlines(&record(), Fidelity::Emulated);
        assert!(list.iter().all(|headline| headline.latency_p50_nanoseconds.is_none()));
        assert_eq!(list[0].unavailable[0].reason.0, "EmulatedClock");
    }
}
