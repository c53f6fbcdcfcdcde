//! SQLite from the layout, or the layout from SQLite: whichever is left.

use edgeyard_artifact::{Digest, digest_of, find_digests};
use futures::TryStreamExt as _;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::apply::{insert, insert_references};
use super::{IndexError, writer};
use crate::layout::{EMPTY, Entry, INDEX, ImageIndex, OCI_LAYOUT, OCI_LAYOUT_CONTENT, OciDescriptor};

const TABLES: [&str; 8] = ["meta", "shards", "blobs", "results", "refs", "pins", "pinned", "fences"];

/// Makes SQLite and the layout agree. Says whether SQLite had to be rebuilt.
pub(super) fn agree(db: &mut Connection, context: &writer::Context, new: bool) -> Result<bool, IndexError> {
    let root = context.wait(context.storage.read(INDEX))?;
    let known: Option<String> =
        db.query_row("SELECT value FROM meta WHERE key = 'root'", [], |row| row.get(0)).optional()?;
    match (root, known) {
        (Some(root), known) => {
            if !new && known == Some(digest_of(&root).to_string()) {
                return Ok(false);
            }
            rebuild(db, context, &root)?;
            Ok(true)
        }
        (None, Some(_)) => {
            tracing::warn!("index.json is missing; writing it again from the index database");
            write_all(db, context)?;
            Ok(false)
        }
        (None, None) => {
            // The empty document is what a store writes that was killed at its very first start.
            let empty = digest_of(EMPTY);
            let others = context.storage.list_blobs().try_filter(|blob| std::future::ready(blob.digest != empty));
            if context.wait(std::pin::pin!(others).try_next())?.is_some() {
                return Err(IndexError::Orphaned);
            }
            context.wait(context.storage.write(OCI_LAYOUT, OCI_LAYOUT_CONTENT))?;
            context.wait(context.storage.write_blob(EMPTY.into()))?;
            write_all(db, context)?;
            Ok(false)
        }
    }
}

fn rebuild(db: &mut Connection, context: &writer::Context, root: &[u8]) -> Result<(), IndexError> {
    let now = (context.clock)();
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for table in TABLES {
        tx.execute(&format!("DELETE FROM {table}"), [])?;
    }
    // The triggers kept `usage` in step with every deleted row; drop what they left at zero.
    tx.execute("DELETE FROM usage", [])?;
    let mut count = 0_u64;
    for shard in ImageIndex::parse(INDEX, root)?.manifests {
        let number = shard.shard()?;
        let bytes = context.wait(context.storage.read_blob(&shard.digest))?;
        let bytes = bytes
            .filter(|bytes| digest_of(bytes) == shard.digest)
            .ok_or(IndexError::Damaged { what: "the layout's shard", digest: shard.digest })?;
        tx.prepare_cached("INSERT INTO shards VALUES (?1, ?2, ?3)")?.execute(params![
            number,
            shard.digest.to_string(),
            bytes.len() as i64
        ])?;
        for descriptor in ImageIndex::parse("a shard", &bytes)?.manifests {
            let entry = Entry::from_descriptor(&descriptor)?;
            // Blobs count as put now: nobody knows when they were put last, and sweeping can wait.
            insert(&tx, &entry, now)?;
            insert_references(&tx, &entry, &references(context, &entry)?)?;
            count += 1;
        }
    }
    remember_root(&tx, &digest_of(root))?;
    tx.commit()?;
    tracing::info!(entries = count, "rebuilt the index database from the layout");
    Ok(())
}

/// What a result refers to, from its body. A lost body is reported and does not stop the rest.
fn references(context: &writer::Context, entry: &Entry) -> Result<Vec<Digest>, IndexError> {
    let Entry::Result { namespace, uid, attempt, digest, .. } = entry else { return Ok(Vec::new()) };
    let body = context.wait(context.storage.read_blob(digest))?.filter(|body| digest_of(body) == *digest);
    match body.as_deref().map(serde_json::from_slice::<serde_json::Value>) {
        Some(Ok(body)) => Ok(find_digests(&body)),
        _ => {
            tracing::error!(namespace, uid, attempt, %digest, "the body of a result is missing or damaged");
            Ok(Vec::new())
        }
    }
}

fn write_all(db: &mut Connection, context: &writer::Context) -> Result<(), IndexError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let shards = (0..=u8::MAX).collect();
    writer::write_layout(&tx, context, &shards)?;
    tx.commit()?;
    Ok(())
}

/// Notes which `index.json` the database is a copy of.
pub(super) fn remember_root(db: &Connection, root: &Digest) -> rusqlite::Result<()> {
    db.execute("INSERT OR REPLACE INTO meta VALUES ('root', ?1)", [root.to_string()])?;
    Ok(())
}

/// `index.json` as the shards in the database make it.
pub(super) fn root(db: &Connection) -> rusqlite::Result<ImageIndex> {
    let mut statement = db.prepare_cached("SELECT shard, digest, size FROM shards ORDER BY shard")?;
    let rows = statement.query_map([], |row| {
        let digest = super::read::digest_column(&row.get::<_, String>(1)?)?;
        Ok(OciDescriptor::of_shard(row.get(0)?, digest, row.get::<_, i64>(2)? as u64))
    })?;
    Ok(ImageIndex::new(rows.collect::<Result<_, _>>()?))
}
