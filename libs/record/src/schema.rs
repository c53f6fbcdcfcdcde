//! The record's fields. Units are in the names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the schema.
pub const RECORD_VERSION: &str = "1.2";

/// What one run found on one device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// `MAJOR.MINOR`.
    pub schema_version: String,
    /// Whose run it was.
    pub metadata: Metadata,
    /// On what.
    pub device: Device,
    /// What was asked.
    pub workload: Workload,
    /// The machine, system and runtimes as found.
    pub environment: Environment,
    /// The program that measured.
    pub harness: Harness,
    /// When each phase began and ended, in order.
    pub phases: Vec<PhaseSpan>,
    /// What was seen of the machine while latencies were measured.
    pub monitor: Option<Monitor>,
    /// How the machine cooled down before that; null if it was not asked to.
    pub cool_down: Option<CoolDown>,
    /// What the meter read while variants were measured and while the machine idled; null without a meter.
    pub power: Option<Power>,
    /// What was found, one entry a variant, in the order asked.
    pub results: Vec<VariantResult>,
    /// Whether the numbers can be used, and why not.
    pub validity: Validity,
    /// What is unknown of the run as a whole, and why: path to reason.
    pub unavailable: BTreeMap<String, String>,
}

/// Whose run it was.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Namespace of the EdgeBenchmark; null by hand.
    pub namespace: Option<String>,
    /// Name of the EdgeBenchmark, or of the model by hand.
    pub name: String,
    /// UID of the BenchmarkRun; null by hand.
    pub uid: Option<String>,
    /// The attempt, from 1.
    pub attempt: u32,
    /// RFC 3339, UTC, when the run began.
    pub started_at: String,
    /// RFC 3339, UTC, when it ended.
    pub finished_at: String,
}

/// The device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The EdgeDevice's name; null by hand.
    pub name: Option<String>,
    /// Its namespace; null by hand.
    pub namespace: Option<String>,
    /// Its class.
    pub class: String,
    /// The entry in the EdgeBenchmark's devices; null by hand.
    pub request: Option<String>,
    /// `Hardware` or `Emulated`.
    pub fidelity: String,
    /// The lease's token; null by hand.
    pub fencing_token: Option<i64>,
}

/// What was asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `SingleStream`, `MultiStream`, `Server`, `Offline` or `Tiny`.
    pub scenario: String,
    /// `Smoke`, `Quick`, `Standard` or `Official`.
    pub profile: String,
    /// The percentile that the run is about, such as `90`; null where the throughput counts.
    pub percentile: Option<String>,
    /// Queries of each variant that were asked for at least; null if the profile and the scenario decided.
    pub query_count: Option<u64>,
    /// What the percentile must not exceed; null but in `Server`.
    pub latency_bound_nanoseconds: Option<u64>,
    /// What the profile leaves out of an official run of the scenario, in words; empty for an official run.
    #[serde(default)]
    pub shortened: Vec<String>,
    /// What fixed every choice of chance.
    pub seed: u64,
    /// Threads of a runtime.
    pub threads: u32,
}

/// How a machine cooled down.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CoolDown {
    /// The temperature that was waited for.
    pub target_millidegrees: i64,
    /// The hottest zone before.
    pub first_millidegrees: Option<i64>,
    /// The hottest zone at the end.
    pub last_millidegrees: Option<i64>,
    /// How long was waited.
    pub waited_nanoseconds: u64,
    /// What is unknown, and why.
    pub unavailable: BTreeMap<String, String>,
}

/// What a meter read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Power {
    /// The meter, such as `hwmon:ina226`.
    pub meter: String,
    /// What was measured: a rail, a package, the board.
    pub scope: String,
    /// Readings in `series`.
    pub count: u64,
    /// All readings in order, packed like samples: nanoseconds since the run began in place of the start, and microwatts in
    /// place of the duration.
    pub series: Samples,
}

