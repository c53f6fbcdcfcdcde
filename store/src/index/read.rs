//! Questions to the index.

use edgeyard_artifact::{Digest, PinOwner, ResultEntry};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{Index, IndexError};
use crate::layout::Entry;
use crate::rfc3339;

/// A row of `blobs` that neither a result (as body or in it) nor a pin of its namespace refers to.
pub(super) const UNREFERENCED: &str = "
    NOT EXISTS (SELECT 1 FROM results r WHERE r.namespace = blobs.namespace AND r.digest = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM refs r WHERE r.namespace = blobs.namespace AND r.digest = blobs.digest)
    AND NOT EXISTS (SELECT 1 FROM pinned p WHERE p.namespace = blobs.namespace AND p.digest = blobs.digest)";

/// A namespace's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobRow {
    /// Its length.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// A result's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRow {
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// Which results to list.
#[derive(Debug, Clone, Default)]
pub struct ResultQuery {
    /// Only this media type.
    pub media_type: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// At most so many.
    pub limit: u32,
}

/// A blob that may be swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sweepable {
    /// Whose it is.
    pub namespace: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
}

impl Index {
    /// A namespace's blob.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn blob(&self, namespace: &str, digest: &Digest) -> Result<Option<BlobRow>, IndexError> {
        self.read(|db| {
            db.prepare_cached("SELECT size, media_type FROM blobs WHERE namespace = ?1 AND digest = ?2")?
                .query_row(params![namespace, digest.to_string()], |row| {
                    Ok(BlobRow { size: row.get::<_, i64>(0)? as u64, media_type: row.get(1)? })
                })
                .optional()
        })
    }

    /// A result.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn result(&self, namespace: &str, uid: &str, attempt: u32) -> Result<Option<ResultRow>, IndexError> {
        self.read(|db| {
            let sql = "SELECT digest, size, media_type FROM results WHERE namespace = ?1 AND uid = ?2 AND attempt = ?3";
            db.prepare_cached(sql)?
                .query_row(params![namespace, uid, attempt], |row| {
                    let digest = digest_column(&row.get::<_, String>(0)?)?;
                    Ok(ResultRow { digest, size: row.get::<_, i64>(1)? as u64, media_type: row.get(2)? })
                })
                .optional()
        })
    }

    /// A namespace's results, newest first.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn results(&self, namespace: &str, query: &ResultQuery) -> Result<Vec<ResultEntry>, IndexError> {
        self.read(|db| {
            let sql = "SELECT uid, attempt, name, digest, size, media_type, created_at FROM results
                WHERE namespace = ?1 AND (?2 IS NULL OR media_type = ?2) AND (?3 IS NULL OR name = ?3)
                ORDER BY created_at DESC, uid, attempt DESC LIMIT ?4";
            db.prepare_cached(sql)?
                .query_map(params![namespace, query.media_type, query.name, query.limit], |row| {
                    Ok(ResultEntry {
                        uid: row.get(0)?,
                        attempt: row.get(1)?,
                        name: row.get(2)?,
                        digest: digest_column(&row.get::<_, String>(3)?)?,
                        size_bytes: row.get::<_, i64>(4)? as u64,
                        media_type: row.get(5)?,
                        created_at: rfc3339(row.get(6)?),
                    })
                })?
                .collect()
        })
    }

    /// Bytes that a namespace uses.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn used(&self, namespace: &str) -> Result<u64, IndexError> {
        self.read(|db| used(db, namespace))
    }

    /// Bytes that each namespace uses.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn used_by_namespace(&self) -> Result<Vec<(String, u64)>, IndexError> {
        self.read(|db| {
            db.prepare_cached("SELECT namespace, used FROM usage ORDER BY namespace")?
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
                .collect()
        })
    }

    /// Who has pinned blobs.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn pin_owners(&self) -> Result<Vec<PinOwner>, IndexError> {
        self.read(|db| {
            db.prepare_cached("SELECT namespace, owner FROM pins ORDER BY namespace, owner")?
                .query_map([], |row| Ok(PinOwner { namespace: row.get(0)?, owner: row.get(1)? }))?
                .collect()
        })
    }

    /// The highest fencing token seen of a device.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn highest_token(&self, device: &str) -> Result<Option<i64>, IndexError> {
        self.read(|db| highest_token(db, device))
    }

    /// Blobs that nothing refers to and that were put last before a time.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn sweepable(&self, before: i64) -> Result<Vec<Sweepable>, IndexError> {
        self.read(|db| {
            db.prepare_cached(&format!(
                "SELECT namespace, digest, size FROM blobs WHERE touched_at < ?1 AND {UNREFERENCED}"
            ))?
            .query_map([before], |row| {
                let digest = digest_column(&row.get::<_, String>(1)?)?;
                Ok(Sweepable { namespace: row.get(0)?, digest, size: row.get::<_, i64>(2)? as u64 })
            })?
            .collect()
        })
    }

    /// Whether a file is anyone's blob, or part of the layout itself.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn is_used(&self, digest: &Digest) -> Result<bool, IndexError> {
        self.read(|db| is_used(db, digest))
    }

    /// Everything that the index knows, in the layout's terms and in a fixed order.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn entries(&self) -> Result<Vec<Entry>, IndexError> {
        self.read(|db| {
            let mut all = Vec::new();
            for shard in 0..=u8::MAX {
                all.extend(entries(db, shard)?);
            }
            Ok(all)
        })
    }

    /// Every (namespace, digest) that results refer to, in a fixed order.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn references(&self) -> Result<Vec<(String, Digest)>, IndexError> {
        self.read(|db| {
            db.prepare_cached("SELECT DISTINCT namespace, digest FROM refs ORDER BY namespace, digest")?
                .query_map([], |row| Ok((row.get(0)?, digest_column(&row.get::<_, String>(1)?)?)))?
                .collect()
        })
    }

    /// The shards of the layout.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn shards(&self) -> Result<Vec<Digest>, IndexError> {
        self.read(|db| {
            db.prepare_cached("SELECT digest FROM shards ORDER BY shard")?
                .query_map([], |row| digest_column(&row.get::<_, String>(0)?))?
                .collect()
        })
    }
}

