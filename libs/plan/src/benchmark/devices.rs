//! Which devices an entry can have, and what their class says about them.

use edgeyard_crds::benchmark_status::Fidelity;
use edgeyard_crds::device_class::{
    Core, CortexM, Driver, EdgeDeviceClassSpec, ExecutionProvider, HwmonMeter, Limits, MeterKind, Microcontroller,
    NvmlMeter, ReplayMeter, SerialMeter,
};
use edgeyard_crds::devices::{Candidates, LabelSelector};
use edgeyard_crds::scalars::Quantity;
use edgeyard_job::spec;

use crate::pods::{self, Shape};
use crate::{Refusal, quantity, reason};

use super::DeviceEntry;

/// A device class that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceClass {
    /// Its name.
    pub name: String,
    /// Whether its devices are real.
    pub fidelity: Fidelity,
    /// Its runtimes, the preferred one first.
    pub targets: Vec<String>,
    /// How its devices run models.
    pub backend: spec::Backend,
    /// The room that a model has.
    pub limits: spec::Limits,
    /// The runner's pod.
    pub shape: Shape,
    /// What measures energy, if anything does.
    pub meter: Option<Meter>,
}

/// What measures energy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// What the runner's `--meter` takes.
    pub argument: String,
    /// The ConfigMap that has to be mounted at [`pods::RECORDING`].
    pub config_map: Option<String>,
}

/// Checks a device class.
pub fn device_class(name: &str, written: EdgeDeviceClassSpec) -> Result<DeviceClass, Refusal> {
    let EdgeDeviceClassSpec { fidelity, isolation: _, targets, limits, backend, runner, meters } = written;
    let backend = match backend.validate().map_err(|invalid| refuse(name, &invalid.to_string()))? {
        Driver::Runtime(ExecutionProvider::Cpu) => spec::Backend::runtime(),
        Driver::Runtime(ExecutionProvider::Cuda) => {
            if let Some(other) = targets.iter().find(|target| !target.0.starts_with("ort-")) {
                return Err(refuse(
                    name,
                    &format!(
                        "targets: {other} does not run on backend.runtime.executionProvider Cuda: use ort-x86 or ort-arm64"
                    ),
                ));
            }
            spec::Backend::Runtime { execution_provider: spec::ExecutionProvider::Cuda }
        }
        Driver::CortexM(CortexM { machine, icount_shift, serial_port, microcontroller }) => spec::Backend::CortexM {
            machine: machine.0,
            icount_shift: u8::try_from(icount_shift)
                .map_err(|_| refuse(name, "backend.cortexM.icountShift must be from 0 to 10"))?,
            serial_port,
            microcontroller: Box::new(data_sheet(name, microcontroller.unwrap_or_default())?),
        },
    };
    let Limits { flash, memory, arena } = limits.unwrap_or_default();
    let bytes = |field: &str, amount: Option<Quantity>| match amount {
        None => Ok(None),
        Some(amount) => quantity::units(&amount)
            .map(Some)
            .ok_or_else(|| refuse(name, &format!("limits.{field} {:?} is not an amount of bytes", amount.0))),
    };
    if meters.len() > 1 {
        return Err(refuse(name, &format!("meters has {} entries, at most one can be read in a run", meters.len())));
    }
    let meter = match meters.into_iter().next() {
        None => None,
        Some(meter) => Some(argument(meter.validate().map_err(|invalid| refuse(name, &invalid.to_string()))?)),
    };
    Ok(DeviceClass {
        name: name.to_owned(),
        fidelity,
        targets: targets.into_iter().map(|target| target.0).collect(),
        backend,
        limits: spec::Limits {
            flash_bytes: bytes("flash", flash)?,
            memory_bytes: bytes("memory", memory)?,
            arena_bytes: bytes("arena", arena)?,
        },
        shape: pods::runner(name, fidelity, &runner.resources, runner.architecture, runner.image, runner.device_nodes)?,
        meter,
    })
}

/// What a class says of the microcontroller that it means.
fn data_sheet(class: &str, written: Microcontroller) -> Result<spec::Microcontroller, Refusal> {
    let Microcontroller { core, clock_hertz, active_microwatts } = written;
    let above_zero = |field: &str, number: Option<i64>| match number {
        None => Ok(None),
        Some(number) => u64::try_from(number).ok().filter(|number| *number > 0).map(Some).ok_or_else(|| {
            refuse(class, &format!("backend.cortexM.microcontroller.{field}: {number} must be above zero"))
        }),
    };
    Ok(spec::Microcontroller {
        core: core.map(|core| match core {
            Core::CortexM0Plus => spec::Core::CortexM0Plus,
            Core::CortexM3 => spec::Core::CortexM3,
            Core::CortexM4 => spec::Core::CortexM4,
            Core::CortexM7 => spec::Core::CortexM7,
            Core::CortexM33 => spec::Core::CortexM33,
            Core::CortexM55 => spec::Core::CortexM55,
        }),
        clock_hertz: above_zero("clockHertz", clock_hertz)?,
        active_microwatts: above_zero("activeMicrowatts", active_microwatts)?,
    })
}

