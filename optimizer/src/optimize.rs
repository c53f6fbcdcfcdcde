//! One artefact from one source: read, simplify, calibrate, convert, run it beside the source, report. Every input is
//! checked before any of the work that takes time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use edgeyard_artifact::digest_of;
use edgeyard_job::Progress;
use edgeyard_job::media_type;
use edgeyard_job::report::{
    CalibrationSummary, MadeArtifact, Optimized, REPORT_VERSION, Report, ReportMetadata, ReportResult, Verification,
    VerificationLevel,
};
use edgeyard_job::spec::{AccuracyMetric, Calibrator, Granularity, ModelFormat, Pass};

use crate::calibrate::{Calibration, calibrate};
use crate::dataset::Dataset;
use crate::error::OptimizeError;
use crate::evaluate::{Comparison, Samples, compare};
use crate::ir::{self, Dim, Model};
use crate::lower::{Int8Io, Mode, to_tflite};
use crate::quantize::{Element, QdqOptions, half_weights, quantize};
use crate::runtime::{LiteRt, Micro, OnnxRuntime, Runner, RuntimeError};
use crate::simplify::{Shapes, explicit_padding, simplify, to_opset_13};
use crate::target::{Int8Rules, Integer, InterfaceType, Recipe, RuntimeKind, Target};

/// Samples made up for a model that comes without data.
const SYNTHETIC: usize = 8;

/// What to make, and of what.
#[derive(Debug, Clone)]
pub struct Request {
    /// The report's `metadata.name`.
    pub name: String,
    /// The recipe's name.
    pub variant: String,
    /// The source model.
    pub model: PathBuf,
    /// The target's name.
    pub target: String,
    /// What to do.
    pub passes: Vec<Pass>,
    /// Calibration data, and how many samples of it to use.
    pub calibration: Option<(PathBuf, usize)>,
    /// Evaluation data, and the metric.
    pub evaluation: Option<(PathBuf, AccuracyMetric)>,
    /// Sizes for free dimensions of inputs.
    pub input_shapes: BTreeMap<String, Vec<usize>>,
    /// How far accuracy may fall.
    pub max_accuracy_drop: Option<f64>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The file.
    pub artifact: Vec<u8>,
    /// All about it.
    pub report: Report,
    /// The constraint that it does not keep to, for people.
    pub broken_constraint: Option<String>,
}

/// Who follows the work and may stop it.
pub trait Watcher {
    /// Hears how far it is.
    fn progress(&self, progress: &Progress);

    /// True when it shall stop.
    fn cancelled(&self) -> bool;
}

/// Does the work.
///
/// # Errors
/// [`OptimizeError`], which knows its exit code and reason.
pub fn optimize(request: &Request, watcher: &dyn Watcher) -> Result<Outcome, OptimizeError> {
    let mut clock = Clock::default();
    let work = Work::read(request, watcher, &mut clock)?;
    let made = work.make(&mut clock)?;
    work.verify(made, &mut clock)
}

/// The request with everything it names looked up, read and checked.
struct Work<'a> {
    request: &'a Request,
    watcher: &'a dyn Watcher,
    target: Target,
    recipe: Recipe,
    source: Vec<u8>,
    model: Model,
    calibration: Option<(Dataset, usize)>,
    evaluation: Option<(Dataset, Vec<i64>, AccuracyMetric)>,
    runtime: OnnxRuntime,
}

struct Made {
    artifact: Vec<u8>,
    notes: Vec<String>,
    calibration: Option<CalibrationSummary>,
}

