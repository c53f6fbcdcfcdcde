//! `inspect`, `diff` and `lint`: looking at models without making any.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode as Code;

use clap::Args;
use edgeyard_job::inspection::{Difference, InspectedTensor, Inspection};
use edgeyard_job::report::{Finding, Severity};
use edgeyard_job::spec::{ModelFormat, Pass};
use edgeyard_job::{ExitCode, Progress};
use edgeyard_optimizer::dataset::Dataset;
use edgeyard_optimizer::diff::{Samples, bars, diff, svg};
use edgeyard_optimizer::inspect::{Content, File, inspect};
use edgeyard_optimizer::lint::{lint_artifact, lint_source, refused};
use edgeyard_optimizer::optimize::Watcher;
use edgeyard_optimizer::simplify::{Shapes, bind, explicit_padding, simplify};
use edgeyard_targets::{Support, Target};
use serde::Serialize;

use super::bar::Bar;
use super::passes::{self, Stated};
use super::run::{input_shape, input_value};
use super::{Format, Output, complain, print};

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// An .onnx or .tflite file.
    model: PathBuf,
    /// The shape of an input whose dimensions are free, batch included; without it what hangs on them is not counted.
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = input_shape)]
    input_shape: Vec<(String, Vec<usize>)>,
    #[command(flatten)]
    format: Format,
}

impl Inspect {
    /// Does the work.
    pub fn run(self) -> Code {
        let Self { model, input_shape, format } = self;
        let file = File::read(&model).and_then(|mut file| {
            file.fix_shapes(&input_shape.into_iter().collect())?;
            Ok(file)
        });
        match file {
            Ok(file) => {
                let found = inspect(&file);
                show(format.output, &found, || table(&found))
            }
            Err(error) => {
                complain(&error);
                ExitCode::BadInput.into()
            }
        }
    }
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The reference, an .onnx.
    reference: PathBuf,
    /// What was made of it, an .onnx or a .tflite.
    other: PathBuf,
    /// An .npz whose array x holds samples; without it samples are made up.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// How many samples to use, from the first on.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// The shape of an input whose dimensions are free, batch included.
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = input_shape)]
    input_shape: Vec<(String, Vec<usize>)>,
    /// The value of an input that the other model has no more, as `run` was told.
    #[arg(long, value_name = "NAME=16000", value_parser = input_value)]
    input_value: Vec<(String, f64)>,
    /// Also draw the bars as a picture.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

impl Diff {
    /// Does the work.
    pub fn run(self) -> Code {
        let Self { reference, other, data, samples, input_shape, input_value, plot, format } = self;
        let mut shapes: BTreeMap<_, _> = input_shape.into_iter().collect();
        let values = input_value.into_iter().collect();
        let mut read = || {
            let mut reference = File::read(&reference)?;
            if let Content::Onnx(model) = &mut reference.content {
                bind(&mut model.graph, &values, &mut shapes)?;
            }
            reference.fix_shapes(&shapes)?;
            Ok::<_, Box<dyn std::error::Error>>((reference, File::read(&other)?))
        };
        let bad = |error: &dyn std::error::Error| {
            complain(error);
            Code::from(ExitCode::BadInput)
        };
        let (reference, other) = match read() {
            Ok(files) => files,
            Err(error) => return bad(error.as_ref()),
        };
        let samples_from = match data.as_deref().map(Dataset::open).transpose() {
            Ok(dataset) => dataset.map_or(Samples::MadeUp, Samples::Data),
            Err(error) => return bad(&error),
        };
        let bar = Bar::default();
        let mut step = |done, total| {
            let message = "running both models on the same samples".to_owned();
            bar.progress(&Progress { step: "Compare".to_owned(), message, done, total });
        };
        let found = diff(&reference, &other, &samples_from, samples as usize, &mut step);
        bar.finish();
        let found = match found {
            Ok(found) => found,
            Err(error) if error.is_infrastructure() => {
                complain(&error);
                return ExitCode::Infrastructure.into();
            }
            Err(error) => return bad(&error),
        };
        if let Some(plot) = plot
            && let Err(error) = fs_err::write(&plot, svg(&found))
        {
            complain(&error);
            return ExitCode::Infrastructure.into();
        }
        show(format.output, &found, || compared(&found))
    }
}

