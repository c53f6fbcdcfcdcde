//! LiteRT, through its TensorFlow Lite C interface. Integer inputs and outputs are quantised and dequantised with the
//! parameters that the model gives. Our own artefacts take samples in the source's order; models from elsewhere may
//! want an image's channels last.

use std::sync::OnceLock;

use edgefirst_tflite::{Interpreter, Library, Model, TensorType};

use super::{LITERT_VARIABLE, Row, Runner, RuntimeError};

const NAME: &str = "LiteRT";

/// The loaded library.
#[derive(Clone, Copy)]
pub struct LiteRt {
    library: &'static Library,
}

impl LiteRt {
    /// Loads the library that [`LITERT_VARIABLE`] names; once, and then always the same.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`].
    pub fn load() -> Result<Self, RuntimeError> {
        static LOADED: OnceLock<Library> = OnceLock::new();
        if let Some(library) = LOADED.get() {
            return Ok(Self { library });
        }
        let missing = |problem: String| RuntimeError::Missing { runtime: NAME, variable: LITERT_VARIABLE, problem };
        let path = std::env::var(LITERT_VARIABLE).map_err(|_| missing(format!("{LITERT_VARIABLE} is not set")))?;
        let library = Library::from_path(&path).map_err(|error| missing(format!("{path}: {error}")))?;
        Ok(Self { library: LOADED.get_or_init(|| library) })
    }

    /// Such as `LiteRT 2.1.6`.
    pub fn describe(&self) -> String {
        // SAFETY: the function takes nothing and returns a static, NUL-terminated text.
        let version = unsafe { std::ffi::CStr::from_ptr(self.library.as_sys().TfLiteVersion()) };
        format!("{NAME} (TensorFlow Lite runtime {})", version.to_string_lossy())
    }

    /// Loads a model for samples of this shape (without the batch).
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn runner(&self, model: &[u8], sample: &[usize], threads: usize) -> Result<Box<dyn Runner>, RuntimeError> {
        let refused =
            |error: edgefirst_tflite::Error| RuntimeError::Refused { runtime: NAME, problem: error.to_string() };
        let model = Model::from_bytes(self.library, model).map_err(refused)?;
        let threads = i32::try_from(threads).unwrap_or(1);
        let builder = Interpreter::builder(self.library).map_err(refused)?.num_threads(threads);
        let interpreter = builder.build(&model).map_err(refused)?;
        let inputs = interpreter.inputs().map_err(refused)?;
        let [input] = inputs.as_slice() else {
            return Err(RuntimeError::Interface(format!("it has {} inputs, one is expected", inputs.len())));
        };
        let shape = input.shape().map_err(refused)?;
        let layout = Layout::between(sample, &shape)?;
        drop(inputs);
        Ok(Box::new(Loaded { interpreter, _model: model, layout }))
    }
}

/// How a sample lies in an input tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Same,
    /// The sample is [c, h, w], the tensor [1, h, w, c].
    ChannelsLast {
        channels: usize,
        pixels: usize,
    },
}

impl Layout {
    fn between(sample: &[usize], tensor: &[usize]) -> Result<Self, RuntimeError> {
        match (sample, tensor) {
            (sample, [1, rest @ ..]) if sample == rest => Ok(Self::Same),
            ([c, h, w], [1, th, tw, tc]) if (h, w, c) == (th, tw, tc) => {
                Ok(Self::ChannelsLast { channels: *c, pixels: h * w })
            }
            _ => Err(RuntimeError::Interface(format!("its input has the shape {tensor:?}, a sample has {sample:?}"))),
        }
    }

    fn into_tensor(self, sample: &[f32]) -> Vec<f32> {
        match self {
            Self::Same => sample.to_vec(),
            Self::ChannelsLast { channels, pixels } => {
                (0..channels * pixels).map(|at| sample[at % channels * pixels + at / channels]).collect()
            }
        }
    }
}

struct Loaded {
    interpreter: Interpreter<'static>,
    /// The interpreter reads the model's bytes as long as it lives.
    _model: Model<'static>,
    layout: Layout,
}

impl Runner for Loaded {
    fn batch(&self) -> usize {
        1
    }

    fn run(&mut self, samples: &[f32], count: usize) -> Result<Vec<Row>, RuntimeError> {
        let size = samples.len() / count.max(1);
        samples.chunks(size.max(1)).take(count).map(|sample| self.one(sample)).collect()
    }
}

impl Loaded {
    fn one(&mut self, sample: &[f32]) -> Result<Row, RuntimeError> {
        let failed =
            |error: edgefirst_tflite::Error| RuntimeError::Failed { runtime: NAME, problem: error.to_string() };
        let values = self.layout.into_tensor(sample);
        let mut inputs = self.interpreter.inputs_mut().map_err(failed)?;
        let input = inputs.first_mut().ok_or_else(|| RuntimeError::Interface("it has no input".to_owned()))?;
        let parameters = input.quantization_params();
        match input.tensor_type() {
            TensorType::Float32 => input.copy_from_slice(&values).map_err(failed)?,
            TensorType::Int8 => {
                let scaled = |value: &f32| (value / parameters.scale).round() + parameters.zero_point as f32;
                let data: Vec<i8> = values.iter().map(|value| scaled(value).clamp(-128.0, 127.0) as i8).collect();
                input.copy_from_slice(&data).map_err(failed)?;
            }
            other => return Err(RuntimeError::Interface(format!("its input is {other:?}"))),
        }
        drop(inputs);
        self.interpreter.invoke().map_err(failed)?;
        let mut row = Row { values: Vec::new(), scores: 0 };
        for output in self.interpreter.outputs().map_err(failed)? {
            let parameters = output.quantization_params();
            let values: Vec<f32> = match output.tensor_type() {
                TensorType::Float32 => output.as_slice::<f32>().map_err(failed)?.to_vec(),
                TensorType::Int8 => {
                    let real = |value: &i8| (i32::from(*value) - parameters.zero_point) as f32 * parameters.scale;
                    output.as_slice::<i8>().map_err(failed)?.iter().map(real).collect()
                }
                _ => continue,
            };
            if row.values.is_empty() {
                row.scores = values.len();
            }
            row.values.extend(values);
        }
        if row.values.is_empty() {
            return Err(RuntimeError::Interface("none of its outputs is float32 or int8".to_owned()));
        }
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_go_from_channels_first_to_channels_last() {
        let layout = Layout::between(&[2, 1, 3], &[1, 1, 3, 2]).unwrap();
        assert_eq!(layout.into_tensor(&[0.0, 1.0, 2.0, 10.0, 11.0, 12.0]), [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
        assert_eq!(Layout::between(&[5], &[1, 5]).unwrap(), Layout::Same);
        assert!(Layout::between(&[5], &[1, 6]).is_err());
    }
}