impl<'a> Work<'a> {
    fn read(request: &'a Request, watcher: &'a dyn Watcher, clock: &mut Clock) -> Result<Self, OptimizeError> {
        let target = Target::find(&request.target)?;
        let recipe = target.recipe(&request.passes)?;
        if matches!(recipe, Recipe::Int8 { .. }) && request.calibration.is_none() {
            return Err(OptimizeError::CalibrationRequired);
        }
        clock.start("read");
        let source = fs_err::read(&request.model).map_err(ir::LoadError::Io)?;
        let model = ir::load(&source, request.model.parent())?;
        let declared = |dataset: &Dataset| match model.graph.inputs.as_slice() {
            [input] if input.has_shape => dataset.check_shape(&input.shape.iter().map(dim).collect::<Vec<_>>()),
            _ => Ok(()),
        };
        let calibration = match &request.calibration {
            Some((path, samples)) => {
                let dataset = Dataset::open(path).map_err(OptimizeError::calibration_data)?;
                declared(&dataset).map_err(OptimizeError::calibration_data)?;
                Some((dataset, *samples))
            }
            None => None,
        };
        let evaluation = match &request.evaluation {
            Some((path, metric)) => {
                let dataset = Dataset::open(path).map_err(OptimizeError::evaluation_data)?;
                declared(&dataset).map_err(OptimizeError::evaluation_data)?;
                let labels = dataset.labels().map_err(OptimizeError::evaluation_data)?;
                Some((dataset, labels, *metric))
            }
            None => None,
        };
        let runtime = OnnxRuntime::load()?;
        Ok(Self { request, watcher, target, recipe, source, model, calibration, evaluation, runtime })
    }

    fn make(&self, clock: &mut Clock) -> Result<Made, OptimizeError> {
        match self.target.format {
            ModelFormat::Onnx => self.make_onnx(clock),
            ModelFormat::TfLite => self.make_tflite(clock),
        }
    }

    fn make_onnx(&self, clock: &mut Clock) -> Result<Made, OptimizeError> {
        let shapes = match self.request.input_shapes.is_empty() {
            true => Shapes::Declared,
            false => Shapes::Fixed(self.request.input_shapes.clone()),
        };
        if self.recipe == Recipe::Plain && self.request.input_shapes.is_empty() {
            // The runtime does all of our simplifications itself: the source is the artefact, byte for byte, but for
            // weights in files of their own, which come into it.
            let artifact = if self.has_external_data() { self.model.to_bytes() } else { self.source.clone() };
            return Ok(Made { artifact, notes: Vec::new(), calibration: None });
        }
        clock.start("simplify");
        let mut model = self.model.clone();
        model.graph = simplify(&model.graph, &shapes)?;
        let (mut notes, mut summary) = (Vec::new(), None);
        match &self.recipe {
            Recipe::Plain => {}
            Recipe::Float16 => {
                clock.start("convert");
                notes = half_weights(&mut model.graph);
            }
            Recipe::Int8 { rules, granularity, calibrator } => {
                to_opset_13(&mut model)?;
                let calibration = self.calibrate(&model, *calibrator, clock)?;
                clock.start("convert");
                let options = QdqOptions::new(element(rules), *granularity);
                let quantized = quantize(&model.graph, &calibration.ranges, &options)?;
                model.graph = quantized.graph;
                notes = quantized.notes;
                summary = Some(summarize(&calibration, *calibrator));
            }
        }
        Ok(Made { artifact: model.to_bytes(), notes, calibration: summary })
    }

    fn make_tflite(&self, clock: &mut Clock) -> Result<Made, OptimizeError> {
        clock.start("simplify");
        let mut model = self.model.clone();
        model.graph = simplify(&model.graph, &Shapes::Fixed(self.fixed_shapes()))?;
        explicit_padding(&mut model.graph);
        let (mode, calibration, summary) = match &self.recipe {
            Recipe::Plain => (Mode::Float32, None, None),
            Recipe::Float16 => (Mode::Float16Weights, None, None),
            Recipe::Int8 { rules, granularity, calibrator } => {
                debug_assert_eq!(*granularity, Granularity::PerChannel, "the targets' data refuses others");
                let io = match rules.inputs_and_outputs {
                    InterfaceType::Float32 => Int8Io::Float,
                    InterfaceType::Int8 => Int8Io::Int8,
                };
                let calibration = self.calibrate(&model, *calibrator, clock)?;
                let summary = summarize(&calibration, *calibrator);
                (Mode::Int8 { io }, Some(calibration), Some(summary))
            }
        };
        clock.start("convert");
        let lowered = to_tflite(&model.graph, mode, calibration.as_ref().map(|found| &found.ranges))?;
        Ok(Made { artifact: lowered.bytes, notes: lowered.notes, calibration: summary })
    }

    fn calibrate(
        &self,
        model: &Model,
        calibrator: Calibrator,
        clock: &mut Clock,
    ) -> Result<Calibration, OptimizeError> {
        clock.start("calibrate");
        let (dataset, samples) = self.calibration.as_ref().ok_or(OptimizeError::CalibrationRequired)?;
        let mut step = self.step("Calibrate", "finding the ranges of activations");
        Ok(calibrate(&self.runtime, model, dataset, *samples, calibrator, &mut step)?)
    }

