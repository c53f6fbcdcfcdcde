//! `cargo xtask setup`: installs what is missing and says so; a second call only looks.
//!
//! Downloads and builds go into a temporary folder of the cache and are renamed when they are whole, so a kill at any moment
//! leaves nothing half done. A lock file keeps two set-ups apart.

pub mod debian;
pub mod rust;
pub mod kubernetes;
pub mod qemu;
pub mod oracles;
pub mod runtimes;
pub mod data;
pub mod corpus;
pub mod peers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use fs_err as fs;

use crate::layout;
use crate::shell::{say, step};

/// Arguments of `setup`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs `cargo xtask setup`.
///
/// # Errors
/// The step that failed, with the output of the program that failed in it.
pub fn run(_: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    println!("setup: everything is kept in {}", layout::cache()?.display());
    install()?;
    println!("setup: ready in {:.1} s", start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// Installs all that is missing.
///
/// # Errors
/// As [`run`].
pub fn install() -> Result<()> {
    let (root, cache) = (layout::root()?, layout::cache()?);
    fs::create_dir_all(&cache)?;
    let _lock = lock(&cache.join("setup.lock"), "another set-up is running; waiting for it")?;
    remove_leftovers(&cache)?;
    // Package management is first and alone: all that follows needs its tools. Then the Go builds, minutes of CPU,
    // run beside the downloads.
    debian::install()?;
    std::thread::scope(|scope| {
        let go = scope.spawn(|| kubernetes::install(&root, &cache));
        let rest = (|| {
            rust::install(&root)?;
            qemu::install(&cache)?;
            oracles::install(&root, &cache)?;
            runtimes::install(&root, &cache)?;
            data::install(&cache)?;
            corpus::install(&root, &cache)
        })();
        let built = go.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that builds Kubernetes panicked")));
        rest.and(built)
    })
}

/// Takes an exclusive lock that ends with the process; says `waiting` when somebody else holds it.
pub fn lock(path: &Path, waiting: &str) -> Result<fs::File> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    if file.file().try_lock().is_err() {
        say(waiting);
        file.file().lock()?;
    }
    Ok(file)
}

/// Returns `cache/name`, made by `make` in a folder that is renamed to it when it is complete.
pub fn cached(cache: &Path, name: &str, what: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = cache.join(name);
    if place.exists() {
        return Ok(place);
    }
    step(what, || {
        let folder = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(cache)?;
        make(folder.path())?;
        let made = folder.keep();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&made, mode)?;
        fs::rename(&made, &place)?;
        Ok(())
    })?;
    Ok(place)
}

const TEMPORARY: &str = ".making-";

/// Removes what a killed set-up left; only with the lock held.
fn remove_leftovers(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_leaves_no_cache_entry() {
        let cache = tempfile::tempdir().unwrap();
        let failed = cached(cache.path(), "thing-1", "thing", |dir| {
            fs::write(dir.join("half"), "x")?;
            anyhow::bail!("power cut")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
        let made = cached(cache.path(), "thing-1", "thing", |dir| Ok(fs::write(dir.join("whole"), "x")?)).unwrap();
        assert!(made.join("whole").is_file());
    }

    #[test]
    fn a_killed_step_is_swept_by_the_next_setup() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join(".making-abc")).unwrap();
        fs::create_dir(cache.path().join("kept-1")).unwrap();
        remove_leftovers(cache.path()).unwrap();
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept-1"]);
    }
}
