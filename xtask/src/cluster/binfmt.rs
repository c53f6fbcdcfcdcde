//! arm64 programs on this node: the kernel hands them to QEMU's user mode, in containers too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{layout, setup};

const DIR: &str = "/proc/sys/fs/binfmt_misc";
const NAME: &str = "edgeyard-aarch64";
/// An ELF header of a 64-bit little-endian AArch64 executable or shared object, and which of its bits count.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
/// Open the interpreter now (F: containers do not see its path), take credentials from the program (C), keep argv[0] (P), pass
/// the program as a descriptor (O).
const FLAGS: &str = "OCPF";

/// The registration, for as long as this value lives or until [`Arm64::keep`].
pub struct Arm64 {
    ours: bool,
}

impl Arm64 {
    /// Registers QEMU unless that is done already.
    ///
    /// # Errors
    /// When the kernel has no binfmt_misc or this is not root.
    pub fn register() -> Result<Self> {
        if entry().exists() {
            return Ok(Self { ours: false });
        }
        let register = Path::new(DIR).join("register");
        if !register.exists() {
            mount("binfmt_misc", DIR, "binfmt_misc", MountFlags::empty(), None).context("mounting binfmt_misc")?;
            fs::write(mounted_by_us(), "")?;
        }
        let qemu = setup::qemu::user_aarch64(&layout::cache()?);
        fs::write(register, format!(":{NAME}:M::{MAGIC}:{MASK}:{}:{FLAGS}", qemu.display()))
            .context("registering QEMU for arm64 programs")?;
        Ok(Self { ours: true })
    }

    /// Leaves the registration in place.
    pub fn keep(mut self) {
        self.ours = false;
    }
}

impl Drop for Arm64 {
    fn drop(&mut self) {
        // A cluster that came up meanwhile needs it too, and removes it when it goes down.
        if self.ours && super::State::read().is_none() {
            let _ = remove();
        }
    }
}

fn entry() -> PathBuf {
    Path::new(DIR).join(NAME)
}

/// Outside the cluster's folder: images are built without a cluster too.
fn mounted_by_us() -> &'static Path {
    Path::new("/run/edgeyard-lab.binfmt")
}

/// Undoes the registration, and the mount if it was ours.
pub fn remove() -> Result<()> {
    if entry().exists() {
        fs::write(entry(), "-1")?;
    }
    if mounted_by_us().exists() {
        unmount(DIR, UnmountFlags::empty()).context("unmounting binfmt_misc")?;
        fs::remove_file(mounted_by_us())?;
    }
    Ok(())
}

/// What is left.
pub fn leftovers() -> Vec<String> {
    let mut left = Vec::new();
    if entry().exists() {
        left.push(format!("binfmt entry {NAME}"));
    }
    if mounted_by_us().exists() {
        left.push(format!("mount {DIR}"));
    }
    left
}
