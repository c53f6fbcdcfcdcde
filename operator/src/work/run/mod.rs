//! The controller of BenchmarkRun: a lease, a runner pod, a record; again with another attempt when something around it
//! fails.

mod dereference;
mod build;
mod apply;
mod status;

use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::conditions::{COMPLETE, FAILED};
use edgeyard_crds::lease::DeviceLease;
use edgeyard_crds::run::BenchmarkRun;
use edgeyard_plan::run::{Next, Run, next, validate};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};

use crate::frame::names::label;
use crate::frame::{Context, Error, Guarded, Running, conditions, run_controller, write};

use super::{announce::announce, problem, series};
use build::RUN_NAMESPACE;
use status::Draft;

/// Looks again while something is under way, should an event be lost.
const PAUSE: Duration = Duration::from_secs(15);
/// Looks again while something is about to change.
const SHORT_PAUSE: Duration = Duration::from_secs(1);
/// Looks again while the store is away.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// The controller.
pub fn controller(context: &Arc<Context>) -> Running {
    let client = context.client.clone();
    run_controller::<BenchmarkRun, _, _>(
        "BenchmarkRun",
        context,
        Box::new(move |controller| {
            controller
                .owns(Api::<DeviceLease>::all(client.clone()), watcher::Config::default().labels(label::RUN))
                .watches(Api::<Pod>::all(client), watcher::Config::default().labels(label::RUN), |pod: Pod| owner(&pod))
        }),
        reconcile,
    )
}

/// Runner pods live in the device's namespace and belong to the device; label and annotation lead to the run.
fn owner(pod: &Pod) -> Option<ObjectRef<Guarded<BenchmarkRun>>> {
    let name = pod.labels().get(label::RUN)?;
    Some(ObjectRef::new(name).within(pod.annotations().get(RUN_NAMESPACE)?))
}

async fn reconcile(object: Arc<BenchmarkRun>, context: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        // The lease goes with its owner, and takes pods and device with it.
        return Ok(Action::await_change());
    }
    context.metrics.results.set(&object.uid().unwrap_or_default(), series::of_run(&object));
    let mut draft = Draft::new(&object, context.now());
    if ended(&object) {
        apply::clean_up(&context, &object).await?;
        return finish(&context, &object, draft, Action::await_change()).await;
    }
    let action = match validate(object.spec.clone()) {
        Err(why) => {
            draft.fail(&why);
            Action::await_change()
        }
        Ok(run) => match work(&context, &object, &run, &mut draft).await {
            Ok(action) => action,
            Err(error) => {
                let Some(why) = problem::explain(&error) else { return Err(error) };
                draft.trouble(&why);
                finish(&context, &object, draft, Action::requeue(STORE_PAUSE)).await?;
                return if matches!(error, Error::Store { .. }) {
                    Ok(Action::requeue(STORE_PAUSE))
                } else {
                    Err(error)
                };
            }
        },
    };
    finish(&context, &object, draft, action).await
}

/// Looks, decides, acts.
async fn work(context: &Context, object: &BenchmarkRun, run: &Run, draft: &mut Draft) -> Result<Action, Error> {
    draft.begin();
    let seen = dereference::look(context, object, run).await?;
    draft.describe(&seen);
    let step = next(run, &seen.observed(context.now().as_second(), draft.failed_attempts()));
    if let Next::Go { actions, .. } | Next::Suspended { actions, .. } | Next::Retry { actions, .. } = &step
        && let Err(why) = apply::apply(context, object, run, &seen, actions).await?
    {
        draft.fail(&why);
        return Ok(Action::requeue(SHORT_PAUSE));
    }
    apply::keep_lease(context, object, run, &seen, &step).await?;
    Ok(match step {
        Next::Go { step, actions, why, stuck, until } => {
            draft.go(step, &why, stuck);
            let now = context.now().as_second();
            let due = until.map(|at| Duration::from_secs(u64::try_from(at - now).unwrap_or(0).max(1)));
            let soon = if actions.is_empty() { PAUSE } else { SHORT_PAUSE };
            Action::requeue(due.unwrap_or(PAUSE).min(soon))
        }
        Next::Suspended { restart, .. } => {
            draft.suspend(restart);
            Action::requeue(PAUSE)
        }
        Next::Retry { why, .. } => {
            let attempt = draft.attempt();
            draft.retry(&why);
            let note = format!("attempt {attempt} failed: {}: {}", why.reason, why.message);
            context.events.warning(object, &why.reason, note).await;
            Action::requeue(SHORT_PAUSE)
        }
        Next::Succeeded => {
            draft.succeed(&seen);
            Action::requeue(SHORT_PAUSE)
        }
        Next::Failed(why) => {
            draft.keep_record(&seen);
            draft.fail(&why);
            Action::requeue(SHORT_PAUSE)
        }
    })
}

async fn finish(context: &Context, object: &BenchmarkRun, draft: Draft, action: Action) -> Result<Action, Error> {
    let status = draft.into_status();
    write::update_status(&context.client, object, &status).await?;
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    announce(context, object, old, &status.conditions).await;
    Ok(action)
}

fn ended(object: &BenchmarkRun) -> bool {
    object.status.as_ref().is_some_and(|status| {
        conditions::is_true(&status.conditions, COMPLETE) || conditions::is_true(&status.conditions, FAILED)
    })
}
