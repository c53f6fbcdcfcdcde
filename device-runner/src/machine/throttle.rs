//! Whether the machine held itself back: counters of thermal throttling on x86, and the firmware's bits on a Raspberry Pi.
//!
//! Read before and after a run; what changed in between happened in the run. A restricted pod cannot read them: then the
//! node agent is asked, and without one they are unknown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Root, vcgencmd};
use crate::agent;

const CPU: &str = "/sys/devices/system/cpu";
/// Live bits of `get_throttled`: under-voltage, clock capped, throttled, soft temperature limit.
const LIVE: u32 = 0xf;
/// Each live bit has a sticky one this far above it, set since the machine started.
const STICKY: u32 = 16;

/// What was read, all counted since the machine started.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Throttle {
    /// Times that a core throttled because of its temperature, summed over logical processors.
    pub core_events: Option<u64>,
    /// Times that a package did, of the one that did most often.
    pub package_events: Option<u64>,
    /// A Raspberry Pi's bits: 0 to 3 now, 16 to 19 since it started (`vcgencmd get_throttled`).
    pub raspberry_pi_bits: Option<u32>,
    /// What is unknown, and why: field to reason.
    pub unavailable: BTreeMap<String, String>,
}

/// Reads on this machine only.
pub fn read_here(root: &Root) -> Throttle {
    let processors: Vec<String> = root
        .list(CPU)
        .into_iter()
        .filter(|name| name.strip_prefix("cpu").is_some_and(|n| n.parse::<u32>().is_ok()))
        .collect();
    let counts = |file: &str| -> Vec<u64> {
        processors
            .iter()
            .filter_map(|name| root.read(&format!("{CPU}/{name}/thermal_throttle/{file}"))?.parse().ok())
            .collect()
    };
    let (cores, packages) = (counts("core_throttle_count"), counts("package_throttle_count"));
    let mut found = Throttle {
        core_events: (!cores.is_empty()).then(|| cores.iter().sum()),
        package_events: packages.into_iter().max(),
        raspberry_pi_bits: raspberry_pi(root, vcgencmd::ask),
        unavailable: BTreeMap::new(),
    };
    found.explain("NotReadable");
    found
}

/// A Raspberry Pi's bits: from the firmware driver's file, which needs no device, or by asking the firmware.
pub fn raspberry_pi(root: &Root, ask: impl Fn(&Root, &str) -> Option<String>) -> Option<u32> {
    const FOLDER: &str = "/sys/devices/platform";
    let from_file = || {
        let buses = root.list(FOLDER).into_iter().filter(|name| name.starts_with("soc"));
        buses.map(|bus| format!("{FOLDER}/{bus}")).find_map(|bus| {
            let drivers = root.list(&bus).into_iter().filter(|name| name.ends_with("firmware"));
            // The driver writes the number in hexadecimal, without a prefix.
            drivers
                .filter_map(|driver| root.read(&format!("{bus}/{driver}/get_throttled")))
                .find_map(|text| u32::from_str_radix(&text, 16).ok())
        })
    };
    from_file().or_else(|| bits(&ask(root, "get_throttled")?))
}

/// Reads on this machine; what is not readable here is asked of the node agent.
pub fn read(root: &Root) -> Throttle {
    let mut found = read_here(root);
    if found.core_events.is_some() || found.raspberry_pi_bits.is_some() {
        return found;
    }
    let reason = match agent::Client::from_environment() {
        None => "NoNodeAgent",
        Some(client) => match client.machine() {
            Ok(machine) => return machine.throttle,
            Err(_) => "NodeAgentUnreachable",
        },
    };
    found.explain(reason);
    found
}

impl Throttle {
    fn explain(&mut self, reason: &str) {
        let Self { core_events, package_events, raspberry_pi_bits, unavailable } = self;
        unavailable.clear();
        for (field, missing) in [
            ("coreEvents", core_events.is_none()),
            ("packageEvents", package_events.is_none()),
            ("raspberryPiBits", raspberry_pi_bits.is_none()),
        ] {
            if missing {
                unavailable.insert(field.to_owned(), reason.to_owned());
            }
        }
    }
}

/// The bits in `throttled=0x50005`.
pub fn bits(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim().strip_prefix("throttled=0x")?, 16).ok()
}

