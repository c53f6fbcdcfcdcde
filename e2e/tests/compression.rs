//! Twelve recipes over four targets: every artefact is made, verified as far as its target can be, and the object tells the story.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgeyard_e2e::{Cluster, Example, data, lab};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(1200);
/// Without fine-tuning these may lose more than the constraint allows; whether they do is the data's business.
const MAY_BE_REJECTED: [&str; 3] = ["sparse-2-of-4", "thin-int8", "low-rank-int8"];

#[test]
#[ignore = "needs a cluster: cargo xtask test --only compression"]
fn twelve_variants_over_four_targets() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "compression")?;
    let namespace = example.name();
    let asked = asked(&example)?;
    ensure!(asked.len() == 12, "the example has {} variants", asked.len());
    let targets: BTreeSet<&String> = asked.values().flatten().collect();
    ensure!(targets.len() == 4, "the example has the targets {targets:?}");

    example.apply_example("compression/optimization.yaml")?;
    let object = cluster.completed("modeloptimization", namespace, "compression", LIMIT)?;
    let artifacts = object["status"]["artifacts"].as_array().context("status.artifacts")?;
    let mut made: BTreeMap<String, BTreeMap<String, &Value>> = BTreeMap::new();
    for artifact in artifacts {
        made.entry(word(artifact, "variant").to_owned())
            .or_default()
            .insert(word(artifact, "target").to_owned(), artifact);
    }
    for (variant, targets) in &asked {
        for target in targets {
            let artifact =
                made.get(variant).and_then(|of| of.get(target)).with_context(|| format!("no {variant}/{target}"))?;
            check(variant, target, artifact)?;
        }
    }
    ensure!(artifacts.len() == asked.values().map(Vec::len).sum::<usize>(), "more artefacts than were asked for");
    sizes(&made)?;

    let counts = &object["status"]["artifactCounts"];
    let states = |state: &str| artifacts.iter().filter(|artifact| artifact["state"] == state).count() as u64;
    ensure!(counts["total"] == artifacts.len() as u64 && counts["failed"] == 0, "{counts}");
    ensure!(counts["verified"] == states("Verified") && counts["rejected"] == states("Rejected"), "{counts}");

    // The wide table shows what the status says.
    let headline = &object["status"]["headline"];
    let table = cluster.kubectl(&["get", "mo", "compression", "-n", namespace, "-o", "wide"])?;
    for column in ["VERIFIED", "REJECTED", "FAILED", "BEST", "SMALLEST", "VERIFICATION"] {
        ensure!(table.contains(column), "kubectl get mo -o wide has no column {column}:\n{table}");
    }
    for field in ["best", "smallest", "verification"] {
        let text = headline[field].as_str().with_context(|| format!("headline.{field} of {headline}"))?;
        ensure!(table.contains(text), "the table does not show {field} `{text}`:\n{table}");
    }
    for target in targets {
        ensure!(word(headline, "best").contains(&format!("{target}=")), "no best variant of {target}: {headline}");
    }
    example.cleared()
}

/// One artefact: verified as far as its target can be, or rejected with the reason.
fn check(variant: &str, target: &str, artifact: &Value) -> Result<()> {
    let case = format!("{variant}/{target}: {artifact}");
    let state = word(artifact, "state");
    let allowed = state == "Verified" || state == "Rejected" && MAY_BE_REJECTED.contains(&variant);
    ensure!(allowed, "{case}");
    let level = word(artifact, "verification");
    // Nothing here runs an Ethos-U: Vela compiles for it, in the image `compiler`, and what it estimates is told as such.
    let compiled = target == "ethos-u";
    ensure!(level == if compiled { "Compiled" } else { "Executed" }, "{case}");
    let estimate = &artifact["compilerEstimate"];
    ensure!(estimate.is_object() == compiled, "{case}");
    if compiled {
        ensure!(estimate["cycles"].as_u64() > Some(0) && estimate["sramBytes"].as_u64() > Some(0), "{case}");
        ensure!(estimate["accelerator"] == "ethos-u55-128", "{case}");
    }
    ensure!(word(artifact, "digest").starts_with("sha256:") && artifact["sizeBytes"].as_u64() > Some(0), "{case}");
    ensure!(artifact["parameters"].as_u64() > Some(0) && artifact["macs"].as_u64() > Some(0), "{case}");
    if state == "Verified" && artifact["accuracyDrop"].is_string() {
        let drop: f64 = word(artifact, "accuracyDrop").parse()?;
        ensure!(drop <= 0.02 + 1e-9, "{case}");
    }
    Ok(())
}

/// What each technique is for shows in the numbers.
fn sizes(made: &BTreeMap<String, BTreeMap<String, &Value>>) -> Result<()> {
    let number = |variant: &str, target: &str, field: &str| -> Result<f64> {
        let artifact =
            made.get(variant).and_then(|of| of.get(target)).with_context(|| format!("{variant}/{target}"))?;
        artifact[field].as_f64().with_context(|| format!("{field} of {variant}/{target}"))
    };
    let share = |variant: &str, target: &str, field: &str| -> Result<f64> {
        Ok(number(variant, target, field)? / number("fp32", target, field)?)
    };
    for (variant, target, most) in
        [("fp16", "ort-x86", 0.6), ("fp16", "litert", 0.6), ("int8", "litert", 0.4), ("int8", "ort-x86", 0.45)]
    {
        let share = share(variant, target, "sizeBytes")?;
        ensure!(share < most, "{variant}/{target} has {share:.2} of the size of fp32, at most {most} is expected");
    }
    for target in ["ort-x86", "litert"] {
        let share = share("low-rank", target, "macs")?;
        ensure!(
            share <= 0.5,
            "low-rank/{target} has {share:.3} of the multiply-accumulates, at most 0.5 was asked for"
        );
    }
    let thin = share("thin-int8", "litert", "parameters")?;
    ensure!(thin < 0.9, "thin-int8/litert has {thin:.2} of the parameters");
    Ok(())
}

/// Variants of the example and their targets.
fn asked(example: &Example<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let text = data::manifest("compression/optimization.yaml", example.name(), &example.inputs)?;
    let object: Value = serde_yaml::from_str(&text)?;
    let variants = object["spec"]["variants"].as_array().context("spec.variants")?;
    let targets = |variant: &Value| -> Vec<String> {
        let all = variant["targets"].as_array().cloned().unwrap_or_default();
        all.iter().filter_map(|target| target.as_str().map(str::to_owned)).collect()
    };
    Ok(variants.iter().map(|variant| (word(variant, "name").to_owned(), targets(variant))).collect())
}

fn word<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
