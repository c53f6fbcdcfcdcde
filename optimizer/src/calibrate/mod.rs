//! Finds the range of every activation by running the model on calibration samples in ONNX Runtime, one batch at a
//! time. What is kept of a tensor is a few numbers (MinMax, MovingAverage) or one histogram, from which `search` takes
//! the range in the end: memory does not grow with the number of samples.

pub(crate) mod feed;
mod histogram;
mod search;

use std::collections::BTreeMap;

use edgeyard_job::spec::Calibrator;
use thiserror::Error;

use crate::dataset::{Dataset, DatasetError};
use crate::ir::{DataType, Dim, Graph, Model, Value};
use crate::runtime::{OnnxRuntime, RuntimeError, threads};

use feed::feed;
pub use histogram::{Histogram, PERCENTILE};
pub use search::{least_divergence, least_error};

pub use crate::lower::{Range, Ranges};

/// Samples for each run of a model with a free batch, at most.
const BATCH: usize = 8;
/// Activations of a whole batch are in memory at once; that many floats at most.
const BATCH_FLOATS: usize = 1 << 24;
/// Weight of a new sample in a moving average, once there are many (as in ONNX Runtime and PyTorch); the first samples
/// weigh more, so that a few samples give their mean.
const MOVING_AVERAGE: f64 = 0.01;
/// Of a tensor, a histogram counts about that many values of all samples together, evenly spread: a percentile needs
/// them, and a second of counting for each second of inference would buy nothing more. The extremes are exact.
const COUNTED: usize = 1 << 19;
/// Values of one sample that are counted at least and at most.
const COUNTED_OF_ONE: std::ops::RangeInclusive<usize> = 1 << 11..=1 << 15;

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
    let input = model.graph.inputs.first().map_or(String::new(), |input| input.name.clone());
    let mut observers: BTreeMap<String, Observer> = BTreeMap::new();
    let counted = COUNTED / limit.clamp(1, dataset.len());
    let counted = counted.clamp(*COUNTED_OF_ONE.start(), *COUNTED_OF_ONE.end());
    let samples = feed(&mut session, dataset, limit, free_batch(&model.graph), step, |session, batch| {
        let mut broken = Vec::new();
        let mut see = |name: &str, values: &[f32], rows: usize| {
            let observer = match observers.get_mut(name) {
                Some(observer) => observer,
                None => observers.entry(name.to_owned()).or_insert_with(|| Observer::new(calibrator, counted)),
            };
            // A fixed batch larger than what is left holds the last sample more than once: it counts once.
            let row = values.len() / rows;
            for sample in values.chunks_exact(row.max(1)).take(batch.count.min(rows)) {
                if !observer.see(sample) {
                    broken.push(name.to_owned());
                }
            }
        };
        see(&input, batch.values, batch.shape[0]);
        session.observe(batch.values, batch.shape, |output, dims| {
            // What has no batch axis belongs to all samples at once.
            let rows = if dims.first() == Some(&batch.shape[0]) { dims[0].max(1) } else { 1 };
            see(output.name, output.values, rows);
        })?;
        // What broke first made the rest so.
        let mut order = model.graph.nodes.iter().flat_map(|node| &node.outputs);
        let first = order.find(|name| broken.contains(name)).or(broken.first()).cloned();
        match first {
            Some(tensor) => Err(CalibrationError::NotFinite { tensor, sample: batch.first }),
            None => Ok(()),
        }
    })?;
    let ranges = observers.into_iter().filter_map(|(name, observer)| Some((name, observer.range()?))).collect();
    Ok(Calibration { ranges, samples })
}

/// How many samples a model with a free batch is fed at once, so that memory stays bounded.
pub(crate) fn free_batch(graph: &Graph) -> usize {
    let outputs = graph.nodes.iter().flat_map(|node| &node.outputs);
    let floats: usize = outputs
        .filter_map(|name| graph.values.get(name))
        .map(|value| {
            // The batch itself is not known; what else is not known counts as one.
            let size = |dim: &Dim| if let Dim::Static(size) = dim { *size } else { 1 };
            value.shape.iter().map(size).product::<usize>()
        })
        .sum();
    (BATCH_FLOATS / floats.max(1)).clamp(1, BATCH)
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
    Average { low: f64, high: f64, samples: i32 },
    Histogram(Calibrator, usize, Histogram),
}

impl Observer {
    /// `counted`: values of one sample that a histogram counts at most.
    fn new(calibrator: Calibrator, counted: usize) -> Self {
        match calibrator {
            Calibrator::MinMax => Self::MinMax(None),
            Calibrator::MovingAverage => Self::Average { low: 0.0, high: 0.0, samples: 0 },
            Calibrator::Percentile | Calibrator::Entropy | Calibrator::MeanSquaredError => {
                Self::Histogram(calibrator, counted, Histogram::default())
            }
        }
    }

    /// Takes one sample's values. False when one is not finite.
    fn see(&mut self, values: &[f32]) -> bool {
        let Some(seen) = range(values) else { return values.is_empty() };
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
            Self::Histogram(_, counted, histogram) => histogram.add(values, seen, *counted),
        }
        true
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
            Self::Histogram(Calibrator::Entropy, _, histogram) => least_divergence(histogram),
            Self::Histogram(Calibrator::MeanSquaredError, _, histogram) => least_error(histogram),
            Self::Histogram(_, _, histogram) => histogram.range(PERCENTILE),
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
    fn a_moving_average_is_the_mean_of_few_samples_and_follows_many() {
        let mut observer = Observer::new(Calibrator::MovingAverage, 1);
        assert_eq!(observer.range(), None);
        assert!(observer.see(&[-3.0, 5.0]));
        let first = observer.range().unwrap();
        assert!((first.min + 3.0).abs() < 1e-5 && (first.max - 5.0).abs() < 1e-5, "{first:?}");
        observer.see(&[-1.0, 1.0]);
        let two = observer.range().unwrap();
        assert!((two.min + 2.0).abs() < 0.01 && (two.max - 3.0).abs() < 0.02, "{two:?}");
        for _ in 0..1000 {
            observer.see(&[-1.0, 1.0]);
        }
        let many = observer.range().unwrap();
        assert!((many.max - 1.0).abs() < 1e-3, "{many:?}");
    }

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
