//! ONNX graphs to .tflite, for LiteRT and TensorFlow Lite Micro. `walk` turns nodes into TFLite operators on tensors in
//! the layouts TFLite's kernels want (`ops`), a mode decides how numbers are stored (`halve`, `quantize`), and `emit`
//! makes the file. The model's inputs and outputs keep ONNX's shapes and order, so one data set feeds every variant.

mod draft;
mod emit;
mod halve;
mod layout;
mod ops;
mod quantize;
mod ranges;
mod walk;

pub use ranges::{Range, Ranges};

use std::collections::BTreeSet;

use edgeyard_job::spec::Granularity;

use crate::ir::Graph;
use crate::quantize::WeightError;
use crate::simplify::{Allowed, fuse_patterns};

/// How a lowered model stores numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit floats throughout.
    Float32,
    /// Weights as 16-bit floats, widened when the model is loaded; computation in 32 bits.
    Float16Weights,
    /// 8-bit integers throughout; needs calibrated ranges.
    Int8 {
        /// What is fed and what comes out.
        io: Int8Io,
    },
    /// Weights in 8-bit integers; the runtime quantises activations of matrix products and convolutions while it runs.
    Int8Dynamic,
    /// Weights in 4-bit integers, one scale for each output channel or, where [`Choices::block_size`] says so, each block
    /// of a matrix; otherwise as `Int8Dynamic`.
    Int4Weights,
    /// 8-bit integer weights and 16-bit integer activations; needs calibrated ranges.
    Int16Activations {
        /// What is fed and what comes out; `Int8` stands for 16-bit integers here.
        io: Int8Io,
    },
}

/// What integer modes may leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// Operators that stay in floating point, by the first ONNX tensor they make. Targets without floats refuse them.
    pub keep_float: BTreeSet<String>,
    /// How many scales weights have where the target leaves a choice.
    pub granularity: Granularity,
    /// `Int4Weights`: how many weights of a row of a matrix share a scale; absent: one scale for each output channel.
    pub block_size: Option<u32>,
}

/// The element type of an int8 model's inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Int8Io {
    /// Floats, converted inside the model: the same inputs serve every variant. For LiteRT.
    Float,
    /// 8-bit integers with the quantization of the tensor. For microcontrollers.
    Int8,
}

/// A finished .tflite.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// The file.
    pub bytes: Vec<u8>,
    /// What a user should know: operators that run in float, transposes that could not be avoided.
    pub notes: Vec<String>,
}

/// Why a graph cannot be lowered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// An operator is outside what lowering or the runtime can do.
    #[error("op {op} (node {node}) cannot be lowered: {why}; {remedy}")]
    Op {
        /// The ONNX operator.
        op: String,
        /// The node's name, or what it makes.
        node: String,
        /// What is in the way.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// An input of the model is of a kind .tflite models here do not take.
    #[error("input {name} cannot be lowered: {why}; {remedy}")]
    Input {
        /// The input.
        name: String,
        /// What is in the way.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// Int8 without calibration.
    #[error("int8 lowering needs calibrated ranges; calibrate the model first")]
    NoRanges,
    /// A tensor has no usable range.
    #[error(
        "tensor {tensor} has no usable calibrated range ({why}); calibrate with data that reaches it, or leave the model in float"
    )]
    Range {
        /// The ONNX tensor.
        tensor: String,
        /// What is wrong with it.
        why: String,
    },
    /// A choice about nothing.
    #[error(
        "keep_float names {tensor}, which no operator of the model makes; name the first output of an operator of the simplified model"
    )]
    KeepFloat {
        /// What was named.
        tensor: String,
    },
    /// A weight is not a number.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// The file could not be made.
    #[error("the .tflite cannot be written")]
    Write(#[source] edgeyard_tflite::WriteError),
}

/// A graph lowered in floats, for looking at.
#[derive(Debug, Clone)]
pub struct Outline {
    /// What the file would hold.
    pub model: edgeyard_tflite::Model,
    /// The node of the graph that each operator comes from.
    pub nodes: Vec<usize>,
    /// What an integer mode would leave in floating point, or refuse where the target has none.
    pub floats: Vec<StaysFloat>,
}

/// An operator that stays in floating point in an integer model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaysFloat {
    /// The node of the graph.
    pub node: usize,
    /// Why.
    pub why: String,
}

