//! The engine that our firmware runs on microcontrollers, on this machine: its outputs equal TensorFlow Lite Micro's
//! to the last bit, so what it finds here is what a device finds.

use edgeyard_engine::schema::DType;
use edgeyard_engine::{Engine, Error};

use super::{Row, Runner, RuntimeError};

const NAME: &str = "the engine for TensorFlow Lite Micro models";
/// An arena to begin with; models say how much they need.
const FIRST_ARENA: usize = 1 << 18;
/// No model for a microcontroller needs more.
const MAX_ARENA: usize = 1 << 28;
/// Samples for each loading of the model.
const BATCH: usize = 32;

/// A model and the memory it runs in.
#[derive(Debug)]
pub struct Micro {
    model: Vec<u8>,
    arena: Vec<u8>,
}

impl Micro {
    /// What a report says of it.
    pub fn describe() -> String {
        "edgeyard-engine (bit-exact with TensorFlow Lite Micro)".to_owned()
    }

    /// Loads a model for samples of this shape (without the batch).
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn runner(model: &[u8], sample: &[usize]) -> Result<Box<dyn Runner>, RuntimeError> {
        let mut size = FIRST_ARENA;
        loop {
            let mut arena = vec![0; size];
            match Engine::load(model, &mut arena) {
                Ok(engine) => {
                    check(&engine, sample)?;
                    return Ok(Box::new(Self { model: model.to_vec(), arena }));
                }
                Err(Error::ArenaTooSmall { need, .. }) if size < MAX_ARENA => {
                    // Planning may have stopped early, so that what it needs is more than it says.
                    size = (2 * size).max(need.saturating_add(1 << 12)).min(MAX_ARENA);
                }
                Err(error) => return Err(RuntimeError::Refused { runtime: NAME, problem: error.to_string() }),
            }
        }
    }
}

fn check(engine: &Engine<'_>, sample: &[usize]) -> Result<(), RuntimeError> {
    let Some((input, _)) = engine.input(0).filter(|_| engine.inputs() == 1) else {
        return Err(RuntimeError::Interface(format!("it has {} inputs, one is expected", engine.inputs())));
    };
    let dims = input.shape.dims();
    let fits = dims.first() == Some(&1) && dims[1..].iter().map(|dim| *dim as usize).eq(sample.iter().copied());
    if !fits || input.dtype != DType::Int8 {
        return Err(RuntimeError::Interface(format!(
            "its input has the shape {dims:?} of {:?}; [1, …] of int8 for samples of {sample:?} is expected",
            input.dtype
        )));
    }
    for index in 0..engine.outputs() {
        if let Some((output, _)) = engine.output(index).filter(|(output, _)| output.dtype != DType::Int8) {
            return Err(RuntimeError::Interface(format!("output {index} is {:?}, int8 is expected", output.dtype)));
        }
    }
    Ok(())
}

impl Runner for Micro {
    fn batch(&self) -> usize {
        BATCH
    }

    fn run(&mut self, samples: &[f32], count: usize) -> Result<Vec<Row>, RuntimeError> {
        let failed = |problem: String| RuntimeError::Failed { runtime: NAME, problem };
        let mut engine = Engine::load(&self.model, &mut self.arena).map_err(|error| failed(error.to_string()))?;
        let input = engine.input(0).map(|(tensor, _)| *tensor).ok_or_else(|| failed("it has no input".to_owned()))?;
        let size = samples.len() / count.max(1);
        let mut rows = Vec::with_capacity(count);
        for sample in samples.chunks(size.max(1)).take(count) {
            for (byte, value) in engine.input_mut(0).iter_mut().zip(sample) {
                let stored = (value / input.scale).round() + input.zero_point as f32;
                *byte = (stored.clamp(-128.0, 127.0) as i8) as u8;
            }
            engine.run();
            let mut row = Row { values: Vec::new(), scores: 0 };
            for index in 0..engine.outputs() {
                let Some((output, _)) = engine.output(index) else { continue };
                let (scale, zero) = (output.scale, output.zero_point);
                let real = |byte: &u8| (i32::from(*byte as i8) - zero) as f32 * scale;
                row.values.extend(engine.output_bytes(index).iter().map(real));
                if index == 0 {
                    row.scores = row.values.len();
                }
            }
            rows.push(row);
        }
        Ok(rows)
    }
}
