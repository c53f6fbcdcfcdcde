//! `kubectl edgeyard get`: results out of the store.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use edgeyard_artifact::{Digest, ResultFilter};
use edgeyard_job::media_type;
use serde_json::{Value, json};

use crate::Output;
use crate::connection::Store;
use crate::table;

/// Arguments of `get`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// An EdgeBenchmark's name, or a digest. Absent: a list of all results.
    what: Option<String>,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// List at most so many, the newest first.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// With a record's digest: put it into this folder as `record.json`, and what it names besides, such as samples, into
    /// `blobs/` below, for `edgeyard-device-runner inspect DIR/record.json --plots DIR`. With a model's or data set's: put it there
    /// under the digest's hex digits.
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

/// Prints what was asked for.
///
/// # Errors
/// When there is no such thing, or what the store said.
pub async fn run(store: &Store, args: &Args) -> Result<()> {
    let Args { what, output, limit, save } = args;
    match (what, save) {
        (Some(digest), Some(folder)) if digest.starts_with("sha256:") => {
            return save_record(store, digest, folder).await;
        }
        (_, Some(_)) => bail!("--save needs a digest: `kubectl edgeyard get` lists those of results"),
        (_, None) => {}
    }
    match what {
        None => list(store, *output, *limit).await,
        Some(digest) if digest.starts_with("sha256:") => by_digest(store, *output, digest).await,
        Some(name) => records(store, *output, name).await,
    }
}

async fn list(store: &Store, output: Output, limit: u32) -> Result<()> {
    let filter = ResultFilter { limit: Some(limit), ..ResultFilter::default() };
    let results = store.client.list_results(&store.namespace, &filter).await.map_err(|error| store.explain(error))?;
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&results)?);
        return Ok(());
    }
    let rows = results.items.iter().map(|item| {
        let kind = item
            .media_type
            .trim_start_matches("application/vnd.edgeyard.")
            .split('.')
            .next()
            .unwrap_or_default()
            .to_owned();
        vec![
            item.name.clone(),
            kind,
            item.attempt.to_string(),
            item.size_bytes.to_string(),
            item.created_at.clone(),
            item.digest.to_string(),
        ]
    });
    print!("{}", table::render(&["NAME", "KIND", "ATTEMPT", "BYTES", "CREATED", "DIGEST"], rows));
    Ok(())
}

async fn by_digest(store: &Store, output: Output, text: &str) -> Result<()> {
    let digest: Digest = text.parse().with_context(|| format!("{text} is no digest: sha256: and 64 hex digits"))?;
    let bytes = store.client.get_blob(&store.namespace, &digest).await.map_err(|error| store.explain(error))?;
    let Ok(document) = serde_json::from_slice::<Value>(&bytes) else {
        bail!("{digest} is no JSON but {} bytes of something else", bytes.len());
    };
    match output {
        Output::Json => println!("{}", String::from_utf8_lossy(&bytes)),
        Output::Table if document["results"].is_array() => print!("{}", record_table(std::slice::from_ref(&document))),
        Output::Table => println!("{}", serde_json::to_string_pretty(&document)?),
    }
    Ok(())
}

/// A record and all blobs that it names, as the runner writes them beside each other; or a model or data set under its digest.
async fn save_record(store: &Store, text: &str, folder: &Path) -> Result<()> {
    let digest: Digest = text.parse().with_context(|| format!("{text} is no digest: sha256: and 64 hex digits"))?;
    let bytes = store.client.get_blob(&store.namespace, &digest).await.map_err(|error| store.explain(error))?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let Ok(record) = serde_json::from_slice(&bytes) else {
        let file = folder.join(text.trim_start_matches("sha256:"));
        std::fs::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
        println!("{}", file.display());
        return Ok(());
    };
    let blobs = folder.join("blobs");
    std::fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    let file = folder.join("record.json");
    std::fs::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let named = named_blobs(&record);
    for name in &named {
        let blob: Digest = name.parse().with_context(|| format!("the record names {name}, which is no digest"))?;
        let to = blobs.join(name.trim_start_matches("sha256:"));
        store.client.get_blob_to_file(&store.namespace, &blob, &to).await.map_err(|error| store.explain(error))?;
    }
    println!("{} and {} blobs", file.display(), named.len());
    Ok(())
}

/// The digests of packed series: objects with `encoding` and `digest`, wherever they stand.
fn named_blobs(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("encoding").and(fields.get("digest")).and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(named_blobs)).collect()
        }
        Value::Array(items) => items.iter().flat_map(named_blobs).collect(),
        _ => Vec::new(),
    }
}

async fn records(store: &Store, output: Output, name: &str) -> Result<()> {
    let filter = ResultFilter { media_type: Some(media_type::RECORD.into()), name: Some(name.to_owned()), limit: None };
    let found = store.client.list_results(&store.namespace, &filter).await.map_err(|error| store.explain(error))?;
    if found.items.is_empty() {
        bail!(
            "no record of an EdgeBenchmark called {name} in {}; `kubectl edgeyard get -n {}` lists all results",
            store.namespace,
            store.namespace
        );
    }
    let mut records = Vec::new();
    for item in &found.items {
        let bytes =
            store.client.get_blob(&store.namespace, &item.digest).await.map_err(|error| store.explain(error))?;
        records.push(serde_json::from_slice::<Value>(&bytes).with_context(|| format!("{} is no record", item.digest))?);
    }
    match output {
        Output::Json => println!("{}", json!({"items": records})),
        Output::Table => print!("{}", record_table(&records)),
    }
    Ok(())
}

