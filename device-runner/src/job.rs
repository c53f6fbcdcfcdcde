//! `job`: does what a job spec says, inside a pod.
//!
//! Inputs come from the store by digest, the record goes there; the last words go into the termination log, where the
//! operator finds the record's digest.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use edgeyard_artifact::{Bearer, Client, ClientError, Digest, ErrorClass, StoreAccess};
use edgeyard_job::spec::{Identity as SpecIdentity, Measure, ModelFormat};
use edgeyard_job::{ExitCode, JobSpec, Progress, Termination, Work, exit, media_type};

use crate::error::{Class, Failure};
use crate::lane::Watch;
use crate::plan::{Data, Device, Identity, Lease, Plan, Variant};
use crate::progress::Throttled;
use crate::{accuracy, session};

/// Runs the job, leaves its last words, and gives its exit code.
pub fn execute(spec: &Path, stopped: Arc<AtomicBool>) -> ExitCode {
    let (termination, code) = match attempt(spec, stopped) {
        Ok(digest) => {
            let message = "measured".to_owned();
            let reason = Termination::SUCCEEDED.to_owned();
            (Termination { reason, message, result_digest: Some(digest) }, ExitCode::Done)
        }
        Err(failure) => {
            eprintln!("error: {failure} ({})", failure.reason);
            (failure.termination(), failure.exit_code())
        }
    };
    let path = std::env::var(exit::TERMINATION_LOG_VARIABLE).unwrap_or_else(|_| exit::TERMINATION_LOG.into());
    if let Err(error) = fs_err::write(&path, termination.to_log()) {
        eprintln!("warning: the last words could not be left: {error}");
    }
    code
}

fn attempt(spec: &Path, stopped: Arc<AtomicBool>) -> Result<String, Failure> {
    let text = fs_err::read_to_string(spec)?;
    let spec = JobSpec::parse(&text).map_err(|error| Failure::bad_input(error.reason(), error.to_string()))?;
    let JobSpec { schema_version: _, identity, store, work } = spec;
    let Work::Measure(measure) = work else {
        return Err(Failure::bad_input("WrongWork", "the device-runner takes specs of kind Measure only"));
    };
    let watch = Watch::new(stopped, Some(measure.deadline_seconds));
    let access = StoreAccess { url: store.url, certificate_authority_pem: store.certificate_authority };
    let client = Client::new(access, Bearer::Grant(store.grant)).map_err(store_failure)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::infrastructure("RuntimeNotStarted", error.to_string()))?;
    let folder = tempfile::tempdir()?;
    let job = Job { client, identity, runtime, watch };
    let plan = job.plan(measure, folder.path())?;
    let outcome = job.measure(&plan)?;

    if outcome.failures.iter().all(Option::is_some)
        && let Some(Some(failure)) = outcome.failures.into_iter().next()
    {
        return Err(failure);
    }
    let (bytes, _) =
        outcome.record.seal().map_err(|error| Failure::infrastructure("RecordUnwritable", error.to_string()))?;
    let namespace = &job.identity.namespace;
    for blob in outcome.blobs {
        job.wait(job.client.put_blob(namespace, blob, media_type::SAMPLES))?;
    }
    let put = job.client.put_result(namespace, &job.identity.uid, job.identity.attempt, media_type::RECORD, bytes);
    Ok(job.wait(put)?.digest.to_string())
}

struct Job {
    client: Client,
    identity: SpecIdentity,
    runtime: tokio::runtime::Runtime,
    watch: Watch,
}

