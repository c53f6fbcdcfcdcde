//! Which variants are measured on which device, in which target, and what is left out.

use std::collections::BTreeMap;

use edgeyard_crds::benchmark::EnergyPolicy;
use edgeyard_crds::benchmark_status::{Fidelity, ResolvedArtifact, Skipped};
use edgeyard_crds::devices::DeviceRequest;
use edgeyard_crds::run::PinnedVariant;
use edgeyard_crds::scalars::{Key, ObjectName, Reason};

use crate::{Refusal, names, reason};

use super::{Benchmark, DeviceClass, DeviceEntry, MAX_RUNS, MAX_VARIANTS, Pool};

/// A run to make.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRun {
    /// The BenchmarkRun's name.
    pub name: String,
    /// What is asked of the queue.
    pub request: DeviceRequest,
    /// Which of the entry's devices, from 0.
    pub unit: i32,
    /// The device's class.
    pub class: String,
    /// What to measure; the first is the reference of its model.
    pub variants: Vec<PinnedVariant>,
}

/// All runs of a benchmark, and what is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// The runs, in the order of `spec.devices`.
    pub runs: Vec<PlannedRun>,
    /// Pairs of variant and device that do not fit.
    pub skipped: Vec<Skipped>,
}

/// Pairs variants with devices. `pools` and `classes` have an entry for each device entry, by its name.
///
/// # Errors
/// A [`Refusal`] when nothing is left, too much is left, or what does not fit has to.
pub fn pairs(
    benchmark_name: &str,
    benchmark: &Benchmark,
    artifacts: &[ResolvedArtifact],
    unverified: &[(String, String)],
    pools: &BTreeMap<String, Pool>,
    classes: &BTreeMap<String, DeviceClass>,
) -> Result<Pairs, Refusal> {
    let mut found = Pairs::default();
    // Variants in the order of the models; an artefact list keeps the targets of one variant together or not.
    let mut variants: Vec<(&str, &str)> = Vec::new();
    for artifact in artifacts {
        let variant = (artifact.model.0.as_str(), artifact.variant.0.as_str());
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    for entry in &benchmark.devices {
        let (Some(pool), Some(class)) = (pools.get(&entry.name), classes.get(&entry.name)) else { continue };
        let targets = wanted_targets(entry, class)?;
        check_energy(benchmark, entry, class)?;
        let mut pinned = Vec::new();
        for (model, variant) in &variants {
            let fitting = targets.iter().filter_map(|target| {
                artifacts.iter().find(|artifact| {
                    (artifact.model.0.as_str(), artifact.variant.0.as_str(), artifact.target.0.as_str())
                        == (*model, *variant, target.as_str())
                })
            });
            let before = pinned.len();
            let most = if entry.targets.is_some() { targets.len() } else { 1 };
            pinned.extend(fitting.take(most).map(pin));
            if pinned.len() == before {
                found.skipped.push(skipped(model, variant, &entry.name, reason::NO_ARTIFACT_FOR_TARGET));
            }
        }
        for (model, variant) in unverified {
            found.skipped.push(skipped(model, variant, &entry.name, reason::VARIANT_NOT_VERIFIED));
        }
        if pinned.len() > MAX_VARIANTS {
            return Err(Refusal::new(
                reason::TOO_MANY_VARIANTS,
                format!(
                    "spec.devices: {} would measure {} variants in one run, at most {MAX_VARIANTS} will do: use \
                     variantPolicy Named, or several EdgeBenchmarks",
                    entry.name,
                    pinned.len()
                ),
            ));
        }
        if !pinned.is_empty() {
            for unit in 0..entry.count {
                found.runs.push(run(benchmark_name, entry, unit, class, pool, &pinned));
            }
        }
    }
    check(benchmark, artifacts, classes, found)
}

/// Energy that is required has to be measurable, before a device is leased for it.
fn check_energy(benchmark: &Benchmark, entry: &DeviceEntry, class: &DeviceClass) -> Result<(), Refusal> {
    let problem = match (benchmark.energy, class.fidelity, &class.meter) {
        (EnergyPolicy::BestEffort | EnergyPolicy::Disabled, _, _)
        | (EnergyPolicy::Required, Fidelity::Hardware, Some(_)) => return Ok(()),
        (EnergyPolicy::Required, Fidelity::Emulated, _) => "is emulated and has no energy to measure",
        (EnergyPolicy::Required, Fidelity::Hardware, None) => "names no meter",
    };
    Err(Refusal::new(
        reason::METER_MISSING,
        format!(
            "spec.measurement.energy is Required, and class {} of spec.devices {} {problem}: set energy to BestEffort, or \
             choose a class with meters",
            class.name, entry.name
        ),
    ))
}

/// In which targets an entry's devices measure, the preferred one first.
fn wanted_targets(entry: &DeviceEntry, class: &DeviceClass) -> Result<Vec<String>, Refusal> {
    let Some(wanted) = &entry.targets else { return Ok(class.targets.clone()) };
    match wanted.iter().find(|target| !class.targets.contains(target)) {
        None => Ok(wanted.clone()),
        Some(target) => Err(Refusal::new(
            reason::TARGET_NOT_OF_CLASS,
            format!(
                "spec.devices: {}: class {} does not have target {target}, it has {}",
                entry.name,
                class.name,
                class.targets.join(", ")
            ),
        )),
    }
}

fn check(
    benchmark: &Benchmark,
    artifacts: &[ResolvedArtifact],
    classes: &BTreeMap<String, DeviceClass>,
    found: Pairs,
) -> Result<Pairs, Refusal> {
    let named =
        |skipped: &Skipped| format!("{}/{} on {} ({})", skipped.model, skipped.variant, skipped.device, skipped.reason);
    if benchmark.all_must_fit
        && let Some(first) = found.skipped.first()
    {
        return Err(Refusal::new(
            reason::INCOMPATIBLE_PAIR,
            format!(
                "{} pair(s) do not fit and incompatiblePolicy is Fail, such as {}: make the variant for a target of the \
                 device's class, or use incompatiblePolicy Skip",
                found.skipped.len(),
                named(first)
            ),
        ));
    }
    if found.runs.is_empty() {
        let mut made: Vec<&str> = artifacts.iter().map(|artifact| artifact.target.0.as_str()).collect();
        made.sort_unstable();
        made.dedup();
        let run: Vec<_> = benchmark
            .devices
            .iter()
            .filter_map(|entry| classes.get(&entry.name))
            .map(|class| format!("{} runs {}", class.name, class.targets.join(", ")))
            .collect();
        let made = if made.is_empty() {
            "nothing was verified".to_owned()
        } else {
            format!("variants are made for {}", made.join(", "))
        };
        return Err(Refusal::new(
            reason::NOTHING_TO_MEASURE,
            format!("{made}; {}: add a target to the ModelOptimization's variants, or another device", run.join("; ")),
        ));
    }
    if found.runs.len() > MAX_RUNS {
        return Err(Refusal::new(
            reason::INVALID_SPEC,
            format!("spec.devices ask for {} devices, at most {MAX_RUNS} will do", found.runs.len()),
        ));
    }
    Ok(found)
}

/// A run asks for one device. With a count above 1 the pool is dealt out, so that no two runs can get the same device
/// one after the other.
fn run(
    benchmark: &str,
    entry: &DeviceEntry,
    unit: usize,
    class: &DeviceClass,
    pool: &Pool,
    pinned: &[PinnedVariant],
) -> PlannedRun {
    let mut request = entry.written.clone().request();
    if entry.count > 1 {
        request.device_class_name = None;
        request.selector = None;
        // Sixteen is what the request's list takes.
        let dealt = pool.names.iter().skip(unit).step_by(entry.count).take(16);
        request.device_names = Some(dealt.cloned().map(ObjectName).collect());
    }
    let unit = i32::try_from(unit).unwrap_or(i32::MAX);
    PlannedRun {
        name: names::run(benchmark, &entry.name, unit),
        request,
        unit,
        class: class.name.clone(),
        variants: pinned.to_vec(),
    }
}

fn pin(artifact: &ResolvedArtifact) -> PinnedVariant {
    PinnedVariant {
        model: artifact.model.clone(),
        variant: artifact.variant.clone(),
        target: artifact.target.clone(),
        format: artifact.format,
        digest: artifact.digest.clone(),
        size_bytes: artifact.size_bytes.unwrap_or(0),
    }
}

fn skipped(model: &str, variant: &str, device: &str, why: &str) -> Skipped {
    Skipped {
        model: Key(model.to_owned()),
        variant: Key(variant.to_owned()),
        device: Key(device.to_owned()),
        reason: Reason(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::devices::tests::class;
    use super::super::resolve::tests::optimization;
    use super::super::tests::{MINIMAL, from_yaml};
    use super::super::{Resolution, resolve};
    use super::*;

    fn planned(yaml: &str) -> Result<Pairs, Refusal> {
        let plan = from_yaml(yaml).unwrap();
        let world = BTreeMap::from([("mnist-cnn".to_owned(), optimization("Complete"))]);
        let Resolution::Resolved { artifacts, unverified } = resolve(&plan, &world, &BTreeMap::new()).unwrap() else {
            panic!("not resolved")
        };
        let pool = |class: &str| Pool {
            class: class.into(),
            names: ["a", "b", "c", "d", "e"].map(|name| format!("{class}-{name}")).to_vec(),
        };
        let pools = BTreeMap::from([("host".to_owned(), pool("host-cpu")), ("m4".to_owned(), pool("m4"))]);
        let classes = BTreeMap::from([
            ("host".to_owned(), class("host-cpu", "[ort-x86, litert]", "{type: Runtime}", "Hardware")),
            ("m4".to_owned(), class("qemu-cortex-m4", "[tflm]", "{type: Runtime}", "Emulated")),
        ]);
        pairs("bench", &plan, &artifacts, &unverified, &pools, &classes)
    }

    fn told(pairs: &Pairs) -> Vec<String> {
        pairs
            .runs
            .iter()
            .map(|run| {
                let list: Vec<_> = run.variants.iter().map(|v| format!("{}/{}", v.variant, v.target)).collect();
                format!("{}: {}", run.name, list.join(" "))
            })
            .collect()
    }

    #[test]
    fn named_targets_are_all_measured_and_others_take_the_first() {
        let both = planned(MINIMAL).unwrap();
        assert_eq!(
            told(&both),
            ["bench-host-0: fp32/ort-x86 fp32/litert int8/ort-x86 int8/litert", "bench-m4-0: int8/tflm"]
        );
        let skipped: Vec<_> = both.skipped.iter().map(|s| format!("{} {} {}", s.variant, s.device, s.reason)).collect();
        assert_eq!(
            skipped,
            ["bad host VariantNotVerified", "fp32 m4 NoArtifactForTarget", "bad m4 VariantNotVerified"]
        );
        let first = planned(&MINIMAL.replace(", targets: [ort-x86, litert]", "")).unwrap();
        assert_eq!(told(&first)[0], "bench-host-0: fp32/ort-x86 int8/ort-x86");
    }

    #[test]
    fn units_of_one_entry_cannot_get_the_same_device() {
        let two = planned(&MINIMAL.replace("host-cpu, ", "host-cpu, count: 2, ")).unwrap();
        let dealt: Vec<_> = two.runs[..2]
            .iter()
            .map(|run| run.request.device_names.clone().unwrap().into_iter().map(|n| n.0).collect::<Vec<_>>().join(","))
            .collect();
        assert_eq!(dealt, ["host-cpu-a,host-cpu-c,host-cpu-e", "host-cpu-b,host-cpu-d"]);
        assert!(two.runs[0].request.clone().candidates().is_ok());
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let refused = |yaml: &str| planned(yaml).unwrap_err();
        let fail = refused(&format!("{MINIMAL}incompatiblePolicy: Fail\n"));
        assert_eq!(fail.reason, reason::INCOMPATIBLE_PAIR);
        let only = MINIMAL
            .replace("{name: mnist-cnn}", "{name: mnist-cnn, variantPolicy: Named, variantNames: [fp32]}")
            .replace("- {name: host, deviceClassName: host-cpu, targets: [ort-x86, litert]}\n", "");
        let nothing = refused(&only);
        assert_eq!(nothing.reason, reason::NOTHING_TO_MEASURE);
        assert!(
            nothing.message.starts_with("variants are made for litert, ort-x86; qemu-cortex-m4 runs tflm"),
            "{nothing}"
        );
        let unmetered = refused(&format!("{MINIMAL}  energy: Required\n"));
        assert_eq!(unmetered.reason, reason::METER_MISSING);
        assert!(unmetered.message.contains("host-cpu of spec.devices host names no meter"), "{unmetered}");
        let alien = refused(&MINIMAL.replace("[ort-x86, litert]", "[tflm]"));
        assert_eq!(alien.reason, reason::TARGET_NOT_OF_CLASS);
    }
}