    /// Static shapes: what was asked for, else what the data has, else what the model declares.
    fn fixed_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = self.request.input_shapes.clone();
        let data = self.calibration.as_ref().map(|(dataset, _)| dataset);
        let data = data.or(self.evaluation.as_ref().map(|(dataset, ..)| dataset));
        if let ([input], Some(dataset)) = (self.model.graph.inputs.as_slice(), data)
            && input.has_shape
            && input.shape.get(1..).is_some_and(|dims| dims.iter().any(|dim| !matches!(dim, Dim::Static(_))))
        {
            let batch = if let Some(Dim::Static(size)) = input.shape.first() { *size } else { 1 };
            let shape = || [&[batch], dataset.sample_shape()].concat();
            shapes.entry(input.name.clone()).or_insert_with(shape);
        }
        shapes
    }

    fn has_external_data(&self) -> bool {
        // Reading without a folder fails exactly when something lies outside.
        matches!(ir::load(&self.source, None), Err(ir::LoadError::External { .. }))
    }

    fn verify(self, made: Made, clock: &mut Clock) -> Result<Outcome, OptimizeError> {
        let Made { artifact, notes, calibration } = made;
        clock.start("evaluate");
        let sample = self.sample_shape()?;
        let reference = if self.has_external_data() { self.model.to_bytes() } else { self.source.clone() };
        let in_ort = |model: &[u8], use_it: &mut dyn FnMut(&mut dyn Runner)| -> Result<(), RuntimeError> {
            use_it(self.runtime.session(model, 1)?.runner(&sample)?.as_mut());
            Ok(())
        };
        let source = |use_it: &mut dyn FnMut(&mut dyn Runner)| in_ort(&reference, use_it);
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
        let (runtime, found) = match self.target.runtime {
            RuntimeKind::OnnxRuntime => {
                let run = |use_it: &mut dyn FnMut(&mut dyn Runner)| in_ort(&artifact, use_it);
                (self.runtime.describe(), compare(&source, &run, &samples, &mut step)?)
            }
            RuntimeKind::LiteRt => {
                let litert = LiteRt::load()?;
                let run = |use_it: &mut dyn FnMut(&mut dyn Runner)| litert.with(&artifact, &sample, use_it);
                (litert.describe(), compare(&source, &run, &samples, &mut step)?)
            }
            RuntimeKind::TfliteMicro => {
                let run = |use_it: &mut dyn FnMut(&mut dyn Runner)| {
                    use_it(Micro::runner(&artifact, &sample)?.as_mut());
                    Ok(())
                };
                (Micro::describe(), compare(&source, &run, &samples, &mut step)?)
            }
        };
        clock.stop();
        let Comparison { source: source_accuracy, artifact: accuracy, agreement } = found;
        let accuracy_drop = source_accuracy.as_ref().zip(accuracy.as_ref()).map(|(a, b)| a.value - b.value);
        let broken_constraint = self.broken_constraint(accuracy_drop);
        let mut unavailable = BTreeMap::new();
        if self.evaluation.is_none() {
            for metric in ["sourceAccuracy", "accuracy", "accuracyDrop"] {
                unavailable.insert(metric.to_owned(), "no evaluation data was given".to_owned());
            }
        }
        let peak = peak_memory();
        if peak.is_none() {
            unavailable.insert("peakMemoryBytes".to_owned(), "the system does not tell".to_owned());
        }
        let details = format!("ran on {data}, beside the source in {}", self.runtime.describe());
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
                    size_bytes: artifact.len() as u64,
                    format: self.target.format,
                    media_type: media(self.target.format).to_owned(),
                },
                source_accuracy,
                accuracy,
                accuracy_drop,
                mcnemar_p: None,
                source_cost: None,
                cost: None,
                layers: Vec::new(),
                compiler_estimate: None,
                findings: Vec::new(),
                verification: Verification { level: VerificationLevel::Executed, runtime, details },
                agreement: Some(agreement),
                calibration,
                notes,
                seconds: std::mem::take(&mut clock.seconds),
                peak_memory_bytes: peak,
                unavailable,
            })),
        };
        Ok(Outcome { artifact, report, broken_constraint })
    }

    fn broken_constraint(&self, drop: Option<f64>) -> Option<String> {
        let (drop, limit) = (drop?, self.request.max_accuracy_drop?);
        // Both come from counts and decimal texts; a drop of exactly the limit keeps to it.
        (drop > limit + 1e-9).then(|| {
            format!("accuracy falls by {:.2} percentage points, at most {:.2} are allowed", drop * 100.0, limit * 100.0)
        })
    }

    /// The shape of one sample of the data, or of the declared input.
    fn sample_shape(&self) -> Result<Vec<usize>, OptimizeError> {
        if let Some(dataset) = self.evaluation.as_ref().map(|e| &e.0).or(self.calibration.as_ref().map(|c| &c.0)) {
            return Ok(dataset.sample_shape().to_vec());
        }
        let [input] = self.model.graph.inputs.as_slice() else {
            let problem = format!("it has {} inputs, one is expected", self.model.graph.inputs.len());
            return Err(RuntimeError::Interface(problem).into());
        };
        if let Some(shape) = self.request.input_shapes.get(&input.name) {
            return Ok(shape.get(1..).unwrap_or_default().to_vec());
        }
        let sizes = |(position, dim): (usize, &Dim)| match dim {
            Dim::Static(size) => Ok(*size),
            dim => Err(crate::simplify::SimplifyError::FreeDimension {
                input: input.name.clone(),
                dim: dim.to_string(),
                position,
            }),
        };
        Ok(input.shape.iter().enumerate().skip(1).map(sizes).collect::<Result<_, _>>()?)
    }

    fn step(&self, step: &'static str, message: &'static str) -> impl FnMut(u64, u64) -> bool + use<'_> {
        move |done, total| {
            let (step, message) = (step.to_owned(), message.to_owned());
            self.watcher.progress(&Progress { step, message, done, total });
            !self.watcher.cancelled()
        }
    }
}

