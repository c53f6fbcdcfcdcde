//! `Import`: brings inputs into the store. What a model or data set obviously is not is refused here already, before
//! anything is made of it.

use std::path::Path;

use edgeyard_job::report::{ImportedInput, REPORT_VERSION, Report, ReportMetadata, ReportResult};
use edgeyard_job::spec::{Import, ImportInput};
use edgeyard_job::{ExitCode, Progress, media_type};

use super::fetch::{Limits, fetch};
use super::{End, Job};
use crate::dataset::Dataset;
use crate::error::OptimizeError;
use crate::ir;

pub(super) async fn import(job: &Job, import: Import) -> End {
    match bring_all(job, import).await {
        Ok(end) | Err(end) => end,
    }
}

async fn bring_all(job: &Job, import: Import) -> Result<End, End> {
    let Import { inputs, allow_private_addresses, max_bytes } = import;
    let folder = tempfile::tempdir().map_err(|error| End::error(ExitCode::Infrastructure, "DiskFailed", &error))?;
    let limits = Limits { allow_private: allow_private_addresses, max_bytes };
    let mut done = Vec::new();
    let total = inputs.len() as u64;
    for (index, input) in inputs.into_iter().enumerate() {
        let message = format!("bringing {}", input.name);
        job.say(&Progress { step: "Import".to_owned(), message, done: index as u64, total }).await;
        let file = folder.path().join(format!("{index}"));
        done.push(bring(job, input, &file, limits).await?);
        // One at a time: the working folder need only hold the largest.
        let _ = tokio::fs::remove_file(&file).await;
    }
    let message = format!("{} inputs are in the store", done.len());
    let report = Report {
        schema_version: REPORT_VERSION.to_owned(),
        metadata: ReportMetadata { name: job.identity.name.clone(), generator: crate::GENERATOR.to_owned() },
        result: ReportResult::Import { inputs: done },
    };
    Ok(End::succeeded(job.report(&report).await?, message))
}

async fn bring(job: &Job, input: ImportInput, file: &Path, limits: Limits) -> Result<ImportedInput, End> {
    let ImportInput { name, media_type, from, digest: expected } = input;
    let named = |text: String| format!("{name}: {text}");
    let (digest, size_bytes) = fetch(&from, file, limits)
        .await
        .map_err(|error| End::failed(error.exit_code(), error.reason(), named(super::explain(&error))))?;
    if let Some(expected) = expected.filter(|expected| *expected != digest.to_string()) {
        let text = format!(
            "the file has the digest {digest}, the spec says {expected}: the file changed, or the digest is another file's"
        );
        return Err(End::failed(ExitCode::BadInput, "DigestMismatch", named(text)));
    }
    let (path, kind) = (file.to_owned(), media_type.clone());
    let checked = tokio::task::spawn_blocking(move || check(&path, &kind)).await;
    match checked {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            return Err(End::failed(error.exit_code(), error.reason(), named(super::explain(&error))));
        }
        Err(error) => return Err(End::error(ExitCode::Infrastructure, "Crashed", &error)),
    }
    let stored = job.client.put_blob(&job.identity.namespace, file, &media_type).await;
    stored.map_err(|error| End::store(&error))?;
    Ok(ImportedInput { name, digest: digest.to_string(), size_bytes, media_type })
}

/// Refuses a file that cannot be what its media type says.
fn check(path: &Path, kind: &str) -> Result<(), OptimizeError> {
    match kind {
        media_type::ONNX => {
            // Without a folder: the store keeps one file, weights beside it would be lost.
            let data = fs_err::read(path).map_err(ir::LoadError::Io)?;
            ir::load(&data, None)?;
        }
        media_type::NPZ => {
            Dataset::open(path).map_err(OptimizeError::dataset)?;
        }
        _ => {}
    }
    Ok(())
}
