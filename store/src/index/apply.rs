//! One change inside a transaction: checks first, then rows. Says which shards of the layout it made stale.

use std::collections::BTreeSet;

use edgeyard_artifact::Digest;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::{Change, Fence, Outcome};
use crate::layout::Entry;

/// Shards that have to be written again.
pub(super) type Dirty = BTreeSet<u8>;

pub(super) fn apply(tx: &Transaction<'_>, change: Change, now: i64, dirty: &mut Dirty) -> rusqlite::Result<Outcome> {
    match change {
        Change::PutBlob { namespace, digest, size, media_type, quota, fence } => {
            if let Some(stale) = raise_fence(tx, fence, dirty)? {
                return Ok(stale);
            }
            put_blob(tx, &namespace, digest, size, &media_type, quota, now, dirty)
        }
        Change::PutResult { namespace, uid, attempt, name, digest, size, media_type, references, quota, fence } => {
            let there: Option<String> = tx
                .prepare_cached("SELECT digest FROM results WHERE namespace = ?1 AND uid = ?2 AND attempt = ?3")?
                .query_row(params![namespace, uid, attempt], |row| row.get(0))
                .optional()?;
            if let Some(there) = there {
                // A repeated request whose first answer was lost; its lease may be over by now, which changes nothing.
                let there = super::read::digest_column(&there)?;
                return Ok(if there == digest { Outcome::Unchanged } else { Outcome::AttemptTaken { digest: there } });
            }
            if let Some(stale) = raise_fence(tx, fence, dirty)? {
                return Ok(stale);
            }
            let blob = put_blob(tx, &namespace, digest, size, &media_type, quota, now, dirty)?;
            if matches!(blob, Outcome::QuotaExceeded { .. }) {
                return Ok(blob);
            }
            let entry = Entry::Result { namespace, uid, attempt, name, digest, size, media_type, created_at: now };
            insert(tx, &entry, now)?;
            insert_references(tx, &entry, &references)?;
            dirty.insert(entry.shard());
            Ok(Outcome::Done)
        }
        Change::Pin { namespace, owner, mut digests } => {
            digests.sort_unstable();
            digests.dedup();
            let entry = Entry::Pin { namespace: namespace.clone(), owner: owner.clone(), digests };
            let written: Option<String> = tx
                .prepare_cached("SELECT digests FROM pins WHERE namespace = ?1 AND owner = ?2")?
                .query_row(params![namespace, owner], |row| row.get(0))
                .optional()?;
            if written.as_deref() == Some(joined(&entry).as_str()) {
                return Ok(Outcome::Unchanged);
            }
            unpin(tx, &namespace, &owner)?;
            insert(tx, &entry, now)?;
            dirty.insert(entry.shard());
            Ok(Outcome::Done)
        }
        Change::Unpin { namespace, owner } => {
            if unpin(tx, &namespace, &owner)? == 0 {
                return Ok(Outcome::Unchanged);
            }
            dirty.insert(Entry::Pin { namespace, owner, digests: Vec::new() }.shard());
            Ok(Outcome::Done)
        }
        Change::Sweep { namespace, digest, before } => {
            let removed = tx
                .prepare_cached(&format!(
                    "DELETE FROM blobs WHERE namespace = ?1 AND digest = ?2 AND touched_at < ?3 AND {}",
                    super::read::UNREFERENCED
                ))?
                .execute(params![namespace, digest.to_string(), before])?;
            if removed == 0 {
                return Ok(Outcome::Unchanged);
            }
            let gone = Entry::Blob { namespace, digest, size: 0, media_type: String::new(), created_at: 0 };
            dirty.insert(gone.shard());
            Ok(Outcome::Done)
        }
    }
}

