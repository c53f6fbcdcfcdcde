//! What `edgeyard-targets` says, as refusals of the API: unknown targets and recipes that a target cannot use.

use edgeyard_job::spec::Pass;
use edgeyard_targets::RecipeError;
pub use edgeyard_targets::Target;

use crate::{Refusal, reason};

/// The target of that name.
///
/// # Errors
/// Names all targets.
pub fn find(name: &str) -> Result<&'static Target, Refusal> {
    Target::find(name).map_err(|error| Refusal::new(reason::UNKNOWN_TARGET, error.to_string()))
}

/// Whether a target can use what a recipe makes.
///
/// # Errors
/// Names the variant, the target and what would be right.
pub fn check(variant: &str, target: &Target, passes: &[Pass]) -> Result<(), Refusal> {
    let refusal = |reason, problem: String| Err(Refusal::new(reason, format!("variant {variant}: {problem}")));
    match target.recipe(passes) {
        Ok(_) => Ok(()),
        Err(RecipeError::Refused { target: name, what, reason }) => refusal(
            reason::INCOMPATIBLE_PASS,
            format!(
                "{what} cannot be used for target {name} ({}): {reason}; or take {name} out of the variant's targets",
                target.summary
            ),
        ),
        Err(error @ (RecipeError::Passes(_) | RecipeError::UnknownTarget { .. })) => {
            refusal(reason::INCOMPATIBLE_PASS, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeyard_job::spec::Scheme;

    use super::*;

    #[test]
    fn a_microcontroller_takes_integers_only() {
        let tflm = find("tflm").unwrap();
        assert!(check("int8", tflm, &[Pass::quantize(Scheme::Int8)]).is_ok());
        let refusal = check("fp16", tflm, &[Pass::quantize(Scheme::Float16)]).unwrap_err();
        assert_eq!(refusal.reason, reason::INCOMPATIBLE_PASS);
        assert!(refusal.message.contains("variant fp16") && refusal.message.contains("take tflm out"), "{refusal}");
        assert!(check("plain", tflm, &[]).is_err());
    }

    #[test]
    fn an_unknown_target_is_told_the_known_ones() {
        let refusal = find("tpu").unwrap_err();
        assert!(refusal.message.starts_with("target tpu is not known: use one of ort-x86, "), "{refusal}");
    }

    #[test]
    fn quantising_twice_is_refused() {
        let twice = [Pass::quantize(Scheme::Float16), Pass::quantize(Scheme::Int8)];
        assert!(check("v", find("litert").unwrap(), &twice).unwrap_err().message.contains("twice"));
    }
}