/// Arguments of `lint`.
#[derive(Debug, Args)]
pub struct Lint {
    /// An .onnx, looked at as what would be made of it, or a finished .tflite.
    model: PathBuf,
    /// The target whose rules to hold it against; see `targets`.
    #[arg(long)]
    target: String,
    /// What would be done before; `run --help` says what there is. Without any, int8 where the target takes integers only.
    #[arg(long, value_parser = passes::parse, value_name = "TYPE[:KEY=VALUE,…]")]
    pass: Vec<Stated>,
    /// The shape of an input whose dimensions are free, batch included.
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = input_shape)]
    input_shape: Vec<(String, Vec<usize>)>,
    /// The value of an input that is to be a constant.
    #[arg(long, value_name = "NAME=16000", value_parser = input_value)]
    input_value: Vec<(String, f64)>,
    #[command(flatten)]
    format: Format,
}

impl Lint {
    /// Does the work. Exit code 2 when the target would refuse the model.
    pub fn run(self) -> Code {
        let output = self.format.output;
        match self.findings() {
            Ok(findings) => {
                let code = show(output, &findings, || lines(&findings));
                if refused(&findings).is_empty() { code } else { ExitCode::BadInput.into() }
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::BadInput.into()
            }
        }
    }

    fn findings(self) -> Result<Vec<Finding>, String> {
        let Self { model, target, pass, input_shape, input_value, format: _ } = self;
        let explain = |error: &dyn std::error::Error| edgeyard_optimizer::job::explain(error);
        let target = Target::find(&target).map_err(|error| explain(&error))?;
        let mut stated: Vec<Pass> = pass.into_iter().map(|stated| stated.pass(&[])).collect::<Result<_, _>>()?;
        let file = File::read(&model).map_err(|error| explain(&error))?;
        let source = match file.content {
            Content::TfLite(_) if target.format == ModelFormat::Onnx => {
                return Err(format!("{} is a .tflite, target {} takes ONNX", file.name, target.name));
            }
            Content::TfLite(_) if stated.is_empty() => return lint_artifact(target, &file.bytes),
            Content::TfLite(_) => return Err(format!("{} is finished; leave --pass out", file.name)),
            Content::Onnx(source) => source,
        };
        if stated.is_empty() && matches!(target.schemes.float32, Support::Refused(_)) {
            eprintln!("target {} takes integers only: looked at as `--pass int8` would make it", target.name);
            stated.push(passes::parse("int8")?.pass(&[])?);
        }
        let mut source = source;
        let recipe = target.recipe(&stated).map_err(|error| explain(&error))?;
        let mut shapes: BTreeMap<_, _> = input_shape.into_iter().collect();
        bind(&mut source.graph, &input_value.into_iter().collect(), &mut shapes).map_err(|error| explain(&error))?;
        let shapes = if target.format == ModelFormat::Onnx && shapes.is_empty() {
            Shapes::Declared
        } else {
            Shapes::Fixed(shapes)
        };
        let mut graph = simplify(&source.graph, &shapes).map_err(|error| explain(&error))?;
        if target.format == ModelFormat::TfLite {
            explicit_padding(&mut graph);
        }
        Ok(lint_source(target, graph, &recipe.numbers))
    }
}

fn show(output: Output, value: &impl Serialize, text: impl FnOnce() -> String) -> Code {
    match output {
        Output::Text => print(text().as_bytes()),
        Output::Json => {
            let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
            text.push(b'\n');
            print(&text)
        }
    }
}

