//! Finds the range of every activation by running the model on calibration samples in ONNX Runtime, one batch at a
//! time. What is kept of a tensor is two numbers (MinMax) or one histogram (Percentile): memory does not grow with the
//! number of samples.

mod histogram;

use std::collections::BTreeMap;

use edgeyard_job::spec::Calibrator;
use thiserror::Error;

use crate::dataset::{Dataset, DatasetError};
use crate::ir::{DataType, Graph, Model, Value};
use crate::runtime::{OnnxRuntime, RuntimeError, threads};

pub use histogram::{Histogram, PERCENTILE};

pub use crate::lower::{Range, Ranges};

/// Samples for each run of a model with a free batch: activations of all of them are in memory at once.
const BATCH: usize = 8;

/// Why calibration fails.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// The data cannot be used.
    #[error("calibration data: {0}")]
    Dataset(#[from] DatasetError),
    /// The model does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The model computes nonsense.
    #[error(
        "tensor {tensor} is not a number or infinite on calibration sample {sample}: the model itself is broken there"
    )]
    NotFinite {
        /// Which tensor.
        tensor: String,
        /// The first sample of the batch it was seen in.
        sample: usize,
    },
    /// Somebody stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// What calibration found.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// The range of every float tensor that the graph takes or makes.
    pub ranges: Ranges,
    /// Samples used.
    pub samples: usize,
}

/// Runs at most `limit` samples through `model` and watches every float tensor. `step` hears (done, total) and says
/// whether to go on.
pub fn calibrate(
    runtime: &OnnxRuntime,
    model: &Model,
    dataset: &Dataset,
    limit: usize,
    calibrator: Calibrator,
    step: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Calibration, CalibrationError> {
    let mut session = runtime.session(&with_all_outputs(model).to_bytes(), threads())?;
    dataset.check_shape(session.input_shape())?;
    let input = model.graph.inputs.first().map_or(String::new(), |input| input.name.clone());
    let fixed = session.input_shape().first().copied().unwrap_or(-1);
    let batch = usize::try_from(fixed).map_or(BATCH, |fixed| fixed.max(1));
    let total = limit.clamp(1, dataset.len());
    let mut observers: BTreeMap<String, Observer> = BTreeMap::new();
    let mut seen = 0;
    dataset.for_each_batch(total, batch, |first, mut values, count| -> Result<bool, CalibrationError> {
        if !step(first as u64, total as u64) {
            return Err(CalibrationError::Cancelled);
        }
        let size = values.len() / count;
        // A fixed batch larger than what is left sees the last sample more than once; ranges do not mind.
        let rows = if fixed > 0 { batch } else { count };
        for _ in count..rows {
            values.extend_from_within((count - 1) * size..count * size);
        }
        let shape = [&[rows], dataset.sample_shape()].concat();
        let mut broken = None;
        let mut see = |name: &str, values: &[f32]| {
            let observer = match observers.get_mut(name) {
                Some(observer) => observer,
                None => observers.entry(name.to_owned()).or_insert_with(|| Observer::new(calibrator)),
            };
            if !observer.see(values) && broken.is_none() {
                broken = Some(name.to_owned());
            }
        };
        see(&input, &values);
        session.observe(&values, &shape, |output, _| see(output.name, output.values))?;
        if let Some(tensor) = broken {
            return Err(CalibrationError::NotFinite { tensor, sample: first });
        }
        seen += count;
        Ok(true)
    })?;
    step(total as u64, total as u64);
    let ranges = observers.into_iter().filter_map(|(name, observer)| Some((name, observer.range()?))).collect();
    Ok(Calibration { ranges, samples: seen })
}

/// The model with every tensor as an output.
fn with_all_outputs(model: &Model) -> Model {
    let mut model = model.clone();
    let Graph { nodes, outputs, values, .. } = &mut model.graph;
    let known: std::collections::BTreeSet<String> = outputs.iter().map(|output| output.name.clone()).collect();
    for name in nodes.iter().flat_map(|node| &node.outputs) {
        let float = values.get(name).is_none_or(|value| value.dtype == DataType::F32);
        if !name.is_empty() && !known.contains(name) && float {
            // Without type and shape: the runtime knows them better than a file does.
            outputs.push(Value { name: name.clone(), dtype: DataType::Undefined, shape: Vec::new(), has_shape: false });
        }
    }
    model
}

/// What is kept of one tensor.
#[derive(Debug, Clone)]
enum Observer {
    MinMax(Option<Range>),
    Percentile(Histogram),
}

impl Observer {
    fn new(calibrator: Calibrator) -> Self {
        match calibrator {
            Calibrator::MinMax | Calibrator::MovingAverage => Self::MinMax(None),
            Calibrator::Percentile | Calibrator::Entropy | Calibrator::MeanSquaredError => {
                Self::Percentile(Histogram::default())
            }
        }
    }

    /// False when a value is not finite.
    fn see(&mut self, values: &[f32]) -> bool {
        let Some(seen) = range(values) else { return values.is_empty() };
        match self {
            Self::MinMax(range) => {
                let old = range.unwrap_or(seen);
                *range = Some(Range { min: old.min.min(seen.min), max: old.max.max(seen.max) });
            }
            Self::Percentile(histogram) => histogram.add(values, seen),
        }
        true
    }

    fn range(&self) -> Option<Range> {
        match self {
            Self::MinMax(range) => *range,
            Self::Percentile(histogram) => histogram.range(PERCENTILE),
        }
    }
}

/// Smallest and largest; `None` without values or with one that is not finite.
fn range(values: &[f32]) -> Option<Range> {
    const LANES: usize = 16;
    // Separate lanes let the compiler use vector registers; NaN would vanish in min and max, a sum keeps it.
    let (mut low, mut high, mut sum) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0f32; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            low[lane] = low[lane].min(chunk[lane]);
            high[lane] = high[lane].max(chunk[lane]);
            sum[lane] += chunk[lane] * 0.0;
        }
    }
    for value in rest {
        low[0] = low[0].min(*value);
        high[0] = high[0].max(*value);
        sum[0] += value * 0.0;
    }
    let min = low.into_iter().fold(f32::INFINITY, f32::min);
    let max = high.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (sum.iter().sum::<f32>() == 0.0 && min <= max).then_some(Range { min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_that_of_all_values_and_nonsense_is_noticed() {
        let mut values: Vec<f32> = (0..100).map(|i| (i as f32 - 30.0) / 7.0).collect();
        assert_eq!(range(&values), Some(Range { min: -30.0 / 7.0, max: 69.0 / 7.0 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [5, 99] {
                let good = std::mem::replace(&mut values[at], bad);
                assert_eq!(range(&values), None);
                values[at] = good;
            }
        }
    }
}
