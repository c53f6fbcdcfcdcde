//! From reports to status: what was made, whether it is what was asked for, and which is best.

use edgeyard_crds::optimization::{Goal, ModelFormat, Objective, ObjectiveMetric};
use edgeyard_crds::optimization_status::{
    Accuracy, Artifact, ArtifactCounts, ArtifactState, Best, CompilerEstimate, Headline, Verification,
};
use edgeyard_crds::scalars::{Digest, Key, Ratio, Reason, SignedRatio, TargetName};
use edgeyard_job::report::{ImportedInput, Optimized, ReportMetadata, VerificationLevel};
use edgeyard_job::spec;
use serde::{Deserialize, Serialize};

use crate::{Refusal, reason};

use super::{Optimization, PlannedArtifact, Settled};

/// Media type of an [`OptimizationReport`].
pub const OPTIMIZATION_MEDIA_TYPE: &str = "application/vnd.edgeyard.optimization.v1+json";

/// The whole of a ModelOptimization: every report of it in one document.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OptimizationReport {
    /// `1.0`.
    pub schema_version: String,
    /// The ModelOptimization's name, and who put this together.
    pub metadata: ReportMetadata,
    /// The inputs.
    pub inputs: Vec<ImportedInput>,
    /// What was made, verified or not, in the order of the spec.
    pub artifacts: Vec<Optimized>,
    /// What was not made.
    pub failures: Vec<FailedArtifact>,
}

/// An artefact that was not made, or not accepted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FailedArtifact {
    /// The recipe.
    pub variant: String,
    /// The runtime.
    pub target: String,
    /// Why, as a word.
    pub reason: String,
}

impl OptimizationReport {
    /// Puts reports together.
    pub fn new(
        name: &str,
        generator: &str,
        inputs: Vec<ImportedInput>,
        artifacts: Vec<Optimized>,
        status: &[Artifact],
    ) -> Self {
        let failures = status
            .iter()
            .filter_map(|artifact| {
                Some(FailedArtifact {
                    variant: artifact.variant.0.clone(),
                    target: artifact.target.0.clone(),
                    reason: artifact.reason.as_ref()?.0.clone(),
                })
            })
            .collect();
        Self {
            schema_version: "1.0".to_owned(),
            metadata: ReportMetadata { name: name.to_owned(), generator: generator.to_owned() },
            inputs,
            artifacts,
            failures,
        }
    }
}

/// Whether a report is about what was asked for.
pub fn check_report(asked: &PlannedArtifact, source_digest: &str, report: &Optimized) -> Result<(), Refusal> {
    let wrong = |what: &str, found: &str, wanted: &str| {
        Err(Refusal::new(
            reason::RESULT_MISMATCH,
            format!("the report of {}/{} says {what} {found}, not {wanted}", asked.variant, asked.target),
        ))
    };
    if report.variant != asked.variant {
        return wrong("variant", &report.variant, &asked.variant);
    }
    if report.target != asked.target {
        return wrong("target", &report.target, &asked.target);
    }
    if report.source_digest != source_digest {
        return wrong("source", &report.source_digest, source_digest);
    }
    if report.passes != asked.passes {
        return wrong("passes", &format!("{:?}", report.passes), &format!("{:?}", asked.passes));
    }
    Ok(())
}

/// The status entry of an artefact, and how it is settled, from its report. `rejected` is what the job said about the
/// constraints; the operator holds drop and size against them itself as well.
pub fn artifact(
    plan: &Optimization,
    asked: &PlannedArtifact,
    report: &Optimized,
    rejected: Option<Refusal>,
) -> (Artifact, Settled) {
    let too_far = match (plan.max_accuracy_drop, report.accuracy_drop) {
        (Some(most), Some(drop)) if drop > most => Some(Refusal::new(
            reason::ACCURACY_DROP_TOO_LARGE,
            format!("accuracy falls by {drop:.4}, at most {most} is allowed"),
        )),
        _ => None,
    };
    let too_large = plan.max_size_bytes.filter(|most| report.artifact.size_bytes > *most).map(|most| {
        Refusal::new(
            reason::ARTIFACT_TOO_LARGE,
            format!("the artefact has {} bytes, at most {most} are allowed", report.artifact.size_bytes),
        )
    });
    let settled = rejected.or(too_far).or(too_large).map_or(Settled::Done, Settled::Rejected);
    let (state, why) = match &settled {
        Settled::Done => (ArtifactState::Verified, None),
        Settled::Rejected(why) | Settled::Failed(why) => (ArtifactState::Rejected, Some(Reason(why.reason.clone()))),
    };
    let status = Artifact {
        variant: Key(asked.variant.clone()),
        target: TargetName(asked.target.clone()),
        state,
        reason: why,
        format: Some(match report.artifact.format {
            spec::ModelFormat::Onnx => ModelFormat::Onnx,
            spec::ModelFormat::TfLite => ModelFormat::TfLite,
        }),
        digest: Some(Digest(report.artifact.digest.clone())),
        size_bytes: i64::try_from(report.artifact.size_bytes).ok(),
        accuracy: report.accuracy.as_ref().and_then(|found| {
            Some(Accuracy {
                value: Ratio(ratio(found.value)),
                lower: Ratio(ratio(found.lower)),
                upper: Ratio(ratio(found.upper)),
                sample_count: i32::try_from(found.sample_count).ok().filter(|count| *count > 0)?,
            })
        }),
        accuracy_drop: report.accuracy_drop.map(|drop| SignedRatio(signed_ratio(drop))),
        verification: Some(match report.verification.level {
            VerificationLevel::Executed => Verification::Executed,
            VerificationLevel::Compiled => Verification::Compiled,
            VerificationLevel::Linted => Verification::Linted,
        }),
        macs: report.cost.and_then(|cost| i64::try_from(cost.macs).ok()),
        parameters: report.cost.and_then(|cost| i64::try_from(cost.parameters).ok()),
        compiler_estimate: report.compiler_estimate.as_ref().and_then(|estimate| {
            Some(CompilerEstimate {
                accelerator: estimate.accelerator.clone(),
                cycles: i64::try_from(estimate.cycles).ok()?,
                sram_bytes: i64::try_from(estimate.sram_bytes).ok()?,
                cpu_operators: i32::try_from(estimate.cpu_operators).ok()?,
            })
        }),
    };
    (status, settled)
}

