//! Requests to the debugger or emulator that runs this core: its files are the link to the host.

use core::arch::asm;
use core::ffi::CStr;

/// One request; see "Semihosting for AArch32 and AArch64" for the numbers.
fn request(operation: usize, arguments: *const usize) -> isize {
    let result: isize;
    // SAFETY: the breakpoint hands `arguments` to the host, which reads and writes only what the operation says.
    unsafe {
        asm!("bkpt #0xAB", inlateout("r0") operation as isize => result, in("r1") arguments, options(nostack));
    }
    result
}

/// Mode of [`open`].
#[derive(Clone, Copy)]
pub enum Mode {
    /// `rb`
    Read = 1,
    /// `wb`
    Write = 5,
}

/// Opens a file of the host.
pub fn open(path: &CStr, mode: Mode) -> Option<usize> {
    let arguments = [path.as_ptr() as usize, mode as usize, path.to_bytes().len()];
    usize::try_from(request(0x01, arguments.as_ptr())).ok()
}

/// Reads at most `buffer.len()` bytes; 0 at the end.
pub fn read(file: usize, buffer: &mut [u8]) -> usize {
    let arguments = [file, buffer.as_mut_ptr() as usize, buffer.len()];
    let left = request(0x06, arguments.as_ptr());
    buffer.len().saturating_sub(usize::try_from(left).unwrap_or(buffer.len()))
}

/// Writes all bytes; false if the host refused.
pub fn write(file: usize, bytes: &[u8]) -> bool {
    let arguments = [file, bytes.as_ptr() as usize, bytes.len()];
    request(0x05, arguments.as_ptr()) == 0
}

/// Whether the host started us with this word on the command line.
pub fn started_with(word: &str) -> bool {
    let mut line = [0u8; 80];
    let arguments = [line.as_mut_ptr() as usize, line.len()];
    request(0x15, arguments.as_ptr()) == 0 && line.windows(word.len()).any(|w| w == word.as_bytes())
}

/// Text for the host's console.
pub fn say(text: &str) {
    for byte in text.as_bytes() {
        request(0x03, core::ptr::from_ref(byte).cast());
    }
}

/// Ends the emulation with an exit status.
pub fn exit(code: usize) -> ! {
    const APPLICATION_EXIT: usize = 0x20026;
    loop {
        let arguments = [APPLICATION_EXIT, code];
        request(0x20, arguments.as_ptr());
    }
}