/// The machine, system and runtimes as found. Identity only: nothing that changes while it runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Digest of `fingerprint`.
    pub fingerprint_digest: String,
    /// What identifies the machine: CPU model, architecture, cores, caches, memory size, kernel.
    pub fingerprint: BTreeMap<String, String>,
    /// Runtimes and their versions.
    pub runtimes: BTreeMap<String, String>,
    /// Settings that change results: governor, CPU quota, affinity, THP, …
    pub settings: BTreeMap<String, String>,
}

/// The program that measured.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Harness {
    /// Program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The clock that latencies were read from.
    pub clock: String,
    /// Median of the time between two readings of the clock.
    pub clock_overhead_nanoseconds: Option<u64>,
    /// How it measures, in words and numbers: what is timed, which inputs, how intervals are made.
    #[serde(default)]
    pub methods: BTreeMap<String, String>,
    /// What is unknown, and why.
    pub unavailable: BTreeMap<String, String>,
}

/// When a phase began and ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PhaseSpan {
    /// `Preflight`, `Load`, `WarmUp`, `Measure`, `Accuracy`, …
    pub name: String,
    /// `model/variant/target`; null for phases of the whole run.
    pub variant: Option<String>,
    /// Nanoseconds since the run began.
    pub start_nanoseconds: u64,
    /// Nanoseconds since the run began.
    pub end_nanoseconds: u64,
}

/// What was seen of the machine from the side.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Monitor {
    /// Looks at the machine.
    pub looks: u64,
    /// Processor time that looking took.
    pub own_nanoseconds: u64,
    /// Share of processor time that the host gave to others, as a decimal string.
    pub stolen_ratio: Option<String>,
    /// Lowest clock of the first processor.
    pub lowest_kilohertz: Option<u64>,
    /// Highest clock of the first processor.
    pub highest_kilohertz: Option<u64>,
    /// Temperature of the hottest zone when measuring began.
    pub first_millidegrees: Option<i64>,
    /// Its highest.
    pub highest_millidegrees: Option<i64>,
    /// Highest load average of a minute, as a decimal string.
    pub highest_load: Option<String>,
    /// How long was watched.
    #[serde(default)]
    pub watched_nanoseconds: u64,
    /// Share of one processor that watching took, as a decimal string.
    pub own_ratio: Option<String>,
    /// Governors of the first processor, in the order they were seen; more than one: somebody changed it. Empty if unknown.
    #[serde(default)]
    pub governors: Vec<String>,
    /// Threads of the machine that ran or wanted to, mean of all looks, as a decimal string.
    pub mean_runnable: Option<String>,
    /// The most of them.
    pub most_runnable: Option<u64>,
    /// Share of time in which a thread waited for a processor, as a decimal string.
    pub waiting_ratio: Option<String>,
    /// Times that a core was slowed down because of its temperature meanwhile, over all logical processors.
    pub core_throttle_events: Option<u64>,
    /// Times that a package was.
    pub package_throttle_events: Option<u64>,
    /// A Raspberry Pi's throttle bits afterwards (`vcgencmd get_throttled`).
    pub raspberry_pi_bits: Option<u32>,
    /// What is unknown, and why: field to reason.
    pub unavailable: BTreeMap<String, String>,
}

