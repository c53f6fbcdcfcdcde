//! How runs end that do not end well.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{command, fail, file, folder, models, need, record, text};

/// Waits until a condition holds; the limit is only there so that a failure ends.
fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < patience, "{what} did not happen");
        std::thread::yield_now();
    }
}

fn children(of: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{of}/task")) else { return Vec::new() };
    let mut found: Vec<u32> = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .collect();
    found.sort_unstable();
    found
}

/// Processor time that a process has used, in ticks: a lane that has some is past loading.
fn ticks(of: u32) -> u64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{of}/stat")) else { return 0 };
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

fn start(models: &[&Path], profile: &str, out: &Path) -> Child {
    let mut arguments = vec!["run", "--device-class", "host-cpu", "--profile", profile, "--out", text(out)];
    for model in models {
        arguments.extend(["--model", text(model)]);
    }
    command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_lane_that_is_killed_fails_its_variant_only() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "slow.onnx", &models::slow_onnx(256));
    let other = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let out = dir.path().join("out");
    let runner = start(&[&model, &other], "Quick", &out);
    // Both lanes are there, and the first has worked for a second: it is measuring.
    let lane = eventually("a busy lane", || {
        let lanes = children(runner.id());
        (lanes.len() == 2 && ticks(lanes[0]) > 100).then(|| lanes[0])
    });
    signal(lane, "-KILL");
    let output = runner.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let record = record(&out);
    let failure = record.results[0].failure.as_ref().unwrap();
    assert_eq!(failure.reason, "RuntimeCrashed");
    assert!(failure.message.contains("signal 9"), "{}", failure.message);
    assert_eq!(record.results[0].unavailable["latency"], "RuntimeCrashed");
    assert_eq!(record.results[1].outcome, "Succeeded");
    assert!(record.results[1].latency.as_ref().unwrap().count >= 1024);
}

#[test]
fn sigterm_cancels_and_leaves_no_process() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let out = dir.path().join("out");
    let runner = start(&[&model], "Standard", &out);
    let lane = eventually("a busy lane", || children(runner.id()).into_iter().find(|lane| ticks(*lane) > 10));
    signal(runner.id(), "-TERM");
    let output = runner.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("(Cancelled)"));
    eventually("the lane's end", || (!Path::new(&format!("/proc/{lane}/cmdline")).exists()).then_some(()));
    assert!(!out.join("record.json").exists());
}

#[test]
fn a_runner_that_is_killed_takes_its_lanes_along() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let mut runner = start(&[&model], "Standard", &dir.path().join("out"));
    let lane = eventually("a busy lane", || children(runner.id()).into_iter().find(|lane| ticks(*lane) > 10));
    signal(runner.id(), "-KILL");
    runner.wait().unwrap();
    let gone = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.is_empty() || stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    };
    eventually("the lane's end", || gone(lane).then_some(()));
}

#[test]
fn a_deadline_ends_the_run() {
    need("EDGEYARD_ORT_LIB");
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let out = dir.path().join("out");
    let arguments = ["--profile", "Standard", "--deadline", "1", "--out", text(&out)];
    let arguments = [&["run", "--model", text(&model), "--device-class", "host-cpu"][..], &arguments].concat();
    fail(&arguments, 4, "DeadlineExceeded", "after 1 s");
}

#[test]
fn a_runtime_that_is_missing_is_told() {
    let dir = folder();
    let model = file(dir.path(), "dense.onnx", &models::dense_onnx());
    let out = dir.path().join("out");
    let arguments = ["run", "--model", text(&model), "--device-class", "host-cpu", "--out", text(&out)];
    let output = command(&arguments).env_remove("EDGEYARD_ORT_LIB").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cargo xtask setup"));
    let wrong = command(&arguments).env("EDGEYARD_ORT_LIB", &model).output().unwrap();
    assert_eq!(wrong.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("(RuntimeMissing)"));
}
