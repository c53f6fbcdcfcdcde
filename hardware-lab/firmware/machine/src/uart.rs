//! The same link over a serial port, for boards (and for emulators whose semihosting is not wanted).

use crate::board;

/// Reads exactly `buffer.len()` bytes.
pub fn read(buffer: &mut [u8]) {
    for byte in buffer {
        *byte = board::uart_read();
    }
}

/// Writes all bytes.
pub fn write(bytes: &[u8]) {
    for byte in bytes {
        board::uart_write(*byte);
    }
}