impl Job {
    /// Waits for the store, but not longer than the run may take.
    fn wait<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
        self.runtime.block_on(async {
            let mut call = std::pin::pin!(call);
            loop {
                tokio::select! {
                    answer = &mut call => return answer.map_err(store_failure),
                    () = tokio::time::sleep(std::time::Duration::from_millis(50)) => self.watch.check()?,
                }
            }
        })
    }

    fn fetch(&self, digest: &str) -> Result<Vec<u8>, Failure> {
        let digest: Digest =
            digest.parse().map_err(|error| Failure::bad_input("MalformedSpec", format!("in the job spec: {error}")))?;
        Ok(self.wait(self.client.get_blob(&self.identity.namespace, &digest))?.to_vec())
    }

    fn plan(&self, measure: Measure, folder: &Path) -> Result<Plan, Failure> {
        let Measure {
            device,
            backend,
            limits,
            workload,
            threads,
            variants,
            accuracy,
            energy,
            meter,
            cool_down_millidegrees,
            deadline_seconds: _,
        } = measure;
        if variants.is_empty() {
            return Err(Failure::bad_input("MalformedSpec", "the job spec names no variants"));
        }
        let variants = variants
            .into_iter()
            .enumerate()
            .map(|(index, variant)| {
                self.say("Fetch", &format!("{}/{}", variant.variant, variant.target));
                let bytes = self.fetch(&variant.digest)?;
                let extension = if variant.format == ModelFormat::Onnx { "onnx" } else { "tflite" };
                let path = folder.join(format!("{index}.{extension}"));
                fs_err::write(&path, &bytes)?;
                Ok(Variant {
                    model: variant.model,
                    variant: variant.variant,
                    target: variant.target,
                    format: variant.format,
                    digest: variant.digest,
                    size_bytes: bytes.len() as u64,
                    path,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let data = accuracy
            .map(|evaluation| {
                self.say("Fetch", "evaluation data");
                let archive = self.fetch(&evaluation.digest)?;
                let data: Data = accuracy::read_data(&archive, Some(evaluation.metric), "the evaluation data")?;
                Ok::<_, Failure>(data)
            })
            .transpose()?;
        let SpecIdentity { namespace, name, uid, attempt } = self.identity.clone();
        Ok(Plan {
            identity: Identity { namespace: Some(namespace), name, uid: Some(uid), attempt },
            device: Device {
                class: device.class,
                fidelity: device.fidelity,
                lease: Some(Lease {
                    namespace: device.namespace,
                    name: device.name,
                    request: device.request,
                    fencing_token: device.fencing_token,
                }),
            },
            backend,
            limits,
            workload,
            threads: threads.max(1),
            variants,
            data,
            keep_outputs: false,
            energy,
            meter,
            cool_down_millidegrees,
        })
    }

    fn say(&self, step: &str, message: &str) {
        let progress = Progress { step: step.into(), message: format!("{step} {message}"), done: 0, total: 0 };
        post(&self.runtime, &self.client, &self.identity, progress);
    }

    /// Measures, and tells the store about once a second how far it is. The posts are made on another thread: a store that
    /// is away must not disturb the measurement.
    fn measure(&self, plan: &Plan) -> Result<session::Outcome, Failure> {
        let (sender, receiver) = mpsc::channel::<Progress>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok(mut progress) = receiver.recv() {
                    // Only the newest one counts.
                    while let Ok(newer) = receiver.try_recv() {
                        progress = newer;
                    }
                    post(&self.runtime, &self.client, &self.identity, progress);
                }
            });
            let observer = Throttled::new(move |progress| {
                let _ = sender.send(progress);
            });
            session::run(plan, &self.watch, &observer)
        })
    }
}

fn post(runtime: &tokio::runtime::Runtime, client: &Client, identity: &SpecIdentity, progress: Progress) {
    let SpecIdentity { namespace, uid, attempt, .. } = identity;
    let put = client.put_progress(namespace, uid, *attempt, &progress);
    let patience = std::time::Duration::from_secs(2);
    let told = runtime.block_on(async { tokio::time::timeout(patience, put).await });
    if !matches!(told, Ok(Ok(()))) {
        tracing::debug!(step = progress.step, "progress was not taken");
    }
}

fn store_failure(error: ClientError) -> Failure {
    let message = {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    };
    let reason = error.reason().map(str::to_owned);
    let (class, fallback) = match error.class() {
        ErrorClass::BadInput => (Class::BadInput, "StoreRefused"),
        ErrorClass::Quota => (Class::BadInput, "QuotaExceeded"),
        ErrorClass::Superseded => (Class::Cancelled, "Superseded"),
        ErrorClass::Infrastructure => (Class::Infrastructure, "StoreUnavailable"),
    };
    Failure { reason: reason.unwrap_or_else(|| fallback.into()), message, class }
}
