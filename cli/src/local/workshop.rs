//! The store and the job programs, as processes of this one: they end with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use edgeyard_artifact::grant::{self, Claims, SigningKey};
use edgeyard_artifact::{Bearer, Client, Digest, StoreAccess};
use edgeyard_job::report::{ImportedInput, ReportResult};
use edgeyard_job::spec::{self, Identity, ImportFrom, JobSpec, Work};
use edgeyard_job::{Progress, Report, exit};
use edgeyard_plan::inputs::{self, PlannedInput};
use edgeyard_plan::outcome::{Outcome, PodEnd};
use edgeyard_plan::{Refusal, jobs, names};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::process::{Child, Command};

use super::files::Files;

/// A grant outlives any job; the key that signs it does not outlive this process.
const GRANT_SECONDS: i64 = 7 * 86_400;
const LARGEST_INPUT: u64 = 64 << 30;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Where jobs are done.
pub(super) struct Workshop {
    out: PathBuf,
    pub(super) client: Client,
    pub(super) files: Files,
    url: String,
    key: SigningKey,
    allow_private: bool,
    /// Job specs, which carry grants, and last words.
    scratch: tempfile::TempDir,
    count: AtomicU32,
    nonce: Duration,
    bars: MultiProgress,
    _store: Child,
}

impl Workshop {
    /// Starts a store whose data stay in `out`.
    pub(super) async fn open(out: &Path, files: Files, allow_private: bool) -> Result<Self> {
        let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
        let key = grant::generate().map_err(|error| anyhow::anyhow!("cannot make a key: {error}"))?;
        // Random and known to nobody else: good enough as a password, too.
        let token = edgeyard_artifact::digest_of(
            grant::generate().map_err(|error| anyhow::anyhow!("cannot make a token: {error}"))?.to_bytes(),
        )
        .hex();
        let file = |name: &str| scratch.path().join(name);
        std::fs::write(file("token"), &token)?;
        std::fs::write(file("key"), grant::encode_public(&key.verifying_key()))?;
        let log = out.join("logs/store.log");
        let mut store = Command::new(program("edgeyard-store")?)
            .args(["serve", "--insecure", "--listen", "127.0.0.1:0", "--data"])
            .arg(out.join("store"))
            .args(["--quota-bytes", &i64::MAX.to_string(), "--static-token"])
            .arg(file("token"))
            .arg("--grant-public-key")
            .arg(file("key"))
            .arg("--address-file")
            .arg(file("address"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start edgeyard-store")?;
        let address = loop {
            if let Ok(address) = std::fs::read_to_string(file("address")) {
                break address;
            }
            if let Some(status) = store.try_wait()? {
                bail!("edgeyard-store ended with {status}: {}", tail(&log));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let url = format!("http://{address}");
        let access = StoreAccess { url: url.clone(), certificate_authority_pem: None };
        let client = Client::new(access, Bearer::Token(token))?.with_patience(Duration::from_secs(10));
        let (out, count, bars) = (out.to_owned(), AtomicU32::new(0), MultiProgress::new());
        let nonce = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { out, client, files, url, key, allow_private, scratch, count, nonce, bars, _store: store })
    }

    /// A UID for an object that no API server has given one. Another one each time: a folder may be used again, and the
    /// store takes one result of each attempt.
    pub(super) fn uid<T: serde::Serialize>(&self, object: &T) -> Result<String> {
        let hex = edgeyard_artifact::digest_of(serde_json::to_vec(&(self.nonce.as_nanos(), object))?).hex();
        Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]))
    }

    /// Says something above the progress bars.
    pub(super) fn say(&self, text: &str) {
        self.bars.suspend(|| eprintln!("{text}"));
    }

    /// A file of the results, by its name in the folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Puts all inputs into the store: known files by upload, others by an import job. Gives what the job found.
    pub(super) async fn bring(
        &self,
        namespace: &str,
        object: &str,
        uid: &str,
        wanted: &[PlannedInput],
    ) -> Result<Result<BTreeMap<String, ImportedInput>, Refusal>> {
        let mut paths = BTreeMap::new();
        for input in wanted {
            let Some(file) = self.files.of(input)? else { continue };
            if input.stored().is_some() {
                self.client.put_blob(namespace, file, input.media_type).await?;
            } else {
                paths.insert(input.name.clone(), file);
            }
        }
        let identity =
            Identity { namespace: namespace.into(), name: object.into(), uid: names::import_key(uid), attempt: 1 };
        let mut job = jobs::import_spec(identity, self.access(), wanted, self.allow_private, LARGEST_INPUT);
        let Work::Import(import) = &mut job.work else { bail!("an import is not an import") };
        if import.inputs.is_empty() {
            return Ok(Ok(BTreeMap::new()));
        }
        for input in &mut import.inputs {
            // A pod has the ConfigMap or claim mounted; here is the file itself.
            if let Some(path) = paths.get(&input.name) {
                input.from = ImportFrom::Path(path.to_string_lossy().into_owned());
            }
        }
        let outcome = self.perform("edgeyard-optimizer", &format!("{object} import"), None, job).await?;
        let result = match finished(outcome) {
            Ok(result) => result,
            Err(why) => return Ok(Err(why)),
        };
        let report: Report = self.read(namespace, &result).await?;
        let ReportResult::Import { inputs: found } = report.result else {
            bail!("the import left another job's report")
        };
        Ok(inputs::imported(wanted, &found))
    }

