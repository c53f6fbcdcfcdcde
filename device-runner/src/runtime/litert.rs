//! LiteRT from its shared library, through the exported C API (`litert/c/*.h`, 2.1). The CPU accelerator compiles the
//! graph for XNNPACK.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use super::{Engine, ModelInfo};
use crate::error::Failure;
use crate::tensor::{Element, TensorInfo};

type Handle = *mut c_void;
type Status = c_int;

const OK: Status = 0;
const ACCELERATOR_CPU: c_int = 1;
const LOCK_READ: c_int = 0;
const LOCK_WRITE: c_int = 1;
const MOST_DIMENSIONS: usize = 8;

/// `LiteRtRankedTensorType`.
#[repr(C)]
#[derive(Clone, Copy)]
struct TensorType {
    element: c_int,
    /// The rank is in the lowest seven bits.
    rank: u8,
    dimensions: [i32; MOST_DIMENSIONS],
    strides: [u32; MOST_DIMENSIONS],
}

/// `LiteRtQuantizationPerTensor`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PerTensor {
    scale: f32,
    zero_point: i64,
}

macro_rules! api {
    ($($field:ident = $symbol:literal ($($argument:ty),*) -> $answer:ty;)*) => {
        /// The functions that are used.
        struct Api { $($field: unsafe extern "C" fn($($argument),*) -> $answer,)* }
        impl Api {
            /// # Safety
            /// The library must be LiteRT's and stay loaded.
            unsafe fn load(library: &libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: the signatures are those of the C headers.
                unsafe { Ok(Self { $($field: *library.get(concat!($symbol, "\0").as_bytes())?,)* }) }
            }
        }
    };
}

api! {
    create_environment = "LiteRtCreateEnvironment" (c_int, *const c_void, *mut Handle) -> Status;
    destroy_environment = "LiteRtDestroyEnvironment" (Handle) -> ();
    create_model = "LiteRtCreateModelFromBuffer" (Handle, *const c_void, usize, *mut Handle) -> Status;
    destroy_model = "LiteRtDestroyModel" (Handle) -> ();
    model_signature = "LiteRtGetModelSignature" (Handle, usize, *mut Handle) -> Status;
    signature_inputs = "LiteRtGetNumSignatureInputs" (Handle, *mut usize) -> Status;
    signature_outputs = "LiteRtGetNumSignatureOutputs" (Handle, *mut usize) -> Status;
    signature_input = "LiteRtGetSignatureInputTensorByIndex" (Handle, usize, *mut Handle) -> Status;
    signature_output = "LiteRtGetSignatureOutputTensorByIndex" (Handle, usize, *mut Handle) -> Status;
    tensor_name = "LiteRtGetTensorName" (Handle, *mut *const c_char) -> Status;
    tensor_type = "LiteRtGetRankedTensorType" (Handle, *mut TensorType) -> Status;
    quantization_type = "LiteRtGetQuantizationTypeId" (Handle, *mut c_int) -> Status;
    per_tensor = "LiteRtGetPerTensorQuantization" (Handle, *mut PerTensor) -> Status;
    create_options = "LiteRtCreateOptions" (*mut Handle) -> Status;
    destroy_options = "LiteRtDestroyOptions" (Handle) -> ();
    set_accelerators = "LiteRtSetOptionsHardwareAccelerators" (Handle, c_int) -> Status;
    create_opaque = "LiteRtCreateOpaqueOptions" (*const c_char, *mut c_void, unsafe extern "C" fn(*mut c_void), *mut Handle) -> Status;
    add_opaque = "LiteRtAddOpaqueOptions" (Handle, Handle) -> Status;
    compile = "LiteRtCreateCompiledModel" (Handle, Handle, Handle, *mut Handle) -> Status;
    destroy_compiled = "LiteRtDestroyCompiledModel" (Handle) -> ();
    fully_accelerated = "LiteRtCompiledModelIsFullyAccelerated" (Handle, *mut bool) -> Status;
    input_requirements = "LiteRtGetCompiledModelInputBufferRequirements" (Handle, usize, usize, *mut Handle) -> Status;
    output_requirements = "LiteRtGetCompiledModelOutputBufferRequirements" (Handle, usize, usize, *mut Handle) -> Status;
    create_buffer = "LiteRtCreateManagedTensorBufferFromRequirements" (Handle, *const TensorType, Handle, *mut Handle) -> Status;
    destroy_buffer = "LiteRtDestroyTensorBuffer" (Handle) -> ();
    lock = "LiteRtLockTensorBuffer" (Handle, *mut *mut c_void, c_int) -> Status;
    unlock = "LiteRtUnlockTensorBuffer" (Handle) -> Status;
    run = "LiteRtRunCompiledModel" (Handle, usize, usize, *mut Handle, usize, *mut Handle) -> Status;
}

