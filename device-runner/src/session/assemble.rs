//! Makes the record of what was found: every field, and a reason for each that is unknown.

use std::collections::BTreeMap;
use std::time::SystemTime;

use edgeyard_job::spec::{Fidelity, ModelFormat, Profile, Scenario, Workload as Asked};
use edgeyard_measure::Sample;
use edgeyard_record::{
    Accuracy, CoolDown, Device, Environment, Failure as RecordedFailure, Harness, Metadata, Monitor, Power,
    RECORD_VERSION, Record, SetAside, Validity, VariantResult, Workload,
};

use super::compare;
use super::counts::{self, Counts};
use super::energy::Metered;
use super::latency::{Measured, latency, packed};
use super::scenario;
use super::subject::{Cause, Series, Subject};
use super::{Context, Outcome, Outputs, Round, Unavailable};
use crate::accuracy::metric_name;
use crate::error::Failure;
use crate::machine::monitor::Seen;
use crate::machine::throttle::{self, Throttle};
use crate::machine::{self, settings};
use crate::meter::Recording;
use crate::plan::{Lease, Plan};
use crate::timing::{Timing, percentile_name};
use crate::{clock, validity};

/// What was found beside the variants' own results.
pub struct Found {
    /// When the run began.
    pub started: SystemTime,
    /// Who the machine is.
    pub fingerprint: BTreeMap<String, String>,
    /// Median of the time between two readings of the clock.
    pub clock_overhead: u64,
    /// How variants were measured.
    pub timing: Timing,
    /// What was seen and told meanwhile, where latencies were measured.
    pub round: Option<Round>,
}

/// The record and what goes with it.
pub fn outcome(context: Context, subjects: Vec<Subject>, found: Found) -> Result<Outcome, Failure> {
    let Found { started, fingerprint, clock_overhead, timing, round } = found;
    let plan = context.plan;
    let mut unavailable = Unavailable::new();
    let runtimes = subjects
        .iter()
        .filter_map(|subject| subject.info.as_ref())
        .map(|info| (info.runtime.clone(), info.version.clone()))
        .collect();
    let fingerprint_digest = digest_of(&fingerprint)?;
    let environment =
        Environment { fingerprint_digest, fingerprint, runtimes, settings: settings::read(&context.root) };
    let (mut blobs, mut outputs, mut failures, mut results) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut scores = Vec::new();
    for mut subject in subjects {
        let metered = match &round {
            Some(Round { metered, .. }) => metered.as_ref().map_err(String::as_str),
            None => Err("EmulatedClock"),
        };
        results.push(variant_result(&context, &timing, &mut subject, metered, &mut blobs));
        failures.push(subject.failure);
        scores.push(subject.score);
        if plan.keep_outputs
            && let (Some(inferred), Some(info)) = (subject.outputs, subject.info)
        {
            outputs.push(Outputs {
                label: subject.variant.label(),
                infos: info.outputs,
                batch: inferred.batch,
                count: inferred.count,
                bytes: inferred.bytes,
            });
        }
    }
    compare::with_the_first(&mut results, &scores, plan.workload.scenario == Scenario::Server, plan.workload.seed);
    let (metadata, device) = who(plan, started, &mut unavailable);
    if !context.clock_is_emulated && context.phases.iter().any(|phase| phase.variant.is_none()) {
        unavailable.insert("phases.variant".into(), "WholeRun".into());
    }
    let judged = round.as_ref().map(|Round { seen, throttle: (before, after), cooled, metered: _ }| {
        let throttled = throttle::between(before, after, seen.raspberry_pi_bits);
        validity::of_machine(seen, &throttled, cooled.as_ref())
    });
    let power = match round.as_ref().map(|round| &round.metered) {
        None => Err("EmulatedClock".to_owned()),
        Some(Err(why)) => Err(why.clone()),
        Some(Ok(metered)) => match metered.recording() {
            Some(recording) => Ok(power(recording, &mut blobs)),
            None => Err(metered.failure().unwrap_or("MeterFailed").to_owned()),
        },
    };
    if let Err(why) = &power {
        unavailable.insert("power".into(), why.clone());
    }
    let (monitor, cool_down) = match round {
        Some(Round { seen, throttle, cooled, metered: _ }) => (Some(monitor(seen, &throttle)), cooled.map(cool_down)),
        None => (None, None),
    };
    if monitor.is_none() {
        unavailable.insert("monitor".into(), "EmulatedClock".into());
    }
    if cool_down.is_none() {
        let why = if plan.cool_down_millidegrees.is_some() { "EmulatedClock" } else { "NotAsked" };
        unavailable.insert("coolDown".into(), why.into());
    }
    let record = Record {
        schema_version: RECORD_VERSION.into(),
        metadata,
        device,
        workload: workload(&plan.workload, plan.threads, &timing, &mut unavailable),
        environment,
        harness: Harness {
            name: "edgeyard-device-runner".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            clock: clock::NAME.into(),
            clock_overhead_nanoseconds: (!context.clock_is_emulated).then_some(clock_overhead),
            methods: super::methods::describe(plan, &timing, context.clock_is_emulated),
            unavailable: if context.clock_is_emulated {
                [("clockOverheadNanoseconds".to_owned(), "EmulatedClock".to_owned())].into()
            } else {
                BTreeMap::new()
            },
        },
        phases: if context.clock_is_emulated { Vec::new() } else { context.phases },
        validity: validity::of_run(results.iter().map(|result| &result.validity).chain(&judged)),
        monitor,
        cool_down,
        power: power.ok(),
        results,
        unavailable,
    };
    Ok(Outcome { record, blobs, outputs, failures })
}

