//! BenchmarkRun: variants on one device. Made by EdgeBenchmarks; people read it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::benchmark::{AccuracyMetric, DeviceLoss, EnergyPolicy, Timeouts, Workload};
use crate::benchmark_status::ResultHeadline;
use crate::descriptor::Descriptor;
use crate::devices::DeviceRequest;
use crate::optimization::ModelFormat;
use crate::references::{NamespacedReference, UniqueReference};
use crate::rules::{immutable, one_way};
use crate::scalars::{Digest, Key, ObjectName, TargetName};

/// Measure variants on one device.
#[skip_serializing_none]
#[derive(CustomResource, Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[cfg_attr(test, kube(cel))]
#[kube(
    group = "edgeyard.dev",
    version = "v1alpha1",
    kind = "BenchmarkRun",
    shortname = "br",
    category = "edgeyard",
    namespaced,
    status = "BenchmarkRunStatus",
    derive = "PartialEq",
    doc = "BenchmarkRun measures variants on one device. EdgeBenchmarks make it; look, but do not write.",
    printcolumn(name = "Device", type_ = "string", json_path = ".status.deviceRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step"),
    printcolumn(name = "Attempt", type_ = "integer", json_path = ".status.attempt"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    selectable = ".status.phase"
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = immutable("benchmarkName"),
    validation = immutable("device"),
    validation = immutable("unit"),
    validation = immutable("queueRef"),
    validation = immutable("workload"),
    validation = immutable("variants"),
    validation = immutable("accuracy"),
    validation = immutable("energy"),
    validation = immutable("coolDownCelsius"),
    validation = immutable("deviceLoss")
)]
pub struct BenchmarkRunSpec {
    /// The EdgeBenchmark that this run is part of.
    pub benchmark_name: ObjectName,
    /// Which device will do.
    pub device: DeviceRequest,
    /// Which of the request's `count`, from 0 on.
    #[schemars(range(min = 0, max = 15))]
    #[serde(default)]
    pub unit: i32,
    /// The queue to wait in. Absent: the queue annotated as default.
    pub queue_ref: Option<NamespacedReference>,
    /// Higher goes first, up to the queue's `maxPriority`. May be changed at any time.
    #[schemars(range(min = 0, max = 1000))]
    #[serde(default)]
    pub priority: i32,
    /// How inputs are fed.
    #[serde(default)]
    pub workload: Workload,
    /// What to measure, pinned.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub variants: Vec<PinnedVariant>,
    /// Data and metric that accuracy is computed from.
    pub accuracy: Option<PinnedEvaluation>,
    /// Whether energy is measured, by the meter of the device's class.
    #[serde(default)]
    pub energy: EnergyPolicy,
    /// Wait until the device is this cool before measuring, in degrees Celsius.
    #[schemars(range(min = 1, max = 120))]
    pub cool_down_celsius: Option<i32>,
    /// How long each step may take. Each may be extended.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What to do when the device is lost.
    #[serde(default)]
    pub device_loss: DeviceLoss,
    /// Stop and free the device until this is false again; the interrupted attempt is not counted.
    #[serde(default)]
    pub suspend: bool,
    /// End now. Cannot be undone.
    #[serde(default)]
    #[x_kube(validation = one_way())]
    pub cancel: bool,
}

/// A variant to measure, pinned by digest.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PinnedVariant {
    /// The entry in the EdgeBenchmark's models.
    pub model: Key,
    /// The variant.
    pub variant: Key,
    /// The runtime.
    pub target: TargetName,
    /// The file format.
    pub format: ModelFormat,
    /// What identifies it.
    pub digest: Digest,
    /// Its size.
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
}

/// Data for accuracy, pinned by digest.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
pub struct PinnedEvaluation {
    /// An `.npz` file with the arrays `x` and `y`.
    pub digest: Digest,
    /// The score.
    pub metric: AccuracyMetric,
}

/// What came of a BenchmarkRun.
#[skip_serializing_none]
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BenchmarkRunStatus {
    /// The generation of the spec that this status speaks of; -1 before the first.
    #[serde(default = "crate::never_observed")]
    pub observed_generation: i64,
    /// One word for people; programs read `conditions`.
    pub phase: Option<crate::optimization_status::Phase>,
    /// Where a running run is.
    pub step: Option<RunStep>,
    /// The attempt under way or the last one, from 1. Retries make new ones.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub attempt: Option<i32>,
    /// How many attempts ended by the loss of a device or another failure that is not the model's.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failed_attempts: Option<i32>,
    /// The device, once granted.
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub device_ref: Option<UniqueReference>,
    /// The lease's token.
    #[schemars(range(min = 1))]
    pub fencing_token: Option<i64>,
    /// When work started.
    pub start_time: Option<Time>,
    /// When the present attempt was given its device.
    pub granted_time: Option<Time>,
    /// When the present attempt's pod began to run.
    pub running_time: Option<Time>,
    /// When the object reached an end, whichever.
    pub completion_time: Option<Time>,
    /// Headlines, one a variant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["model".into(), "variant".into(), "target".into()]))]
    pub results: Vec<ResultHeadline>,
    /// The record, in the store.
    pub record: Option<Descriptor>,
    /// What is known of the object, one entry a type; `kubectl wait --for=condition=TYPE` reads it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
}

/// Where a running run is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(description = "", transform = crate::variant_docs::into_title)]
pub enum RunStep {
    /// Waits for a device.
    Queued,
    /// Has a device; its pod starts.
    Preparing,
    /// Measures.
    Measuring,
    /// Gives the device back.
    Releasing,
}
