//! Runs `cargo test` and counts what it says, test by test and program by program.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use fs_err as fs;

use super::{Outcome, Skip};
use crate::layout;

/// No suite takes longer on two cores from cold; one that does hangs.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// Runs a `cargo test` command line; `suite` names its log. Ignored tests of the programs in `elsewhere` run in suites of their own.
///
/// # Errors
/// When cargo cannot be started or the log not written.
pub fn run(suite: &str, command: &mut Command, elsewhere: &[String]) -> Result<Outcome> {
    let dir = layout::target()?.join("test");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{suite}.log"));
    let mut log = fs::File::create(&path)?;
    let (reader, writer) = std::io::pipe()?;
    // Standard error holds which program runs, standard output what it said: in one pipe they keep their order.
    let mut child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command holds the pipe's other end; without it the reader sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (done, late) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut tally = Tally::default();
    let root = child.id();
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            while !done.load(Ordering::Relaxed) {
                if start.elapsed() > LIMIT && !late.swap(true, Ordering::Relaxed) {
                    kill_tree(root);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let result = (|| -> Result<_> {
            for line in BufReader::new(reader).split(b'\n') {
                let line = String::from_utf8_lossy(&line?).into_owned();
                writeln!(log, "{line}")?;
                tally.line(&line);
            }
            Ok(child.wait()?)
        })();
        done.store(true, Ordering::Relaxed);
        result
    })?;
    tally.end(status.success());
    if late.load(Ordering::Relaxed) {
        tally.failed.push(format!("no end after {} minutes", LIMIT.as_secs() / 60));
    }
    if !tally.failed.is_empty() {
        tally.shown.iter().for_each(|line| println!("    {line}"));
        println!("    the whole output is in {}", path.display());
    }
    let skipped = tally.ignored.into_iter().filter(|ignored| !elsewhere.contains(&ignored.program));
    Ok(Outcome {
        passed: tally.passed,
        failed: tally.failed,
        skipped: skipped.map(|i| Skip { name: format!("{suite}: {}", i.test), reason: i.reason }).collect(),
    })
}

