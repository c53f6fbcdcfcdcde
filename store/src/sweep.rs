//! Removes blobs that neither a result nor a pin refers to, once they are older than the grace period, and files that
//! belong to nobody (a crash between writing a blob and its row leaves one).

use std::time::Duration;

use edgeyard_artifact::Digest;
use futures::TryStreamExt as _;
use tokio::sync::RwLock;

use crate::index::{Change, Index, IndexError, Outcome, Sweepable};
use crate::storage::Storage;

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// A namespace's blobs that went.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that belonged to nobody.
    pub orphans: u64,
}

/// Sweeps once. `now` is in milliseconds since 1970; `publishing` is held for writing while something is removed.
///
/// # Errors
/// [`IndexError`]; what was removed until then is removed.
pub async fn sweep(
    storage: &Storage,
    index: &Index,
    publishing: &RwLock<()>,
    grace: Duration,
    now: i64,
) -> Result<Swept, IndexError> {
    let before = now.saturating_sub(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
    let mut swept = Swept::default();
    // In portions, so that uploads wait for a moment only.
    for portion in index.sweepable(before)?.chunks(64) {
        let _alone = publishing.write().await;
        let changes = portion.iter().map(|blob| {
            let Sweepable { namespace, digest, size: _ } = blob.clone();
            Change::Sweep { namespace, digest, before }
        });
        let outcomes = index.change(changes.collect()).await?;
        for (blob, outcome) in portion.iter().zip(outcomes) {
            if outcome != Outcome::Done {
                continue;
            }
            swept.blobs += 1;
            swept.bytes += blob.size;
            tracing::info!(namespace = blob.namespace, digest = %blob.digest, size = blob.size, "swept a blob");
            delete_if_unused(storage, index, &blob.digest).await?;
        }
    }
    let old: Vec<Digest> = storage
        .list_blobs()
        .try_filter(|blob| std::future::ready(blob.written_at < before))
        .map_ok(|blob| blob.digest)
        .try_collect()
        .await?;
    for digest in old {
        if index.is_used(&digest)? {
            continue;
        }
        let _alone = publishing.write().await;
        if delete_if_unused(storage, index, &digest).await? {
            swept.orphans += 1;
        }
    }
    Ok(swept)
}

async fn delete_if_unused(storage: &Storage, index: &Index, digest: &Digest) -> Result<bool, IndexError> {
    // Another namespace may have the same blob.
    if index.is_used(digest)? {
        return Ok(false);
    }
    storage.delete_blob(digest).await?;
    Ok(true)
}
