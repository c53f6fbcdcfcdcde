//! From runs to the benchmark's status: how many are where, what they found, and the document that lists their records.

use edgeyard_crds::benchmark_status::{ResultHeadline, RunCounts, Skipped};
use edgeyard_crds::conditions::FAILED;
use edgeyard_crds::optimization_status::Phase;
use edgeyard_crds::run::{BenchmarkRun, RunStep};
use serde::{Deserialize, Serialize};

use crate::{Refusal, reason};

use super::Benchmark;

/// Media type of a [`BenchmarkRecord`].
pub const BENCHMARK_MEDIA_TYPE: &str = "application/vnd.edgeyard.benchmark.v1+json";
/// So many headlines fit into a status.
const MAX_HEADLINES: usize = 16;

/// What is seen of a benchmark's runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How many are where.
    pub counts: RunCounts,
    /// The first headlines, in the order of `spec.models` and `spec.devices`.
    pub results: Vec<ResultHeadline>,
    /// How many headlines there are in all.
    pub result_count: i32,
    /// Whether every run has ended.
    pub ended: bool,
    /// Runs without a record: name and why.
    pub failures: Vec<(String, Refusal)>,
}

/// Sums up the runs. `planned` is how many there will be.
pub fn summary(benchmark: &Benchmark, planned: usize, runs: &[BenchmarkRun]) -> Summary {
    let mut counts = RunCounts { total: count(planned.max(runs.len())), ..RunCounts::default() };
    let mut failures = Vec::new();
    let mut results: Vec<ResultHeadline> = Vec::new();
    for run in runs {
        let Some(status) = &run.status else {
            counts.queued += 1;
            continue;
        };
        match (status.phase, status.step) {
            (Some(Phase::Succeeded), _) => counts.succeeded += 1,
            (Some(Phase::Failed), _) => {
                counts.failed += 1;
                let name = run.metadata.name.clone().unwrap_or_default();
                failures.push((name, failure(run)));
            }
            (Some(Phase::Running), Some(RunStep::Preparing | RunStep::Measuring | RunStep::Releasing)) => {
                counts.active += 1;
            }
            (None | Some(Phase::Pending | Phase::Suspended | Phase::Running), _) => counts.queued += 1,
        }
        results.extend(status.results.iter().cloned());
    }
    counts.summary = format!("{}/{}", counts.succeeded + counts.failed, counts.total);
    let place = |headline: &ResultHeadline| {
        let model = benchmark.models.iter().position(|model| model.name == headline.model.0);
        let device = benchmark.devices.iter().position(|device| device.name == headline.device.0);
        (model, device, headline.unit.0.clone())
    };
    // Stable: the variants of one run keep their order.
    results.sort_by_key(place);
    let result_count = count(results.len());
    results.truncate(MAX_HEADLINES);
    Summary { ended: counts.succeeded + counts.failed == counts.total, counts, results, result_count, failures }
}

fn failure(run: &BenchmarkRun) -> Refusal {
    let conditions = run.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == FAILED).map_or_else(
        || Refusal::new(reason::RUNS_FAILED, "ended without a condition"),
        |failed| Refusal { reason: failed.reason.clone(), message: failed.message.clone() },
    )
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// How a benchmark ends once all its runs have.
pub fn run_result(summary: &Summary) -> Result<String, Refusal> {
    let Summary { counts, result_count, failures, .. } = summary;
    if failures.is_empty() {
        return Ok(format!("{} of {} runs have a record, with {result_count} results", counts.succeeded, counts.total));
    }
    let listed: Vec<_> =
        failures.iter().take(3).map(|(name, why)| format!("{name}: {}: {}", why.reason, why.message)).collect();
    let more = if failures.len() > 3 { format!("; and {} more", failures.len() - 3) } else { String::new() };
    // A single cause is more useful to programs than the general word.
    let same = failures.iter().all(|(_, why)| why.reason == failures[0].1.reason);
    let word = if same { failures[0].1.reason.as_str() } else { reason::RUNS_FAILED };
    Err(Refusal::new(word, format!("{} of {} runs failed: {}{more}", counts.failed, counts.total, listed.join("; "))))
}

/// Lists the records of all runs of a benchmark.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BenchmarkRecord {
    /// `1.0`.
    pub schema_version: String,
    /// Whose it is.
    pub metadata: BenchmarkMetadata,
    /// The runs, in the order of `spec.devices`.
    pub runs: Vec<RecordedRun>,
    /// All pairs that were left out.
    pub skipped: Vec<Skipped>,
}

