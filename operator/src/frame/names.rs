//! Constants that appear in objects: labels, annotations, finalizers, reasons. Users and scripts read them, so a change
//! here is a change of the API.

/// The one field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "edgeyard-operator";
/// Who reports events.
pub const REPORTER: &str = "edgeyard-operator";

/// Set on everything that the operator creates, with the value [`MANAGER`].
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`].
pub const MANAGER: &str = "edgeyard";

/// Keeps a DeviceLease until its devices are free again.
pub const RELEASE_DEVICE: &str = "edgeyard.dev/release-device";
/// The LeaseQueue with this annotation and the value `true` serves leases without `queueRef`.
pub const DEFAULT_QUEUE: &str = "edgeyard.dev/is-default-queue";

/// Labels of children: which object they serve.
pub mod label {
    /// Name of the ModelOptimization.
    pub const MODEL_OPTIMIZATION: &str = "edgeyard.dev/model-optimization";
    /// Name of the EdgeBenchmark.
    pub const BENCHMARK: &str = "edgeyard.dev/benchmark";
    /// Name of the BenchmarkRun.
    pub const RUN: &str = "edgeyard.dev/run";
    /// UID of the DeviceLease under which a runner pod may touch its device.
    pub const LEASE: &str = "edgeyard.dev/lease";
    /// Name of the variant.
    pub const VARIANT: &str = "edgeyard.dev/variant";
    /// Name of the target.
    pub const TARGET: &str = "edgeyard.dev/target";
    /// Number of the attempt, from 1 on.
    pub const ATTEMPT: &str = "edgeyard.dev/attempt";
}

/// Condition types beyond those in `edgeyard_crds::conditions`.
pub mod condition {
    /// DeviceLease: the devices are its own.
    pub const GRANTED: &str = "Granted";
    /// EdgeDevice: its node is ready; emulators are always online.
    pub const ONLINE: &str = "Online";
    /// EdgeBenchmark: its artefacts are pinned, once and for all.
    pub const MODELS_RESOLVED: &str = "ModelsResolved";
    /// EdgeDevice: nothing says that it is broken.
    pub const HEALTHY: &str = "Healthy";
}

/// Reasons in conditions and events.
pub mod reason {
    /// The object was understood and nothing is left to do.
    pub const ACCEPTED: &str = "Accepted";
    /// The spec cannot be understood; the message names the field.
    pub const INVALID_SPEC: &str = "InvalidSpec";

    /// Lease: waits for its turn.
    pub const QUEUED: &str = "Queued";
    /// Lease: waits because no device that fits is free.
    pub const WAITING_FOR_DEVICE: &str = "WaitingForDevice";
    /// Lease: waits although fewer devices exist than it asks for.
    pub const NO_MATCHING_DEVICE: &str = "NoMatchingDevice";
    /// Lease: waits because devices that fit are held by `stopPolicy`.
    pub const DEVICE_HELD: &str = "DeviceHeld";
    /// Lease: the devices are its own.
    pub const ALLOCATED: &str = "Allocated";
    /// Lease: given back.
    pub const RELEASED: &str = "Released";
    /// Lease: its time is over.
    pub const LEASE_EXPIRED: &str = "LeaseExpired";
    /// Lease: waited longer than `queueTimeoutSeconds`.
    pub const QUEUE_TIMEOUT: &str = "QueueTimeout";
    /// Lease: a device was taken away by `stopPolicy: HoldAndDrain`.
    pub const DRAINED: &str = "Drained";
    /// Lease: a device's status no longer names it, or the device is gone.
    pub const DEVICE_LOST: &str = "DeviceLost";
    /// Lease: the queue does not exist.
    pub const QUEUE_NOT_FOUND: &str = "QueueNotFound";
    /// Lease: no queue was named and none is annotated as default.
    pub const NO_DEFAULT_QUEUE: &str = "NoDefaultQueue";
    /// Lease: the queue does not admit the namespace.
    pub const NAMESPACE_NOT_ALLOWED: &str = "NamespaceNotAllowed";
    /// Lease: the priority is above the queue's `maxPriority`.
    pub const PRIORITY_TOO_HIGH: &str = "PriorityTooHigh";
    /// Lease: the duration is above the queue's `maxDurationSeconds`.
    pub const DURATION_TOO_LONG: &str = "DurationTooLong";
    /// Lease: pods on its devices are being removed.
    pub const RELEASING: &str = "Releasing";
    /// Lease: pods outlived the release's time limit; the device was freed all the same.
    pub const RELEASE_FORCED: &str = "ReleaseForced";

    /// Device: its class does not exist.
    pub const DEVICE_CLASS_NOT_FOUND: &str = "DeviceClassNotFound";
    /// Device: its class is not Ready.
    pub const DEVICE_CLASS_NOT_READY: &str = "DeviceClassNotReady";
    /// Device: held by `stopPolicy`.
    pub const HELD: &str = "Held";
    /// Device: its node is ready.
    pub const NODE_READY: &str = "NodeReady";
    /// Device: its node is not ready.
    pub const NODE_NOT_READY: &str = "NodeNotReady";
    /// Device: its node does not exist.
    pub const NODE_NOT_FOUND: &str = "NodeNotFound";
    /// Device: an emulator, which lives in the runner pod.
    pub const EMULATED: &str = "Emulated";
    /// Device: no complaint is known.
    pub const NO_COMPLAINT: &str = "NoComplaint";
    /// Device: its holder was gone and it was set free.
    pub const HOLDER_GONE: &str = "HolderGone";

    /// Class: a target is not in the catalogue.
    pub const UNKNOWN_TARGET: &str = "UnknownTarget";
}
