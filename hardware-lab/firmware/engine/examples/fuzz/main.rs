//! Loads damaged models for a while and runs one inference of each that loads: `fuzz SECONDS SEED MODEL.tflite…`, as
//! `cargo xtask fuzz firmware-loader` calls it (profile `fuzz`: overflow checks, debug assertions, panics that unwind).
//!
//! A panic, a write outside the arena, outputs that two runs do not agree on, and a model that takes too long are findings.
//! The model being tried lies in `current.tflite` of the working folder, so that a signal leaves it there; any other finding
//! is saved under its number. The last line of the output is the count, or the finding's file and what was wrong.

mod damage;

use damage::{Fields, Random, damage};
use edgeyard_engine::Engine;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any of these models can take: the largest arena bounds the work.
const HANG: Duration = Duration::from_secs(30);
/// Bytes on each side of the arena that must stay as they were.
const GUARD: usize = 4096;
const UNTOUCHED: u8 = 0xA5;
/// Enough for the largest seed; less bounds the work of models whose shapes grew.
const ARENA: usize = 256 << 10;
const CURRENT: &str = "current.tflite";

/// What the watchdog sees of the work.
#[derive(Default)]
struct Progress {
    tried: AtomicU64,
    ran: AtomicU64,
    ended: AtomicBool,
}

fn main() -> ExitCode {
    match fuzz() {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(finding)) => {
            println!("{finding}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn fuzz() -> Result<Option<String>, Box<dyn std::error::Error>> {
    let usage = "usage: fuzz SECONDS SEED MODEL.tflite…";
    let mut arguments = std::env::args().skip(1);
    let limit = Duration::from_secs(arguments.next().ok_or(usage)?.parse()?);
    let seed: u64 = arguments.next().ok_or(usage)?.parse()?;
    let corpus = arguments.map(fs::read).collect::<Result<Vec<_>, _>>()?;
    if corpus.is_empty() {
        return Err(usage.into());
    }
    let said = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&said);
    panic::set_hook(Box::new(move |panic| {
        if let Ok(mut said) = heard.lock() {
            *said = panic.to_string().replace('\n', " ");
        }
    }));
    let progress = Arc::new(Progress::default());
    let (seen, started) = (Arc::clone(&progress), Instant::now());
    let worker = thread::spawn(move || {
        let result = work(seed, limit, &corpus, &seen, &said);
        seen.ended.store(true, Ordering::Relaxed);
        result
    });
    let (mut last, mut since, mut told) = (u64::MAX, Instant::now(), Instant::now());
    while !progress.ended.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
        let (tried, ran) = (progress.tried.load(Ordering::Relaxed), progress.ran.load(Ordering::Relaxed));
        if tried != last {
            (last, since) = (tried, Instant::now());
        } else if since.elapsed() > HANG {
            let file = save(tried)?;
            return Ok(Some(format!("{file}: took more than {} s", HANG.as_secs())));
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            eprintln!("{:5} s: {tried} executions, {ran} loaded and ran", started.elapsed().as_secs());
        }
    }
    match worker.join() {
        Ok(result) => Ok(result.map_err(|error| format!("{CURRENT}: {error}"))?),
        Err(_) => Err("the fuzzer itself failed".into()),
    }
}

/// Keeps the current model under its number.
fn save(tried: u64) -> std::io::Result<String> {
    let name = format!("finding-{tried}.tflite");
    fs::copy(CURRENT, &name)?;
    Ok(fs::canonicalize(name)?.display().to_string())
}

fn work(
    seed: u64,
    limit: Duration,
    corpus: &[Vec<u8>],
    progress: &Progress,
    said: &Mutex<String>,
) -> std::io::Result<Option<String>> {
    let fields: Vec<Fields> = corpus.iter().map(|model| Fields::of(model)).collect();
    let mut memory = vec![UNTOUCHED; ARENA + 2 * GUARD];
    let mut current = File::create(CURRENT)?;
    let (started, mut model) = (Instant::now(), Vec::new());
    while started.elapsed() < limit {
        let tried = progress.tried.load(Ordering::Relaxed);
        // A state of its own for each: what happens depends on the seed and the number alone.
        let mut random = Random::new(seed, tried);
        let which = random.below(corpus.len());
        model.clone_from(&corpus[which]);
        damage(&mut model, &fields[which], &mut random);
        current.rewind()?;
        current.write_all(&model)?;
        current.set_len(model.len() as u64)?;
        let room = if random.below(8) == 0 { random.below(ARENA) } else { ARENA };
        let whole = memory.len();
        let ran =
            panic::catch_unwind(panic::AssertUnwindSafe(|| run(&model, &mut memory[GUARD..GUARD + room], random)));
        let wrong = match ran {
            Ok(Ok(ran)) => {
                progress.ran.fetch_add(u64::from(ran), Ordering::Relaxed);
                let outside = memory[..GUARD].iter().chain(&memory[GUARD + room..whole.min(2 * GUARD + room)]);
                let escaped = outside.into_iter().any(|b| *b != UNTOUCHED);
                escaped.then(|| "wrote outside the arena".to_owned())
            }
            Ok(Err(why)) => Some(why.to_owned()),
            Err(_) => Some(said.lock().map_or_else(|_| "panicked".to_owned(), |said| said.clone())),
        };
        if let Some(wrong) = wrong {
            return Ok(Some(format!("{}: {wrong}", save(tried)?)));
        }
        // What a run left behind the arena's end is no guard for a smaller one.
        memory[GUARD..].fill(UNTOUCHED);
        progress.tried.store(tried + 1, Ordering::Relaxed);
    }
    let (tried, ran) = (progress.tried.load(Ordering::Relaxed), progress.ran.load(Ordering::Relaxed));
    println!("{tried} executions, {ran} loaded and ran");
    Ok(None)
}

/// Whether the model loaded and ran; twice with the same input, since an inference must not depend on the one before.
fn run(model: &[u8], arena: &mut [u8], mut random: Random) -> Result<bool, &'static str> {
    let Ok(mut engine) = Engine::load(model, arena) else { return Ok(false) };
    let inputs: Vec<Vec<u8>> =
        (0..engine.inputs()).map(|i| engine.input_mut(i).iter().map(|_| random.below(256) as u8).collect()).collect();
    let mut infer = || {
        for (i, bytes) in inputs.iter().enumerate() {
            engine.input_mut(i).copy_from_slice(bytes);
        }
        engine.run();
        (0..engine.outputs()).map(|i| engine.output_bytes(i).to_vec()).collect::<Vec<_>>()
    };
    let first = infer();
    if first == infer() { Ok(true) } else { Err("two runs with the same input differ") }
}
