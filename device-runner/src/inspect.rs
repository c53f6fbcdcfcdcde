//! `inspect`: a record for people.

use std::collections::BTreeMap;
use std::path::Path;

use edgeyard_measure::{Sample, samples};
use edgeyard_record::{Comparison, Monitor, Record, Samples, VariantResult};

use crate::cli::{self, Inspect, Output};
use crate::error::Failure;
use crate::plot::Trace;
use crate::{plot, table};

/// Prints a record, and writes plots if asked to.
///
/// # Errors
/// When the file is no record, or its samples cannot be read.
pub fn execute(arguments: &Inspect) -> Result<(), Failure> {
    let bytes = fs_err::read(&arguments.record)?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::bad_input("NotARecord", format!("{} is no benchmark record: {error}", arguments.record.display()))
    })?;
    match arguments.output {
        Output::Json => cli::print(&serde_json::to_string_pretty(&record).unwrap_or_default()),
        Output::Table => cli::print(&describe(&record, &edgeyard_record::digest(&bytes))),
    }
    match &arguments.plots {
        Some(folder) => plots(&record, arguments.record.parent().unwrap_or(Path::new(".")), folder),
        None => Ok(()),
    }
}

/// Writes `latency.svg` of all variants, a histogram of each, and `power.svg` if there was a meter.
fn plots(record: &Record, beside: &Path, folder: &Path) -> Result<(), Failure> {
    struct Drawn {
        label: String,
        samples: Vec<Sample>,
        windows: Vec<(u64, u64)>,
    }
    let mut drawn = Vec::new();
    for result in &record.results {
        let Some(latency) = &result.latency else { continue };
        let windows = latency.windows.iter().map(|window| (window.start_nanoseconds, window.end_nanoseconds)).collect();
        let label = format!("{}/{}/{}", result.model, result.variant, result.target);
        if let Some(packed) = &latency.samples {
            drawn.push(Drawn { samples: unpacked(packed, beside, &label)?, label, windows });
        }
    }
    fs_err::create_dir_all(folder)?;
    let traces: Vec<Trace> =
        drawn.iter().map(|Drawn { label, samples, windows }| Trace { label, samples, windows }).collect();
    let (class, scenario) = (&record.device.class, &record.workload.scenario);
    if !traces.is_empty() {
        let title = format!("Latency on {class}, {scenario}");
        fs_err::write(folder.join("latency.svg"), plot::over_time(&title, &traces))?;
    }
    for Trace { label, samples, .. } in &traces {
        let name = label.replace(['/', ' '], "-");
        fs_err::write(
            folder.join(format!("{name}-histogram.svg")),
            plot::histogram(&format!("{label} on {class}"), samples),
        )?;
    }
    if let Some(power) = &record.power {
        let readings = unpacked(&power.series, beside, "power")?;
        let title = format!("Power of {} by {}", power.scope, power.meter);
        fs_err::write(folder.join("power.svg"), plot::power(&title, &readings, &traces))?;
    }
    Ok(())
}

/// Packed samples, from the record or from the blob that lies beside it.
fn unpacked(packed: &Samples, beside: &Path, what: &str) -> Result<Vec<Sample>, Failure> {
    let read = match (&packed.data, &packed.digest) {
        (Some(text), _) => samples::from_text(text),
        (None, Some(digest)) => {
            let file = beside.join("blobs").join(digest.trim_start_matches("sha256:"));
            let blob = fs_err::read(&file).map_err(|error| {
                Failure::bad_input(
                    "SamplesMissing",
                    format!(
                        "{error}: plots need the samples that the record names beside it; `kubectl edgeyard get DIGEST --save \
                         DIR` fetches both"
                    ),
                )
            })?;
            if edgeyard_record::digest(&blob) != *digest {
                let message = format!("{what}: the blob beside the record is not {digest}");
                return Err(Failure::bad_input("SamplesUnreadable", message));
            }
            samples::unpack(&blob)
        }
        (None, None) => Ok(Vec::new()),
    };
    read.map_err(|error| Failure::bad_input("SamplesUnreadable", format!("{what}: {error}")))
}