/// What was found of one variant.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VariantResult {
    /// The entry in the EdgeBenchmark's models.
    pub model: String,
    /// The recipe.
    pub variant: String,
    /// The runtime.
    pub target: String,
    /// `ONNX` or `TFLite`.
    pub format: String,
    /// The model's digest.
    pub digest: String,
    /// The model's size.
    pub size_bytes: u64,
    /// `Succeeded` or `Failed`.
    pub outcome: String,
    /// Why it failed; null if it did not.
    pub failure: Option<Failure>,
    /// Time per inference; null on emulated devices.
    pub latency: Option<Latency>,
    /// How many samples it takes in a second; null but in `Offline` and `Tiny`.
    pub throughput: Option<Throughput>,
    /// The highest rate that keeps the bound; null but in `Server`.
    pub server: Option<Server>,
    /// A series that moved, and was measured once more in a fresh process: kept, but not what the other numbers are of.
    pub set_aside: Option<SetAside>,
    /// Energy of one inference; null without a meter.
    pub energy: Option<Energy>,
    /// Time to load the model.
    pub load_nanoseconds: Option<u64>,
    /// Time of the first inference.
    pub first_inference_nanoseconds: Option<u64>,
    /// Instructions of one inference; only where they are exact.
    pub instructions_per_inference: Option<u64>,
    /// Instructions of one inference on each input that was tried, in order; they differ where a kernel depends on data.
    pub instruction_counts: Option<Vec<u64>>,
    /// Instructions of each operator, in order; only where they are exact.
    pub operators: Option<Vec<Operator>>,
    /// Instructions of one inference by kind, counted beside the machine's timer by a plugin of the emulator, which has
    /// confirmed `instructionsPerInference` and `operators`.
    pub instruction_mix: Option<InstructionMix>,
    /// Cycles of one inference by the core's own counter; only on boards.
    pub cycles_per_inference: Option<u64>,
    /// What one inference may take on the microcontroller that an emulated class stands for. No measurement.
    pub latency_estimate: Option<LatencyEstimate>,
    /// What one inference may need there. No measurement; null unless the class has its data sheet's figures.
    pub energy_estimate: Option<EnergyEstimate>,
    /// Largest memory that the model needed at run time.
    pub peak_memory_bytes: Option<u64>,
    /// Memory of a microcontroller, measured.
    pub microcontroller: Option<Microcontroller>,
    /// How right the outputs are.
    pub accuracy: Option<Accuracy>,
    /// Settings of the runtime that change results.
    pub settings: BTreeMap<String, String>,
    /// Digest of all outputs on the evaluation's or the generated inputs, as little-endian bytes in order.
    pub output_digest: Option<String>,
    /// How it compares with the first variant; null for the first itself.
    pub comparison: Option<Comparison>,
    /// Whether this variant's numbers can be used.
    pub validity: Validity,
    /// What is unknown, and why: field to reason.
    pub unavailable: BTreeMap<String, String>,
}

/// Why a variant failed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// In CamelCase.
    pub reason: String,
    /// What happened and what to do about it.
    pub message: String,
}

/// How many samples a variant takes in a second.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Throughput {
    /// Samples per second as a decimal string. `Offline`: all samples over the time of all windows; `Tiny`: the median of
    /// the windows' rates.
    pub samples_per_second: String,
    /// Samples inferred on.
    pub samples: u64,
    /// Queries: windows, each of which is one query.
    pub queries: u64,
    /// Time of all windows.
    pub duration_nanoseconds: u64,
}

/// What a variant serves, with queries that arrive by a Poisson process.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// The highest rate whose percentile keeps the bound, found by a search and kept while measuring; a decimal string, null
    /// if there is none.
    pub highest_queries_per_second: Option<String>,
    /// The rate at which the latencies were measured, as a decimal string.
    pub measured_queries_per_second: String,
    /// Whether the search ended at the rate of the runtime without a pause, so that no higher rate is possible.
    pub at_limit: bool,
    /// Queries of the measurement that were later than the bound.
    pub over_bound: u64,
    /// The search, in order.
    pub trials: Vec<ServerTrial>,
    /// What is unknown, and why.
    pub unavailable: BTreeMap<String, String>,
}

/// One rate of a search.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServerTrial {
    /// The rate, as a decimal string.
    pub queries_per_second: String,
    /// Queries issued.
    pub queries: u64,
    /// Queries that were later than the bound.
    pub over_bound: u64,
    /// Whether early stopping says that the percentile keeps the bound.
    pub kept: bool,
}

