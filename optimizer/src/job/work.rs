//! `Optimize`: fetches the inputs by digest, makes the artefact, stores it and then its report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edgeyard_artifact::Digest;
use edgeyard_job::spec::{CalibrationData, EvaluationData, ModelFormat, Optimize, StoredModel};
use edgeyard_job::{ExitCode, Progress, Termination};
use tokio::sync::watch;

use super::{End, Job};
use crate::optimize::{self, Broken, Outcome, Request, Watcher};

impl Job {
    /// Says how far the job is. Nobody depends on hearing it.
    pub(super) async fn say(&self, progress: &Progress) {
        let edgeyard_job::spec::Identity { namespace, uid, attempt, .. } = &self.identity;
        let _ = self.client.put_progress(namespace, uid, *attempt, progress).await;
    }

    async fn get(&self, what: &str, digest: &str, to: PathBuf) -> Result<PathBuf, End> {
        let parsed: Digest = digest
            .parse()
            .map_err(|error| End::failed(ExitCode::BadInput, "MalformedSpec", format!("{what}: {error}")))?;
        match self.client.get_blob_to_file(&self.identity.namespace, &parsed, &to).await {
            Ok(_) => Ok(to),
            Err(error) => {
                let End { code, termination } = End::store(&error);
                let message = format!("{what}: {}", termination.message);
                Err(End { code, termination: Termination { message, ..termination } })
            }
        }
    }
}

pub(super) async fn optimize(job: &Job, work: Optimize, cancelled: Arc<AtomicBool>) -> End {
    match make(job, work, cancelled).await {
        Ok(end) | Err(end) => end,
    }
}

async fn make(job: &Job, work: Optimize, cancelled: Arc<AtomicBool>) -> Result<End, End> {
    let folder = tempfile::tempdir().map_err(|error| End::error(ExitCode::Infrastructure, "DiskFailed", &error))?;
    let request = fetch(job, work, folder.path()).await?;
    let (send, receive) = watch::channel(None);
    let teller = tell(job, receive);
    let worker = async {
        let watcher = Following { send, cancelled };
        tokio::task::spawn_blocking(move || optimize::optimize(&request, &watcher)).await
    };
    let ((), outcome) = tokio::join!(teller, worker);
    let Outcome { artifact, report, broken_constraint } = match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => return Err(End::error(error.exit_code(), error.reason(), &error)),
        Err(error) => return Err(End::error(ExitCode::Infrastructure, "Crashed", &error)),
    };
    let edgeyard_job::report::ReportResult::Optimize(made) = &report.result else {
        return Err(End::failed(ExitCode::Infrastructure, "Crashed", "the report is of another kind".to_owned()));
    };
    let stored = job.client.put_blob(&job.identity.namespace, artifact, &made.artifact.media_type).await;
    stored.map_err(|error| End::store(&error))?;
    let message =
        format!("{} bytes, {:?} in {}", made.artifact.size_bytes, made.verification.level, made.verification.runtime);
    let digest = job.report(&report).await?;
    Ok(match broken_constraint {
        None => End::succeeded(digest, message),
        Some(Broken { reason, message }) => {
            let reason = reason.to_owned();
            let termination = Termination { reason, message, result_digest: Some(digest) };
            End { code: ExitCode::ConstraintNotMet, termination }
        }
    })
}

async fn fetch(job: &Job, work: Optimize, folder: &Path) -> Result<Request, End> {
    let Optimize {
        source,
        calibration,
        evaluation,
        variant,
        target,
        passes,
        max_accuracy_drop,
        max_size_bytes,
        input_shapes,
        input_values,
    } = work;
    let StoredModel { digest, format } = source;
    let file = match format {
        ModelFormat::Onnx => "source.onnx",
        ModelFormat::TfLite => "source.tflite",
    };
    job.say(&Progress { step: "Fetch".to_owned(), message: "fetching inputs".to_owned(), done: 0, total: 0 }).await;
    let model = job.get("source", &digest, folder.join(file)).await?;
    let calibration = match calibration {
        Some(CalibrationData { digest, sample_count }) => {
            let path = job.get("calibration", &digest, folder.join("calibration.npz")).await?;
            Some((path, usize::try_from(sample_count).unwrap_or(usize::MAX)))
        }
        None => None,
    };
    let evaluation = match evaluation {
        Some(EvaluationData { digest, metric }) => {
            Some((job.get("evaluation", &digest, folder.join("evaluation.npz")).await?, metric))
        }
        None => None,
    };
    let name = job.identity.name.clone();
    let sizes = |(name, shape): (String, Vec<u64>)| {
        (name, shape.into_iter().map(|size| usize::try_from(size).unwrap_or(usize::MAX)).collect())
    };
    let input_shapes = input_shapes.into_iter().map(sizes).collect();
    Ok(Request {
        name,
        variant,
        model,
        target,
        passes,
        calibration,
        evaluation,
        input_shapes,
        input_values,
        max_accuracy_drop,
        max_size_bytes,
    })
}

/// Hands progress to the task that tells the store.
struct Following {
    send: watch::Sender<Option<Progress>>,
    cancelled: Arc<AtomicBool>,
}

impl Watcher for Following {
    fn progress(&self, progress: &Progress) {
        // Only the last one counts; a slow store never slows the work.
        self.send.send_replace(Some(progress.clone()));
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// Tells the store the latest progress, one at a time, until the work is over.
async fn tell(job: &Job, mut receive: watch::Receiver<Option<Progress>>) {
    while receive.changed().await.is_ok() {
        let latest = receive.borrow_and_update().clone();
        if let Some(progress) = latest {
            job.say(&progress).await;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
}
