//! Finds the range of every activation by running the model on calibration samples in ONNX Runtime, one batch at a
//! time. What is kept of a tensor is a few numbers (MinMax, MovingAverage) or one histogram, from which `search` takes
//! the range in the end: memory does not grow with the number of samples.

pub(crate) mod feed;
mod histogram;
mod look;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_job::spec::Calibrator;
use thiserror::Error;

use crate::dataset::{Dataset, DatasetError};
use crate::ir::{DataType, Dim, Graph, Model, Value};
use crate::runtime::{OnnxRuntime, RuntimeError, Session, threads};

use feed::{Batch, Feed, feed_many};
pub use histogram::{Histogram, PERCENTILE};
use look::{Look, Seen};
pub use search::{least_divergence, least_error};

pub use crate::lower::{Range, Ranges};

/// Samples for each run of a model with a free batch, at most.
const BATCH: usize = 8;
/// Activations of a whole batch are in memory at once; that many floats at most.
const BATCH_FLOATS: usize = 1 << 24;
/// Floats that all sessions together may hold: weights, which the runtime stores a second time as its kernels want
/// them, and the activations of a batch.
const ALL_FLOATS: usize = 1 << 26;
/// More sessions than that gain little, as one thread reads the samples for all of them.
const MAX_WORKERS: usize = 8;
/// Weight of a new sample in a moving average, once there are many (as in ONNX Runtime and PyTorch); the first samples
/// weigh more, so that a few samples give their mean.
const MOVING_AVERAGE: f64 = 0.01;
/// Of a tensor, a histogram counts about that many values of all samples together, evenly spread: a percentile needs
/// them, and a second of counting for each second of inference would buy nothing more. The extremes are exact.
const COUNTED: usize = 1 << 19;
/// Values of one sample that are counted at least and at most.
const COUNTED_OF_ONE: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 15;

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
/// whether to go on. Samples are seen in their order: the same data gives the same ranges on any machine.
///
/// # Errors
/// [`CalibrationError`].
pub fn calibrate(
    runtime: &OnnxRuntime,
    model: &Model,
    dataset: &Dataset,
    limit: usize,
    calibrator: Calibrator,
    step: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Calibration, CalibrationError> {
    let graph = &model.graph;
    let bytes = model.to_bytes_showing(&all_tensors(graph));
    let (free, workers) = (free_batch(graph), workers(graph));
    let open = || runtime.showing(&bytes, (threads() / workers).max(1));
    let most = match calibrator {
        Calibrator::MinMax | Calibrator::MovingAverage => 0,
        Calibrator::Percentile | Calibrator::Entropy | Calibrator::MeanSquaredError => {
            (COUNTED / limit.clamp(1, dataset.len())).clamp(*COUNTED_OF_ONE.start(), *COUNTED_OF_ONE.end())
        }
    };
    let look = Look { most };
    let run = |session: &mut Session, batch: Batch<'_>| -> Result<Vec<Seen>, CalibrationError> {
        let mut seen = Vec::with_capacity(graph.nodes.len() + 1);
        let input = graph.inputs.first().map_or("", |input| &input.name);
        seen.extend(look.at(input, batch.values, batch.shape[0], &batch));
        session.observe(batch.values, batch.shape, |output, dims| {
            // What has no batch axis belongs to all samples at once.
            let rows = if dims.first() == Some(&batch.shape[0]) { dims[0].max(1) } else { 1 };
            seen.extend(look.at(output.name, output.values, rows, &batch));
        })?;
        let broken = |name: &&String| seen.iter().any(|seen| seen.range.is_none() && seen.tensor == **name);
        // What broke first made the rest so.
        let mut order = graph.nodes.iter().flat_map(|node| &node.outputs);
        let first = order.find(broken).or(seen.iter().find(|seen| seen.range.is_none()).map(|seen| &seen.tensor));
        match first {
            Some(tensor) => Err(CalibrationError::NotFinite { tensor: tensor.clone(), sample: batch.first }),
            None => Ok(seen),
        }
    };
    let mut observers: BTreeMap<String, Observer> = BTreeMap::new();
    let take = |seen: Vec<Seen>| {
        for Seen { tensor, range, picked } in seen {
            let Some(range) = range else { continue };
            observers.entry(tensor).or_insert_with(|| Observer::new(calibrator)).see(range, &picked);
        }
    };
    let samples = feed_many(Feed { dataset, limit, free }, workers, open, step, run, take)?;
    let ranges = observers.into_iter().filter_map(|(name, observer)| Some((name, observer.range()?))).collect();
    Ok(Calibration { ranges, samples })
}

/// How many samples a model with a free batch is fed at once, so that memory stays bounded.
pub(crate) fn free_batch(graph: &Graph) -> usize {
    (BATCH_FLOATS / activations(graph).max(1)).clamp(1, BATCH)
}

