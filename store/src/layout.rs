//! The OCI image layout on disk, and how it carries what belongs to whom.
//!
//! `index.json` lists up to 256 nested image indexes (shards), each a blob by digest; a shard lists descriptors whose
//! annotations say what each is: a namespace's blob, a result, a pin or a device's fencing token. An entry lives in the
//! shard that the sha256 of its key begins with. So one change rewrites one shard and the short `index.json`, instead of
//! a file that grows with everything ever stored, and the swap of `index.json` makes any number of changes visible at once.
//!
//! Order of writes: blob, shard, `index.json`, SQLite, answer. Whatever a crash cuts off, `index.json` names only what is
//! whole, and SQLite notices by the digest of `index.json` that it has to be rebuilt.

use std::collections::BTreeMap;

use edgeyard_artifact::{Digest, digest_of};
use serde::{Deserialize, Serialize};

/// The name of the root.
pub const INDEX: &str = "index.json";
/// The file that marks the folder as an OCI image layout.
pub const OCI_LAYOUT: &str = "oci-layout";
/// Its content.
pub const OCI_LAYOUT_CONTENT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// OCI's empty document: what entries without bytes of their own point to.
pub const EMPTY: &[u8] = b"{}";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const KIND: &str = "dev.edgeyard.kind";
const NAMESPACE: &str = "dev.edgeyard.namespace";
const CREATED: &str = "dev.edgeyard.created";
const UID: &str = "dev.edgeyard.uid";
const ATTEMPT: &str = "dev.edgeyard.attempt";
const NAME: &str = "dev.edgeyard.name";
const OWNER: &str = "dev.edgeyard.owner";
const DIGESTS: &str = "dev.edgeyard.digests";
const DEVICE: &str = "dev.edgeyard.device";
const TOKEN: &str = "dev.edgeyard.fencing-token";
const SHARD: &str = "dev.edgeyard.shard";

/// An OCI image index: `index.json` and each shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    schema_version: u32,
    media_type: String,
    /// What it lists.
    pub manifests: Vec<OciDescriptor>,
}

/// An OCI content descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciDescriptor {
    media_type: String,
    /// Of the content.
    pub digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// One fact that the layout keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A blob belongs to a namespace.
    Blob {
        /// Whose it is.
        namespace: String,
        /// Its digest.
        digest: Digest,
        /// Its length.
        size: u64,
        /// Its media type.
        media_type: String,
        /// When it came, in milliseconds since 1970.
        created_at: i64,
    },
    /// A result, whose body is a blob of the same namespace.
    Result {
        /// Whose it is.
        namespace: String,
        /// Whose work it is.
        uid: String,
        /// Which attempt's.
        attempt: u32,
        /// The body's `metadata.name`.
        name: String,
        /// The body's digest.
        digest: Digest,
        /// The body's length.
        size: u64,
        /// The body's media type.
        media_type: String,
        /// When it came, in milliseconds since 1970.
        created_at: i64,
    },
    /// Blobs that an owner wants kept.
    Pin {
        /// Whose blobs.
        namespace: String,
        /// Who wants them.
        owner: String,
        /// Which.
        digests: Vec<Digest>,
    },
    /// The highest fencing token seen of a device.
    Fence {
        /// `namespace/name`.
        device: String,
        /// The token.
        token: i64,
    },
}

/// Why a layout cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not JSON of an image index.
    #[error("{name} is not an OCI image index")]
    Malformed {
        /// Which file.
        name: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A descriptor that this program did not write.
    #[error("an entry of the layout lacks a usable annotation {annotation} ({descriptor})")]
    Annotation {
        /// Which annotation.
        annotation: &'static str,
        /// The entry's digest.
        descriptor: Digest,
    },
    /// A kind of entry that this program does not know.
    #[error("the layout has an entry of kind {0:?}: it was written by a newer store")]
    Kind(String),
}

impl ImageIndex {
    /// An index of these descriptors.
    pub fn new(manifests: Vec<OciDescriptor>) -> Self {
        Self { schema_version: 2, media_type: INDEX_TYPE.to_owned(), manifests }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index holds only text and numbers")
    }

    /// Reads an index; `name` is for the error.
    ///
    /// # Errors
    /// [`LayoutError::Malformed`].
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, LayoutError> {
        serde_json::from_slice(bytes).map_err(|source| LayoutError::Malformed { name: name.to_owned(), source })
    }
}

impl OciDescriptor {
    /// Points `index.json` to a shard.
    pub fn of_shard(shard: u8, digest: Digest, size: u64) -> Self {
        let annotations = BTreeMap::from([(SHARD.to_owned(), format!("{shard:02x}"))]);
        Self { media_type: INDEX_TYPE.to_owned(), digest, size, annotations }
    }

    /// The number of the shard that `index.json` points to.
    ///
    /// # Errors
    /// [`LayoutError::Annotation`].
    pub fn shard(&self) -> Result<u8, LayoutError> {
        u8::from_str_radix(self.text(SHARD)?, 16).map_err(|_| self.lacks(SHARD))
    }

    fn text(&self, annotation: &'static str) -> Result<&str, LayoutError> {
        self.annotations.get(annotation).map(String::as_str).ok_or_else(|| self.lacks(annotation))
    }

    fn parsed<T: std::str::FromStr>(&self, annotation: &'static str) -> Result<T, LayoutError> {
        self.text(annotation)?.parse().map_err(|_| self.lacks(annotation))
    }

    fn lacks(&self, annotation: &'static str) -> LayoutError {
        LayoutError::Annotation { annotation, descriptor: self.digest }
    }
}

