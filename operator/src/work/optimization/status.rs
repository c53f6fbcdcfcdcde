//! Computes a ModelOptimization's status from what was seen. Pure; written in one go at the end.

use edgeyard_crds::descriptor::Descriptor;
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::optimization_status::{Artifact, ArtifactState, ModelOptimizationStatus, Phase, ResolvedInput};
use edgeyard_crds::scalars::{Digest, Key, Reason, TargetName};
use edgeyard_plan::optimization::{End, Optimization, Settled, best, counts, headline, retry_at};
use edgeyard_plan::{Refusal, reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::frame::Conditions;
use crate::frame::clock::Timestamp;

use super::dereference::{Seen, SeenArtifact};

/// A status in the making.
#[derive(Clone, Debug)]
pub struct Draft {
    status: ModelOptimizationStatus,
    conditions: Conditions,
    now: Timestamp,
}

impl Draft {
    /// Starts from the status that the object has.
    pub fn new(object: &ModelOptimization, now: Timestamp) -> Self {
        let generation = object.metadata.generation;
        let mut status = object.status.clone().unwrap_or_else(empty);
        status.observed_generation = generation.unwrap_or(-1);
        let conditions = Conditions::from_old(&status.conditions, generation, now);
        Self { status, conditions, now }
    }

    /// Notes when work started. Being suspended stops the clock: the deadline starts again with the work.
    pub fn begin(&mut self, suspend: bool) {
        if suspend {
            self.status.start_time = None;
        } else if self.status.start_time.is_none() {
            self.status.start_time = Some(Time(self.now));
        }
    }

    /// When work started, in Unix seconds; now if it has not.
    pub fn started(&self) -> i64 {
        self.status.start_time.as_ref().map_or(self.now, |time| time.0).as_second()
    }

    /// The artefacts as they are written.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.status.artifacts
    }

    /// Writes down what was seen of inputs and artefacts, and what is under way.
    pub fn describe(&mut self, plan: &Optimization, seen: &Seen) {
        if let Some(digests) = &seen.digests {
            self.status.resolved_inputs = plan
                .inputs
                .iter()
                .filter_map(|input| {
                    let digest = Digest(digests.get(&input.name)?.clone());
                    Some(ResolvedInput { name: Key(input.name.clone()), digest })
                })
                .collect();
        }
        self.status.artifacts = plan
            .artifacts
            .iter()
            .zip(&seen.artifacts)
            .map(|(planned, seen)| artifact(&planned.variant, &planned.target, seen))
            .collect();
        let counts = counts(&self.status.artifacts);
        self.status.artifact_counts = Some(counts);
        self.status.best = best(&plan.objective, &self.status.artifacts);
        self.status.headline = headline(&self.status.artifacts, &self.status.best);
        let idle = counts.active == 0 && !seen.inputs.task.active;
        if plan.suspend {
            self.status.phase = Some(Phase::Suspended);
            self.conditions.blocked(reason::SUSPENDED, "suspended by spec.suspend: set it to false to go on");
            return;
        }
        let nothing_yet = idle && counts.verified + counts.rejected + counts.failed == 0;
        self.status.phase = Some(if nothing_yet { Phase::Pending } else { Phase::Running });
        if let Some(why) = seen.problem() {
            self.conditions.blocked(&why.reason, &*why.message);
        } else if seen.inputs.task.settled.is_none() {
            let message = match retry(&seen.inputs.task) {
                Some(retry) => retry,
                None => "inputs are being brought into the store".to_owned(),
            };
            self.conditions.progressing(reason::IMPORTING, message);
        } else {
            let settled = counts.verified + counts.rejected + counts.failed;
            let mut message =
                format!("{settled} of {} artefacts are settled, {} are being made", counts.total, counts.active);
            if let Some(retry) = seen.artifacts.iter().find_map(|seen| retry(&seen.task)) {
                message = format!("{message}; {retry}");
            }
            self.conditions.progressing(reason::OPTIMIZING, message);
        }
    }

    /// Nothing happens until somebody acts.
    pub fn block(&mut self, why: &Refusal) {
        self.status.phase = Some(Phase::Pending);
        self.conditions.blocked(&why.reason, &*why.message);
    }

    /// Something failed on the way. A store that is away comes back by itself; a quota does not.
    pub fn trouble(&mut self, why: &Refusal, passes: bool) {
        self.status.phase.get_or_insert(Phase::Pending);
        if passes && why.reason == reason::STORE_UNAVAILABLE {
            self.conditions.progressing(&why.reason, &*why.message);
        } else {
            self.conditions.blocked(&why.reason, &*why.message);
        }
    }

    /// It ended without a result.
    pub fn fail(&mut self, why: &Refusal) {
        self.status.phase = Some(Phase::Failed);
        self.status.completion_time.get_or_insert(Time(self.now));
        self.conditions.failed(&why.reason, &*why.message);
        for artifact in &mut self.status.artifacts {
            if matches!(artifact.state, ArtifactState::Pending | ArtifactState::Active) {
                artifact.state = ArtifactState::Failed;
                artifact.reason = Some(Reason(why.reason.clone()));
            }
        }
        if !self.status.artifacts.is_empty() {
            self.status.artifact_counts = Some(counts(&self.status.artifacts));
            self.status.headline = headline(&self.status.artifacts, &self.status.best);
        }
    }

    /// It ended.
    pub fn end(&mut self, end: End, report: Option<Descriptor>) {
        self.status.report = report;
        match end {
            End::Complete { reason, message } => {
                self.status.phase = Some(Phase::Succeeded);
                self.status.completion_time.get_or_insert(Time(self.now));
                self.conditions.complete(reason, message);
            }
            End::Failed(why) => self.fail(&why),
        }
    }

    /// All digests that the status names: what the store has to keep.
    pub fn digests(status: &ModelOptimizationStatus) -> std::collections::BTreeSet<String> {
        let inputs = status.resolved_inputs.iter().map(|input| input.digest.0.clone());
        let artifacts = status.artifacts.iter().filter_map(|artifact| artifact.digest.as_ref().map(|d| d.0.clone()));
        let report = status.report.as_ref().map(|report| report.digest.0.clone());
        inputs.chain(artifacts).chain(report).collect()
    }

    /// The status to write.
    pub fn into_status(self) -> ModelOptimizationStatus {
        ModelOptimizationStatus { conditions: self.conditions.into_list(), ..self.status }
    }
}

