//! The build context of one image: programs, runtimes and firmware, staged below `target/images/context`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use sha2::{Digest, Sha256};

use super::Image;
use crate::setup::runtimes;
use crate::{binaries, environment, firmware, layout};

/// Stages the context of an image and returns its folder.
///
/// Files are copied only when they differ, so that buildah's own cache holds.
pub fn stage(image: &Image) -> Result<PathBuf> {
    let Image { short: _, context, name: _, stage: _, arch, programs, qemu, limit: _ } = image;
    let (root, cache) = (layout::root()?, layout::cache()?);
    let dir = layout::target()?.join("images/context").join(context);
    let (machine, triple) = if *arch == "amd64" { ("x86_64", None) } else { ("aarch64", Some(binaries::ARM64)) };
    let built = binaries::build(programs, triple)?;
    let mut wanted = vec![(root.join("hardware-lab/cluster/closure.sh"), PathBuf::from("closure.sh"))];
    let kind = if *context == "control-plane" { "control-plane" } else { "worker" };
    wanted.extend(programs.iter().map(|name| (built.join(name), Path::new("bin").join(kind).join(name))));
    if kind == "worker" {
        wanted.push((runtimes::onnxruntime(&cache, machine), "lib/libonnxruntime.so".into()));
        wanted.push((runtimes::litert(&cache, machine), "lib/libLiteRt.so".into()));
    }
    if !qemu.is_empty() {
        firmware::build()?;
        for entry in fs::read_dir(environment::firmware_dir()?)? {
            let path = entry?.path();
            // The plugin is built for the host that QEMU runs on here; on another, counts stay unconfirmed, which a record says.
            let fits = |extension: &std::ffi::OsStr| extension == "elf" || extension == "so" && *arch == "amd64";
            if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(fits)) {
                wanted.push((path.clone(), Path::new("firmware").join(name)));
            }
        }
    }
    if *arch == "amd64" && kind == "worker" {
        let vela = runtimes::vela(&root, &cache)?;
        for path in files(&vela)? {
            let to = Path::new("vela").join(path.strip_prefix(&vela)?);
            wanted.push((path, to));
        }
    }
    // The Dockerfile copies all of them, into every stage before the wanted one too.
    for folder in ["bin/control-plane", "bin/worker", "lib", "firmware", "vela"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    for stale in files(&dir)?.iter().filter(|file| !wanted.iter().any(|(_, to)| dir.join(to) == **file)) {
        fs::remove_file(stale)?;
    }
    for (from, to) in &wanted {
        let to = dir.join(to);
        let new = fs::read(from)?;
        if fs::read(&to).ok().as_ref() != Some(&new) {
            fs::create_dir_all(to.parent().unwrap_or(&dir))?;
            fs::copy(from, &to)?;
        }
    }
    Ok(dir)
}

/// Digest of every file's path, mode bit and content, and of `more`.
pub fn digest(dir: &Path, more: &[&str]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files(dir)? {
        hash.update(file.strip_prefix(dir)?.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(Sha256::digest(fs::read(&file)?));
    }
    for text in more {
        hash.update(Sha256::digest(text));
    }
    Ok(hex::encode(hash.finalize()))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { todo.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    Ok(found)
}