/// Lowers a simplified graph of static shapes in floats, without calibration and without making a file: a rehearsal of `mode`.
///
/// # Errors
/// As [`to_tflite`].
pub fn outline(graph: &Graph, mode: Mode) -> Result<Outline, LowerError> {
    let (mut draft, _) = walk::walk(graph, has_sequences(mode))?;
    let floats = match mode {
        Mode::Int8 { .. } => quantize::stay_float(&draft, quantize::Activations::Int8),
        Mode::Int16Activations { .. } => quantize::stay_float(&draft, quantize::Activations::Int16),
        Mode::Float32 | Mode::Float16Weights | Mode::Int8Dynamic | Mode::Int4Weights => Vec::new(),
    };
    quantize::expand_clamps(&mut draft);
    let (model, nodes) = emit::model(&draft);
    Ok(Outline { model, nodes, floats })
}

/// Whether operators for whole sequences are used: their weights would stay floats where others' become integers.
fn has_sequences(mode: Mode) -> bool {
    matches!(mode, Mode::Float32 | Mode::Float16Weights)
}

/// Lowers a simplified graph of static shapes.
///
/// # Errors
/// Names the node and operator that cannot be lowered, or the tensor whose range is missing.
pub fn to_tflite(graph: &Graph, mode: Mode, ranges: Option<&Ranges>) -> Result<Lowered, LowerError> {
    to_tflite_with(graph, mode, ranges, &Choices::default())
}

/// As [`to_tflite`], with choices of one's own.
///
/// # Errors
/// As [`to_tflite`]; names an operator that shall stay float where the target has none.
pub fn to_tflite_with(
    graph: &Graph,
    mode: Mode,
    ranges: Option<&Ranges>,
    choices: &Choices,
) -> Result<Lowered, LowerError> {
    let mut fused = graph.clone();
    fuse_patterns(&mut fused, Allowed::All);
    let choices = &Choices { keep_float: kept_after_fusion(graph, &fused, &choices.keep_float)?, ..choices.clone() };
    let graph = &fused;
    let (mut draft, mut notes) = walk::walk(graph, has_sequences(mode))?;
    match mode {
        Mode::Float32 => quantize::expand_clamps(&mut draft),
        Mode::Float16Weights => {
            quantize::expand_clamps(&mut draft);
            halve::halve(graph, &mut draft, &mut notes);
        }
        Mode::Int8Dynamic => quantize::weights(graph, &mut draft, quantize::WeightBits::Eight, choices, &mut notes)?,
        Mode::Int4Weights => quantize::weights(graph, &mut draft, quantize::WeightBits::Four, choices, &mut notes)?,
        Mode::Int8 { io } | Mode::Int16Activations { io } => {
            let activations = if matches!(mode, Mode::Int8 { .. }) {
                quantize::Activations::Int8
            } else {
                quantize::Activations::Int16
            };
            let plan = quantize::Plan { io, activations, choices };
            quantize::quantize(graph, &mut draft, ranges.ok_or(LowerError::NoRanges)?, plan, &mut notes)?;
        }
    }
    let moved = draft.ops.iter().filter(|op| op.op == edgeyard_tflite::BuiltinOp::TRANSPOSE).count();
    if moved > 0 {
        notes.push(format!("transposes left between the orders of ONNX and TFLite: {moved}"));
    }
    let bytes = emit::emit(&draft).map_err(LowerError::Write)?;
    Ok(Lowered { bytes, notes })
}

/// The tensors to keep float by their names in the fused graph. What lies inside a pattern that became one operator stands
/// for that operator: the first one behind it that is still there.
fn kept_after_fusion(graph: &Graph, fused: &Graph, keep: &BTreeSet<String>) -> Result<BTreeSet<String>, LowerError> {
    let makes = |graph: &Graph, name: &str| graph.nodes.iter().any(|node| node.outputs.iter().any(|out| out == name));
    let mut kept = BTreeSet::new();
    for name in keep {
        if !makes(graph, name) {
            return Err(LowerError::KeepFloat { tensor: name.clone() });
        }
        let mut reached: Vec<&str> = vec![name];
        let mut at = 0;
        while let Some(&tensor) = reached.get(at) {
            at += 1;
            if makes(fused, tensor) {
                kept.insert(tensor.to_owned());
                continue;
            }
            let readers = graph.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == tensor));
            for output in readers.map(|node| node.output()) {
                if !reached.contains(&output) {
                    reached.push(output);
                }
            }
        }
    }
    Ok(kept)
}
