//! Device classes that come with the program: the same manifests that a cluster gets from `hardware-lab/catalogue`.

use std::collections::BTreeMap;

use edgeyard_job::spec::{Backend, ExecutionProvider, Fidelity, Limits, Microcontroller};
use serde::Deserialize;

use crate::error::Failure;

/// All of them, by file.
const EMBEDDED: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// A device class, as far as a run needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Whether its devices are real.
    pub fidelity: Fidelity,
    /// The runtimes it has, the preferred one first.
    pub targets: Vec<String>,
    /// What runs models on it.
    pub backend: Backend,
    /// The room that a model has.
    pub limits: Limits,
    /// The architecture of the program that must run, in Rust's words.
    pub architecture: &'static str,
    /// Processors that a pod may use, if whole.
    pub processors: Option<u32>,
}

#[derive(Deserialize)]
struct Manifest {
    metadata: Name,
    spec: Spec,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

#[derive(Deserialize)]
struct Spec {
    fidelity: Fidelity,
    targets: Vec<String>,
    #[serde(default)]
    limits: BTreeMap<String, Quantity>,
    backend: RawBackend,
    #[serde(default)]
    runner: Runner,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBackend {
    #[serde(rename = "type")]
    type_: String,
    runtime: Option<Runtime>,
    cortex_m: Option<CortexM>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Runtime {
    #[serde(default)]
    execution_provider: ExecutionProvider,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CortexM {
    machine: String,
    #[serde(default = "exact_shift")]
    icount_shift: u8,
    serial_port: Option<String>,
    #[serde(default)]
    microcontroller: Box<Microcontroller>,
}

/// As the API defaults it.
const fn exact_shift() -> u8 {
    6
}

#[derive(Default, Deserialize)]
struct Runner {
    #[serde(default)]
    architecture: Option<String>,
    #[serde(default)]
    resources: Resources,
}

#[derive(Default, Deserialize)]
struct Resources {
    #[serde(default)]
    limits: BTreeMap<String, Quantity>,
}

/// A Kubernetes quantity: text or a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Text(String),
    Number(u64),
}

impl Quantity {
    /// Its value in thousandths; `None` if it is none.
    fn millis(&self) -> Option<u128> {
        let text = match self {
            Self::Number(number) => return Some(u128::from(*number) * 1000),
            Self::Text(text) => text,
        };
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u128 = match unit {
            "m" => 1,
            "" => 1000,
            "k" => 1000 * 1000,
            "M" => 1000 * 1000_u128.pow(2),
            "G" => 1000 * 1000_u128.pow(3),
            "T" => 1000 * 1000_u128.pow(4),
            "Ki" => 1000 << 10,
            "Mi" => 1000 << 20,
            "Gi" => 1000 << 30,
            "Ti" => 1000 << 40,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let scale = 10_u128.checked_pow(fraction.len() as u32)?;
        let all: u128 = format!("{whole}{fraction}").parse().ok()?;
        Some(all.checked_mul(factor)? / scale)
    }

    fn bytes(&self) -> Option<u64> {
        u64::try_from(self.millis()? / 1000).ok()
    }
}

/// The names of all classes.
pub fn names() -> Vec<String> {
    all().into_iter().map(|class| class.name).collect()
}

/// All classes, by name.
///
/// # Panics
/// Never: a test reads every embedded manifest.
pub fn all() -> Vec<Class> {
    EMBEDDED.iter().map(|(file, text)| parse(text).unwrap_or_else(|why| unreachable!("{file}: {why}"))).collect()
}

/// The class of a name, or of a manifest if `name` is the path of a YAML file.
///
/// # Errors
/// `UnknownDeviceClass`, with the known ones.
pub fn find(name: &str) -> Result<Class, Failure> {
    let refused = |why: String| Failure::bad_input("UnknownDeviceClass", why);
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        let text = fs_err::read_to_string(name)?;
        return parse(&text).map_err(|why| refused(format!("{name} is no EdgeDeviceClass: {why}")));
    }
    all().into_iter().find(|class| class.name == name).ok_or_else(|| {
        refused(format!(
            "device class {name:?} is not known: use one of {}, or the path of a manifest",
            names().join(", ")
        ))
    })
}

fn parse(text: &str) -> Result<Class, String> {
    let Manifest { metadata, spec } = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let Spec { fidelity, targets, limits, backend, runner } = spec;
    let backend = match (backend.type_.as_str(), backend.cortex_m, backend.runtime) {
        ("Runtime", None, runtime) => {
            Backend::Runtime { execution_provider: runtime.map(|r| r.execution_provider).unwrap_or_default() }
        }
        ("CortexM", Some(CortexM { machine, icount_shift, serial_port, microcontroller }), None) => {
            Backend::CortexM { machine, icount_shift, serial_port, microcontroller }
        }
        (other, ..) => return Err(format!("spec.backend.type {other:?} and its settings do not fit")),
    };
    let limit = |key: &str| {
        limits
            .get(key)
            .map(|quantity| quantity.bytes().ok_or_else(|| format!("spec.limits.{key} is no quantity")))
            .transpose()
    };
    let limits = Limits { flash_bytes: limit("flash")?, memory_bytes: limit("memory")?, arena_bytes: limit("arena")? };
    let architecture = match runner.architecture.as_deref() {
        None | Some("Amd64") => "x86_64",
        Some("Arm64") => "aarch64",
        Some(other) => return Err(format!("spec.runner.architecture {other:?} is not known")),
    };
    let processors = runner.resources.limits.get("cpu").and_then(Quantity::millis).map(|millis| (millis / 1000) as u32);
    let processors = processors.filter(|n| *n > 0);
    Ok(Class { name: metadata.name, fidelity, targets, backend, limits, architecture, processors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_class_is_readable() {
        let names = names();
        assert!(names.contains(&"host-cpu".to_owned()) && names.contains(&"qemu-raspberry-pi".to_owned()), "{names:?}");
        let pi = find("qemu-raspberry-pi").unwrap();
        assert_eq!((pi.fidelity, pi.architecture), (Fidelity::Emulated, "aarch64"));
    }

    #[test]
    fn an_unknown_class_names_the_known() {
        let error = find("quantum").unwrap_err();
        assert_eq!(error.reason, "UnknownDeviceClass");
        assert!(error.message.contains("host-cpu"), "{error}");
    }

    #[test]
    fn a_microcontroller_has_limits() {
        let class = parse(
            "{metadata: {name: m4}, spec: {fidelity: Emulated, targets: [tflm], limits: {flash: 4Mi, memory: 4194304, \
             arena: 256Ki}, backend: {type: CortexM, cortexM: {machine: mps2-an386, icountShift: 6}}, \
             runner: {resources: {limits: {cpu: 1500m}}}}}",
        )
        .unwrap();
        let limits = Limits { flash_bytes: Some(4 << 20), memory_bytes: Some(4 << 20), arena_bytes: Some(256 << 10) };
        assert_eq!(class.limits, limits);
        assert_eq!(class.processors, Some(1));
        assert!(
            parse("{metadata: {name: x}, spec: {fidelity: Emulated, targets: [], backend: {type: Magic}}}").is_err()
        );
    }

    #[test]
    fn quantities() {
        let bytes = |text: &str| Quantity::Text(text.into()).bytes();
        assert_eq!(bytes("1.5Gi"), Some(3 << 29));
        assert_eq!(bytes("2k"), Some(2000));
        assert_eq!(bytes("7"), Some(7));
        assert_eq!(bytes("ten"), None);
    }
}
