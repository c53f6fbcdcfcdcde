//! Carries out what a benchmark needs. Each step may be repeated.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::benchmark_status::{ResolvedArtifact, Skipped};
use edgeyard_crds::conditions::{COMPLETE, FAILED};
use edgeyard_crds::descriptor::Descriptor;
use edgeyard_crds::run::BenchmarkRun;
use edgeyard_job::report::ImportedInput;
use edgeyard_plan::benchmark::{ACCURACY, BENCHMARK_MEDIA_TYPE, Benchmark, BenchmarkMetadata, benchmark_record, pairs};
use edgeyard_plan::inputs::PlannedInput;
use edgeyard_plan::optimization::{Settled, retry_at};
use edgeyard_plan::{Refusal, reason};
use kube::ResourceExt as _;

use crate::frame::names::label;
use crate::frame::{Context, Error, conditions, write};
use crate::work::inputs::{self, SeenInputs};
use crate::work::{observe, pins, reports};

use super::{build, dereference};

/// A BenchmarkRun of that name is another benchmark's.
const NAME_TAKEN: &str = "NameTaken";

/// How far the inputs are.
pub enum Import {
    /// In the store: each one's digest, size and media type, by its name.
    Done(BTreeMap<String, ImportedInput>),
    /// On the way, or not there yet.
    Wait(Refusal),
    /// They will never be.
    Failed(Refusal),
}

/// Brings a benchmark's inputs into the store.
///
/// # Errors
/// [`Error`].
pub async fn import(context: &Context, object: &EdgeBenchmark, plan: &Benchmark) -> Result<Import, Error> {
    let selector = format!("{}={}", label::BENCHMARK, object.name_any());
    let now = context.now().as_second();
    let needs_jobs = plan.inputs.iter().any(|input| input.stored().is_none());
    let jobs = if needs_jobs {
        observe::jobs(&context.client, object, &selector, &context.settings.worker_image, now).await?
    } else {
        Vec::new()
    };
    let mut seen = inputs::look(context, object, &plan.inputs, &jobs).await?;
    if let Some(why) = seen.missing {
        return Ok(Import::Wait(why));
    }
    let attempt = seen.task.failed_attempts + 1;
    if seen.task.settled.is_none() && !seen.task.active {
        let due = seen.task.failed_at.map_or(now, |at| retry_at(seen.task.failed_attempts, at));
        if due > now {
            let said = seen.task.failure.map(|why| format!("{}: {}", why.reason, why.message)).unwrap_or_default();
            let message = format!("importing inputs failed ({said}); it is tried again");
            return Ok(Import::Wait(Refusal::new(reason::IMPORTING, message)));
        }
        match inputs::adopt(context, object, &plan.inputs, attempt).await? {
            Some(found) => seen = found,
            None => {
                let seconds = plan.timeouts.resolve_seconds;
                inputs::start(context, object, label::BENCHMARK, &plan.inputs, attempt, seconds).await?;
            }
        }
    }
    match &seen.task.settled {
        Some(Settled::Done) => Ok(Import::Done(all(context, object, plan, &seen).await?)),
        Some(Settled::Failed(why) | Settled::Rejected(why)) => Ok(Import::Failed(why.clone())),
        None => {
            let problem = jobs.iter().filter(|job| job.outcome.is_none()).find_map(|job| job.problem.clone());
            let importing = || Refusal::new(reason::IMPORTING, "inputs are being brought into the store");
            Ok(Import::Wait(problem.unwrap_or_else(importing)))
        }
    }
}

/// Inputs that were imported, and those that the store had already.
async fn all(
    context: &Context,
    object: &EdgeBenchmark,
    plan: &Benchmark,
    seen: &SeenInputs,
) -> Result<BTreeMap<String, ImportedInput>, Error> {
    let mut found = seen.imported.clone();
    for input in &plan.inputs {
        if let Some(digest) = input.stored() {
            let size_bytes = size(context, object, input, digest).await?;
            let entry = ImportedInput {
                name: input.name.clone(),
                digest: digest.to_owned(),
                size_bytes,
                media_type: input.media_type.to_owned(),
            };
            found.insert(input.name.clone(), entry);
        }
    }
    Ok(found)
}

/// A model's size is part of its results; a data set's is not asked for.
async fn size(context: &Context, object: &EdgeBenchmark, input: &PlannedInput, digest: &str) -> Result<u64, Error> {
    let Ok(digest) = digest.parse() else { return Ok(0) };
    if input.name == ACCURACY {
        return Ok(0);
    }
    let blob = context.store.get_blob(&object.namespace().unwrap_or_default(), &digest).await;
    Ok(blob.map_err(|error| Error::store(format!("read {digest}"), error))?.len() as u64)
}

