//! One variant on its way through a run: its lane, and what has been found so far.

use edgeyard_job::spec::Scenario;
use edgeyard_measure::random::Random;
use edgeyard_measure::server::{self, Found, Trial};
use edgeyard_measure::{Sample, schedule};
use edgeyard_record::Window;

use super::Context;
use crate::accuracy::{self, Score};
use crate::cortex_m::Unit;
use crate::error::{Class, Failure};
use crate::estimate;
use crate::lane::Lane;
use crate::lane::protocol::{
    Disturbance, EngineSpec, Load, McuMemory, Measure, Reply, Request, Serve, Span, WarmUp, WarmedUp,
};
use crate::machine::cgroup;
use crate::plan::Variant;
use crate::runtime::{self, Counted, ModelInfo};
use crate::tensor::{Fit, generate};
use crate::timing::Timing;

/// Samples that are sent to a lane at once.
pub const CHUNK: usize = 500;
/// Different inputs that a measurement goes through.
pub const KEPT_INPUTS: usize = 16;
/// Bytes of the inputs that an Offline measurement goes through, at most.
pub const MOST_KEPT: usize = 256 << 20;
/// Inputs on which instructions are counted.
pub const COUNTED_INPUTS: usize = 3;
/// Inferences before the first sample of a window, because another variant had its turn and the caches.
pub const REWARM: u64 = 5;
/// A search for a rate goes down to this share of the runtime's rate without a pause.
const LOWEST_SHARE: f64 = 32.0;

/// One variant.
pub struct Subject<'a> {
    pub variant: &'a Variant,
    lane: Option<Lane>,
    pub failure: Option<Failure>,
    pub info: Option<ModelInfo>,
    pub load_nanoseconds: Option<u64>,
    pub first_nanoseconds: Option<u64>,
    /// What was measured.
    pub series: Series,
    /// What was measured before, and is not used.
    pub set_aside: Option<(Cause, Series)>,
    /// `Server`: the rate that queries come at, and how it was found.
    pub search: Option<Search>,
    /// Samples that one inference takes.
    pub batch: u64,
    pub counted: Option<Counted>,
    /// Multiplications of one inference by the model's shapes; `None` of a file that cannot be read so.
    pub macs: Option<u64>,
    pub outputs: Option<Inferred>,
    pub score: Option<Score>,
    pub peak_memory_bytes: Option<u64>,
}

/// A series of timed queries, warm-up apart.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub warmed_up: Option<WarmedUp>,
    pub samples: Vec<Sample>,
    pub windows: Vec<Window>,
    pub disturbance: Disturbance,
    pub throttled_periods: Option<u64>,
    pub clock_jumped: bool,
    pub sample_every: u64,
}

impl Series {
    /// Queries, timed or not.
    pub fn count(&self) -> u64 {
        self.windows.iter().map(|window| window.count).sum()
    }

    /// Time of all windows.
    pub fn nanoseconds(&self) -> u64 {
        self.windows.iter().map(|window| window.end_nanoseconds.saturating_sub(window.start_nanoseconds)).sum()
    }

    pub fn durations(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.duration).collect()
    }
}

/// Why series were measured once more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// How a series moved.
    pub reason: String,
    /// Whose.
    pub label: String,
}

/// How the rate of a Server run was found.
#[derive(Clone, Debug)]
pub struct Search {
    /// What the search came to.
    pub found: Found,
    /// The rate that is measured at: the highest that passed, or the lowest that was tried.
    pub rate: f64,
}

/// Outputs on all samples.
pub struct Inferred {
    pub bytes: Vec<u8>,
    pub batch: usize,
    pub count: usize,
    pub has_nan: bool,
}

impl<'a> Subject<'a> {
    pub fn new(variant: &'a Variant) -> Self {
        Self {
            variant,
            lane: None,
            failure: None,
            info: None,
            load_nanoseconds: None,
            first_nanoseconds: None,
            series: Series::default(),
            set_aside: None,
            search: None,
            batch: 1,
            counted: None,
            macs: None,
            outputs: None,
            score: None,
            peak_memory_bytes: None,
        }
    }

    /// Does a step; what it fails with fails this variant, unless it ends the run.
    fn attempt(
        &mut self,
        context: &mut Context,
        step: impl FnOnce(&mut Self, &mut Context) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.failure.is_some() {
            return Ok(());
        }
        match step(self, context) {
            Ok(()) => Ok(()),
            Err(failure) if failure.class == Class::Cancelled || failure.reason == "DeadlineExceeded" => Err(failure),
            Err(failure) => {
                tracing::warn!(variant = self.variant.label(), reason = failure.reason, "variant failed: {failure}");
                self.failure = Some(failure);
                self.lane = None;
                Ok(())
            }
        }
    }

