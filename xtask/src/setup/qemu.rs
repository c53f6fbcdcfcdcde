//! QEMU 10.0 of Debian's backports, unpacked into the cache: the system keeps its own.
//!
//! Bookworm's 7.2 crashes in user mode on LiteRT and ONNX Runtime, and installing the backport would remove its packages.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use fs_err as fs;

use super::{cached, debian};
use crate::shell::{cmd, output};

const VERSION: &str = "10.0";

/// `qemu-system-arm`, for the Cortex-M boards.
pub fn system_arm(cache: &Path) -> PathBuf {
    dir(cache).join("bin/qemu-system-arm")
}

/// `qemu-aarch64`, static, for arm64 containers.
pub fn user_aarch64(cache: &Path) -> PathBuf {
    dir(cache).join("bin/qemu-aarch64")
}

fn dir(cache: &Path) -> PathBuf {
    cache.join(format!("qemu-{VERSION}"))
}

/// Downloads and unpacks.
///
/// # Errors
/// When backports cannot be read or serve another version.
pub fn install(cache: &Path) -> Result<()> {
    cached(cache, &format!("qemu-{VERSION}"), &format!("QEMU {VERSION} from backports"), |dir| {
        let work = tempfile::tempdir_in(dir)?;
        debian::unpack(&["qemu-system-arm", "qemu-user"], Some("bookworm-backports"), work.path())?;
        fs::create_dir(dir.join("bin"))?;
        for name in ["qemu-system-arm", "qemu-aarch64"] {
            let program = dir.join("bin").join(name);
            fs::rename(work.path().join("usr/bin").join(name), &program)?;
            let said = output(&mut cmd(&program.to_string_lossy(), ["--version"]))?;
            ensure!(
                said.contains(&format!(" version {VERSION}.")),
                "backports serve another version of {name}: {said}"
            );
        }
        Ok(())
    })?;
    Ok(())
}