fn artifact(variant: &str, target: &str, seen: &SeenArtifact) -> Artifact {
    if let Some(made) = &seen.made {
        return made.clone();
    }
    let (state, why) = match &seen.task.settled {
        Some(Settled::Failed(why) | Settled::Rejected(why)) => (ArtifactState::Failed, Some(why)),
        // Settled as done it has a report, and so an entry above.
        Some(Settled::Done) | None if seen.task.active => (ArtifactState::Active, seen.problem.as_ref()),
        Some(Settled::Done) | None => (ArtifactState::Pending, seen.task.failure.as_ref()),
    };
    let why = why.map(|why| Reason(why.reason.clone()));
    Artifact::bare(Key(variant.to_owned()), TargetName(target.to_owned()), state, why)
}

/// What to say about a task that waits to be tried again.
fn retry(task: &edgeyard_plan::optimization::Task) -> Option<String> {
    let why = task.failure.as_ref().filter(|_| !task.active && task.settled.is_none())?;
    let at = Timestamp::from_second(retry_at(task.failed_attempts, task.failed_at?)).ok()?;
    Some(format!(
        "attempt {} failed: {}: {}; the next one starts at {at}",
        task.failed_attempts, why.reason, why.message
    ))
}

fn empty() -> ModelOptimizationStatus {
    ModelOptimizationStatus {
        observed_generation: -1,
        phase: None,
        start_time: None,
        completion_time: None,
        resolved_inputs: Vec::new(),
        artifact_counts: None,
        artifacts: Vec::new(),
        best: Vec::new(),
        headline: None,
        report: None,
        conditions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use edgeyard_crds::conditions::{COMPLETE, FAILED, READY, STALLED};
    use edgeyard_plan::optimization::{Task, validate};

    use super::*;
    use crate::frame::conditions::{find, is_true};
    use crate::work::inputs::SeenInputs;

    const MINIMAL: &str = r"
apiVersion: edgeyard.dev/v1alpha1
kind: ModelOptimization
metadata: {name: mnist, namespace: vision, uid: 19ab0000-0000-4000-8000-000000000000, generation: 3}
spec:
  source: {format: ONNX, artifact: {digest: 'sha256:51c2000000000000000000000000000000000000000000000000000000000000'}}
  variants:
  - {name: fp32, targets: [ort-x86, litert], passes: []}
";

    fn object() -> ModelOptimization {
        serde_yaml::from_str(MINIMAL).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(tasks: [Task; 2]) -> Seen {
        Seen {
            inputs: SeenInputs { task: Task::done(), ..SeenInputs::default() },
            digests: Some([("source".to_owned(), "sha256:51c2".to_owned())].into()),
            jobs: Vec::new(),
            artifacts: tasks.map(|task| SeenArtifact { task, made: None, problem: None }).to_vec(),
        }
    }

    #[test]
    fn what_is_under_way_is_said() {
        let object = object();
        let plan = validate(object.spec.clone()).unwrap();
        let mut draft = Draft::new(&object, at(100));
        draft.begin(false);
        let failed = Task {
            failed_attempts: 1,
            failed_at: Some(100),
            failure: Some(Refusal::new("Crashed", "boom")),
            ..Task::default()
        };
        draft.describe(&plan, &seen([Task { active: true, ..Task::default() }, failed]));
        let status = draft.into_status();
        assert_eq!((status.observed_generation, status.phase), (3, Some(Phase::Running)));
        assert_eq!(status.artifact_counts.unwrap().active, 1);
        assert_eq!(status.resolved_inputs[0].digest.0, "sha256:51c2");
        let ready = find(&status.conditions, READY).unwrap();
        assert_eq!(ready.reason, reason::OPTIMIZING);
        assert!(
            ready.message.ends_with("attempt 1 failed: Crashed: boom; the next one starts at 1970-01-01T00:01:50Z"),
            "{}",
            ready.message
        );
    }

    #[test]
    fn suspending_stops_the_clock() {
        let mut object = object();
        let mut draft = Draft::new(&object, at(100));
        draft.begin(false);
        object.status = Some(draft.into_status());
        let mut later = Draft::new(&object, at(500));
        assert_eq!(later.started(), 100);
        later.begin(true);
        assert_eq!(later.started(), 500);
    }

    #[test]
    fn an_end_is_kept_and_follows_the_generation() {
        let mut object = object();
        let plan = validate(object.spec.clone()).unwrap();
        let mut draft = Draft::new(&object, at(100));
        draft.describe(&plan, &seen([Task { active: true, ..Task::default() }, Task::default()]));
        draft.end(End::Failed(Refusal::new(reason::DEADLINE_EXCEEDED, "late")), None);
        let status = draft.into_status();
        assert!(is_true(&status.conditions, FAILED) && is_true(&status.conditions, STALLED));
        assert_eq!(status.artifact_counts.unwrap().failed, 2, "what was left fails with it");
        object.status = Some(status.clone());
        object.metadata.generation = Some(4);
        let again = Draft::new(&object, at(900)).into_status();
        assert_eq!(again.completion_time, status.completion_time);
        assert!(again.conditions.iter().all(|condition| condition.observed_generation == Some(4)));
        assert!(!is_true(&again.conditions, COMPLETE));
    }
}
