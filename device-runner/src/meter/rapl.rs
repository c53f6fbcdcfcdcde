//! RAPL through powercap (Documentation/power/powercap): each package's energy counter in microjoules, which wraps round at
//! `max_energy_range_uj`. Read here, or by the node agent where a pod may not.
//!
//! Packages are separate machines' worth of silicon, so they add up; domains inside a package (core, uncore, dram) and the
//! platform (psys) are never added to it.

use std::time::Duration;

use edgeyard_measure::energy::{Quantity, Reading, wrapped};
use serde::{Deserialize, Serialize};

use super::{Meter, failed, missing};
use crate::agent::{Client, Machine};
use crate::clock;
use crate::error::Failure;
use crate::machine::Root;

const FOLDER: &str = "/sys/class/powercap";
/// The counter moves about every millisecond.
const PERIOD: u64 = 20_000_000;
/// The agent is a request away and answers at most every 50 ms.
const AGENT_PERIOD: u64 = 200_000_000;

/// A package's counter.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Zone {
    /// `package-0`.
    pub name: String,
    /// What it counted, in microjoules.
    pub energy_microjoules: u64,
    /// The highest that it can count, in microjoules.
    pub range_microjoules: u64,
}

/// The packages' counters; empty where there are none or they cannot be read.
pub fn packages(root: &Root) -> Vec<Zone> {
    read(root).unwrap_or_default()
}

fn read(root: &Root) -> Result<Vec<Zone>, Failure> {
    let mut zones = Vec::new();
    // Zones of a package have one colon (intel-rapl:0), domains inside it two.
    for entry in root.list(FOLDER).iter().filter(|entry| entry.starts_with("intel-rapl:")) {
        let folder = format!("{FOLDER}/{entry}");
        let Some(name) = root.read(&format!("{folder}/name")).filter(|name| name.starts_with("package-")) else {
            continue;
        };
        let number = |file: &str| {
            let path = format!("{folder}/{file}");
            let text = root.read(&path).ok_or_else(|| {
                missing(format!(
                    "{path} cannot be read: RAPL needs a bare machine and root, or the node agent (meter agent:rapl)"
                ))
            })?;
            let told = text.parse().map_err(|_| failed(format!("{path} holds {text:?}, which is no whole number")))?;
            Ok::<u64, Failure>(told)
        };
        let zone =
            Zone { energy_microjoules: number("energy_uj")?, range_microjoules: number("max_energy_range_uj")?, name };
        if zone.energy_microjoules > zone.range_microjoules {
            return Err(failed(format!(
                "{folder}/energy_uj holds {}, above its own range of {}",
                zone.energy_microjoules, zone.range_microjoules
            )));
        }
        zones.push(zone);
    }
    Ok(zones)
}

enum Source {
    Here(Root),
    Agent(Client),
}

/// All packages of a machine.
pub struct Rapl {
    source: Source,
    last: Vec<Zone>,
    /// Microjoules since the meter was opened.
    total: u64,
}

impl Rapl {
    /// This machine's counters.
    pub fn here(root: &Root) -> Result<Self, Failure> {
        let zones = read(root)?;
        Self::new(Source::Here(root.clone()), zones, &format!("there is no RAPL package in {FOLDER}"))
    }

    /// The counters as the node agent reads them.
    pub fn from_agent(client: Client) -> Result<Self, Failure> {
        let machine = client.machine()?;
        Self::new(Source::Agent(client), machine.rapl, "the node agent can read no RAPL package")
    }

    fn new(source: Source, last: Vec<Zone>, nothing: &str) -> Result<Self, Failure> {
        if last.is_empty() { Err(missing(nothing)) } else { Ok(Self { source, last, total: 0 }) }
    }
}

impl Meter for Rapl {
    fn name(&self) -> String {
        match self.source {
            Source::Here(_) => "rapl".into(),
            Source::Agent(_) => "agent:rapl".into(),
        }
    }

    fn scope(&self) -> String {
        self.last.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>().join("+")
    }

    fn quantity(&self) -> Quantity {
        Quantity::Energy
    }

    fn period(&self) -> u64 {
        if matches!(self.source, Source::Here(_)) { PERIOD } else { AGENT_PERIOD }
    }

    fn pause(&self) -> Duration {
        Duration::from_nanos(self.period() / 2)
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let (zones, nanoseconds) = match &self.source {
            Source::Here(root) => (read(root).map_err(|failure| failed(failure.message))?, now),
            Source::Agent(client) => {
                let asked = clock::now();
                let Machine { rapl, clock_nanoseconds, .. } =
                    client.machine().map_err(|failure| failed(failure.message))?;
                // Agent and runner read the same clock of one kernel; it may have answered from what it read just before.
                let age = asked as i64 - clock_nanoseconds as i64;
                if age.abs() > 1_000_000_000 {
                    return Err(failed(format!("the node agent's clock is {age} ns away: is it on another node?")));
                }
                (rapl, now.saturating_add_signed(-age))
            }
        };
        if zones.len() != self.last.len() {
            return Err(failed(format!("RAPL had {} packages and now has {}", self.last.len(), zones.len())));
        }
        for (before, after) in self.last.iter().zip(&zones) {
            self.total += wrapped(before.energy_microjoules, after.energy_microjoules, after.range_microjoules);
        }
        self.last = zones;
        Ok(vec![Reading { nanoseconds, value: self.total as f64 / 1e6 }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_packages_wrap_round_and_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(FOLDER.trim_start_matches('/')).join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let root = Root::new(folder.path());
        assert_eq!(Rapl::here(&root).err().unwrap().reason, "MeterMissing");
        // As on a machine with two sockets: packages, a domain inside one, and the platform.
        for (zone, name) in [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:2", "psys"),
        ] {
            write(&format!("{zone}/name"), name);
            write(&format!("{zone}/max_energy_range_uj"), "262143328850\n");
            write(&format!("{zone}/energy_uj"), "262143328800\n");
        }
        let mut meter = Rapl::here(&root).unwrap();
        assert_eq!((meter.scope().as_str(), meter.quantity()), ("package-0+package-1", Quantity::Energy));
        assert_eq!(meter.read(5).unwrap(), [Reading { nanoseconds: 5, value: 0.0 }]);
        // 51 µJ to the end and the first of the next round, then 999,949 more: one joule. The other package: half of one.
        write("intel-rapl:0/energy_uj", "999949\n");
        write("intel-rapl:1/energy_uj", "499949\n");
        write("intel-rapl:0:0/energy_uj", "499949\n");
        assert_eq!(meter.read(9).unwrap(), [Reading { nanoseconds: 9, value: 1.5 }]);
        for nonsense in ["999999999999999", "-5", "12.5", "twelve"] {
            write("intel-rapl:1/energy_uj", nonsense);
            let failure = meter.read(10).unwrap_err();
            assert!(
                failure.message.contains("intel-rapl:1/energy_uj") && failure.message.contains(nonsense),
                "{failure}"
            );
            assert_eq!(failure.reason, "MeterFailed");
        }
        std::fs::remove_dir_all(folder.path().join(FOLDER.trim_start_matches('/')).join("intel-rapl:1")).unwrap();
        assert!(meter.read(11).unwrap_err().message.contains("2 packages and now has 1"));
    }
}
