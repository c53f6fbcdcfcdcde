//! `cargo xtask images`: builds the images of `Dockerfile` with buildah on a base made of Debian packages, and loads them into the
//! running cluster. An image whose inputs are unchanged is not built again.

mod base;
mod context;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::shell::{cmd, need_root, output, quiet, say, step};
use crate::{cluster, layout, setup};

/// Arguments of `images`.
#[derive(clap::Args)]
pub struct Args {
    /// Only prepare `target/images/context`, for a build with docker
    #[arg(long)]
    stage: bool,
}

/// One image that we build.
struct Image {
    name: &'static str,
    stage: &'static str,
    arch: &'static str,
    /// Debian's package of the board emulator, if it is in the image.
    qemu: &'static str,
}

const IMAGES: [Image; 3] = [
    Image { name: CONTROL_PLANE, stage: "control-plane", arch: "amd64", qemu: "" },
    Image { name: WORKER, stage: "worker", arch: "amd64", qemu: "qemu-system-arm" },
    // A tag of its own: from an index of several architectures a node takes its own.
    Image { name: WORKER_ARM64, stage: "worker", arch: "arm64", qemu: "" },
];

/// The images' names in the node.
pub const CONTROL_PLANE: &str = "localhost/edgeyard/control-plane:dev";
/// The same for the worker.
pub const WORKER: &str = "localhost/edgeyard/worker:dev";
/// The same for the arm64 worker.
pub const WORKER_ARM64: &str = "localhost/edgeyard/worker-arm64:dev";

/// Unpacked, in bytes: what the issue asks of each image.
const LIMIT: u64 = 130_000_000;

/// What is known about a built image.
#[derive(Serialize, Deserialize)]
pub struct Built {
    /// Name and tag.
    pub name: String,
    inputs: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Unpacked size.
    pub bytes: u64,
}

/// Runs `cargo xtask images`.
///
/// # Errors
/// The step that failed.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.stage {
        for arch in ["amd64", "arm64"] {
            say(&step(&format!("context for {arch}"), || context::stage(arch))?.display().to_string());
        }
        return Ok(ExitCode::SUCCESS);
    }
    setup::install()?;
    for Built { name, digest, bytes, .. } in build()? {
        say(&format!("{name:<28} {:6.1} MB  {digest}", bytes as f64 / 1e6));
    }
    if cluster::is_up() {
        step("importing into the cluster", import_built)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every image whose inputs changed.
///
/// # Errors
/// As [`run`].
pub fn build() -> Result<Vec<Built>> {
    need_root("building images")?;
    let contexts =
        ["amd64", "arm64"].map(|arch| (arch, step(&format!("programs for {arch}"), || context::stage(arch))));
    let mut built = Vec::new();
    for (arch, context) in contexts {
        let context = context?;
        for image in IMAGES.iter().filter(|image| image.arch == arch) {
            built.push(build_one(image, &context)?);
        }
    }
    Ok(built)
}

fn build_one(image: &Image, context: &Path) -> Result<Built> {
    let Image { name, stage, arch, qemu } = image;
    let dockerfile = layout::root()?.join("Dockerfile");
    let base = base::ensure(arch)?;
    let inputs = context::digest(context, &[&fs::read_to_string(&dockerfile)?, stage, qemu, &base])?;
    if let Some(old) = Built::read(name).filter(|old| old.inputs == inputs && archive(name).is_ok_and(|a| a.exists())) {
        return Ok(old);
    }
    step(name, || {
        let _emulation = if *arch == "arm64" { Some(cluster::Arm64::register()?) } else { None };
        quiet(
            buildah(&["build", "--layers", "--isolation=chroot", "--arch", arch, "--target", stage, "--tag", name])?
                .args(["--build-arg", &format!("BASE={base}"), "--build-arg", &format!("QEMU={qemu}"), "--file"])
                .arg(&dockerfile)
                .arg(context),
        )?;
        let (archive, new) = (archive(name)?, archive(&format!("{name}.new"))?);
        let digests = tempfile::NamedTempFile::new()?;
        quiet(
            buildah(&["push", "--digestfile"])?
                .arg(digests.path())
                .arg(name)
                .arg(format!("oci-archive:{}:{name}", new.display())),
        )?;
        fs::rename(new, archive)?;
        let bytes = unpacked(name)?;
        ensure!(bytes < LIMIT, "{name} has {bytes} bytes unpacked, more than {LIMIT}");
        let built = Built {
            name: (*name).to_owned(),
            inputs,
            digest: fs::read_to_string(digests.path())?.trim().to_owned(),
            bytes,
        };
        built.write()?;
        Ok(built)
    })
}

/// Bytes of the files in an image, counted in the image itself: registries and tools each mean something else by size.
fn unpacked(name: &str) -> Result<u64> {
    let container = output(&mut buildah(&["from", "--pull-never", name])?)?.trim().to_owned();
    let counted = (|| {
        let mount = output(buildah(&["mount"])?.arg(&container))?;
        let listed = output(cmd("du", ["--summarize", "--bytes"]).arg(mount.trim()))?;
        listed.split_whitespace().next().context("du prints a number")?.parse().context("du prints a number")
    })();
    quiet(buildah(&["rm"])?.arg(&container))?;
    counted
}

impl Built {
    fn path(name: &str) -> Result<PathBuf> {
        Ok(archive(name)?.with_extension("json"))
    }

    fn read(name: &str) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(Self::path(name).ok()?).ok()?).ok()
    }

    fn write(&self) -> Result<()> {
        Ok(fs::write(Self::path(&self.name)?, serde_json::to_string(self)?)?)
    }
}

/// Imports the images built last that the cluster does not hold yet; returns their names.
///
/// # Errors
/// What containerd said.
pub fn import_built() -> Result<Vec<String>> {
    let mut imported = Vec::new();
    for image in &IMAGES {
        let Some(built) = Built::read(image.name) else { continue };
        let archive = archive(image.name)?;
        if archive.exists() && cluster::imported_digest(image.name)?.as_ref() != Some(&built.digest) {
            cluster::import(&archive)?;
            imported.push(built.name);
        }
    }
    Ok(imported)
}

fn archive(name: &str) -> Result<PathBuf> {
    let dir = layout::target()?.join("images");
    fs::create_dir_all(&dir)?;
    let file = name.trim_start_matches("localhost/").replace(['/', ':'], "-");
    Ok(dir.join(format!("{file}.tar")))
}

/// buildah with a store of its own in the cache.
///
/// # Errors
/// When there is no cache folder to be had.
pub fn buildah(words: &[&str]) -> Result<Command> {
    let store = layout::cache()?.join("images");
    let mut command = cmd("buildah", ["--storage-driver", "overlay", "--root"]);
    command.arg(store.join("root")).arg("--runroot").arg(store.join("run")).args(words);
    Ok(command)
}

/// Whether an image's archive is there.
#[must_use]
pub fn is_built(name: &str) -> bool {
    Built::read(name).is_some() && archive(name).is_ok_and(|archive| archive.exists())
}