/// Pins what is measured and what it is scored on.
///
/// # Errors
/// [`Error::Store`].
pub async fn pin(
    context: &Context,
    object: &EdgeBenchmark,
    artifacts: &[ResolvedArtifact],
    inputs: &BTreeMap<String, ImportedInput>,
) -> Result<(), Error> {
    let digests: BTreeSet<String> = artifacts
        .iter()
        .map(|artifact| artifact.digest.0.clone())
        .chain(inputs.values().map(|input| input.digest.clone()))
        .collect();
    let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    pins::update(context, &namespace, &uid, &BTreeSet::new(), &digests).await
}

/// Makes the runs that are missing. A [`Refusal`] is what somebody has to mend first.
///
/// # Errors
/// [`Error`].
pub async fn make_runs(
    context: &Context,
    object: &EdgeBenchmark,
    plan: &Benchmark,
    artifacts: &[ResolvedArtifact],
    present: &[BenchmarkRun],
) -> Result<Result<(), Refusal>, Error> {
    let inputs = match import(context, object, plan).await? {
        Import::Done(inputs) => inputs,
        Import::Wait(why) | Import::Failed(why) => return Ok(Err(why)),
    };
    let lab = match dereference::lab(context, plan).await? {
        Ok(lab) => lab,
        Err(why) => return Ok(Err(why)),
    };
    let found = match pairs(&object.name_any(), plan, artifacts, &[], &lab.pools, &lab.classes) {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let accuracy = inputs.get(ACCURACY).map(|input| input.digest.as_str());
    for planned in found.runs {
        if present.iter().any(|run| run.name_any() == planned.name) {
            continue;
        }
        let run = build::run(object, inputs::owner_of(object)?, plan, planned, accuracy);
        if write::create(&context.client, &run).await?.is_none()
            && let Some(taken) = taken_by(context, object, &run).await?
        {
            return Ok(Err(taken));
        }
    }
    Ok(Ok(()))
}

/// Whose a run of that name is, if not this benchmark's: another's, or an earlier one's that is being collected.
async fn taken_by(context: &Context, object: &EdgeBenchmark, run: &BenchmarkRun) -> Result<Option<Refusal>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let name = run.name_any();
    let Some(present) = write::get::<BenchmarkRun>(&context.client, &namespace, &name).await? else { return Ok(None) };
    let uid = object.metadata.uid.as_deref();
    if present.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid) {
        return Ok(None);
    }
    let message = format!(
        "there is a BenchmarkRun {name} of EdgeBenchmark {} already: wait until it is gone, or give this EdgeBenchmark \
         another name",
        present.spec.benchmark_name
    );
    Ok(Some(Refusal::new(NAME_TAKEN, message)))
}

/// Hands on what the user changed to runs that have not ended.
///
/// # Errors
/// [`Error`].
pub async fn hand_on(context: &Context, plan: &Benchmark, runs: &[BenchmarkRun]) -> Result<(), Error> {
    for run in runs {
        let conditions = run.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if conditions::is_true(conditions, COMPLETE) || conditions::is_true(conditions, FAILED) {
            continue;
        }
        if let Some(changed) = build::changed(run, plan) {
            write::apply(&context.client, &changed).await?;
        }
    }
    Ok(())
}

/// Stores the document that lists the records of all runs; `None` if there are none.
///
/// # Errors
/// [`Error::Store`].
pub async fn store_record(
    context: &Context,
    object: &EdgeBenchmark,
    skipped: &[Skipped],
    runs: &[BenchmarkRun],
) -> Result<Option<Descriptor>, Error> {
    let recorded = |run: &BenchmarkRun| run.status.as_ref().is_some_and(|status| status.record.is_some());
    if !runs.iter().any(recorded) {
        return Ok(None);
    }
    let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    let metadata = BenchmarkMetadata { namespace: namespace.clone(), name: object.name_any(), uid: uid.clone() };
    let document = benchmark_record(metadata, skipped.to_vec(), runs);
    let body = edgeyard_record::canonical_json(&document).map_err(|error| Error::Unexpected(error.to_string()))?;
    reports::put(context, &namespace, &uid, BENCHMARK_MEDIA_TYPE, body).await.map(Some)
}