/// A series that was measured once more.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SetAside {
    /// How a series of the run moved: `Ramp`, `Step` or `Drifting`.
    pub reason: String,
    /// The variant whose series did, as `model/variant/target`; all are measured once more, so that they take turns.
    pub caused_by: String,
    /// What was measured at first.
    pub latency: Latency,
}

/// Time per query, warm-up apart. A query is one inference, but eight in `MultiStream`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Queries timed.
    pub count: u64,
    /// Inferences in a query.
    #[serde(default = "one")]
    pub inferences_per_query: u64,
    /// One of so many queries was timed; more than 1 where a window has room for fewer samples than it has queries.
    #[serde(default = "one")]
    pub sample_every: u64,
    /// Inferences before that, not counted.
    pub warm_up_count: u64,
    /// Whether times had stopped falling when warm-up ended.
    pub warm_up_steady: bool,
    /// Smallest.
    pub minimum_nanoseconds: u64,
    /// Largest.
    pub maximum_nanoseconds: u64,
    /// Mean, rounded to the nanosecond.
    pub mean_nanoseconds: u64,
    /// Lower end of the mean's 95 % interval by block bootstrap (BCa); null with too few samples.
    pub mean_lower_nanoseconds: Option<u64>,
    /// Upper end.
    pub mean_upper_nanoseconds: Option<u64>,
    /// Lower end of the median's 95 % interval by block bootstrap (BCa); null with too few samples.
    pub median_lower_nanoseconds: Option<u64>,
    /// Upper end.
    pub median_upper_nanoseconds: Option<u64>,
    /// Coefficient of variation of the windows' medians, as a decimal string; null with one window.
    pub window_variation: Option<String>,
    /// Autocorrelation of neighbouring samples, as a decimal string; null with one sample.
    pub autocorrelation: Option<String>,
    /// How percentiles are picked from the samples.
    pub percentile_method: String,
    /// Percentiles that the count allows, by name (`50`, `90`, `95`, `97`, `99`, `99.9`).
    pub percentiles: BTreeMap<String, Percentile>,
    /// What the percentile that the run is about does not exceed with 99 % confidence, as LoadGen tells it; the 90th where
    /// the throughput counts. Null with too few queries.
    pub early_stopping: Option<EarlyStopping>,
    /// What disturbed the windows.
    pub disturbance: Disturbance,
    /// What is unknown, and why (`percentiles.99`: TooFewSamples).
    pub unavailable: BTreeMap<String, String>,
    /// Windows in which this variant had its turn.
    pub windows: Vec<Window>,
    /// All samples in order; see `media_type::SAMPLES`.
    pub samples: Option<Samples>,
}

/// Energy of one inference, measured over the variant's windows.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Energy {
    /// The meter, such as `hwmon:ina226`.
    pub meter: String,
    /// What was measured: a rail, a package, the board.
    pub scope: String,
    /// Supply voltage in millivolts; energy depends on it.
    pub supply_millivolts: Option<u64>,
    /// Of all that happened, in nanojoules.
    pub gross_nanojoules: u64,
    /// Without what idling takes, in nanojoules; below zero if idling took more.
    pub net_nanojoules: i64,
    /// Standard uncertainty of the net, in nanojoules.
    pub uncertainty_nanojoules: u64,
    /// Net energy times mean latency, in joule seconds, as a decimal string.
    pub energy_delay_joule_seconds: String,
    /// Power of the idle machine before and after, in microwatts.
    pub idle_microwatts: Vec<u64>,
    /// Readings that counted.
    pub readings: u64,
    /// What is unknown, and why: field to reason.
    pub unavailable: BTreeMap<String, String>,
}

/// A percentile with its 95 % interval.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Percentile {
    /// The percentile.
    pub value_nanoseconds: u64,
    /// Lower end of the order-statistic interval; null with too few samples.
    pub lower_nanoseconds: Option<u64>,
    /// Upper end.
    pub upper_nanoseconds: Option<u64>,
}

