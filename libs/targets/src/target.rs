//! A target's description as its file writes it, and the embedded ones.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use edgeyard_job::media_type;
use edgeyard_job::report::VerificationLevel;
use edgeyard_job::spec::{Granularity, ModelFormat};
use serde::Deserialize;

use crate::lint::{Operators, Rule};
use crate::recipe::RecipeError;

/// The targets of this release, in the order in which people are told of them.
const EMBEDDED: [&str; 8] = [
    include_str!("../data/ort-x86.yaml"),
    include_str!("../data/ort-arm64.yaml"),
    include_str!("../data/litert.yaml"),
    include_str!("../data/tflm.yaml"),
    include_str!("../data/edgetpu.yaml"),
    include_str!("../data/ethos-u.yaml"),
    include_str!("../data/tensorrt.yaml"),
    include_str!("../data/vx.yaml"),
];

/// What a runtime takes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Its name in `targets` of a variant.
    pub name: String,
    /// Its name for people.
    pub summary: String,
    /// The file format of its models.
    pub format: ModelFormat,
    /// What runs its models here, so that their outputs can be compared.
    pub runtime: RuntimeKind,
    /// What running there proves: `Executed` if it is the target's own runtime, else `Linted`.
    pub proves: Level,
    /// The vendor's compiler that the artefact goes through, if there is one to be had.
    #[serde(default)]
    pub compiler: Option<Compiler>,
    /// What it makes of each way to store numbers.
    pub schemes: Schemes,
    /// Operators that it has, and what becomes of the others.
    pub operators: Operators,
    /// What else it asks of a model.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// What running a model here proves about the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Level {
    /// It runs there: the runtime is the target's own.
    Executed,
    /// Its outputs are right, and it keeps to the target's rules.
    Linted,
}

impl From<Level> for VerificationLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Executed => Self::Executed,
            Level::Linted => Self::Linted,
        }
    }
}

/// What runs a target's models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum RuntimeKind {
    /// ONNX Runtime.
    OnnxRuntime,
    /// LiteRT.
    LiteRt,
    /// TensorFlow Lite Micro.
    TfliteMicro,
}

/// A vendor's compiler.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Compiler {
    /// Arm's compiler for Ethos-U.
    Vela {
        /// What `--accelerator-config` names.
        accelerator: String,
    },
}

/// Ways to store numbers; all must be decided.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Schemes {
    /// As in the source.
    pub float32: Support<Nothing>,
    /// 16-bit weights.
    pub float16: Support<Nothing>,
    /// 8-bit integers throughout.
    pub int8: Support<Int8Rules>,
    /// 8-bit weights, activations quantised while it runs.
    pub int8_dynamic: Support<Nothing>,
    /// 4-bit weights.
    pub int4_weights: Support<Int4Rules>,
    /// 8-bit weights, 16-bit activations.
    pub int16_activations: Support<Int16Rules>,
}

/// Taken, with rules, or not, with a reason.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Support<T> {
    /// Why not, and what to do instead.
    Refused(Refused),
    /// How.
    Taken(T),
}

/// Why a target does not take something.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// The reason and the remedy.
    pub refused: String,
}

/// No rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Rules of 8-bit models.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Int8Rules {
    /// The type of activations.
    pub activations: Integer,
    /// Granularities of weights, the preferred one first.
    pub granularities: Vec<Granularity>,
    /// What is fed and what comes out.
    pub inputs_and_outputs: InterfaceType,
    /// Activations have zero point 0.
    #[serde(default)]
    pub symmetric: bool,
    /// Operators may stay in floating point among the others.
    #[serde(default)]
    pub mixed_precision: bool,
    /// Biases stay floats, so that the target's compiler quantises them itself.
    #[serde(default)]
    pub float_bias: bool,
}

/// Rules of models with 4-bit weights.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Int4Rules {
    /// How weights are written.
    pub form: Int4Form,
    /// Sizes of blocks that share a scale; none: one scale for each output channel only.
    #[serde(default)]
    pub block_sizes: Vec<u32>,
    /// Whether one scale for each output channel is taken.
    pub per_channel: bool,
}

/// How 4-bit weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Int4Form {
    /// ONNX Runtime's `MatMulNBits` for matrices, ONNX's `DequantizeLinear` elsewhere.
    OnnxBlocks,
    /// ONNX's `DequantizeLinear` with `block_size` throughout.
    OnnxQdq,
    /// Int4 filters of `.tflite` operators.
    TfLiteFilters,
}

/// Rules of models with 16-bit activations.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Int16Rules {
    /// Granularities of weights.
    pub granularities: Vec<Granularity>,
    /// What is fed and what comes out.
    pub inputs_and_outputs: InterfaceType,
}

/// 8-bit types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Integer {
    /// 0 to 255.
    UInt8,
    /// -128 to 127.
    Int8,
}

/// Types of inputs and outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InterfaceType {
    /// As the source model has them.
    Float32,
    /// Quantised by whoever feeds the model.
    Quantized,
}

static ALL: LazyLock<Vec<Target>> = LazyLock::new(|| {
    let parse = |text: &str| Target::parse(text).expect("a test parses every embedded target");
    EMBEDDED.into_iter().map(parse).collect()
});

impl Target {
    /// All targets of this release.
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// Reads a target's description.
    ///
    /// # Errors
    /// When it is no YAML, or has fields that are missing or unknown.
    pub fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        serde_yaml::from_str(text)
    }

    /// The target of that name.
    ///
    /// # Errors
    /// [`RecipeError::UnknownTarget`] with all names.
    pub fn find(name: &str) -> Result<&'static Self, RecipeError> {
        Self::all().iter().find(|target| target.name == name).ok_or_else(|| RecipeError::UnknownTarget {
            name: name.to_owned(),
            known: Self::all().iter().map(|target| target.name.clone()).collect(),
        })
    }

    /// The media type of its models.
    pub fn media_type(&self) -> &'static str {
        match self.format {
            ModelFormat::Onnx => media_type::ONNX,
            ModelFormat::TfLite => media_type::TFLITE,
        }
    }

    /// Operators that its list has, with the newest version it takes; `None` for any version.
    pub fn operators(&self) -> &BTreeMap<String, Option<i64>> {
        &self.operators.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_target_reads() {
        for text in EMBEDDED {
            Target::parse(text).unwrap_or_else(|error| panic!("{error}: {}", &text[..200]));
        }
        let names: Vec<_> = Target::all().iter().map(|target| target.name.as_str()).collect();
        assert_eq!(names, ["ort-x86", "ort-arm64", "litert", "tflm", "edgetpu", "ethos-u", "tensorrt", "vx"]);
    }

    #[test]
    fn an_unknown_target_is_told_the_known_ones() {
        let error = Target::find("tpu").unwrap_err().to_string();
        assert_eq!(
            error,
            "target tpu is not known: use one of ort-x86, ort-arm64, litert, tflm, edgetpu, ethos-u, tensorrt, vx"
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(Target::parse("{name: new, unknown: 1}").is_err());
    }
}
