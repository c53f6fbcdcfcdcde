//! The node's own images, and importing archives into its containerd.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use fs_err as fs;
use fs_err::os::unix::fs::symlink;

use super::config::{COREDNS_IMAGE, TOOLS_IMAGE, containerd_socket};
use crate::images::buildah;
use crate::layout::short_digest;
use crate::setup::{self, debian, kubernetes};
use crate::shell::{cmd, output, quiet};

/// Archives of the sandbox image (busybox, static) and of CoreDNS, made once for each version.
pub fn node_images(root: &Path, cache: &Path) -> Result<[PathBuf; 2]> {
    let tools = setup::cached(
        cache,
        &format!("lab-tools-{}", short_digest([TOOLS, TOOLS_IMAGE])),
        "image of the pods' sandbox",
        |dir| {
            let work = tempfile::tempdir_in(dir)?;
            debian::unpack(&["busybox-static"], None, &work.path().join("root"))?;
            let bin = work.path().join("root/bin");
            for tool in output(&mut cmd(&bin.join("busybox").to_string_lossy(), ["--list"]))?
                .lines()
                .filter(|t| *t != "busybox")
            {
                symlink("busybox", bin.join(tool))?;
            }
            archive(TOOLS, &work.path().join("root"), TOOLS_IMAGE, &dir.join("image.tar"))
        },
    )?;
    let program = kubernetes::coredns_dir(root, cache)?;
    let version = program.file_name().context("a folder with a name")?.to_string_lossy().into_owned();
    let coredns = setup::cached(
        cache,
        &format!("lab-{version}-{}", short_digest([COREDNS, COREDNS_IMAGE])),
        "image of CoreDNS",
        |dir| archive(COREDNS, &program, COREDNS_IMAGE, &dir.join("image.tar")),
    )?;
    Ok([tools.join("image.tar"), coredns.join("image.tar")])
}

const TOOLS: &str = "FROM scratch\nCOPY bin/ /bin/\nENV PATH=/bin\nCMD [\"/bin/sleep\", \"infinity\"]\n";
const COREDNS: &str = "FROM scratch\nCOPY coredns /coredns\nENTRYPOINT [\"/coredns\"]\n";

fn archive(dockerfile: &str, context: &Path, name: &str, out: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let file = work.path().join("Dockerfile");
    fs::write(&file, dockerfile)?;
    quiet(buildah(&["build", "--tag", name, "--file"])?.arg(&file).arg(context))?;
    quiet(buildah(&["push", name])?.arg(format!("oci-archive:{}:{name}", out.display())))
}

/// Imports an archive as it is, whatever architecture it is for.
///
/// # Errors
/// What containerd said.
pub fn import(archive: &Path) -> Result<()> {
    quiet(ctr(&["images", "import", "--all-platforms"]).arg(archive))
}

/// The digest under which the node knows an image.
///
/// # Errors
/// When containerd does not answer.
pub fn imported_digest(name: &str) -> Result<Option<String>> {
    let listed = output(&mut ctr(&["images", "list", &format!("name=={name}")]))?;
    Ok(listed.lines().skip(1).find_map(|line| line.split_whitespace().nth(2).map(str::to_owned)))
}

fn ctr(words: &[&str]) -> Command {
    let mut command = cmd("ctr", ["--address"]);
    command.arg(containerd_socket()).args(["--namespace", "k8s.io"]).args(words);
    command
}

/// Whether containerd answers.
pub fn is_ready() -> Result<()> {
    output(&mut ctr(&["version"])).map(drop)
}