/// How many artefacts are in each state.
pub fn counts(artifacts: &[Artifact]) -> ArtifactCounts {
    let of = |state| i32::try_from(artifacts.iter().filter(|a| a.state == state).count()).unwrap_or(i32::MAX);
    ArtifactCounts {
        total: i32::try_from(artifacts.len()).unwrap_or(i32::MAX),
        active: of(ArtifactState::Active),
        verified: of(ArtifactState::Verified),
        rejected: of(ArtifactState::Rejected),
        failed: of(ArtifactState::Failed),
    }
}

/// The best verified variant of each target, in the order of the spec; the earlier one of equals.
pub fn best(objective: &Objective, artifacts: &[Artifact]) -> Vec<Best> {
    let figure = |artifact: &Artifact| match objective.metric {
        ObjectiveMetric::SizeBytes => artifact.size_bytes,
        // Millionths: a ratio has at most six places.
        ObjectiveMetric::Accuracy => artifact
            .accuracy
            .as_ref()
            .and_then(|accuracy| accuracy.value.0.parse::<f64>().ok())
            .map(|value| (value * 1e6).round() as i64),
    };
    let mut found: Vec<(Best, i64)> = Vec::new();
    for artifact in artifacts.iter().filter(|artifact| artifact.state == ArtifactState::Verified) {
        let Some(mine) = figure(artifact) else { continue };
        let best = Best { target: artifact.target.clone(), variant: artifact.variant.clone() };
        match found.iter_mut().find(|(other, _)| other.target == artifact.target) {
            None => found.push((best, mine)),
            Some(other) => {
                let better = match objective.goal {
                    Goal::Minimize => mine < other.1,
                    Goal::Maximize => mine > other.1,
                };
                if better {
                    *other = (best, mine);
                }
            }
        }
    }
    // Bounded as status.best is.
    found.into_iter().map(|(best, _)| best).take(16).collect()
}

/// What `kubectl get -o wide` shows; `None` before anything is settled.
pub fn headline(artifacts: &[Artifact], best: &[Best]) -> Option<Headline> {
    let verified = || artifacts.iter().filter(|artifact| artifact.state == ArtifactState::Verified);
    let smallest =
        verified().filter_map(|artifact| Some((artifact.size_bytes?, artifact))).min_by_key(|(size, _)| *size);
    let smallest = smallest.map(|(size, artifact)| format!("{}/{} {size} B", artifact.variant, artifact.target));
    let levels = [Verification::Executed, Verification::Compiled, Verification::Linted].map(|level| {
        let count = verified().filter(|artifact| artifact.verification == Some(level)).count();
        (count > 0).then(|| format!("{count} {level:?}"))
    });
    let levels: Vec<String> = levels.into_iter().flatten().collect();
    let problems = artifacts.iter().filter(|a| matches!(a.state, ArtifactState::Rejected | ArtifactState::Failed));
    let problems = problems.map(|artifact| {
        let why = artifact.reason.as_ref().map_or("unknown", |reason| reason.0.as_str());
        format!("{}/{}: {why}", artifact.variant, artifact.target)
    });
    let headline = Headline {
        best: listed(best.iter().map(|best| format!("{}={}", best.target, best.variant)), " "),
        smallest,
        verification: (!levels.is_empty()).then(|| levels.join(", ")),
        problems: listed(problems, ", "),
    };
    let empty = Headline { best: None, smallest: None, verification: None, problems: None };
    (headline != empty).then_some(headline)
}

