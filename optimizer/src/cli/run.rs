//! `run`: one artefact from local files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode as Code;

use clap::{Args, ValueEnum};
use edgeyard_job::ExitCode;
use edgeyard_job::spec::{AccuracyMetric, Pass};
use edgeyard_optimizer::optimize::{Request, optimize, write};

use super::bar::Bar;
use super::passes::{self, Stated};
use super::{Format, Output, complain, print, show};

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = passes::help())]
pub struct Run {
    /// The ONNX model to start from.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The runtime to make it for; see `targets`.
    #[arg(long)]
    target: String,
    /// What to do, once for each step, in order; without it the model is only converted. See below for what there is.
    #[arg(long, value_parser = passes::parse, value_name = "TYPE[:KEY=VALUE,…]")]
    pass: Vec<Stated>,
    /// An .npz whose array x holds typical inputs; int8 needs it.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// How many calibration samples to use, from the first on.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
    /// How ranges of activations are chosen, where the pass does not say it.
    #[arg(long, value_enum, ignore_case = true, default_value_t = CalibratorName::MinMax)]
    calibrator: CalibratorName,
    /// How many scales integer weights have, where the pass does not say it.
    #[arg(long, value_enum, ignore_case = true, default_value_t = GranularityName::PerChannel)]
    granularity: GranularityName,
    /// An .npz with inputs x and class numbers y; accuracy is reported on it.
    #[arg(long, value_name = "FILE")]
    evaluation: Option<PathBuf>,
    /// How predictions are scored.
    #[arg(long, value_enum, ignore_case = true, default_value_t = MetricName::Top1Accuracy)]
    metric: MetricName,
    /// Exit with code 3 when accuracy falls by more than this share, such as 0.005.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    max_accuracy_drop: Option<f64>,
    /// Exit with code 3 when the artefact is larger, such as 200000, 200k or 196Ki.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    max_size: Option<u64>,
    /// The shape of an input whose dimensions are free, batch included.
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = input_shape)]
    input_shape: Vec<(String, Vec<usize>)>,
    /// The value of an input that is to be a constant, such as a sampling rate; every element takes it.
    #[arg(long, value_name = "NAME=16000", value_parser = input_value)]
    input_value: Vec<(String, f64)>,
    /// The folder to write the artefact and report.json to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum CalibratorName {
    /// The smallest and largest value seen.
    MinMax,
    /// The moving average of each sample's smallest and largest value.
    MovingAverage,
    /// Without the outermost values.
    Percentile,
    /// The least Kullback-Leibler divergence.
    Entropy,
    /// The least mean squared error.
    MeanSquaredError,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum GranularityName {
    /// One for each output channel.
    PerChannel,
    /// One.
    PerTensor,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum MetricName {
    /// The best class is right.
    Top1Accuracy,
    /// The right class is among the best five.
    Top5Accuracy,
}

impl Run {
    /// Does the work.
    pub fn run(self) -> Code {
        let Self {
            model,
            target,
            pass,
            calibration,
            samples,
            calibrator,
            granularity,
            evaluation,
            metric,
            max_accuracy_drop,
            max_size,
            input_shape,
            input_value,
            out,
            format,
        } = self;
        let (calibrator, granularity) = (format!("{calibrator:?}"), format!("{granularity:?}"));
        let defaults = [("calibrator", calibrator.as_str()), ("granularity", granularity.as_str())];
        let metric = match metric {
            MetricName::Top1Accuracy => AccuracyMetric::Top1Accuracy,
            MetricName::Top5Accuracy => AccuracyMetric::Top5Accuracy,
        };
        let names: Vec<&str> = pass.iter().map(|pass| pass.name).collect();
        let variant = if names.is_empty() { "plain".to_owned() } else { names.join("-") };
        let passes: Result<Vec<Pass>, String> = pass.into_iter().map(|stated| stated.pass(&defaults)).collect();
        let passes = match passes {
            Ok(passes) => passes,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::BadInput.into();
            }
        };
        let request = Request {
            name: model.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            variant,
            model,
            target,
            passes,
            calibration: calibration.map(|path| (path, usize::try_from(samples).unwrap_or(usize::MAX))),
            evaluation: evaluation.map(|path| (path, metric)),
            input_shapes: input_shape.into_iter().collect::<BTreeMap<_, _>>(),
            input_values: input_value.into_iter().collect(),
            max_accuracy_drop,
            max_size_bytes: max_size,
        };
        let bar = Bar::default();
        let outcome = optimize(&request, &bar);
        bar.finish();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                complain(&error);
                return error.exit_code().into();
            }
        };
        let path = match write(&outcome, &out) {
            Ok(path) => path,
            Err(error) => {
                complain(&error);
                return ExitCode::Infrastructure.into();
            }
        };
        let shown = match format.output {
            Output::Json => {
                let mut text = serde_json::to_vec_pretty(&outcome.report).unwrap_or_default();
                text.push(b'\n');
                print(&text)
            }
            Output::Text => print(show::report(&outcome.report, &path).as_bytes()),
        };
        match outcome.broken_constraint {
            Some(constraint) => {
                eprintln!("constraint not met: {constraint}");
                ExitCode::ConstraintNotMet.into()
            }
            None => shown,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("a share is between 0 and 1".to_owned()) }
}

/// A number of bytes, in Kubernetes' units.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        unit => return Err(format!("`{unit}` is no unit of size; there are k, M, Ki and Mi")),
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|size| *size > 0);
    size.ok_or_else(|| "write a number of bytes above 0, such as 200000, 200k or 196Ki".to_owned())
}

/// Reads `NAME=SIZE,SIZE,…`.
pub fn input_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.rsplit_once('=').ok_or("write NAME=SIZE,SIZE,…")?;
    let sizes: Result<Vec<usize>, _> = sizes.split(',').map(|size| size.trim().parse()).collect();
    match sizes {
        Ok(sizes) if !name.is_empty() && !sizes.contains(&0) => Ok((name.to_owned(), sizes)),
        _ => Err("write NAME=SIZE,SIZE,… with sizes above 0".to_owned()),
    }
}

/// Reads `NAME=NUMBER`.
pub fn input_value(text: &str) -> Result<(String, f64), String> {
    let wrong = || "write NAME=NUMBER, such as sr=16000".to_owned();
    let (name, value) = text.rsplit_once('=').ok_or_else(wrong)?;
    let value: f64 = value.trim().parse().map_err(|_| wrong())?;
    if name.is_empty() || !value.is_finite() { Err(wrong()) } else { Ok((name.to_owned(), value)) }
}
