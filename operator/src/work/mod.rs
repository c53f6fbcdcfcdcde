//! Work: ModelOptimization, EdgeBenchmark and BenchmarkRun.

use std::sync::Arc;

use crate::frame::{Context, Running};

/// The controllers of ModelOptimization, EdgeBenchmark and BenchmarkRun.
pub fn controllers(_context: &Arc<Context>) -> Vec<Running> {
    Vec::new()
}
