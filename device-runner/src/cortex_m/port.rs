//! A board's serial port: 115200 baud, 8N1, bytes as they are. Reads give up ten times a second to see whether the port was
//! closed meanwhile, so that no thread outlives it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An open port.
pub struct Port {
    file: File,
    closed: Arc<AtomicBool>,
}

impl Port {
    /// Opens a port and drops what is left in it from before.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Without O_NONBLOCK, opening waits for a modem's carrier.
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
        let done = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        let fd = file.as_raw_fd();
        // SAFETY: termios is plain data, and the calls get a valid descriptor and pointers to it.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            done(libc::tcgetattr(fd, &raw mut settings))?;
            libc::cfmakeraw(&raw mut settings);
            done(libc::cfsetspeed(&raw mut settings, libc::B115200))?;
            settings.c_cflag |= libc::CLOCAL | libc::CREAD;
            // A read returns with nothing after a tenth of a second.
            settings.c_cc[libc::VMIN] = 0;
            settings.c_cc[libc::VTIME] = 1;
            done(libc::tcsetattr(fd, libc::TCSANOW, &raw const settings))?;
            done(libc::tcflush(fd, libc::TCIOFLUSH))?;
            let flags = libc::fcntl(fd, libc::F_GETFL);
            done(libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_NONBLOCK))?;
        }
        Ok(Self { file, closed: Arc::default() })
    }

    /// The same port for another thread.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, closed: Arc::clone(&self.closed) })
    }

    /// Ends all readers.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.closed.load(Ordering::Relaxed) {
            match self.file.read(buffer) {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
        Ok(0)
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
