//! Runs the artefact beside the source, holds it against the target's rules and the constraints, and reports. Where accuracy
//! falls too far and the recipe allows it, operators go back to floating point, the most sensitive first.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_artifact::digest_of;
use edgeyard_job::report::{
    CompilerEstimate, Cost, Finding, LayerAgreement, MadeArtifact, Optimized, REPORT_VERSION, Report, ReportMetadata,
    ReportResult, Verification, VerificationLevel,
};
use edgeyard_job::spec::ModelFormat;
use edgeyard_targets::{Compiler, Numbers, RuntimeKind};

use super::clock::Clock;
use super::make::{Made, Prepared, qdq};
use super::read::Work;
use super::{Broken, Outcome, Request, layers, media, vela};
use crate::diff::Runtime;
use crate::error::OptimizeError;
use crate::evaluate::{Comparison, EvaluationError, Samples, compare};
use crate::ir::Graph;
use crate::lint::{lint_artifact, refused};
use crate::quantize::rank_sensitivity;
use crate::runtime::{LiteRt, Micro, Runner, RuntimeError};

/// Samples made up for a model that comes without data.
const SYNTHETIC: usize = 8;
/// Samples that operators are ranked on.
const RANKING_SAMPLES: usize = 16;

/// What running the artefact showed.
pub(super) struct Found {
    comparison: Comparison,
    runtime: String,
    data: String,
}

