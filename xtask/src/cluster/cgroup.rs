//! The cluster's control groups: every process of it is in one tree, so all can be found and killed, whoever started them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fs_err as fs;
use rustix::process::{Pid, Signal, kill_process};

/// Name of the tree; kubelet puts pods below it.
pub const ROOT: &str = "edgeyard-lab";
/// The daemons' group in it, container shims included.
const DAEMONS: &str = "daemons";
const MOUNT: &str = "/sys/fs/cgroup";

/// Whether this is the unified hierarchy.
fn unified() -> bool {
    Path::new(MOUNT).join("cgroup.controllers").exists()
}

/// The mounted hierarchies: one with cgroup v2, one for each controller with v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    if unified() {
        return Ok(vec![MOUNT.into()]);
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(MOUNT)? {
        let entry = entry?;
        // Links (`cpu` -> `cpu,cpuacct`) name a hierarchy twice.
        if entry.file_type()?.is_dir() && entry.path().join("cgroup.procs").exists() {
            found.insert(entry.path());
        }
    }
    Ok(found.into_iter().collect())
}

/// The hierarchy by which processes are tracked.
fn tracking() -> Result<PathBuf> {
    if unified() { Ok(MOUNT.into()) } else { Ok(Path::new(MOUNT).join("pids")) }
}

/// Makes the tree and returns the file through which a process joins the daemons' group.
pub fn create() -> Result<PathBuf> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(ROOT);
        fs::create_dir_all(&group)?;
        if hierarchy.ends_with("cpuset") {
            // A new v1 cpuset is empty, and nothing can run in it.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                fs::write(group.join(file), fs::read_to_string(hierarchy.join(file))?.trim())?;
            }
        }
    }
    let daemons = tracking()?.join(ROOT).join(DAEMONS);
    fs::create_dir_all(&daemons)?;
    Ok(daemons.join("cgroup.procs"))
}

/// Every process in the tree.
pub fn processes() -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for group in groups(&tracking()?.join(ROOT))? {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// The daemons and shims alone, without what runs in pods.
pub fn daemons() -> Result<Vec<i32>> {
    let text = fs::read_to_string(tracking()?.join(ROOT).join(DAEMONS).join("cgroup.procs")).unwrap_or_default();
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Kills every process in the tree, at once and without asking, until none is left.
pub fn kill_all() -> Result<()> {
    crate::shell::wait_for("processes of the cluster to end", std::time::Duration::from_secs(20), || {
        let left = processes()?;
        for pid in &left {
            kill(*pid);
        }
        if !left.is_empty() {
            bail!("{} are left: {left:?}", left.len());
        }
        Ok(())
    })
}

/// Kills one process; one that is gone already is no error.
pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Removes the tree from every hierarchy.
pub fn remove() -> Result<()> {
    for top in tops()? {
        // The kernel frees a dead process's group a moment after the process.
        crate::shell::wait_for(&format!("{} to empty", top.display()), std::time::Duration::from_secs(10), || {
            for group in groups(&top)?.into_iter().rev() {
                fs::remove_dir(group)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The tree's folders that exist.
pub fn tops() -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|h| h.join(ROOT)).filter(|top| top.exists()).collect())
}

/// `top` and all groups below it, parents first.
fn groups(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = if top.exists() { vec![top.to_path_buf()] } else { vec![] };
    while let Some(group) = todo.pop() {
        if let Ok(entries) = fs::read_dir(&group) {
            todo.extend(entries.filter_map(|e| e.ok()).filter(|e| e.path().is_dir()).map(|e| e.path()));
        }
        found.push(group);
    }
    Ok(found)
}