/// As many as fit into what status allows, and how many more there are.
fn listed(items: impl Iterator<Item = String>, between: &str) -> Option<String> {
    const ROOM: usize = 256 - " and 63 more".len();
    let items: Vec<String> = items.collect();
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        let between = if index == 0 { "" } else { between };
        if text.len() + between.len() + item.len() > ROOM {
            return Some(format!("{text} and {} more", items.len() - index));
        }
        text += between;
        text += item;
    }
    (!text.is_empty()).then_some(text)
}

/// A ratio as status shows it: four places, or as many of six as it has.
pub fn ratio(value: f64) -> String {
    shorten(format!("{:.6}", value.clamp(0.0, 1.0)))
}

/// A signed ratio as status shows it.
pub fn signed_ratio(value: f64) -> String {
    let text = shorten(format!("{:.6}", value.clamp(-1.0, 1.0)));
    if text.trim_start_matches(['-', '0', '.']).is_empty() { text.trim_start_matches('-').to_owned() } else { text }
}

fn shorten(six_places: String) -> String {
    six_places.strip_suffix("00").map(str::to_owned).unwrap_or(six_places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_keep_to_their_pattern() {
        assert_eq!(
            [ratio(0.977), ratio(1.0), ratio(0.123_456_7), ratio(0.0)],
            ["0.9770", "1.0000", "0.123457", "0.0000"]
        );
        assert_eq!([signed_ratio(-0.003), signed_ratio(-1e-9), signed_ratio(0.25)], ["-0.0030", "0.0000", "0.2500"]);
    }

    fn made(variant: &str, target: &str, size: i64, accuracy: &str, state: ArtifactState) -> Artifact {
        Artifact {
            size_bytes: Some(size),
            accuracy: Some(Accuracy {
                value: Ratio(accuracy.into()),
                lower: Ratio("0".into()),
                upper: Ratio("1".into()),
                sample_count: 1,
            }),
            ..Artifact::bare(Key(variant.into()), TargetName(target.into()), state, None)
        }
    }

    #[test]
    fn the_headline_is_short_and_tells_the_story() {
        let mut artifacts = vec![
            made("fp32", "litert", 40_000, "0.98", ArtifactState::Verified),
            made("int8", "litert", 10_000, "0.97", ArtifactState::Verified),
            made("int4", "tflm", 0, "0.97", ArtifactState::Failed),
            made("pruned", "litert", 9_000, "0.50", ArtifactState::Rejected),
        ];
        artifacts[0].verification = Some(Verification::Executed);
        artifacts[1].verification = Some(Verification::Linted);
        artifacts[2].reason = Some(Reason("IncompatiblePass".into()));
        artifacts[3].reason = Some(Reason("AccuracyDropTooLarge".into()));
        let best = best(&Objective { metric: ObjectiveMetric::SizeBytes, goal: Goal::Minimize }, &artifacts);
        let told = headline(&artifacts, &best).unwrap();
        assert_eq!(told.best.as_deref(), Some("litert=int8"));
        assert_eq!(told.smallest.as_deref(), Some("int8/litert 10000 B"));
        assert_eq!(told.verification.as_deref(), Some("1 Executed, 1 Linted"));
        assert_eq!(told.problems.as_deref(), Some("int4/tflm: IncompatiblePass, pruned/litert: AccuracyDropTooLarge"));
        let many: Vec<_> = (0..64)
            .map(|n| {
                let mut one =
                    made(&format!("a-very-long-name-of-a-variant-{n:02}"), "ort-x86", 1, "0.9", ArtifactState::Failed);
                one.reason = Some(Reason("R".repeat(40)));
                one
            })
            .collect();
        let problems = headline(&many, &[]).unwrap().problems.unwrap();
        assert!(problems.chars().count() <= 256 && problems.contains(" and "), "{problems}");
        assert_eq!(headline(&[], &[]), None);
    }

    #[test]
    fn the_best_of_each_target_is_verified() {
        let artifacts = [
            made("fp32", "litert", 40, "0.98", ArtifactState::Verified),
            made("fp16", "litert", 20, "0.98", ArtifactState::Verified),
            made("int8", "litert", 10, "0.90", ArtifactState::Rejected),
            made("int8", "tflm", 10, "0.97", ArtifactState::Verified),
        ];
        let names = |objective: &Objective| {
            best(objective, &artifacts).iter().map(|b| format!("{}/{}", b.variant, b.target)).collect::<Vec<_>>()
        };
        let small = Objective { metric: ObjectiveMetric::SizeBytes, goal: Goal::Minimize };
        assert_eq!(names(&small), ["fp16/litert", "int8/tflm"]);
        let good = Objective { metric: ObjectiveMetric::Accuracy, goal: Goal::Maximize };
        assert_eq!(names(&good), ["fp32/litert", "int8/tflm"]);
        assert_eq!(counts(&artifacts), ArtifactCounts { total: 4, active: 0, verified: 3, rejected: 1, failed: 0 });
    }
}
