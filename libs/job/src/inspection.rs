//! What `edgeyard-optimizer inspect` and `diff` print with `--output json`. What is unknown is null; `notes` say why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::report::Cost;
use crate::spec::ModelFormat;

/// The version of both schemas.
pub const INSPECTION_VERSION: &str = "1.0";

/// A model, layer by layer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// `1.0`.
    pub schema_version: String,
    /// The file.
    pub model: InspectedModel,
    /// What is fed.
    pub inputs: Vec<InspectedTensor>,
    /// What comes out.
    pub outputs: Vec<InspectedTensor>,
    /// Every operator, in the order in which they run.
    pub layers: Vec<InspectedLayer>,
    /// The sums; null where the graph contradicts itself.
    pub total: Option<Cost>,
    /// What is not counted, and why.
    pub notes: Vec<String>,
}

/// A model file.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct InspectedModel {
    /// The file's name.
    pub name: String,
    /// Its format.
    pub format: ModelFormat,
    /// What identifies it.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
    /// The operator set of an ONNX model; null for `.tflite`, whose operators have versions of their own.
    pub opset: Option<i64>,
}

/// An input or output.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct InspectedTensor {
    /// Its name.
    pub name: String,
    /// Its element type as NumPy names it; null if the file does not say.
    pub dtype: Option<String>,
    /// Its dimensions, null where they are free; null as a whole if the file gives none.
    pub shape: Option<Vec<Option<u64>>>,
}

/// An operator.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InspectedLayer {
    /// Its name, or what it makes when it has none.
    pub name: String,
    /// What it does, such as `Conv` or `CONV_2D`.
    pub operator: String,
    /// Shape of its first output, for one sample; null when it cannot be told.
    pub output_shape: Option<Vec<u64>>,
    /// Element type of its first output.
    pub dtype: Option<String>,
    /// Element type of its weights; null without weights.
    pub weight_dtype: Option<String>,
    /// Weights and biases that it reads first.
    pub parameters: u64,
    /// Those that are not zero.
    pub nonzero_parameters: u64,
    /// Multiply-accumulates of one inference of one sample; null when they are not counted for this operator.
    pub macs: Option<u64>,
    /// Smallest and largest weight, as reals; null without weights.
    pub weight_range: Option<[f32; 2]>,
}

/// How far a model's numbers are from a reference's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `1.0`.
    pub schema_version: String,
    /// The reference.
    pub reference: ComparedModel,
    /// The other model.
    pub other: ComparedModel,
    /// Samples that both were run on.
    pub sample_count: u64,
    /// Where the samples are from.
    pub samples: String,
    /// The models' outputs, in order.
    pub outputs: Vec<Agreement>,
    /// Tensors inside that have the same name and number of elements in both, in the reference's order.
    pub layers: Vec<Agreement>,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
}

/// One of two models that are compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ComparedModel {
    /// The file's name.
    pub name: String,
    /// What identifies it.
    pub digest: String,
    /// Its size.
    pub size_bytes: u64,
    /// What it was run in.
    pub runtime: String,
}

/// How well one tensor agrees.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// The tensor's name in the reference.
    pub tensor: String,
    /// The operator that makes it in the reference.
    pub operator: String,
    /// Signal to noise ratio in dB, 10·log10(Σ r² / Σ (r − o)²); null if all values are equal, or if the reference is 0 throughout.
    pub sqnr_db: Option<f64>,
    /// Largest absolute difference.
    pub max_abs_difference: f64,
    /// Largest absolute value of the reference.
    pub max_abs_reference: f64,
}
