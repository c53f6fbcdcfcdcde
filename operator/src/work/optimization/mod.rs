//! The controller of ModelOptimization: an import Job, then one Job for each artefact, then a report of them all.

mod dereference;
mod build;
mod apply;
mod status;

use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::conditions::{COMPLETE, FAILED};
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_plan::Refusal;
use edgeyard_plan::optimization::{Action as Step, Optimization, next, validate};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};

use crate::frame::names::label;
use crate::frame::{Context, Error, Guarded, Running, conditions, run_controller, write};

use super::{announce::announce, pins, problem, series};
use status::Draft;

/// Looks again while a store is away; its return is seen by nobody else.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// Looks again while inputs are missing: neither they nor the store are watched.
const INPUT_PAUSE: Duration = Duration::from_secs(5);
/// Looks again while jobs are under way, should an event be lost.
const WORK_PAUSE: Duration = Duration::from_secs(15);
/// Looks again while a Job has no pod: only its events say why.
const POD_PAUSE: Duration = Duration::from_secs(2);

/// The controller.
pub fn controller(context: &Arc<Context>) -> Running {
    let client = context.client.clone();
    run_controller::<ModelOptimization, _, _>(
        "ModelOptimization",
        context,
        Box::new(move |controller| {
            controller
                .owns(Api::<Job>::all(client.clone()), watcher::Config::default().labels(label::MODEL_OPTIMIZATION))
                .watches(
                    Api::<Pod>::all(client),
                    watcher::Config::default().labels(label::MODEL_OPTIMIZATION),
                    |pod: Pod| owner(&pod),
                )
        }),
        reconcile,
    )
}

/// The pods' owners are Jobs; the label leads further.
fn owner(pod: &Pod) -> Option<ObjectRef<Guarded<ModelOptimization>>> {
    let name = pod.labels().get(label::MODEL_OPTIMIZATION)?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

async fn reconcile(object: Arc<ModelOptimization>, context: Arc<Context>) -> Result<Action, Error> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    context.metrics.results.set(&object.uid().unwrap_or_default(), series::of_optimization(&object));
    let mut draft = Draft::new(&object, context.now());
    if ended(&object) {
        // A mutable field may have changed; the conditions speak of the present generation all the same.
        return finish(&context, &object, draft, Action::await_change()).await;
    }
    let action = match validate(object.spec.clone()) {
        Err(why) => {
            draft.fail(&why);
            Action::await_change()
        }
        Ok(plan) => match work(&context, &object, &plan, &mut draft).await {
            Ok(action) => action,
            Err(error) => return troubled(&context, &object, draft, error).await,
        },
    };
    finish(&context, &object, draft, action).await
}

/// Looks, decides, acts.
async fn work(
    context: &Context,
    object: &ModelOptimization,
    plan: &Optimization,
    draft: &mut Draft,
) -> Result<Action, Error> {
    let mut seen = dereference::look(context, object, plan).await?;
    if let Some(why) = seen.inputs.missing.clone().filter(|_| !plan.suspend) {
        return wait_for_inputs(context, plan, draft, &seen, &why);
    }
    draft.begin(plan.suspend);
    let steps = loop {
        let steps = next(plan, &seen.observed(context.now().as_second(), draft.started()));
        // What an interrupted life left in the store is taken before anything is done again.
        if !apply::adopt(context, object, plan, &steps, &mut seen).await? {
            break steps;
        }
    };
    let end = apply::apply(context, object, plan, &steps, &mut seen, draft).await?;
    draft.describe(plan, &seen);
    if let Some(end) = end {
        let report = apply::store_report(context, object, plan, draft.artifacts()).await?;
        draft.end(end, report);
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(pause(context, &seen, &steps)))
}

fn wait_for_inputs(
    context: &Context,
    plan: &Optimization,
    draft: &mut Draft,
    seen: &dereference::Seen,
    why: &Refusal,
) -> Result<Action, Error> {
    draft.begin(false);
    draft.describe(plan, seen);
    let deadline = draft.started() + plan.active_deadline_seconds;
    if context.now().as_second() >= deadline {
        let message =
            format!("{} (given up after activeDeadlineSeconds: {})", why.message, plan.active_deadline_seconds);
        draft.fail(&Refusal { reason: why.reason.clone(), message });
        return Ok(Action::await_change());
    }
    draft.block(why);
    Ok(Action::requeue(INPUT_PAUSE))
}

fn pause(context: &Context, seen: &dereference::Seen, steps: &[Step]) -> Duration {
    let now = context.now().as_second();
    let until = steps.iter().filter_map(|step| match step {
        Step::WaitUntil(at) => Some(Duration::from_secs(u64::try_from(at - now).unwrap_or(0).max(1))),
        _ => None,
    });
    let work = if seen.podless() { POD_PAUSE } else { WORK_PAUSE };
    until.chain([work]).min().unwrap_or(work)
}

/// Says what is wrong in the status, if that helps, and tries again.
async fn troubled(
    context: &Context,
    object: &ModelOptimization,
    mut draft: Draft,
    error: Error,
) -> Result<Action, Error> {
    let Some(why) = problem::explain(&error) else { return Err(error) };
    let store = matches!(error, Error::Store { .. });
    draft.trouble(&why, store);
    finish(context, object, draft, Action::requeue(STORE_PAUSE)).await?;
    if store { Ok(Action::requeue(STORE_PAUSE)) } else { Err(error) }
}

async fn finish(context: &Context, object: &ModelOptimization, draft: Draft, action: Action) -> Result<Action, Error> {
    let status = draft.into_status();
    let pinned = object.status.as_ref().map(Draft::digests).unwrap_or_default();
    let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    pins::update(context, &namespace, &uid, &pinned, &Draft::digests(&status)).await?;
    write::update_status(&context.client, object, &status).await?;
    let old = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    announce(context, object, old, &status.conditions).await;
    Ok(action)
}

fn ended(object: &ModelOptimization) -> bool {
    object.status.as_ref().is_some_and(|status| {
        conditions::is_true(&status.conditions, COMPLETE) || conditions::is_true(&status.conditions, FAILED)
    })
}