/// Remembers a higher token; `Some` refuses a lower one.
fn raise_fence(tx: &Transaction<'_>, fence: Option<Fence>, dirty: &mut Dirty) -> rusqlite::Result<Option<Outcome>> {
    let Some(Fence { device, token }) = fence else { return Ok(None) };
    match super::read::highest_token(tx, &device)? {
        Some(highest) if token < highest => return Ok(Some(Outcome::StaleFencingToken { highest })),
        Some(highest) if token == highest => return Ok(None),
        _ => {}
    }
    let entry = Entry::Fence { device, token };
    insert(tx, &entry, 0)?;
    dirty.insert(entry.shard());
    Ok(None)
}

#[expect(clippy::too_many_arguments, reason = "the columns of a row")]
fn put_blob(
    tx: &Transaction<'_>,
    namespace: &str,
    digest: Digest,
    size: u64,
    media_type: &str,
    quota: u64,
    now: i64,
    dirty: &mut Dirty,
) -> rusqlite::Result<Outcome> {
    let touched = tx
        .prepare_cached("UPDATE blobs SET touched_at = ?3 WHERE namespace = ?1 AND digest = ?2")?
        .execute(params![namespace, digest.to_string(), now])?;
    if touched > 0 {
        return Ok(Outcome::Unchanged);
    }
    let used = super::read::used(tx, namespace)?;
    if used.saturating_add(size) > quota {
        return Ok(Outcome::QuotaExceeded { used });
    }
    let (namespace, media_type) = (namespace.to_owned(), media_type.to_owned());
    let entry = Entry::Blob { namespace, digest, size, media_type, created_at: now };
    insert(tx, &entry, now)?;
    dirty.insert(entry.shard());
    Ok(Outcome::Done)
}

fn unpin(tx: &Transaction<'_>, namespace: &str, owner: &str) -> rusqlite::Result<usize> {
    tx.prepare_cached("DELETE FROM pinned WHERE namespace = ?1 AND owner = ?2")?.execute(params![namespace, owner])?;
    tx.prepare_cached("DELETE FROM pins WHERE namespace = ?1 AND owner = ?2")?.execute(params![namespace, owner])
}

fn joined(pin: &Entry) -> String {
    match pin {
        Entry::Pin { digests, .. } => digests.iter().map(Digest::to_string).collect::<Vec<_>>().join(","),
        _ => String::new(),
    }
}

/// The rows of one entry of the layout. References of a result come from its body: [`insert_references`].
pub(super) fn insert(tx: &Transaction<'_>, entry: &Entry, touched_at: i64) -> rusqlite::Result<()> {
    let shard = entry.shard();
    match entry {
        Entry::Blob { namespace, digest, size, media_type, created_at } => {
            let digest = digest.to_string();
            tx.prepare_cached("INSERT INTO blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
                namespace,
                digest,
                *size as i64,
                media_type,
                created_at,
                touched_at,
                shard
            ])?;
        }
        Entry::Result { namespace, uid, attempt, name, digest, size, media_type, created_at } => {
            let (digest, size) = (digest.to_string(), *size as i64);
            tx.prepare_cached("INSERT INTO results VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
                .execute(params![namespace, uid, attempt, name, digest, size, media_type, created_at, shard])?;
        }
        Entry::Pin { namespace, owner, digests } => {
            tx.prepare_cached("INSERT INTO pins VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                namespace,
                owner,
                joined(entry),
                shard
            ])?;
            let mut insert = tx.prepare_cached("INSERT INTO pinned VALUES (?1, ?2, ?3)")?;
            for digest in digests {
                insert.execute(params![namespace, digest.to_string(), owner])?;
            }
        }
        Entry::Fence { device, token } => {
            tx.prepare_cached("INSERT OR REPLACE INTO fences VALUES (?1, ?2, ?3)")?
                .execute(params![device, token, shard])?;
        }
    }
    Ok(())
}

/// What a result refers to.
pub(super) fn insert_references(tx: &Transaction<'_>, entry: &Entry, references: &[Digest]) -> rusqlite::Result<()> {
    if let Entry::Result { namespace, uid, attempt, .. } = entry {
        let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO refs VALUES (?1, ?2, ?3, ?4)")?;
        for digest in references {
            insert.execute(params![namespace, digest.to_string(), uid, attempt])?;
        }
    }
    Ok(())
}
