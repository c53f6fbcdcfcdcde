//! One way to run a controller: guarded watch, bounded concurrency, backoff by object, metrics, end on shutdown.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{Controller, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::metrics::{ControllerLabels, ReconcileLabels};
use super::{Context, Error, Requeue, Running};

/// An object as it comes from a watch: one that cannot be read does not stop the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// Adds watches of other kinds: `|c| c.owns(Api::<Guarded<Pod>>::all(client), watcher::Config::default())`.
pub type Extend<K> = Box<dyn FnOnce(Controller<Guarded<K>>) -> Controller<Guarded<K>> + Send>;

/// Changes in quick succession are one reconciliation.
const DEBOUNCE: Duration = Duration::from_millis(50);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After a lost compare-and-swap; the watch is about to bring the newer object anyway.
const CONFLICT_PAUSE: Duration = Duration::from_millis(200);

/// Runs a controller of kind `K` in all namespaces until shutdown; what is being reconciled then is finished.
///
/// `name` is the label `controller` of its metrics. `reconcile` gets every object that can be read, again whenever it or
/// something that `extend` watches changes, and when the [`Action`] it gave is due. Its errors are logged and requeued by
/// [`Error::requeue`].
pub fn run_controller<K, F, Fut>(name: &'static str, context: &Arc<Context>, extend: Extend<K>, reconcile: F) -> Running
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    F: Fn(Arc<K>, Arc<Context>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let context = Arc::clone(context);
    let driver = Arc::new(Driver { name, reconcile, failures: Mutex::default() });
    Box::pin(async move {
        let api: Api<Guarded<K>> = Api::all(context.client.clone());
        let config = Config::default().debounce(DEBOUNCE).concurrency(context.settings.concurrency);
        let controller = extend(Controller::new(api, watcher::Config::default()))
            .with_config(config)
            .graceful_shutdown_on(context.shutdown.wait());
        let policy = Arc::clone(&driver);
        controller
            .run(
                move |object, context| {
                    let driver = Arc::clone(&driver);
                    async move { driver.reconcile(object, context).await }
                },
                move |object, error, _| policy.after_error(&object, error),
                context,
            )
            .for_each(|result| async move {
                if let Err(error) = result {
                    // Reconcilers' errors are logged with their object; what is left are the watches' own.
                    if !matches!(error, kube::runtime::controller::Error::ReconcilerFailed(..)) {
                        tracing::debug!(controller = name, error = %super::error::chain(&error), "watch");
                    }
                }
            })
            .await;
        tracing::info!(controller = name, "stopped");
    })
}

struct Driver<F, K: Resource<DynamicType = ()>> {
    name: &'static str,
    reconcile: F,
    /// Failures in a row, by object.
    failures: Mutex<HashMap<ObjectRef<K>, u32>>,
}

impl<K, F, Fut> Driver<F, K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Fn(Arc<K>, Arc<Context>) -> Fut,
    Fut: Future<Output = Result<Action, Error>>,
{
    async fn reconcile(&self, object: Arc<Guarded<K>>, context: Arc<Context>) -> Result<Action, Error> {
        let started = Instant::now();
        let reference = reference::<K>(&object);
        let metrics = Arc::clone(&context.metrics);
        let result = match &object.0 {
            Ok(object) => (self.reconcile)(Arc::new(object.clone()), context).await,
            // Its status cannot be written either. The next version of the object is looked at again.
            Err(invalid) => Err(Error::Invalid {
                reason: super::names::reason::INVALID_SPEC,
                message: format!("cannot be read as {}: {}", K::kind(&()), invalid.error),
            }),
        };
        let outcome = result.as_ref().map_or_else(Error::outcome, |_| "success");
        metrics.reconciles.get_or_create(&ReconcileLabels { controller: self.name, outcome }).inc();
        metrics
            .durations
            .get_or_create(&ControllerLabels { controller: self.name })
            .observe(started.elapsed().as_secs_f64());
        match &result {
            Ok(_) => {
                self.failures().remove(&reference);
            }
            Err(error) if error.requeue() == Requeue::Soon => {
                tracing::debug!(controller = self.name, object = %reference, error = %error.chain(), "outdated");
            }
            Err(error) => {
                tracing::warn!(controller = self.name, object = %reference, error = %error.chain(), "failed");
            }
        }
        result
    }

    fn after_error(&self, object: &Guarded<K>, error: &Error) -> Action {
        match error.requeue() {
            Requeue::Soon => Action::requeue(CONFLICT_PAUSE),
            Requeue::AwaitChange => Action::await_change(),
            Requeue::Backoff => {
                let mut failures = self.failures();
                let failed = failures.entry(reference::<K>(object)).or_default();
                let pause = FIRST_PAUSE.saturating_mul(1 << (*failed).min(10)).min(LONGEST_PAUSE);
                *failed += 1;
                Action::requeue(pause)
            }
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectRef<K>, u32>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reference<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> ObjectRef<K> {
    let meta = object.meta();
    let reference = ObjectRef::new(meta.name.as_deref().unwrap_or_default());
    match &meta.namespace {
        Some(namespace) => reference.within(namespace),
        None => reference,
    }
}

#[cfg(test)]
mod tests {
    use edgeyard_crds::queue::LeaseQueue;
    use serde_json::json;

    use super::*;
    use crate::frame::mock::{context, finish};

    fn queue(spec: serde_json::Value) -> Arc<Guarded<LeaseQueue>> {
        let text = json!({
            "apiVersion": "edgeyard.dev/v1alpha1", "kind": "LeaseQueue",
            "metadata": { "name": "q", "namespace": "lab" }, "spec": spec,
        });
        Arc::new(serde_json::from_value(text).unwrap())
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_read_is_left_until_it_changes() {
        let (context, server) = context("2026-11-23T09:00:00Z", vec![]);
        let reconcile = |_, _| async { Ok(Action::await_change()) };
        let driver = Driver::<_, LeaseQueue> { name: "test", reconcile, failures: Mutex::default() };
        let broken = queue(json!({ "maxPriority": "high" }));
        let error = driver.reconcile(Arc::clone(&broken), Arc::clone(&context)).await.unwrap_err();
        assert_eq!((error.requeue(), error.outcome()), (Requeue::AwaitChange, "invalid"));
        assert_eq!(driver.after_error(&broken, &error), Action::await_change());
        assert!(driver.reconcile(queue(json!({})), Arc::clone(&context)).await.is_ok());
        finish(context, server).await;
    }

    #[tokio::test]
    async fn pauses_double_up_to_a_minute_and_a_success_resets_them() {
        let (context, server) = context("2026-11-23T09:00:00Z", vec![]);
        let reconcile = |_, _| async { Ok(Action::await_change()) };
        let driver = Driver::<_, LeaseQueue> { name: "test", reconcile, failures: Mutex::default() };
        let object = queue(json!({}));
        let error = Error::Unexpected("x".into());
        let mut pause = |_| driver.after_error(&object, &error);
        assert_eq!([0, 1, 2].map(&mut pause), [500, 1000, 2000].map(|ms| Action::requeue(Duration::from_millis(ms))));
        assert_eq!((0..20).map(&mut pause).last(), Some(Action::requeue(LONGEST_PAUSE)));
        driver.reconcile(Arc::clone(&object), Arc::clone(&context)).await.unwrap();
        assert_eq!(driver.after_error(&object, &error), Action::requeue(FIRST_PAUSE));
        finish(context, server).await;
    }
}
