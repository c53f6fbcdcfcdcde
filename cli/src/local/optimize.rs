//! A ModelOptimization: inputs into the store, then one job for each artefact, as many at a time as the spec says.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edgeyard_crds::conditions::{COMPLETE, FAILED};
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::optimization_status::{Artifact, ArtifactState};
use edgeyard_crds::scalars::{Key, Reason, TargetName};
use edgeyard_job::Report;
use edgeyard_job::report::ReportResult;
use edgeyard_job::spec::{Identity, ModelFormat};
use edgeyard_plan::optimization::{
    self, Action, End, Observed, Optimization, PlannedArtifact, SOURCE, Settled, Task, artifact, best, check_report,
};
use edgeyard_plan::outcome::Outcome;
use edgeyard_plan::{Refusal, jobs, names, reason};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::workshop::{Workshop, unix_seconds};

/// What came of a ModelOptimization.
pub(super) struct Optimized {
    /// The object with the status that a benchmark reads.
    pub(super) object: ModelOptimization,
    /// What was made, for results.json.
    pub(super) artifacts: Vec<Value>,
    /// Why it failed, or what of it did.
    pub(super) problem: Option<String>,
}

/// The namespace of a manifest that names none.
pub(super) fn namespace(object: &impl ResourceExt) -> String {
    object.namespace().unwrap_or_else(|| "default".to_owned())
}

pub(super) async fn run(shop: &Arc<Workshop>, written: &ModelOptimization) -> Result<Optimized> {
    let name = written.name_any();
    let place = || format!("ModelOptimization {name}");
    let plan = optimization::validate(written.spec.clone()).with_context(place)?;
    if plan.suspend {
        bail!("{}: spec.suspend is true: nothing would ever happen", place());
    }
    let (namespace, uid) = (namespace(written), shop.uid(written)?);
    let work = Making { shop: Arc::clone(shop), plan: Arc::new(plan), namespace, name: name.clone(), uid: uid.clone() };
    let (statuses, artifacts, end) = work.make().await.with_context(place)?;
    let mut object = written.clone();
    object.metadata.uid = Some(uid);
    let (condition, why, message) = match &end {
        End::Complete { reason, message } => (COMPLETE, (*reason).to_owned(), message.clone()),
        End::Failed(why) => (FAILED, why.reason.clone(), why.message.clone()),
    };
    let best = best(&work.plan.objective, &statuses);
    object.status = Some(serde_json::from_value(json!({
        "artifacts": statuses,
        "best": best,
        "conditions": [{
            "type": condition, "status": "True", "reason": why, "message": message,
            "lastTransitionTime": k8s_openapi::jiff::Timestamp::now(),
        }],
    }))?);
    shop.say(&format!("{name}: {message}"));
    let problem = match end {
        End::Complete { reason: reason::ARTIFACTS_VERIFIED, .. } => None,
        End::Complete { .. } | End::Failed(_) => Some(format!("ModelOptimization {name}: {message}")),
    };
    Ok(Optimized { object, artifacts, problem })
}

struct Making {
    shop: Arc<Workshop>,
    plan: Arc<Optimization>,
    namespace: String,
    name: String,
    uid: String,
}