/// A percentile's upper bound by LoadGen's early stopping.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EarlyStopping {
    /// Which percentile (`90`).
    pub percentile: String,
    /// How many of the slowest samples were discarded.
    pub discarded: u64,
    /// The slowest sample that was left.
    pub estimate_nanoseconds: u64,
}

/// What disturbed the windows of a variant, summed over them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Disturbance {
    /// Times that the process was taken off its core.
    pub involuntary_context_switches: u64,
    /// Times that it waited.
    pub voluntary_context_switches: u64,
    /// Page faults that needed no disk.
    pub minor_page_faults: u64,
    /// Page faults that needed one.
    pub major_page_faults: u64,
    /// Time that the runtime's threads were ready and had no processor, summed; null where the kernel does not count it.
    pub waited_nanoseconds: Option<u64>,
    /// Periods in which the quota held the process back; null where there is no quota to count.
    pub throttled_periods: Option<u64>,
}

/// One turn of a variant.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Nanoseconds since the run began.
    pub start_nanoseconds: u64,
    /// Nanoseconds since the run began.
    pub end_nanoseconds: u64,
    /// Queries in it, timed or not.
    pub count: u64,
    /// Median of those that were timed.
    pub median_nanoseconds: u64,
}

/// Raw samples, losslessly packed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Samples {
    /// How `data` is packed, such as `zlib+base64;leb128-delta`.
    pub encoding: String,
    /// The packed samples; null if they are a blob of their own.
    pub data: Option<String>,
    /// Digest of the blob; null if they are in `data`.
    pub digest: Option<String>,
}

/// Instructions of one operator.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Operator {
    /// Its name in the model's format.
    pub name: String,
    /// Instructions of one inference.
    pub instructions: u64,
}

/// Instructions of one inference by kind. Their sum is above `instructionsPerInference` by what entering and leaving each
/// operator takes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct InstructionMix {
    /// Reads of memory by the scalar core.
    pub load: u64,
    /// Writes of memory by the scalar core.
    pub store: u64,
    /// Multiplications, also of two and four values at once.
    pub multiply: u64,
    /// Branches, calls and loops.
    pub branch: u64,
    /// Helium (MVE), loads and stores of vectors among them.
    pub vector: u64,
    /// Floating point.
    pub float: u64,
    /// All others: sums, shifts, comparisons, moves.
    pub other: u64,
}

/// Latency that was computed from instructions, with its error. No measurement, and never among latencies.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LatencyEstimate {
    /// Time of one inference.
    pub nanoseconds: u64,
    /// Lower end of the band that `leaveOneOutError` gives.
    pub lower_nanoseconds: u64,
    /// Upper end.
    pub upper_nanoseconds: u64,
    /// The formula's name, such as `cpi-mlperf-tiny-v1`.
    pub model: String,
    /// Always `estimated`.
    pub source: String,
    /// The core that it is for.
    pub core: String,
    /// Its clock.
    pub clock_hertz: u64,
    /// Multiplications of one inference over estimated cycles, as a decimal string; the core cannot do more than its peak.
    pub macs_per_cycle: String,
    /// The largest relative error of the formula on a published time that it was not fitted to, as a decimal string.
    pub leave_one_out_error: String,
}

/// Energy that was computed from an estimated latency and a data sheet. No measurement.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnergyEstimate {
    /// Energy of one inference, of the microcontroller alone.
    pub nanojoules: u64,
    /// Lower end, of the latency's band.
    pub lower_nanojoules: u64,
    /// Upper end.
    pub upper_nanojoules: u64,
    /// Power of the running core by the data sheet.
    pub active_microwatts: u64,
    /// The formula's name.
    pub model: String,
    /// Always `estimated`.
    pub source: String,
}

