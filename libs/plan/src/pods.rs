//! The shape of pods as data: what they may use, what runs in them, and what it means when one does not start.

use std::collections::BTreeMap;

use edgeyard_crds::benchmark_status::Fidelity;
use edgeyard_crds::device_class::{Architecture, Resources};
use edgeyard_targets::Target;

use crate::{Refusal, quantity, reason};

/// The file in a pod that holds its job spec.
pub const SPEC_FILE: &str = "/etc/edgeyard/job.json";
/// Where a recorded series of a meter is mounted.
pub const RECORDING: &str = "/var/lib/edgeyard/recording";
/// The user that jobs run as.
pub const USER: i64 = 65_532;

/// What a pod may use and how it is scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What the scheduler sets aside.
    pub requests: BTreeMap<String, String>,
    /// What it gets at most.
    pub limits: BTreeMap<String, String>,
    /// Threads of a runtime: never more than whole CPUs, or throttling shows as latency.
    pub threads: u32,
    /// The processor that its image is for.
    pub architecture: Architecture,
    /// Whether it runs a vendor's compiler, which only the operator's compiler image has.
    pub compiles: bool,
    /// Its image; absent: the operator's worker image.
    pub image: Option<String>,
    /// Device files that it needs.
    pub device_nodes: Vec<String>,
}

/// The pod that brings inputs into the store.
pub fn import() -> Shape {
    job("50m", "64Mi", "1", "512Mi")
}

/// The pod that makes an artefact for a target.
pub fn optimizer(target: &str) -> Shape {
    let compiles = Target::find(target).is_ok_and(|target| target.compiler.is_some());
    Shape { compiles, ..job("200m", "256Mi", "2", "2Gi") }
}

fn job(cpu: &str, memory: &str, cpu_limit: &str, memory_limit: &str) -> Shape {
    let amounts = |cpu: &str, memory: &str| {
        BTreeMap::from([("cpu".to_owned(), cpu.to_owned()), ("memory".to_owned(), memory.to_owned())])
    };
    Shape {
        requests: amounts(cpu, memory),
        limits: amounts(cpu_limit, memory_limit),
        threads: 1,
        architecture: Architecture::Amd64,
        compiles: false,
        image: None,
        device_nodes: Vec::new(),
    }
}

/// The pod that measures. On real devices it is of class Guaranteed with whole CPUs; emulators share what is there.
pub fn runner(
    class: &str,
    fidelity: Fidelity,
    resources: &Resources,
    architecture: Architecture,
    image: Option<String>,
    device_nodes: Vec<String>,
) -> Result<Shape, Refusal> {
    let mut limits: BTreeMap<String, String> =
        resources.limits.iter().map(|(name, amount)| (name.clone(), amount.0.clone())).collect();
    limits.entry("cpu".to_owned()).or_insert_with(|| "1".to_owned());
    limits.entry("memory".to_owned()).or_insert_with(|| "512Mi".to_owned());
    let cpu = edgeyard_crds::scalars::Quantity(limits["cpu"].clone());
    let thousandths = quantity::thousandths(&cpu).filter(|amount| *amount > 0).ok_or_else(|| {
        Refusal::new(
            reason::INVALID_DEVICE_CLASS,
            format!("EdgeDeviceClass {class}: runner.resources.limits.cpu {:?} is not an amount above zero", cpu.0),
        )
    })?;
    let mut requests = limits.clone();
    match fidelity {
        Fidelity::Hardware if thousandths % 1000 != 0 => {
            return Err(Refusal::new(
                reason::INVALID_DEVICE_CLASS,
                format!(
                    "EdgeDeviceClass {class}: runner.resources.limits.cpu is {}, but a real device is measured with whole \
                     CPUs, or throttling would show as latency: write 1 or 2",
                    cpu.0
                ),
            ));
        }
        Fidelity::Hardware => {}
        Fidelity::Emulated => {
            requests.insert("cpu".to_owned(), format!("{}m", (thousandths / 10).max(1)));
            requests.insert("memory".to_owned(), "64Mi".to_owned());
        }
    }
    let threads = u32::try_from(thousandths / 1000).unwrap_or(u32::MAX).max(1);
    Ok(Shape { requests, limits, threads, architecture, compiles: false, image, device_nodes })
}

/// What keeps a container from starting, from the kubelet's or scheduler's word for it; `None` for what passes by itself.
pub fn waiting(word: &str, message: &str, image: &str) -> Option<Refusal> {
    let said = if message.is_empty() { String::new() } else { format!(" ({message})") };
    Some(match word {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "InvalidImageName"
        | "ImageInspectError"
        | "RegistryUnavailable" => Refusal::new(
            reason::IMAGE_UNAVAILABLE,
            format!(
                "the node cannot get image {image}: {word}{said}: load it on the node (ctr images import), or push it to a \
                 registry that the node reaches and set the chart's worker.image, imageArm64 or imageCompiler"
            ),
        ),
        "Unschedulable" => Refusal::new(
            reason::UNSCHEDULABLE,
            format!(
                "no node takes the pod{said}: free CPU and memory on the node, or lower the class's runner.resources"
            ),
        ),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Refusal::new(
            reason::CONTAINER_NOT_CREATED,
            format!(
                "the container cannot be created: {word}{said}: check that the Secrets and ConfigMaps it names exist"
            ),
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(fidelity: Fidelity, cpu: &str) -> Result<Shape, Refusal> {
        let resources: Resources = serde_yaml::from_str(&format!("limits: {{cpu: '{cpu}', memory: 1Gi}}")).unwrap();
        runner("c", fidelity, &resources, Architecture::Amd64, None, Vec::new())
    }

    #[test]
    fn a_real_device_is_measured_in_a_guaranteed_pod() {
        let shape = class(Fidelity::Hardware, "2").unwrap();
        assert_eq!(shape.requests, shape.limits);
        assert_eq!(shape.threads, 2);
        let refusal = class(Fidelity::Hardware, "1500m").unwrap_err();
        assert!(refusal.message.contains("whole CPUs"), "{refusal}");
        assert!(class(Fidelity::Emulated, "0").is_err());
    }

    #[test]
    fn only_a_target_with_a_compiler_needs_the_compilers_image() {
        let compiling: Vec<&str> =
            Target::all().iter().map(|target| target.name.as_str()).filter(|name| optimizer(name).compiles).collect();
        assert_eq!(compiling, ["ethos-u"]);
        assert!(!import().compiles && !class(Fidelity::Emulated, "1").unwrap().compiles);
    }

    #[test]
    fn an_emulator_shares_and_threads_never_exceed_the_limit() {
        let shape = class(Fidelity::Emulated, "1500m").unwrap();
        assert_eq!((shape.requests["cpu"].as_str(), shape.threads), ("150m", 1));
        assert_eq!(shape.limits["memory"], "1Gi");
    }

    #[test]
    fn a_missing_image_says_what_to_do() {
        let refusal = waiting("ErrImageNeverPull", "", "worker:1").unwrap();
        assert!(refusal.message.contains("worker:1") && refusal.message.contains("load it"));
        assert_eq!(waiting("ContainerCreating", "", "worker:1"), None);
    }
}
