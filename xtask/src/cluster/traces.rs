//! Files that CNI and kubelet leave in folders of the host whose names cannot be changed.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::RUN;

const RESULTS: &str = "/var/lib/cni/results";
const LOGS: &str = "/var/log/containers";

/// Removes our files there, and nobody else's.
pub fn remove() -> Result<()> {
    for file in results().into_iter().chain(links()) {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// CNI's notes about our network, and those about the loopback of the same containers.
fn results() -> Vec<PathBuf> {
    let files = entries(Path::new(RESULTS));
    let name = |file: &PathBuf| file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let containers: Vec<String> = files
        .iter()
        .filter_map(|file| Some(name(file).strip_prefix("edgeyard-lab-")?.strip_suffix("-eth0")?.to_owned()))
        .collect();
    files.into_iter().filter(|file| containers.iter().any(|container| name(file).contains(container))).collect()
}

/// Links to the logs of our pods.
fn links() -> Vec<PathBuf> {
    let ours = |link: &PathBuf| fs::read_link(link).is_ok_and(|to| to.starts_with(RUN));
    entries(Path::new(LOGS)).into_iter().filter(ours).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|all| all.filter_map(|e| Some(e.ok()?.path())).collect()).unwrap_or_default()
}