    fn ask(&mut self, context: &Context, request: &Request, payload: &[u8]) -> Result<(Reply, Vec<u8>), Failure> {
        let lane = self.lane.as_mut().ok_or_else(|| Failure::infrastructure("LaneProtocol", "the lane is gone"))?;
        lane.ask(context.watch, request, payload)
    }

    /// Starts the lane, loads the model, infers once.
    pub fn prepare(
        &mut self,
        context: &mut Context,
        engine: Result<EngineSpec, Failure>,
        timing: &Timing,
    ) -> Result<(), Failure> {
        self.attempt(context, |this, context| {
            let label = this.variant.label();
            context.step("Load", &label, 0);
            let start = context.now();
            let engine = engine?;
            let is_tflite = !matches!(engine, EngineSpec::Onnx { .. });
            let model = fs_err::read(&this.variant.path)?;
            runtime::check_format(&model, is_tflite, &this.variant.path)?;
            check_flash(context, this.variant.size_bytes)?;
            this.macs = edgeyard_tflite::read(&model).ok().filter(|_| is_tflite).map(|model| estimate::macs(&model));
            drop(model);
            this.lane = Some(Lane::start()?);
            let load = Load {
                model: this.variant.path.clone(),
                engine,
                epoch: context.epoch,
                window_samples: if context.clock_is_emulated { 0 } else { timing.room() as usize },
            };
            let (reply, _) = this.ask(context, &Request::Load(Box::new(load)), &[])?;
            let Reply::Loaded { info, nanoseconds } = reply else { return Err(strange(&reply)) };
            // Of the first process: a later one finds files and pages where the first left them.
            this.load_nanoseconds.get_or_insert(nanoseconds);
            this.info = Some(info);
            this.check_answers(context)?;
            context.phase("Load", Some(label.clone()), start);

            let start = context.now();
            let inputs = this.kept(context)?;
            let first = inputs.first().cloned().unwrap_or_default();
            let (reply, _) = this.ask(context, &Request::Infer { count: 1 }, &first)?;
            let Reply::Inferred { first_nanoseconds } = reply else { return Err(strange(&reply)) };
            this.first_nanoseconds.get_or_insert(first_nanoseconds);
            this.ask(context, &Request::Keep { count: inputs.len() }, &inputs.concat())?;
            context.phase("FirstInference", Some(label.clone()), start);
            context.step("Load", &label, 1);
            Ok(())
        })
    }

    /// Refuses right answers that the model cannot give, before anything is measured.
    fn check_answers(&mut self, context: &Context) -> Result<(), Failure> {
        let Some(data) = &context.plan.data else { return Ok(()) };
        let fit = self.fit(context)?;
        self.batch = fit.batch as u64;
        match (&data.scoring, &self.info) {
            (Some(scoring), Some(info)) => accuracy::check(scoring, &info.outputs, fit.batch),
            _ => Ok(()),
        }
    }

    /// Inputs to measure with. Offline takes the samples of the set in order, as many as [`MOST_KEPT`] holds.
    fn kept(&self, context: &Context) -> Result<Vec<Vec<u8>>, Failure> {
        let (Some(data), Scenario::Offline) = (&context.plan.data, context.plan.workload.scenario) else {
            return self.inputs(context, KEPT_INPUTS);
        };
        let fit = self.fit(context)?;
        let count = data.x.count();
        let mut inputs: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        for from in (0..count).step_by(fit.batch) {
            let mut input = Vec::new();
            // The last batch is filled up from the beginning.
            (from..from + fit.batch).for_each(|index| fit.convert(data.x.sample(index % count), &mut input));
            bytes += input.len();
            if bytes > MOST_KEPT && !inputs.is_empty() {
                break;
            }
            inputs.push(input);
        }
        Ok(inputs)
    }

    /// Inputs to measure or count with: samples chosen by the seed, or numbers made from it.
    fn inputs(&self, context: &Context, count: usize) -> Result<Vec<Vec<u8>>, Failure> {
        let info = self.info.as_ref().expect("the model is loaded before it is fed");
        let mut generator = Random::new(context.plan.workload.seed);
        let Some(data) = &context.plan.data else {
            return Ok((0..count).map(|_| generate(&info.inputs, &mut generator)).collect());
        };
        let fit = self.fit(context)?;
        let samples = data.x.count() as u64;
        Ok((0..count)
            .map(|_| {
                let mut input = Vec::new();
                for _ in 0..fit.batch {
                    fit.convert(data.x.sample((generator.next_u64() % samples) as usize), &mut input);
                }
                input
            })
            .collect())
    }

