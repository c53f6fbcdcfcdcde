//! ONNX Runtime from its shared library. Sessions are made through the `ort` crate; the inference itself calls the C API
//! with names and values that were prepared once, so that nothing is allocated between two readings of the clock.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr;

use edgeyard_job::spec::ExecutionProvider;
use ort::AsPointer as _;
use ort::ep::CUDA;
use ort::memory::Allocator;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use ort::value::{DynTensor, Outlet, TensorElementType, ValueType};

use super::{Engine, ModelInfo};
use crate::error::Failure;
use crate::tensor::{Element, TensorInfo};

/// A session with its inputs and outputs.
pub struct Onnx {
    info: ModelInfo,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    input_name_pointers: Vec<*const c_char>,
    output_name_pointers: Vec<*const c_char>,
    inputs: Vec<DynTensor>,
    input_pointers: Vec<*const ort::sys::OrtValue>,
    /// Null until the first inference, which allocates them; later ones write into the same.
    outputs: Vec<*mut ort::sys::OrtValue>,
    /// Shapes of outputs depend on more than the model: they are allocated for each inference.
    open_outputs: bool,
    session: Session,
    _environment: ort::environment::Environment,
}

fn refused<R>(error: ort::Error<R>) -> Failure {
    let message = error.to_string();
    // The same fault comes as status INVALID_PROTOBUF or as FAIL with this text.
    let reason =
        if message.to_lowercase().contains("protobuf parsing failed") { "CorruptModel" } else { "ModelRefused" };
    Failure::bad_input(reason, format!("ONNX Runtime does not take the model: {}", message.trim()))
}

fn failed<R>(error: ort::Error<R>) -> Failure {
    Failure::infrastructure("RuntimeFailed", format!("ONNX Runtime: {error}"))
}

fn unavailable<R>(error: ort::Error<R>) -> Failure {
    Failure::infrastructure(
        "ProviderUnavailable",
        format!(
            "ONNX Runtime has no CUDA here: take a library that is built with it (the package onnxruntime-gpu), with \
             libonnxruntime_providers_cuda.so beside it, and a machine with an NVIDIA GPU and driver: {error}"
        ),
    )
}

impl Onnx {
    /// Loads a model.
    ///
    /// # Errors
    /// `RuntimeMissing`, `ProviderUnavailable` when the library or the machine cannot do what `provider` asks for, and what
    /// is wrong with the model.
    pub fn open(library: &Path, threads: u32, provider: ExecutionProvider, model: &[u8]) -> Result<Self, Failure> {
        let missing = |error: String| {
            Failure::infrastructure(
                "RuntimeMissing",
                format!("ONNX Runtime cannot be loaded from {}: {error}", library.display()),
            )
        };
        let version = version(library).map_err(|error| missing(error.to_string()))?;
        let environment = ort::init_from(library)
            .map_err(|error| missing(error.to_string()))?
            .with_telemetry(false)
            .with_name("edgeyard")
            .build()
            .map_err(failed)?;
        let mut builder = Session::builder(&environment)
            .map_err(failed)?
            .with_intra_threads(threads as usize)
            .map_err(failed)?
            .with_inter_threads(1)
            .map_err(failed)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(failed)?;
        if provider == ExecutionProvider::Cuda {
            builder =
                builder.with_execution_providers([CUDA::default().build().error_on_failure()]).map_err(unavailable)?;
        }
        let session = builder.commit_from_memory(model).map_err(refused)?;
        let inputs: Vec<_> = session.inputs().iter().map(describe).collect::<Result<_, _>>()?;
        let outputs: Vec<_> = session.outputs().iter().map(describe).collect::<Result<_, _>>()?;
        let open_outputs = outputs.iter().any(|(_, open)| *open);
        let allocator = Allocator::default();
        let values = inputs
            .iter()
            .map(|(input, _)| {
                let shape: Vec<i64> = input.shape.iter().map(|n| *n as i64).collect();
                DynTensor::new(&allocator, element_type(input.element), shape).map_err(failed)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let names = |tensors: &[(TensorInfo, bool)]| {
            let name = |(tensor, _): &(TensorInfo, bool)| CString::new(tensor.name.as_str());
            tensors
                .iter()
                .map(name)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| Failure::bad_input("CorruptModel", "a tensor's name holds a zero byte"))
        };
        let (input_names, output_names) = (names(&inputs)?, names(&outputs)?);
        let settings = [
            ("intraOpThreads", threads.to_string()),
            ("interOpThreads", "1".into()),
            ("graphOptimization", "all".into()),
            ("executionProvider", format!("{provider:?}").to_uppercase()),
        ];
        let info = ModelInfo {
            inputs: inputs.into_iter().map(|(tensor, _)| tensor).collect(),
            outputs: outputs.into_iter().map(|(tensor, _)| tensor).collect(),
            runtime: "onnxruntime".into(),
            version,
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
        };
        Ok(Self {
            input_name_pointers: input_names.iter().map(|name| name.as_ptr()).collect(),
            output_name_pointers: output_names.iter().map(|name| name.as_ptr()).collect(),
            input_pointers: values.iter().map(|value| value.ptr()).collect(),
            outputs: vec![ptr::null_mut(); info.outputs.len()],
            info,
            input_names,
            output_names,
            inputs: values,
            open_outputs,
            session,
            _environment: environment,
        })
    }

    fn release_outputs(&mut self) {
        for output in &mut self.outputs {
            if !output.is_null() {
                // SAFETY: the value came from Run, is owned by this engine, and is forgotten here.
                unsafe { (ort::api().ReleaseValue)(*output) };
                *output = ptr::null_mut();
            }
        }
    }
}

impl Engine for Onnx {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn set_input(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut rest = bytes;
        for (input, value) in self.info.inputs.iter().zip(&mut self.inputs) {
            let (own, others) = rest
                .split_at_checked(input.bytes())
                .ok_or_else(|| Failure::infrastructure("LaneProtocol", "too few bytes for the model's inputs"))?;
            // SAFETY: the tensor was made with this element type and shape, on the processor's own memory.
            unsafe { ptr::copy_nonoverlapping(own.as_ptr(), value.data_ptr_mut().cast::<u8>(), own.len()) };
            rest = others;
        }
        if self.open_outputs {
            self.release_outputs();
        }
        Ok(())
    }

