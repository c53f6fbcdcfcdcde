//! One run: loads every variant into a lane of its own, lets them take turns, and makes a record of what was found.
//!
//! The order of the phases is the order of the code in [`run`]. A variant that fails is left out of the phases that follow;
//! only a stop or the deadline ends the run itself.

mod subject;
mod latency;
mod compare;
mod counts;
mod energy;
mod scenario;
mod methods;
mod assemble;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use edgeyard_job::Progress;
use edgeyard_job::spec::{Backend, ExecutionProvider, Fidelity};
use edgeyard_measure::series;
use edgeyard_record::{PhaseSpan, Record};

use crate::clock;
use crate::error::Failure;
use crate::lane::Watch;
use crate::lane::protocol::EngineSpec;
use crate::machine::cooling::{self, CoolDown};
use crate::machine::monitor::{Monitor, Seen};
use crate::machine::throttle::{self, Throttle};
use crate::machine::{self, Root, settings};
use crate::plan::{Plan, Variant};
use crate::progress::Observer;
use crate::runtime::{self, FIRMWARE_VARIABLE, LITERT_VARIABLE, ORT_VARIABLE, QEMU_VARIABLE};
use crate::tensor::TensorInfo;
use crate::timing::Timing;
use crate::validity;
use energy::{Metered, Metering};
use subject::{Cause, Subject};

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The record.
    pub record: Record,
    /// Samples that are too many for the record, as blobs that the record names.
    pub blobs: Vec<Vec<u8>>,
    /// Outputs on all samples, if they were asked for.
    pub outputs: Vec<Outputs>,
    /// Why variants failed, in the order of the plan.
    pub failures: Vec<Option<Failure>>,
}

/// A variant's outputs on all samples.
#[derive(Debug)]
pub struct Outputs {
    /// `model/variant/target`.
    pub label: String,
    /// What the outputs are.
    pub infos: Vec<TensorInfo>,
    /// Samples that one inference takes.
    pub batch: usize,
    /// Samples.
    pub count: usize,
    /// For each inference, all outputs one after the other.
    pub bytes: Vec<u8>,
}

/// What stays the same through a run.
struct Context<'a> {
    plan: &'a Plan,
    watch: &'a Watch,
    observer: &'a dyn Observer,
    root: Root,
    /// Time stamps count from here.
    epoch: u64,
    /// Why no time is reported, if none is.
    clock_is_emulated: bool,
    phases: Vec<PhaseSpan>,
    progress: Progress,
}

impl Context<'_> {
    fn now(&self) -> u64 {
        clock::now() - self.epoch
    }

    /// Says where the run is; `advance` steps are done since the last time.
    fn step(&mut self, step: &str, label: &str, advance: u64) {
        self.progress.step = step.into();
        self.progress.message = if label.is_empty() { step.to_owned() } else { format!("{step} {label}") };
        self.progress.done += advance;
        self.observer.at(&self.progress);
    }

    fn phase(&mut self, name: &str, variant: Option<String>, start_nanoseconds: u64) {
        let end_nanoseconds = self.now();
        self.phases.push(PhaseSpan { name: name.into(), variant, start_nanoseconds, end_nanoseconds });
    }
}

/// What was seen of the machine, and what the meter told, while latencies were measured.
struct Round {
    seen: Seen,
    /// What the meter told, or why there is none.
    metered: Result<Metered, String>,
    /// Before and after.
    throttle: (Throttle, Throttle),
    cooled: Option<CoolDown>,
}

impl Round {
    /// A meter that failed in the first round tells nothing in the second: what it had told is kept.
    fn keeping_readings_of(self, earlier: Self) -> Self {
        let told = |round: &Self| round.metered.as_ref().is_ok_and(|metered| metered.recording().is_some());
        let metered = if told(&earlier) && !told(&self) { earlier.metered } else { self.metered };
        Self { metered, ..self }
    }
}

