//! Questions to a Raspberry Pi's firmware: through its mailbox (/dev/vcio), as `vcgencmd` does it, or else by `vcgencmd`.
//!
//! The mailbox needs no other program, so it works in an image that has none, and costs no process.

use std::os::fd::AsRawFd as _;
use std::process::Command;

use super::Root;

const DEVICE: &str = "/dev/vcio";
const PROGRAM: &str = "/usr/bin/vcgencmd";
/// `_IOWR(100, 0, char *)`: a message of properties (raspberrypi/linux, drivers/char/broadcom/vcio.c).
const PROPERTY: u64 = 0xc000_6400 | ((size_of::<*const u8>() as u64) << 16);
/// The property that takes a command as text and answers with text (raspberrypi/firmware, Mailbox-property-interface).
const GENCMD: u32 = 0x0003_0080;
/// Room for command or answer.
const TEXT: usize = 1024;
const HEADER: usize = 6;

/// Whether this machine has such a firmware.
pub fn is_here(root: &Root) -> bool {
    root.exists(DEVICE) || root.exists(PROGRAM)
}

/// The firmware's answer by mailbox only; cheap enough to ask several times a second.
pub fn ask_mailbox(root: &Root, command: &str) -> Option<String> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open(root.path(DEVICE)).ok()?;
    let mut message = message(command)?;
    // SAFETY: the kernel reads the length from the message's first word and stays within it.
    let code = unsafe { libc::ioctl(device.as_raw_fd(), PROPERTY as _, message.as_mut_ptr()) };
    if code < 0 { None } else { answer(&message) }
}

/// The firmware's answer, by mailbox or by `vcgencmd`.
pub fn ask(root: &Root, command: &str) -> Option<String> {
    ask_mailbox(root, command).or_else(|| {
        let output = Command::new(root.path(PROGRAM)).arg(command).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    })
}

/// Size, request, tag, room, length, error, the text, the end.
fn message(command: &str) -> Option<Vec<u32>> {
    if command.len() + 1 >= TEXT {
        return None;
    }
    let mut words = vec![0; HEADER + TEXT / 4 + 1];
    words[0] = (words.len() * 4) as u32;
    words[2] = GENCMD;
    words[3] = TEXT as u32;
    for (index, chunk) in command.as_bytes().chunks(4).enumerate() {
        let mut bytes = [0; 4];
        bytes[..chunk.len()].copy_from_slice(chunk);
        words[HEADER + index] = u32::from_ne_bytes(bytes);
    }
    Some(words)
}

/// The text in a message that came back; `None` if the firmware did not take it.
fn answer(words: &[u32]) -> Option<String> {
    const DONE: u32 = 0x8000_0000;
    if words[1] != DONE || words[5] != 0 {
        return None;
    }
    let text: Vec<u8> =
        words[HEADER..].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_laid_out_as_the_firmware_wants_it() {
        let mut words = message("get_throttled").unwrap();
        assert_eq!(words.len() * 4, words[0] as usize);
        assert_eq!(words[1..6], [0, 0x0003_0080, 1024, 0, 0]);
        assert_eq!(words[6].to_ne_bytes(), *b"get_");
        assert_eq!(words.last(), Some(&0));
        // Not yet answered; then refused; then answered.
        assert_eq!(answer(&words), None);
        words[1] = 0x8000_0001;
        assert_eq!(answer(&words), None);
        words[1] = 0x8000_0000;
        assert_eq!(answer(&words).as_deref(), Some("get_throttled"));
        assert_eq!(message(&"x".repeat(TEXT)), None);
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_request_number_is_that_of_the_driver() {
        assert_eq!(PROPERTY, 0xc008_6400);
    }
}
