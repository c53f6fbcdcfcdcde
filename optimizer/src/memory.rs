//! How the C library hands out memory, which ONNX Runtime takes its own from too.

/// Blocks of this size and above come from the system, and go back to it when they are freed.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 4 << 20;

/// Gives large blocks back at once. Left alone, glibc raises this size to that of the largest block that was ever freed, up to 32 MiB, and
/// keeps what is smaller for later: after calibration, a hundred megabytes that nobody uses.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes two numbers and touches nothing of ours. No other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
