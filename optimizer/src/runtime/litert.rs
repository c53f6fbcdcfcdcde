//! LiteRT, through its compiled-model interface on the CPU. Artefacts take and give floats in the source's shapes, so
//! that samples go in as they are; those for accelerators take and give integers, which are converted here with the
//! scales that the file tells.

use std::sync::OnceLock;

use edgefirst_tflite::litert::{
    CompiledModel, Environment, HwAccelerators, Model, Options, RankedTensorType, TensorBuffer,
};
use edgefirst_tflite::{Error, Library};
use edgeyard_tflite::TensorSummary;

use super::{LITERT_VARIABLE, Row, Runner, RuntimeError};

const NAME: &str = "LiteRT";
/// Tells the library's version where its path does not.
const VERSION_VARIABLE: &str = "EDGEYARD_LITERT_VERSION";
/// `kLiteRtElementTypeFloat32`, and its integers.
const FLOAT32: u32 = 1;
const INT32: u32 = 2;
const UINT8: u32 = 3;
const INT64: u32 = 4;
const INT16: u32 = 7;
const INT8: u32 = 9;
/// One input, one signature: where it is.
const ONLY: usize = 0;

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
        if let Some(symbol) = library.litert_missing_symbol() {
            return Err(missing(format!("{path} has no function {symbol}; version 2.1.6 or later is needed")));
        }
        Ok(Self { library: LOADED.get_or_init(|| library) })
    }

    /// Such as `LiteRT 2.1.6`. The library does not tell its version: it is taken from the folder `litert-VERSION` that
    /// it is kept in.
    pub fn describe(&self) -> String {
        let path = std::env::var(LITERT_VARIABLE).unwrap_or_default();
        let real = fs_err::canonicalize(&path).unwrap_or_default();
        let folder =
            real.components().filter_map(|part| part.as_os_str().to_str()?.strip_prefix("litert-")).next_back();
        match folder.map(str::to_owned).or_else(|| std::env::var(VERSION_VARIABLE).ok()) {
            Some(version) => format!("{NAME} {version}"),
            None => NAME.to_owned(),
        }
    }

    /// Loads a model for samples of this shape (without the batch) and lends it to `use_it`.
    ///
    /// # Errors
    /// [`RuntimeError`] when the model does not load or does not take such samples.
    pub fn with(
        self,
        model: &[u8],
        sample: &[usize],
        use_it: &mut dyn FnMut(&mut dyn Runner),
    ) -> Result<(), RuntimeError> {
        let refused = |error: Error| RuntimeError::Refused { runtime: NAME, problem: error.to_string() };
        let environment = Environment::new(self.library).map_err(refused)?;
        let parsed = edgeyard_tflite::inspect(model);
        let summary = parsed.map_err(|error| RuntimeError::Refused { runtime: NAME, problem: error.to_string() })?;
        let model = Model::from_buffer(&environment, model).map_err(refused)?;
        let options = Options::new(self.library).map_err(refused)?;
        let options = options.hardware_accelerators(HwAccelerators::CPU).map_err(refused)?;
        let count = model.num_inputs(ONLY).map_err(refused)?;
        if count != 1 {
            return Err(RuntimeError::Interface(format!("it has {count} inputs, one is expected")));
        }
        let kind = model.input_tensor_type(ONLY, ONLY).map_err(refused)?;
        let shape = shape(&kind, "input")?;
        let code = Code::fed(kind.element_type, summary.inputs.first())?;
        if shape.first() != Some(&1) || &shape[1..] != sample {
            return Err(RuntimeError::Interface(format!("its input has the shape {shape:?}, a sample has {sample:?}")));
        }
        let compiled = CompiledModel::create(&environment, &model, &options).map_err(refused)?;
        let input = compiled.create_input_buffer(ONLY, ONLY).map_err(refused)?;
        let (mut outputs, mut sizes, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..model.num_outputs(ONLY).map_err(refused)? {
            let kind = model.output_tensor_type(ONLY, index).map_err(refused)?;
            let dims = self::shape(&kind, "output")?;
            codes.push(Code::of(kind.element_type, summary.outputs.get(index), "output")?);
            sizes.push(dims.iter().product());
            outputs.push(compiled.create_output_buffer(ONLY, index).map_err(refused)?);
        }
        use_it(&mut Loaded { compiled, code, inputs: vec![input], outputs, sizes, codes });
        Ok(())
    }
}

/// How an input or output stands for reals.
#[derive(Clone, Copy)]
enum Code {
    Float,
    Bytes {
        signed: bool,
        scale: f32,
        zero_point: i64,
    },
    Words {
        scale: f32,
        zero_point: i64,
    },
    /// Integers that stand for themselves, of so many bytes; only fed.
    Whole(usize),
}

impl Code {
    /// Of an input, which may also be of plain integers.
    fn fed(element_type: u32, tensor: Option<&TensorSummary>) -> Result<Self, RuntimeError> {
        let plain = tensor.is_some_and(|tensor| tensor.quantization.is_none_or(|(scale, _)| scale <= 0.0));
        match element_type {
            INT32 if plain => Ok(Self::Whole(4)),
            INT64 if plain => Ok(Self::Whole(8)),
            UINT8 if plain => Ok(Self::Whole(1)),
            other => Self::of(other, tensor, "input"),
        }
    }