    fn fit(&self, context: &Context) -> Result<Fit, Failure> {
        let info = self.info.as_ref().expect("the model is loaded before it is fed");
        let data = context.plan.data.as_ref().expect("asked for only where there is data");
        match info.inputs.as_slice() {
            [input] => Fit::new(&data.x, input),
            inputs => Err(Failure::bad_input(
                "DatasetDoesNotFit",
                format!("the model has {} inputs and a data set feeds one: leave the data set out", inputs.len()),
            )),
        }
    }

    /// Infers until times no longer fall.
    pub fn warm_up(&mut self, context: &mut Context, timing: &Timing) -> Result<(), Failure> {
        let plan = WarmUp {
            minimum_count: 10,
            minimum_nanoseconds: timing.warm_up.0.as_nanos() as u64,
            maximum_nanoseconds: timing.warm_up.1.as_nanos() as u64,
        };
        self.attempt(context, |this, context| {
            let label = this.variant.label();
            context.step("WarmUp", &label, 0);
            let start = context.now();
            let (reply, _) = this.ask(context, &Request::WarmUp(plan), &[])?;
            let Reply::WarmedUp(warmed_up) = reply else { return Err(strange(&reply)) };
            this.series.warmed_up = Some(warmed_up);
            context.phase("WarmUp", Some(label.clone()), start);
            context.step("WarmUp", &label, 1);
            Ok(())
        })
    }

    /// Finds the highest rate that keeps the bound.
    pub fn search_rate(&mut self, context: &mut Context, timing: &Timing) -> Result<(), Failure> {
        let Some(bound) = context.plan.workload.latency_bound_nanoseconds else { return Ok(()) };
        self.attempt(context, |this, context| {
            let label = this.variant.label();
            context.step("Search", &label, 0);
            let start = context.now();
            let (queries, precision) = timing.trial;
            let service = this.series.warmed_up.map_or(0, |warmed_up| warmed_up.median_nanoseconds).max(1);
            let seed = context.plan.workload.seed;
            let mut known: Vec<Trial> = Vec::new();
            let mut probe = |rate: f64| -> Result<Trial, Failure> {
                if let Some(trial) = known.iter().find(|trial| trial.rate == rate) {
                    return Ok(*trial);
                }
                let arrivals = schedule::poisson(rate, queries as usize, seed);
                let (_, payload) =
                    this.ask(context, &Request::Serve(Serve { rewarm_count: REWARM }), &bytes(&arrivals))?;
                let latencies: Vec<u64> = samples(&payload).iter().map(|sample| sample.duration).collect();
                let trial = Trial::judge(rate, &latencies, bound, timing.percentile());
                known.push(trial);
                Ok(trial)
            };
            // From the rate of the runtime without a pause downwards: low rates take long.
            let most = 1e9 / service as f64;
            let mut low = most;
            let mut lowest_passed = probe(low)?.passed;
            while !lowest_passed && low > most / LOWEST_SHARE {
                low /= 2.0;
                lowest_passed = probe(low)?.passed;
            }
            let high = (2.0 * low).min(most);
            let mut found = if !lowest_passed {
                Found { rate: None, at_limit: false, trials: Vec::new() }
            } else if low < high {
                server::highest_rate(low, high, precision, probe)?
            } else {
                Found { rate: Some(most), at_limit: true, trials: Vec::new() }
            };
            found.trials = known;
            this.search = Some(Search { rate: found.rate.unwrap_or(low), found });
            context.phase("Search", Some(label), start);
            Ok(())
        })
    }

    /// Whether queries are missing that the cap leaves time for.
    pub fn needs_more(&self, timing: &Timing) -> bool {
        self.failure.is_none()
            && !timing.exactly
            && self.series.count() < timing.minimum_count
            && u128::from(self.series.nanoseconds()) < timing.cap.as_nanos()
    }

