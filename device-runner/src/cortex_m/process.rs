//! What the firmware runs in: a QEMU process with its command line, its pipes and its end, or a board at a serial port. Writing
//! and reading have threads of their own, so that a guest that hangs can block neither the caller nor the watchdog.

use super::frame::{self, Frame};
use super::mix::{Counter, InstructionMix};
use super::port::Port;
use super::{CortexMError, Machine};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The oldest QEMU whose counts were proved.
const MINIMUM_MAJOR: u32 = 10;
/// What is kept of the console.
const CONSOLE_LIMIT: usize = 4096;

/// How frames reach the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// QEMU's standard streams, by semihosting: the fast way.
    Streams,
    /// The machine's first serial port, as on a board: some 20 kB/s.
    Serial,
}

/// A running QEMU, or a board.
pub struct Process {
    /// None of a board.
    child: Option<Child>,
    /// A board's port.
    port: Option<Port>,
    /// None once the pipe was closed.
    requests: Option<Sender<Vec<u8>>>,
    replies: Receiver<io::Result<Frame>>,
    console: Arc<Mutex<Vec<u8>>>,
    counter: Option<Counter>,
}

impl Process {
    /// Starts QEMU with the machine's firmware.
    pub fn start(machine: &Machine, link: Link, counter: Option<Counter>) -> Result<Self, CortexMError> {
        check_version(machine)?;
        if !machine.firmware.is_file() {
            return Err(CortexMError::FirmwareMissing { path: machine.firmware.clone() });
        }
        let mut command = command(machine, link);
        if let Some(counter) = &counter {
            command.arg("-plugin").arg(counter.argument());
        }
        let mut child =
            command.spawn().map_err(|source| CortexMError::QemuMissing { path: machine.qemu.clone(), source })?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(CortexMError::Protocol("QEMU has no pipes"));
        };
        let console = Arc::new(Mutex::new(Vec::new()));
        let (requests, outbox) = mpsc::channel();
        let (inbox, replies) = mpsc::channel();
        std::thread::spawn(move || send(stdin, outbox));
        std::thread::spawn(move || receive(stdout, inbox));
        let kept = Arc::clone(&console);
        std::thread::spawn(move || keep(stderr, &kept));
        Ok(Process { child: Some(child), port: None, requests: Some(requests), replies, console, counter })
    }

    /// Opens a board's serial port.
    pub fn attach(path: &Path) -> Result<Self, CortexMError> {
        let port = Port::open(path).map_err(|source| CortexMError::Port { path: path.to_owned(), source })?;
        let (writer, reader) = (port.share()?, port.share()?);
        let (requests, outbox) = mpsc::channel();
        let (inbox, replies) = mpsc::channel();
        std::thread::spawn(move || send(writer, outbox));
        std::thread::spawn(move || receive(reader, inbox));
        let console = Arc::default();
        Ok(Process { child: None, port: Some(port), requests: Some(requests), replies, console, counter: None })
    }

    /// Queues bytes for the guest.
    pub fn send(&mut self, bytes: Vec<u8>) {
        // A guest that ended shows when its answer is awaited.
        if let Some(requests) = &self.requests {
            let _ = requests.send(bytes);
        }
    }

    /// Waits for the next frame; past `patience` the process is killed.
    pub fn receive(&mut self, patience: Duration, doing: &'static str) -> Result<Frame, CortexMError> {
        match self.replies.recv_timeout(patience) {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(e)) if e.kind() == io::ErrorKind::InvalidData => {
                self.stop();
                Err(CortexMError::Protocol("bytes that are no frame"))
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.ended(doing)),
            Err(RecvTimeoutError::Timeout) => {
                self.stop();
                Err(CortexMError::Hang { after: patience, doing })
            }
        }
    }

    /// Lets the guest end by itself and returns what a plugin counted, if there is one.
    pub fn finish(mut self) -> Result<Option<InstructionMix>, CortexMError> {
        self.requests = None;
        if let Some(child) = &mut self.child {
            while self.replies.recv().is_ok() {}
            child.wait()?;
        }
        self.counter.as_ref().map(Counter::read).transpose()
    }

    /// The last lines of the console.
    pub fn console(&self) -> String {
        let bytes = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The emulator's process id.
    #[cfg(test)]
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("a test of QEMU").id()
    }

    fn ended(&mut self, doing: &'static str) -> CortexMError {
        self.requests = None;
        let status = match self.child.as_mut().map(Child::wait) {
            Some(Ok(status)) => status.to_string(),
            Some(Err(e)) => e.to_string(),
            None => "the serial port is gone".to_owned(),
        };
        CortexMError::Ended { status, doing, console: self.console() }
    }

    fn stop(&mut self) {
        self.requests = None;
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(port) = &self.port {
            port.close();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One command line for all: another moves the counts of code outside of operators, and every flag here has a reason.
/// `sleep=off` keeps the guest's clock from following the host's; the sandbox keeps semihosting from starting programs.
fn command(machine: &Machine, link: Link) -> Command {
    let mut command = Command::new(&machine.qemu);
    let (serial, word): (&[&str], _) = match link {
        Link::Streams => (&["-serial", "none"], "streams"),
        Link::Serial => (&["-chardev", "stdio,id=port,signal=off", "-serial", "chardev:port"], "uart"),
    };
    command
        .args(["-M", &machine.name, "-nodefaults", "-display", "none", "-monitor", "none"])
        .args(serial)
        .args(["-semihosting-config", &format!("enable=on,target=native,arg=edgeyard,arg={word}")])
        .args(["-icount", &format!("shift={},sleep=off", machine.icount_shift)])
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
        .arg("-kernel")
        .arg(&machine.firmware)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn check_version(machine: &Machine) -> Result<(), CortexMError> {
    let missing = |source| CortexMError::QemuMissing { path: machine.qemu.clone(), source };
    let output = Command::new(&machine.qemu).arg("--version").stdin(Stdio::null()).output().map_err(missing)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().next().unwrap_or("silent").trim().to_owned();
    match major(&found) {
        Some(major) if major >= MINIMUM_MAJOR => Ok(()),
        _ => Err(CortexMError::QemuTooOld { path: machine.qemu.clone(), found }),
    }
}

/// The major version that QEMU says of itself.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix("QEMU emulator version ")?.split('.').next()?.parse().ok()
}

fn send(mut to: impl Write, requests: Receiver<Vec<u8>>) {
    for bytes in requests {
        if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn receive(from: impl Read, replies: Sender<io::Result<Frame>>) {
    let mut from = BufReader::with_capacity(1 << 16, from);
    loop {
        let next = frame::read(&mut from);
        let (last, message) = match next {
            Ok(None) => return,
            Ok(Some(frame)) => (false, Ok(frame)),
            Err(e) => (true, Err(e)),
        };
        if replies.send(message).is_err() || last {
            return;
        }
    }
}

fn keep(mut from: impl Read, console: &Mutex<Vec<u8>>) {
    let mut buffer = [0u8; 512];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let mut kept = console.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&buffer[..n]);
        let excess = kept.len().saturating_sub(CONSOLE_LIMIT);
        kept.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_qemu_says() {
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"), Some(10));
        assert_eq!(major("QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7)"), Some(7));
        assert_eq!(major("true (GNU coreutils) 19.1"), None);
    }
}
