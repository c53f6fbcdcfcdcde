//! One artefact from one source: read, check, simplify, pass by pass, store in the target's numbers, run it beside the
//! source, report. Every input is checked, and the target's rules are asked, before any of the work that takes time.

mod clock;
mod layers;
mod make;
mod read;
mod vela;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use edgeyard_job::Progress;
use edgeyard_job::media_type;
use edgeyard_job::report::{Report, ReportResult};
use edgeyard_job::spec::{AccuracyMetric, ModelFormat, Pass};

use crate::error::OptimizeError;
use clock::Clock;
use read::Work;

pub use layers::{LAYER_SAMPLES, agreement as layer_agreement};
pub use vela::{VELA_VARIABLE, VelaError, compile as compile_with_vela};

/// What to make, and of what.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The report's `metadata.name`.
    pub name: String,
    /// The recipe's name.
    pub variant: String,
    /// The source model: ONNX, or `.tflite`, whatever the file is called.
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
    /// Inputs that are constants from now on, every element of the given value.
    pub input_values: BTreeMap<String, f64>,
    /// How far accuracy may fall.
    pub max_accuracy_drop: Option<f64>,
    /// How large the artefact may be.
    pub max_size_bytes: Option<u64>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The file.
    pub artifact: Vec<u8>,
    /// All about it.
    pub report: Report,
    /// The constraint that it does not keep to.
    pub broken_constraint: Option<Broken>,
}

/// A constraint that an artefact does not keep to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// `AccuracyDropTooLarge` or `ArtifactTooLarge`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
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
    let prepared = work.prepare(&mut clock)?;
    let made = work.store(&prepared, &Default::default(), &mut clock)?;
    let (made, found) = work.verify(&prepared, made, &mut clock)?;
    work.report(&prepared, made, found, &mut clock)
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