/// A compiled model with its buffers.
pub struct LiteRt {
    api: Api,
    info: ModelInfo,
    environment: Handle,
    model: Handle,
    compiled: Handle,
    inputs: Vec<Handle>,
    outputs: Vec<Handle>,
    /// LiteRT reads the model's constants from here as long as it runs.
    _bytes: Vec<u8>,
    _library: libloading::Library,
}

fn check(status: Status, what: &str) -> Result<(), Failure> {
    match status {
        OK => Ok(()),
        // kLiteRtStatusErrorUnsupported, …InvalidFlatbuffer, …Compilation, …InvalidIrType, …InvalidGraphInvariant
        5 | 501 | 504 | 2000 | 2001 => {
            Err(Failure::bad_input("ModelRefused", format!("LiteRT does not take the model: {what} (status {status})")))
        }
        _ => Err(Failure::infrastructure("RuntimeFailed", format!("LiteRT: {what} failed with status {status}"))),
    }
}

fn refused(status: Status, what: &str) -> Result<(), Failure> {
    check(status, what).map_err(|failure| Failure {
        class: crate::error::Class::BadInput,
        reason: "ModelRefused".into(),
        ..failure
    })
}

impl LiteRt {
    /// Loads a model.
    pub fn open(library: &Path, threads: u32, bytes: Vec<u8>) -> Result<Self, Failure> {
        let missing = |error: libloading::Error| {
            Failure::infrastructure(
                "RuntimeMissing",
                format!("LiteRT cannot be loaded from {}: {error}", library.display()),
            )
        };
        super::check_format(&bytes, true, Path::new("the model"))?;
        // SAFETY: the library is LiteRT's, by configuration; it is kept loaded as long as the functions are used.
        let (loaded, api) = unsafe {
            let loaded = libloading::Library::new(library).map_err(missing)?;
            let api = Api::load(&loaded).map_err(missing)?;
            (loaded, api)
        };
        let mut engine = Self {
            api,
            info: ModelInfo::default(),
            environment: ptr::null_mut(),
            model: ptr::null_mut(),
            compiled: ptr::null_mut(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            _bytes: bytes,
            _library: loaded,
        };
        // SAFETY: see each call; handles that were made are released in drop, whatever fails after them.
        unsafe { engine.build(threads)? };
        engine.info.runtime = "litert".into();
        engine.info.version = version(library);
        Ok(engine)
    }

    /// # Safety
    /// Called once. All handles passed on are live, and all out-pointers are to locals or to fields of self.
    unsafe fn build(&mut self, threads: u32) -> Result<(), Failure> {
        let Self { api, .. } = self;
        // SAFETY: as promised by the caller.
        unsafe {
            check((api.create_environment)(0, ptr::null(), &raw mut self.environment), "making an environment")?;
            let bytes = &self._bytes;
            let made = (api.create_model)(self.environment, bytes.as_ptr().cast(), bytes.len(), &raw mut self.model);
            if made != OK {
                return Err(Failure::bad_input(
                    "CorruptModel",
                    format!("LiteRT cannot read the model (status {made}): the file is damaged or no .tflite"),
                ));
            }
            let mut signature = ptr::null_mut();
            refused((api.model_signature)(self.model, 0, &raw mut signature), "finding a signature")?;
            let (mut inputs, mut outputs) = (0, 0);
            check((api.signature_inputs)(signature, &raw mut inputs), "counting inputs")?;
            check((api.signature_outputs)(signature, &raw mut outputs), "counting outputs")?;
            let mut types = [Vec::new(), Vec::new()];
            for (kind, count, find) in [(0, inputs, api.signature_input), (1, outputs, api.signature_output)] {
                for index in 0..count {
                    let mut tensor = ptr::null_mut();
                    check(find(signature, index, &raw mut tensor), "finding a tensor")?;
                    types[kind].push(describe(api, tensor)?);
                }
            }
            let mut options = ptr::null_mut();
            check((api.create_options)(&raw mut options), "making options")?;
            let compiled = compile(api, self.environment, self.model, options, threads);
            (api.destroy_options)(options);
            self.compiled = compiled?;
            let mut accelerated = false;
            check((api.fully_accelerated)(self.compiled, &raw mut accelerated), "asking for the delegate")?;
            for (kind, need) in [(0, api.input_requirements), (1, api.output_requirements)] {
                for (index, (_, raw)) in types[kind].iter().enumerate() {
                    let (mut requirements, mut buffer) = (ptr::null_mut(), ptr::null_mut());
                    check(need(self.compiled, 0, index, &raw mut requirements), "asking for a buffer's needs")?;
                    let made = (api.create_buffer)(self.environment, raw, requirements, &raw mut buffer);
                    check(made, "making a buffer")?;
                    if kind == 0 { self.inputs.push(buffer) } else { self.outputs.push(buffer) }
                }
            }
            let settings = [
                ("threads", threads.to_string()),
                ("accelerator", "CPU (XNNPACK)".to_owned()),
                ("fullyDelegated", accelerated.to_string()),
            ];
            self.info.settings = settings.map(|(key, value)| (key.to_owned(), value)).into();
            let [inputs, outputs] = types;
            self.info.inputs = inputs.into_iter().map(|(info, _)| info).collect();
            self.info.outputs = outputs.into_iter().map(|(info, _)| info).collect();
        }
        Ok(())
    }

    /// Lends a buffer's memory to `with`.
    fn locked(&self, buffer: Handle, mode: c_int, with: impl FnOnce(*mut u8)) -> Result<(), Failure> {
        let mut memory = ptr::null_mut();
        // SAFETY: the buffer is live and not locked; it is unlocked again before this returns.
        unsafe {
            check((self.api.lock)(buffer, &raw mut memory, mode), "locking a buffer")?;
            if !memory.is_null() {
                with(memory.cast());
            }
            check((self.api.unlock)(buffer), "unlocking a buffer")
        }
    }
}

/// # Safety
/// All handles are live.
unsafe fn compile(
    api: &Api,
    environment: Handle,
    model: Handle,
    options: Handle,
    threads: u32,
) -> Result<Handle, Failure> {
    /// # Safety
    /// `text` came from `CString::into_raw`.
    unsafe extern "C" fn free(text: *mut c_void) {
        // SAFETY: as promised by the caller.
        drop(unsafe { CString::from_raw(text.cast()) });
    }
    // SAFETY: as promised by the caller; the payload is owned by the options from here on.
    unsafe {
        check((api.set_accelerators)(options, ACCELERATOR_CPU), "choosing the CPU")?;
        // The CPU accelerator's options travel as TOML (litert_cpu_options.cc); the library exports no setter for them.
        let payload = CString::new(format!("num_threads = {threads}\n")).expect("digits hold no zero byte");
        let mut opaque = ptr::null_mut();
        let made = (api.create_opaque)(c"xnnpack".as_ptr(), payload.into_raw().cast(), free, &raw mut opaque);
        check(made, "making the CPU's options")?;
        check((api.add_opaque)(options, opaque), "setting threads")?;
        let mut compiled = ptr::null_mut();
        refused((api.compile)(environment, model, options, &raw mut compiled), "compiling for the CPU")?;
        Ok(compiled)
    }
}

/// # Safety
/// The tensor is live.
unsafe fn describe(api: &Api, tensor: Handle) -> Result<(TensorInfo, TensorType), Failure> {
    let mut raw = TensorType { element: 0, rank: 0, dimensions: [0; MOST_DIMENSIONS], strides: [0; MOST_DIMENSIONS] };
    let mut name = ptr::null();
    let mut kind = 0;
    let mut quantization = PerTensor::default();
    // SAFETY: as promised by the caller; the name lives as long as the model and is copied at once.
    let name = unsafe {
        refused((api.tensor_type)(tensor, &raw mut raw), "reading a tensor's type")?;
        check((api.tensor_name)(tensor, &raw mut name), "reading a tensor's name")?;
        check((api.quantization_type)(tensor, &raw mut kind), "reading a tensor's quantisation")?;
        if kind == 1 {
            check((api.per_tensor)(tensor, &raw mut quantization), "reading a tensor's scale")?;
        }
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    };
    // LiteRtElementType.
    let element = match raw.element {
        1 => Element::F32,
        2 => Element::I32,
        3 => Element::U8,
        4 => Element::I64,
        6 => Element::Bool,
        7 => Element::I16,
        9 => Element::I8,
        10 => Element::F16,
        11 => Element::F64,
        other => {
            return Err(Failure::bad_input(
                "UnsupportedModel",
                format!("tensor {name:?} has elements of LiteRT's type {other}: only tensors of numbers are fed"),
            ));
        }
    };
    let rank = usize::from(raw.rank & 0x7f).min(MOST_DIMENSIONS);
    let shape: Vec<usize> = raw.dimensions[..rank].iter().map(|n| usize::try_from(*n).unwrap_or(1)).collect();
    for (dimension, size) in raw.dimensions.iter_mut().zip(&shape) {
        *dimension = *size as i32;
    }
    let quantized = kind == 1;
    let info = TensorInfo {
        name,
        element,
        shape,
        scale: quantized.then_some(quantization.scale),
        zero_point: quantized.then_some(quantization.zero_point),
    };
    Ok((info, raw))
}

impl Engine for LiteRt {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn set_input(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut rest = bytes;
        for (input, buffer) in self.info.inputs.iter().zip(&self.inputs) {
            let (own, others) = rest
                .split_at_checked(input.bytes())
                .ok_or_else(|| Failure::infrastructure("LaneProtocol", "too few bytes for the model's inputs"))?;
            // SAFETY: the buffer was made for this tensor and holds at least its bytes.
            self.locked(*buffer, LOCK_WRITE, |memory| unsafe {
                ptr::copy_nonoverlapping(own.as_ptr(), memory, own.len());
            })?;
            rest = others;
        }
        Ok(())
    }

