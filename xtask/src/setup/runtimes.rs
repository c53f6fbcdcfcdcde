//! `libonnxruntime.so` and `libLiteRt.so` for x86_64 and aarch64, taken out of the vendors' Python wheels; and Vela, whole, for the
//! compiler's image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::{cached, oracles};
use crate::layout::short_digest;
use crate::shell::{cmd, quiet};

/// 1.28.0 is the last without telemetry.
const ONNXRUNTIME: &str = "1.28.0";
const LITERT: &str = "2.1.6";
/// Machine and the newest glibc that a wheel may ask for: Debian 12 has 2.36.
const MACHINES: [&str; 2] = ["x86_64", "aarch64"];
const GLIBC: [u32; 4] = [17, 27, 28, 34];

/// `libonnxruntime.so` for a machine.
pub fn onnxruntime(cache: &Path, machine: &str) -> PathBuf {
    cache.join(format!("onnxruntime-{ONNXRUNTIME}")).join(machine).join("libonnxruntime.so")
}

/// `libLiteRt.so` for a machine.
pub fn litert(cache: &Path, machine: &str) -> PathBuf {
    cache.join(format!("litert-{LITERT}")).join(machine).join("libLiteRt.so")
}

/// Vela and the one package besides numpy that it needs, in the versions against which the tests run (`xtask/oracles.txt`).
const VELA: [&str; 2] = ["ethos-u-vela", "flatbuffers"];

/// A folder for Python's path that has Vela, for x86_64 and Debian 12's Python.
///
/// # Errors
/// When the list of packages cannot be read.
pub fn vela(root: &Path, cache: &Path) -> Result<PathBuf> {
    Ok(cache.join(format!("vela-{}", short_digest(pins(root)?))))
}

fn pins(root: &Path) -> Result<Vec<String>> {
    let list = fs::read_to_string(oracles::list(root))?;
    let pin = |package: &str| {
        let found = list.lines().find(|line| line.strip_prefix(package).is_some_and(|rest| rest.starts_with("==")));
        found.map(str::to_owned).with_context(|| format!("xtask/oracles.txt has no {package}"))
    };
    VELA.into_iter().map(pin).collect()
}

/// Downloads and unpacks them all.
///
/// # Errors
/// When a wheel cannot be had or does not hold the library.
pub fn install(root: &Path, cache: &Path) -> Result<()> {
    let python = oracles::python(root, cache)?;
    let wheels = [
        ("onnxruntime", ONNXRUNTIME, "onnxruntime", "onnxruntime/capi", "libonnxruntime.so"),
        ("litert", LITERT, "ai-edge-litert", "ai_edge_litert", "libLiteRt.so"),
    ];
    for (name, version, package, folder, library) in wheels {
        cached(
            cache,
            &format!("{name}-{version}"),
            &format!("{library} {version} for {}", MACHINES.join(" and ")),
            |dir| {
                for machine in MACHINES {
                    let work = tempfile::tempdir_in(dir)?;
                    let wheel = download(&python, &format!("{package}=={version}"), machine, work.path())?;
                    let tree = work.path().join("tree");
                    quiet(cmd(&python.to_string_lossy(), ["-m", "zipfile", "-e"]).arg(wheel).arg(&tree))?;
                    fs::create_dir(dir.join(machine))?;
                    // The wheel of ONNX Runtime carries its version in the file name.
                    let found = find(&tree.join(folder), library)?;
                    fs::rename(found, dir.join(machine).join(library))?;
                }
                Ok(())
            },
        )?;
    }
    let (pins, folder) = (pins(root)?, vela(root, cache)?);
    let name = folder.file_name().context("a folder with a name")?.to_string_lossy();
    cached(cache, &name, "Vela for the compiler's image", |dir| {
        for pin in &pins {
            let work = tempfile::tempdir_in(dir)?;
            let wheel = download(&python, pin, "x86_64", work.path())?;
            quiet(cmd(&python.to_string_lossy(), ["-m", "zipfile", "-e"]).arg(wheel).arg(dir))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn download(python: &Path, requirement: &str, machine: &str, dir: &Path) -> Result<PathBuf> {
    let mut pip = cmd(
        &python.to_string_lossy(),
        ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version=3.11", "--implementation=cp"],
    );
    pip.args(GLIBC.iter().map(|minor| format!("--platform=manylinux_2_{minor}_{machine}")));
    pip.arg(format!("--platform=manylinux2014_{machine}")).arg("--dest").arg(dir).arg(requirement);
    quiet(&mut pip)?;
    find(dir, "")
}

/// The one file of a folder whose name starts with `prefix`.
fn find(dir: &Path, prefix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)) {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "{} holds {} files called {prefix}*, expected one", dir.display(), found.len());
    found.pop().context("one file")
}