pub(super) fn digest_column(text: &str) -> rusqlite::Result<Digest> {
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error)))
}

pub(super) fn used(db: &Connection, namespace: &str) -> rusqlite::Result<u64> {
    let used: Option<i64> = db
        .prepare_cached("SELECT used FROM usage WHERE namespace = ?1")?
        .query_row([namespace], |row| row.get(0))
        .optional()?;
    Ok(used.unwrap_or(0) as u64)
}

pub(super) fn highest_token(db: &Connection, device: &str) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT token FROM fences WHERE device = ?1")?.query_row([device], |row| row.get(0)).optional()
}

pub(super) fn is_used(db: &Connection, digest: &Digest) -> rusqlite::Result<bool> {
    if *digest == edgeyard_artifact::digest_of(crate::layout::EMPTY) {
        return Ok(true);
    }
    let sql =
        "SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1) OR EXISTS (SELECT 1 FROM shards WHERE digest = ?1)";
    db.prepare_cached(sql)?.query_row([digest.to_string()], |row| row.get(0))
}

/// The entries of one shard, ordered by key so that equal content has equal bytes.
pub(super) fn entries(db: &Connection, shard: u8) -> rusqlite::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut collect = |sql: &str, read: fn(&Row<'_>) -> rusqlite::Result<Entry>| -> rusqlite::Result<()> {
        for entry in db.prepare_cached(sql)?.query_map([shard], read)? {
            found.push(entry?);
        }
        Ok(())
    };
    collect("SELECT namespace, digest, size, media_type, created_at FROM blobs WHERE shard = ?1", |row| {
        Ok(Entry::Blob {
            namespace: row.get(0)?,
            digest: digest_column(&row.get::<_, String>(1)?)?,
            size: row.get::<_, i64>(2)? as u64,
            media_type: row.get(3)?,
            created_at: row.get(4)?,
        })
    })?;
    let results =
        "SELECT namespace, uid, attempt, name, digest, size, media_type, created_at FROM results WHERE shard = ?1";
    collect(results, |row| {
        Ok(Entry::Result {
            namespace: row.get(0)?,
            uid: row.get(1)?,
            attempt: row.get(2)?,
            name: row.get(3)?,
            digest: digest_column(&row.get::<_, String>(4)?)?,
            size: row.get::<_, i64>(5)? as u64,
            media_type: row.get(6)?,
            created_at: row.get(7)?,
        })
    })?;
    collect("SELECT namespace, owner, digests FROM pins WHERE shard = ?1", |row| {
        let digests: String = row.get(2)?;
        let digests = digests.split(',').filter(|text| !text.is_empty()).map(digest_column);
        Ok(Entry::Pin { namespace: row.get(0)?, owner: row.get(1)?, digests: digests.collect::<Result<_, _>>()? })
    })?;
    collect("SELECT device, token FROM fences WHERE shard = ?1", |row| {
        Ok(Entry::Fence { device: row.get(0)?, token: row.get(1)? })
    })?;
    found.sort_by_cached_key(Entry::key);
    Ok(found)
}
