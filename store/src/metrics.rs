//! The store's own series, all `edgeyard_store_…`. Labels are routes, methods, status classes and live namespaces.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::quota::Quotas;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    route: String,
    method: String,
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Namespace {
    namespace: String,
}

/// All counters of one store.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram>,
    received: Counter,
    sent: Counter,
    uploads: Gauge,
    swept_blobs: Counter,
    swept_bytes: Counter,
    used: Family<Namespace, Gauge<f64, AtomicU64>>,
    quota: Family<Namespace, Gauge<f64, AtomicU64>>,
}

/// Counts an upload for as long as it lives.
pub struct UploadGuard(Gauge);

impl Drop for UploadGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("edgeyard_store");
        let histogram: fn() -> Histogram = || Histogram::new([0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0]);
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram),
            received: Counter::default(),
            sent: Counter::default(),
            uploads: Gauge::default(),
            swept_blobs: Counter::default(),
            swept_bytes: Counter::default(),
            used: Family::default(),
            quota: Family::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests answered", metrics.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time until an answer began",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes of blobs and results taken in",
            Unit::Bytes,
            metrics.received.clone(),
        );
        registry.register_with_unit("sent", "Bytes of blobs and results sent", Unit::Bytes, metrics.sent.clone());
        registry.register("uploads_in_progress", "Blobs being uploaded", metrics.uploads.clone());
        registry.register("swept_blobs", "Blobs removed because nothing referred to them", metrics.swept_blobs.clone());
        registry.register_with_unit("swept", "Bytes of blobs removed", Unit::Bytes, metrics.swept_bytes.clone());
        registry.register_with_unit("used", "Bytes that a namespace uses", Unit::Bytes, metrics.used.clone());
        registry.register_with_unit("quota", "Bytes that a namespace may use", Unit::Bytes, metrics.quota.clone());
        Self { registry, ..metrics }
    }

    /// Notes an answer.
    pub fn request(&self, route: &str, method: &Method, status: StatusCode, elapsed: Duration) {
        // Methods are a closed set here; anything else that a scanner sends shares one series.
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "PUT" | "DELETE") => known,
            _ => "other",
        };
        let route = route.to_owned();
        let labels = Request { route: route.clone(), method: method.to_owned(), code: status.as_u16().to_string() };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&Route { route }).observe(elapsed.as_secs_f64());
    }

    /// Notes bytes that came.
    pub fn received(&self, bytes: usize) {
        self.received.inc_by(bytes as u64);
    }

    /// The counter of bytes sent, for a stream to keep.
    pub fn sent_counter(&self) -> Counter {
        self.sent.clone()
    }

    /// Counts an upload until the guard is dropped.
    pub fn upload(&self) -> UploadGuard {
        self.uploads.inc();
        UploadGuard(self.uploads.clone())
    }

    /// Notes what a sweep removed.
    pub fn swept(&self, blobs: u64, bytes: u64) {
        self.swept_blobs.inc_by(blobs);
        self.swept_bytes.inc_by(bytes);
    }

    /// The text that Prometheus reads.
    pub fn render(&self, used: &[(String, u64)], quotas: &Quotas) -> String {
        // Series of namespaces that use nothing any more must go.
        self.used.clear();
        self.quota.clear();
        for (namespace, bytes) in used.iter().filter(|(_, bytes)| *bytes > 0) {
            let labels = Namespace { namespace: namespace.clone() };
            self.used.get_or_create(&labels).set(*bytes as f64);
            self.quota.get_or_create(&labels).set(quotas.of(namespace) as f64);
        }
        let mut out = String::new();
        if text::encode(&mut out, &self.registry).is_err() {
            let _ = out.write_str("# EOF\n");
        }
        out
    }
}