    /// One turn.
    pub fn window(&mut self, context: &mut Context, timing: &Timing, advance: u64) -> Result<(), Failure> {
        let warmed_up = self.series.warmed_up;
        let rewarm_count = REWARM.min(warmed_up.map_or(0, |warmed_up| warmed_up.count));
        let nanoseconds = timing.window().as_nanos() as u64;
        let inferences_per_query = timing.inferences_per_query(context.plan.workload.scenario);
        let query = warmed_up.map_or(1, |warmed_up| warmed_up.median_nanoseconds).max(1) * inferences_per_query;
        // A quarter more than expected, for the warm-up's median may be above what follows.
        let sample_every = (nanoseconds / query * 5 / 4).div_ceil(timing.room()).max(1);
        let (request, payload) = match &self.search {
            Some(Search { rate, .. }) => {
                let turn = self.series.windows.len() as u64 + 1;
                let queries = (rate * nanoseconds as f64 / 1e9).ceil().clamp(1.0, timing.room() as f64);
                let seed = context.plan.workload.seed.wrapping_add(turn);
                let arrivals = schedule::poisson(*rate, queries as usize, seed);
                (Request::Serve(Serve { rewarm_count }), bytes(&arrivals))
            }
            None => {
                let plan = Measure {
                    rewarm_count,
                    nanoseconds,
                    minimum_count: timing.window_queries,
                    inferences_per_query,
                    sample_every,
                    room: timing.room(),
                };
                (Request::Measure(plan), Vec::new())
            }
        };
        self.series.sample_every = if self.search.is_some() { 1 } else { sample_every };
        self.attempt(context, |this, context| {
            let label = this.variant.label();
            context.step("Measure", &label, 0);
            let throttled = cgroup::throttling(&context.root);
            let start = context.now();
            let (reply, payload) = this.ask(context, &request, &payload)?;
            let Reply::Measured { span, disturbance } = reply else { return Err(strange(&reply)) };
            context.phase("Measure", Some(label.clone()), start);
            if let (Some(before), Some(after)) = (throttled, cgroup::throttling(&context.root)) {
                *this.series.throttled_periods.get_or_insert(0) += after.periods.saturating_sub(before.periods);
            }
            this.take(span, &payload, disturbance)?;
            context.step("Measure", &label, advance);
            Ok(())
        })
    }

    fn take(&mut self, span: Span, payload: &[u8], disturbance: Disturbance) -> Result<(), Failure> {
        let new = samples(payload);
        if new.is_empty() {
            return Err(Failure::infrastructure("LaneProtocol", "a window without samples"));
        }
        let mut durations: Vec<u64> = new.iter().map(|sample| sample.duration).collect();
        durations.sort_unstable();
        let Series { samples, windows, disturbance: sum, clock_jumped, .. } = &mut self.series;
        windows.push(Window {
            start_nanoseconds: span.start,
            end_nanoseconds: span.end,
            count: span.count,
            median_nanoseconds: edgeyard_measure::pick(&durations, 0.5).unwrap_or_default(),
        });
        samples.extend(new);
        *clock_jumped |= span.clock_jumped;
        sum.involuntary_switches += disturbance.involuntary_switches;
        sum.voluntary_switches += disturbance.voluntary_switches;
        sum.minor_faults += disturbance.minor_faults;
        sum.major_faults += disturbance.major_faults;
        if let Some(waited) = disturbance.waited_nanoseconds {
            *sum.waited_nanoseconds.get_or_insert(0) += waited;
        }
        Ok(())
    }

    /// Puts aside what was measured, and begins anew in a fresh process.
    pub fn start_again(
        &mut self,
        context: &mut Context,
        engine: Result<EngineSpec, Failure>,
        timing: &Timing,
        cause: &Cause,
    ) -> Result<(), Failure> {
        if self.failure.is_some() {
            return Ok(());
        }
        if let Some(lane) = self.lane.take() {
            lane.finish();
        }
        self.set_aside = Some((cause.clone(), std::mem::take(&mut self.series)));
        self.prepare(context, engine, timing)
    }

    /// Counts instructions, twice on each input: an emulator that does not repeat itself counts nothing.
    pub fn count_instructions(&mut self, context: &mut Context) -> Result<(), Failure> {
        self.attempt(context, |this, context| {
            let label = this.variant.label();
            context.step("Count", &label, 0);
            let start = context.now();
            let inputs = this.inputs(context, COUNTED_INPUTS)?;
            this.ask(context, &Request::Keep { count: inputs.len() }, &inputs.concat())?;
            let mut count = || {
                let (reply, _) = this.ask(context, &Request::Count, &[])?;
                let Reply::Counted(counted) = reply else { return Err(strange(&reply)) };
                Ok(*counted)
            };
            let (first, found) = (count()?, count()?);
            // A board's cycles depend on its caches; instructions depend on nothing.
            if found.unit == Unit::Instructions
                && (first.by_input != found.by_input || first.operators != found.operators)
            {
                return Err(Failure::infrastructure(
                    "NotRepeatable",
                    format!(
                        "the same inputs took {:?} instructions and then {:?}: the emulator's clock follows the host's, check \
                         its -icount setting",
                        first.by_input, found.by_input
                    ),
                ));
            }
            check_memory(context, &found.memory)?;
            this.counted = Some(found);
            context.phase("Count", Some(label.clone()), start);
            context.step("Count", &label, 1);
            Ok(())
        })
    }