/// A meter as the runner names it. A restricted pod reads the processor's counters through the node agent.
fn argument(kind: MeterKind) -> Meter {
    let argument = match &kind {
        MeterKind::Hwmon(HwmonMeter { chip, label: None }) => format!("hwmon:{chip}"),
        MeterKind::Hwmon(HwmonMeter { chip, label: Some(label) }) => format!("hwmon:{chip}/{label}"),
        MeterKind::Jetson => "jetson".to_owned(),
        MeterKind::RaspberryPi5 => "rpi5-pmic".to_owned(),
        MeterKind::Rapl => "agent:rapl".to_owned(),
        MeterKind::CoralUsb => "coral-usb".to_owned(),
        MeterKind::Nvml(NvmlMeter { index }) => format!("nvml:{index}"),
        MeterKind::Lpm01a(SerialMeter { port, millivolts }) => format!("lpm01a:{port}@{millivolts}"),
        MeterKind::Ppk2(SerialMeter { port, millivolts }) => format!("ppk2:{port}@{millivolts}"),
        MeterKind::Exec(exec) => format!("exec:{}", exec.command),
        MeterKind::Replay(_) => format!("replay:{}", pods::RECORDING),
    };
    let config_map = match kind {
        MeterKind::Replay(ReplayMeter { config_map_name }) => Some(config_map_name.0),
        _ => None,
    };
    Meter { argument, config_map }
}

fn refuse(class: &str, what: &str) -> Refusal {
    Refusal::new(reason::INVALID_DEVICE_CLASS, format!("EdgeDeviceClass {class}: {what}"))
}

/// A device of the queue, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceView {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
}

/// The devices that an entry can have, all of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Their class.
    pub class: String,
    /// Their names, sorted.
    pub names: Vec<String>,
}

/// Which of a queue's devices an entry can have.
///
/// # Errors
/// A [`Refusal`] when there are too few, or when they are of several classes: figures would be mixed.
pub fn pool(entry: &DeviceEntry, devices: &[DeviceView]) -> Result<Pool, Refusal> {
    let fits = |device: &&DeviceView| match &entry.candidates {
        Candidates::OfClass(class) => device.class == class.0,
        Candidates::Labelled(selector) => matches(selector, device),
        Candidates::Named(names) => names.iter().any(|name| name.0 == device.name),
    };
    let mut found: Vec<_> = devices.iter().filter(fits).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let wanted = match &entry.candidates {
        Candidates::OfClass(class) => format!("of class {class}"),
        Candidates::Labelled(selector) => {
            let labels: Vec<_> = selector.match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("with labels {}", labels.join(","))
        }
        Candidates::Named(names) => {
            let names: Vec<_> = names.iter().map(|name| name.0.as_str()).collect();
            format!("named {}", names.join(", "))
        }
    };
    if found.len() < entry.count {
        let all: Vec<_> = devices.iter().take(8).map(|device| format!("{} ({})", device.name, device.class)).collect();
        let offer = if all.is_empty() {
            "the queue gives out no devices".to_owned()
        } else {
            format!("the queue gives out {}", all.join(", "))
        };
        return Err(Refusal::new(
            reason::NO_DEVICE_MATCHES,
            format!(
                "spec.devices: {} asks for {} device(s) {wanted}, and {} match; {offer}: add an EdgeDevice, or ask for \
                 another class",
                entry.name,
                entry.count,
                found.len()
            ),
        ));
    }
    let first = found[0];
    if let Some(other) = found.iter().find(|device| device.class != first.class) {
        return Err(Refusal::new(
            reason::AMBIGUOUS_DEVICE_CLASS,
            format!(
                "spec.devices: {} matches devices of several classes ({} is {}, {} is {}): make one entry for each class",
                entry.name, first.name, first.class, other.name, other.class
            ),
        ));
    }
    Ok(Pool { class: first.class.clone(), names: found.iter().map(|device| device.name.clone()).collect() })
}

