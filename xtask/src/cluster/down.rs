//! `cluster down`: the one way to end a cluster, running, half dead or another checkout's; then looks for what is left.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;

use super::{RUN, State, binfmt, cgroup, kubeconfig, lock, mounts, network, traces};
use crate::shell::{need_root, say, step};

/// Ends the cluster, whoever started it, and fails with a list if anything of it is left.
///
/// # Errors
/// When something cannot be removed.
pub fn down() -> Result<()> {
    need_root("ending a cluster")?;
    let _lock = lock()?;
    if leftovers()?.is_empty() {
        say("✓ no cluster is up");
        return Ok(());
    }
    step("cluster down", clear)?;
    let left = leftovers()?;
    if !left.is_empty() {
        bail!("the cluster is down, but this is left of it:\n  {}", left.join("\n  "));
    }
    Ok(())
}

/// Kills, unmounts, removes. Nothing is asked to end by itself: a cluster that hangs must go as well as one that runs.
pub(super) fn clear() -> Result<()> {
    let data = State::read().map(|state| state.checkout.join("target/cluster/data"));
    cgroup::kill_all()?;
    mounts::undo(Path::new(RUN))?;
    network::remove()?;
    cgroup::remove()?;
    binfmt::remove()?;
    traces::remove()?;
    if let Some(data) = data.filter(|data| data.exists()) {
        fs::remove_dir_all(data)?;
    }
    if Path::new(RUN).exists() {
        fs::remove_dir_all(RUN)?;
    }
    if kubeconfig()?.exists() {
        fs::remove_file(kubeconfig()?)?;
    }
    Ok(())
}

/// Everything on this machine that belongs to a cluster.
pub(super) fn leftovers() -> Result<Vec<String>> {
    let mut left: Vec<String> = Vec::new();
    left.extend(cgroup::processes()?.iter().chain(&strays()?).map(|pid| format!("process {pid} {}", command(*pid))));
    left.extend(mounts::below(Path::new(RUN))?.iter().map(|point| format!("mount {}", point.display())));
    left.extend(network::leftovers()?);
    left.extend(cgroup::tops()?.iter().map(|group| format!("control group {}", group.display())));
    left.extend(binfmt::leftovers());
    if Path::new(RUN).exists() {
        left.push(format!("folder {RUN}"));
    }
    left.sort();
    left.dedup();
    Ok(left)
}

/// Processes whose command line names [`RUN`] but which are in no group of ours: there should be none, ever.
fn strays() -> Result<Vec<i32>> {
    let me = i32::try_from(std::process::id())?;
    let names_run =
        |line: &str| line.split(['\0', '=', ':']).any(|word| word == RUN || word.starts_with(&format!("{RUN}/")));
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_string_lossy().parse::<i32>().ok());
    Ok(pids.filter(|pid| *pid != me && is_ours(*pid) && names_run(&command_line(*pid))).collect())
}

/// The programs that only a cluster runs; an editor with one of its files open is not one.
fn is_ours(pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_else(|_| PathBuf::new());
    let names = [
        "containerd",
        "containerd-shim-runc-v2",
        "runc",
        "kubelet",
        "kube-proxy",
        "kube-apiserver",
        "etcd",
        "prometheus",
    ];
    program.file_name().is_some_and(|name| names.iter().any(|n| name == *n))
}

fn command_line(pid: i32) -> String {
    fs::read(format!("/proc/{pid}/cmdline")).map(|line| String::from_utf8_lossy(&line).into_owned()).unwrap_or_default()
}

fn command(pid: i32) -> String {
    command_line(pid).replace('\0', " ").chars().take(80).collect()
}