fn describe(record: &Record, digest: &str) -> String {
    let Record { metadata, device, workload, environment, harness, .. } = record;
    let mut lines = vec![
        vec!["Record".to_owned(), digest.to_owned()],
        vec!["Name".into(), metadata.name.clone()],
        vec!["Time".into(), format!("{} to {}", metadata.started_at, metadata.finished_at)],
        vec!["Device".into(), format!("{} ({})", device.name.as_deref().unwrap_or(&device.class), device.fidelity)],
        vec![
            "Workload".into(),
            format!("{} {}, seed {}, {} threads", workload.scenario, workload.profile, workload.seed, workload.threads),
        ],
        vec!["Percentile".into(), workload.percentile.as_ref().map(|name| format!("p{name}")).unwrap_or_default()],
        vec!["Shortened".into(), workload.shortened.join(", ")],
        vec!["Runtimes".into(), join(&environment.runtimes)],
        vec!["Machine".into(), join(&environment.fingerprint)],
        vec!["Settings".into(), join(&environment.settings)],
        vec!["Clock".into(), harness.clock.clone()],
        vec!["Validity".into(), record.validity.state.clone()],
    ];
    if let Some(monitor) = &record.monitor {
        lines.push(vec!["Machine seen".into(), seen(monitor)]);
    }
    lines.retain(|line| !line[1].is_empty());
    let mut out = table::align(&lines);
    out.push('\n');
    out.push_str(&table::record(record));
    for result in &record.results {
        out.push_str(&format!("\n{}/{}/{}  {}\n", result.model, result.variant, result.target, result.digest));
        if let Some(failure) = &result.failure {
            out.push_str(&format!("  failed: {}: {}\n", failure.reason, failure.message));
            continue;
        }
        out.push_str(&table::align(&details(result)));
        for (field, reason) in &result.unavailable {
            out.push_str(&format!("  no {field}: {reason}\n"));
        }
    }
    out
}

fn seen(monitor: &Monitor) -> String {
    let mut parts = vec![format!("{} looks", monitor.looks)];
    if let Some(stolen) = &monitor.stolen_ratio {
        parts.push(format!("{stolen} of its time stolen"));
    }
    if let (Some(lowest), Some(highest)) = (monitor.lowest_kilohertz, monitor.highest_kilohertz) {
        parts.push(format!("{lowest} to {highest} kHz"));
    }
    if let Some(highest) = monitor.highest_millidegrees {
        parts.push(format!("up to {:.1} °C", highest as f64 / 1e3));
    }
    if let Some(load) = &monitor.highest_load {
        parts.push(format!("load up to {load}"));
    }
    parts.join(", ")
}

fn compared(comparison: &Comparison) -> Vec<Vec<String>> {
    let mut rows =
        vec![vec!["  compared".to_owned(), format!("{}, beside {}", comparison.verdict, comparison.reference)]];
    if let Some(latency) = &comparison.latency {
        let floor = latency.noise_floor_ratio.as_deref().unwrap_or("?");
        let text = format!(
            "{} ns [{}, {}], {} of the reference, noise floor {floor}, p {} (Holm {})",
            latency.shift_nanoseconds,
            latency.lower_nanoseconds,
            latency.upper_nanoseconds,
            latency.shift_ratio,
            latency.p_value,
            latency.p_adjusted
        );
        rows.push(vec!["  shift".into(), text]);
    }
    if let Some(accuracy) = &comparison.accuracy {
        let text = format!(
            "only the reference right {}, only this {}, p {} (Holm {})",
            accuracy.only_reference, accuracy.only_this, accuracy.p_value, accuracy.p_adjusted
        );
        rows.push(vec!["  right answers".into(), text]);
    }
    rows
}

