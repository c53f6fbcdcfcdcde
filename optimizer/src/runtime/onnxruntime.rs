//! ONNX Runtime, through `ort`. Threads are set explicitly: the runtime's own default ignores a container's limit.

use std::path::Path;
use std::sync::{Mutex, OnceLock};

use ort::session::builder::GraphOptimizationLevel;
use ort::value::{TensorElementType, TensorRef, ValueType};

use super::{ORT_VARIABLE, Row, Runner, RuntimeError};

const NAME: &str = "ONNX Runtime";

/// Samples for each call where the model's batch is free.
const FREE_BATCH: usize = 32;

/// The loaded library.
#[derive(Debug, Clone)]
pub struct OnnxRuntime {
    environment: ort::environment::Environment,
    version: String,
}

impl OnnxRuntime {
    /// Loads the library that [`ORT_VARIABLE`] names; once, and then always the same.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`].
    pub fn load() -> Result<Self, RuntimeError> {
        static LOADED: OnceLock<Mutex<Option<OnnxRuntime>>> = OnceLock::new();
        let slot = LOADED.get_or_init(|| Mutex::new(None));
        let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(loaded) = &*slot {
            return Ok(loaded.clone());
        }
        let missing = |problem: String| RuntimeError::Missing { runtime: NAME, variable: ORT_VARIABLE, problem };
        let path = std::env::var(ORT_VARIABLE).map_err(|_| missing(format!("{ORT_VARIABLE} is not set")))?;
        let version = version(Path::new(&path)).map_err(missing)?;
        let builder = ort::init_from(&path).map_err(|error| missing(error.to_string()))?;
        let environment = builder.with_telemetry(false).build().map_err(|error| missing(error.to_string()))?;
        let loaded = Self { environment, version };
        *slot = Some(loaded.clone());
        Ok(loaded)
    }

    /// Such as `ONNX Runtime 1.28.0`.
    pub fn describe(&self) -> String {
        format!("{NAME} {}", self.version)
    }

    /// Loads a model with all of the runtime's own optimisations.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] with what the runtime says.
    pub fn session(&self, model: &[u8], threads: usize) -> Result<Session, RuntimeError> {
        self.build(model, threads, Use::Run)
    }

    /// Loads a model that shows all its tensors.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] with what the runtime says.
    pub(crate) fn showing(&self, model: &[u8], threads: usize) -> Result<Session, RuntimeError> {
        self.build(model, threads, Use::Show)
    }

    /// Loads a model and writes what the runtime's optimiser makes of it to a file.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] with what the runtime says.
    pub fn optimized(&self, model: &[u8], to: &Path) -> Result<(), RuntimeError> {
        self.build(model, 1, Use::Write(to)).map(drop)
    }

    fn build(&self, model: &[u8], threads: usize, purpose: Use<'_>) -> Result<Session, RuntimeError> {
        let refused = |error: String| RuntimeError::Refused { runtime: NAME, problem: error };
        let build = || -> ort::Result<ort::session::Session> {
            let mut builder = ort::session::Session::builder(&self.environment)?
                .with_intra_threads(threads)?
                .with_inter_threads(1)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                // Warnings about the model belong into our notes, not on the terminal.
                .with_log_level(ort::logging::LogLevel::Error)?;
            builder = match purpose {
                Use::Run => builder,
                // Memory planned ahead is for tensors that give way to others: here none does, and what was planned for
                // one run would be asked of the system anew in the next.
                Use::Show => builder.with_memory_pattern(false)?,
                Use::Write(path) => {
                    builder.with_optimization_level(GraphOptimizationLevel::Level2)?.with_optimized_model_path(path)?
                }
            };
            builder.commit_from_memory(model)
        };
        Session::new(build().map_err(|error| refused(error.to_string()))?)
    }
}

/// What a session is for.
#[derive(Clone, Copy)]
enum Use<'a> {
    Run,
    Show,
    /// Writing what the optimiser makes of the model.
    Write(&'a Path),
}

/// What the library calls itself.
fn version(path: &Path) -> Result<String, String> {
    /// The start of `OrtApiBase`, fixed by the library's ABI.
    #[repr(C)]
    struct Base {
        get_api: *const std::ffi::c_void,
        get_version: unsafe extern "C" fn() -> *const std::ffi::c_char,
    }
    // SAFETY: loading runs the library's initialisers; `ort` loads the same file a moment later and keeps it loaded.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| error.to_string())?;
    // SAFETY: `OrtGetApiBase` is the library's documented entry point and returns a static `OrtApiBase`, whose second
    // member returns a static, NUL-terminated text.
    unsafe {
        let base: libloading::Symbol<'_, unsafe extern "C" fn() -> *const Base> =
            library.get(b"OrtGetApiBase\0").map_err(|_| format!("{} is not ONNX Runtime", path.display()))?;
        Ok(std::ffi::CStr::from_ptr(((*base()).get_version)()).to_string_lossy().into_owned())
    }
}

/// What the input is fed with.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Float,
    Int32,
    Int64,
    Uint8,
}

impl Kind {
    fn of(element: TensorElementType) -> Option<Self> {
        Some(match element {
            TensorElementType::Float32 => Self::Float,
            TensorElementType::Int32 => Self::Int32,
            TensorElementType::Int64 => Self::Int64,
            TensorElementType::Uint8 => Self::Uint8,
            _ => return None,
        })
    }
}

/// A loaded model.
#[derive(Debug)]
pub struct Session {
    inner: ort::session::Session,
    kind: Kind,
    /// Shape of the input; -1 where it is free.
    shape: Vec<i64>,
    float_outputs: Vec<String>,
}