impl Entry {
    /// What identifies it among all entries. No part can contain the separator: names are checked when they come in.
    pub fn key(&self) -> String {
        match self {
            Self::Blob { namespace, digest, .. } => format!("blob\n{namespace}\n{digest}"),
            Self::Result { namespace, uid, attempt, .. } => format!("result\n{namespace}\n{uid}\n{attempt}"),
            Self::Pin { namespace, owner, .. } => format!("pin\n{namespace}\n{owner}"),
            Self::Fence { device, .. } => format!("fence\n{device}"),
        }
    }

    /// The shard that it lives in.
    pub fn shard(&self) -> u8 {
        digest_of(self.key()).as_bytes()[0]
    }

    /// How the layout writes it.
    pub fn to_descriptor(&self) -> OciDescriptor {
        let (digest, size, media_type, annotations) = match self.clone() {
            Self::Blob { namespace, digest, size, media_type, created_at } => (
                digest,
                size,
                media_type,
                vec![(KIND, "blob".to_owned()), (NAMESPACE, namespace), (CREATED, created_at.to_string())],
            ),
            Self::Result { namespace, uid, attempt, name, digest, size, media_type, created_at } => (
                digest,
                size,
                media_type,
                vec![
                    (KIND, "result".to_owned()),
                    (NAMESPACE, namespace),
                    (UID, uid),
                    (ATTEMPT, attempt.to_string()),
                    (NAME, name),
                    (CREATED, created_at.to_string()),
                ],
            ),
            Self::Pin { namespace, owner, digests } => {
                let digests = digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(",");
                let annotations =
                    vec![(KIND, "pin".to_owned()), (NAMESPACE, namespace), (OWNER, owner), (DIGESTS, digests)];
                (digest_of(EMPTY), EMPTY.len() as u64, EMPTY_TYPE.to_owned(), annotations)
            }
            Self::Fence { device, token } => {
                let annotations = vec![(KIND, "fence".to_owned()), (DEVICE, device), (TOKEN, token.to_string())];
                (digest_of(EMPTY), EMPTY.len() as u64, EMPTY_TYPE.to_owned(), annotations)
            }
        };
        let annotations = annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        OciDescriptor { media_type, digest, size, annotations }
    }

    /// Reads what [`Entry::to_descriptor`] wrote.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn from_descriptor(descriptor: &OciDescriptor) -> Result<Self, LayoutError> {
        let d = descriptor;
        let namespace = || d.text(NAMESPACE).map(str::to_owned);
        Ok(match d.text(KIND)? {
            "blob" => Self::Blob {
                namespace: namespace()?,
                digest: d.digest,
                size: d.size,
                media_type: d.media_type.clone(),
                created_at: d.parsed(CREATED)?,
            },
            "result" => Self::Result {
                namespace: namespace()?,
                uid: d.text(UID)?.to_owned(),
                attempt: d.parsed(ATTEMPT)?,
                name: d.text(NAME)?.to_owned(),
                digest: d.digest,
                size: d.size,
                media_type: d.media_type.clone(),
                created_at: d.parsed(CREATED)?,
            },
            "pin" => {
                let digests = d.text(DIGESTS)?.split(',').filter(|text| !text.is_empty());
                let digests = digests.map(|text| text.parse().map_err(|_| d.lacks(DIGESTS)));
                Self::Pin {
                    namespace: namespace()?,
                    owner: d.text(OWNER)?.to_owned(),
                    digests: digests.collect::<Result<_, _>>()?,
                }
            }
            "fence" => Self::Fence { device: d.text(DEVICE)?.to_owned(), token: d.parsed(TOKEN)? },
            other => return Err(LayoutError::Kind(other.to_owned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<Entry> {
        let digest = digest_of("model");
        vec![
            Entry::Blob { namespace: "a".into(), digest, size: 5, media_type: "x/y".into(), created_at: 7 },
            Entry::Result {
                namespace: "a".into(),
                uid: "u".into(),
                attempt: 2,
                name: "mnist".into(),
                digest,
                size: 5,
                media_type: "x/y".into(),
                created_at: 7,
            },
            Entry::Pin { namespace: "a".into(), owner: "o".into(), digests: vec![digest, digest_of("other")] },
            Entry::Pin { namespace: "a".into(), owner: "none".into(), digests: vec![] },
            Entry::Fence { device: "lab/cpu".into(), token: i64::MAX },
        ]
    }

    #[test]
    fn entries_survive_the_layout() {
        let shard = ImageIndex::new(entries().iter().map(Entry::to_descriptor).collect());
        let read = ImageIndex::parse("shard", &shard.to_bytes()).unwrap();
        let read: Vec<_> = read.manifests.iter().map(|d| Entry::from_descriptor(d).unwrap()).collect();
        assert_eq!(read, entries());
    }

    #[test]
    fn keys_differ() {
        let keys: std::collections::BTreeSet<_> = entries().iter().map(Entry::key).collect();
        assert_eq!(keys.len(), entries().len());
    }

    #[test]
    fn a_missing_annotation_and_an_unknown_kind_are_named() {
        let mut descriptor = entries()[1].to_descriptor();
        descriptor.annotations.remove(UID);
        assert!(Entry::from_descriptor(&descriptor).unwrap_err().to_string().contains(UID));
        descriptor.annotations.insert(KIND.into(), "lock".into());
        assert!(matches!(Entry::from_descriptor(&descriptor), Err(LayoutError::Kind(kind)) if kind == "lock"));
    }
}