fn details(result: &VariantResult) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(latency) = &result.latency {
        rows.push(vec![
            "  samples".into(),
            format!(
                "{} in {} windows, after {} of warm-up",
                latency.count,
                latency.windows.len(),
                latency.warm_up_count
            ),
        ]);
        rows.push(vec![
            "  range".into(),
            format!(
                "{} to {}, mean {}",
                table::duration(latency.minimum_nanoseconds),
                table::duration(latency.maximum_nanoseconds),
                table::duration(latency.mean_nanoseconds)
            ),
        ]);
        let end = |end: Option<u64>| end.map_or_else(|| "?".into(), table::duration);
        let mut percentiles: Vec<_> = latency.percentiles.iter().collect();
        percentiles.sort_by(|a, b| a.0.len().cmp(&b.0.len()).then(a.0.cmp(b.0)));
        for (name, percentile) in percentiles {
            rows.push(vec![
                format!("  p{name}"),
                format!(
                    "{} [{}, {}]",
                    table::duration(percentile.value_nanoseconds),
                    end(percentile.lower_nanoseconds),
                    end(percentile.upper_nanoseconds)
                ),
            ]);
        }
        if let (Some(lower), Some(upper)) = (latency.median_lower_nanoseconds, latency.median_upper_nanoseconds) {
            let text = format!("[{}, {}]", table::duration(lower), table::duration(upper));
            rows.push(vec!["  median by bootstrap".into(), text]);
        }
        if let Some(stopping) = &latency.early_stopping {
            let text =
                format!("{} after discarding {}", table::duration(stopping.estimate_nanoseconds), stopping.discarded);
            rows.push(vec![format!("  p{} early stopping", stopping.percentile), text]);
        }
    }
    if let Some(throughput) = &result.throughput {
        let text = format!("{} samples a second, {} in all", throughput.samples_per_second, throughput.samples);
        rows.push(vec!["  throughput".into(), text]);
    }
    if let Some(server) = &result.server {
        let highest =
            server.highest_queries_per_second.as_ref().map(|rate| format!("{rate} queries a second keep the bound"));
        let tried = format!("{} rates tried, {} queries late", server.trials.len(), server.over_bound);
        rows.push(vec![
            "  server".into(),
            format!("{}; {tried}", highest.unwrap_or_else(|| "no rate keeps the bound".into())),
        ]);
    }
    if let Some(aside) = &result.set_aside {
        let p50 =
            aside.latency.percentiles.get("50").map_or_else(|| "?".into(), |p| table::duration(p.value_nanoseconds));
        rows.push(vec![
            "  set aside".into(),
            format!("{} of {}: {} samples, p50 {p50}", aside.reason, aside.caused_by, aside.latency.count),
        ]);
    }
    if let Some(energy) = &result.energy {
        let text = format!(
            "{} nJ gross, {} nJ net ± {} an inference, {} of {}",
            energy.gross_nanojoules, energy.net_nanojoules, energy.uncertainty_nanojoules, energy.scope, energy.meter
        );
        rows.push(vec!["  energy".into(), text]);
    }
    if let Some(accuracy) = &result.accuracy {
        let text = format!(
            "{} [{}, {}] ({}), {} samples",
            accuracy.value, accuracy.lower, accuracy.upper, accuracy.interval_method, accuracy.sample_count
        );
        rows.push(vec![format!("  {}", accuracy.metric), text]);
    }
    rows.extend(result.comparison.iter().flat_map(compared));
    for operator in result.operators.iter().flatten() {
        rows.push(vec![format!("  {}", operator.name), table::thousands(operator.instructions)]);
    }
    rows.extend(counted(result));
    rows
}

/// What is known of a microcontroller, beside its operators.
fn counted(result: &VariantResult) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(mix) = &result.instruction_mix {
        rows.push(vec!["  mix".to_owned(), table::mix(mix)]);
    }
    if let Some(cycles) = result.cycles_per_inference {
        rows.push(vec!["  cycles".into(), table::thousands(cycles)]);
    }
    if let Some(memory) = &result.microcontroller {
        let of = |used: u64, limit: Option<u64>| match limit {
            Some(limit) => format!("{} of {}", table::thousands(used), table::thousands(limit)),
            None => table::thousands(used),
        };
        rows.push(vec![
            "  memory".into(),
            format!(
                "flash {}, ram {} (arena {}, stack {})",
                of(memory.flash_bytes, memory.flash_limit_bytes),
                of(memory.ram_bytes, memory.ram_limit_bytes),
                of(memory.arena_bytes, memory.arena_limit_bytes),
                table::thousands(memory.stack_bytes)
            ),
        ]);
    }
    if let Some(estimate) = &result.latency_estimate {
        let text = format!(
            "estimated {} [{}, {}] on a {} at {} MHz by {}, error up to {} of a published time",
            table::duration(estimate.nanoseconds),
            table::duration(estimate.lower_nanoseconds),
            table::duration(estimate.upper_nanoseconds),
            estimate.core,
            estimate.clock_hertz / 1_000_000,
            estimate.model,
            estimate.leave_one_out_error
        );
        rows.push(vec!["  latency".into(), text]);
    }
    if let Some(energy) = &result.energy_estimate {
        let text = format!(
            "estimated {} nJ [{}, {}] by {} of {} µW",
            table::thousands(energy.nanojoules),
            table::thousands(energy.lower_nanojoules),
            table::thousands(energy.upper_nanojoules),
            energy.model,
            table::thousands(energy.active_microwatts)
        );
        rows.push(vec!["  energy".into(), text]);
    }
    rows
}

fn join(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}
