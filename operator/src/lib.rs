//! The controllers of Edgeyard: they know Kubernetes and link no ML engine.
//!
//! `frame` is what all of them stand on, `lease` gives devices to those who wait for them, `work` turns
//! ModelOptimizations and EdgeBenchmarks into Jobs, leases and runner pods.

pub mod frame;
pub mod lease;
pub mod work;
mod drain;
mod run;

pub use run::run;

use std::sync::Arc;

use frame::{Context, Running};

/// Every controller, not yet running.
pub fn controllers(context: &Arc<Context>) -> Vec<Running> {
    let mut all = lease::controllers(context);
    all.extend(work::controllers(context));
    all
}
