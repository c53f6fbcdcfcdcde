//! `kubectl edgeyard push`: a file into the store.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use edgeyard_job::media_type;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::Output;
use crate::connection::Store;

/// Arguments of `push`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file: .onnx, .tflite or .npz.
    file: PathBuf,
    /// What the file is; by default told from its name.
    #[arg(long)]
    media_type: Option<String>,
    /// `table` prints the digest alone.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Uploads the file.
///
/// # Errors
/// When the file cannot be read, or what the store said.
pub async fn run(store: &Store, args: &Args) -> Result<()> {
    let Args { file, media_type, output } = args;
    let metadata = std::fs::metadata(file).with_context(|| format!("{} cannot be read", file.display()))?;
    ensure!(metadata.is_file(), "{} is no file", file.display());
    let media_type = media_type.as_deref().unwrap_or_else(|| told_from_name(file));
    let bar = ProgressBar::new(metadata.len());
    bar.set_style(ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?);
    let shown = bar.clone();
    let progress: edgeyard_artifact::OnProgress = Arc::new(move |done, _| shown.set_position(done));
    let stored = store.client.put_blob_with(&store.namespace, file.as_path(), media_type, Some(progress)).await;
    bar.finish_and_clear();
    let stored = stored.map_err(|error| store.explain(error))?;
    match output {
        Output::Table => println!("{}", stored.digest),
        Output::Json => {
            println!(
                "{}",
                json!({"digest": stored.digest, "sizeBytes": stored.size_bytes, "mediaType": stored.media_type})
            );
        }
    }
    Ok(())
}

fn told_from_name(file: &std::path::Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("onnx") => media_type::ONNX,
        Some("tflite") => media_type::TFLITE,
        Some("npz") => media_type::NPZ,
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_is_shows_in_its_name() {
        assert_eq!(told_from_name("a/b.onnx".as_ref()), media_type::ONNX);
        assert_eq!(told_from_name("b.TXT".as_ref()), "application/octet-stream");
    }
}