/// Ends a process and all that descend from it, the youngest last: a parent must not start another meanwhile.
fn kill_tree(root: u32) {
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        let children = fs::read_dir(format!("/proc/{}/task", tree[next])).into_iter().flatten().filter_map(Result::ok);
        for task in children {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            tree.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    for pid in tree {
        if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The state of reading.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: Vec<String>,
    ignored: Vec<Ignored>,
    /// The program that runs and has given no result yet.
    running: Option<String>,
    /// Failures counted for it so far.
    counted: u64,
    /// What to show when something failed: the programs' own reports and compiler errors.
    shown: Vec<String>,
    reporting: bool,
    /// The last lines, for when a program dies without a report.
    last: std::collections::VecDeque<String>,
    any_result: bool,
    /// Programs that ended without a result.
    unfinished: Vec<(String, Vec<String>)>,
}

struct Ignored {
    program: String,
    test: String,
    reason: String,
}

const LAST: usize = 30;

impl Tally {
    fn line(&mut self, line: &str) {
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
        let words = line.trim_start();
        if let Some(program) = program(words) {
            self.unfinished();
            self.running = Some(program);
            self.counted = 0;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let number = |unit: &str| -> u64 {
                let part = result.split([';', '.']).find(|part| part.trim_end().ends_with(unit));
                part.and_then(|part| part.split_whitespace().next()?.parse().ok()).unwrap_or(0)
            };
            self.passed += number(" passed");
            // A name may be unreadable among a test's own output; the number is not.
            for _ in self.counted..number(" failed") {
                self.failed
                    .push(format!("{}: a test that is named in the log", self.running.as_deref().unwrap_or("?")));
            }
            self.running = None;
            self.any_result = true;
            self.reporting = false;
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                self.counted += 1;
                self.failed.push(format!("{} {name}", self.running.as_deref().unwrap_or("?")));
            } else if let Some((name, reason)) = test.split_once(" ... ignored") {
                self.ignored.push(Ignored {
                    program: self.running.clone().unwrap_or_default(),
                    test: name.to_owned(),
                    reason: reason.trim_start_matches(", ").to_owned(),
                });
            }
        } else if line == "failures:" || words.starts_with("error") {
            self.reporting = true;
        }
        if self.reporting && self.shown.len() < 400 {
            self.shown.push(line.to_owned());
        }
    }

    fn unfinished(&mut self) {
        if let Some(program) = self.running.take() {
            self.unfinished.push((program, self.last.iter().cloned().collect()));
        }
    }

    /// All output was read; `ok` is cargo's own verdict.
    fn end(&mut self, ok: bool) {
        self.unfinished();
        if ok {
            return;
        }
        // With cargo content, a program without a result has a harness of its own and passed.
        for (program, last) in std::mem::take(&mut self.unfinished) {
            self.failed.push(format!("{program} ended without a result"));
            self.shown.extend(last);
        }
        if self.failed.is_empty() {
            self.failed.push(
                if self.any_result {
                    "cargo test failed without a failing test"
                } else {
                    "cargo test did not get to any test"
                }
                .to_owned(),
            );
            self.shown.extend(self.last.iter().cloned());
        }
    }
}

/// The name of the program that cargo says it runs now.
fn program(words: &str) -> Option<String> {
    if let Some(package) = words.strip_prefix("Doc-tests ") {
        return Some(format!("doc-tests of {package}"));
    }
    let file = words.strip_prefix("Running ")?.rsplit_once("/deps/")?.1.strip_suffix(')')?;
    Some(file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, ok: bool) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.line(line));
        tally.end(ok);
        tally
    }

    const RUNNING: &str = "     Running unittests src/lib.rs (target/release/deps/edgeyard_plan-0123456789abcdef)\n";

    #[test]
    fn results_of_all_programs_are_added() {
        let one = format!(
            "{RUNNING}running 2 tests\ntest a ... ok\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n"
        );
        let tally = read(&format!("{one}{one}"), true);
        assert_eq!((tally.passed, tally.failed.len()), (4, 0));
    }

    #[test]
    fn a_failed_test_is_named_with_its_program() {
        let text = format!(
            "{RUNNING}test a::b ... FAILED\nfailures:\n---- a::b stdout ----\nbecause\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n"
        );
        let tally = read(&text, false);
        assert_eq!(tally.failed, ["edgeyard_plan a::b"]);
        assert!(tally.shown.contains(&"because".to_owned()));
    }

    #[test]
    fn a_failure_whose_name_is_lost_in_output_is_counted() {
        let text = format!("{RUNNING}test a ... noise\nFAILED\ntest result: FAILED. 3 passed; 1 failed; 0 ignored\n");
        assert_eq!(read(&text, false).failed.len(), 1);
    }

    #[test]
    fn a_program_that_dies_is_a_failure_beside_failed_tests() {
        let text = format!(
            "{RUNNING}test a ... FAILED\ntest result: FAILED. 0 passed; 1 failed; 0 ignored\n{RUNNING}running 9 tests\nerror: test failed (signal: 6)\n"
        );
        assert_eq!(read(&text, false).failed, ["edgeyard_plan a", "edgeyard_plan ended without a result"]);
    }

    #[test]
    fn code_that_does_not_compile_is_a_failure() {
        let tally = read("error[E0308]: mismatched types\n --> src/lib.rs:1:1\n", false);
        assert_eq!(tally.failed, ["cargo test did not get to any test"]);
        assert!(tally.shown[0].contains("E0308"));
    }

    #[test]
    fn ignored_tests_keep_their_reason() {
        let tally = read(
            &format!(
                "{RUNNING}test slow ... ignored, needs a cluster\ntest result: ok. 0 passed; 0 failed; 1 ignored\n"
            ),
            true,
        );
        assert_eq!((tally.ignored[0].test.as_str(), tally.ignored[0].reason.as_str()), ("slow", "needs a cluster"));
        assert_eq!(tally.ignored[0].program, "edgeyard_plan");
    }
}