    /// Infers on all samples, or on the kept inputs where there are none, and scores the outputs.
    pub fn infer_all(&mut self, context: &mut Context) -> Result<(), Failure> {
        self.attempt(context, |this, context| {
            let label = this.variant.label();
            let start = context.now();
            context.step("Accuracy", &label, 0);
            let Some(data) = &context.plan.data else {
                let inputs = this.inputs(context, KEPT_INPUTS)?;
                let (_, bytes) = this.ask(context, &Request::Infer { count: inputs.len() }, &inputs.concat())?;
                let has_nan = accuracy::has_nan(&bytes, &this.info.as_ref().expect("loaded").outputs);
                this.outputs = Some(Inferred { bytes, batch: 1, count: inputs.len(), has_nan });
                return Ok(());
            };
            let fit = this.fit(context)?;
            let count = data.x.count();
            let mut bytes = Vec::new();
            for from in (0..count).step_by(CHUNK) {
                let to = (from + CHUNK).min(count);
                let inferences = (to - from).div_ceil(fit.batch);
                let mut payload = Vec::new();
                for index in from..from + inferences * fit.batch {
                    // The last batch is filled up with the last sample; its surplus outputs are never looked at.
                    fit.convert(data.x.sample(index.min(to - 1)), &mut payload);
                }
                let (_, outputs) = this.ask(context, &Request::Infer { count: inferences }, &payload)?;
                bytes.extend(outputs);
                context.step("Accuracy", &label, 1);
            }
            let infos = &this.info.as_ref().expect("loaded").outputs;
            let row = infos.iter().map(crate::tensor::TensorInfo::bytes).sum::<usize>();
            if bytes.len() != row * count.div_ceil(fit.batch) {
                return Err(Failure::bad_input(
                    "UnsupportedModel",
                    "the model's outputs do not have the shape that the model declares: give it fixed shapes",
                ));
            }
            let has_nan = accuracy::has_nan(&bytes, infos);
            if let Some(scoring) = &data.scoring {
                let seed = context.plan.workload.seed;
                this.score = match accuracy::score(scoring, &bytes, infos, fit.batch, seed) {
                    Ok(score) => Some(score),
                    // The outputs make the variant invalid; its latencies are kept all the same.
                    Err(_) if has_nan => None,
                    Err(failure) => return Err(failure),
                };
            }
            this.outputs = Some(Inferred { bytes, batch: fit.batch, count, has_nan });
            context.phase("Accuracy", Some(label), start);
            Ok(())
        })
    }

    /// Asks what the lane used, and lets it go.
    pub fn finish(&mut self, context: &mut Context) -> Result<(), Failure> {
        self.attempt(context, |this, context| {
            let (reply, _) = this.ask(context, &Request::Usage, &[])?;
            let Reply::Usage { peak_memory_bytes } = reply else { return Err(strange(&reply)) };
            this.peak_memory_bytes = peak_memory_bytes;
            if let Some(lane) = this.lane.take() {
                lane.finish();
            }
            Ok(())
        })
    }
}

fn bytes(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Pairs of start and duration.
fn samples(payload: &[u8]) -> Vec<Sample> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("halves have eight bytes"));
    payload.chunks_exact(16).map(|pair| Sample { start: number(&pair[..8]), duration: number(&pair[8..]) }).collect()
}

fn strange(reply: &Reply) -> Failure {
    Failure::infrastructure("LaneProtocol", format!("unexpected answer {reply:?}"))
}

/// A model that is larger than the flash cannot fit, whatever the firmware.
fn check_flash(context: &Context, size: u64) -> Result<(), Failure> {
    match context.plan.limits.flash_bytes {
        Some(limit) if size > limit => Err(Failure::bad_input(
            "ModelTooLarge",
            format!("the model has {size} bytes, the device's flash {limit}: quantise or shrink the model"),
        )),
        _ => Ok(()),
    }
}

fn check_memory(context: &Context, memory: &McuMemory) -> Result<(), Failure> {
    let limits = &context.plan.limits;
    for (what, used, limit) in [
        ("flash for code and model", memory.flash_bytes, limits.flash_bytes),
        ("memory for tensors", memory.arena_bytes, limits.arena_bytes),
        ("memory at run time", memory.ram_bytes, limits.memory_bytes),
    ] {
        if let Some(limit) = limit
            && used > limit
        {
            return Err(Failure::bad_input(
                "ModelTooLarge",
                format!("the model needs {used} bytes of {what}, the device has {limit}"),
            ));
        }
    }
    Ok(())
}
