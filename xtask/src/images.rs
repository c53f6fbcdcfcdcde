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
    /// Only prepare `target/images/context/IMAGE`, for a build with docker
    #[arg(long)]
    stage: bool,
    /// Only this image: control-plane, worker or worker-arm64; may be given several times
    #[arg(long, value_name = "IMAGE")]
    only: Vec<String>,
}

/// One image that we build.
pub struct Image {
    /// Name of its context's folder, and of the image but for its tag.
    short: &'static str,
    /// Its name in the node.
    name: &'static str,
    /// The stage of the Dockerfile.
    stage: &'static str,
    arch: &'static str,
    programs: &'static [&'static str],
    /// Debian's package of the board emulator, if it is in the image; with it comes the firmware.
    qemu: &'static str,
}

/// The images' names in the node.
pub const CONTROL_PLANE: &str = "localhost/edgeyard/control-plane:dev";
/// The same for the worker.
pub const WORKER: &str = "localhost/edgeyard/worker:dev";
/// The same for the arm64 worker: a tag of its own, since from an index of several architectures a node takes its own.
pub const WORKER_ARM64: &str = "localhost/edgeyard/worker-arm64:dev";

const IMAGES: [Image; 3] = [
    Image {
        short: "control-plane",
        name: CONTROL_PLANE,
        stage: "control-plane",
        arch: "amd64",
        programs: &["edgeyard-operator", "edgeyard-store", "kubectl-edgeyard"],
        qemu: "",
    },
    Image {
        short: "worker",
        name: WORKER,
        stage: "worker",
        arch: "amd64",
        programs: &["edgeyard-optimizer", "edgeyard-device-runner"],
        qemu: "qemu-system-arm",
    },
    Image {
        short: "worker-arm64",
        name: WORKER_ARM64,
        stage: "worker",
        arch: "arm64",
        programs: &["edgeyard-device-runner"],
        qemu: "",
    },
];

/// Unpacked, in bytes: what we promise of each image.
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
    let Image { short, name, stage, arch, programs: _, qemu } = image;
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
        ensure!(bytes < LIMIT, "{name} has {bytes} bytes unpacked, more than {LIMIT}");
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
