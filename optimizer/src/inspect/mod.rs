//! A model file layer by layer: shapes, parameters, multiply-accumulates, weight ranges. Nothing is run; what a file is, its content
//! says, not its name.

mod onnx;
mod tflite;

use std::collections::BTreeMap;
use std::path::Path;

use edgeyard_artifact::digest_of;
use edgeyard_job::inspection::{InspectedModel, Inspection};
use edgeyard_job::spec::ModelFormat;
use thiserror::Error;

use crate::ir::{Dim, LoadError, Model, load};

/// Shapes of inputs by name, batch included.
pub type InputShapes = BTreeMap<String, Vec<usize>>;

/// Why a model cannot be inspected.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The file cannot be read.
    #[error("cannot read {file}: {problem}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        problem: String,
    },
    /// It is no ONNX model.
    #[error("{file}: {source}")]
    Onnx {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: LoadError,
    },
    /// It is no .tflite.
    #[error("{file}: {source}")]
    TfLite {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: edgeyard_tflite::ReadError,
    },
    /// A shape for what is no input of the model.
    #[error("--input-shape {name}: {file} has no such input; it has {}", inputs.join(", "))]
    NoSuchInput {
        /// The name.
        name: String,
        /// The file.
        file: String,
        /// All inputs.
        inputs: Vec<String>,
    },
    /// A shape that contradicts the declared one.
    #[error("--input-shape {name}: {file} declares [{declared}], the given shape is {given:?}")]
    WrongShape {
        /// The name.
        name: String,
        /// The file.
        file: String,
        /// What the file says.
        declared: String,
        /// What was given.
        given: Vec<usize>,
    },
    /// A shape for a .tflite.
    #[error("--input-shape: {file} is a .tflite, whose shapes are fixed")]
    FixedShapes {
        /// The file.
        file: String,
    },
}

/// A model file of either format.
#[derive(Debug)]
pub struct File {
    /// The file's name, for messages.
    pub name: String,
    /// The whole file.
    pub bytes: Vec<u8>,
    /// What it is.
    pub content: Content,
}

/// What a model file is.
#[derive(Debug)]
pub enum Content {
    /// ONNX, with external data read.
    Onnx(Box<Model>),
    /// TensorFlow Lite.
    TfLite(Box<edgeyard_tflite::Model>),
}

impl File {
    /// Reads a file and tells by its content what it is: a .tflite has the identifier `TFL3` at its fifth byte.
    ///
    /// # Errors
    /// [`InspectError`] that names the file.
    pub fn read(path: &Path) -> Result<Self, InspectError> {
        let file = || path.display().to_string();
        let unreadable = |error: std::io::Error| InspectError::Unreadable { file: file(), problem: error.to_string() };
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let content = if bytes.get(4..8) == Some(b"TFL3") {
            let model = edgeyard_tflite::read(&bytes);
            Content::TfLite(Box::new(model.map_err(|source| InspectError::TfLite { file: file(), source })?))
        } else {
            let model = load(&bytes, path.parent());
            Content::Onnx(Box::new(model.map_err(|source| InspectError::Onnx { file: file(), source })?))
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, bytes, content })
    }

    /// Gives free dimensions of inputs their sizes.
    ///
    /// # Errors
    /// [`InspectError`] when an input is not there or the shape contradicts it.
    pub fn fix_shapes(&mut self, shapes: &InputShapes) -> Result<(), InspectError> {
        let model = match &mut self.content {
            Content::Onnx(model) => model,
            Content::TfLite(_) if shapes.is_empty() => return Ok(()),
            Content::TfLite(_) => return Err(InspectError::FixedShapes { file: self.name.clone() }),
        };
        for (name, shape) in shapes {
            let inputs = model.graph.inputs.iter().map(|input| input.name.clone()).collect();
            let Some(input) = model.graph.inputs.iter_mut().find(|input| input.name == *name) else {
                return Err(InspectError::NoSuchInput { name: name.clone(), file: self.name.clone(), inputs });
            };
            let fits = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Static(declared) if declared != size);
            if input.has_shape && (input.shape.len() != shape.len() || !input.shape.iter().zip(shape).all(fits)) {
                let declared = input.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let (name, file) = (name.clone(), self.name.clone());
                return Err(InspectError::WrongShape { name, file, declared, given: shape.clone() });
            }
            input.shape = shape.iter().copied().map(Dim::Static).collect();
            input.has_shape = true;
        }
        Ok(())
    }
}

/// All about a model file.
#[must_use]
pub fn inspect(file: &File) -> Inspection {
    let model = |format, opset| InspectedModel {
        name: file.name.clone(),
        format,
        digest: digest_of(&file.bytes).to_string(),
        size_bytes: file.bytes.len() as u64,
        opset,
    };
    match &file.content {
        Content::Onnx(onnx) => onnx::inspect(onnx, model(ModelFormat::Onnx, Some(onnx.graph.opset))),
        Content::TfLite(tflite) => tflite::inspect(tflite, model(ModelFormat::TfLite, None)),
    }
}