    #[inline]
    fn run(&mut self) -> Result<(), Failure> {
        // SAFETY: session, names and inputs live as long as self; outputs are null or values of an earlier run of the
        // same session.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                ptr::null(),
                self.input_name_pointers.as_ptr(),
                self.input_pointers.as_ptr(),
                self.input_names.len(),
                self.output_name_pointers.as_ptr(),
                self.output_names.len(),
                self.outputs.as_mut_ptr(),
            )
        };
        // SAFETY: the status is Run's own and is consumed here.
        unsafe { ort::Error::result_from_status(status) }.map_err(failed)
    }

    fn outputs(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        for (value, info) in self.outputs.iter().zip(&self.info.outputs) {
            let mut shape = ptr::null_mut();
            let mut count = 0;
            let mut data = ptr::null_mut();
            let api = ort::api();
            // SAFETY: the value is an output of the last run; the shape is released after its one use; the data is
            // `count` elements of the type that the session declares for this output.
            unsafe {
                ort::Error::result_from_status((api.GetTensorTypeAndShape)(*value, &raw mut shape)).map_err(failed)?;
                let counted = ort::Error::result_from_status((api.GetTensorShapeElementCount)(shape, &raw mut count));
                (api.ReleaseTensorTypeAndShapeInfo)(shape);
                counted.map_err(failed)?;
                ort::Error::result_from_status((api.GetTensorMutableData)(*value, &raw mut data)).map_err(failed)?;
                if count > 0 {
                    out.extend_from_slice(std::slice::from_raw_parts(
                        data.cast::<u8>().cast_const(),
                        count * info.element.size(),
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Onnx {
    fn drop(&mut self) {
        self.release_outputs();
    }
}

/// An input or output, and whether the model leaves a dimension open.
fn describe(outlet: &Outlet) -> Result<(TensorInfo, bool), Failure> {
    let refused = |what: String| {
        Failure::bad_input(
            "UnsupportedModel",
            format!("{:?} is {what}: only tensors of numbers are fed", outlet.name()),
        )
    };
    let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else {
        return Err(refused(format!("{:?}", outlet.dtype())));
    };
    let element = match ty {
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float64 => Element::F64,
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Int8 => Element::I8,
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Int16 => Element::I16,
        TensorElementType::Int32 => Element::I32,
        TensorElementType::Int64 => Element::I64,
        TensorElementType::Bool => Element::Bool,
        other => return Err(refused(format!("a tensor of {other:?}"))),
    };
    let open = shape.iter().any(|n| *n < 0);
    let shape = shape.iter().map(|n| usize::try_from(*n).unwrap_or(1)).collect();
    Ok((TensorInfo { name: outlet.name().into(), element, shape, scale: None, zero_point: None }, open))
}

const fn element_type(element: Element) -> TensorElementType {
    match element {
        Element::F32 => TensorElementType::Float32,
        Element::F64 => TensorElementType::Float64,
        Element::F16 => TensorElementType::Float16,
        Element::I8 => TensorElementType::Int8,
        Element::U8 => TensorElementType::Uint8,
        Element::I16 => TensorElementType::Int16,
        Element::I32 => TensorElementType::Int32,
        Element::I64 => TensorElementType::Int64,
        Element::Bool => TensorElementType::Bool,
    }
}

/// The library's version, which the `ort` crate does not tell.
fn version(library: &Path) -> Result<String, libloading::Error> {
    #[repr(C)]
    struct Base {
        get_api: *const std::ffi::c_void,
        version: unsafe extern "C" fn() -> *const c_char,
    }
    // SAFETY: OrtGetApiBase and the two members of what it returns are the stable part of ONNX Runtime's C API; the string
    // is static.
    unsafe {
        let library = libloading::Library::new(library)?;
        let base = library.get::<unsafe extern "C" fn() -> *const Base>(b"OrtGetApiBase\0")?;
        let text = std::ffi::CStr::from_ptr(((*base()).version)()).to_string_lossy().into_owned();
        // Unloading and loading again would run the library's initialisers twice.
        std::mem::forget(library);
        Ok(text)
    }
}
