//! Makes the record of what was found: every field, and a reason for each that is unknown.

use std::collections::BTreeMap;
use std::time::SystemTime;

use edgeyard_job::spec::{Fidelity, ModelFormat, Profile};
use edgeyard_measure::wilson;
use edgeyard_record::{
    Accuracy, Device, Environment, Failure as RecordedFailure, Harness, Metadata, Microcontroller, Monitor, Operator,
    RECORD_VERSION, Record, Validity, VariantResult, Workload,
};

use super::compare;
use super::energy::Metered;
use super::latency::{Measured, latency};
use super::subject::Subject;
use super::{Context, Outcome, Outputs, Unavailable};
use crate::accuracy::metric_name;
use crate::error::Failure;
use crate::machine::monitor::Seen;
use crate::machine::settings;
use crate::plan::{Lease, Plan};
use crate::{clock, validity};

/// What was found beside the variants' own results.
pub struct Found {
    /// When the run began.
    pub started: SystemTime,
    /// Who the machine is.
    pub fingerprint: BTreeMap<String, String>,
    /// Median of the time between two readings of the clock.
    pub clock_overhead: u64,
    /// What the monitor saw, where latencies were measured.
    pub seen: Option<Seen>,
    /// What the meter told, if there is one.
    pub metered: Option<Metered>,
}

/// The record and what goes with it.
pub fn outcome(context: Context, subjects: Vec<Subject>, found: Found) -> Result<Outcome, Failure> {
    let Found { started, fingerprint, clock_overhead, seen, metered } = found;
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
        let (result, blob) = variant_result(&context, &mut subject, metered.as_ref());
        results.push(result);
        blobs.extend(blob);
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
    compare::with_the_first(&mut results, &scores);
    let (metadata, device) = who(plan, started, &mut unavailable);
    if context.phases.iter().any(|phase| phase.variant.is_none()) {
        unavailable.insert("phases.variant".into(), "WholeRun".into());
    }
    let judged = seen.as_ref().map(validity::of_machine);
    let monitor = seen.map(monitor);
    if monitor.is_none() {
        unavailable.insert("monitor".into(), "EmulatedClock".into());
    }
    let record = Record {
        schema_version: RECORD_VERSION.into(),
        metadata,
        device,
        workload: Workload {
            scenario: "SingleStream".into(),
            profile: profile_name(plan.workload.profile).into(),
            seed: plan.workload.seed,
            threads: plan.threads,
        },
        environment,
        harness: Harness {
            name: "edgeyard-device-runner".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            clock: clock::NAME.into(),
            clock_overhead_nanoseconds: (!context.clock_is_emulated).then_some(clock_overhead),
            unavailable: if context.clock_is_emulated {
                [("clockOverheadNanoseconds".to_owned(), "EmulatedClock".to_owned())].into()
            } else {
                BTreeMap::new()
            },
        },
        phases: if context.clock_is_emulated { Vec::new() } else { context.phases },
        validity: validity::of_run(results.iter().map(|result| &result.validity).chain(&judged)),
        monitor,
        results,
        unavailable,
    };
    Ok(Outcome { record, blobs, outputs, failures })
}

