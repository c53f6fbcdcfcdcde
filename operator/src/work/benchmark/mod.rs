//! The controller of EdgeBenchmark: resolves models to artefacts once, makes one BenchmarkRun for each device, and sums up
//! what they find.

mod dereference;
mod build;
mod apply;
mod status;

use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::conditions::{COMPLETE, FAILED};
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::run::BenchmarkRun;
use edgeyard_plan::benchmark::{Benchmark, Resolution, pairs, resolve, run_result, summary, validate};
use edgeyard_plan::{Refusal, reason};
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};

use crate::frame::names::label;
use crate::frame::{Context, Error, Guarded, Running, conditions, run_controller, write};

use super::{announce::announce, problem};
use apply::Import;
use status::Draft;

/// Looks again while runs are under way, should an event be lost.
const PAUSE: Duration = Duration::from_secs(30);
/// Looks again while something is waited for that is not watched: the store, a lab's devices.
const WAIT: Duration = Duration::from_secs(5);
/// Looks again while something is about to change.
const SHORT_PAUSE: Duration = Duration::from_millis(500);

/// The controller.
pub fn controller(context: &Arc<Context>) -> Running {
    let client = context.client.clone();
    run_controller::<EdgeBenchmark, _, _>(
        "EdgeBenchmark",
        context,
        Box::new(move |controller| {
            let known = controller.store();
            let children = watcher::Config::default().labels(label::BENCHMARK);
            controller
                .owns(Api::<BenchmarkRun>::all(client.clone()), children.clone())
                .owns(Api::<Job>::all(client.clone()), children)
                .watches(Api::<ModelOptimization>::all(client), watcher::Config::default(), move |made| {
                    waiting_for(&known, &made)
                })
        }),
        reconcile,
    )
}

/// The benchmarks that name a ModelOptimization.
fn waiting_for(
    known: &Store<Guarded<EdgeBenchmark>>,
    made: &ModelOptimization,
) -> Vec<ObjectRef<Guarded<EdgeBenchmark>>> {
    let (namespace, name) = (made.namespace(), made.name_any());
    let names = |benchmark: &EdgeBenchmark| {
        let of = benchmark.spec.models.iter().filter_map(|model| model.model_optimization.as_ref());
        benchmark.namespace() == namespace && of.into_iter().any(|of| of.name.0 == name)
    };
    known
        .state()
        .iter()
        .filter_map(|benchmark| benchmark.0.as_ref().ok())
        .filter(|benchmark| names(benchmark) && !ended(benchmark))
        .map(|benchmark| ObjectRef::new(&benchmark.name_any()).within(&namespace.clone().unwrap_or_default()))
        .collect()
}

async fn reconcile(object: Arc<EdgeBenchmark>, context: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let mut draft = Draft::new(&object, context.now());
    if ended(&object) {
        return finish(&context, &object, draft, Action::await_change()).await;
    }
    let action = match validate(object.spec.clone()) {
        Err(why) => {
            draft.fail(&why);
            Action::await_change()
        }
        Ok(plan) => match work(&context, &object, &plan, &mut draft).await {
            Ok(action) => action,
            Err(error) => {
                let Some(why) = problem::explain(&error) else { return Err(error) };
                draft.trouble(&why);
                finish(&context, &object, draft, Action::requeue(WAIT)).await?;
                return if matches!(error, Error::Store { .. }) { Ok(Action::requeue(WAIT)) } else { Err(error) };
            }
        },
    };
    finish(&context, &object, draft, action).await
}

async fn work(context: &Context, object: &EdgeBenchmark, plan: &Benchmark, draft: &mut Draft) -> Result<Action, Error> {
    draft.begin();
    if draft.is_resolved() {
        return follow(context, object, plan, draft).await;
    }
    if plan.cancel {
        draft.fail(&Refusal::new(reason::CANCELLED, "cancelled by spec.cancel before anything was measured"));
        return Ok(Action::await_change());
    }
    if plan.suspend {
        draft.suspended();
        return Ok(Action::await_change());
    }
    match prepare(context, object, plan, draft).await? {
        Prepared::Done => Ok(Action::requeue(SHORT_PAUSE)),
        Prepared::Impossible(why) => {
            draft.fail(&why);
            Ok(Action::await_change())
        }
        Prepared::Wait { why, stuck } => {
            let seconds = plan.timeouts.resolve_seconds;
            let left = draft.started() + seconds - context.now().as_second();
            if left > 0 {
                draft.wait(&why, stuck);
                let left = Duration::from_secs(u64::try_from(left).unwrap_or(1));
                return Ok(Action::requeue(WAIT.min(left)));
            }
            let message = format!("{} (given up after timeouts.resolveSeconds: {seconds})", why.message);
            // What somebody has to mend keeps its own word; only waiting for work that takes long is a timeout.
            let word = if stuck { &*why.reason } else { reason::RESOLVE_TIMEOUT };
            draft.fail(&Refusal::new(word, message));
            Ok(Action::await_change())
        }
    }
}

