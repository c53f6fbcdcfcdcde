//! The environment our binaries and tests find their runtimes by; images carry the same names in their `ENV`.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::{cluster, images, layout, setup};

/// Every `EDGEYARD_*` variable, and `PATH` with our binaries and the cluster's tools in front.
pub fn variables() -> Result<Vec<(&'static str, OsString)>> {
    let cache = layout::cache()?;
    let root = layout::root()?;
    let mut path = vec![layout::cargo_target()?.join("release")];
    path.extend([setup::kubernetes::dir(&root, &cache)?, setup::kubernetes::helm_dir(&root, &cache)?]);
    if let Some(old) = env::var_os("PATH") {
        path.extend(env::split_paths(&old));
    }
    Ok(vec![
        ("EDGEYARD_ORT_LIB", setup::runtimes::onnxruntime(&cache, "x86_64").into()),
        ("EDGEYARD_LITERT_LIB", setup::runtimes::litert(&cache, "x86_64").into()),
        ("EDGEYARD_QEMU_ARM", setup::qemu::system_arm(&cache).into()),
        ("EDGEYARD_FIRMWARE_DIR", firmware_dir()?.into()),
        ("EDGEYARD_PYTHON", setup::oracles::python(&root, &cache)?.into()),
        ("EDGEYARD_MNIST_DIR", setup::data::mnist(&cache).into()),
        ("EDGEYARD_CORPUS_DIR", setup::corpus::models(&root, &cache)?.into()),
        ("EDGEYARD_CACHE", cache.into()),
        ("ORT_DISABLE_TELEMETRY", "1".into()),
        ("PATH", env::join_paths(path)?),
    ])
}

/// What tests on the lab's cluster need besides.
pub fn cluster() -> Result<Vec<(&'static str, OsString)>> {
    Ok(vec![
        ("KUBECONFIG", cluster::kubeconfig()?.into()),
        ("EDGEYARD_PROMETHEUS_URL", cluster::prometheus_url().into()),
        ("EDGEYARD_IMAGE_CONTROL_PLANE", images::CONTROL_PLANE.into()),
        ("EDGEYARD_IMAGE_WORKER", images::WORKER.into()),
        ("EDGEYARD_IMAGE_WORKER_ARM64", images::WORKER_ARM64.into()),
    ])
}

/// Where `cargo xtask firmware` leaves `MACHINE.elf`.
pub fn firmware_dir() -> Result<PathBuf> {
    Ok(layout::target()?.join("firmware"))
}
