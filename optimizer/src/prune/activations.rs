//! What flows through chosen tensors while ONNX Runtime runs a model on calibration samples, one batch at a time.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::dataset::{Dataset, DatasetError};
use crate::ir::{DataType, Model, Value};
use crate::runtime::{OnnxRuntime, RuntimeError, threads};

/// Samples for each run of a model with a free batch.
const BATCH: usize = 8;

/// Calibration data and what runs it.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    /// The runtime.
    pub runtime: &'a OnnxRuntime,
    /// The samples.
    pub dataset: &'a Dataset,
    /// How many to use, from the first on.
    pub samples: usize,
    /// Hears (done, total) of each run over the samples and says whether to go on.
    pub step: Option<&'a dyn Fn(u64, u64) -> bool>,
}

impl std::fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runtime, dataset, samples, step: _ } = self;
        let mut shown = f.debug_struct("Data");
        shown.field("runtime", runtime).field("dataset", dataset).field("samples", samples).finish_non_exhaustive()
    }
}

/// Why a model cannot be watched.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The data cannot be used.
    #[error("calibration data: {0}")]
    Dataset(#[from] DatasetError),
    /// The model does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The model computes nonsense.
    #[error(
        "tensor {tensor} is not a number or infinite near calibration sample {sample}: the model itself is broken there"
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

/// Shows `see` every tensor of `names` (float32, the graph's inputs allowed) for each batch: name, values, shape. Rows that
/// only fill up a fixed batch are cut off where the first axis is the batch.
///
/// # Errors
/// [`ObserveError`].
pub fn observe(
    model: &Model,
    names: &[String],
    data: &Data<'_>,
    mut see: impl FnMut(&str, &[f32], &[usize]),
) -> Result<(), ObserveError> {
    let mut watched = model.clone();
    let input = model.graph.inputs.first().map_or(String::new(), |input| input.name.clone());
    watched.graph.outputs.clear();
    for name in names.iter().filter(|name| **name != input) {
        // Without type and shape: the runtime knows them better than a file does.
        let value = Value { name: name.clone(), dtype: DataType::Undefined, shape: Vec::new(), has_shape: false };
        watched.graph.outputs.push(value);
    }
    if watched.graph.outputs.is_empty() {
        // A session needs an output; one of the model's own that nobody looks at.
        watched.graph.outputs.clone_from(&model.graph.outputs);
    }
    let mut session = data.runtime.session(&watched.to_bytes(), threads())?;
    data.dataset.check_shape(session.input_shape())?;
    let fixed = session.input_shape().first().copied().unwrap_or(-1);
    let batch = usize::try_from(fixed).map_or(BATCH, |fixed| fixed.max(1));
    let total = data.samples.clamp(1, data.dataset.len());
    data.dataset.for_each_batch(total, batch, |first, mut values, count| -> Result<bool, ObserveError> {
        if data.step.is_some_and(|step| !step(first as u64, total as u64)) {
            return Err(ObserveError::Cancelled);
        }
        let size = values.len() / count;
        let rows = if fixed > 0 { batch } else { count };
        let shape = [&[rows], data.dataset.sample_shape()].concat();
        if names.contains(&input) {
            see(&input, &values, &[&[count], data.dataset.sample_shape()].concat());
        }
        for _ in count..rows {
            values.extend_from_within((count - 1) * size..count * size);
        }
        let mut broken = None;
        session.observe(&values, &shape, |output, dims| {
            if !names.iter().any(|name| name == output.name) {
                return;
            }
            if output.values.iter().any(|value| !value.is_finite()) {
                broken.get_or_insert_with(|| output.name.to_owned());
                return;
            }
            let mut dims = dims.to_vec();
            let mut seen = output.values;
            if let Some(lead) = dims.first_mut().filter(|lead| **lead == rows && count < rows) {
                seen = &seen[..seen.len() / rows * count];
                *lead = count;
            }
            see(output.name, seen, &dims);
        })?;
        match broken {
            Some(tensor) => Err(ObserveError::NotFinite { tensor, sample: first }),
            None => Ok(true),
        }
    })?;
    Ok(())
}

/// Mean square of each index along an axis, which may count from the end.
pub(super) fn mean_squares(
    model: &Model,
    tensors: &BTreeMap<String, i64>,
    data: &Data<'_>,
) -> Result<BTreeMap<String, Vec<f64>>, ObserveError> {
    let names: Vec<String> = tensors.keys().cloned().collect();
    let mut sums: BTreeMap<String, (Vec<f64>, f64)> = BTreeMap::new();
    observe(model, &names, data, |name, values, dims| {
        let Some(axis) = tensors.get(name).and_then(|axis| crate::ir::axis(*axis, dims.len())) else { return };
        let len = dims[axis];
        if len == 0 {
            return;
        }
        let inner = dims[axis + 1..].iter().product::<usize>().max(1);
        let (sum, count) = sums.entry(name.to_owned()).or_insert_with(|| (vec![0.0; len], 0.0));
        for (at, piece) in values.chunks_exact(inner).enumerate() {
            sum[at % len] += piece.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        }
        *count += (values.len() / len) as f64;
    })?;
    let mean = |(sum, count): (Vec<f64>, f64)| sum.into_iter().map(|sum| sum / count.max(1.0)).collect();
    Ok(sums.into_iter().map(|(name, sums)| (name, mean(sums))).collect())
}
