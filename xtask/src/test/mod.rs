//! `cargo xtask test`: every suite, one after the other, and one summary.
//!
//! A suite that fails stops no other. Nothing passes by not running: a runner that dies counts as a failure, and so does a run of no tests.

mod cargo_tests;
mod suites;
#[cfg(test)]
mod architecture;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use fs_err as fs;
use serde::Serialize;

use crate::{cluster, layout, setup};

/// Arguments of `test`.
#[derive(clap::Args)]
pub struct Args {
    /// List the suites and end
    #[arg(long)]
    list: bool,
    /// Run this suite alone; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seed of randomised tests, for a rerun (default: from the clock; it is printed)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run the cluster's suites against this cluster instead of the lab; it must be able to pull the images
    #[arg(long, value_name = "F")]
    kubeconfig: Option<PathBuf>,
}

/// What suites are told.
pub struct Plan {
    seed: u64,
    kubeconfig: Option<PathBuf>,
}

/// What a suite did.
#[derive(Default)]
pub struct Outcome {
    /// Tests that passed.
    pub passed: u64,
    /// Names of what failed.
    pub failed: Vec<String>,
    /// Tests that did not run, and why.
    pub skipped: Vec<Skip>,
}

/// A test that did not run.
#[derive(Serialize, Clone)]
pub struct Skip {
    /// Its name, with the suite's in front.
    pub name: String,
    /// Why.
    pub reason: String,
}

#[derive(Serialize)]
struct Summary {
    passed: u64,
    failed: u64,
    skipped: Vec<Skip>,
    seed: u64,
    suites: Vec<SuiteSummary>,
}

#[derive(Serialize)]
struct SuiteSummary {
    name: String,
    seconds: f64,
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Outcome {
    /// A suite that is one test.
    fn single(name: &str, result: Result<()>) -> Self {
        let mut outcome = Self::default();
        outcome.add(name, result);
        outcome
    }

    /// Counts one test and shows why it failed.
    pub fn add(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => {
                println!("    ok      {name}");
                self.passed += 1;
            }
            Err(error) => {
                println!("    FAILED  {name}: {error:#}");
                self.failed.push(name.to_owned());
            }
        }
    }
}

/// Runs `cargo xtask test`.
///
/// # Errors
/// When the set-up fails or a suite is not known; failing tests are no error but exit code 1.
pub fn run(args: &Args) -> Result<ExitCode> {
    let all = suites::all()?;
    if args.list {
        all.iter().for_each(|suite| println!("{:<18} {}", suite.name, suite.about));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args.only.iter().find(|name| all.iter().all(|suite| suite.name != **name)) {
        let names: Vec<&str> = all.iter().map(|suite| suite.name.as_str()).collect();
        bail!("there is no suite {unknown}; there are {}", names.join(", "));
    }
    println!("== setup");
    setup::install()?;
    let plan = Plan { seed: args.seed.unwrap_or_else(clock), kubeconfig: args.kubeconfig.clone() };
    println!("== seed {}", plan.seed);
    let mut summary = Summary { passed: 0, failed: 0, skipped: vec![], seed: plan.seed, suites: vec![] };
    let chosen = || all.iter().filter(|suite| args.only.is_empty() || args.only.contains(&suite.name));
    for suite in chosen() {
        println!("== {}", suite.name);
        let start = Instant::now();
        // An error is a failure of the suite itself: nothing may hide that it did not run.
        let outcome = (suite.run)(suite, &plan).unwrap_or_else(|error| Outcome::single(&suite.name, Err(error)));
        summary.add(&suite.name, start.elapsed().as_secs_f64(), outcome);
        summary.write()?;
    }
    // A cluster that somebody looks at is left alone by suites that do not need one.
    if plan.kubeconfig.is_none() && chosen().any(|suite| suite.on_cluster) {
        println!("== cluster down");
        if let Err(error) = cluster::down() {
            summary.add("cluster down", 0.0, Outcome::single("cluster down", Err(error)));
        }
    }
    summary.write()?;
    summary.print();
    Ok(if summary.failed > 0 || summary.passed == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Summary {
    fn add(&mut self, name: &str, seconds: f64, outcome: Outcome) {
        let Outcome { passed, failed, skipped } = outcome;
        self.passed += passed;
        self.failed += failed.len() as u64;
        self.skipped.extend(skipped);
        self.suites.push(SuiteSummary {
            name: name.to_owned(),
            seconds,
            passed,
            failed: failed.len() as u64,
            failures: failed,
        });
    }

    fn write(&self) -> Result<()> {
        let dir = layout::target()?.join("test");
        fs::create_dir_all(&dir)?;
        Ok(fs::write(dir.join("summary.json"), serde_json::to_string_pretty(self)?)?)
    }

    fn print(&self) {
        println!("\n{:<20} {:>9} {:>8} {:>8}", "suite", "seconds", "passed", "failed");
        for SuiteSummary { name, seconds, passed, failed, failures: _ } in &self.suites {
            println!("{name:<20} {seconds:>9.1} {passed:>8} {failed:>8}");
        }
        for Skip { name, reason } in &self.skipped {
            println!("SKIPPED {name}: {reason}");
        }
        for suite in &self.suites {
            for failure in &suite.failures {
                println!(
                    "FAILED {}: {failure}; again: cargo xtask test --only {} --seed {}",
                    suite.name, suite.name, self.seed
                );
            }
        }
        // A cluster's or a runner's log never comes after this line: scripts read the last one.
        println!("\n{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len());
    }
}