    fn of(element_type: u32, tensor: Option<&TensorSummary>, what: &str) -> Result<Self, RuntimeError> {
        if element_type == FLOAT32 {
            return Ok(Self::Float);
        }
        let quantization = tensor.and_then(|tensor| tensor.quantization).filter(|(scale, _)| *scale > 0.0);
        match (element_type, quantization) {
            (INT8, Some((scale, zero_point))) => Ok(Self::Bytes { signed: true, scale, zero_point }),
            (UINT8, Some((scale, zero_point))) => Ok(Self::Bytes { signed: false, scale, zero_point }),
            (INT16, Some((scale, zero_point))) => Ok(Self::Words { scale, zero_point }),
            _ => Err(RuntimeError::Interface(format!("an {what} is neither float32 nor an integer with a scale"))),
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Bytes { .. } => 1,
            Self::Words { .. } => 2,
            Self::Whole(size) => size,
        }
    }

    fn write(self, values: &[f32]) -> Vec<u8> {
        let stored = |value: &f32, scale: f32, zero: i64| (value / scale).round_ties_even() + zero as f32;
        match self {
            Self::Float => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bytes { signed: true, scale, zero_point } => {
                values.iter().map(|v| stored(v, scale, zero_point).clamp(-128.0, 127.0) as i8 as u8).collect()
            }
            Self::Bytes { signed: false, scale, zero_point } => {
                values.iter().map(|v| stored(v, scale, zero_point).clamp(0.0, 255.0) as u8).collect()
            }
            Self::Words { scale, zero_point } => {
                let word = |v: &f32| (stored(v, scale, zero_point).clamp(-32_768.0, 32_767.0) as i16).to_le_bytes();
                values.iter().flat_map(word).collect()
            }
            Self::Whole(1) => values.iter().map(|value| value.round() as u8).collect(),
            Self::Whole(8) => values.iter().flat_map(|value| (value.round() as i64).to_le_bytes()).collect(),
            Self::Whole(_) => values.iter().flat_map(|value| (value.round() as i32).to_le_bytes()).collect(),
        }
    }

    fn read(self, bytes: &[u8]) -> Vec<f32> {
        let real = |stored: i64, scale: f32, zero: i64| (stored - zero) as f32 * scale;
        match self {
            Self::Float => bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
            Self::Bytes { signed, scale, zero_point } => {
                let stored = |byte: &u8| if signed { i64::from(*byte as i8) } else { i64::from(*byte) };
                bytes.iter().map(|byte| real(stored(byte), scale, zero_point)).collect()
            }
            Self::Words { scale, zero_point } => {
                let words = bytes.as_chunks().0.iter();
                words.map(|chunk| real(i64::from(i16::from_le_bytes(*chunk)), scale, zero_point)).collect()
            }
            Self::Whole(size) => {
                let number = |chunk: &[u8]| {
                    let mut wide = [0; 8];
                    wide[..chunk.len()].copy_from_slice(chunk);
                    let value = i64::from_le_bytes(wide);
                    (if size == 4 { i64::from(value as i32) } else { value }) as f32
                };
                bytes.chunks_exact(size).map(number).collect()
            }
        }
    }
}

/// The shape of a tensor.
fn shape(tensor: &RankedTensorType, what: &str) -> Result<Vec<usize>, RuntimeError> {
    let dims = tensor.layout.dimensions.iter().take(tensor.layout.rank() as usize);
    dims.map(|dim| usize::try_from(*dim))
        .collect::<Result<_, _>>()
        .map_err(|_| RuntimeError::Interface(format!("an {what} has no static shape")))
}

struct Loaded<'a> {
    compiled: CompiledModel<'a>,
    code: Code,
    inputs: Vec<TensorBuffer<'a>>,
    outputs: Vec<TensorBuffer<'a>>,
    /// Elements of each output.
    sizes: Vec<usize>,
    codes: Vec<Code>,
}

impl Runner for Loaded<'_> {
    fn batch(&self) -> usize {
        1
    }

    fn run(&mut self, samples: &[f32], count: usize) -> Result<Vec<Row>, RuntimeError> {
        let size = samples.len() / count.max(1);
        samples.chunks(size.max(1)).take(count).map(|sample| self.one(sample)).collect()
    }
}

impl Loaded<'_> {
    fn one(&mut self, sample: &[f32]) -> Result<Row, RuntimeError> {
        let failed = |error: Error| RuntimeError::Failed { runtime: NAME, problem: error.to_string() };
        let bytes = self.code.write(sample);
        for input in &mut self.inputs {
            input.write_bytes(&bytes).map_err(failed)?;
        }
        self.compiled.run_default(&mut self.inputs, &mut self.outputs).map_err(failed)?;
        let mut row = Row { values: Vec::new(), scores: 0 };
        for ((output, size), code) in self.outputs.iter_mut().zip(&self.sizes).zip(&self.codes) {
            let mut bytes = vec![0; size * code.size()];
            output.read_bytes_into(&mut bytes).map_err(failed)?;
            row.values.extend(code.read(&bytes));
            if row.scores == 0 {
                row.scores = row.values.len();
            }
        }
        Ok(row)
    }
}
