//! What is known of the machine: who it is, how it is set up, and what disturbs a measurement on it.
//!
//! Everything is read below a root, so that a recorded tree can stand in for a machine. A restricted pod cannot read all
//! of it; what it cannot read is absent.

pub mod cgroup;
pub mod cooling;
pub mod fingerprint;
pub mod monitor;
pub mod settings;
pub mod throttle;
pub mod vcgencmd;

use std::path::{Path, PathBuf};

/// A file system to read from.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self("/".into())
    }
}

impl Root {
    /// A recorded tree.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The path below the root of an absolute path.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.0.join(absolute.trim_start_matches('/'))
    }

    /// A file's text without white space around it; `None` if it cannot be read or is empty.
    pub fn read(&self, absolute: &str) -> Option<String> {
        let text = std::fs::read(self.path(absolute)).ok()?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The names in a folder, sorted.
    pub fn list(&self, absolute: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(absolute))
            .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    /// Whether a file is there.
    pub fn exists(&self, absolute: &str) -> bool {
        Path::exists(&self.path(absolute))
    }
}

/// The architecture of the machine's kernel, if this program was built for another: then a translator runs it, and its
/// times mean nothing. /proc/cpuinfo is faked by user-mode emulation, this file is not.
pub fn emulated_on(root: &Root) -> Option<String> {
    let kernel = root.read("/proc/sys/kernel/arch")?;
    let own = std::env::consts::ARCH;
    let same = kernel == own || (own == "x86" && kernel == "x86_64") || (own == "arm" && kernel.starts_with("arm"));
    (!same).then_some(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kernel_than_ours_is_emulation() {
        let tree = tempfile::tempdir().unwrap();
        let root = Root::new(tree.path());
        assert_eq!(emulated_on(&root), None);
        std::fs::create_dir_all(tree.path().join("proc/sys/kernel")).unwrap();
        std::fs::write(tree.path().join("proc/sys/kernel/arch"), "riscv64\n").unwrap();
        assert_eq!(emulated_on(&root).as_deref(), Some("riscv64"));
        std::fs::write(tree.path().join("proc/sys/kernel/arch"), std::env::consts::ARCH).unwrap();
        assert_eq!(emulated_on(&root), None);
    }
}
