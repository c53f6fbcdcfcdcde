//! Computes an EdgeBenchmark's status from what was seen. Pure; written in one go at the end.

use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::benchmark_status::{EdgeBenchmarkStatus, ResolvedArtifact, RunCounts, Skipped};
use edgeyard_crds::conditions::{READY, STALLED};
use edgeyard_crds::descriptor::Descriptor;
use edgeyard_crds::optimization_status::Phase;
use edgeyard_crds::run::BenchmarkRun;
use edgeyard_plan::benchmark::{Benchmark, Pairs, Summary};
use edgeyard_plan::{Refusal, reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::frame::clock::Timestamp;
use crate::frame::names::condition;
use crate::frame::{Conditions, conditions};

/// So many pairs that were left out fit into a status.
const MAX_SKIPPED: usize = 18;

/// A status in the making.
#[derive(Clone, Debug)]
pub struct Draft {
    status: EdgeBenchmarkStatus,
    conditions: Conditions,
    now: Timestamp,
}

impl Draft {
    /// Starts from the status that the object has.
    pub fn new(object: &EdgeBenchmark, now: Timestamp) -> Self {
        let generation = object.metadata.generation;
        let mut status = object.status.clone().unwrap_or_else(empty);
        status.observed_generation = generation.unwrap_or(-1);
        let conditions = Conditions::from_old(&status.conditions, generation, now);
        Self { status, conditions, now }
    }

    /// Notes when work started.
    pub fn begin(&mut self) {
        self.status.start_time.get_or_insert(Time(self.now));
        self.status.phase.get_or_insert(Phase::Pending);
    }

    /// When work started, in Unix seconds.
    pub fn started(&self) -> i64 {
        self.status.start_time.as_ref().map_or(self.now, |time| time.0).as_second()
    }

    /// Whether the models are pinned.
    pub fn is_resolved(&self) -> bool {
        !self.status.resolved_artifacts.is_empty()
    }

    /// The artefacts that are pinned.
    pub fn resolved(&self) -> &[ResolvedArtifact] {
        &self.status.resolved_artifacts
    }

    /// The pairs that were left out.
    pub fn skipped(&self) -> &[Skipped] {
        &self.status.skipped
    }

    /// How many runs there will be.
    pub fn planned(&self) -> usize {
        self.status.runs.as_ref().and_then(|runs| usize::try_from(runs.total).ok()).unwrap_or(0)
    }

    /// Pins the artefacts and says what is left out.
    pub fn resolve(&mut self, artifacts: Vec<ResolvedArtifact>, found: &Pairs) {
        let (variants, total) = (artifacts.len(), found.runs.len());
        self.status.resolved_artifacts = artifacts;
        self.status.skipped = found.skipped.iter().take(MAX_SKIPPED).cloned().collect();
        self.status.skipped_count = i32::try_from(found.skipped.len()).ok();
        let total = i32::try_from(total).unwrap_or(i32::MAX);
        let runs = RunCounts { total, queued: total, summary: format!("0/{total}"), ..RunCounts::default() };
        self.status.runs = Some(runs);
        self.status.phase = Some(Phase::Running);
        let message = format!("{variants} artefacts are pinned by digest");
        self.conditions.set(condition::MODELS_RESOLVED, true, reason::MODELS_RESOLVED, message);
        self.conditions.progressing(reason::MODELS_RESOLVED, format!("{total} runs are being made"));
    }

    /// Something is waited for before models are pinned.
    pub fn wait(&mut self, why: &Refusal, stuck: bool) {
        self.status.phase = Some(Phase::Pending);
        self.conditions.set(condition::MODELS_RESOLVED, false, &why.reason, &*why.message);
        if stuck {
            self.conditions.blocked(&why.reason, &*why.message);
        } else {
            self.conditions.progressing(&why.reason, &*why.message);
        }
    }

    /// Suspended before anything was measured.
    pub fn suspended(&mut self) {
        self.status.phase = Some(Phase::Suspended);
        self.conditions.blocked(reason::SUSPENDED, "suspended by spec.suspend: set it to false to go on");
    }

    /// Writes down what the runs found and where they are.
    pub fn describe(&mut self, plan: &Benchmark, seen: &Summary, runs: &[BenchmarkRun], obstacle: Option<&Refusal>) {
        let Summary { counts, results, result_count, ended: _, failures: _ } = seen;
        // Cancelling leaves runs unmade; the total stays what was planned.
        let planned = i32::try_from(self.planned()).unwrap_or(0);
        self.status.runs = Some(RunCounts { total: counts.total.max(planned), ..counts.clone() });
        self.status.results.clone_from(results);
        self.status.result_count = Some(*result_count);
        if plan.suspend && counts.active == 0 {
            self.suspended();
            return;
        }
        self.status.phase = Some(Phase::Running);
        let under_way = || {
            let RunCounts { total, queued, active, succeeded, failed, summary: _ } = counts;
            format!("{} of {total} runs have ended, {active} are measuring, {queued} wait", succeeded + failed)
        };
        match obstacle.cloned().or_else(|| stuck(runs)) {
            Some(why) if counts.active == 0 => {
                self.conditions.blocked(&why.reason, format!("{}; {}", why.message, under_way()));
            }
            _ => {
                self.conditions.progressing(reason::RUNNING, under_way());
            }
        }
    }

    /// Something failed on the way.
    pub fn trouble(&mut self, why: &Refusal) {
        self.status.phase.get_or_insert(Phase::Pending);
        if why.reason == reason::STORE_UNAVAILABLE {
            self.conditions.progressing(&why.reason, &*why.message);
        } else {
            self.conditions.blocked(&why.reason, &*why.message);
        }
    }

    /// It ended without a result.
    pub fn fail(&mut self, why: &Refusal) {
        self.status.phase = Some(Phase::Failed);
        self.status.completion_time.get_or_insert(Time(self.now));
        if !self.is_resolved() {
            self.conditions.set(condition::MODELS_RESOLVED, false, &why.reason, &*why.message);
        }
        self.conditions.failed(&why.reason, &*why.message);
    }

    /// All runs ended.
    pub fn end(&mut self, result: Result<String, Refusal>, record: Option<Descriptor>) {
        self.status.record = record;
        match result {
            Ok(message) => {
                self.status.phase = Some(Phase::Succeeded);
                self.status.completion_time.get_or_insert(Time(self.now));
                self.conditions.complete(reason::RUNS_SUCCEEDED, message);
            }
            Err(why) => self.fail(&why),
        }
    }

    /// The status to write.
    pub fn into_status(self) -> EdgeBenchmarkStatus {
        EdgeBenchmarkStatus { conditions: self.conditions.into_list(), ..self.status }
    }
}

/// The first run that waits for somebody to act.
fn stuck(runs: &[BenchmarkRun]) -> Option<Refusal> {
    runs.iter().find_map(|run| {
        let status = run.status.as_ref()?;
        let over = matches!(status.phase, Some(Phase::Succeeded | Phase::Failed));
        if over || !conditions::is_true(&status.conditions, STALLED) {
            return None;
        }
        let ready = conditions::find(&status.conditions, READY)?;
        Some(Refusal { reason: ready.reason.clone(), message: format!("{}: {}", run.name_any(), ready.message) })
    })
}

fn empty() -> EdgeBenchmarkStatus {
    EdgeBenchmarkStatus {
        observed_generation: -1,
        phase: None,
        start_time: None,
        completion_time: None,
        resolved_artifacts: Vec::new(),
        runs: None,
        result_count: None,
        results: Vec::new(),
        skipped: Vec::new(),
        skipped_count: None,
        record: None,
        conditions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use edgeyard_crds::conditions::COMPLETE;
    use edgeyard_plan::benchmark::{summary, validate};

    use super::*;
    use crate::frame::conditions::{find, is_true};

    const MINIMAL: &str = r"
apiVersion: edgeyard.dev/v1alpha1
kind: EdgeBenchmark
metadata: {name: mnist, namespace: vision, uid: 19ab0000-0000-4000-8000-000000000000, generation: 1}
spec:
  models: [{name: mnist, modelOptimization: {name: mnist-cnn}}]
  devices: [{name: m4, deviceClassName: qemu-cortex-m4}]
";

    fn run(status: &str) -> BenchmarkRun {
        serde_yaml::from_str(&format!(
            "{{apiVersion: edgeyard.dev/v1alpha1, kind: BenchmarkRun, metadata: {{name: r}}, spec: {{benchmarkName: b, device: {{name: m4, deviceClassName: c}}, variants: []}}, status: {status}}}"
        ))
        .unwrap()
    }

    #[test]
    fn what_keeps_a_run_waiting_is_said_by_its_benchmark() {
        let object: EdgeBenchmark = serde_yaml::from_str(MINIMAL).unwrap();
        let plan = validate(object.spec.clone()).unwrap();
        let condition = |type_: &str, status: &str| {
            format!(
                "{{type: {type_}, status: '{status}', reason: NamespaceNotAllowed, message: ask the lab, lastTransitionTime: '2026-11-23T09:00:00Z'}}"
            )
        };
        let waiting = run(&format!(
            "{{phase: Pending, conditions: [{}, {}]}}",
            condition(STALLED, "True"),
            condition(READY, "False")
        ));
        let mut draft = Draft::new(&object, Timestamp::from_second(1).unwrap());
        let runs = [waiting];
        draft.describe(&plan, &summary(&plan, 1, &runs), &runs, None);
        let status = draft.into_status();
        let ready = find(&status.conditions, READY).unwrap();
        assert_eq!(ready.reason, "NamespaceNotAllowed");
        assert!(ready.message.starts_with("r: ask the lab; 0 of 1 runs"), "{}", ready.message);
        assert!(!is_true(&status.conditions, COMPLETE));
    }
}
