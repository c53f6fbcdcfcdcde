//! Files of this machine that stand for what a cluster has: blobs in the store, keys of ConfigMaps, claims.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use edgeyard_artifact::{Digest, Hasher};
use edgeyard_crds::artifact_source::Origin;
use edgeyard_plan::inputs::PlannedInput;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

/// What manifests may refer to.
pub(super) struct Files {
    blobs: BTreeMap<Digest, PathBuf>,
    keys: BTreeMap<(String, String), PathBuf>,
    claims: BTreeMap<String, PathBuf>,
    /// Holds the keys of ConfigMaps that are manifests themselves.
    _written: tempfile::TempDir,
}

impl Files {
    pub(super) fn new(blobs: &[PathBuf], keys: &[String], claims: &[String], maps: &[ConfigMap]) -> Result<Self> {
        let written = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut found =
            Self { blobs: BTreeMap::new(), keys: BTreeMap::new(), claims: BTreeMap::new(), _written: written };
        for map in maps {
            found.write_keys(map)?;
        }
        for path in blobs {
            let mut hasher = Hasher::new();
            let mut file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            std::io::copy(&mut file, &mut hasher).with_context(|| format!("cannot read {}", path.display()))?;
            found.blobs.insert(hasher.finish(), path.clone());
        }
        for text in keys {
            let parts = text.split_once('=').and_then(|(key, file)| Some((key.split_once('/')?, file)));
            let ((name, key), file) = parts.with_context(|| format!("--config-map {text:?} is not NAME/KEY=FILE"))?;
            found.keys.insert((name.to_owned(), key.to_owned()), existing(file, "--config-map")?);
        }
        for text in claims {
            let (name, folder) = text.split_once('=').with_context(|| format!("--claim {text:?} is not NAME=DIR"))?;
            found.claims.insert(name.to_owned(), existing(folder, "--claim")?);
        }
        Ok(found)
    }

    fn write_keys(&mut self, map: &ConfigMap) -> Result<()> {
        let texts = map.data.iter().flatten().map(|(key, text)| (key, text.as_bytes()));
        let binaries = map.binary_data.iter().flatten().map(|(key, bytes)| (key, bytes.0.as_slice()));
        for (key, bytes) in texts.chain(binaries) {
            let file = self._written.path().join(self.keys.len().to_string());
            std::fs::write(&file, bytes).context("cannot write a temporary file")?;
            self.keys.insert((map.name_any(), key.clone()), file);
        }
        Ok(())
    }

    /// The file that an input of a manifest stands for; `None` for what has to be fetched.
    pub(super) fn of(&self, input: &PlannedInput) -> Result<Option<PathBuf>> {
        let field = &input.field;
        match &input.origin {
            Origin::Stored(digest) => {
                let parsed: Digest = digest.0.parse().with_context(|| field.clone())?;
                let known = || self.blobs.keys().map(Digest::to_string).collect::<Vec<_>>().join(", ");
                let file = self.blobs.get(&parsed).with_context(|| {
                    format!(
                        "{field}: no file has the digest {digest}; give it by --blob FILE (those given have: {})",
                        known()
                    )
                })?;
                Ok(Some(file.clone()))
            }
            Origin::ConfigMap { key, digest: _ } => {
                let file = self.keys.get(&(key.name.0.clone(), key.key.clone())).with_context(|| {
                    format!("{field}: give the key's file by --config-map {}/{}=FILE", key.name.0, key.key)
                })?;
                Ok(Some(file.clone()))
            }
            Origin::Claim { file, digest: _ } => {
                let folder = self.claims.get(&file.claim_name.0).with_context(|| {
                    format!("{field}: give the claim's folder by --claim {}=DIR", file.claim_name.0)
                })?;
                if file.path.split('/').any(|part| part == "..") || Path::new(&file.path).is_absolute() {
                    bail!("{field}: path {:?} must be relative and must not contain ..", file.path);
                }
                Ok(Some(existing(&folder.join(&file.path).to_string_lossy(), field)?))
            }
            Origin::Remote { .. } => Ok(None),
        }
    }
}

/// The path made absolute: jobs run elsewhere.
fn existing(path: &str, what: &str) -> Result<PathBuf> {
    ensure!(!path.is_empty(), "{what}: the path is empty");
    std::fs::canonicalize(path).with_context(|| format!("{what}: cannot find {path}"))
}

#[cfg(test)]
mod tests {
    use edgeyard_artifact::digest_of;

    use super::*;

    fn input(yaml: &str) -> PlannedInput {
        PlannedInput::new("source", "spec.source.artifact", "application/vnd.onnx", serde_yaml::from_str(yaml).unwrap())
            .unwrap()
    }

    #[test]
    fn inputs_become_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().canonicalize().unwrap().join("a.onnx");
        std::fs::write(&file, "model").unwrap();
        let map: ConfigMap = serde_yaml::from_str("metadata: {name: written}\nbinaryData: {k: bW9kZWw=}").unwrap();
        let text = |prefix: &str| format!("{prefix}={}", file.display());
        let claim = format!("data={}", folder.path().display());
        let files = Files::new(std::slice::from_ref(&file), &[text("mnist/a")], &[claim], &[map]).unwrap();
        let digest = digest_of("model");
        for yaml in [
            format!("digest: '{digest}'"),
            "configMapKeyRef: {name: mnist, key: a}".to_owned(),
            "persistentVolumeClaim: {claimName: data, path: a.onnx}".to_owned(),
        ] {
            assert_eq!(files.of(&input(&yaml)).unwrap(), Some(file.clone()), "{yaml}");
        }
        let written = files.of(&input("configMapKeyRef: {name: written, key: k}")).unwrap().unwrap();
        assert_eq!(std::fs::read(written).unwrap(), b"model");
        assert_eq!(files.of(&input(&format!("uri: 'https://m.example/a'\ndigest: '{digest}'"))).unwrap(), None);
        let missing = |yaml: &str| format!("{:#}", files.of(&input(yaml)).unwrap_err());
        assert!(missing(&format!("digest: '{}'", digest_of("x"))).contains("--blob FILE"));
        assert!(missing("configMapKeyRef: {name: mnist, key: b}").contains("--config-map mnist/b=FILE"));
        assert!(missing("persistentVolumeClaim: {claimName: d, path: a}").contains("--claim d=DIR"));
    }
}
