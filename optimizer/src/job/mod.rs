//! What a pod is asked to do: bring inputs into the store, or make one artefact of what is there. The result is put
//! before the termination message is written, so that whoever reads that message finds it. Repeating a finished job
//! gives the same result again.

mod addresses;
mod fetch;
mod import;
mod work;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edgeyard_artifact::{Bearer, Client, ClientError, ErrorClass, StoreAccess, digest_of};
use edgeyard_job::exit::{TERMINATION_LOG, TERMINATION_LOG_VARIABLE};
use edgeyard_job::{ExitCode, JobSpec, Report, Termination, Work, media_type};
use tokio::signal::unix::{SignalKind, signal};

pub use addresses::is_public;
pub use fetch::FetchError;

/// What a job's end comes to: an exit code and last words.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// The exit code.
    pub code: ExitCode,
    /// The last words.
    pub termination: Termination,
}

/// Does what the spec in the file says and leaves the termination message.
pub fn run(spec: &Path) -> ExitCode {
    let end = match std::fs::read_to_string(spec) {
        Ok(text) => run_text(&text),
        Err(error) => End::failed(ExitCode::BadInput, "MalformedSpec", format!("{}: {error}", spec.display())),
    };
    let End { code, termination } = &end;
    if *code == ExitCode::Done {
        println!("{}", termination.message);
    } else {
        eprintln!("error: {}: {}", termination.reason, termination.message);
    }
    leave(termination);
    *code
}

fn run_text(text: &str) -> End {
    let spec = match JobSpec::parse(text) {
        Ok(spec) => spec,
        Err(error) => return End::failed(ExitCode::BadInput, error.reason(), error.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return End::failed(ExitCode::Infrastructure, "Crashed", error.to_string()),
    };
    let end = runtime.block_on(async {
        let cancelled = Arc::new(AtomicBool::new(false));
        tokio::select! {
            end = perform(spec, Arc::clone(&cancelled)) => end,
            () = stopped() => {
                cancelled.store(true, Ordering::SeqCst);
                End::failed(ExitCode::Cancelled, "Cancelled", "the job was stopped from outside".to_owned())
            }
        }
    });
    // Computation that goes on in the background must not hold up the end.
    runtime.shutdown_background();
    end
}

async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn perform(spec: JobSpec, cancelled: Arc<AtomicBool>) -> End {
    let JobSpec { schema_version: _, identity, store, work } = spec;
    let edgeyard_job::spec::StoreAccess { url, certificate_authority, grant } = store;
    let access = StoreAccess { url, certificate_authority_pem: certificate_authority };
    let client = match Client::new(access, Bearer::Grant(grant)) {
        Ok(client) => client,
        Err(error) => return End::store(&error),
    };
    let job = Job { client, identity };
    if let Some(done) = job.done_before().await {
        return done;
    }
    match work {
        Work::Import(import) => import::import(&job, import).await,
        Work::Optimize(optimize) => work::optimize(&job, optimize, cancelled).await,
        Work::Measure(_) => End::failed(
            ExitCode::BadInput,
            "MalformedSpec",
            "this is edgeyard-optimizer; measuring is the work of edgeyard-device-runner".to_owned(),
        ),
    }
}

/// The store and whose result is made.
struct Job {
    client: Client,
    identity: edgeyard_job::spec::Identity,
}

impl Job {
    /// The end of this very attempt, if its result is in the store: the pod was repeated after it had finished.
    async fn done_before(&self) -> Option<End> {
        let edgeyard_job::spec::Identity { namespace, uid, attempt, .. } = &self.identity;
        let once = self.client.with_patience(std::time::Duration::ZERO);
        let body = once.get_result(namespace, uid, *attempt).await.ok()?;
        let _: Report = serde_json::from_slice(&body).ok()?;
        Some(End::succeeded(
            digest_of(&body).to_string(),
            "this attempt had finished before; its result stands".to_owned(),
        ))
    }

    /// Puts the report; gives its digest.
    async fn report(&self, report: &Report) -> Result<String, End> {
        let edgeyard_job::spec::Identity { namespace, uid, attempt, .. } = &self.identity;
        let body = serde_json::to_vec(report)
            .map_err(|error| End::failed(ExitCode::Infrastructure, "Crashed", error.to_string()))?;
        match self.client.put_result(namespace, uid, *attempt, media_type::REPORT, body).await {
            Ok(descriptor) => Ok(descriptor.digest.to_string()),
            Err(error) => Err(End::store(&error)),
        }
    }
}

impl End {
    fn succeeded(result: String, message: String) -> Self {
        let reason = Termination::SUCCEEDED.to_owned();
        Self { code: ExitCode::Done, termination: Termination { reason, message, result_digest: Some(result) } }
    }

    fn failed(code: ExitCode, reason: &str, message: String) -> Self {
        Self { code, termination: Termination { reason: reason.to_owned(), message, result_digest: None } }
    }

    fn error(code: ExitCode, reason: &str, error: &dyn std::error::Error) -> Self {
        Self::failed(code, reason, explain(error))
    }

    fn store(error: &ClientError) -> Self {
        let (code, reason) = match error.class() {
            ErrorClass::Quota => (ExitCode::Infrastructure, "QuotaExceeded"),
            ErrorClass::Superseded => (ExitCode::Cancelled, "Superseded"),
            ErrorClass::Infrastructure => (ExitCode::Infrastructure, error.reason().unwrap_or("StoreUnavailable")),
            ErrorClass::BadInput => match error {
                ClientError::File { .. } => (ExitCode::Infrastructure, "DiskFailed"),
                error if error.is_not_found() => (ExitCode::BadInput, "DigestNotStored"),
                error => (ExitCode::BadInput, error.reason().unwrap_or("StoreRefused")),
            },
        };
        Self::error(code, reason, error)
    }
}

/// An error with its causes, each once.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn leave(termination: &Termination) {
    let path = std::env::var_os(TERMINATION_LOG_VARIABLE).map_or_else(|| PathBuf::from(TERMINATION_LOG), PathBuf::from);
    // By hand there is no such file; what went wrong stands on standard error anyway.
    if let Err(error) = std::fs::write(&path, termination.to_log())
        && std::env::var_os(TERMINATION_LOG_VARIABLE).is_some()
    {
        eprintln!("error: the termination message cannot be written to {}: {error}", path.display());
    }
}