/// Measures all variants of a plan.
///
/// # Errors
/// What ends a run as a whole: it was stopped, its time is over, or no lane can be started. A variant's failure is in the
/// outcome.
pub fn run(plan: &Plan, watch: &Watch, observer: &dyn Observer) -> Result<Outcome, Failure> {
    let started = SystemTime::now();
    let root = Root::default();
    let timing = Timing::of(&plan.workload, plan.data.as_ref().map(|data| data.x.count() as u64))?;
    let counts_instructions = matches!(plan.backend, Backend::CortexM { .. });
    let is_board = matches!(plan.backend, Backend::CortexM { serial_port: Some(_), .. });
    let clock_is_emulated =
        plan.device.fidelity == Fidelity::Emulated || counts_instructions || machine::emulated_on(&root).is_some();
    let windows = if clock_is_emulated { 0 } else { u64::from(timing.windows) };
    let chunks = plan.data.as_ref().map_or(0, |data| data.x.count().div_ceil(subject::CHUNK) as u64);
    let total = plan.variants.len() as u64 * (2 + windows + chunks) + 1;
    let mut context = Context {
        plan,
        watch,
        observer,
        root,
        epoch: clock::now(),
        clock_is_emulated,
        phases: Vec::new(),
        progress: Progress { step: String::new(), message: String::new(), done: 0, total },
    };

    context.step("Preflight", "", 0);
    let fingerprint = machine::fingerprint::read(&context.root);
    let clock_overhead = clock::overhead();
    context.phase("Preflight", None, 0);

    // A meter that is needed and not there fails the run before any variant is loaded.
    let mut meter = Metering::open(plan, clock_is_emulated, &context.root)?;
    let mut subjects: Vec<Subject> = plan.variants.iter().map(Subject::new).collect();
    for subject in &mut subjects {
        let engine = engine_for(plan, subject.variant);
        subject.prepare(&mut context, engine, &timing)?;
    }
    let mut round = None;
    if counts_instructions {
        for subject in &mut subjects {
            subject.count_instructions(&mut context)?;
        }
    } else if !clock_is_emulated {
        let mut found = measure(&mut context, &mut subjects, &timing, &mut meter)?;
        if let Some(cause) = moved(&subjects)
            && context.watch.leaves(Duration::from_nanos(context.now()))
        {
            // All of them once more: what is compared has to take turns.
            tracing::info!(reason = cause.reason, variant = cause.label, "a series moved: measuring once more");
            context.progress.total += subjects.len() as u64 * (2 + windows);
            for subject in &mut subjects {
                let engine = engine_for(plan, subject.variant);
                subject.start_again(&mut context, engine, &timing, &cause)?;
            }
            found = measure(&mut context, &mut subjects, &timing, &mut meter)?.keeping_readings_of(found);
        }
        for subject in subjects.iter().filter(|subject| subject.failure.is_none()) {
            if let Ok(metered) = &found.metered {
                metered.demand(plan.energy, &subject.variant.label(), &subject.series.windows)?;
            }
        }
        round = Some(found);
    }
    for subject in &mut subjects {
        subject.infer_all(&mut context)?;
        subject.finish(&mut context)?;
    }
    context.step("Analyse", "", 1);
    let found = assemble::Found { started, fingerprint, clock_overhead, timing, round };
    let mut outcome = assemble::outcome(context, subjects, found)?;
    if is_board {
        outcome.record.rename_reason("EmulatedClock", "CountedOnDevice");
    }
    Ok(outcome)
}

/// Warms up and measures all variants once.
fn measure(
    context: &mut Context,
    subjects: &mut [Subject],
    timing: &Timing,
    meter: &mut Result<Metering, String>,
) -> Result<Round, Failure> {
    let cooled = cool_down(context)?;
    for subject in subjects.iter_mut() {
        subject.warm_up(context, timing)?;
    }
    for subject in subjects.iter_mut() {
        subject.search_rate(context, timing)?;
    }
    let before = throttle::read(&context.root);
    let monitor = Monitor::start(context.root.clone());
    if let Ok(meter) = meter {
        meter.start(context, timing)?;
    }
    take_turns(context, subjects, timing)?;
    let metered = match meter {
        Ok(meter) => Ok(meter.finish(context, timing)?),
        Err(why) => Err(why.clone()),
    };
    let seen = monitor.finish();
    Ok(Round { seen, metered, throttle: (before, throttle::read(&context.root)), cooled })
}

