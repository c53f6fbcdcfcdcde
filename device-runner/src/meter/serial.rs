//! A serial device, read without waiting. Analysers are USB devices that call themselves serial: speed means nothing to them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use super::{failed, missing};
use crate::error::Failure;
use crate::machine::Root;

/// An analyser answers at once.
const PATIENCE: Duration = Duration::from_secs(3);

/// An open device.
#[derive(Debug)]
pub struct Serial {
    file: File,
    path: String,
}

impl Serial {
    /// Opens a device and takes off all that a terminal would do to its bytes.
    pub fn open(root: &Root, path: &str) -> Result<Self, Failure> {
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(root.path(path))
            .map_err(|error| missing(format!("{path} cannot be opened: {error}")))?;
        // SAFETY: termios is plain data, and the calls get a valid descriptor and pointer.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(file.as_raw_fd(), &raw mut settings) != 0 {
                return Err(missing(format!("{path} is no serial device")));
            }
            libc::cfmakeraw(&raw mut settings);
            settings.c_cflag |= libc::CLOCAL | libc::CREAD;
            if libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const settings) != 0 {
                return Err(missing(format!("{path} cannot be set up: {}", std::io::Error::last_os_error())));
            }
        }
        Ok(Self { file, path: path.into() })
    }

    fn gone(&self, why: impl std::fmt::Display) -> Failure {
        failed(format!("{} is gone: {why}", self.path))
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| self.gone(error))
    }

    /// All that has arrived.
    pub fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        let (mut all, mut chunk) = (Vec::new(), [0; 16_384]);
        loop {
            match self.file.read(&mut chunk) {
                Ok(0) => return Err(self.gone("it was unplugged")),
                Ok(count) => all.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(error) => return Err(self.gone(error)),
            }
            // A device that never stops must not keep the sampler.
            if all.len() > 1 << 20 {
                return Ok(all);
            }
        }
    }

    /// What arrives up to and with a mark, and what came after it; all before is kept in the answer.
    pub fn receive_until(&mut self, mark: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let mut all = Vec::new();
        let end = Instant::now() + PATIENCE;
        loop {
            all.extend(self.receive()?);
            if let Some(at) = all.windows(mark.len()).position(|window| window == mark) {
                let rest = all.split_off(at + mark.len());
                return Ok((all, rest));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(format!(
                    "{} did not answer {:?} within {} s; it said {:?}",
                    self.path,
                    String::from_utf8_lossy(mark),
                    PATIENCE.as_secs(),
                    String::from_utf8_lossy(&all[..all.len().min(200)])
                )));
            }
            let mut poll = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            unsafe { libc::poll(&raw mut poll, 1, left.as_millis().min(100) as libc::c_int) };
        }
    }
}
