//! From model entries to artefacts, pinned by digest.

use std::collections::BTreeMap;

use edgeyard_crds::benchmark::VariantPolicy;
use edgeyard_crds::benchmark_status::ResolvedArtifact;
use edgeyard_crds::conditions::{COMPLETE, FAILED};
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::optimization_status::{Artifact, ArtifactState, Best};
use edgeyard_crds::scalars::{Digest, Key, TargetName, Uid};
use edgeyard_job::report::ImportedInput;

use crate::{Refusal, reason};

use super::{Benchmark, MAX_ARTIFACTS, ModelSubject, artifact_input};

/// What became of a benchmark's models.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// A ModelOptimization is missing or at work; why, for the condition.
    Wait(Refusal),
    /// All are known.
    Resolved {
        /// The artefacts, in the order of the models.
        artifacts: Vec<ResolvedArtifact>,
        /// Variants that were asked for and not verified: model and variant.
        unverified: Vec<(String, String)>,
    },
}

/// Resolves the models. `optimizations` has those that exist, by name; `inputs` has digest and size of each input of
/// the benchmark, by its name.
///
/// # Errors
/// A [`Refusal`] when waiting will not help.
pub fn resolve(
    benchmark: &Benchmark,
    optimizations: &BTreeMap<String, ModelOptimization>,
    inputs: &BTreeMap<String, ImportedInput>,
) -> Result<Resolution, Refusal> {
    let mut artifacts = Vec::new();
    let mut unverified = Vec::new();
    for model in &benchmark.models {
        match &model.subject {
            ModelSubject::Artifact { variant, target, format } => {
                let input = artifact_input(&model.name);
                let Some(found) = inputs.get(&input) else {
                    return Ok(Resolution::Wait(Refusal::new(
                        reason::IMPORTING,
                        format!("model {} is being imported", model.name),
                    )));
                };
                artifacts.push(ResolvedArtifact {
                    model: Key(model.name.clone()),
                    variant: Key(variant.clone()),
                    target: TargetName(target.clone()),
                    digest: Digest(found.digest.clone()),
                    size_bytes: i64::try_from(found.size_bytes).ok(),
                    format: *format,
                    source_uid: None,
                });
            }
            ModelSubject::Optimized { name, policy, names } => {
                let Some(optimization) = optimizations.get(name) else {
                    return Ok(Resolution::Wait(Refusal::new(
                        reason::MODEL_OPTIMIZATION_NOT_FOUND,
                        format!(
                            "model {}: ModelOptimization {name} does not exist in this namespace: create it",
                            model.name
                        ),
                    )));
                };
                if let Some(wait) = unfinished(&model.name, name, optimization)? {
                    return Ok(Resolution::Wait(wait));
                }
                let (mut found, missing) = choose(&model.name, optimization, *policy, names)?;
                artifacts.append(&mut found);
                unverified.extend(missing.into_iter().map(|variant| (model.name.clone(), variant)));
            }
        }
    }
    if artifacts.len() > MAX_ARTIFACTS {
        return Err(Refusal::new(
            reason::TOO_MANY_ARTIFACTS,
            format!(
                "spec.models: {} artefacts would be measured, at most {MAX_ARTIFACTS} will do: use variantPolicy Best or Named",
                artifacts.len()
            ),
        ));
    }
    Ok(Resolution::Resolved { artifacts, unverified })
}

fn unfinished(model: &str, name: &str, optimization: &ModelOptimization) -> Result<Option<Refusal>, Refusal> {
    let condition = |type_: &str| {
        let status = optimization.status.as_ref()?;
        status.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
    };
    if let Some(failed) = condition(FAILED) {
        return Err(Refusal::new(
            reason::MODEL_OPTIMIZATION_FAILED,
            format!("model {model}: ModelOptimization {name} failed: {}: {}", failed.reason, failed.message),
        ));
    }
    Ok(condition(COMPLETE).is_none().then(|| {
        Refusal::new(
            reason::WAITING_FOR_MODEL_OPTIMIZATION,
            format!("model {model}: ModelOptimization {name} is at work"),
        )
    }))
}

