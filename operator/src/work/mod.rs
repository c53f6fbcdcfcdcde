//! Work: ModelOptimization, EdgeBenchmark and BenchmarkRun become Jobs, leases and runner pods.
//!
//! Each kind is a pipeline: dereference (reads) → validate (pure) → next (pure, in `edgeyard_plan`) → build (pure) →
//! apply (writes) → status (writes). What is to be done is decided in `edgeyard_plan` alone.

pub mod template;
pub mod observe;
pub mod reports;
pub mod inputs;
pub mod problem;
pub mod announce;
pub mod pins;
pub mod series;
pub mod gone;
pub mod optimization;
pub mod benchmark;
pub mod run;

use std::sync::Arc;

use crate::frame::{Context, Running};

/// The controllers of ModelOptimization, EdgeBenchmark and BenchmarkRun, and what cleans up after objects that are gone.
pub fn controllers(context: &Arc<Context>) -> Vec<Running> {
    let mut all = vec![optimization::controller(context), benchmark::controller(context), run::controller(context)];
    all.extend(gone::watchers(context));
    all
}