    #[inline]
    fn run(&mut self) -> Result<(), Failure> {
        // SAFETY: the compiled model and its buffers live as long as self.
        let status = unsafe {
            (self.api.run)(
                self.compiled,
                0,
                self.inputs.len(),
                self.inputs.as_mut_ptr(),
                self.outputs.len(),
                self.outputs.as_mut_ptr(),
            )
        };
        check(status, "inferring")
    }

    fn outputs(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        for (output, buffer) in self.info.outputs.iter().zip(&self.outputs) {
            // SAFETY: the buffer was made for this tensor and holds at least its bytes.
            self.locked(*buffer, LOCK_READ, |memory| {
                out.extend_from_slice(unsafe { std::slice::from_raw_parts(memory, output.bytes()) });
            })?;
        }
        Ok(())
    }
}

impl Drop for LiteRt {
    fn drop(&mut self) {
        // SAFETY: each handle was made by this engine, is released once, and dependents go first.
        unsafe {
            for buffer in self.inputs.drain(..).chain(self.outputs.drain(..)) {
                (self.api.destroy_buffer)(buffer);
            }
            if !self.compiled.is_null() {
                (self.api.destroy_compiled)(self.compiled);
            }
            if !self.model.is_null() {
                (self.api.destroy_model)(self.model);
            }
            if !self.environment.is_null() {
                (self.api.destroy_environment)(self.environment);
            }
        }
    }
}

/// LiteRT's library does not tell its version: it is taken from the folder `litert-VERSION` that it is kept in.
fn version(library: &Path) -> String {
    let real = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    real.components()
        .filter_map(|part| part.as_os_str().to_str()?.strip_prefix("litert-").map(str::to_owned))
        .next_back()
        .or_else(|| std::env::var("EDGEYARD_LITERT_VERSION").ok())
        .unwrap_or_else(|| "unknown".into())
}