/// How far resolving came.
enum Prepared {
    /// Models are pinned; the status says to what.
    Done,
    /// Something is waited for; `stuck`: somebody has to act.
    Wait { why: Refusal, stuck: bool },
    /// It will never be.
    Impossible(Refusal),
}

/// Imports inputs, resolves models, finds devices and pairs them; pins the artefacts and writes them into the status.
async fn prepare(
    context: &Context,
    object: &EdgeBenchmark,
    plan: &Benchmark,
    draft: &mut Draft,
) -> Result<Prepared, Error> {
    let wait = |why: Refusal| {
        let passes = [reason::IMPORTING, reason::WAITING_FOR_MODEL_OPTIMIZATION];
        let stuck = !passes.contains(&why.reason.as_str());
        Prepared::Wait { why, stuck }
    };
    let inputs = match apply::import(context, object, plan).await? {
        Import::Done(inputs) => inputs,
        Import::Wait(why) => return Ok(wait(why)),
        Import::Failed(why) => return Ok(Prepared::Impossible(why)),
    };
    let optimizations = dereference::optimizations(context, object, plan).await?;
    let (artifacts, unverified) = match resolve(plan, &optimizations, &inputs) {
        Err(why) => return Ok(Prepared::Impossible(why)),
        Ok(Resolution::Wait(why)) => return Ok(wait(why)),
        Ok(Resolution::Resolved { artifacts, unverified }) => (artifacts, unverified),
    };
    let lab = match dereference::lab(context, plan).await? {
        Ok(lab) => lab,
        Err(why) => return Ok(wait(why)),
    };
    let found = match pairs(&object.name_any(), plan, &artifacts, &unverified, &lab.pools, &lab.classes) {
        Err(why) => return Ok(Prepared::Impossible(why)),
        Ok(found) => found,
    };
    apply::pin(context, object, &artifacts, &inputs).await?;
    draft.resolve(artifacts, &found);
    Ok(Prepared::Done)
}

/// Makes the runs that are missing, hands on what the user changed, and sums up.
async fn follow(
    context: &Context,
    object: &EdgeBenchmark,
    plan: &Benchmark,
    draft: &mut Draft,
) -> Result<Action, Error> {
    let mut runs = dereference::runs(context, object, plan).await?;
    apply::hand_on(context, plan, &runs).await?;
    let mut obstacle = None;
    if runs.len() < draft.planned() && !plan.cancel {
        match apply::make_runs(context, object, plan, draft.resolved(), &runs).await? {
            Ok(()) => runs = dereference::runs(context, object, plan).await?,
            Err(why) => obstacle = Some(why),
        }
    }
    let planned = if plan.cancel { runs.len() } else { draft.planned() };
    let seen = summary(plan, planned, &runs);
    draft.describe(plan, &seen, &runs, obstacle.as_ref());
    if !seen.ended {
        return Ok(Action::requeue(if obstacle.is_some() { WAIT } else { PAUSE }));
    }
    let record = apply::store_record(context, object, draft.skipped(), &runs).await?;
    let result = match run_result(&seen) {
        Err(why) if plan.cancel => Err(cancelled(&why.message)),
        other => other,
    };
    draft.end(result, record);
    Ok(Action::await_change())
}

fn cancelled(rest: &str) -> Refusal {
    Refusal::new(reason::CANCELLED, format!("cancelled by spec.cancel; {rest}"))
}

async fn finish(context: &Context, object: &EdgeBenchmark, draft: Draft, action: Action) -> Result<Action, Error> {
    let status = draft.into_status();
    write::update_status(&context.client, object, &status).await?;
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    announce(context, object, old, &status.conditions).await;
    Ok(action)
}

fn ended(object: &EdgeBenchmark) -> bool {
    object.status.as_ref().is_some_and(|status| {
        conditions::is_true(&status.conditions, COMPLETE) || conditions::is_true(&status.conditions, FAILED)
    })
}
