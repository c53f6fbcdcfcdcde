//! `inspect`: a record for people.

use std::collections::BTreeMap;
use std::path::Path;

use edgeyard_measure::{Sample, samples};
use edgeyard_record::{Record, VariantResult};

use crate::cli::{self, Inspect, Output};
use crate::error::Failure;
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
    let Some(folder) = &arguments.plots else { return Ok(()) };
    fs_err::create_dir_all(folder)?;
    let beside = arguments.record.parent().unwrap_or(Path::new("."));
    for result in &record.results {
        let Some(samples) = samples_of(result, beside)? else { continue };
        let name = format!("{}-{}-{}", result.model, result.variant, result.target).replace(['/', ' '], "_");
        let title = format!("{} {} {} on {}", result.model, result.variant, result.target, record.device.class);
        fs_err::write(folder.join(format!("{name}-latency.svg")), plot::over_time(&title, &samples))?;
        fs_err::write(folder.join(format!("{name}-histogram.svg")), plot::histogram(&title, &samples))?;
    }
    Ok(())
}

/// A variant's samples, from the record or from the blob that lies beside it.
fn samples_of(result: &VariantResult, beside: &Path) -> Result<Option<Vec<Sample>>, Failure> {
    let Some(packed) = result.latency.as_ref().and_then(|latency| latency.samples.as_ref()) else { return Ok(None) };
    let read = match (&packed.data, &packed.digest) {
        (Some(text), _) => samples::from_text(text),
        (None, Some(digest)) => {
            samples::unpack(&fs_err::read(beside.join("blobs").join(digest.trim_start_matches("sha256:")))?)
        }
        (None, None) => return Ok(None),
    };
    read.map(Some).map_err(|error| Failure::bad_input("SamplesUnreadable", format!("{}: {error}", result.variant)))
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
        vec!["Runtimes".into(), join(&environment.runtimes)],
        vec!["Machine".into(), join(&environment.fingerprint)],
        vec!["Settings".into(), join(&environment.settings)],
        vec!["Clock".into(), harness.clock.clone()],
        vec!["Validity".into(), record.validity.state.clone()],
    ];
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

fn details(result: &VariantResult) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    if let Some(latency) = &result.latency {
        rows.push(vec!["  samples".into(), format!("{} after {} of warm-up", latency.count, latency.warm_up_count)]);
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
        for (name, percentile) in &latency.percentiles {
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
        if let Some(stopping) = &latency.early_stopping {
            let text =
                format!("{} after discarding {}", table::duration(stopping.estimate_nanoseconds), stopping.discarded);
            rows.push(vec![format!("  p{} early stopping", stopping.percentile), text]);
        }
    }
    for operator in result.operators.iter().flatten() {
        rows.push(vec![format!("  {}", operator.name), table::thousands(operator.instructions)]);
    }
    if let Some(memory) = &result.microcontroller {
        rows.push(vec![
            "  memory".into(),
            format!(
                "flash {}, ram {} (arena {}, stack {})",
                table::thousands(memory.flash_bytes),
                table::thousands(memory.ram_bytes),
                table::thousands(memory.arena_bytes),
                table::thousands(memory.stack_bytes)
            ),
        ]);
    }
    rows
}

fn join(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}