/// Memory of a microcontroller, measured, and what the device class has. A run beyond a limit fails.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Microcontroller {
    /// Code and model.
    pub flash_bytes: u64,
    /// Arena, stack's high-water mark, input and output.
    pub ram_bytes: u64,
    /// Of which tensors.
    pub arena_bytes: u64,
    /// Of which stack.
    pub stack_bytes: u64,
    /// Of which input, output and statics.
    pub io_bytes: Option<u64>,
    /// The class's flash.
    pub flash_limit_bytes: Option<u64>,
    /// The class's RAM.
    pub ram_limit_bytes: Option<u64>,
    /// The class's room for tensors.
    pub arena_limit_bytes: Option<u64>,
}

/// How right the outputs are, with a 95 % interval. Numbers are decimal strings with six places.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Accuracy {
    /// How outputs were scored.
    pub metric: String,
    /// The score.
    pub value: String,
    /// Lower end.
    pub lower: String,
    /// Upper end.
    pub upper: String,
    /// Where the interval is from: `Wilson`, or `Bootstrap` (percentiles of 2,000 resamples by the run's seed).
    #[serde(default = "wilson")]
    pub interval_method: String,
    /// Samples scored.
    pub sample_count: u64,
    /// Samples scored right; null where the metric does not count right answers.
    pub correct: Option<u64>,
    /// Digest of the data.
    pub dataset_digest: String,
    /// What is unknown, and why.
    #[serde(default)]
    pub unavailable: BTreeMap<String, String>,
}

/// A variant beside the first one of the run, which took turns with it on the same device.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// `model/variant/target` of the first variant.
    pub reference: String,
    /// Of the windows' medians.
    pub latency: Option<LatencyComparison>,
    /// Of right answers to the same samples.
    pub accuracy: Option<AccuracyComparison>,
    /// What the latencies say: `Faster`, `Slower`, `Same` or `Inconclusive`.
    #[serde(default = "inconclusive")]
    pub verdict: String,
    /// What is unknown, and why: field to reason.
    pub unavailable: BTreeMap<String, String>,
}

/// How much slower (above zero) or faster a variant is than the reference.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LatencyComparison {
    /// Median of all differences between windows' medians (Hodges and Lehmann).
    pub shift_nanoseconds: i64,
    /// Lower end of its 95 % interval.
    pub lower_nanoseconds: i64,
    /// Upper end.
    pub upper_nanoseconds: i64,
    /// The shift over the reference's median, as a decimal string.
    pub shift_ratio: String,
    /// How far the reference is from itself, as a share of its median: a smaller shift cannot be told. From its own windows,
    /// one half of them against the other, as a decimal string; null with fewer than 8 windows.
    pub noise_floor_ratio: Option<String>,
    /// Probability of as much by chance (Mann and Whitney), as a decimal string.
    pub p_value: String,
    /// The same, corrected for all questions asked of this record (Holm).
    pub p_adjusted: String,
}

/// Samples that only one of two variants answers right.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AccuracyComparison {
    /// That only the reference answers right.
    pub only_reference: u64,
    /// That only this variant answers right.
    pub only_this: u64,
    /// Probability of as much by chance (McNemar, exact), as a decimal string.
    pub p_value: String,
    /// The same, corrected for all questions asked of this record (Holm).
    pub p_adjusted: String,
}

/// Whether numbers can be used.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Validity {
    /// `Valid`, `Invalid` or `Inconclusive`.
    pub state: String,
    /// Why not, in CamelCase; empty if valid.
    pub reasons: Vec<String>,
    /// What to do about it, for people.
    pub recommendations: Vec<String>,
}

const fn one() -> u64 {
    1
}

fn wilson() -> String {
    "Wilson".into()
}

fn inconclusive() -> String {
    "Inconclusive".into()
}

/// The JSON Schema of records as this version writes them: every field is required.
pub fn json_schema() -> schemars::Schema {
    schemars::generate::SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Record>()
}

