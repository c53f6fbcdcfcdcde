//! Runs samples through a session, batch by batch.

use super::CalibrationError;
use crate::dataset::Dataset;
use crate::runtime::Session;

/// Hears (done, total) and says whether to go on.
pub(crate) type Step<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// One run's input.
pub(crate) struct Batch<'a> {
    /// Row-major; filled up with the last sample where the model's batch is fixed.
    pub values: &'a [f32],
    /// Shape of `values`.
    pub shape: &'a [usize],
    /// How many rows are samples.
    pub count: usize,
    /// Number of the first sample.
    pub first: usize,
}

/// Feeds at most `limit` samples, `free` at a time where the batch is free. Gives how many there were.
///
/// # Errors
/// What `run` gives, [`CalibrationError::Dataset`], or [`CalibrationError::Cancelled`].
pub(crate) fn feed(
    session: &mut Session,
    dataset: &Dataset,
    limit: usize,
    free: usize,
    step: Step<'_>,
    mut run: impl FnMut(&mut Session, Batch<'_>) -> Result<(), CalibrationError>,
) -> Result<usize, CalibrationError> {
    dataset.check_shape(session.input_shape())?;
    let fixed = session.input_shape().first().copied().unwrap_or(-1);
    let batch = usize::try_from(fixed).map_or(free, |fixed| fixed.max(1));
    let total = limit.clamp(1, dataset.len());
    let mut seen = 0;
    dataset.for_each_batch(total, batch, |first, mut values, count| -> Result<bool, CalibrationError> {
        if !step(first as u64, total as u64) {
            return Err(CalibrationError::Cancelled);
        }
        let size = values.len() / count;
        let rows = if fixed > 0 { batch } else { count };
        for _ in count..rows {
            values.extend_from_within((count - 1) * size..count * size);
        }
        let shape = [&[rows], dataset.sample_shape()].concat();
        run(session, Batch { values: &values, shape: &shape, count, first })?;
        seen += count;
        Ok(true)
    })?;
    step(total as u64, total as u64);
    Ok(seen)
}
