//! What each target takes, as far as it decides before any work starts. The optimizer knows the rest.

use edgeyard_job::media_type;
use edgeyard_job::spec::{ModelFormat, Pass, Scheme};

use crate::{Refusal, reason};

/// In which numbers a model computes or is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// As converted.
    Float32,
    /// 16-bit weights.
    Float16,
    /// 8-bit integers throughout.
    Int8,
}

/// A runtime that artefacts are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name in manifests.
    pub name: &'static str,
    /// Its name for people.
    pub runtime: &'static str,
    /// The file format that it reads.
    pub format: ModelFormat,
    /// The numbers that it computes with.
    pub numbers: &'static [Numbers],
}

const ALL_NUMBERS: &[Numbers] = &[Numbers::Float32, Numbers::Float16, Numbers::Int8];

/// All targets of this release.
pub const TARGETS: &[Target] = &[
    Target { name: "ort-x86", runtime: "ONNX Runtime on x86-64", format: ModelFormat::Onnx, numbers: ALL_NUMBERS },
    Target {
        name: "ort-arm64",
        runtime: "ONNX Runtime on 64-bit ARM",
        format: ModelFormat::Onnx,
        numbers: ALL_NUMBERS,
    },
    Target { name: "litert", runtime: "LiteRT", format: ModelFormat::TfLite, numbers: ALL_NUMBERS },
    Target { name: "tflm", runtime: "TensorFlow Lite Micro", format: ModelFormat::TfLite, numbers: &[Numbers::Int8] },
];

/// The target of that name.
pub fn find(name: &str) -> Result<&'static Target, Refusal> {
    TARGETS.iter().find(|target| target.name == name).ok_or_else(|| {
        let known: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        Refusal::new(reason::UNKNOWN_TARGET, format!("target {name} is not known: use one of {}", known.join(", ")))
    })
}

/// The numbers that a recipe ends in. Refuses recipes that quantise twice.
pub fn numbers(variant: &str, passes: &[Pass]) -> Result<Numbers, Refusal> {
    let mut found = None;
    for pass in passes {
        let numbers = match pass {
            Pass::Quantize { scheme: Scheme::Float16, .. } => Numbers::Float16,
            Pass::Quantize { .. } => Numbers::Int8,
            Pass::Equalize {} | Pass::Prune { .. } | Pass::Factorize { .. } => continue,
        };
        if found.replace(numbers).is_some() {
            return Err(Refusal::new(
                reason::INCOMPATIBLE_PASS,
                format!("variant {variant}: Quantize occurs twice: keep the one you want, or make two variants"),
            ));
        }
    }
    Ok(found.unwrap_or(Numbers::Float32))
}

/// Whether a target can use what a recipe makes.
pub fn check(variant: &str, target: &Target, passes: &[Pass]) -> Result<(), Refusal> {
    let made = numbers(variant, passes)?;
    if target.numbers.contains(&made) {
        return Ok(());
    }
    let what = match made {
        Numbers::Float32 => "32-bit floating point",
        Numbers::Float16 => "16-bit floating point",
        Numbers::Int8 => "8-bit integers",
    };
    Err(Refusal::new(
        reason::INCOMPATIBLE_PASS,
        format!(
            "variant {variant} computes in {what}, which target {} ({}) does not run: add a pass Quantize with \
             scheme Int8, or take {} out of the variant's targets",
            target.name, target.runtime, target.name
        ),
    ))
}

/// The media type of a file format.
pub fn media_type_of(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::Onnx => media_type::ONNX,
        ModelFormat::TfLite => media_type::TFLITE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantize(scheme: Scheme) -> Pass {
        Pass::quantize(scheme)
    }

    #[test]
    fn a_microcontroller_takes_integers_only() {
        let tflm = find("tflm").unwrap();
        assert!(check("int8", tflm, &[quantize(Scheme::Int8)]).is_ok());
        let refusal = check("fp16", tflm, &[quantize(Scheme::Float16)]).unwrap_err();
        assert_eq!(refusal.reason, reason::INCOMPATIBLE_PASS);
        assert!(refusal.message.contains("variant fp16") && refusal.message.contains("take tflm out"), "{refusal}");
        assert!(check("plain", tflm, &[]).is_err());
    }

    #[test]
    fn an_unknown_target_is_told_the_known_ones() {
        let refusal = find("tpu").unwrap_err();
        assert_eq!(refusal.message, "target tpu is not known: use one of ort-x86, ort-arm64, litert, tflm");
    }

    #[test]
    fn quantising_twice_is_refused() {
        let twice = [quantize(Scheme::Float16), quantize(Scheme::Int8)];
        assert!(check("v", find("litert").unwrap(), &twice).unwrap_err().message.contains("twice"));
    }
}