/// Waits until the machine is as cool as the plan asks.
fn cool_down(context: &mut Context) -> Result<Option<CoolDown>, Failure> {
    let Some(target) = context.plan.cool_down_millidegrees else { return Ok(None) };
    context.step("CoolDown", "", 0);
    let start = context.now();
    let watch = context.watch;
    let root = context.root.clone();
    let cooled = cooling::wait(
        target,
        cooling::MOST,
        || cooling::hottest(&root),
        |pause| {
            watch.check()?;
            std::thread::sleep(pause);
            Ok::<_, Failure>(())
        },
    )?;
    context.phase("CoolDown", None, start);
    Ok(Some(cooled))
}

/// Lets the variants take turns: A B A B, so that drift meets all of them alike.
fn take_turns(context: &mut Context, subjects: &mut [Subject], timing: &Timing) -> Result<(), Failure> {
    for _ in 0..timing.windows {
        for subject in subjects.iter_mut() {
            subject.window(context, timing, 1)?;
        }
    }
    // Slow models have not inferred often enough yet: more turns, as long as the cap allows.
    loop {
        let mut missing = false;
        for subject in subjects.iter_mut() {
            if subject.needs_more(timing) {
                missing = true;
                subject.window(context, timing, 0)?;
            }
        }
        if !missing {
            return Ok(());
        }
    }
}

/// The first series that moved while it was measured, and how.
fn moved(subjects: &[Subject]) -> Option<Cause> {
    subjects.iter().filter(|subject| subject.failure.is_none()).find_map(|subject| {
        let reason = validity::name_of(series::movement(&subject.series.durations()))?;
        Some(Cause { reason: reason.into(), label: subject.variant.label() })
    })
}

/// What runs a variant.
fn engine_for(plan: &Plan, variant: &Variant) -> Result<EngineSpec, Failure> {
    let threads = plan.threads;
    match (&plan.backend, variant.target.as_str()) {
        (Backend::CortexM { machine, serial_port: Some(port), .. }, "tflm") => {
            Ok(EngineSpec::Board { machine: machine.clone(), port: port.into() })
        }
        (Backend::CortexM { machine, icount_shift, .. }, "tflm") => {
            let folder = runtime::from_environment(FIRMWARE_VARIABLE, "firmware for emulated microcontrollers")?;
            let firmware = folder.join(format!("{machine}.elf"));
            if !firmware.exists() {
                return Err(Failure::bad_input(
                    "UnknownMachine",
                    format!("there is no firmware for machine {machine:?}: {} does not exist", firmware.display()),
                ));
            }
            Ok(EngineSpec::CortexM {
                machine: machine.clone(),
                icount_shift: *icount_shift,
                firmware,
                qemu: runtime::from_environment(QEMU_VARIABLE, "the emulator qemu-system-arm")?,
                parallel: settings::usable_processors(&Root::default()) as usize,
            })
        }
        (Backend::Runtime { execution_provider }, "ort-x86" | "ort-arm64") => {
            let library = runtime::from_environment(ORT_VARIABLE, "ONNX Runtime")?;
            Ok(EngineSpec::Onnx { library, threads, provider: *execution_provider })
        }
        (Backend::Runtime { execution_provider: ExecutionProvider::Cpu }, "litert") => {
            let library = runtime::from_environment(LITERT_VARIABLE, "LiteRT")?;
            Ok(EngineSpec::LiteRt { library, threads })
        }
        (_, target) => Err(Failure::bad_input(
            "UnsupportedTarget",
            format!("device class {:?} does not run target {target:?}", plan.device.class),
        )),
    }
}

/// Reasons by field.
type Unavailable = BTreeMap<String, String>;
