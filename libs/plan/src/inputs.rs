//! The inputs of an object: what is in the store already, and what a job has to bring there first.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_crds::artifact_source::{ArtifactSource, Origin};
use edgeyard_job::report::ImportedInput;
use edgeyard_job::spec::{ImportFrom, ImportInput};

use crate::{Refusal, reason};

/// Where ConfigMaps and claims are mounted into an import job, each in a folder named after its input.
pub const MOUNT: &str = "/inputs";

/// An input and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedInput {
    /// `source`, `calibration` or `evaluation`; of benchmarks `accuracy` or the model entry's name.
    pub name: String,
    /// The field of the spec that asks for it, for messages.
    pub field: String,
    /// What it is.
    pub media_type: &'static str,
    /// Where it is.
    pub origin: Origin,
}

impl PlannedInput {
    /// Checks a source and gives it a name.
    pub fn new(
        name: impl Into<String>,
        field: impl Into<String>,
        media_type: &'static str,
        source: ArtifactSource,
    ) -> Result<Self, Refusal> {
        let field = field.into();
        let origin = source.validate("").map_err(|invalid| {
            let text = invalid.to_string();
            Refusal::new(reason::INVALID_SPEC, format!("{field}: {}", text.trim_start_matches(": ")))
        })?;
        Ok(Self { name: name.into(), field, media_type, origin })
    }

    /// The digest, if the store is said to have it already.
    pub fn stored(&self) -> Option<&str> {
        match &self.origin {
            Origin::Stored(digest) => Some(&digest.0),
            Origin::Remote { .. } | Origin::ConfigMap { .. } | Origin::Claim { .. } => None,
        }
    }

    /// What an import job has to bring; `None` for what is stored.
    pub fn import(&self) -> Option<ImportInput> {
        let (from, digest) = match &self.origin {
            Origin::Stored(_) => return None,
            Origin::Remote { uri, digest, credentials: _ } => (ImportFrom::Uri(uri.0.clone()), Some(digest)),
            Origin::ConfigMap { key, digest } => {
                (ImportFrom::Path(format!("{MOUNT}/{}/{}", self.name, key.key)), digest.as_ref())
            }
            Origin::Claim { file, digest } => {
                (ImportFrom::Path(format!("{MOUNT}/{}/{}", self.name, file.path)), digest.as_ref())
            }
        };
        Some(ImportInput {
            name: self.name.clone(),
            media_type: self.media_type.to_owned(),
            from,
            digest: digest.map(|digest| digest.0.clone()),
        })
    }
}

/// The one Secret with credentials for an import, if any.
pub fn credentials(inputs: &[PlannedInput]) -> Result<Option<String>, Refusal> {
    let names: BTreeSet<_> = inputs
        .iter()
        .filter_map(|input| match &input.origin {
            Origin::Remote { credentials, .. } => credentials.as_ref().map(|secret| secret.name.0.as_str()),
            _ => None,
        })
        .collect();
    if names.len() > 1 {
        let names: Vec<_> = names.into_iter().collect();
        return Err(Refusal::new(
            reason::INVALID_SPEC,
            format!(
                "inputs use different secretRefs ({}): one job imports them all, so put the credentials into one Secret",
                names.join(", ")
            ),
        ));
    }
    Ok(names.first().map(|name| (*name).to_owned()))
}

/// Checks an import's report against what was asked for, and gives the digest and size of each input.
pub fn imported(inputs: &[PlannedInput], found: &[ImportedInput]) -> Result<BTreeMap<String, ImportedInput>, Refusal> {
    let mut by_name = BTreeMap::new();
    for asked in inputs.iter().filter_map(PlannedInput::import) {
        let got = found.iter().find(|got| got.name == asked.name).ok_or_else(|| {
            Refusal::new(reason::RESULT_MISMATCH, format!("the import's report does not have {}", asked.name))
        })?;
        if asked.digest.as_ref().is_some_and(|digest| *digest != got.digest) {
            return Err(Refusal::new(
                reason::RESULT_MISMATCH,
                format!("the import's report says {} for {}, not the digest asked for", got.digest, asked.name),
            ));
        }
        by_name.insert(asked.name, got.clone());
    }
    Ok(by_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, yaml: &str) -> Result<PlannedInput, Refusal> {
        let source: ArtifactSource = serde_yaml::from_str(yaml).unwrap();
        PlannedInput::new(name, format!("spec.{name}"), "application/vnd.onnx", source)
    }

    #[test]
    fn files_are_found_under_the_mount() {
        let key = input("source", "configMapKeyRef: {name: mnist, key: a.onnx}").unwrap();
        assert_eq!(key.import().unwrap().from, ImportFrom::Path("/inputs/source/a.onnx".into()));
        let file = input("evaluation", "persistentVolumeClaim: {claimName: data, path: x/y.npz}").unwrap();
        assert_eq!(file.import().unwrap().from, ImportFrom::Path("/inputs/evaluation/x/y.npz".into()));
    }

    #[test]
    fn a_refusal_names_the_field() {
        let refusal = input("source", "uri: https://models.example/a.onnx").unwrap_err();
        assert_eq!(refusal.message, "spec.source: digest is required");
    }

    #[test]
    fn two_secrets_are_refused() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let with = |name: &str, secret: &str| {
            input(name, &format!("{{uri: 's3://b/k', digest: '{digest}', secretRef: {{name: {secret}}}}}")).unwrap()
        };
        assert_eq!(credentials(&[with("a", "s"), with("b", "s")]).unwrap().as_deref(), Some("s"));
        assert!(credentials(&[with("a", "s"), with("b", "t")]).unwrap_err().message.contains("(s, t)"));
    }
}