/// The artefacts of a finished ModelOptimization, and the variants of which none was verified.
fn choose(
    model: &str,
    optimization: &ModelOptimization,
    policy: VariantPolicy,
    names: &[String],
) -> Result<(Vec<ResolvedArtifact>, Vec<String>), Refusal> {
    let none = (Vec::new(), Vec::new());
    let (all, best): (&[Artifact], &[Best]) =
        optimization.status.as_ref().map_or((&none.0, &none.1), |status| (&status.artifacts, &status.best));
    let asked: Vec<&str> = optimization.spec.variants.iter().map(|variant| variant.name.0.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !asked.contains(&name.as_str())) {
        return Err(Refusal::new(
            reason::VARIANT_NOT_FOUND,
            format!("model {model}: variantNames: {unknown} is not one of {}", asked.join(", ")),
        ));
    }
    let wanted = |artifact: &&Artifact| match policy {
        VariantPolicy::All => true,
        VariantPolicy::Best => {
            best.iter().any(|best| (&best.variant, &best.target) == (&artifact.variant, &artifact.target))
        }
        VariantPolicy::Named => names.contains(&artifact.variant.0),
    };
    let uid = optimization.metadata.uid.clone().map(Uid);
    let found: Vec<_> = all
        .iter()
        .filter(wanted)
        .filter(|artifact| artifact.state == ArtifactState::Verified)
        .filter_map(|artifact| {
            Some(ResolvedArtifact {
                model: Key(model.to_owned()),
                variant: artifact.variant.clone(),
                target: artifact.target.clone(),
                digest: artifact.digest.clone()?,
                size_bytes: artifact.size_bytes,
                format: artifact.format?,
                source_uid: uid.clone(),
            })
        })
        .collect();
    let unverified = match policy {
        VariantPolicy::Best => Vec::new(),
        VariantPolicy::All | VariantPolicy::Named => asked
            .into_iter()
            .filter(|variant| policy == VariantPolicy::All || names.iter().any(|name| name == variant))
            .filter(|variant| !found.iter().any(|artifact| artifact.variant.0 == *variant))
            .map(str::to_owned)
            .collect(),
    };
    Ok((found, unverified))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::tests::{MINIMAL, from_yaml};
    use super::*;

    pub(crate) fn optimization(condition: &str) -> ModelOptimization {
        let yaml = format!(
            r"
apiVersion: edgeyard.dev/v1alpha1
kind: ModelOptimization
metadata: {{name: mnist-cnn, uid: 19ab0000-0000-4000-8000-000000000000}}
spec:
  source: {{format: ONNX, artifact: {{configMapKeyRef: {{name: m, key: k}}}}}}
  variants:
  - {{name: fp32, targets: [ort-x86, litert], passes: []}}
  - {{name: int8, targets: [ort-x86, litert, tflm], passes: []}}
  - {{name: bad, targets: [litert], passes: []}}
status:
  artifacts:
  - {{variant: fp32, target: ort-x86, state: Verified, format: ONNX, digest: 'sha256:1', sizeBytes: 40}}
  - {{variant: fp32, target: litert, state: Verified, format: TFLite, digest: 'sha256:2', sizeBytes: 40}}
  - {{variant: int8, target: ort-x86, state: Verified, format: ONNX, digest: 'sha256:3', sizeBytes: 10}}
  - {{variant: int8, target: litert, state: Verified, format: TFLite, digest: 'sha256:4', sizeBytes: 10}}
  - {{variant: int8, target: tflm, state: Verified, format: TFLite, digest: 'sha256:5', sizeBytes: 10}}
  - {{variant: bad, target: litert, state: Failed, reason: UnsupportedOp}}
  best: [{{target: litert, variant: int8}}, {{target: tflm, variant: int8}}]
  conditions: [{{type: {condition}, status: 'True', reason: R, message: m, lastTransitionTime: '2026-11-23T09:00:00Z'}}]
"
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    fn resolved(policy: &str, condition: &str) -> Result<Resolution, Refusal> {
        let yaml = MINIMAL.replacen("{name: mnist-cnn}", &format!("{{name: mnist-cnn, {policy}}}"), 1);
        let world = BTreeMap::from([("mnist-cnn".to_owned(), optimization(condition))]);
        resolve(&from_yaml(&yaml).unwrap(), &world, &BTreeMap::new())
    }

    fn names(resolution: Resolution) -> (String, Vec<(String, String)>) {
        let Resolution::Resolved { artifacts, unverified } = resolution else { panic!("{resolution:?}") };
        let list: Vec<_> = artifacts.iter().map(|a| format!("{}/{}", a.variant, a.target)).collect();
        (list.join(" "), unverified)
    }

    #[test]
    fn policies_choose_verified_artefacts() {
        let bad = vec![("mnist".to_owned(), "bad".to_owned())];
        let (all, unverified) = names(resolved("variantPolicy: All", "Complete").unwrap());
        assert_eq!(all, "fp32/ort-x86 fp32/litert int8/ort-x86 int8/litert int8/tflm");
        assert_eq!(unverified, bad);
        assert_eq!(names(resolved("variantPolicy: Best", "Complete").unwrap()).0, "int8/litert int8/tflm");
        let named = resolved("variantPolicy: Named, variantNames: [bad, fp32]", "Complete").unwrap();
        assert_eq!(names(named), ("fp32/ort-x86 fp32/litert".to_owned(), bad));
        let unknown = resolved("variantPolicy: Named, variantNames: [int4]", "Complete").unwrap_err();
        assert_eq!(unknown.message, "model mnist: variantNames: int4 is not one of fp32, int8, bad");
    }

    #[test]
    fn what_is_missing_or_at_work_is_waited_for_and_what_failed_is_not() {
        let plan = from_yaml(MINIMAL).unwrap();
        assert!(matches!(resolve(&plan, &BTreeMap::new(), &BTreeMap::new()),
            Ok(Resolution::Wait(why)) if why.reason == reason::MODEL_OPTIMIZATION_NOT_FOUND));
        assert!(matches!(resolved("variantPolicy: All", "Reconciling"),
            Ok(Resolution::Wait(why)) if why.reason == reason::WAITING_FOR_MODEL_OPTIMIZATION));
        let failed = resolved("variantPolicy: All", "Failed").unwrap_err();
        assert_eq!(failed.message, "model mnist: ModelOptimization mnist-cnn failed: R: m");
    }
}
