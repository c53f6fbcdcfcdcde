//! `overhead`: what the harness adds to an inference, beside bare loops that take turns with it in the same process and on the
//! same session. For `cargo xtask bench runner`; prints numbers and judges nothing.

use std::path::PathBuf;

use edgeyard_job::spec::ExecutionProvider;
use edgeyard_measure::random::Random;
use edgeyard_measure::{pick, series};

use crate::cli;
use crate::clock;
use crate::error::Failure;
use crate::lane::protocol::{EngineSpec, Measure};
use crate::lane::window::{self, Feed, Kept, Monotonic};
use crate::runtime::{self, LITERT_VARIABLE, ORT_VARIABLE};
use crate::tensor::generate;

/// Different inputs, as a measurement has.
const INPUTS: usize = 16;

/// Tell what the harness adds to an inference.
#[derive(clap::Args, Debug)]
pub struct Overhead {
    /// A model, .onnx or .tflite.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Threads of the runtime.
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// Inferences of one turn.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: u64,
    /// Turns of each loop.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub turns: u64,
}

/// Measures and prints one line of JSON.
///
/// # Errors
/// When the model cannot be loaded or run.
pub fn execute(arguments: &Overhead) -> Result<(), Failure> {
    let Overhead { model, threads, count, turns } = arguments;
    let bytes = fs_err::read(model)?;
    let is_tflite = bytes.get(4..8) == Some(b"TFL3");
    runtime::check_format(&bytes, is_tflite, model)?;
    let engine = if is_tflite {
        let library = runtime::from_environment(LITERT_VARIABLE, "LiteRT")?;
        EngineSpec::LiteRt { library, threads: *threads }
    } else {
        let library = runtime::from_environment(ORT_VARIABLE, "ONNX Runtime")?;
        EngineSpec::Onnx { library, threads: *threads, provider: ExecutionProvider::Cpu }
    };
    let mut engine = runtime::open(&engine, bytes)?;
    let mut generator = Random::new(42);
    let inputs: Vec<Vec<u8>> = (0..INPUTS).map(|_| generate(&engine.info().inputs, &mut generator)).collect();
    let mut next = 0;
    let mut feed = Kept { engine: engine.as_mut(), inputs: &inputs, next: &mut next };
    for _ in 0..*count {
        feed.set_input()?;
        feed.run()?;
    }
    let plan = Measure {
        rewarm_count: 0,
        nanoseconds: 0,
        minimum_count: *count,
        inferences_per_query: 1,
        sample_every: 1,
        room: *count,
    };
    let mut samples = Vec::with_capacity(*count as usize * 2);
    let (mut untimed, mut bare, mut harness) = (Loop::default(), Loop::default(), Loop::default());
    let (mut bare_durations, mut harness_durations) = (Vec::new(), Vec::new());
    for _ in 0..*turns {
        untimed.turn(*count, || {
            for _ in 0..*count {
                feed.set_input()?;
                feed.run()?;
            }
            Ok(())
        })?;
        let mut durations = Vec::with_capacity(*count as usize);
        bare.turn(*count, || {
            for _ in 0..*count {
                feed.set_input()?;
                let before = clock::now();
                feed.run()?;
                durations.push(clock::now() - before);
            }
            Ok(())
        })?;
        bare_durations.extend(durations);
        samples.clear();
        harness.turn(*count, || window::closed(&plan, &mut Monotonic, &mut feed, &mut samples).map(drop))?;
        harness_durations.extend(samples.chunks_exact(2).map(|pair| pair[1]));
    }
    let alone = alone()?;
    let added: Vec<f64> = harness.0.iter().zip(&untimed.0).map(|(harness, untimed)| harness - untimed).collect();
    let answer = serde_json::json!({
        "inferences": count * turns,
        "clockOverheadNanoseconds": clock::overhead(),
        "untimedNanoseconds": series::median(&untimed.0),
        "harnessNanoseconds": series::median(&harness.0),
        "aloneNanoseconds": alone,
        "addedNanoseconds": series::median(&added),
        "bareMedianNanoseconds": median(bare_durations),
        "harnessMedianNanoseconds": median(harness_durations),
        "runtime": engine.info().runtime,
        "version": engine.info().version,
        "settings": engine.info().settings,
    });
    cli::print(&answer.to_string());
    Ok(())
}

/// A model that takes no time.
struct Nothing;

impl Feed for Nothing {
    fn set_input(&mut self) -> Result<(), Failure> {
        std::hint::black_box(Ok(()))
    }

    fn run(&mut self) -> Result<(), Failure> {
        std::hint::black_box(Ok(()))
    }
}

/// What the harness takes with nothing to infer, in nanoseconds: what it adds to any model, but for its use of the caches.
fn alone() -> Result<f64, Failure> {
    const COUNT: u64 = 20_000;
    let plan = Measure {
        rewarm_count: 0,
        nanoseconds: 0,
        minimum_count: COUNT,
        inferences_per_query: 1,
        sample_every: 1,
        room: COUNT,
    };
    let mut samples = Vec::with_capacity(COUNT as usize * 2);
    let mut turns = Loop::default();
    for _ in 0..15 {
        samples.clear();
        turns.turn(COUNT, || window::closed(&plan, &mut Monotonic, &mut Nothing, &mut samples).map(drop))?;
    }
    Ok(series::median(&turns.0))
}

/// Nanoseconds of one inference, a turn each.
#[derive(Default)]
struct Loop(Vec<f64>);

impl Loop {
    fn turn(&mut self, count: u64, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let before = clock::now();
        work()?;
        self.0.push(clock::now().saturating_sub(before) as f64 / count as f64);
        Ok(())
    }
}

fn median(mut durations: Vec<u64>) -> Option<u64> {
    durations.sort_unstable();
    pick(&durations, 0.5)
}