impl Record {
    /// The canonical bytes and their digest.
    pub fn seal(&self) -> Result<(Vec<u8>, String), crate::CanonicalError> {
        let bytes = crate::canonical_json(self)?;
        let digest = crate::digest(&bytes);
        Ok((bytes, digest))
    }

    /// Gives a reason another name, wherever it stands.
    pub fn rename_reason(&mut self, from: &str, to: &str) {
        let results = self.results.iter_mut().flat_map(|result| {
            let comparison = result.comparison.as_mut().map(|comparison| &mut comparison.unavailable);
            comparison.into_iter().chain([&mut result.unavailable])
        });
        let all = results.chain([&mut self.unavailable, &mut self.harness.unavailable]);
        for reason in all.flat_map(|reasons| reasons.values_mut()).filter(|reason| *reason == from) {
            to.clone_into(reason);
        }
    }

    /// Paths of nulls that no `unavailable` explains: of the objects around a null, one must have an entry whose key is
    /// the way from it to the null, without the indices of lists. A `failure` that is null, and of `samples` the form that
    /// was not chosen, need no reason.
    pub fn nulls_without_reason(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(record) = serde_json::to_value(self) {
            crate::reasons::walk(&record, &mut Vec::new(), &mut String::new(), &mut found);
        }
        found
    }

    /// Paths of reasons in `unavailable` for what is not unknown: a value is there, or no field has that name.
    pub fn stale_reasons(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(record) = serde_json::to_value(self) {
            crate::reasons::stale(&record, &mut String::new(), &mut found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let workload: Workload =
            serde_json::from_str(r#"{"scenario": "SingleStream", "profile": "Quick", "seed": 0, "threads": 1}"#)
                .unwrap();
        assert_eq!((workload.percentile, workload.shortened), (None, Vec::new()));
        let accuracy: Accuracy = serde_json::from_str(
            r#"{"metric": "Top1Accuracy", "value": "0.9", "lower": "0.8", "upper": "1", "sampleCount": 10, "correct": 9,
                "datasetDigest": "sha256:9e"}"#,
        )
        .unwrap();
        assert_eq!((accuracy.interval_method.as_str(), accuracy.correct), ("Wilson", Some(9)));
        let latency = r#"{"count": 1, "warmUpCount": 1, "warmUpSteady": true, "minimumNanoseconds": 1, "maximumNanoseconds": 1,
            "meanNanoseconds": 1, "percentileMethod": "m", "percentiles": {}, "disturbance": {"involuntaryContextSwitches": 0,
            "voluntaryContextSwitches": 0, "minorPageFaults": 0, "majorPageFaults": 0}, "unavailable": {}, "windows": []}"#;
        let latency: Latency = serde_json::from_str(latency).unwrap();
        assert_eq!((latency.inferences_per_query, latency.sample_every), (1, 1));
        let memory = r#"{"flashBytes": 4, "ramBytes": 3, "arenaBytes": 2, "stackBytes": 1}"#;
        let memory: Microcontroller = serde_json::from_str(memory).unwrap();
        assert_eq!((memory.io_bytes, memory.flash_limit_bytes), (None, None));
    }

    #[test]
    fn every_field_is_required_of_who_writes() {
        fn optional(schema: &serde_json::Value, at: &str, found: &mut Vec<String>) {
            if let Some(properties) = schema.get("properties").and_then(serde_json::Value::as_object) {
                let required = schema.get("required").and_then(serde_json::Value::as_array);
                let is_required = |name: &String| required.is_some_and(|all| all.iter().any(|one| one == name));
                found.extend(properties.keys().filter(|name| !is_required(name)).map(|name| format!("{at}.{name}")));
            }
        }
        let schema = serde_json::to_value(json_schema()).unwrap();
        let mut found = Vec::new();
        optional(&schema, "Record", &mut found);
        let types = schema["$defs"].as_object().unwrap();
        assert!(types.len() > 20);
        for (name, schema) in types {
            optional(schema, name, &mut found);
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
