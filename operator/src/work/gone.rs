//! Cleans up after objects that are gone: their series and their pins.
//!
//! Children go by owner references. What is not in the API server is removed when a watch tells of the deletion; series of
//! objects that vanished unseen go when the watch starts over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::run::BenchmarkRun;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::frame::{Context, Running};

/// Every kind that leaves something behind, watched until shutdown.
pub fn watchers(context: &Arc<Context>) -> Vec<Running> {
    let alive = Arc::new(Mutex::new(Alive::default()));
    vec![
        watch::<ModelOptimization>(context, &alive),
        watch::<EdgeBenchmark>(context, &alive),
        watch::<BenchmarkRun>(context, &alive),
    ]
}

/// The UIDs of all objects that live, by kind. Kinds that were not listed yet have no entry.
#[derive(Debug, Default)]
struct Alive {
    kinds: BTreeMap<String, BTreeSet<String>>,
}

/// How many kinds there are: before all of them are listed, nothing is known to be gone.
const KINDS: usize = 3;

impl Alive {
    /// Takes the complete list of one kind.
    fn listed(&mut self, kind: String, uids: BTreeSet<String>) {
        self.kinds.insert(kind, uids);
    }

    fn changed(&mut self, kind: &str, uid: String) {
        if let Some(uids) = self.kinds.get_mut(kind) {
            uids.insert(uid);
        }
    }

    fn removed(&mut self, kind: &str, uid: &str) {
        if let Some(uids) = self.kinds.get_mut(kind) {
            uids.remove(uid);
        }
    }

    /// Whether an object may still be there.
    fn has(&self, uid: &str) -> bool {
        self.kinds.len() < KINDS || self.kinds.values().any(|uids| uids.contains(uid))
    }
}

fn watch<K>(context: &Arc<Context>, alive: &Arc<Mutex<Alive>>) -> Running
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (context, alive) = (Arc::clone(context), Arc::clone(alive));
    Box::pin(async move {
        let kind = K::kind(&()).into_owned();
        let api: Api<PartialObjectMeta<K>> = Api::all(context.client.clone());
        let mut events =
            Box::pin(watcher(api, watcher::Config::default()).default_backoff().take_until(context.shutdown.wait()));
        let mut listing = BTreeSet::new();
        let lock = || alive.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => listing.extend(object.metadata.uid),
                Ok(Event::InitDone) => {
                    lock().listed(kind.clone(), std::mem::take(&mut listing));
                    context.metrics.results.retain(|uid| lock().has(uid));
                }
                Ok(Event::Apply(object)) => {
                    if let Some(uid) = object.metadata.uid {
                        lock().changed(&kind, uid);
                    }
                }
                Ok(Event::Delete(object)) => {
                    if let Some(uid) = &object.metadata.uid {
                        lock().removed(&kind, uid);
                    }
                    forget(&context, &object.metadata).await;
                }
                Err(error) => tracing::debug!(kind, %error, "watch"),
            }
        }
    })
}

async fn forget(context: &Context, object: &ObjectMeta) {
    let (Some(uid), Some(namespace)) = (&object.uid, &object.namespace) else { return };
    context.metrics.results.remove(uid);
    // The store may be down, or never have had any; space is all that this costs.
    if let Err(error) = context.store.unpin(namespace, uid).await {
        tracing::warn!(uid, error = %crate::frame::error::chain(&error), "pins of a deleted object stay");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_gone_before_all_kinds_are_listed() {
        let mut alive = Alive::default();
        alive.listed("A".into(), BTreeSet::from(["a".to_owned()]));
        alive.listed("B".into(), BTreeSet::new());
        assert!(alive.has("x"));
        alive.listed("C".into(), BTreeSet::new());
        assert!(alive.has("a") && !alive.has("x"));
        alive.changed("B", "x".into());
        assert!(alive.has("x"));
        alive.removed("B", "x");
        assert!(!alive.has("x"));
    }
}