/// Reasons why a run between two readings cannot be trusted; `live` are bits of a Pi that were seen on the way. Empty means
/// that nothing was seen, which is proof only where something could be read.
pub fn between(before: &Throttle, after: &Throttle, live: Option<u32>) -> Vec<&'static str> {
    let grew =
        |before: Option<u64>, after: Option<u64>| before.zip(after).is_some_and(|(before, after)| after > before);
    let mut thermal = grew(before.core_events, after.core_events) || grew(before.package_events, after.package_events);
    let mut reasons = Vec::new();
    let now = [before, after]
        .into_iter()
        .filter_map(|read| read.raspberry_pi_bits)
        .fold(live.unwrap_or(0), |a, b| a | (b & LIVE));
    // Sticky bits stay set until a restart: only those that are new tell of this run.
    let sticky = before.raspberry_pi_bits.zip(after.raspberry_pi_bits).map_or(0, |(before, after)| after & !before);
    let happened = (now & LIVE) | ((sticky >> STICKY) & LIVE);
    if happened & 0b0001 != 0 {
        reasons.push("UnderVoltage");
    }
    if happened & 0b0010 != 0 {
        reasons.push("FrequencyCapped");
    }
    thermal |= happened & 0b1100 != 0;
    if thermal {
        reasons.push("ThermalThrottling");
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pi(bits: u32) -> Throttle {
        Throttle { raspberry_pi_bits: Some(bits), ..Throttle::default() }
    }

    fn x86(core: u64, package: u64) -> Throttle {
        Throttle { core_events: Some(core), package_events: Some(package), ..Throttle::default() }
    }

    #[test]
    fn only_what_changed_or_was_seen_counts() {
        // It had been throttled long before: says nothing of this run.
        assert!(between(&pi(0x50000), &pi(0x50000), Some(0)).is_empty());
        assert_eq!(between(&pi(0x0), &pi(0x10000), None), ["UnderVoltage"]);
        assert_eq!(between(&pi(0x50000), &pi(0xd0000), None), ["ThermalThrottling"]);
        // The sticky bit was set before, yet the live one was seen.
        assert_eq!(between(&pi(0x20000), &pi(0x20000), Some(0x2)), ["FrequencyCapped"]);
        assert_eq!(between(&pi(0x50005), &pi(0x50000), None), ["UnderVoltage", "ThermalThrottling"]);
        assert!(between(&x86(7, 3), &x86(7, 3), None).is_empty());
        assert_eq!(between(&x86(7, 3), &x86(8, 3), None), ["ThermalThrottling"]);
        assert_eq!(between(&x86(7, 3), &x86(7, 4), None), ["ThermalThrottling"]);
        assert!(between(&Throttle::default(), &x86(7, 4), None).is_empty());
    }

    #[test]
    fn bits_are_read_as_the_firmware_tells_them() {
        assert_eq!(bits("throttled=0x50005\n"), Some(0x50005));
        assert_eq!(bits("throttled=0x0"), Some(0));
        assert_eq!(bits("VCHI initialization failed"), None);
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(raspberry_pi(&root, |_, _| Some("throttled=0x4".into())), Some(4));
        let driver = folder.path().join("sys/devices/platform/soc/soc:firmware");
        std::fs::create_dir_all(&driver).unwrap();
        std::fs::write(driver.join("get_throttled"), "50000\n").unwrap();
        assert_eq!(raspberry_pi(&root, |_, _| None), Some(0x50000));
    }

    #[test]
    fn counters_of_all_processors_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let nothing = read_here(&root);
        assert_eq!(nothing.core_events, None);
        assert_eq!(nothing.unavailable["raspberryPiBits"], "NotReadable");
        for (cpu, core, package) in [("cpu0", "3", "9"), ("cpu1", "4", "9"), ("cpufreq", "100", "100")] {
            let path = folder.path().join(format!("sys/devices/system/cpu/{cpu}/thermal_throttle"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("core_throttle_count"), core).unwrap();
            std::fs::write(path.join("package_throttle_count"), package).unwrap();
        }
        let found = read_here(&root);
        assert_eq!((found.core_events, found.package_events), (Some(7), Some(9)));
        assert_eq!(found.unavailable.keys().collect::<Vec<_>>(), ["raspberryPiBits"]);
    }
}