/// Whose record it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BenchmarkMetadata {
    /// Namespace of the EdgeBenchmark.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A run and its record.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRun {
    /// The BenchmarkRun's name.
    pub name: String,
    /// Its UID, the key of its record.
    pub uid: String,
    /// The attempt that the record is of.
    pub attempt: i32,
    /// The entry in `spec.devices`.
    pub device: String,
    /// The device.
    pub unit: Option<String>,
    /// The record's digest; null if the run failed.
    pub record: Option<String>,
    /// Why there is no record.
    pub failure: Option<String>,
}

/// The document of a finished benchmark.
pub fn benchmark_record(metadata: BenchmarkMetadata, skipped: Vec<Skipped>, runs: &[BenchmarkRun]) -> BenchmarkRecord {
    let recorded = |run: &BenchmarkRun| {
        let status = run.status.as_ref();
        let record = status.and_then(|status| status.record.as_ref()).map(|record| record.digest.0.clone());
        RecordedRun {
            name: run.metadata.name.clone().unwrap_or_default(),
            uid: run.metadata.uid.clone().unwrap_or_default(),
            attempt: status.and_then(|status| status.attempt).unwrap_or(0),
            device: run.spec.device.name.0.clone(),
            unit: status.and_then(|status| status.device_ref.as_ref()).map(|device| device.name.0.clone()),
            failure: record.is_none().then(|| failure(run).reason),
            record,
        }
    };
    BenchmarkRecord { schema_version: "1.0".to_owned(), metadata, runs: runs.iter().map(recorded).collect(), skipped }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{MINIMAL, from_yaml};
    use super::*;

    fn run(name: &str, device: &str, status: &str) -> BenchmarkRun {
        serde_yaml::from_str(&format!(
            r"
apiVersion: edgeyard.dev/v1alpha1
kind: BenchmarkRun
metadata: {{name: {name}, uid: 19ab0000-0000-4000-8000-000000000000}}
spec:
  benchmarkName: b
  device: {{name: {device}, deviceClassName: c}}
  variants: []
status: {status}
"
        ))
        .unwrap()
    }

    fn headline(device: &str) -> String {
        format!("{{model: mnist, variant: v, target: litert, device: {device}, unit: u, fidelity: Emulated}}")
    }

    #[test]
    fn runs_are_counted_and_results_ordered() {
        let plan = from_yaml(MINIMAL).unwrap();
        let done = |device: &str| {
            format!(
                "{{phase: Succeeded, results: [{}], record: {{digest: 'sha256:1', sizeBytes: 1, mediaType: a/b}}}}",
                headline(device)
            )
        };
        let runs = [
            run("b-m4-0", "m4", &done("m4")),
            run("b-host-0", "host", &done("host")),
            run("b-host-1", "host", "{phase: Running, step: Measuring}"),
            run("b-host-2", "host", "{phase: Running, step: Queued}"),
        ];
        let seen = summary(&plan, 5, &runs);
        assert_eq!(seen.counts.summary, "2/5");
        assert_eq!((seen.counts.queued, seen.counts.active, seen.ended), (1, 1, false));
        assert_eq!(seen.results.iter().map(|r| r.device.0.as_str()).collect::<Vec<_>>(), ["host", "m4"]);
    }

    #[test]
    fn one_cause_is_passed_on() {
        let plan = from_yaml(MINIMAL).unwrap();
        let failed = |reason: &str| {
            format!(
                "{{phase: Failed, conditions: [{{type: Failed, status: 'True', reason: {reason}, message: m, lastTransitionTime: '2026-11-23T09:00:00Z'}}]}}"
            )
        };
        let both = |other: &str| {
            let runs = [run("a", "host", &failed("QueueTimeout")), run("b", "m4", &failed(other))];
            run_result(&summary(&plan, 2, &runs)).unwrap_err()
        };
        assert_eq!(both("QueueTimeout").reason, "QueueTimeout");
        assert_eq!(both("Crashed").reason, reason::RUNS_FAILED);
        assert!(both("Crashed").message.contains("a: QueueTimeout: m; b: Crashed: m"));
        let record = benchmark_record(
            BenchmarkMetadata { namespace: "n".into(), name: "b".into(), uid: "u".into() },
            Vec::new(),
            &[run("a", "host", &failed("Crashed"))],
        );
        assert_eq!(record.runs[0].failure.as_deref(), Some("Crashed"));
        assert!(edgeyard_record::canonical_json(&record).is_ok());
    }
}
