//! Series that mirror objects: the work controllers set them from a status and remove them with the object, so that
//! short-lived pods are never lost between two scrapes. A set is replaced whole, so that no scrape sees half of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

/// The families of results; the registry's prefix is added to their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Latency at a percentile.
    Latency,
    /// Ends of the 95 % interval of a percentile.
    LatencyInterval,
    /// Energy of one inference.
    Energy,
    /// Samples a second.
    Throughput,
    /// Accuracy from 0 to 1.
    Accuracy,
    /// Ends of the accuracy's 95 % interval.
    AccuracyInterval,
    /// Accuracy lost against the source.
    AccuracyDrop,
    /// Size of an artefact.
    ArtifactSize,
    /// Instructions of one inference on an emulated device.
    Instructions,
    /// Always 1; joins the record's digest to the other series.
    ResultInfo,
    /// DeviceLeases by queue and phase.
    Leases,
    /// EdgeDevices by class and state.
    Devices,
    /// DeviceLeases that wait, by queue.
    QueueWaiting,
}

impl Metric {
    /// The name without prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency_seconds",
            Self::LatencyInterval => "latency_interval_seconds",
            Self::Energy => "energy_joules",
            Self::Throughput => "throughput_samples_per_second",
            Self::Accuracy => "accuracy_ratio",
            Self::AccuracyInterval => "accuracy_interval_ratio",
            Self::AccuracyDrop => "accuracy_drop_ratio",
            Self::ArtifactSize => "artifact_size_bytes",
            Self::Instructions => "instructions_per_inference",
            Self::ResultInfo => "result_info",
            Self::Leases => "leases",
            Self::Devices => "devices",
            Self::QueueWaiting => "queue_waiting",
        }
    }

    fn help(self) -> &'static str {
        match self {
            Self::Latency => "Latency of one inference at a percentile, on real devices only",
            Self::LatencyInterval => "Ends of the 95 % interval of the latency at a percentile",
            Self::Energy => "Energy of one inference: gross, and net of what the idle device takes",
            Self::Throughput => "Samples inferred in a second, or the highest rate that kept its bound",
            Self::Accuracy => "Accuracy on the evaluation set",
            Self::AccuracyInterval => "Ends of the 95 % interval of the accuracy",
            Self::AccuracyDrop => "Accuracy lost against the first variant of the model on the device",
            Self::ArtifactSize => "Size of an artefact",
            Self::Instructions => "Instructions of one inference on an emulated device",
            Self::ResultInfo => "Always 1; carries the digest of the record behind the other series",
            Self::Leases => "DeviceLeases that exist",
            Self::Devices => "EdgeDevices that exist",
            Self::QueueWaiting => "DeviceLeases that wait for a device",
        }
    }
}

/// One value with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    metric: Metric,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Series {
    /// A value that has no labels yet.
    pub fn new(metric: Metric, value: f64) -> Self {
        Self { metric, labels: Vec::new(), value }
    }

    /// Adds a label. All series of one metric must have the same label names.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push((name, value.into()));
        self
    }
}

/// All series of results, by the UID of the object that they come from.
#[derive(Debug, Default)]
pub struct Results {
    by_object: Mutex<HashMap<String, Vec<Series>>>,
}

impl Results {
    /// Replaces the series of an object.
    pub fn set(&self, uid: &str, series: Vec<Series>) {
        self.lock().insert(uid.to_owned(), series);
    }

    /// Drops the series of an object that is gone.
    pub fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Drops the series of all objects that `alive` does not hold, for those that vanished while nobody looked.
    pub fn retain(&self, alive: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| alive(uid));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Series>>> {
        self.by_object.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names and values, in the order in which they were added.
type Labels = Vec<(&'static str, String)>;

impl Collector for Results {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        // Sorted and without doubles: a label set that appears twice makes the whole scrape fail.
        let mut families: BTreeMap<Metric, BTreeMap<Labels, f64>> = BTreeMap::new();
        for series in self.lock().values().flatten() {
            families.entry(series.metric).or_default().insert(series.labels.clone(), series.value);
        }
        for (metric, family) in families {
            let mut family_encoder =
                encoder.encode_descriptor(metric.name(), metric.help(), None, MetricType::Gauge)?;
            for (labels, value) in family {
                family_encoder.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}