fn monitor(seen: Seen, (before, after): &(Throttle, Throttle)) -> Monitor {
    let own_ratio = seen.own_share().map(ratio);
    let Seen {
        looks,
        stolen,
        kilohertz,
        governors,
        millidegrees,
        load,
        runnable,
        waiting,
        raspberry_pi_bits: live,
        own_nanoseconds,
        watched_nanoseconds,
    } = seen;
    let grown = |of: fn(&Throttle) -> Option<u64>| Some(of(after)?.saturating_sub(of(before)?));
    let (core, package) = (grown(|read| read.core_events), grown(|read| read.package_events));
    let bits = after.raspberry_pi_bits.map(|bits| bits | live.unwrap_or(0));
    let mut unavailable = Unavailable::new();
    let mut explain = |field: &str, missing: bool, why: Option<&String>| {
        if missing {
            unavailable.insert(field.to_owned(), why.map_or("NotReadable", String::as_str).to_owned());
        }
    };
    for (fields, missing) in [
        (&["stolenRatio"][..], stolen.is_none()),
        (&["lowestKilohertz", "highestKilohertz"], kilohertz.is_none()),
        (&["firstMillidegrees", "highestMillidegrees"], millidegrees.is_none()),
        (&["highestLoad"], load.is_none()),
        (&["meanRunnable", "mostRunnable"], runnable.is_none()),
        (&["waitingRatio"], waiting.is_none()),
        (&["ownRatio"], own_ratio.is_none()),
    ] {
        fields.iter().for_each(|field| explain(field, missing, None));
    }
    let why = |field: &str| after.unavailable.get(field).or_else(|| before.unavailable.get(field));
    explain("coreThrottleEvents", core.is_none(), why("coreEvents"));
    explain("packageThrottleEvents", package.is_none(), why("packageEvents"));
    explain("raspberryPiBits", bits.is_none(), why("raspberryPiBits"));
    Monitor {
        looks,
        own_nanoseconds,
        stolen_ratio: stolen.map(ratio),
        lowest_kilohertz: kilohertz.map(|(lowest, _)| lowest),
        highest_kilohertz: kilohertz.map(|(_, highest)| highest),
        first_millidegrees: millidegrees.map(|(first, _)| first),
        highest_millidegrees: millidegrees.map(|(_, highest)| highest),
        highest_load: load.map(|load| format!("{load:.2}")),
        watched_nanoseconds,
        own_ratio,
        governors,
        mean_runnable: runnable.map(|(mean, _)| format!("{mean:.2}")),
        most_runnable: runnable.map(|(_, most)| most),
        waiting_ratio: waiting.map(ratio),
        core_throttle_events: core,
        package_throttle_events: package,
        raspberry_pi_bits: bits,
        unavailable,
    }
}

