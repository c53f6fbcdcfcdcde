//! Which operators lose most when they are quantised: each is kept in float in turn, everything else in integers, and
//! the model's outputs are compared with those of the float model. ONNX Runtime is the judge for every target: integers
//! are the same there, up to rounding.

use std::collections::BTreeSet;

use thiserror::Error;

use super::qdq::{QdqError, QdqOptions, candidates, quantize};
use crate::calibrate::feed::feed;
use crate::calibrate::{CalibrationError, Ranges, free_batch};
use crate::dataset::Dataset;
use crate::ir::Model;
use crate::runtime::{OnnxRuntime, threads};
use crate::simplify::{UpgradeError, to_opset_13};

/// What keeping one operator in floating point gains.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensitivity {
    /// The first tensor that the operator makes: what `keep_float` takes.
    pub output: String,
    /// The operator's name, for people.
    pub label: String,
    /// SQNR of the model's outputs with this operator in float, less that of the whole model in integers, in dB.
    pub sqnr_gain_db: f64,
}

/// Why operators cannot be ranked.
#[derive(Debug, Error)]
pub enum SensitivityError {
    /// The graph cannot be quantised.
    #[error(transparent)]
    Quantize(#[from] QdqError),
    /// The model's opset is too old and cannot be raised.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The model does not run on the data, or somebody stopped it.
    #[error(transparent)]
    Run(#[from] CalibrationError),
}

/// Ranks the operators that `options` would quantise, the one that gains most first. `step` hears (done, total) in
/// operators and says whether to go on.
///
/// # Errors
/// [`SensitivityError`].
pub fn rank_sensitivity(
    runtime: &OnnxRuntime,
    model: &Model,
    ranges: &Ranges,
    options: &QdqOptions,
    dataset: &Dataset,
    limit: usize,
    step: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<Sensitivity>, SensitivityError> {
    let mut model = model.clone();
    to_opset_13(&mut model)?;
    let candidates = candidates(&model.graph, ranges, options);
    let mut reference = Vec::new();
    run(runtime, &model, dataset, limit, &mut |values| reference.extend_from_slice(values))?;
    let quality = |keep_float: BTreeSet<String>| -> Result<f64, SensitivityError> {
        let options = QdqOptions { keep_float, ..options.clone() };
        let mut quantised = model.clone();
        match quantize(&model.graph, ranges, &options) {
            Ok(made) => quantised.graph = made.graph,
            // The only integer operator was kept.
            Err(QdqError::NothingToDo) => {}
            Err(error) => return Err(error.into()),
        }
        let (mut at, mut signal, mut noise) = (0, 0f64, 0f64);
        run(runtime, &quantised, dataset, limit, &mut |values| {
            for (expected, got) in reference[at..].iter().zip(values) {
                signal += f64::from(*expected).powi(2);
                noise += (f64::from(*expected) - f64::from(*got)).powi(2);
            }
            at += values.len();
        })?;
        // What is equal to the last bit is taken as 200 dB, so that gains stay finite.
        Ok(10.0 * (signal.max(1e-30) / noise.max(signal.max(1e-30) * 1e-20)).log10())
    };
    let whole = quality(options.keep_float.clone())?;
    let mut ranking = Vec::with_capacity(candidates.len());
    for (done, (output, label)) in candidates.iter().enumerate() {
        if !step(done as u64, candidates.len() as u64) {
            return Err(CalibrationError::Cancelled.into());
        }
        let mut keep = options.keep_float.clone();
        keep.insert(output.clone());
        let sqnr_gain_db = quality(keep)? - whole;
        ranking.push(Sensitivity { output: output.clone(), label: label.clone(), sqnr_gain_db });
    }
    step(candidates.len() as u64, candidates.len() as u64);
    // Stable: among equals, the order of the graph.
    ranking.sort_by(|one, other| other.sqnr_gain_db.total_cmp(&one.sqnr_gain_db));
    Ok(ranking)
}

/// Shows all float outputs of the model, sample batch by sample batch.
fn run(
    runtime: &OnnxRuntime,
    model: &Model,
    dataset: &Dataset,
    limit: usize,
    see: &mut dyn FnMut(&[f32]),
) -> Result<(), CalibrationError> {
    let mut session = runtime.session(&model.to_bytes(), threads())?;
    feed(&mut session, dataset, limit, free_batch(&model.graph), &mut |_, _| true, |session, batch| {
        session.observe(batch.values, batch.shape, |output, _| see(output.values))?;
        Ok(())
    })?;
    Ok(())
}
