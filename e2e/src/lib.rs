//! What the end-to-end tests and the demo share: a cluster seen through kubectl and helm, the lab of the examples, its
//! data, and waiting for conditions. Uses the very commands that users type.

pub mod chaos;
pub mod cluster;
pub mod data;
pub mod diagnose;
pub mod example;
pub mod lab;
pub mod namespace;
pub mod wait;

pub use cluster::Cluster;
pub use example::Example;
pub use namespace::Namespace;
pub use wait::{Outcome, wait_for};

use std::path::PathBuf;

/// The root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