/// The media type of a format.
pub fn media(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::Onnx => media_type::ONNX,
        ModelFormat::TfLite => media_type::TFLITE,
    }
}

/// The file name of an artefact.
pub fn file_name(format: ModelFormat) -> &'static str {
    match format {
        ModelFormat::Onnx => "model.onnx",
        ModelFormat::TfLite => "model.tflite",
    }
}

/// Writes artefact and report into a folder; each appears whole or not at all.
pub fn write(outcome: &Outcome, folder: &Path) -> std::io::Result<PathBuf> {
    fs_err::create_dir_all(folder)?;
    let ReportResult::Optimize(optimized) = &outcome.report.result else {
        return Err(std::io::Error::other("not the report of an optimisation"));
    };
    let path = folder.join(file_name(optimized.artifact.format));
    replace(&path, &outcome.artifact)?;
    let mut report = serde_json::to_vec_pretty(&outcome.report)?;
    report.push(b'\n');
    replace(&folder.join("report.json"), &report)?;
    Ok(path)
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    fs_err::write(&partial, bytes)?;
    fs_err::rename(partial, path)
}

fn dim(dim: &Dim) -> i64 {
    match dim {
        Dim::Static(size) => *size as i64,
        Dim::Symbol(_) | Dim::Unknown => -1,
    }
}

fn element(rules: &Int8Rules) -> Element {
    match rules.activations {
        Integer::UInt8 => Element::UInt8,
        Integer::Int8 => Element::Int8,
    }
}

fn summarize(calibration: &Calibration, calibrator: Calibrator) -> CalibrationSummary {
    CalibrationSummary {
        calibrator: format!("{calibrator:?}"),
        sample_count: calibration.samples as u64,
        tensors: calibration.ranges.len() as u64,
    }
}

/// The largest resident memory so far, from the kernel.
fn peak_memory() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Wall-clock seconds by step.
#[derive(Default)]
struct Clock {
    seconds: BTreeMap<String, f64>,
    running: Option<(&'static str, Instant)>,
}

impl Clock {
    fn start(&mut self, step: &'static str) {
        self.stop();
        self.running = Some((step, Instant::now()));
    }

    fn stop(&mut self) {
        if let Some((step, since)) = self.running.take() {
            *self.seconds.entry(step.to_owned()).or_default() += since.elapsed().as_secs_f64();
        }
    }
}
