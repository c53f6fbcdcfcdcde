//! What each runtime takes, as data: `targets/*.yaml`, embedded. A recipe that a target cannot use is refused here,
//! with the target's own reason, before any work starts.

use std::collections::BTreeMap;

use edgeyard_job::spec::{Calibrator, Granularity, ModelFormat, Pass, Scheme};
use serde::Deserialize;
use thiserror::Error;

/// The targets this program knows.
const EMBEDDED: [&str; 4] = [
    include_str!("../targets/litert.yaml"),
    include_str!("../targets/ort-arm64.yaml"),
    include_str!("../targets/ort-x86.yaml"),
    include_str!("../targets/tflm.yaml"),
];

/// What a runtime takes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Its name in `targets` of a variant.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// The file format of its models.
    pub format: ModelFormat,
    /// What runs them.
    pub runtime: RuntimeKind,
    /// What it makes of each way to store numbers.
    pub schemes: Schemes,
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

/// Ways to store numbers; all must be decided.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Schemes {
    float32: Support<Nothing>,
    float16: Support<Nothing>,
    int8: Support<Int8Rules>,
}

/// Taken, with rules, or not, with a reason.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Support<T> {
    Refused(Refusal),
    Taken(T),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    refused: String,
}

/// No rules.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

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
    Int8,
}

/// What to make for a target.
#[derive(Debug, Clone, PartialEq)]
pub enum Recipe {
    /// The same numbers in the target's format.
    Plain,
    /// Weights as halves.
    Float16,
    /// 8-bit integers.
    Int8 {
        /// The target's rules.
        rules: Int8Rules,
        /// How many scales weights have.
        granularity: Granularity,
        /// How ranges are found.
        calibrator: Calibrator,
    },
}

/// Why a recipe is refused.
#[derive(Debug, Error, PartialEq)]
pub enum RecipeError {
    /// No target has that name.
    #[error("target {name} is unknown; there are: {}", known.join(", "))]
    UnknownTarget {
        /// The name.
        name: String,
        /// All names.
        known: Vec<String>,
    },
    /// The target cannot use a pass.
    #[error("passes: {what} cannot be used for target {target}: {reason}")]
    Refused {
        /// The target.
        target: String,
        /// Which pass or what of it.
        what: String,
        /// Why.
        reason: String,
    },
    /// Passes that do not go together.
    #[error("passes: {0}")]
    Passes(String),
}

impl Target {
    /// All targets, by name.
    pub fn all() -> BTreeMap<String, Self> {
        let parse = |text: &str| Self::parse(text).expect("a test parses every embedded target");
        EMBEDDED.into_iter().map(parse).map(|target| (target.name.clone(), target)).collect()
    }

    /// Reads a target's description.
    pub fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        serde_yaml::from_str(text)
    }

    /// The target of that name.
    ///
    /// # Errors
    /// [`RecipeError::UnknownTarget`] with all names.
    pub fn find(name: &str) -> Result<Self, RecipeError> {
        let mut all = Self::all();
        let target = all.remove(name);
        target.ok_or_else(|| RecipeError::UnknownTarget { name: name.to_owned(), known: all.into_keys().collect() })
    }

    /// Checks a variant's passes against what the target takes.
    ///
    /// # Errors
    /// [`RecipeError`] that says which pass and why.
    pub fn recipe(&self, passes: &[Pass]) -> Result<Recipe, RecipeError> {
        let refuse = |what: &str, reason: &str| RecipeError::Refused {
            target: self.name.clone(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        let pass = match passes {
            [] => None,
            [pass] => Some(pass),
            [_, _, ..] => {
                return Err(RecipeError::Passes(
                    "a model can be quantised once; keep one pass of type Quantize".to_owned(),
                ));
            }
        };
        match pass {
            Some(
                Pass::Equalize {}
                | Pass::Prune { .. }
                | Pass::Factorize { .. }
                | Pass::Quantize { scheme: Scheme::Int8Dynamic | Scheme::Int4Weights | Scheme::Int16Activations, .. },
            ) => Err(RecipeError::Passes("this pass is not wired yet".to_owned())),
            None => match &self.schemes.float32 {
                Support::Taken(Nothing {}) => Ok(Recipe::Plain),
                Support::Refused(Refusal { refused }) => Err(refuse("a model without Quantize", refused)),
            },
            Some(Pass::Quantize { scheme: Scheme::Float16, .. }) => match &self.schemes.float16 {
                Support::Taken(Nothing {}) => Ok(Recipe::Float16),
                Support::Refused(Refusal { refused }) => Err(refuse("Quantize with scheme Float16", refused)),
            },
            Some(Pass::Quantize { scheme: Scheme::Int8, granularity, calibrator, .. }) => match &self.schemes.int8 {
                Support::Refused(Refusal { refused }) => Err(refuse("Quantize with scheme Int8", refused)),
                Support::Taken(rules) if !rules.granularities.contains(granularity) => {
                    let takes: Vec<String> = rules.granularities.iter().map(|taken| format!("{taken:?}")).collect();
                    let reason = format!("its weights can be {} only", takes.join(" or "));
                    Err(refuse(&format!("granularity {granularity:?}"), &reason))
                }
                Support::Taken(rules) => {
                    Ok(Recipe::Int8 { rules: rules.clone(), granularity: *granularity, calibrator: *calibrator })
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int8(granularity: Granularity) -> Vec<Pass> {
        let Pass::Quantize { scheme, calibrator, bias_correction, max_float_operators, block_size, .. } =
            Pass::quantize(Scheme::Int8)
        else {
            unreachable!()
        };
        vec![Pass::Quantize { scheme, granularity, calibrator, bias_correction, max_float_operators, block_size }]
    }

    #[test]
    fn every_embedded_target_reads() {
        for text in EMBEDDED {
            Target::parse(text).unwrap();
        }
        assert_eq!(Target::all().into_keys().collect::<Vec<_>>(), ["litert", "ort-arm64", "ort-x86", "tflm"]);
    }

    #[test]
    fn what_a_target_cannot_use_is_refused_with_its_reason() {
        let tflm = Target::find("tflm").unwrap();
        assert!(tflm.recipe(&[]).unwrap_err().to_string().contains("Int8"));
        let error = tflm.recipe(&int8(Granularity::PerTensor)).unwrap_err().to_string();
        assert_eq!(
            error,
            "passes: granularity PerTensor cannot be used for target tflm: its weights can be PerChannel only"
        );
        let twice = [int8(Granularity::PerChannel), int8(Granularity::PerChannel)].concat();
        assert!(tflm.recipe(&twice).unwrap_err().to_string().contains("once"));
        assert!(Target::find("tpu").unwrap_err().to_string().contains("litert, ort-arm64, ort-x86, tflm"));
    }

    #[test]
    fn a_target_comes_from_data_alone() {
        let text = "
            {name: new, summary: s, format: ONNX, runtime: OnnxRuntime,
             schemes: {Float32: {refused: because}, Float16: {},
                       Int8: {activations: Int8, granularities: [PerTensor], inputsAndOutputs: Float32}}}";
        let target = Target::parse(text).unwrap();
        assert!(target.recipe(&[]).unwrap_err().to_string().contains("because"));
        assert!(matches!(target.recipe(&int8(Granularity::PerTensor)), Ok(Recipe::Int8 { .. })));
        assert!(Target::parse("{name: new, unknown: 1}").is_err());
    }
}
