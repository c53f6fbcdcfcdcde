//! Reads every blob and compares it with its name, and looks for what the layout names and the storage has not.

use std::collections::BTreeSet;

use edgeyard_artifact::{Digest, Hasher};
use futures::TryStreamExt as _;

use crate::index::{Index, IndexError};
use crate::layout::Entry;
use crate::storage::Storage;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Blobs read.
    pub checked: u64,
    /// Blobs whose bytes are not what their name says.
    pub damaged: Vec<Digest>,
    /// Blobs that are named and not there.
    pub missing: Vec<Digest>,
}

impl Findings {
    /// Whether all is well.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty()
    }
}

/// Checks everything; reads all bytes.
///
/// # Errors
/// When the storage or the index cannot be read at all.
pub async fn fsck(storage: &Storage, index: &Index) -> Result<Findings, IndexError> {
    let mut findings = Findings::default();
    let mut there = BTreeSet::new();
    let mut blobs = storage.list_blobs();
    while let Some(blob) = blobs.try_next().await? {
        there.insert(blob.digest);
        let Some(mut pieces) = storage.stream_blob(&blob.digest, 0..blob.size).await? else { continue };
        let mut hasher = Hasher::new();
        while let Some(piece) = pieces.try_next().await? {
            hasher.update(piece);
        }
        findings.checked += 1;
        if hasher.finish() != blob.digest {
            findings.damaged.push(blob.digest);
        }
    }
    let named = index.entries()?.into_iter().filter_map(|entry| match entry {
        Entry::Blob { digest, .. } | Entry::Result { digest, .. } => Some(digest),
        Entry::Pin { .. } | Entry::Fence { .. } => None,
    });
    let named: BTreeSet<Digest> = named.chain(index.shards()?).collect();
    findings.missing = named.difference(&there).copied().collect();
    Ok(findings)
}
