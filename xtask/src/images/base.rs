//! The base image: Debian bookworm from the machine's own mirror, in place of `debian:bookworm-slim` from a registry.

use anyhow::{Context, Result};
use fs_err as fs;

use super::buildah;
use crate::layout::short_digest;
use crate::shell::{cmd, quiet, step, succeeds};

/// Returns the name of the base for an architecture, made when it is missing.
///
/// Foreign architectures are unpacked without running anything of theirs (`extract`), which also means: as they come, with the C++
/// runtime in them.
pub fn ensure(arch: &str) -> Result<String> {
    let options: &[&str] = match arch {
        "amd64" => &["--variant=minbase", "--include=libstdc++6"],
        _ => &[
            "--variant=extract",
            "--include=?essential",
            "--include=libstdc++6",
            "--skip=check/chroot,check/qemu",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        ],
    };
    let name = format!("localhost/edgeyard/base-{arch}:{}", short_digest(options));
    if succeeds(buildah(&["inspect", "--type", "image"])?.arg(&name)) {
        return Ok(name);
    }
    step(&format!("base image for {arch} from Debian packages"), || {
        let work = tempfile::tempdir()?;
        let sources = sources()?;
        quiet(
            cmd("mmdebstrap", ["--quiet", &format!("--architectures={arch}")])
                .args(options)
                .arg("bookworm")
                .arg(work.path().join("base.tar"))
                .arg(sources),
        )?;
        fs::write(
            work.path().join("Dockerfile"),
            "FROM scratch\nADD base.tar /\nENV PATH=/usr/sbin:/usr/bin:/sbin:/bin\n",
        )?;
        quiet(buildah(&["build", "--arch", arch, "--tag", &name])?.arg(work.path()))
    })?;
    Ok(name)
}

/// The file that names this machine's Debian mirror.
fn sources() -> Result<std::path::PathBuf> {
    ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"]
        .into_iter()
        .map(std::path::PathBuf::from)
        .find(|path| path.exists())
        .context(
            "neither /etc/apt/sources.list nor /etc/apt/sources.list.d/debian.sources is there: is this Debian 12?",
        )
}
