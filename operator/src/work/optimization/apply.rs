//! Carries out the plan's actions. Each may be repeated: names are deterministic, and creating what exists is success.

use edgeyard_crds::descriptor::Descriptor;
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::optimization_status::{Artifact, ArtifactState};
use edgeyard_job::report::{ImportedInput, Optimized};
use edgeyard_job::spec;
use edgeyard_plan::jobs;
use edgeyard_plan::names;
use edgeyard_plan::optimization::{
    Action, End, MAX_ATTEMPTS, OPTIMIZATION_MEDIA_TYPE, Optimization, OptimizationReport, SOURCE,
};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::core::ObjectMeta;

use crate::frame::names::label;
use crate::frame::{Context, Error, write};
use crate::work::inputs::{self, GRANT_MARGIN};
use crate::work::{reports, template};

use super::build;
use super::dereference::{Seen, judge};
use super::status::Draft;

/// Takes results that are in the store though no job of them is seen: jobs were deleted, or the operator ended between two
/// writes. Gives whether anything was found, so that the plan is made anew.
///
/// # Errors
/// [`Error`].
pub async fn adopt(
    context: &Context,
    object: &ModelOptimization,
    plan: &Optimization,
    steps: &[Action],
    seen: &mut Seen,
) -> Result<bool, Error> {
    let mut found = false;
    for step in steps {
        match step {
            Action::Import { attempt } => {
                if let Some(inputs) = inputs::adopt(context, object, &plan.inputs, *attempt).await? {
                    seen.digests = inputs::digests(&plan.inputs, &inputs);
                    seen.inputs = inputs;
                    found = true;
                }
            }
            Action::Make { artifact, attempt } => {
                let planned = &plan.artifacts[*artifact];
                let key = names::artifact_key(&object.uid().unwrap_or_default(), &planned.variant, &planned.target);
                let namespace = object.namespace().unwrap_or_default();
                let report = reports::optimized(context, &namespace, &key, *attempt).await?;
                let source = seen.digests.as_ref().and_then(|digests| digests.get(SOURCE));
                if let (Some(report), Some(source)) = (report, source)
                    && let Ok(made) = judge(plan, planned, source, Some(&report), None)
                {
                    seen.artifacts[*artifact] = made;
                    found = true;
                }
            }
            Action::Stop | Action::WaitUntil(_) | Action::End(_) => {}
        }
    }
    Ok(found)
}

/// Carries out `steps`; gives the end if they have one.
///
/// # Errors
/// [`Error`].
pub async fn apply(
    context: &Context,
    object: &ModelOptimization,
    plan: &Optimization,
    steps: &[Action],
    seen: &mut Seen,
    draft: &Draft,
) -> Result<Option<End>, Error> {
    let now = context.now().as_second();
    let left = (draft.started() + plan.active_deadline_seconds - now).max(1);
    let mut over = None;
    for step in steps {
        match step {
            Action::Import { attempt } => {
                inputs::start(context, object, label::MODEL_OPTIMIZATION, &plan.inputs, *attempt, left).await?;
                seen.inputs.task.active = true;
            }
            Action::Make { artifact, attempt } => {
                make(context, object, plan, seen, *artifact, *attempt, left).await?;
                seen.artifacts[*artifact].task.active = true;
            }
            Action::Stop => stop(context, object, seen).await?,
            Action::WaitUntil(_) => {}
            Action::End(end) => over = Some(end.clone()),
        }
    }
    Ok(over)
}

async fn make(
    context: &Context,
    object: &ModelOptimization,
    plan: &Optimization,
    seen: &Seen,
    artifact: usize,
    attempt: u32,
    deadline_seconds: i64,
) -> Result<(), Error> {
    let planned = &plan.artifacts[artifact];
    let digests = seen.digests.clone().unwrap_or_default();
    let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    let key = names::artifact_key(&uid, &planned.variant, &planned.target);
    let identity = spec::Identity { namespace: namespace.clone(), name: object.name_any(), uid: key.clone(), attempt };
    let written = |grant: String| {
        jobs::optimize_spec(identity.clone(), inputs::store_access(context, grant), plan, planned, &digests)
            .map_err(|why| Error::Unexpected(why.message))
    };
    // The grant depends on what the spec reads, and the spec holds the grant.
    let reads = jobs::reads(&written(String::new())?.work);
    let expires = context.now().as_second() + deadline_seconds + GRANT_MARGIN;
    let spec = written(context.sign(&template::claims(&namespace, &key, attempt, &reads, expires)))?;
    let child = build::identity(object, inputs::owner_of(object)?, planned, attempt);
    let (secret, job) = build::objects(&context.settings, &child, planned, &spec, deadline_seconds);
    write::apply(&context.client, &secret).await?;
    write::create(&context.client, &job).await?;
    Ok(())
}

/// Deletes jobs that are under way, with their pods and Secrets.
async fn stop(context: &Context, object: &ModelOptimization, seen: &mut Seen) -> Result<(), Error> {
    for job in seen.jobs.iter().filter(|job| job.outcome.is_none()) {
        let secret = Secret {
            metadata: ObjectMeta {
                name: job.job.metadata.name.clone(),
                namespace: object.namespace(),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        write::delete(&context.client, &job.job).await?;
        write::delete(&context.client, &secret).await?;
    }
    seen.jobs.retain(|job| job.outcome.is_some());
    seen.inputs.task.active = false;
    for artifact in &mut seen.artifacts {
        artifact.task.active = false;
        artifact.problem = None;
    }
    Ok(())
}

/// Puts all reports into one and stores it; `None` if nothing was made.
///
/// # Errors
/// [`Error`].
pub async fn store_report(
    context: &Context,
    object: &ModelOptimization,
    plan: &Optimization,
    artifacts: &[Artifact],
) -> Result<Option<Descriptor>, Error> {
    let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    let mut made = Vec::new();
    for artifact in artifacts {
        if matches!(artifact.state, ArtifactState::Verified | ArtifactState::Rejected) {
            made.extend(find(context, &namespace, &uid, artifact).await?);
        }
    }
    if made.is_empty() {
        return Ok(None);
    }
    let mut imported: Vec<ImportedInput> = Vec::new();
    if plan.inputs.iter().any(|input| input.stored().is_none()) {
        for attempt in 1..=MAX_ATTEMPTS {
            if let Some(found) = reports::imported(context, &namespace, &names::import_key(&uid), attempt).await? {
                imported = found;
                break;
            }
        }
    }
    let generator = concat!("edgeyard-operator ", env!("CARGO_PKG_VERSION"));
    let report = OptimizationReport::new(&object.name_any(), generator, imported, made, artifacts);
    let body = serde_json::to_vec(&report).map_err(|error| Error::Unexpected(error.to_string()))?;
    reports::put(context, &namespace, &uid, OPTIMIZATION_MEDIA_TYPE, body).await.map(Some)
}

/// The report of an artefact, from whichever attempt made it.
async fn find(context: &Context, namespace: &str, uid: &str, artifact: &Artifact) -> Result<Option<Optimized>, Error> {
    let key = names::artifact_key(uid, &artifact.variant.0, &artifact.target.0);
    for attempt in 1..=MAX_ATTEMPTS {
        if let Some(report) = reports::optimized(context, namespace, &key, attempt).await?
            && artifact.digest.as_ref().is_none_or(|digest| digest.0 == report.artifact.digest)
        {
            return Ok(Some(*report));
        }
    }
    Ok(None)
}