/// How many sessions run side by side, so that memory stays bounded on machines of many cores too.
fn workers(graph: &Graph) -> usize {
    let fixed = graph.inputs.first().and_then(|input| input.shape.first());
    let batch = if let Some(Dim::Static(_)) = fixed { 1 } else { free_batch(graph) };
    let weights: usize = graph.initializers.values().map(crate::ir::Tensor::len).sum();
    (ALL_FLOATS / (2 * weights + batch * activations(graph)).max(1)).clamp(1, threads().min(MAX_WORKERS))
}

/// Floats that the graph's operators make of one sample, or of a batch that is fixed.
fn activations(graph: &Graph) -> usize {
    let size = |dim: &Dim| if let Dim::Static(size) = dim { *size } else { 1 };
    let outputs = graph.nodes.iter().flat_map(|node| &node.outputs).filter_map(|name| graph.values.get(name));
    outputs.map(|value| value.shape.iter().map(size).product::<usize>()).sum()
}

/// What a graph has to show besides its outputs, so that every float tensor of it is seen.
fn all_tensors(graph: &Graph) -> Vec<Value> {
    let known: BTreeSet<&str> = graph.outputs.iter().map(|output| output.name.as_str()).collect();
    let float = |name: &&String| graph.values.get(*name).is_none_or(|value| value.dtype == DataType::F32);
    let names = graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty()).filter(float);
    names
        .filter(|name| !known.contains(name.as_str()))
        // Without type and shape: the runtime knows them better than a file does.
        .map(|name| Value { name: name.clone(), dtype: DataType::Undefined, shape: Vec::new(), has_shape: false })
        .collect()
}

/// What is kept of one tensor.
#[derive(Debug, Clone)]
enum Observer {
    MinMax(Option<Range>),
    Average { low: f64, high: f64, samples: i32 },
    Histogram(Calibrator, Histogram),
}

impl Observer {
    fn new(calibrator: Calibrator) -> Self {
        match calibrator {
            Calibrator::MinMax => Self::MinMax(None),
            Calibrator::MovingAverage => Self::Average { low: 0.0, high: 0.0, samples: 0 },
            Calibrator::Percentile | Calibrator::Entropy | Calibrator::MeanSquaredError => {
                Self::Histogram(calibrator, Histogram::default())
            }
        }
    }

    /// Takes one sample's range, and the values of it that are counted.
    fn see(&mut self, seen: Range, picked: &[f32]) {
        match self {
            Self::MinMax(range) => {
                let old = range.unwrap_or(seen);
                *range = Some(Range { min: old.min.min(seen.min), max: old.max.max(seen.max) });
            }
            Self::Average { low, high, samples } => {
                *low += MOVING_AVERAGE * (f64::from(seen.min) - *low);
                *high += MOVING_AVERAGE * (f64::from(seen.max) - *high);
                *samples = samples.saturating_add(1);
            }
            Self::Histogram(_, histogram) => histogram.add(picked, seen),
        }
    }

    fn range(&self) -> Option<Range> {
        match self {
            Self::MinMax(range) => *range,
            Self::Average { samples: 0, .. } => None,
            Self::Average { low, high, samples } => {
                // Averages that start at zero are too small by this factor (Kingma & Ba 2015, 3).
                let started = 1.0 - (1.0 - MOVING_AVERAGE).powi(*samples);
                Some(Range { min: (low / started) as f32, max: (high / started) as f32 })
            }
            Self::Histogram(Calibrator::Entropy, histogram) => least_divergence(histogram),
            Self::Histogram(Calibrator::MeanSquaredError, histogram) => least_error(histogram),
            Self::Histogram(_, histogram) => histogram.range(PERCENTILE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moving_average_is_the_mean_of_few_samples_and_follows_many() {
        let mut observer = Observer::new(Calibrator::MovingAverage);
        assert_eq!(observer.range(), None);
        observer.see(Range { min: -3.0, max: 5.0 }, &[]);
        let first = observer.range().unwrap();
        assert!((first.min + 3.0).abs() < 1e-5 && (first.max - 5.0).abs() < 1e-5, "{first:?}");
        observer.see(Range { min: -1.0, max: 1.0 }, &[]);
        let two = observer.range().unwrap();
        assert!((two.min + 2.0).abs() < 0.01 && (two.max - 3.0).abs() < 0.02, "{two:?}");
        for _ in 0..1000 {
            observer.see(Range { min: -1.0, max: 1.0 }, &[]);
        }
        let many = observer.range().unwrap();
        assert!((many.max - 1.0).abs() < 1e-3, "{many:?}");
    }
}
