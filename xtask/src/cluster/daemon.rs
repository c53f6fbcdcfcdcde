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
    fs::write(pid_file(program), pid.trim())?;
    Ok(())
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

/// Whether a program lives: its pid must still belong to it, pids come round again.
pub fn is_alive(program: Program) -> bool {
    let alive = || -> Option<bool> {
        let pid = fs::read_to_string(pid_file(program)).ok()?;
        let proc = Path::new("/proc").join(pid.trim());
        let line = fs::read(proc.join("cmdline")).ok()?;
        if line.is_empty() {
            // In the middle of an exec a process has no command line; nor has a dead one that nobody waited for.
            let status = fs::read_to_string(proc.join("status")).ok()?;
            return Some(!status.lines().any(|l| l.starts_with("State:") && l.contains('Z')));
        }
        // Until it has passed setsid and nsenter its command line holds theirs; the name is in it all the same.
        Some(String::from_utf8_lossy(&line).contains(program.name()))
    };
    alive().unwrap_or(false)
}

fn pid_file(program: Program) -> PathBuf {
    Path::new(RUN).join(format!("{}.pid", program.name()))
}
