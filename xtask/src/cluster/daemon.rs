//! Starting the cluster's programs so that they outlive this one, and finding them again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;

use super::config::{ALL, Program};
use super::{RUN, network, place};
use crate::shell::{cmd, output};

/// Joins the daemons' control group, then leaves the session and the network of the caller. `$!` is the program itself:
/// neither setsid nor nsenter forks when it need not. The parent ends at once, so init reaps the program.
const START: &str =
    r#"echo $$ >"$1"; log=$2; net=$3; shift 3; setsid nsenter --net="$net" "$@" </dev/null >>"$log" 2>&1 & echo $!"#;

/// Starts a program in the cluster's namespace and control group.
pub fn start(program: Program, built: &Path, join: &Path) -> Result<()> {
    let log = log(program.name())?;
    let mut shell = cmd("sh", ["-c", START, "sh"]);
    shell.arg(join).arg(log).arg(network::namespace()).arg(program.executable(built)).args(program.arguments(built));
    let pid = output(&mut shell).with_context(|| format!("starting {}", program.name()))?;
    let pid = pid.trim();
    // One that has died already has no start, and so counts as dead.
    fs::write(pid_file(program), format!("{pid} {}", started(pid).unwrap_or_default()))?;
    Ok(())
}

/// When a living process started, in clock ticks since boot. It stays the same through every exec, and pids come round
/// again: the two together are who it is.
fn started(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it are state (3) to start time (22) and more.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19).map(|start| (*start).to_owned())
}

/// The log of a program.
pub fn log(name: &str) -> Result<PathBuf> {
    let dir = place()?.join("log");
    fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("{name}.log")))
}

/// The last lines of a program's log, for error messages.
pub fn last_words(program: Program) -> String {
    let text = log(program.name()).and_then(|path| Ok(fs::read_to_string(path)?)).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Every program and whether it lives.
pub fn list() -> Vec<(&'static str, bool)> {
    ALL.iter().map(|program| (program.name(), is_alive(*program))).collect()
}

/// Whether all programs live.
pub fn all_alive() -> bool {
    ALL.iter().all(|program| is_alive(*program))
}

/// Whether a program lives.
pub fn is_alive(program: Program) -> bool {
    let alive = || -> Option<bool> {
        let text = fs::read_to_string(pid_file(program)).ok()?;
        let (pid, start) = text.split_once(' ')?;
        Some(started(pid)? == start)
    };
    alive().unwrap_or(false)
}

fn pid_file(program: Program) -> PathBuf {
    Path::new(RUN).join(format!("{}.pid", program.name()))
}
