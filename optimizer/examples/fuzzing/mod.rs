//! What the fuzzers share: the loop, the watch over hangs and memory, and damage to bytes. A fuzzer is started as
//! `SECONDS SEED FILES…`; its last line of output is the count of executions, or the path of the input that broke the
//! reader, with exit code 1. With 0 seconds the files themselves are tried, once each: what was found before. Each input is written to `current.bin` before it is tried, so that one that ends the process
//! is not lost.

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Inputs are kilobytes: a reader that needs this much of memory for one was talked into it.
const MOST_MEMORY: usize = 1 << 30;
/// An execution takes milliseconds.
const HANG: Duration = Duration::from_secs(20);

/// Gives no memory past the bound: the process aborts, which the caller sees, and `current.bin` is the finding.
pub struct Bounded;

static USED: AtomicUsize = AtomicUsize::new(0);
static STARTED: AtomicU64 = AtomicU64::new(0);
static PANIC: Mutex<String> = Mutex::new(String::new());

// SAFETY: every call goes to the system's allocator, which keeps the contract; only the count is added.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size() > MOST_MEMORY {
            USED.fetch_sub(layout.size(), Ordering::Relaxed);
            return std::ptr::null_mut();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

/// Decisions from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// A number below `sides`, which must not be 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }

    /// A number that readers trip over.
    pub fn odd_number(&mut self) -> i64 {
        let numbers =
            [0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 65_535, 1 << 20, 1 << 31, 1 << 33, 1 << 62, i64::MAX, i64::MIN, -2];
        *self.pick(&numbers)
    }
}

/// Flips, cuts, copies and overwrites bytes at a few places.
pub fn damage(input: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(4) {
        if input.is_empty() {
            return;
        }
        let at = dice.roll(input.len());
        match dice.roll(7) {
            0 => input[at] ^= 1 << dice.roll(8),
            1 => input[at] = dice.roll(256) as u8,
            2 => input.truncate(at),
            3 => {
                let end = (at + 1 + dice.roll(16)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + 1 + dice.roll(64)).min(input.len());
                let copy = input[at..end].to_vec();
                let to = dice.roll(input.len());
                input.splice(to..to, copy);
            }
            5 => {
                let number = dice.odd_number().to_le_bytes();
                let width = [1, 2, 4, 8][dice.roll(4)].min(input.len() - at);
                input[at..at + width].copy_from_slice(&number[..width]);
            }
            _ => {
                // A varint of an odd number.
                let mut number = dice.odd_number() as u64;
                let mut bytes = Vec::new();
                while number >= 0x80 {
                    bytes.push(number as u8 | 0x80);
                    number >>= 7;
                }
                bytes.push(number as u8);
                let end = (at + bytes.len()).min(input.len());
                input.splice(at..end, bytes);
            }
        }
    }
}

/// Runs a fuzzer: `make` gives an input from the seeds, `read` tries it and says whether it was taken.
pub fn run(make: impl Fn(&[Vec<u8>], &mut Dice) -> Vec<u8>, read: impl Fn(&[u8]) -> Result<bool, String>) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let numbers: Vec<u64> = arguments.by_ref().take(2).filter_map(|text| text.parse().ok()).collect();
    let &[seconds, seed] = &numbers[..] else {
        eprintln!("usage: SECONDS SEED FILES…");
        return ExitCode::from(2);
    };
    let files: Vec<Vec<u8>> = match arguments.map(std::fs::read).collect() {
        Ok(files) => files,
        Err(error) => {
            eprintln!("a seed cannot be read: {error}");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut text) = PANIC.lock() {
            *text = info.to_string().replace('\n', " ");
        }
    }));
    let began = Instant::now();
    watch(began);
    if seconds == 0 {
        return again(&files, began, read);
    }
    let (mut executions, mut taken, mut told) = (0_u64, 0_u64, Instant::now());
    while began.elapsed() < Duration::from_secs(seconds) {
        let mut dice = Dice::new(seed.wrapping_mul(1_000_003).wrapping_add(executions));
        STARTED.store(began.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        let input = catch_unwind(AssertUnwindSafe(|| make(&files, &mut dice)));
        let Ok(input) = input else {
            return found(&format!("making input {executions} of seed {seed}"));
        };
        if let Err(error) = std::fs::write("current.bin", &input) {
            eprintln!("current.bin cannot be written: {error}");
            return ExitCode::from(2);
        }
        match catch_unwind(AssertUnwindSafe(|| read(&input))) {
            Ok(Ok(read)) => taken += u64::from(read),
            Ok(Err(problem)) => return found(&problem),
            Err(_) => return found("panicked"),
        }
        STARTED.store(0, Ordering::Relaxed);
        executions += 1;
        if told.elapsed() > Duration::from_secs(10) {
            eprintln!("{executions} executions, {taken} taken");
            told = Instant::now();
        }
    }
    println!("{executions} executions, {taken} taken by the reader");
    ExitCode::SUCCESS
}

/// Tries the files as they are.
fn again(files: &[Vec<u8>], began: Instant, read: impl Fn(&[u8]) -> Result<bool, String>) -> ExitCode {
    let mut taken = 0;
    for (at, file) in files.iter().enumerate() {
        STARTED.store(began.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        if let Err(error) = std::fs::write("current.bin", file) {
            eprintln!("current.bin cannot be written: {error}");
            return ExitCode::from(2);
        }
        match catch_unwind(AssertUnwindSafe(|| read(file))) {
            Ok(Ok(read)) => taken += u64::from(read),
            Ok(Err(problem)) => return found(&format!("file {at}: {problem}")),
            Err(_) => return found(&format!("file {at}: panicked")),
        }
    }
    println!("{} executions, {taken} taken by the reader", files.len());
    ExitCode::SUCCESS
}

/// Keeps the current input and prints where it is.
fn found(problem: &str) -> ExitCode {
    let text = PANIC.lock().map(|text| text.clone()).unwrap_or_default();
    println!("{}: {problem} {text}", keep().display());
    ExitCode::FAILURE
}

fn keep() -> PathBuf {
    let folder = std::env::current_dir().unwrap_or_default();
    let path = (1..)
        .map(|count| folder.join(format!("finding-{count}.bin")))
        .find(|path| !path.exists())
        .expect("an unbounded range has an unused name");
    let _ = std::fs::copy(folder.join("current.bin"), &path);
    path
}

/// Ends the process when one execution takes too long.
fn watch(began: Instant) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let started = STARTED.load(Ordering::Relaxed);
            let now = began.elapsed().as_millis() as u64 + 1;
            if started != 0 && now.saturating_sub(started) > HANG.as_millis() as u64 {
                println!("{}: did not end in {} s", keep().display(), HANG.as_secs());
                std::process::exit(1);
            }
        }
    });
}
