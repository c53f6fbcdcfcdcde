//! How far a job is, for `kubectl get`, progress bars and whoever waits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a job is. The last one written is the one that counts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it is doing, as one word for programs, such as `Calibrate` or `Measure`.
    pub step: String,
    /// What it is doing, for people.
    pub message: String,
    /// Steps or items done.
    pub done: u64,
    /// Steps or items in all; 0 if unknown.
    pub total: u64,
}