    /// Where jobs find the store; [`Workshop::perform`] puts in the grant.
    pub(super) fn access(&self) -> spec::StoreAccess {
        spec::StoreAccess { url: self.url.clone(), certificate_authority: None, grant: String::new() }
    }

    /// A document that a job left.
    pub(super) async fn read<T: serde::de::DeserializeOwned>(&self, namespace: &str, digest: &str) -> Result<T> {
        let digest: Digest = digest.parse()?;
        let bytes = self.client.get_blob(namespace, &digest).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("cannot read {digest}"))
    }

    /// Runs a job to its end. `lease` is the device (`namespace/name`) and its fencing token.
    pub(super) async fn perform(
        &self,
        name: &str,
        label: &str,
        lease: Option<(String, i64)>,
        mut job: JobSpec,
    ) -> Result<Outcome> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let (device, fencing_token) = lease.unzip();
        let Identity { namespace, name: _, uid, attempt } = job.identity.clone();
        let read = jobs::reads(&job.work).iter().map(|digest| digest.parse()).collect::<Result<Vec<Digest>, _>>()?;
        let expires_at = unix_seconds() + GRANT_SECONDS;
        let claims = Claims {
            namespace: namespace.clone(),
            uid: uid.clone(),
            attempt,
            device,
            fencing_token,
            read,
            expires_at,
            key_id: String::new(),
        };
        job.store.grant = grant::sign(&self.key, &claims);
        let spec_file = self.scratch.path().join(format!("{number}.json"));
        let words = self.scratch.path().join(format!("{number}.words"));
        std::fs::write(&spec_file, serde_json::to_vec(&job)?)?;
        let log = self.path(&format!("logs/{number:03}-{}.log", label.replace([' ', '/'], "-")));
        let output = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let started = std::time::Instant::now();
        let mut child = Command::new(program(name)?)
            .args(["job", "--spec"])
            .arg(&spec_file)
            .env(exit::TERMINATION_LOG_VARIABLE, &words)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(ProgressStyle::with_template("{spinner} {prefix}: {msg} {elapsed}")?);
        bar.set_prefix(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                () = tokio::time::sleep(BETWEEN_LOOKS) => {
                    // Only for people: a look that fails is followed by another.
                    if let Ok(Some(seen)) = self.client.get_progress::<Progress>(&namespace, &uid, attempt).await {
                        let share = if seen.total > 0 { format!(" {}/{}", seen.done, seen.total) } else { String::new() };
                        bar.set_message(format!("{} {}{share}", seen.step, seen.message));
                    }
                }
            }
        };
        bar.finish_and_clear();
        self.bars.remove(&bar);
        use std::os::unix::process::ExitStatusExt as _;
        let exit_code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        let said = std::fs::read_to_string(&words).ok().filter(|text| !text.is_empty()).unwrap_or_else(|| tail(&log));
        let end = PodEnd { exit_code, log: Some(said), ..PodEnd::default() };
        let outcome = end.outcome(name);
        let how = match &outcome {
            Outcome::Done { .. } => "done".to_owned(),
            Outcome::ConstraintNotMet { why, .. } => format!("outside the constraints: {why}"),
            Outcome::Impossible(why) | Outcome::Infrastructure(why) | Outcome::Stopped(why) => {
                format!("failed: {}: {why}", why.reason)
            }
        };
        self.say(&format!("{label}: {how} ({:.1} s)", started.elapsed().as_secs_f64()));
        Ok(outcome)
    }
}

/// The result's digest of a job that has to succeed.
pub(super) fn finished(outcome: Outcome) -> Result<String, Refusal> {
    let missing = || Refusal::new(edgeyard_plan::reason::RESULT_MISSING, "the job ended without naming its result");
    match outcome {
        Outcome::Done { result } => result.ok_or_else(missing),
        Outcome::ConstraintNotMet { why, .. }
        | Outcome::Impossible(why)
        | Outcome::Infrastructure(why)
        | Outcome::Stopped(why) => Err(why),
    }
}

/// A program of ours: beside this one, or wherever PATH leads.
fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is neither beside this program nor in PATH: install it"))
}

pub(super) fn unix_seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
