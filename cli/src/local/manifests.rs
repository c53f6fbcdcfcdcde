//! Manifests from files, sorted by what `local` does with them. Device classes of the catalogue are known without any.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::device::EdgeDevice;
use edgeyard_crds::device_class::EdgeDeviceClass;
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_plan::benchmark::{DeviceClass, DeviceView, device_class};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use serde::Deserialize;
use serde_json::Value;

const CATALOGUE: [&str; 6] = [
    include_str!("../../../hardware-lab/catalogue/host-cpu.yaml"),
    include_str!("../../../hardware-lab/catalogue/qemu-cortex-m3.yaml"),
    include_str!("../../../hardware-lab/catalogue/qemu-cortex-m4.yaml"),
    include_str!("../../../hardware-lab/catalogue/qemu-cortex-m55.yaml"),
    include_str!("../../../hardware-lab/catalogue/qemu-cortex-m7.yaml"),
    include_str!("../../../hardware-lab/catalogue/qemu-raspberry-pi.yaml"),
];
/// What a cluster needs and one machine does not.
const IGNORED: [&str; 5] = ["Namespace", "LeaseQueue", "DeviceLease", "PersistentVolumeClaim", "Secret"];
/// Emulated devices are as many as anyone asks for; this is the most that an entry may ask for.
const EMULATED: usize = 16;

/// What was written.
#[derive(Default)]
pub(super) struct Manifests {
    pub(super) optimizations: Vec<ModelOptimization>,
    pub(super) benchmarks: Vec<EdgeBenchmark>,
    pub(super) config_maps: Vec<ConfigMap>,
    /// By name; those of the manifests before those of the catalogue.
    pub(super) classes: BTreeMap<String, DeviceClass>,
    /// Those of the manifests, and one or more of every class that they have none of.
    pub(super) devices: Vec<DeviceView>,
}

impl Manifests {
    pub(super) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut manifests = Self::default();
        for text in CATALOGUE {
            manifests.read_text(text).context("in the built-in catalogue")?;
        }
        for file in files {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            manifests.read_text(&text).with_context(|| format!("in {}", file.display()))?;
        }
        manifests.add_devices();
        Ok(manifests)
    }

    fn read_text(&mut self, text: &str) -> Result<()> {
        for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
            let place = || format!("document {}", index + 1);
            let value = Value::deserialize(document).with_context(place)?;
            if value.is_null() {
                continue;
            }
            if value["kind"] == "List" {
                for item in value["items"].as_array().into_iter().flatten() {
                    self.take(item.clone()).with_context(place)?;
                }
            } else {
                self.take(value).with_context(place)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, value: Value) -> Result<()> {
        let kind =
            value["kind"].as_str().context("it has no kind: a manifest has apiVersion, kind and metadata")?.to_owned();
        let name =
            value["metadata"]["name"].as_str().with_context(|| format!("this {kind} has no metadata.name"))?.to_owned();
        let shown = || format!("{kind} {name}");
        match kind.as_str() {
            "ModelOptimization" => self.optimizations.push(serde_json::from_value(value).with_context(shown)?),
            "EdgeBenchmark" => self.benchmarks.push(serde_json::from_value(value).with_context(shown)?),
            "ConfigMap" => self.config_maps.push(serde_json::from_value(value).with_context(shown)?),
            "EdgeDeviceClass" => {
                let class: EdgeDeviceClass = serde_json::from_value(value).with_context(shown)?;
                self.classes.insert(name.clone(), device_class(&name, class.spec)?);
            }
            "EdgeDevice" => {
                let device: EdgeDevice = serde_json::from_value(value).with_context(shown)?;
                let labels = device.labels().clone().into_iter().collect();
                self.devices.push(DeviceView { name, class: device.spec.device_class_name.0, labels });
            }
            ignored if IGNORED.contains(&ignored) => {}
            _ => bail!(
                "{kind} {name}: `local` runs ModelOptimization and EdgeBenchmark, and uses EdgeDeviceClass, EdgeDevice and ConfigMap"
            ),
        }
        Ok(())
    }

    fn add_devices(&mut self) {
        for class in self.classes.values() {
            if self.devices.iter().any(|device| device.class == class.name) {
                continue;
            }
            // There is one of this machine, and any number of what it emulates.
            let count = match class.fidelity {
                edgeyard_crds::benchmark_status::Fidelity::Hardware => 1,
                edgeyard_crds::benchmark_status::Fidelity::Emulated => EMULATED,
            };
            self.devices.extend((0..count).map(|unit| DeviceView {
                name: format!("{}-{unit}", class.name),
                class: class.name.clone(),
                labels: Vec::new(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifests> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        Manifests::read(&[file.path().to_owned()])
    }

    #[test]
    fn the_examples_are_understood() {
        let example = |name: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
            let digest = format!("sha256:{}", "0".repeat(64));
            std::fs::read_to_string(path).unwrap().replace("${MODEL}", &digest).replace("${TEST}", &digest)
        };
        let all = ["mnist/optimization.yaml", "mnist/benchmark.yaml", "lab.yaml", "cortex-m/lab.yaml"];
        let all = all.map(example).join("\n---\n");
        let manifests = read(&all).unwrap();
        assert_eq!((manifests.optimizations.len(), manifests.benchmarks.len()), (1, 1));
        let classes: Vec<_> = manifests.classes.keys().map(String::as_str).collect();
        let cores = ["qemu-cortex-m3", "qemu-cortex-m4", "qemu-cortex-m55", "qemu-cortex-m7"];
        assert_eq!(classes, [&["host-cpu"][..], &cores, &["qemu-raspberry-pi"]].concat());
        let devices: Vec<_> = manifests.devices.iter().map(|device| device.name.as_str()).collect();
        let cores = ["qemu-m3-0", "qemu-m7-0", "qemu-m55-0"];
        assert_eq!(devices, [&["host-cpu-0", "qemu-m4-0", "qemu-rpi-0"][..], &cores].concat());
    }

    #[test]
    fn without_a_lab_there_is_one_host_and_many_emulators() {
        let devices = read("").unwrap().devices;
        let count = |class: &str| devices.iter().filter(|device| device.class == class).count();
        assert_eq!((count("host-cpu"), count("qemu-cortex-m4")), (1, EMULATED));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let refused = |text: &str| format!("{:#}", read(text).err().unwrap());
        assert!(
            refused("kind: Namespace\nmetadata: {name: a}\n---\nkind: Pod\nmetadata: {name: p}")
                .contains("document 2: Pod p")
        );
        assert!(refused("metadata: {name: a}").contains("no kind"));
        assert!(
            refused("kind: EdgeBenchmark\nmetadata: {name: b}\nspec: {}")
                .contains("EdgeBenchmark b: missing field `models`")
        );
    }
}
