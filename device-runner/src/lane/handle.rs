//! The parent's side: starts a lane, asks it, and tells its death apart from its refusals.

use std::io::{BufReader, BufWriter, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::protocol::{Reply, Request, receive, send};
use crate::error::Failure;
use crate::machine::cgroup;

/// How often the runner looks whether it was told to stop.
const ATTENTION: Duration = Duration::from_millis(50);

/// What can end a run before its end.
#[derive(Clone, Debug)]
pub struct Watch {
    stopped: Arc<AtomicBool>,
    deadline: Option<Instant>,
    seconds: u64,
}

impl Watch {
    /// Stops when `stopped` becomes true, or after some seconds.
    pub fn new(stopped: Arc<AtomicBool>, deadline_seconds: Option<u64>) -> Self {
        let deadline = deadline_seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        Self { stopped, deadline, seconds: deadline_seconds.unwrap_or(0) }
    }

    /// # Errors
    /// `Cancelled` or `DeadlineExceeded`.
    pub fn check(&self) -> Result<(), Failure> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Failure::cancelled());
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Failure::infrastructure(
                "DeadlineExceeded",
                format!(
                    "the run was not done after {} s: give it more time, or take a shorter profile or fewer variants",
                    self.seconds
                ),
            ));
        }
        Ok(())
    }
}

impl Watch {
    /// Whether so much time is left, and a half more.
    pub fn leaves(&self, time: Duration) -> bool {
        self.deadline.is_none_or(|deadline| Instant::now() + time + time / 2 < deadline)
    }
}

type Answer = std::io::Result<Option<(Reply, Vec<u8>)>>;

/// A lane.
#[derive(Debug)]
pub struct Lane {
    child: Child,
    to: Option<BufWriter<ChildStdin>>,
    from: Receiver<Answer>,
    /// The end of what the runtime printed.
    said: Arc<Mutex<Vec<u8>>>,
    oom_kills_before: Option<u64>,
}

impl Lane {
    /// Starts a lane.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::infrastructure("LaneNotStarted", format!("no lane: {error}"));
        // Through /proc/self/exe, because a newer build may have taken this program's path.
        let mut command = Command::new("/proc/self/exe");
        command.arg("lane").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // The runtimes of this process must not send telemetry.
        command.env("ORT_DISABLE_TELEMETRY", "1");
        // SAFETY: prctl is async-signal-safe. The lane dies with the runner, however that ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let oom_kills_before = cgroup::oom_kills();
        let mut child = command.spawn().map_err(failed)?;
        let to = child.stdin.take().map(BufWriter::new);
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, from) = sync_channel(1);
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let answer = receive::<Reply>(&mut stdout);
                let last = !matches!(answer, Ok(Some(_)));
                if sender.send(answer).is_err() || last {
                    return;
                }
            }
        });
        let stderr = child.stderr.take().expect("stderr is piped");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        std::thread::spawn(move || listen(stderr, &heard));
        Ok(Self { child, to, from, said, oom_kills_before })
    }

    /// The process' id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the lane could not do; `RuntimeCrashed` or `OOMKilled` if it died; what ended the run.
    pub fn ask(&mut self, watch: &Watch, request: &Request, payload: &[u8]) -> Result<(Reply, Vec<u8>), Failure> {
        watch.check()?;
        let sent = match self.to.as_mut() {
            Some(to) => send(to, request, payload),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        if sent.is_err() {
            return Err(self.death());
        }
        loop {
            match self.from.recv_timeout(ATTENTION) {
                Ok(Ok(Some((Reply::Failed(failure), _)))) => return Err(failure),
                Ok(Ok(Some(answer))) => return Ok(answer),
                Ok(Ok(None)) | Err(RecvTimeoutError::Disconnected) => return Err(self.death()),
                Ok(Err(error)) => {
                    self.kill();
                    let died = self.death();
                    return Err(Failure { message: format!("{} ({error})", died.message), ..died });
                }
                Err(RecvTimeoutError::Timeout) => watch.check()?,
            }
        }
    }

    /// Lets the lane end by itself.
    pub fn finish(mut self) {
        self.to = None;
        let patience = Instant::now() + Duration::from_secs(2);
        while Instant::now() < patience {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Why the lane is gone.
    fn death(&mut self) -> Failure {
        self.to = None;
        let status = self.child.wait();
        // The kernel counts a kill shortly before or after the process is gone.
        let oom = self.oom_kills_before.zip(cgroup::oom_kills()).is_some_and(|(before, now)| now > before);
        match status {
            Ok(status) => {
                let mut failure = cause_of_death(status, oom);
                if let Some(last) = self.last_words() {
                    failure.message.push_str(&format!("; it said: {last}"));
                }
                failure
            }
            Err(error) => Failure::infrastructure("RuntimeCrashed", format!("the lane is gone: {error}")),
        }
    }

    /// The last line that the runtime printed.
    fn last_words(&self) -> Option<String> {
        let said = self.said.lock().ok()?;
        let text = String::from_utf8_lossy(&said);
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(line.chars().take(300).collect())
    }

    fn kill(&mut self) {
        // SAFETY: the group was made for this child, which has not been waited for, so the id is still its own.
        unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// Keeps the end of what a lane prints. Runtimes are talkative; people see it only when something went wrong.
fn listen(mut from: ChildStderr, said: &Mutex<Vec<u8>>) {
    const KEPT: usize = 4096;
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        tracing::debug!("lane: {}", String::from_utf8_lossy(&piece[..length]).trim_end());
        let Ok(mut said) = said.lock() else { return };
        said.extend_from_slice(&piece[..length]);
        let surplus = said.len().saturating_sub(KEPT);
        said.drain(..surplus);
    }
}

fn cause_of_death(status: ExitStatus, oom: bool) -> Failure {
    match (status.signal(), status.code()) {
        (Some(libc::SIGKILL), _) if oom => Failure::infrastructure(
            "OOMKilled",
            "the kernel killed the runtime because the memory limit was reached: give the device class more memory or \
             take a smaller model",
        ),
        (Some(signal), _) => Failure::infrastructure(
            "RuntimeCrashed",
            format!("the runtime was ended by signal {signal} ({}): the model may have met a bug of it", name(signal)),
        ),
        (None, code) => Failure::infrastructure(
            "RuntimeCrashed",
            format!("the runtime ended the process with exit code {}", code.unwrap_or(-1)),
        ),
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL, an instruction that this processor does not have",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGTERM => "SIGTERM",
        _ => "see signal(7)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_for_memory_is_told_apart() {
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        assert_eq!(cause_of_death(killed, true).reason, "OOMKilled");
        assert_eq!(cause_of_death(killed, false).reason, "RuntimeCrashed");
        let crashed = cause_of_death(ExitStatus::from_raw(libc::SIGSEGV), true);
        assert!(crashed.reason == "RuntimeCrashed" && crashed.message.contains("SIGSEGV"), "{crashed:?}");
        assert!(cause_of_death(ExitStatus::from_raw(3 << 8), false).message.contains("exit code 3"));
    }

    #[test]
    fn a_run_ends_when_it_is_told_to() {
        let stopped = Arc::new(AtomicBool::new(false));
        let watch = Watch::new(Arc::clone(&stopped), None);
        assert!(watch.check().is_ok());
        stopped.store(true, Ordering::Relaxed);
        assert_eq!(watch.check().unwrap_err().reason, "Cancelled");
        let late = Watch::new(Arc::default(), Some(0));
        assert_eq!(late.check().unwrap_err().reason, "DeadlineExceeded");
    }
}
