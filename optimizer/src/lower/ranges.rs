//! Calibrated ranges of tensors.

use std::collections::BTreeMap;

/// The values a tensor took during calibration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

/// Ranges by ONNX tensor name: the inputs and everything computed.
pub type Ranges = BTreeMap<String, Range>;