fn cool_down(cooled: machine::cooling::CoolDown) -> CoolDown {
    let machine::cooling::CoolDown { target_millidegrees, first_millidegrees, last_millidegrees, waited } = cooled;
    let unknown = [("firstMillidegrees", first_millidegrees), ("lastMillidegrees", last_millidegrees)];
    CoolDown {
        target_millidegrees,
        first_millidegrees,
        last_millidegrees,
        waited_nanoseconds: waited.as_nanos() as u64,
        unavailable: unknown
            .into_iter()
            .filter(|(_, told)| told.is_none())
            .map(|(field, _)| (field.to_owned(), "TemperatureUnknown".to_owned()))
            .collect(),
    }
}

/// What a meter read; counters of energy as the power since the reading before.
fn power(recording: &Recording, blobs: &mut Vec<Vec<u8>>) -> Power {
    let readings: Vec<Sample> = recording
        .power()
        .into_iter()
        .map(|(start, watts)| Sample { start, duration: (watts * 1e6).round().max(0.0) as u64 })
        .collect();
    let series = packed(&readings, blobs);
    Power { meter: recording.name.clone(), scope: recording.scope.clone(), count: readings.len() as u64, series }
}

fn who(plan: &Plan, started: SystemTime, unavailable: &mut Unavailable) -> (Metadata, Device) {
    let identity = plan.identity.clone();
    let mut by_hand = |paths: &[&str]| {
        for path in paths {
            unavailable.insert((*path).to_owned(), "RunByHand".into());
        }
    };
    if identity.namespace.is_none() {
        by_hand(&["metadata.namespace"]);
    }
    if identity.uid.is_none() {
        by_hand(&["metadata.uid"]);
    }
    let metadata = Metadata {
        namespace: identity.namespace,
        name: identity.name,
        uid: identity.uid,
        attempt: identity.attempt,
        started_at: clock::rfc3339(started),
        finished_at: clock::rfc3339(SystemTime::now()),
    };
    let (name, namespace, request, fencing_token) = match plan.device.lease.clone() {
        Some(Lease { namespace, name, request, fencing_token }) => {
            (Some(name), Some(namespace), Some(request), Some(fencing_token))
        }
        None => {
            by_hand(&["device.name", "device.namespace", "device.request", "device.fencingToken"]);
            (None, None, None, None)
        }
    };
    let fidelity = match plan.device.fidelity {
        Fidelity::Hardware => "Hardware",
        Fidelity::Emulated => "Emulated",
    };
    let class = plan.device.class.clone();
    (metadata, Device { name, namespace, class, request, fidelity: fidelity.into(), fencing_token })
}

fn workload(asked: &Asked, threads: u32, timing: &Timing, unavailable: &mut Unavailable) -> Workload {
    let percentile = timing.rules.percentile.map(percentile_name);
    for (field, missing, why) in [
        ("percentile", percentile.is_none(), "ThroughputCounts"),
        ("queryCount", asked.query_count.is_none(), "NotAsked"),
        ("latencyBoundNanoseconds", asked.latency_bound_nanoseconds.is_none(), "NotThisScenario"),
    ] {
        if missing {
            unavailable.insert(format!("workload.{field}"), why.into());
        }
    }
    Workload {
        scenario: scenario::name(asked.scenario).into(),
        profile: profile_name(asked.profile).into(),
        percentile,
        query_count: asked.query_count,
        latency_bound_nanoseconds: asked.latency_bound_nanoseconds,
        shortened: timing.shortened.clone(),
        seed: asked.seed,
        threads,
    }
}

const fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Smoke => "Smoke",
        Profile::Quick => "Quick",
        Profile::Standard => "Standard",
        Profile::Official => "Official",
    }
}

fn digest_of(fingerprint: &BTreeMap<String, String>) -> Result<String, Failure> {
    let bytes = edgeyard_record::canonical_json(fingerprint)
        .map_err(|error| Failure::infrastructure("RecordUnwritable", error.to_string()))?;
    Ok(edgeyard_record::digest(&bytes))
}

/// A ratio as records write it.
fn ratio(value: f64) -> String {
    format!("{value:.6}")
}

fn variant_result(
    context: &Context,
    timing: &Timing,
    subject: &mut Subject,
    metered: Result<&Metered, &str>,
    blobs: &mut Vec<Vec<u8>>,
) -> VariantResult {
    let plan = context.plan;
    let asked = plan.workload.scenario;
    let failed = subject.failure.clone();
    let mut unavailable = Unavailable::new();
    let mut explain = |field: &str, missing: bool, reason: &str| {
        if missing {
            let reason = failed.as_ref().map_or(reason, |failure| failure.reason.as_str());
            unavailable.insert(field.to_owned(), reason.to_owned());
        }
    };
    let no_clock = context.clock_is_emulated;
    let inferences = timing.inferences_per_query(asked);
    let mut said = |series: &Series| latency(series, timing.percentile(), inferences, plan.workload.seed, blobs);
    let (measured, set_aside) = match &failed {
        Some(_) => (None, None),
        None => {
            let set_aside = subject.set_aside.as_ref().and_then(|(Cause { reason, label }, series)| {
                let latency = said(series)?.latency;
                Some(SetAside { reason: reason.clone(), caused_by: label.clone(), latency })
            });
            (said(&subject.series), set_aside)
        }
    };
    let moved = measured.as_ref().map(|measured| (measured.movement, measured.modes));
    let latency = measured.map(|Measured { latency, .. }| latency);
    let no_times = if no_clock { "EmulatedClock" } else { "NotMeasured" };
    explain("setAside", set_aside.is_none(), if latency.is_some() { "NotRemeasured" } else { no_times });
    let of_this = |this: bool| if this { no_times } else { "NotThisScenario" };
    let usable = latency.is_some();
    let throughput = scenario::throughput(asked, &subject.series, subject.batch).filter(|_| usable);
    explain("throughput", throughput.is_none(), of_this(scenario::counts_throughput(asked)));
    let bound = plan.workload.latency_bound_nanoseconds;
    let server = subject
        .search
        .as_ref()
        .zip(bound)
        .filter(|_| usable)
        .map(|(search, bound)| scenario::server(search, &subject.series.durations(), bound, timing.percentile()));
    explain("server", server.is_none(), of_this(asked == Scenario::Server));
    let bound_broken = server.as_ref().is_some_and(|server| server.highest_queries_per_second.is_none());
    explain("latency", latency.is_none(), "EmulatedClock");
    let load_nanoseconds = subject.load_nanoseconds.filter(|_| !no_clock);
    let (energy, why) = match metered {
        _ if latency.is_none() => (None, no_times.to_owned()),
        Err(why) => (None, why.to_owned()),
        Ok(metered) => match metered.of_variant(&subject.series.windows) {
            Ok(energy) => (Some(energy), String::new()),
            Err(reason) => (None, reason),
        },
    };
    explain("energy", energy.is_none(), &why);
    explain("loadNanoseconds", load_nanoseconds.is_none(), "EmulatedClock");
    let first_inference_nanoseconds = subject.first_nanoseconds.filter(|_| !no_clock);
    explain("firstInferenceNanoseconds", first_inference_nanoseconds.is_none(), "EmulatedClock");

    let counted = subject.counted.take();
    let Counts {
        instructions_per_inference,
        instruction_counts,
        operators,
        instruction_mix,
        cycles_per_inference,
        latency_estimate,
        energy_estimate,
        microcontroller,
    } = counts::of(plan, counted.as_ref(), subject.macs, &mut explain);
    let peak_memory_bytes = match &microcontroller {
        Some(memory) => Some(memory.ram_bytes),
        None => subject.peak_memory_bytes,
    };
    explain("peakMemoryBytes", peak_memory_bytes.is_none(), "NotReadable");

    let accuracy = plan.data.as_ref().zip(subject.score.as_ref()).and_then(|(data, score)| {
        let correct = score.correct();
        let mut unavailable = Unavailable::new();
        if correct.is_none() {
            unavailable.insert("correct".into(), "NotCounted".into());
        }
        Some(Accuracy {
            metric: metric_name(data.scoring.as_ref()?.metric).into(),
            value: ratio(score.value),
            lower: ratio(score.interval.lower),
            upper: ratio(score.interval.upper),
            interval_method: score.interval_method.into(),
            sample_count: score.count,
            correct,
            dataset_digest: data.digest.clone(),
            unavailable,
        })
    });
    let scores = plan.data.as_ref().is_some_and(|data| data.scoring.is_some());
    explain("accuracy", accuracy.is_none(), if scores { "NaNOutput" } else { "NotRequested" });
    let output_digest = subject.outputs.as_ref().map(|outputs| edgeyard_record::digest(&outputs.bytes));
    explain("outputDigest", output_digest.is_none(), "NotInferred");

    let validity = match &failed {
        Some(failure) => Validity {
            state: validity::INVALID.into(),
            reasons: vec![failure.reason.clone()],
            recommendations: vec![failure.message.clone()],
        },
        None => validity::of_variant(&validity::Evidence {
            latency: latency.as_ref(),
            moved,
            percentile: timing.rules.percentile,
            too_short: scenario::too_short(asked, timing, &subject.series, subject.batch).as_deref(),
            bound_broken,
            clock_jumped: subject.series.clock_jumped,
            has_nan: subject.outputs.as_ref().is_some_and(|outputs| outputs.has_nan),
            threads: plan.threads,
            usable_processors: settings::usable_processors(&context.root),
            clock_is_emulated: no_clock,
            second_opinion: counted.as_ref().map(|counted| &counted.second_opinion),
            other_core: counts::other_core(&plan.backend),
        }),
    };
    let variant = subject.variant;
    VariantResult {
        model: variant.model.clone(),
        variant: variant.variant.clone(),
        target: variant.target.clone(),
        format: match variant.format {
            ModelFormat::Onnx => "ONNX".into(),
            ModelFormat::TfLite => "TFLite".into(),
        },
        digest: variant.digest.clone(),
        size_bytes: variant.size_bytes,
        outcome: if failed.is_some() { "Failed".into() } else { "Succeeded".into() },
        failure: failed.map(|failure| RecordedFailure { reason: failure.reason, message: failure.message }),
        latency,
        throughput,
        server,
        set_aside,
        energy,
        load_nanoseconds,
        first_inference_nanoseconds,
        instructions_per_inference,
        instruction_counts,
        operators,
        instruction_mix,
        cycles_per_inference,
        latency_estimate,
        energy_estimate,
        peak_memory_bytes,
        microcontroller,
        accuracy,
        settings: subject.info.as_ref().map(|info| info.settings.clone()).unwrap_or_default(),
        output_digest,
        comparison: None,
        validity,
        unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Watch;
    use crate::lane::protocol::WarmedUp;
    use crate::machine::Root;
    use crate::plan::{self, Identity, Variant};
    use crate::progress::Silent;
    use edgeyard_job::Progress;
    use edgeyard_job::spec::{Backend, EnergyPolicy, Limits};
    use edgeyard_record::Window;

    fn plan() -> Plan {
        let variant = |name: &str| Variant {
            model: "m".into(),
            variant: name.into(),
            target: "ort-x86".into(),
            format: ModelFormat::Onnx,
            digest: "sha256:00".into(),
            size_bytes: 1,
            path: "m.onnx".into(),
        };
        Plan {
            identity: Identity { name: "m".into(), attempt: 1, ..Identity::default() },
            device: plan::Device { class: "host-cpu".into(), fidelity: Fidelity::Hardware, lease: None },
            backend: Backend::runtime(),
            limits: Limits::default(),
            workload: Asked {
                scenario: Scenario::SingleStream,
                profile: Profile::Standard,
                seed: 3,
                query_count: None,
                percentile: None,
                latency_bound_nanoseconds: None,
            },
            threads: 1,
            variants: vec![variant("a"), variant("b")],
            data: None,
            keep_outputs: false,
            energy: EnergyPolicy::BestEffort,
            meter: None,
            cool_down_millidegrees: None,
        }
    }

    /// Ten windows of a hundred queries each.
    fn series(level: impl Fn(u64) -> u64) -> Series {
        let samples: Vec<Sample> =
            (0..1000).map(|n| Sample { start: n * 2_000_000, duration: level(n) + n * 7919 % 11 }).collect();
        let windows = samples.chunks(100).map(|part| Window {
            start_nanoseconds: part[0].start,
            end_nanoseconds: part[99].start + part[99].duration,
            count: 100,
            median_nanoseconds: part[50].duration,
        });
        Series {
            windows: windows.collect(),
            samples,
            warmed_up: Some(WarmedUp { count: 10, nanoseconds: 1, median_nanoseconds: 1, steady: true }),
            sample_every: 1,
            ..Series::default()
        }
    }

    fn record(change: impl FnOnce(&mut [Subject])) -> Record {
        let plan = plan();
        let watch = Watch::new(std::sync::Arc::default(), None);
        let context = Context {
            plan: &plan,
            watch: &watch,
            observer: &Silent,
            root: Root::default(),
            epoch: 0,
            clock_is_emulated: false,
            phases: Vec::new(),
            progress: Progress { step: String::new(), message: String::new(), done: 0, total: 0 },
        };
        let mut subjects: Vec<Subject> = plan.variants.iter().map(Subject::new).collect();
        subjects[0].series = series(|_| 1_000_000);
        subjects[1].series = series(|_| 1_200_000);
        change(&mut subjects);
        let found = Found {
            started: SystemTime::UNIX_EPOCH,
            fingerprint: BTreeMap::new(),
            clock_overhead: 20,
            timing: Timing::of(&plan.workload, None).unwrap(),
            round: Some(Round {
                seen: Seen::default(),
                metered: Err("NoMeter".into()),
                throttle: Default::default(),
                cooled: None,
            }),
        };
        let record = outcome(context, subjects, found).unwrap().record;
        assert_eq!(record.nulls_without_reason(), Vec::<String>::new());
        assert_eq!(record.stale_reasons(), Vec::<String>::new());
        record
    }

    #[test]
    fn a_series_that_was_set_aside_is_kept_and_named() {
        let found = record(|subjects| {
            let ramp = series(|n| 1_000_000 + n * 200);
            let (mut moved, steady) = (Subject::new(subjects[0].variant), subjects[0].series.clone());
            moved.series = ramp.clone();
            let cause = super::super::moved(&[moved]).unwrap();
            assert_eq!((cause.reason.as_str(), cause.label.as_str()), ("Ramp", "m/a/ort-x86"));
            subjects[0].series = steady;
            subjects[0].set_aside = Some((cause, ramp));
        });
        let [first, second] = found.results.as_slice() else { panic!("two variants") };
        let aside = first.set_aside.as_ref().unwrap();
        assert_eq!((aside.reason.as_str(), aside.latency.count), ("Ramp", 1000));
        assert!(aside.latency.maximum_nanoseconds > first.latency.as_ref().unwrap().maximum_nanoseconds);
        assert_eq!(first.validity.state, validity::VALID, "{:?}", first.validity);
        assert_eq!(second.unavailable["setAside"], "NotRemeasured");
        let comparison = second.comparison.as_ref().unwrap();
        assert_eq!(comparison.verdict, "Slower");
        let latency = comparison.latency.as_ref().unwrap();
        assert_eq!(latency.shift_nanoseconds, 200_000);
        assert!(latency.noise_floor_ratio.is_some());
    }

    #[test]
    fn a_series_that_moves_still_is_inconclusive_and_kept() {
        for (name, level) in [
            ("Ramp", (|n| 1_000_000 + n * 200) as fn(u64) -> u64),
            ("Step", |n| if n < 400 { 1_000_000 } else { 1_100_000 }),
            ("Bimodal", |n| if n % 5 < 2 { 1_000_000 } else { 1_100_000 }),
            ("Drifting", |n| 1_000_000 + (50_000.0 * (n as f64 / 40.0).sin() + 50_000.0) as u64),
        ] {
            let found = record(|subjects| subjects[1].series = series(level));
            let result = &found.results[1];
            assert_eq!(
                (result.validity.state.as_str(), result.validity.reasons.as_slice()),
                (validity::INCONCLUSIVE, &[name.to_owned()][..])
            );
            assert_eq!(result.latency.as_ref().unwrap().count, 1000);
        }
    }

    #[test]
    fn cycles_of_a_board_are_no_instructions() {
        use crate::cortex_m::Unit;
        use crate::runtime::{Counted, SecondOpinion};
        let counted = |unit, second_opinion| Counted {
            unit,
            by_input: vec![7, 8],
            operators: vec![("ADD".into(), 7)],
            second_opinion,
            ..Counted::default()
        };
        let mix = edgeyard_record::InstructionMix { other: 9, ..Default::default() };
        let found = record(|subjects| {
            subjects[0].counted = Some(counted(Unit::Cycles, SecondOpinion::NotAsked));
            subjects[1].counted = Some(counted(Unit::Instructions, SecondOpinion::Agrees(mix)));
        });
        let [board, emulated] = found.results.as_slice() else { panic!("two variants") };
        assert_eq!((board.cycles_per_inference, board.instructions_per_inference), (Some(7), None));
        assert!(board.operators.is_none() && board.instruction_counts.is_none() && board.instruction_mix.is_none());
        assert_eq!(board.unavailable["instructionsPerInference"], "CyclesCounted");
        assert_eq!((emulated.cycles_per_inference, emulated.instructions_per_inference), (None, Some(7)));
        assert_eq!((emulated.instruction_mix, emulated.instruction_counts.as_deref()), (Some(mix), Some(&[7, 8][..])));
        // The class is no microcontroller, so nothing is estimated for one.
        assert_eq!(emulated.unavailable["latencyEstimate"], "NoMicrocontroller");
    }

    #[test]
    fn a_processor_that_others_used_is_named() {
        let found = record(|subjects| {
            // The windows of both last two seconds.
            subjects[0].series.disturbance.waited_nanoseconds = Some(50_000_000);
            subjects[1].series.disturbance.waited_nanoseconds = Some(150_000_000);
        });
        assert_eq!(found.results[0].validity.state, validity::VALID);
        assert_eq!(found.results[1].validity.reasons, ["ProcessorShared"]);
        assert!(found.results[1].validity.recommendations[0].contains("7."), "{:?}", found.results[1].validity);
    }

    #[test]
    fn a_throttled_run_and_a_clock_that_jumps_are_invalid_and_kept() {
        let found = record(|subjects| {
            subjects[0].series.throttled_periods = Some(3);
            subjects[1].series.clock_jumped = true;
        });
        for (result, reason) in found.results.iter().zip(["Throttled", "ClockJumped"]) {
            assert_eq!(
                (result.validity.state.as_str(), result.validity.reasons[0].as_str()),
                (validity::INVALID, reason)
            );
            assert_eq!(result.latency.as_ref().unwrap().count, 1000);
        }
    }
}