/// Variant × device.
pub(crate) fn record_table(records: &[Value]) -> String {
    const COLUMNS: [&str; 13] = [
        "MODEL",
        "VARIANT",
        "TARGET",
        "DEVICE",
        "SIZE",
        "ACCURACY",
        "P50",
        "P90",
        "P99",
        "RATE",
        "ENERGY",
        "INSTRUCTIONS",
        "VALIDITY",
    ];
    let rows = records.iter().flat_map(|record| {
        let device =
            text(&record["device"]["name"]).unwrap_or_else(|| text(&record["device"]["class"]).unwrap_or_default());
        let results = record["results"].as_array().cloned().unwrap_or_default();
        results.into_iter().map(move |result| row(&result, &device))
    });
    table::render(&COLUMNS, rows)
}

fn row(result: &Value, device: &str) -> Vec<String> {
    let unknown = "–";
    let field = |name: &str| text(&result[name]).unwrap_or_else(|| unknown.into());
    let percentile = |name: &str| {
        result["latency"]["percentiles"][name]["valueNanoseconds"]
            .as_u64()
            .map_or_else(|| unknown.to_owned(), table::duration)
    };
    let accuracy = &result["accuracy"];
    let percent =
        |name: &str| accuracy[name].as_str().and_then(|text| text.parse::<f64>().ok()).map(|ratio| ratio * 100.0);
    let accuracy = match (percent("value"), percent("lower"), percent("upper")) {
        // An error and no share.
        _ if accuracy["metric"] == "MeanAbsoluteError" => {
            let word = |name: &str| text(&accuracy[name]).unwrap_or_else(|| unknown.to_owned());
            format!("error {} [{}, {}] n={}", word("value"), word("lower"), word("upper"), accuracy["sampleCount"])
        }
        (Some(value), Some(lower), Some(upper)) => {
            format!("{value:.2} % [{lower:.2}, {upper:.2}] n={}", accuracy["sampleCount"])
        }
        _ => unknown.to_owned(),
    };
    let reasons: Vec<_> =
        result["validity"]["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let validity = match text(&result["failure"]["reason"]) {
        Some(failure) => format!("Failed: {failure}"),
        None if reasons.is_empty() => text(&result["validity"]["state"]).unwrap_or_default(),
        None => format!("{}: {}", text(&result["validity"]["state"]).unwrap_or_default(), reasons.join(", ")),
    };
    let rate = text(&result["server"]["highestQueriesPerSecond"])
        .or_else(|| text(&result["throughput"]["samplesPerSecond"]))
        .and_then(|text| text.parse::<f64>().ok())
        .map_or_else(|| unknown.to_owned(), |rate| format!("{rate:.1}/s"));
    let energy = result["energy"]["netNanojoules"].as_i64().map_or_else(
        || unknown.to_owned(),
        |net| {
            let source = if result["energy"]["meter"].as_str().is_some_and(|meter| meter.starts_with("replay")) {
                " (replayed)"
            } else {
                ""
            };
            format!("{:.3} µJ net{source}", net as f64 / 1e3)
        },
    );
    vec![
        field("model"),
        field("variant"),
        field("target"),
        device.to_owned(),
        result["sizeBytes"].as_u64().map_or_else(|| unknown.to_owned(), |bytes| format!("{bytes} B")),
        accuracy,
        percentile("50"),
        percentile("90"),
        percentile("99"),
        rate,
        energy,
        result["instructionsPerInference"].as_u64().map_or_else(|| unknown.to_owned(), |count| count.to_string()),
        validity,
    ]
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_found_wherever_a_series_stands() {
        let record = json!({
            "digest": "sha256:no", "power": {"series": {"encoding": "x", "data": null, "digest": "sha256:p"}},
            "results": [{"digest": "sha256:model", "latency": {"samples": {"encoding": "x", "data": null, "digest": "sha256:s"}}},
                {"latency": {"samples": {"encoding": "x", "data": "…", "digest": null}}}],
        });
        assert_eq!(named_blobs(&record), ["sha256:p", "sha256:s"]);
    }

    #[test]
    fn a_record_becomes_rows_and_unknowns_become_dashes() {
        let record = json!({
            "device": {"name": "m4-0", "class": "qemu-cortex-m4"},
            "results": [{
                "model": "mnist", "variant": "int8", "target": "tflm", "sizeBytes": 23984, "latency": null, "failure": null,
                "accuracy": {"value": "0.990600", "lower": "0.988507", "upper": "0.992315", "sampleCount": 10000},
                "instructionsPerInference": 1_382_843, "validity": {"state": "Valid", "reasons": []},
            }],
        });
        let text = record_table(&[record.clone()]);
        let line = text.lines().nth(1).unwrap();
        for part in ["int8", "m4-0", "23984 B", "99.06 % [98.85, 99.23] n=10000", "–", "1382843", "Valid"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        let mut metered = record;
        metered["results"][0]["energy"] = json!({"meter": "replay:lab", "netNanojoules": 1500});
        metered["results"][0]["throughput"] = json!({"samplesPerSecond": "1234.567890"});
        let text = record_table(&[metered]);
        assert!(text.contains("1.500 µJ net (replayed)") && text.contains("1234.6/s"), "{text}");
    }
}