/// Whether a device has all labels of a selector.
fn matches(selector: &LabelSelector, device: &DeviceView) -> bool {
    selector.match_labels.iter().all(|wanted| device.labels.iter().any(|(key, value)| (key, value) == wanted))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn class(name: &str, targets: &str, backend: &str, fidelity: &str) -> DeviceClass {
        let yaml = format!(
            "{{fidelity: {fidelity}, isolation: Unit, targets: {targets}, backend: {backend}, runner: {{}}, limits: {{flash: 4Mi}}}}"
        );
        device_class(name, serde_yaml::from_str(&yaml).unwrap()).unwrap()
    }

    fn device(name: &str, class: &str, site: &str) -> DeviceView {
        DeviceView { name: name.into(), class: class.into(), labels: vec![("site".into(), site.into())] }
    }

    fn entry(yaml: &str) -> DeviceEntry {
        super::super::device_entry(serde_yaml::from_str(yaml).unwrap()).unwrap()
    }

    #[test]
    fn a_class_is_read() {
        let class =
            class("m4", "[tflm]", "{type: CortexM, cortexM: {machine: mps2-an386, icountShift: 6}}", "Emulated");
        let emulated = |microcontroller| spec::Backend::CortexM {
            machine: "mps2-an386".into(),
            icount_shift: 6,
            serial_port: None,
            microcontroller: Box::new(microcontroller),
        };
        assert_eq!(class.backend, emulated(spec::Microcontroller::default()));
        assert_eq!(class.limits.flash_bytes, Some(4 << 20));
        let board = |microcontroller: &str| {
            let yaml = format!(
                "{{fidelity: Emulated, isolation: Unit, targets: [tflm], runner: {{}}, backend: {{type: CortexM, cortexM: {{machine: mps2-an386, microcontroller: {microcontroller}}}}}}}"
            );
            device_class("nano", serde_yaml::from_str(&yaml).unwrap())
        };
        let written = board("{core: CortexM4, clockHertz: 64000000, activeMicrowatts: 9984}").unwrap();
        let known = spec::Microcontroller {
            core: Some(spec::Core::CortexM4),
            clock_hertz: Some(64_000_000),
            active_microwatts: Some(9984),
        };
        assert_eq!(written.backend, emulated(known));
        assert!(board("{clockHertz: 0}").unwrap_err().message.contains("microcontroller.clockHertz"));
    }

    #[test]
    fn a_gpu_runs_onnx_runtime_only() {
        let class = |targets: &str| {
            let yaml = format!(
                "{{fidelity: Hardware, isolation: Unit, targets: {targets}, backend: {{type: Runtime, runtime: {{executionProvider: Cuda}}}}, runner: {{}}}}"
            );
            device_class("gpu", serde_yaml::from_str(&yaml).unwrap())
        };
        let cuda = spec::Backend::Runtime { execution_provider: spec::ExecutionProvider::Cuda };
        assert_eq!(class("[ort-x86]").unwrap().backend, cuda);
        assert!(class("[ort-x86, litert]").unwrap_err().message.contains("litert does not run"));
    }

    #[test]
    fn meters_are_named_as_the_runner_names_them() {
        let meter = |yaml: &str| {
            let class = format!(
                "{{fidelity: Hardware, isolation: Unit, targets: [litert], backend: {{type: Runtime}}, runner: {{}}, meters: [{yaml}]}}"
            );
            device_class("x", serde_yaml::from_str(&class).unwrap()).map(|class| class.meter.unwrap())
        };
        for (yaml, argument) in [
            ("{type: Hwmon, hwmon: {chip: ina226}}", "hwmon:ina226"),
            ("{type: Hwmon, hwmon: {chip: ina3221, label: VDD_IN}}", "hwmon:ina3221/VDD_IN"),
            ("{type: Rapl}", "agent:rapl"),
            ("{type: Nvml, nvml: {index: 1}}", "nvml:1"),
            ("{type: Ppk2, serial: {port: /dev/ttyACM0, millivolts: 3300}}", "ppk2:/dev/ttyACM0@3300"),
            ("{type: CoralUsb}", "coral-usb"),
        ] {
            assert_eq!(meter(yaml).unwrap(), Meter { argument: argument.into(), config_map: None });
        }
        let replay = meter("{type: Replay, replay: {configMapName: recorded}}").unwrap();
        assert_eq!(replay.config_map.as_deref(), Some("recorded"));
        assert_eq!(meter("{type: Hwmon}").unwrap_err().reason, reason::INVALID_DEVICE_CLASS);
        assert!(meter("{type: Rapl}, {type: Jetson}").unwrap_err().message.contains("at most one"));
    }

    #[test]
    fn devices_are_found_by_class_labels_and_name() {
        let devices = [device("b", "m4", "berlin"), device("a", "m4", "bonn"), device("c", "host", "bonn")];
        let names = |yaml: &str| pool(&entry(yaml), &devices).map(|pool| pool.names.join(","));
        assert_eq!(names("{name: x, deviceClassName: m4}").unwrap(), "a,b");
        assert_eq!(names("{name: x, selector: {matchLabels: {site: berlin}}}").unwrap(), "b");
        assert_eq!(names("{name: x, deviceNames: [c]}").unwrap(), "c");
        let few = names("{name: x, deviceClassName: m4, count: 3}").unwrap_err();
        assert_eq!(few.reason, reason::NO_DEVICE_MATCHES);
        assert!(few.message.contains("3 device(s) of class m4, and 2 match; the queue gives out b (m4)"), "{few}");
        let mixed = names("{name: x, selector: {matchLabels: {site: bonn}}}").unwrap_err();
        assert_eq!(mixed.reason, reason::AMBIGUOUS_DEVICE_CLASS);
    }
}
