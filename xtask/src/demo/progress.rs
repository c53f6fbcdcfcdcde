//! The demo's phases: how long each takes, and how long it took the last time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use fs_err as fs;

use crate::shell::say;

/// Seconds of each phase on an otherwise idle machine of two cores when everything has been built before.
const USUAL: [(&str, f64); 7] = [
    ("setup", 1.0),
    ("images", 5.0),
    ("cluster", 10.0),
    ("install", 15.0),
    ("push", 5.0),
    ("optimize", 25.0),
    ("benchmark", 60.0),
];

/// The phases so far.
pub struct Phases {
    memory: PathBuf,
    usual: BTreeMap<String, f64>,
    seconds: BTreeMap<String, f64>,
}

impl Phases {
    /// With the seconds of the last run, if `memory` has them.
    pub fn new(memory: PathBuf) -> Self {
        let mut usual: BTreeMap<String, f64> =
            USUAL.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds)).collect();
        let remembered =
            fs::read_to_string(&memory).ok().and_then(|text| serde_json::from_str::<BTreeMap<String, f64>>(&text).ok());
        usual.extend(remembered.unwrap_or_default());
        Self { memory, usual, seconds: BTreeMap::new() }
    }

    /// Does a phase and says how long it took and how much is left.
    pub fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let expected =
            self.usual.get(name).map_or_else(String::new, |seconds| format!(", about {} as a rule", spoken(*seconds)));
        say(&format!("▶ {name}{expected}"));
        let start = Instant::now();
        let result = work().with_context(|| format!("the demo's phase `{name}` failed"))?;
        let seconds = start.elapsed().as_secs_f64();
        self.seconds.insert(name.to_owned(), seconds);
        let left: f64 = self.usual.iter().filter(|(phase, _)| !self.seconds.contains_key(*phase)).map(|(_, s)| s).sum();
        say(&format!(
            "✓ {name}: {}{}",
            spoken(seconds),
            if left >= 1.0 { format!("; about {} left", spoken(left)) } else { String::new() }
        ));
        Ok(result)
    }

    /// Remembers the seconds for the next time and gives them, with their sum as `total`.
    pub fn finish(self) -> Result<BTreeMap<String, f64>> {
        let mut seconds = self.seconds;
        fs::write(&self.memory, serde_json::to_string(&seconds)?)?;
        let total = seconds.values().sum();
        seconds.insert("total".into(), total);
        Ok(seconds)
    }
}

fn spoken(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_run_is_remembered_and_the_sum_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let memory = folder.path().join("seconds.json");
        let mut phases = Phases::new(memory.clone());
        assert_eq!(phases.run("push", || Ok(7)).unwrap(), 7);
        assert!(phases.run("optimize", || -> Result<()> { anyhow::bail!("no") }).is_err());
        let seconds = phases.finish().unwrap();
        assert_eq!(seconds.keys().collect::<Vec<_>>(), ["push", "total"]);
        assert!(Phases::new(memory).usual["push"] < 5.0);
    }
}