fn monitor(seen: Seen) -> Monitor {
    let Seen { looks, stolen, kilohertz, millidegrees, load, own_nanoseconds } = seen;
    let mut unavailable = Unavailable::new();
    let mut explain = |fields: &[&str], missing: bool| {
        for field in fields.iter().filter(|_| missing) {
            unavailable.insert((*field).to_owned(), "NotReadable".into());
        }
    };
    explain(&["stolenRatio"], stolen.is_none());
    explain(&["lowestKilohertz", "highestKilohertz"], kilohertz.is_none());
    explain(&["firstMillidegrees", "highestMillidegrees"], millidegrees.is_none());
    explain(&["highestLoad"], load.is_none());
    Monitor {
        looks,
        own_nanoseconds,
        stolen_ratio: stolen.map(ratio),
        lowest_kilohertz: kilohertz.map(|(lowest, _)| lowest),
        highest_kilohertz: kilohertz.map(|(_, highest)| highest),
        first_millidegrees: millidegrees.map(|(first, _)| first),
        highest_millidegrees: millidegrees.map(|(_, highest)| highest),
        highest_load: load.map(|load| format!("{load:.2}")),
        unavailable,
    }
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

const fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Smoke => "Smoke",
        Profile::Quick => "Quick",
        Profile::Standard => "Standard",
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
    subject: &mut Subject,
    metered: Option<&Metered>,
) -> (VariantResult, Option<Vec<u8>>) {
    let plan = context.plan;
    let failed = subject.failure.clone();
    let mut unavailable = Unavailable::new();
    let mut explain = |field: &str, missing: bool, reason: &str| {
        if missing {
            let reason = failed.as_ref().map_or(reason, |failure| failure.reason.as_str());
            unavailable.insert(field.to_owned(), reason.to_owned());
        }
    };
    let no_clock = context.clock_is_emulated;
    let measured = if failed.is_some() { None } else { latency(subject, plan.workload.seed) };
    let moved = measured.as_ref().map(|measured| (measured.movement, measured.modes));
    let (latency, blob) = match measured {
        Some(Measured { latency, blob, .. }) => (Some(latency), blob),
        None => (None, None),
    };
    explain("latency", latency.is_none(), "EmulatedClock");
    let load_nanoseconds = subject.load_nanoseconds.filter(|_| !no_clock);
    let (energy, why) = match metered {
        _ if latency.is_none() => (None, "EmulatedClock".to_owned()),
        None => (None, "NoMeter".to_owned()),
        Some(metered) => match metered.of_variant(&subject.windows) {
            Ok(energy) => (Some(energy), String::new()),
            Err(reason) => (None, reason.to_owned()),
        },
    };
    explain("energy", energy.is_none(), &why);
    explain("loadNanoseconds", load_nanoseconds.is_none(), "EmulatedClock");
    let first_inference_nanoseconds = subject.first_nanoseconds.filter(|_| !no_clock);
    explain("firstInferenceNanoseconds", first_inference_nanoseconds.is_none(), "EmulatedClock");

    let counted = subject.counted.take();
    let instructions_per_inference = counted.as_ref().and_then(|counted| counted.by_input.first().copied());
    explain("instructionsPerInference", instructions_per_inference.is_none(), "NotCounted");
    let instruction_counts = counted.as_ref().map(|counted| counted.by_input.clone());
    explain("instructionCounts", instruction_counts.is_none(), "NotCounted");
    let operators = counted.as_ref().map(|counted| {
        let operator =
            |(name, instructions): &(String, u64)| Operator { name: name.clone(), instructions: *instructions };
        counted.operators.iter().map(operator).collect()
    });
    explain("operators", operators.is_none(), "NotCounted");
    let microcontroller = counted.as_ref().map(|counted| Microcontroller {
        flash_bytes: counted.memory.flash_bytes,
        ram_bytes: counted.memory.ram_bytes,
        arena_bytes: counted.memory.arena_bytes,
        stack_bytes: counted.memory.stack_bytes,
    });
    explain("microcontroller", microcontroller.is_none(), "NoMicrocontroller");
    let peak_memory_bytes = match &microcontroller {
        Some(memory) => Some(memory.ram_bytes),
        None => subject.peak_memory_bytes,
    };
    explain("peakMemoryBytes", peak_memory_bytes.is_none(), "NotReadable");

    let accuracy = plan.data.as_ref().zip(subject.score.as_ref()).and_then(|(data, score)| {
        let (correct, count) = (score.correct(), score.count());
        let interval = wilson(correct, count, edgeyard_measure::interval::CONFIDENCE)?;
        Some(Accuracy {
            metric: metric_name(data.scoring.as_ref()?.metric).into(),
            value: ratio(correct as f64 / count as f64),
            lower: ratio(interval.lower),
            upper: ratio(interval.upper),
            sample_count: count,
            correct,
            dataset_digest: data.digest.clone(),
        })
    });
    explain("accuracy", accuracy.is_none(), "NotRequested");
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
            has_nan: subject.outputs.as_ref().is_some_and(|outputs| outputs.has_nan),
            threads: plan.threads,
            usable_processors: settings::usable_processors(&context.root),
            clock_is_emulated: no_clock,
        }),
    };
    let variant = subject.variant;
    let result = VariantResult {
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
        energy,
        load_nanoseconds,
        first_inference_nanoseconds,
        instructions_per_inference,
        instruction_counts,
        operators,
        peak_memory_bytes,
        microcontroller,
        accuracy,
        settings: subject.info.as_ref().map(|info| info.settings.clone()).unwrap_or_default(),
        output_digest,
        comparison: None,
        validity,
        unavailable,
    };
    (result, blob)
}
