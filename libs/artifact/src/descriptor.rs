//! The small JSON documents that the store's API exchanges.

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Names one stored blob: what status fields and reports hold instead of URLs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The blob's digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its media type, one of [`media_type`] or another.
    pub media_type: String,
}

/// One stored result, as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResultEntry {
    /// UID of the run (or of the ModelOptimization's job) that made it.
    pub uid: String,
    /// Which attempt made it.
    pub attempt: u32,
    /// The body's `metadata.name`; empty if it has none.
    #[serde(default)]
    pub name: String,
    /// Digest of the body.
    pub digest: Digest,
    /// Length of the body.
    pub size_bytes: u64,
    /// Media type of the body.
    pub media_type: String,
    /// When the store took it, RFC 3339 in UTC.
    pub created_at: String,
}

/// A listing of results, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultList {
    /// The results.
    pub items: Vec<ResultEntry>,
}

/// What a namespace uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Bytes of the namespace's blobs and results.
    pub used_bytes: u64,
    /// The limit; uploads past it answer 507.
    pub quota_bytes: u64,
}

/// Someone who wants blobs kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinOwner {
    /// Whose blobs.
    pub namespace: String,
    /// Who wants them.
    pub owner: String,
}

/// Everyone who wants blobs kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinList {
    /// The owners, by namespace and name.
    pub items: Vec<PinOwner>,
}

/// The body of every error answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One CamelCase word for programs.
    pub reason: String,
    /// What happened and what to do, for people.
    pub message: String,
}

/// Media types of what Edgeyard stores.
pub mod media_type {
    /// Report of an optimizer job.
    pub const REPORT: &str = "application/vnd.edgeyard.report.v1+json";
    /// Record of a benchmark run.
    pub const RECORD: &str = "application/vnd.edgeyard.record.v1+json";
    /// An ONNX model.
    pub const ONNX: &str = "application/vnd.onnx";
    /// A TensorFlow Lite model.
    pub const TFLITE: &str = "application/vnd.tflite";
    /// NumPy arrays.
    pub const NPZ: &str = "application/vnd.numpy.npz";
    /// Raw samples of a measurement.
    pub const SAMPLES: &str = "application/vnd.edgeyard.samples.v1";
    /// Anything else.
    pub const OCTET_STREAM: &str = "application/octet-stream";

    /// The media type that a file's extension tells.
    pub fn of_path(path: &std::path::Path) -> &'static str {
        match path.extension().and_then(|e| e.to_str()) {
            Some("onnx") => ONNX,
            Some("tflite") => TFLITE,
            Some("npz") => NPZ,
            _ => OCTET_STREAM,
        }
    }
}
