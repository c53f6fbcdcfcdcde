//! Reasons of conditions that planning gives. They are part of the API: programs compare them.

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $word:literal;)+) => {
        $($(#[$doc])+ pub const $name: &str = $word;)+

        /// All of them, for documents and tests.
        pub const ALL: &[&str] = &[$($word),+];
    };
}

reasons! {
    /// The spec contradicts itself; edit or replace the object.
    INVALID_SPEC = "InvalidSpec";
    /// A target that no part of this release knows.
    UNKNOWN_TARGET = "UnknownTarget";
    /// A target cannot use what the passes make.
    INCOMPATIBLE_PASS = "IncompatiblePass";
    /// The source's file format cannot be optimised.
    UNSUPPORTED_FORMAT = "UnsupportedFormat";
    /// A ConfigMap, key, claim or Secret that an input names is not there.
    INPUT_NOT_FOUND = "InputNotFound";
    /// The store does not have a digest that was given alone.
    DIGEST_NOT_STORED = "DigestNotStored";
    /// Inputs are being brought into the store.
    IMPORTING = "Importing";
    /// Artefacts are being made.
    OPTIMIZING = "Optimizing";
    /// Every artefact was verified.
    ARTIFACTS_VERIFIED = "ArtifactsVerified";
    /// Some artefacts were verified, the others were not.
    ARTIFACTS_PARTLY_VERIFIED = "ArtifactsPartlyVerified";
    /// An artefact failed and `partialFailurePolicy` is `Fail`.
    ARTIFACTS_FAILED = "ArtifactsFailed";
    /// Nothing was verified.
    NO_ARTIFACT_VERIFIED = "NoArtifactVerified";
    /// An artefact's accuracy fell further than `constraints.maxAccuracyDrop`.
    ACCURACY_DROP_TOO_LARGE = "AccuracyDropTooLarge";
    /// An artefact is larger than `constraints.maxSize`.
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge";
    /// A target's own rules do not take the model; the report's findings say which operator and what to do.
    TARGET_REFUSES = "TargetRefuses";
    /// `activeDeadlineSeconds` is over.
    DEADLINE_EXCEEDED = "DeadlineExceeded";
    /// `spec.suspend` is true.
    SUSPENDED = "Suspended";
    /// `spec.cancel` is true.
    CANCELLED = "Cancelled";
    /// A pod used more memory than its limit.
    OUT_OF_MEMORY = "OutOfMemory";
    /// A program ended without saying why.
    CRASHED = "Crashed";
    /// A pod is gone without a result.
    POD_LOST = "PodLost";
    /// A node does not have the image and cannot get it.
    IMAGE_UNAVAILABLE = "ImageUnavailable";
    /// No node can take the pod.
    UNSCHEDULABLE = "Unschedulable";
    /// A container cannot be created.
    CONTAINER_NOT_CREATED = "ContainerNotCreated";
    /// Energy is required of a device that has no meter.
    METER_MISSING = "MeterMissing";
    /// A quota of the namespace is used up.
    QUOTA_EXCEEDED = "QuotaExceeded";
    /// The store gives no answer.
    STORE_UNAVAILABLE = "StoreUnavailable";
    /// The store has no result though the job says so.
    RESULT_MISSING = "ResultMissing";
    /// A result is not what was asked for.
    RESULT_MISMATCH = "ResultMismatch";
    /// A ModelOptimization that is named does not exist yet.
    MODEL_OPTIMIZATION_NOT_FOUND = "ModelOptimizationNotFound";
    /// A ModelOptimization is still at work.
    WAITING_FOR_MODEL_OPTIMIZATION = "WaitingForModelOptimization";
    /// A ModelOptimization failed.
    MODEL_OPTIMIZATION_FAILED = "ModelOptimizationFailed";
    /// A variant that is named is not one of the ModelOptimization's.
    VARIANT_NOT_FOUND = "VariantNotFound";
    /// A variant was not verified for any target.
    VARIANT_NOT_VERIFIED = "VariantNotVerified";
    /// All models are pinned by digest.
    MODELS_RESOLVED = "ModelsResolved";
    /// More artefacts than a benchmark takes.
    TOO_MANY_ARTIFACTS = "TooManyArtifacts";
    /// More variants than a run takes.
    TOO_MANY_VARIANTS = "TooManyVariants";
    /// `timeouts.resolveSeconds` is over.
    RESOLVE_TIMEOUT = "ResolveTimeout";
    /// `queueRef` names no queue, or there is no default queue.
    QUEUE_NOT_FOUND = "QueueNotFound";
    /// An EdgeDeviceClass does not exist.
    DEVICE_CLASS_NOT_FOUND = "DeviceClassNotFound";
    /// An EdgeDeviceClass cannot be used as it is.
    INVALID_DEVICE_CLASS = "InvalidDeviceClass";
    /// No device of the queue is what was asked for.
    NO_DEVICE_MATCHES = "NoMatchingDevice";
    /// A selector or a list of names matches devices of several classes.
    AMBIGUOUS_DEVICE_CLASS = "AmbiguousDeviceClass";
    /// A device's class does not have the target that was asked for.
    TARGET_NOT_OF_CLASS = "TargetNotOfClass";
    /// A variant was not made for any target of the device.
    NO_ARTIFACT_FOR_TARGET = "NoArtifactForTarget";
    /// No pair of variant and device is left.
    NOTHING_TO_MEASURE = "NothingToMeasure";
    /// A pair does not fit and `incompatiblePolicy` is `Fail`.
    INCOMPATIBLE_PAIR = "IncompatiblePair";
    /// Runs are under way.
    RUNNING = "Running";
    /// Every run has a record.
    RUNS_SUCCEEDED = "RunsSucceeded";
    /// A run has no record.
    RUNS_FAILED = "RunsFailed";
    /// Waits for a device.
    QUEUED = "Queued";
    /// A device was granted; the runner's pod starts.
    PREPARING = "Preparing";
    /// The device measures.
    MEASURING = "Measuring";
    /// The record is in the store and is what was asked for.
    RECORDED = "Recorded";
    /// `timeouts.queueSeconds` is over.
    QUEUE_TIMEOUT = "QueueTimeout";
    /// `timeouts.prepareSeconds` is over.
    PREPARE_TIMEOUT = "PrepareTimeout";
    /// `timeouts.runSeconds` is over.
    RUN_TIMEOUT = "RunTimeout";
    /// The device was taken away or is silent.
    DEVICE_LOST = "DeviceLost";
    /// Every variant failed.
    ALL_VARIANTS_FAILED = "AllVariantsFailed";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn reasons_are_camel_case_bounded_and_unique() {
        for word in super::ALL {
            assert!(word.len() <= 40 && word.starts_with(|c: char| c.is_ascii_uppercase()));
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
        assert_eq!(super::ALL.iter().collect::<BTreeSet<_>>().len(), super::ALL.len());
    }
}
