//! Reads all that is known of a ModelOptimization: inputs, jobs, reports.

use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::optimization_status::{Artifact, ArtifactState};
use edgeyard_job::report::Optimized;
use edgeyard_plan::optimization::{
    Observed, Optimization, PlannedArtifact, SOURCE, Settled, Task, artifact, check_report,
};
use edgeyard_plan::outcome::Outcome;
use edgeyard_plan::{Refusal, jobs::Digests, names, reason};
use kube::ResourceExt as _;

use crate::frame::names::label;
use crate::frame::{Context, Error};
use crate::work::inputs::{self, SeenInputs};
use crate::work::observe::{self, SeenJob};
use crate::work::reports;

/// All that is known.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The inputs.
    pub inputs: SeenInputs,
    /// Their digests, once all are in the store.
    pub digests: Option<Digests>,
    /// The jobs.
    pub jobs: Vec<SeenJob>,
    /// The artefacts, in the plan's order.
    pub artifacts: Vec<SeenArtifact>,
}

/// What is known of an artefact.
#[derive(Clone, Debug)]
pub struct SeenArtifact {
    /// For the plan.
    pub task: Task,
    /// For the status, if it was made.
    pub made: Option<Artifact>,
    /// What keeps its job from running.
    pub problem: Option<Refusal>,
}

impl Seen {
    /// What the plan wants to know.
    pub fn observed(&self, now: i64, started: i64) -> Observed {
        Observed {
            now,
            started,
            import: self.inputs.task.clone(),
            artifacts: self.artifacts.iter().map(|artifact| artifact.task.clone()).collect(),
        }
    }

    /// The first thing that keeps a job from running.
    pub fn problem(&self) -> Option<&Refusal> {
        self.jobs.iter().filter(|job| job.outcome.is_none()).find_map(|job| job.problem.as_ref())
    }

    /// Whether a job has not been seen to have a pod.
    pub fn podless(&self) -> bool {
        self.jobs.iter().any(|job| {
            let status = job.job.status.as_ref();
            job.outcome.is_none() && status.and_then(|status| status.ready).unwrap_or(0) == 0
        })
    }
}

/// Reads it all.
///
/// # Errors
/// [`Error`].
pub async fn look(context: &Context, object: &ModelOptimization, plan: &Optimization) -> Result<Seen, Error> {
    let selector = format!("{}={}", label::MODEL_OPTIMIZATION, object.name_any());
    let image = context.settings.worker_image.clone();
    let jobs = observe::jobs(&context.client, object, &selector, &image, context.now().as_second()).await?;
    let inputs = known_inputs(context, object, plan, &jobs).await?;
    let digests = resolved(object, plan).or_else(|| inputs::digests(&plan.inputs, &inputs));
    let mut artifacts = Vec::new();
    for planned in &plan.artifacts {
        artifacts.push(look_at(context, object, plan, planned, digests.as_ref(), &jobs).await?);
    }
    Ok(Seen { inputs, digests, jobs, artifacts })
}

/// Inputs that the status has resolved are not looked at again: they are pinned.
async fn known_inputs(
    context: &Context,
    object: &ModelOptimization,
    plan: &Optimization,
    jobs: &[SeenJob],
) -> Result<SeenInputs, Error> {
    if resolved(object, plan).is_some() {
        return Ok(SeenInputs { task: Task::done(), ..SeenInputs::default() });
    }
    inputs::look(context, object, &plan.inputs, jobs).await
}

/// The digests in the status, if it has all of them.
fn resolved(object: &ModelOptimization, plan: &Optimization) -> Option<Digests> {
    let found: Digests = object
        .status
        .as_ref()?
        .resolved_inputs
        .iter()
        .map(|input| (input.name.0.clone(), input.digest.0.clone()))
        .collect();
    plan.inputs.iter().all(|input| found.contains_key(&input.name)).then_some(found)
}

async fn look_at(
    context: &Context,
    object: &ModelOptimization,
    plan: &Optimization,
    planned: &PlannedArtifact,
    digests: Option<&Digests>,
    jobs: &[SeenJob],
) -> Result<SeenArtifact, Error> {
    let own: Vec<&SeenJob> = jobs
        .iter()
        .filter(|job| job.has_label(label::VARIANT, &planned.variant) && job.has_label(label::TARGET, &planned.target))
        .collect();
    if let Some(known) = from_status(object, planned, &own) {
        return Ok(known);
    }
    let source = digests.and_then(|digests| digests.get(SOURCE));
    let mut attempts = Vec::new();
    for job in &own {
        let mut attempt = job.as_attempt();
        let rejected = match &attempt.outcome {
            Some(Outcome::Done { .. }) => Some(None),
            Some(Outcome::ConstraintNotMet { why, .. }) => Some(Some(why.clone())),
            _ => None,
        };
        if let (Some(rejected), Some(source)) = (rejected, source) {
            let key = names::artifact_key(&object.uid().unwrap_or_default(), &planned.variant, &planned.target);
            let namespace = object.namespace().unwrap_or_default();
            let report = reports::optimized(context, &namespace, &key, attempt.number).await?;
            match judge(plan, planned, source, report.as_deref(), rejected) {
                Ok(seen) => return Ok(seen),
                Err(why) => attempt.outcome = Some(Outcome::Infrastructure(why)),
            }
        }
        attempts.push(attempt);
    }
    let problem = own.iter().filter(|job| job.outcome.is_none()).find_map(|job| job.problem.clone());
    Ok(SeenArtifact { task: Task::from_attempts(&attempts), made: None, problem })
}

/// What a report comes to.
///
/// # Errors
/// Why it cannot be used.
pub fn judge(
    plan: &Optimization,
    planned: &PlannedArtifact,
    source: &str,
    report: Option<&Optimized>,
    rejected: Option<Refusal>,
) -> Result<SeenArtifact, Refusal> {
    let report = report.ok_or_else(|| {
        Refusal::new(reason::RESULT_MISSING, "the optimizer ended well, but the store has no report of it")
    })?;
    check_report(planned, source, report)?;
    let (made, settled) = artifact(plan, planned, report, rejected);
    Ok(SeenArtifact { task: Task { settled: Some(settled), ..Task::default() }, made: Some(made), problem: None })
}

/// An artefact that the status has settled stays so. Its job's last words, if it is still there, say more than the word
/// in the status.
fn from_status(object: &ModelOptimization, planned: &PlannedArtifact, jobs: &[&SeenJob]) -> Option<SeenArtifact> {
    let known = object
        .status
        .as_ref()?
        .artifacts
        .iter()
        .find(|artifact| artifact.variant.0 == planned.variant && artifact.target.0 == planned.target)?;
    let why = || {
        let told = jobs.iter().rev().find_map(|job| match &job.outcome {
            Some(Outcome::ConstraintNotMet { why, .. } | Outcome::Impossible(why) | Outcome::Infrastructure(why)) => {
                Some(why.clone())
            }
            _ => None,
        });
        told.unwrap_or_else(|| {
            let word = known.reason.as_ref().map_or(reason::CRASHED, |word| word.0.as_str());
            Refusal::new(word, "see the report")
        })
    };
    let settled = match known.state {
        ArtifactState::Verified => Settled::Done,
        ArtifactState::Rejected => Settled::Rejected(why()),
        ArtifactState::Failed => Settled::Failed(why()),
        ArtifactState::Pending | ArtifactState::Active => return None,
    };
    let task = Task { settled: Some(settled), ..Task::default() };
    Some(SeenArtifact { task, made: Some(known.clone()), problem: None })
}