/// Rows of cells as lines with columns as wide as their widest cell; `right` columns are numbers.
fn aligned<const N: usize>(rows: &[[String; N]], right: &[usize]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

fn table(found: &Inspection) -> String {
    let Inspection { model, inputs, outputs, layers, total, notes, .. } = found;
    let format = match model.format {
        ModelFormat::Onnx => "ONNX",
        ModelFormat::TfLite => "TFLite",
    };
    let opset = model.opset.map_or(String::new(), |opset| format!(", opset {opset}"));
    let mut text = format!("{}: {format}{opset}, {} B, {}\n", model.name, model.size_bytes, model.digest);
    let tensor = |tensor: &InspectedTensor| {
        let size = |size: &Option<u64>| size.map_or("?".to_owned(), |size| size.to_string());
        let shape =
            tensor.shape.as_ref().map_or("?".to_owned(), |shape| shape.iter().map(size).collect::<Vec<_>>().join("×"));
        format!("{} {} {shape}", tensor.name, tensor.dtype.as_deref().unwrap_or("?"))
    };
    let _ = writeln!(text, "in   {}", inputs.iter().map(tensor).collect::<Vec<_>>().join("; "));
    let _ = writeln!(text, "out  {}\n", outputs.iter().map(tensor).collect::<Vec<_>>().join("; "));
    let head = ["LAYER", "OPERATOR", "OUTPUT", "TYPE", "PARAMETERS", "NOT 0", "MACS", "WEIGHTS", "RANGE"];
    let mut rows = vec![head.map(str::to_owned)];
    let unknown = || "-".to_owned();
    rows.extend(layers.iter().map(|layer| {
        let shape = layer.output_shape.as_ref();
        [
            layer.name.clone(),
            layer.operator.clone(),
            shape.map_or_else(unknown, |shape| shape.iter().map(u64::to_string).collect::<Vec<_>>().join("×")),
            layer.dtype.clone().unwrap_or_else(unknown),
            layer.parameters.to_string(),
            layer.nonzero_parameters.to_string(),
            layer.macs.map_or_else(unknown, |macs| macs.to_string()),
            layer.weight_dtype.clone().unwrap_or_else(unknown),
            layer.weight_range.map_or_else(unknown, |[low, high]| format!("{low:.4} … {high:.4}")),
        ]
    }));
    text.push_str(&aligned(&rows, &[4, 5, 6]));
    if let Some(total) = total {
        let _ = writeln!(
            text,
            "\ntotal  {} layers, {} parameters ({} not 0), {} MACs, about {} B of activations at once",
            layers.len(),
            total.parameters,
            total.nonzero_parameters,
            total.macs,
            total.peak_activation_bytes
        );
    }
    notes.iter().for_each(|note| {
        let _ = writeln!(text, "note   {note}");
    });
    text
}

fn compared(found: &Difference) -> String {
    let Difference { reference, other, sample_count, samples, outputs, notes, .. } = found;
    let mut text = format!(
        "{} in {}\n{} in {}\n{sample_count} samples, {samples}\n\n{}",
        reference.name,
        reference.runtime,
        other.name,
        other.runtime,
        bars(found)
    );
    if let Some(worst) = found
        .layers
        .iter()
        .filter(|layer| layer.sqnr_db.is_some())
        .min_by(|a, b| a.sqnr_db.partial_cmp(&b.sqnr_db).unwrap_or(std::cmp::Ordering::Equal))
    {
        let _ =
            writeln!(text, "\nworst  {} ({}), {:.1} dB", worst.tensor, worst.operator, worst.sqnr_db.unwrap_or(0.0));
    }
    for output in outputs {
        let _ = writeln!(
            text,
            "output {}: largest difference {:.3e} of {:.3e}",
            output.tensor, output.max_abs_difference, output.max_abs_reference
        );
    }
    notes.iter().for_each(|note| {
        let _ = writeln!(text, "note   {note}");
    });
    text
}

fn lines(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing to find fault with\n".to_owned();
    }
    let mut text = String::new();
    for Finding { severity, rule, subject, message } in findings {
        let severity = match severity {
            Severity::Note => "note",
            Severity::Fallback => "fallback",
            Severity::Refused => "refused",
        };
        let _ = writeln!(text, "{severity:<9}{subject}: {message} [{rule}]");
    }
    let count = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let _ = writeln!(
        text,
        "\n{} refused, {} fall back, {} notes",
        count(Severity::Refused),
        count(Severity::Fallback),
        count(Severity::Note)
    );
    text
}
