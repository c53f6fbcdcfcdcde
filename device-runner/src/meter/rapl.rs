//! RAPL through powercap: the package's energy counter in microjoules, which wraps round at `max_energy_range_uj`.

use edgeyard_measure::energy::{Reading, wrapped};

use super::{Meter, failed, missing};
use crate::error::Failure;
use crate::machine::Root;

const FOLDER: &str = "/sys/class/powercap/intel-rapl:0";
const PERIOD: u64 = 10_000_000;

/// The first package.
pub struct Rapl {
    root: Root,
    name: String,
    limit: u64,
    last: Option<(u64, u64)>,
}

impl Rapl {
    /// Opens the counter.
    pub fn open(root: &Root) -> Result<Self, Failure> {
        let read = |file: &str| {
            root.read(&format!("{FOLDER}/{file}")).ok_or_else(|| {
                missing(format!("{FOLDER}/{file} cannot be read: RAPL needs a bare machine and the right to read it"))
            })
        };
        let limit = read("max_energy_range_uj")?;
        let limit = limit.parse().map_err(|_| failed(format!("RAPL's range is {limit:?}, which is no number")))?;
        read("energy_uj")?;
        Ok(Self { root: root.clone(), name: read("name")?, limit, last: None })
    }
}

impl Meter for Rapl {
    fn name(&self) -> String {
        "rapl".into()
    }

    fn scope(&self) -> String {
        self.name.clone()
    }

    fn period(&self) -> u64 {
        PERIOD
    }

    fn read(&mut self, now: u64) -> Result<Vec<Reading>, Failure> {
        let text = self
            .root
            .read(&format!("{FOLDER}/energy_uj"))
            .ok_or_else(|| failed("RAPL cannot be read any more".into()))?;
        let count: u64 = text.parse().map_err(|_| failed(format!("RAPL told {text:?}, which is no number")))?;
        if count > self.limit {
            return Err(failed(format!("RAPL told {count} µJ, above its own range of {}", self.limit)));
        }
        let Some((before, then)) = self.last.replace((count, now)) else { return Ok(Vec::new()) };
        let seconds = now.saturating_sub(then) as f64 / 1e9;
        if seconds <= 0.0 {
            return Ok(Vec::new());
        }
        // The power of the time between two looks stands at its middle.
        let watts = wrapped(before, count, self.limit) as f64 / 1e6 / seconds;
        Ok(vec![Reading { nanoseconds: then + (now - then) / 2, watts }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_wraps_round() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FOLDER.trim_start_matches('/'));
        std::fs::create_dir_all(&path).unwrap();
        let write = |file: &str, text: &str| std::fs::write(path.join(file), text).unwrap();
        let root = Root::new(folder.path());
        assert_eq!(Rapl::open(&root).err().unwrap().reason, "MeterMissing");
        write("name", "package-0\n");
        write("max_energy_range_uj", "262143328850\n");
        write("energy_uj", "262143328800\n");
        let mut meter = Rapl::open(&root).unwrap();
        assert_eq!(meter.read(0).unwrap(), []);
        // 51 µJ to the end and the first of the next round, then 999,949 more: one joule in a second is a watt.
        write("energy_uj", "999949\n");
        let found = meter.read(1_000_000_000).unwrap();
        assert_eq!(found[0].nanoseconds, 500_000_000);
        assert!((found[0].watts - 1.0).abs() < 1e-6, "{found:?}");
        write("energy_uj", "999999999999999\n");
        assert!(meter.read(2_000_000_000).unwrap_err().message.contains("range"));
    }
}
