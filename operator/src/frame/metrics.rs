//! What Prometheus is told: one registry with the prefix `edgeyard_`, and its text in both formats.
//!
//! Labels come from closed sets or from live objects; what an object brought in goes when it goes.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::results::Results;

/// Bounds of `edgeyard_reconcile_duration_seconds`.
const DURATION_BUCKETS: [f64; 9] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 20.0];

/// All of the operator's series.
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Series of benchmark results, set and removed by object.
    pub results: Arc<Results>,
    /// `edgeyard_reconcile_total`.
    pub reconciles: Family<ReconcileLabels, Counter>,
    /// `edgeyard_reconcile_duration_seconds`.
    pub durations: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    /// Series of leases, devices and queues, replaced as a whole by every pass of the scheduler.
    pub lab: Arc<Results>,
    /// `edgeyard_leader`: 1 in the operator that works.
    pub leader: Gauge,
}

/// Labels of `edgeyard_reconcile_total`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReconcileLabels {
    /// The controller.
    pub controller: &'static str,
    /// `success`, or one of [`Error::outcome`](super::Error::outcome).
    pub outcome: &'static str,
}

/// Labels of `edgeyard_reconcile_duration_seconds`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ControllerLabels {
    /// The controller.
    pub controller: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("edgeyard");
        let metrics = Self {
            results: Arc::default(),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            lab: Arc::default(),
            leader: Gauge::default(),
            registry: Mutex::new(Registry::default()),
        };
        registry.register("reconcile", "Reconciliations, by how they ended", metrics.reconciles.clone());
        registry.register("reconcile_duration_seconds", "How long reconciliations took", metrics.durations.clone());
        registry.register("leader", "1 in the operator that works, 0 in one that stands by", metrics.leader.clone());
        registry.register_collector(Box::new(metrics.results.clone()));
        registry.register_collector(Box::new(metrics.lab.clone()));
        *metrics.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = registry;
        metrics
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a String.
    pub fn open_metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::results::{Metric, Series};

    #[test]
    fn results_come_and_go_with_their_object() {
        let metrics = Metrics::default();
        let series = || Series::new(Metric::Latency, 0.25).label("benchmark", "b\"1").label("percentile", "50");
        metrics.results.set("uid-1", vec![series()]);
        // A re-created object of the same name has the same labels: one of the two series must win, or the scrape fails.
        metrics.results.set("uid-2", vec![series()]);
        let line = "edgeyard_latency_seconds{benchmark=\"b\\\"1\",percentile=\"50\"} 0.25";
        assert_eq!(metrics.open_metrics().unwrap().matches(line).count(), 1);
        metrics.results.remove("uid-1");
        assert_eq!(metrics.open_metrics().unwrap().matches(line).count(), 1);
        metrics.results.remove("uid-2");
        let text = metrics.open_metrics().unwrap();
        assert!(!text.contains("edgeyard_latency_seconds"), "{text}");
    }
}