impl Making {
    async fn make(&self) -> Result<(Vec<Artifact>, Vec<Value>, End)> {
        let plan = &self.plan;
        let imported = match self.shop.bring(&self.namespace, &self.name, &self.uid, &plan.inputs).await? {
            Ok(imported) => imported,
            Err(why) => return Ok((Vec::new(), Vec::new(), End::Failed(why))),
        };
        let digests = jobs::digests(&plan.inputs, &imported)?;
        let source = digests.get(SOURCE).context("the source has no digest")?.clone();
        let mut tasks = vec![Task::default(); plan.artifacts.len()];
        let mut statuses: Vec<Option<Artifact>> = vec![None; tasks.len()];
        let mut made: Vec<Option<Value>> = vec![None; tasks.len()];
        let started = unix_seconds();
        let mut running = JoinSet::new();
        let end = loop {
            let seen = Observed { now: unix_seconds(), started, import: Task::done(), artifacts: tasks.clone() };
            let mut wake = None;
            let mut end = None;
            for action in optimization::next(plan, &seen) {
                match action {
                    Action::Make { artifact, attempt } => {
                        tasks[artifact].active = true;
                        let asked = &plan.artifacts[artifact];
                        let label = format!("{} {}/{}", self.name, asked.variant, asked.target);
                        let uid = names::artifact_key(&self.uid, &asked.variant, &asked.target);
                        let identity =
                            Identity { namespace: self.namespace.clone(), name: self.name.clone(), uid, attempt };
                        let job = jobs::optimize_spec(identity, self.shop.access(), plan, asked, &digests)?;
                        let shop = Arc::clone(&self.shop);
                        running.spawn(async move {
                            (artifact, shop.perform("edgeyard-optimizer", &label, None, job).await)
                        });
                    }
                    // Everything is in the store before the loop begins.
                    Action::Import { .. } => {}
                    Action::Stop => running.abort_all(),
                    Action::WaitUntil(at) => wake = Some(at),
                    Action::End(how) => end = Some(how),
                }
            }
            if let Some(end) = end {
                break end;
            }
            let until = wake
                .map_or(Duration::MAX, |at| Duration::from_secs(u64::try_from(at - unix_seconds()).unwrap_or(0) + 1));
            tokio::select! {
                () = tokio::time::sleep(until) => {}
                Some(done) = running.join_next() => {
                    let (index, outcome) = done?;
                    let asked = &plan.artifacts[index];
                    let (status, settled, entry) = self.settle(asked, &source, outcome?).await?;
                    tasks[index] = Task { settled: Some(settled), ..Task::default() };
                    statuses[index] = Some(status);
                    made[index] = entry;
                }
            }
        };
        let statuses = statuses.into_iter().zip(&plan.artifacts);
        let statuses =
            statuses.map(|(status, asked)| status.unwrap_or_else(|| failed(asked, reason::DEADLINE_EXCEEDED)));
        Ok((statuses.collect(), made.into_iter().flatten().collect(), end))
    }

    /// What a job's end means for its artefact. There is no second attempt here: whoever sits before it tries again.
    async fn settle(
        &self,
        asked: &PlannedArtifact,
        source: &str,
        outcome: Outcome,
    ) -> Result<(Artifact, Settled, Option<Value>)> {
        let (result, rejected) = match outcome {
            Outcome::Done { result } => (result, None),
            Outcome::ConstraintNotMet { result, why } => (result, Some(why)),
            Outcome::Impossible(why) | Outcome::Infrastructure(why) | Outcome::Stopped(why) => {
                return Ok((failed(asked, &why.reason), Settled::Failed(why), None));
            }
        };
        let Some(result) = result else {
            let why = Refusal::new(reason::RESULT_MISSING, "the job ended without naming its report");
            return Ok((failed(asked, &why.reason), Settled::Failed(why), None));
        };
        let report: Report = self.shop.read(&self.namespace, &result).await?;
        let ReportResult::Optimize(report) = report.result else { bail!("the job left another job's report") };
        if let Err(why) = check_report(asked, source, &report) {
            return Ok((failed(asked, &why.reason), Settled::Failed(why), None));
        }
        let (status, settled) = artifact(&self.plan, asked, &report, rejected);
        let extension = match report.artifact.format {
            ModelFormat::Onnx => "onnx",
            ModelFormat::TfLite => "tflite",
        };
        let file = format!("artifacts/{}-{}-{}.{extension}", self.name, asked.variant, asked.target);
        let digest = report.artifact.digest.parse()?;
        self.shop.client.get_blob_to_file(&self.namespace, &digest, &self.shop.path(&file)).await?;
        let entry = json!({
            "modelOptimization": self.name,
            "variant": asked.variant,
            "target": asked.target,
            "state": status.state,
            "digest": digest,
            "sizeBytes": report.artifact.size_bytes,
            "accuracyDrop": report.accuracy_drop,
            "reportDigest": result,
            "file": file,
        });
        Ok((status, settled, Some(entry)))
    }
}

fn failed(asked: &PlannedArtifact, why: &str) -> Artifact {
    let (variant, target) = (Key(asked.variant.clone()), TargetName(asked.target.clone()));
    Artifact::bare(variant, target, ArtifactState::Failed, Some(Reason(why.to_owned())))
}