/// A tensor that was seen while a model ran.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its values.
    pub values: &'a [f32],
}

impl Session {
    fn new(inner: ort::session::Session) -> Result<Self, RuntimeError> {
        let [input] = inner.inputs() else {
            return Err(RuntimeError::Interface(format!(
                "it has {} inputs; datasets with the one array x feed models with one input",
                inner.inputs().len()
            )));
        };
        let wrong = || {
            let why =
                format!("its input {} is {}; float32, int32, int64 and uint8 are fed", input.name(), input.dtype());
            RuntimeError::Interface(why)
        };
        let ValueType::Tensor { ty, shape, .. } = input.dtype() else { return Err(wrong()) };
        let kind = Kind::of(*ty).ok_or_else(wrong)?;
        let shape = shape.to_vec();
        let float_outputs = inner
            .outputs()
            .iter()
            .filter(|output| matches!(output.dtype(), ValueType::Tensor { ty: TensorElementType::Float32, .. }))
            .map(|output| output.name().to_owned())
            .collect();
        Ok(Self { inner, kind, shape, float_outputs })
    }

    /// The input's shape; -1 where a dimension is free.
    pub fn input_shape(&self) -> &[i64] {
        &self.shape
    }

    /// Outputs of element type float32.
    pub fn float_outputs(&self) -> &[String] {
        &self.float_outputs
    }

    /// Runs once on `shape` and shows every float output. An input of integers takes the nearest ones.
    ///
    /// # Errors
    /// [`RuntimeError::Failed`] with what the runtime says.
    pub fn observe<F>(&mut self, input: &[f32], shape: &[usize], mut see: F) -> Result<(), RuntimeError>
    where
        F: FnMut(Observed<'_>, &[usize]),
    {
        let failed = |error: ort::Error| RuntimeError::Failed { runtime: NAME, problem: error.to_string() };
        let dims = shape.to_vec();
        macro_rules! whole {
            ($type:ty) => {{
                let whole: Vec<$type> = input.iter().map(|value| value.round() as $type).collect();
                let tensor = TensorRef::from_array_view((dims, whole.as_slice())).map_err(failed)?;
                self.inner.run(ort::inputs![tensor]).map_err(failed)?
            }};
        }
        let outputs = match self.kind {
            Kind::Float => {
                let tensor = TensorRef::from_array_view((dims, input)).map_err(failed)?;
                self.inner.run(ort::inputs![tensor]).map_err(failed)?
            }
            Kind::Int32 => whole!(i32),
            Kind::Int64 => whole!(i64),
            Kind::Uint8 => whole!(u8),
        };
        for name in &self.float_outputs {
            let (dims, values) = outputs[name.as_str()].try_extract_tensor::<f32>().map_err(failed)?;
            let dims: Vec<usize> = dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
            see(Observed { name, values }, &dims);
        }
        Ok(())
    }
}

/// A session with the shape of one sample: a [`Runner`].
#[derive(Debug)]
pub(crate) struct Sampled {
    session: Session,
    sample: Vec<usize>,
}

impl Session {
    /// Makes it a runner for samples of this shape (without the batch).
    ///
    /// # Errors
    /// [`RuntimeError::Interface`] when the shape does not fit or no output is float32.
    pub fn runner(self, sample: &[usize]) -> Result<Box<dyn Runner>, RuntimeError> {
        let fits = self.shape.len() == sample.len() + 1
            && self.shape[1..].iter().zip(sample).all(|(dim, size)| *dim < 0 || *dim == *size as i64);
        if !fits {
            return Err(RuntimeError::Interface(format!(
                "its input has the shape {:?} (-1 is free), a sample has {sample:?}",
                self.shape
            )));
        }
        if self.float_outputs.is_empty() {
            return Err(RuntimeError::Interface("none of its outputs is float32".to_owned()));
        }
        Ok(Box::new(Sampled { session: self, sample: sample.to_vec() }))
    }
}

impl Runner for Sampled {
    fn batch(&self) -> usize {
        usize::try_from(self.session.shape[0]).unwrap_or(FREE_BATCH).max(1)
    }

    fn run(&mut self, samples: &[f32], count: usize) -> Result<Vec<Row>, RuntimeError> {
        let size: usize = self.sample.iter().product();
        // A fixed batch is filled up with the last sample; what comes of that is dropped.
        let batch = usize::try_from(self.session.shape[0]).unwrap_or(count).max(1);
        let mut padded;
        let input = if batch == count {
            samples
        } else {
            padded = samples.to_vec();
            for _ in count..batch {
                padded.extend_from_slice(&samples[(count - 1) * size..count * size]);
            }
            &padded
        };
        let mut rows = vec![Row { values: Vec::new(), scores: 0 }; count];
        let mut wrong = None;
        let shape = [&[batch], self.sample.as_slice()].concat();
        self.session.observe(input, &shape, |output, dims| {
            // Without a batch axis the whole output belongs to the one sample.
            let row = if dims.first() == Some(&batch) { output.values.len() / batch } else { output.values.len() };
            if dims.first() != Some(&batch) && batch != 1 {
                wrong = Some(format!("output {} has the shape {dims:?} for a batch of {batch}", output.name));
                return;
            }
            for (target, values) in rows.iter_mut().zip(output.values.chunks(row.max(1))) {
                if target.values.is_empty() {
                    target.scores = values.len();
                }
                target.values.extend_from_slice(values);
            }
        })?;
        match wrong {
            Some(problem) => Err(RuntimeError::Interface(problem)),
            None => Ok(rows),
        }
    }
}
