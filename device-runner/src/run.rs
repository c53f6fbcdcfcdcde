//! `run`: measures models by hand.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use edgeyard_job::spec::{Backend, EnergyPolicy, Fidelity, ModelFormat, Workload};

use crate::catalogue::{self, Class};
use crate::cli::{self, Output, Run};
use crate::error::Failure;
use crate::lane::Watch;
use crate::machine::{Root, settings};
use crate::npz;
use crate::plan::{Device, Identity, Plan, Variant};
use crate::progress::{Bar, Observer, Silent};
use crate::session::{self, Outcome, Outputs};
use crate::tensor::Array;
use crate::{accuracy, table};

/// Measures, writes `record.json`, and prints the result.
///
/// # Errors
/// Bad input before anything runs; the first variant's failure if all of them failed.
pub fn execute(arguments: &Run, stopped: Arc<AtomicBool>) -> Result<(), Failure> {
    let plan = plan(arguments)?;
    fs_err::create_dir_all(&arguments.out)?;
    let watch = Watch::new(stopped, arguments.deadline);
    let observer: Box<dyn Observer> =
        if arguments.output == Output::Json { Box::new(Silent) } else { Box::new(Bar::new()) };
    let outcome = session::run(&plan, &watch, observer.as_ref())?;
    drop(observer);
    write(&outcome, &arguments.out)?;
    match arguments.output {
        Output::Json => cli::print(&serde_json::to_string_pretty(&outcome.record).unwrap_or_default()),
        Output::Table => {
            cli::print(&table::record(&outcome.record));
            cli::print(&format!("record: {}", arguments.out.join("record.json").display()));
        }
    }
    if outcome.failures.iter().all(Option::is_some)
        && let Some(Some(failure)) = outcome.failures.into_iter().next()
    {
        return Err(failure);
    }
    Ok(())
}

fn plan(arguments: &Run) -> Result<Plan, Failure> {
    let class = catalogue::find(&arguments.device_class)?;
    check_architecture(&class)?;
    let variants = arguments
        .model
        .iter()
        .map(|path| variant(path, &class, arguments.target.as_deref()))
        .collect::<Result<Vec<_>, _>>()?;
    let data = match (&arguments.evaluation, &arguments.inputs) {
        (Some(path), _) => Some((path, Some(arguments.metric.into()))),
        (None, Some(path)) => Some((path, None)),
        (None, None) => None,
    };
    let data = data
        .map(|(path, metric)| accuracy::read_data(&fs_err::read(path)?, metric, &path.display().to_string()))
        .transpose()?;
    let usable = settings::usable_processors(&Root::default());
    let threads = arguments.threads.unwrap_or_else(|| class.processors.unwrap_or(usable).min(usable));
    let name = variants.first().map(|variant| variant.model.clone()).unwrap_or_default();
    Ok(Plan {
        identity: Identity { name, attempt: 1, ..Identity::default() },
        device: Device { class: class.name, fidelity: class.fidelity, lease: None },
        backend: match (class.backend, arguments.execution_provider) {
            (Backend::Runtime { .. }, Some(provider)) => Backend::Runtime { execution_provider: provider.into() },
            (backend, _) => backend,
        },
        limits: class.limits,
        workload: Workload {
            scenario: arguments.scenario.into(),
            profile: arguments.profile.into(),
            seed: arguments.seed,
            query_count: arguments.query_count,
            percentile: arguments.percentile.map(Into::into),
            latency_bound_nanoseconds: arguments.latency_bound,
        },
        threads,
        variants: distinct(variants),
        data,
        keep_outputs: arguments.save_outputs,
        // Who names a meter by hand wants to know when it does not work.
        energy: if arguments.meter.is_some() { EnergyPolicy::Required } else { EnergyPolicy::BestEffort },
        meter: arguments.meter.clone(),
        cool_down_millidegrees: arguments.cool_down.map(|degrees| i64::from(degrees) * 1000),
    })
}

/// An emulated class stands for another processor; this program's own would give other outputs.
fn check_architecture(class: &Class) -> Result<(), Failure> {
    let own = std::env::consts::ARCH;
    if class.fidelity == Fidelity::Emulated
        && matches!(class.backend, Backend::Runtime { .. })
        && class.architecture != own
    {
        return Err(Failure::bad_input(
            "WrongArchitecture",
            format!(
                "device class {:?} stands for {}, and this program was built for {own}: run the {} build of it, which user-mode \
                 emulation can do",
                class.name, class.architecture, class.architecture
            ),
        ));
    }
    Ok(())
}

