//! Kubernetes Events: short news for `kubectl describe`. Never needed for anything to work, so their failure is logged only.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use super::names::REPORTER;
use super::write::CALL_TIMEOUT;

/// The same news about the same object is told once in this time: reconcilers are level-based and see it again and again.
const SILENCE: Duration = Duration::from_secs(600);
/// The API server takes at most 1024 bytes.
const MAX_NOTE: usize = 1000;

/// Publishes Events, each piece of news once.
pub struct Events {
    recorder: Recorder,
    told: Mutex<HashMap<Key, Instant>>,
}

/// Object (UID), reason, note.
type Key = (String, String, String);

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    /// Events through this client.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter { controller: REPORTER.into(), instance: std::env::var("HOSTNAME").ok() };
        Self { recorder: Recorder::new(client, reporter), told: Mutex::default() }
    }

    /// Something went as it should.
    pub async fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, note: impl Into<String>) {
        self.publish(about, EventType::Normal, reason, note.into()).await;
    }

    /// Somebody should look.
    pub async fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, note: impl Into<String>) {
        self.publish(about, EventType::Warning, reason, note.into()).await;
    }

    async fn publish<K: Resource<DynamicType = ()>>(&self, about: &K, type_: EventType, reason: &str, note: String) {
        let note: String = if note.len() <= MAX_NOTE { note } else { note.chars().take(MAX_NOTE / 4).collect() };
        let key = (about.meta().uid.clone().unwrap_or_default(), reason.to_owned(), note.clone());
        if !self.is_news(key, Instant::now()) {
            return;
        }
        let event =
            Event { type_, reason: reason.into(), note: Some(note), action: "Reconcile".into(), secondary: None };
        let reference = about.object_ref(&());
        match tokio::time::timeout(CALL_TIMEOUT, self.recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(reason, error = %super::error::chain(&error), "event not published"),
            Err(_) => tracing::debug!(reason, "event not published in time"),
        }
    }

    fn is_news(&self, key: Key, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < SILENCE);
        match told.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeyard_crds::queue::LeaseQueue;
    use serde_json::json;

    use crate::frame::mock::{Exchange, context, finish};

    #[tokio::test]
    async fn the_same_news_is_told_once() {
        let queue: LeaseQueue = serde_json::from_value(json!({
            "metadata": { "name": "q", "namespace": "lab", "uid": "u" }, "spec": {},
        }))
        .unwrap();
        let post = || {
            let path = "/apis/events.k8s.io/v1/namespaces/lab/events";
            Exchange::new("POST", path, 201, json!({ "metadata": {} })).with_body(|body| {
                assert_eq!(body["regarding"]["name"], "q");
                assert_eq!(body["reportingController"], "edgeyard-operator");
            })
        };
        let (context, server) = context("2026-11-23T09:00:00Z", vec![post(), post()]);
        context.events.normal(&queue, "Accepted", "first").await;
        context.events.normal(&queue, "Accepted", "first").await;
        context.events.warning(&queue, "InvalidSpec", "second").await;
        context.events.warning(&queue, "InvalidSpec", "second").await;
        finish(context, server).await;
    }
}