impl Work<'_> {
    /// Runs the artefact beside the source; with mixed precision, until the accuracy is kept or no operator is left.
    pub fn verify(&self, prepared: &Prepared, made: Made, clock: &mut Clock) -> Result<(Made, Found), OptimizeError> {
        let found = self.run(&made, clock)?;
        let Numbers::Int8 { max_float_operators: most @ 1.., rules, granularity, .. } = &self.recipe.numbers else {
            return Ok((made, found));
        };
        if self.keeps_accuracy(&found) {
            return Ok((made, found));
        }
        clock.start("rankSensitivity");
        let calibration = prepared.calibration.as_ref().ok_or(OptimizeError::CalibrationRequired)?;
        let (dataset, samples) = self.calibration.as_ref().ok_or(OptimizeError::CalibrationRequired)?;
        // Ranks come from the graph in ONNX Runtime, for .tflite targets too: it is the same arithmetic.
        let options = qdq(rules, *granularity, &BTreeSet::new());
        let mut step = self.step("RankSensitivity", "finding the operators that lose most in integers");
        let limit = (*samples).min(RANKING_SAMPLES);
        let ranks =
            rank_sensitivity(&self.runtime, &prepared.model, &calibration.ranges, &options, dataset, limit, &mut step)?;
        let most = ranks.len().min(*most as usize);
        let with = |count: usize, clock: &mut Clock| -> Result<(Made, Found), OptimizeError> {
            let keep: BTreeSet<String> = ranks[..count].iter().map(|rank| rank.output.clone()).collect();
            let made = self.store(prepared, &keep, clock)?;
            let found = self.run(&made, clock)?;
            Ok((made, found))
        };
        // Doubling finds a number that is enough, halving the least between it and the one before.
        let (mut too_few, mut count) = (0, 1.min(most));
        let mut best = (made, found);
        while count > 0 {
            best = with(count, clock)?;
            if self.keeps_accuracy(&best.1) || count == most {
                break;
            }
            too_few = count;
            count = (2 * count).min(most);
        }
        while self.keeps_accuracy(&best.1) && count > too_few + 1 {
            let middle = (too_few + count) / 2;
            let tried = with(middle, clock)?;
            if self.keeps_accuracy(&tried.1) {
                (best, count) = (tried, middle);
            } else {
                too_few = middle;
            }
        }
        let labels: Vec<&str> = ranks[..count].iter().map(|rank| rank.label.as_str()).collect();
        let note = match self.keeps_accuracy(&best.1) {
            true => format!("kept in floating point for accuracy: {}", labels.join(", ")),
            false => format!("accuracy is missed even with {count} operators in floating point: {}", labels.join(", ")),
        };
        best.0.notes.push(note);
        Ok(best)
    }

    fn keeps_accuracy(&self, found: &Found) -> bool {
        self.drop_beyond(found.comparison.drop()).is_none()
    }

    fn run(&self, made: &Made, clock: &mut Clock) -> Result<Found, OptimizeError> {
        clock.start("evaluate");
        let artifact = &made.artifact;
        let sample = self.sample_shape()?;
        let onnxruntime = &self.runtime;
        let in_ort = |model: &[u8], use_it: &mut dyn FnMut(&mut dyn Runner)| -> Result<(), RuntimeError> {
            use_it(onnxruntime.session(model, 1)?.runner(&sample)?.as_mut());
            Ok(())
        };
        // Workers share these; the watcher stays with this thread.
        let (as_tflite, own, reference) = (self.runs_as_tflite, &self.source, &self.reference);
        let source = |use_it: &mut dyn FnMut(&mut dyn Runner)| match as_tflite {
            true => LiteRt::load()?.with(own, &sample, use_it),
            false => in_ort(reference, use_it),
        };
        let data;
        let samples = match (&self.evaluation, &self.calibration) {
            (Some((dataset, labels, metric)), _) => {
                data = format!("{} evaluation samples", dataset.len());
                Samples::Dataset { dataset, limit: usize::MAX, labels: Some((labels, *metric)) }
            }
            (None, Some((dataset, limit))) => {
                data = format!("{} calibration samples", dataset.len().min(*limit));
                Samples::Dataset { dataset, limit: *limit, labels: None }
            }
            (None, None) => {
                data = format!("{SYNTHETIC} made-up samples");
                Samples::Synthetic { shape: &sample, count: SYNTHETIC }
            }
        };
        let mut step = self.step("Evaluate", "running source and artefact on the same samples");
        let (runtime, comparison) = match self.target.runtime {
            RuntimeKind::OnnxRuntime => {
                let run = |use_it: &mut dyn FnMut(&mut dyn Runner)| in_ort(artifact, use_it);
                (self.runtime.describe(), compare(&source, &run, &samples, &mut step)?)
            }
            RuntimeKind::LiteRt => {
                let litert = LiteRt::load()?;
                let run = |use_it: &mut dyn FnMut(&mut dyn Runner)| litert.with(artifact, &sample, use_it);
                (litert.describe(), compare(&source, &run, &samples, &mut step)?)
            }
            RuntimeKind::TfliteMicro => {
                let run = |use_it: &mut dyn FnMut(&mut dyn Runner)| {
                    use_it(Micro::runner(artifact, &sample)?.as_mut());
                    Ok(())
                };
                (Micro::describe(), compare(&source, &run, &samples, &mut step)?)
            }
        };
        clock.stop();
        Ok(Found { comparison, runtime, data })
    }

    /// Puts everything together.
    pub fn report(
        &self,
        prepared: &Prepared,
        made: Made,
        found: Found,
        clock: &mut Clock,
    ) -> Result<Outcome, OptimizeError> {
        let Made { artifact, notes } = made;
        let notes = [prepared.notes.clone(), notes].concat();
        let Found { comparison, runtime, data } = found;
        let mut unavailable = BTreeMap::new();
        let findings = self.findings(&artifact)?;
        clock.start("cost");
        let source_cost = self.cost("sourceCost", prepared.source, &mut unavailable);
        let cost = self.artifact_cost(prepared, &artifact, &mut unavailable);
        clock.start("layers");
        let layers = self.layers(prepared, &artifact, &mut unavailable);
        if self.target.compiler.is_some() {
            clock.start("compile");
        }
        let (estimate, compiler_details) = self.compile(&artifact, &mut unavailable)?;
        clock.stop();
        let Comparison { source: source_accuracy, artifact: accuracy, agreement, .. } = comparison.clone();
        let accuracy_drop = comparison.drop();
        if self.evaluation.is_none() {
            for metric in ["sourceAccuracy", "accuracy", "accuracyDrop", "mcnemarP"] {
                unavailable.insert(metric.to_owned(), "no evaluation data was given".to_owned());
            }
        }
        if clock.peak.is_none() {
            unavailable.insert("peakMemoryBytes".to_owned(), "the system does not tell".to_owned());
        }
        if clock.peaks.is_empty() {
            unavailable.insert("stepPeakBytes".to_owned(), "the system does not let the mark be reset".to_owned());
        }
        let own = VerificationLevel::from(self.target.proves);
        let (level, runtime) = match &estimate {
            Some(estimate) => (VerificationLevel::Compiled, format!("{}, outputs in {runtime}", estimate.compiler)),
            None => (own, runtime),
        };
        let mut details = format!("ran on {data}, beside the source in {}", self.runtime.describe());
        if own != VerificationLevel::Executed {
            details = format!(
                "{details}; this is not the target's own runtime, and the artefact keeps to the target's rules{}",
                if findings.is_empty() { "" } else { " as far as findings say" }
            );
        }
        details += &compiler_details;
        let size_bytes = artifact.len() as u64;
        let broken_constraint = self.drop_beyond(accuracy_drop).or_else(|| self.size_beyond(size_bytes));
        let Request { name, variant, target, passes, .. } = self.request;
        let report = Report {
            schema_version: REPORT_VERSION.to_owned(),
            metadata: ReportMetadata { name: name.clone(), generator: crate::GENERATOR.to_owned() },
            result: ReportResult::Optimize(Box::new(Optimized {
                variant: variant.clone(),
                target: target.clone(),
                passes: passes.clone(),
                source_digest: digest_of(&self.source).to_string(),
                source_size_bytes: self.source.len() as u64,
                artifact: MadeArtifact {
                    digest: digest_of(&artifact).to_string(),
                    size_bytes,
                    format: self.target.format,
                    media_type: media(self.target.format).to_owned(),
                },
                source_accuracy,
                accuracy,
                accuracy_drop,
                mcnemar_p: comparison.mcnemar_p,
                source_cost,
                cost,
                layers,
                compiler_estimate: estimate,
                findings,
                verification: Verification { level, runtime, details },
                agreement: Some(agreement),
                calibration: self.summary(prepared),
                notes,
                seconds: std::mem::take(&mut clock.seconds),
                step_peak_bytes: std::mem::take(&mut clock.peaks),
                peak_memory_bytes: clock.peak,
                unavailable,
            })),
        };
        Ok(Outcome { artifact, report, broken_constraint })
    }

    /// What the target's rules say of the artefact. What they refuse is not handed out.
    fn findings(&self, artifact: &[u8]) -> Result<Vec<Finding>, OptimizeError> {
        let findings = lint_artifact(self.target, artifact)
            .map_err(|problem| EvaluationError::Artifact(RuntimeError::Refused { runtime: "the linter", problem }))?;
        match refused(&findings).is_empty() {
            true => Ok([self.rehearsed.clone(), findings].concat()),
            false => Err(OptimizeError::Rules { target: self.target.name.clone(), findings }),
        }
    }

    fn cost(&self, metric: &str, graph: &Graph, unavailable: &mut BTreeMap<String, String>) -> Option<Cost> {
        match crate::cost::cost(graph) {
            Ok(cost) => Some(cost),
            Err(error) => {
                unavailable.insert(metric.to_owned(), error.to_string());
                None
            }
        }
    }

    /// Counted from the artefact's graph; of a `.tflite`, from the graph that was lowered, with activations as the file has
    /// them.
    fn artifact_cost(
        &self,
        prepared: &Prepared,
        artifact: &[u8],
        unavailable: &mut BTreeMap<String, String>,
    ) -> Option<Cost> {
        match self.target.format {
            ModelFormat::Onnx if prepared.untouched => self.cost("cost", prepared.source, unavailable),
            ModelFormat::Onnx => match crate::ir::load(artifact, None) {
                Ok(model) => self.cost("cost", &model.graph, unavailable),
                Err(error) => {
                    unavailable.insert("cost".to_owned(), error.to_string());
                    None
                }
            },
            ModelFormat::TfLite => {
                let mut cost = self.cost("cost", &prepared.model.graph, unavailable)?;
                if let Ok(model) = edgeyard_tflite::read(artifact) {
                    cost.peak_activation_bytes = layers::tflite_peak_bytes(&model);
                }
                Some(cost)
            }
        }
    }

    fn layers(
        &self,
        prepared: &Prepared,
        artifact: &[u8],
        unavailable: &mut BTreeMap<String, String>,
    ) -> Vec<LayerAgreement> {
        let found = match prepared.untouched {
            true => Err("the artefact is the source".to_owned()),
            false => self.layers_of(prepared, artifact),
        };
        match found {
            Ok(layers) if !layers.is_empty() => return layers,
            Ok(_) => {
                let problem = "no tensor inside the artefact has the name and the size of one of the source's";
                unavailable.insert("layers".to_owned(), problem.to_owned());
            }
            Err(problem) => drop(unavailable.insert("layers".to_owned(), problem)),
        }
        Vec::new()
    }

    fn layers_of(&self, prepared: &Prepared, artifact: &[u8]) -> Result<Vec<LayerAgreement>, String> {
        let source = crate::ir::Model { graph: prepared.source.clone(), ..self.model.clone() };
        let data = self.calibration.as_ref().map(|c| &c.0).or(self.evaluation.as_ref().map(|e| &e.0));
        let sample = self.sample_shape().map_err(|error| error.to_string())?;
        let runtime = match self.target.runtime {
            RuntimeKind::OnnxRuntime => {
                let artifact = crate::ir::load(artifact, None).map_err(|error| error.to_string())?;
                return layers::agreement(&self.runtime, &source, &artifact, data, &sample)
                    .map_err(|error| error.to_string());
            }
            RuntimeKind::LiteRt => Runtime::LiteRt,
            RuntimeKind::TfliteMicro => Runtime::Micro,
        };
        let artifact = edgeyard_tflite::read(artifact).map_err(|error| error.to_string())?;
        layers::inside_agreement(&self.runtime, &source, &artifact, runtime, data, &sample)
            .map_err(|error| error.to_string())
    }

    /// Sends the artefact through the vendor's compiler. One that is not there is said to be missing; one that refuses the
    /// artefact fails it.
    fn compile(
        &self,
        artifact: &[u8],
        unavailable: &mut BTreeMap<String, String>,
    ) -> Result<(Option<CompilerEstimate>, String), OptimizeError> {
        let Some(Compiler::Vela { accelerator }) = &self.target.compiler else {
            return Ok((None, String::new()));
        };
        match vela::compile(artifact, accelerator) {
            Ok(estimate) => {
                let details = format!(
                    "; {} took it for {}: {} operators on the accelerator, {} on the CPU",
                    estimate.compiler, estimate.accelerator, estimate.accelerated_operators, estimate.cpu_operators
                );
                Ok((Some(estimate), details))
            }
            Err(vela::VelaError::Missing { problem }) => {
                unavailable.insert("compilerEstimate".to_owned(), problem.clone());
                Ok((None, format!("; not compiled: {problem}")))
            }
            Err(error) => Err(OptimizeError::Compiler(error)),
        }
    }

    fn drop_beyond(&self, drop: Option<f64>) -> Option<Broken> {
        let (drop, limit) = (drop?, self.request.max_accuracy_drop?);
        // Both come from counts and decimal texts; a drop of exactly the limit keeps to it.
        (drop > limit + 1e-9).then(|| Broken {
            reason: "AccuracyDropTooLarge",
            message: format!(
                "accuracy falls by {:.2} percentage points, at most {:.2} are allowed",
                drop * 100.0,
                limit * 100.0
            ),
        })
    }

    fn size_beyond(&self, size: u64) -> Option<Broken> {
        let limit = self.request.max_size_bytes.filter(|limit| size > *limit)?;
        Some(Broken {
            reason: "ArtifactTooLarge",
            message: format!("the artefact has {size} bytes, at most {limit} are allowed"),
        })
    }
}
