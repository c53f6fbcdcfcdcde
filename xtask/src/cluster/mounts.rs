//! The mounts below [`RUN`](super::RUN): found in the kernel's list, undone in reverse.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fs_err as fs;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

/// Binds `from` to `to`. What is mounted below `to` later does not show below `from`.
pub fn bind(from: &Path, to: &Path) -> Result<()> {
    mount_bind(from, to).with_context(|| format!("binding {} to {}", from.display(), to.display()))?;
    // Private cuts it off from its source; shared again, so that pods may ask for propagation.
    for flags in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
        mount_change(to, flags).with_context(|| format!("propagation of {}", to.display()))?;
    }
    Ok(())
}

/// Mount points at or below `top`, in the order they were made.
pub fn below(top: &Path) -> Result<Vec<PathBuf>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?, top))
}

/// Undoes every mount at or below `top`, also busy ones.
pub fn undo(top: &Path) -> Result<()> {
    // A mount may hide others at the same place: until none is left.
    for _ in 0..20 {
        let mounts = below(top)?;
        if mounts.is_empty() {
            return Ok(());
        }
        for point in mounts.iter().rev() {
            // One that went with its parent is gone; what stays shows in the next round.
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
    anyhow::bail!("still mounted: {:?}", below(top)?)
}

fn parse(mountinfo: &str, top: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    points.filter(|point| point.starts_with(top)).collect()
}

/// The kernel writes blanks as `\040`.
fn unescape(word: &str) -> PathBuf {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(word.to_owned(), |word, (code, plain)| word.replace(code, plain))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folder_are_taken() {
        let info = "1 0 0:1 / /run/lab rw - tmpfs t rw\n2 1 0:2 / /run/lab/a\\040b rw - overlay o rw\n3 0 0:3 / /run/laboratory rw - x x rw\n";
        assert_eq!(parse(info, Path::new("/run/lab")), [PathBuf::from("/run/lab"), PathBuf::from("/run/lab/a b")]);
    }
}
