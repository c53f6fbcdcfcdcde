//! Where things are: the checkout, its `target/`, and the cache that outlives both.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The root of the workspace that `cargo xtask` was called in.
///
/// `EDGEYARD_ROOT` names another one (the cluster suite plays a second checkout with it).
pub fn root() -> Result<PathBuf> {
    if let Some(root) = env::var_os("EDGEYARD_ROOT") {
        return Ok(root.into());
    }
    let start = match env::var_os("CARGO_MANIFEST_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => env::current_dir()?,
    };
    start
        .ancestors()
        .find(|dir| dir.join("xtask/Cargo.toml").is_file() && dir.join("Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is in no Edgeyard checkout", start.display()))
}

/// `target/` of the checkout: what the commands leave for the user (cluster, images, test results).
pub fn target() -> Result<PathBuf> {
    Ok(root()?.join("target"))
}

/// Where cargo puts what it builds; `target/` unless `CARGO_TARGET_DIR` says otherwise.
pub fn cargo_target() -> Result<PathBuf> {
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root()?.join(dir),
        None => target()?,
    })
}

/// `$EDGEYARD_CACHE`, or `~/.cache/edgeyard`: everything that setup downloads or builds, by version.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("EDGEYARD_CACHE") {
        return Ok(dir.into());
    }
    let home = env::var_os("HOME").context("neither EDGEYARD_CACHE nor HOME is set")?;
    Ok(PathBuf::from(home).join(".cache/edgeyard"))
}

/// The first 12 hex digits of the SHA-256 of `parts`: names cache entries by what they were made from.
pub fn short_digest<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_do_not_depend_on_where_parts_are_cut() {
        assert_ne!(short_digest(["ab", "c"]), short_digest(["a", "bc"]));
        assert_eq!(short_digest(["ab", "c"]), short_digest(["ab", "c"]));
    }

    #[test]
    fn the_root_is_found_from_the_manifest_of_any_member() {
        assert!(root().unwrap().join("Cargo.lock").is_file());
    }
}