fn variant(path: &Path, class: &Class, target: Option<&str>) -> Result<Variant, Failure> {
    let bytes = fs_err::read(path)?;
    let is_tflite = bytes.get(4..8) == Some(b"TFL3") || path.extension().is_some_and(|name| name == "tflite");
    let fits = |target: &str| is_tflite != target.starts_with("ort-");
    let target = match target {
        Some(target) if !class.targets.iter().any(|known| known == target) => {
            return Err(Failure::bad_input(
                "UnsupportedTarget",
                format!("device class {:?} has the targets {}, not {target:?}", class.name, class.targets.join(", ")),
            ));
        }
        Some(target) => target.to_owned(),
        None => class.targets.iter().find(|target| fits(target)).cloned().ok_or_else(|| {
            Failure::bad_input(
                "UnsupportedTarget",
                format!(
                    "{} is {}, and device class {:?} takes {} only",
                    path.display(),
                    if is_tflite { "a .tflite" } else { "an ONNX model" },
                    class.name,
                    class.targets.join(", ")
                ),
            )
        })?,
    };
    let stem = path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
    Ok(Variant {
        model: stem.clone(),
        variant: stem,
        target,
        format: if is_tflite { ModelFormat::TfLite } else { ModelFormat::Onnx },
        digest: edgeyard_record::digest(&bytes),
        size_bytes: bytes.len() as u64,
        path: path.to_owned(),
    })
}

/// Tells apart files of one name.
fn distinct(mut variants: Vec<Variant>) -> Vec<Variant> {
    let labels: Vec<String> = variants.iter().map(Variant::label).collect();
    for (index, variant) in variants.iter_mut().enumerate() {
        let before = labels[..index].iter().filter(|label| **label == labels[index]).count();
        if before > 0 {
            variant.variant.push_str(&format!("-{}", before + 1));
        }
    }
    variants
}

fn write(outcome: &Outcome, folder: &Path) -> Result<(), Failure> {
    let (bytes, _) =
        outcome.record.seal().map_err(|error| Failure::infrastructure("RecordUnwritable", error.to_string()))?;
    fs_err::write(folder.join("record.json"), bytes)?;
    for blob in &outcome.blobs {
        fs_err::create_dir_all(folder.join("blobs"))?;
        let digest = edgeyard_record::digest(blob);
        fs_err::write(folder.join("blobs").join(digest.trim_start_matches("sha256:")), blob)?;
    }
    if !outcome.outputs.is_empty() {
        fs_err::write(folder.join("outputs.npz"), archive(&outcome.outputs)?)?;
    }
    Ok(())
}

/// One variant's arrays are called `output_0`, `output_1`, …; those of several carry `model/variant/target/` before that.
/// The first dimension counts samples; quantised outputs come with `…_scale` and `…_zero_point`.
fn archive(all: &[Outputs]) -> Result<Vec<u8>, Failure> {
    let mut arrays: Vec<(String, Array)> = Vec::new();
    for outputs in all {
        let prefix = if all.len() == 1 { String::new() } else { format!("{}/", outputs.label) };
        let row: usize = outputs.infos.iter().map(crate::tensor::TensorInfo::bytes).sum();
        let mut offset = 0;
        for (index, info) in outputs.infos.iter().enumerate() {
            let name = format!("{prefix}output_{index}");
            let mut data: Vec<u8> =
                outputs.bytes.chunks_exact(row).flat_map(|row| &row[offset..offset + info.bytes()]).copied().collect();
            offset += info.bytes();
            // Samples lie along the batch dimension; what filled up the last batch is cut off.
            let inferences = outputs.bytes.len() / row;
            let batched = info.shape.first() == Some(&outputs.batch);
            let mut shape = vec![if batched { outputs.count } else { inferences }];
            shape.extend(info.shape.iter().skip(usize::from(batched)));
            data.truncate(shape.iter().product::<usize>() * info.element.size());
            if let (Some(scale), Some(zero_point)) = (info.scale, info.zero_point) {
                let scalar = |element, data| Array { element, shape: Vec::new(), data };
                let scale = scalar(crate::tensor::Element::F32, scale.to_le_bytes().to_vec());
                let zero_point = scalar(crate::tensor::Element::I64, zero_point.to_le_bytes().to_vec());
                arrays.extend([(format!("{name}_scale"), scale), (format!("{name}_zero_point"), zero_point)]);
            }
            arrays.push((name, Array { element: info.element, shape, data }));
        }
    }
    npz::write(arrays.iter().map(|(name, array)| (name.as_str(), array)))
}
