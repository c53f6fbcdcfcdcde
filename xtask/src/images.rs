//! `cargo xtask images`: builds the images of `Dockerfile` with buildah on a base made of Debian packages, and loads them into the
//! running cluster. An image whose inputs are unchanged is not built again.

mod base;
mod context;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::shell::{cmd, need_root, output, quiet, say, step};
use crate::{cluster, layout, setup};

/// Arguments of `images`.
#[derive(clap::Args)]
pub struct Args {
    /// Only prepare the folders below `target/images/context`, for a build with docker
    #[arg(long)]
    stage: bool,
    /// Only this image: control-plane, worker, worker-arm64 or compiler; may be given several times
    #[arg(long, value_name = "IMAGE")]
    only: Vec<String>,
}

/// One image that we build.
pub struct Image {
    /// Its name but for registry and tag.
    short: &'static str,
    /// Name of its context's folder. The compiler has the worker's, since buildah and docker know layers again by their files.
    context: &'static str,
    /// Its name in the node.
    name: &'static str,
    /// The stage of the Dockerfile.
    stage: &'static str,
    arch: &'static str,
    programs: &'static [&'static str],
    /// Debian's package of the board emulator, if it is in the image; with it comes the firmware.
    qemu: &'static str,
    /// Unpacked, in bytes: what we promise of it.
    limit: u64,
}

/// The images' names in the node.
pub const CONTROL_PLANE: &str = "localhost/edgeyard/control-plane:dev";
/// The same for the worker.
pub const WORKER: &str = "localhost/edgeyard/worker:dev";
/// The same for the arm64 worker: a tag of its own, since from an index of several architectures a node takes its own.
pub const WORKER_ARM64: &str = "localhost/edgeyard/worker-arm64:dev";
/// The worker with vendors' compilers on top: Jobs whose target names one run in it, and no device needs it.
const COMPILER: &str = "localhost/edgeyard/compiler:dev";

const IMAGES: [Image; 4] = [
    Image {
        short: "control-plane",
        context: "control-plane",
        name: CONTROL_PLANE,
        stage: "control-plane",
        arch: "amd64",
        programs: &["edgeyard-operator", "edgeyard-store", "kubectl-edgeyard"],
        qemu: "",
        limit: 130_000_000,
    },
    Image {
        short: "worker",
        context: "worker",
        name: WORKER,
        stage: "worker",
        arch: "amd64",
        programs: WORKER_PROGRAMS,
        qemu: QEMU,
        limit: 130_000_000,
    },
    Image {
        short: "worker-arm64",
        context: "worker-arm64",
        name: WORKER_ARM64,
        stage: "worker",
        arch: "arm64",
        programs: &["edgeyard-device-runner"],
        qemu: "",
        limit: 130_000_000,
    },
    Image {
        short: "compiler",
        context: "worker",
        name: COMPILER,
        stage: "compiler",
        arch: "amd64",
        programs: WORKER_PROGRAMS,
        qemu: QEMU,
        limit: 185_000_000,
    },
];

const WORKER_PROGRAMS: &[&str] = &["edgeyard-optimizer", "edgeyard-device-runner"];
const QEMU: &str = "qemu-system-arm";

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
    if let Some(unknown) = args.only.iter().find(|name| IMAGES.iter().all(|image| image.short != **name)) {
        bail!("there is no image {unknown}; there are {}", IMAGES.map(|image| image.short).join(", "));
    }
    setup::install()?;
    for image in IMAGES.iter().filter(|image| args.only.is_empty() || args.only.iter().any(|name| name == image.short))
    {
        if args.stage {
            say(&context::stage(image)?.display().to_string());
        } else {
            let Built { name, digest, bytes, inputs: _ } = build_one(image)?;
            say(&format!("{name:<38} {:6.1} MB unpacked, {digest}", bytes as f64 / 1e6));
        }
    }
    if !args.stage && cluster::is_up() {
        step("importing into the cluster", import_built)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every image whose inputs changed.
///
/// # Errors
/// As [`run`].
pub fn build() -> Result<Vec<Built>> {
    IMAGES.iter().map(build_one).collect()
}

fn build_one(image: &Image) -> Result<Built> {
    need_root("building images")?;
    let Image { short, context: _, name, stage, arch, programs: _, qemu, limit } = image;
    let context = step(&format!("programs of {short}"), || context::stage(image))?;
    let dockerfile = layout::root()?.join("Dockerfile");
    let base = base::ensure(arch)?;
    let inputs = context::digest(&context, &[&fs::read_to_string(&dockerfile)?, stage, qemu, &base])?;
    if let Some(old) = Built::read(name).filter(|old| old.inputs == inputs && is_built(name)) {
        return Ok(old);
    }
    step(&format!("image {short}"), || {
        let _emulation = if *arch == "arm64" { Some(cluster::Arm64::register()?) } else { None };
        quiet(
            buildah(&["build", "--layers", "--isolation=chroot", "--arch", arch, "--target", stage, "--tag", name])?
                .args(["--build-arg", &format!("BASE={base}"), "--build-arg", &format!("QEMU={qemu}"), "--file"])
                .arg(&dockerfile)
                .arg(&context),
        )?;
        let bytes = unpacked(name, arch)?;
        ensure!(bytes < *limit, "{name} has {bytes} bytes unpacked, more than {limit}");
        let (archive, new) = (archive(name)?, archive(&format!("{name}.new"))?);
        let digests = tempfile::NamedTempFile::new()?;
        quiet(
            buildah(&["push", "--digestfile"])?
                .arg(digests.path())
                .arg(name)
                .arg(format!("oci-archive:{}:{name}", new.display())),
        )?;
        fs::rename(new, archive)?;
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
fn unpacked(name: &str, arch: &str) -> Result<u64> {
    let container = output(&mut buildah(&["from", "--pull-never", "--arch", arch, name])?)?.trim().to_owned();
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
