//! The thread that makes changes: takes all that wait, applies them in one transaction, writes the layout, commits,
//! answers. What waits shares the cost of syncing, so it does not matter how many runners finish at once.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use edgeyard_artifact::{Digest, digest_of};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::apply::{Dirty, apply};
use super::{Change, IndexError, Outcome, read, rebuild, remove_database, schema};
use crate::Clock;
use crate::layout::{Entry, INDEX, ImageIndex};
use crate::storage::Storage;

/// Requests that are answered after one write of the layout, at most.
const BATCH: usize = 256;

/// Some changes and whom to answer.
pub(super) struct Command {
    pub(super) changes: Vec<Change>,
    pub(super) reply: oneshot::Sender<Result<Vec<Outcome>, IndexError>>,
}

/// What the thread works with.
pub(super) struct Context {
    pub(super) storage: Storage,
    pub(super) clock: Clock,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) healthy: Arc<AtomicBool>,
}

impl Context {
    /// Waits for the storage; this thread is not one of the runtime's.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// The thread.
pub(super) fn run(
    path: &Path,
    context: Context,
    opened: oneshot::Sender<Result<bool, IndexError>>,
    mut queue: mpsc::UnboundedReceiver<Command>,
) {
    let mut db = match open(path, &context) {
        Ok((db, rebuilt)) => {
            // Whoever opened may have gone; then the queue is closed too.
            let _ = opened.send(Ok(rebuilt));
            db
        }
        Err(error) => {
            let _ = opened.send(Err(error));
            return;
        }
    };
    // Whether index.json may be ahead of the database, because a batch ended between the two.
    let mut suspect = false;
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        let (changes, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|c| (c.changes, c.reply)).unzip();
        let committed = commit(&mut db, &context, changes, &mut suspect);
        context.healthy.store(!suspect, Ordering::Relaxed);
        match committed {
            Ok(outcomes) => {
                // A client that has gone away does not need its answer.
                replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| drop(reply.send(Ok(outcome))));
            }
            Err(error) => {
                let text = chain(&error);
                tracing::error!(error = text, "changes could not be made durable");
                replies.into_iter().for_each(|reply| drop(reply.send(Err(IndexError::Batch(text.clone())))));
            }
        }
    }
}

fn open(path: &Path, context: &Context) -> Result<(Connection, bool), IndexError> {
    let first = schema::open_writer(path).map_err(IndexError::from).and_then(|(mut db, new)| {
        let rebuilt = rebuild::agree(&mut db, context, new)?;
        Ok((db, rebuilt))
    });
    match first {
        // The layout is all right, the database is not: it is a copy, make it again.
        Err(IndexError::Sqlite(error)) => {
            tracing::warn!(error = %error, "the index database cannot be used; rebuilding it");
            remove_database(path)?;
            let (mut db, new) = schema::open_writer(path)?;
            rebuild::agree(&mut db, context, new)?;
            Ok((db, true))
        }
        other => other,
    }
}

fn commit(
    db: &mut Connection,
    context: &Context,
    batch: Vec<Vec<Change>>,
    suspect: &mut bool,
) -> Result<Vec<Vec<Outcome>>, IndexError> {
    if *suspect {
        rebuild::agree(db, context, false)?;
        *suspect = false;
    }
    let now = (context.clock)();
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut dirty = Dirty::new();
    let mut outcomes = Vec::with_capacity(batch.len());
    for changes in batch {
        let applied = changes.into_iter().map(|change| apply(&tx, change, now, &mut dirty));
        outcomes.push(applied.collect::<Result<Vec<_>, _>>()?);
    }
    let replaced = if dirty.is_empty() {
        Vec::new()
    } else {
        *suspect = true;
        write_layout(&tx, context, &dirty)?
    };
    tx.commit()?;
    *suspect = false;
    for digest in replaced {
        if !read::is_used(db, &digest)?
            && let Err(error) = context.wait(context.storage.delete_blob(&digest))
        {
            // The sweep removes it later.
            tracing::debug!(%digest, error = %error, "a replaced shard stays for now");
        }
    }
    Ok(outcomes)
}

/// Writes these shards and then `index.json`. Gives the shards that are no longer named.
pub(super) fn write_layout(
    tx: &Transaction<'_>,
    context: &Context,
    dirty: &BTreeSet<u8>,
) -> Result<Vec<Digest>, IndexError> {
    let mut replaced = Vec::new();
    for &shard in dirty {
        let old: Option<String> =
            tx.query_row("SELECT digest FROM shards WHERE shard = ?1", [shard], |row| row.get(0)).optional()?;
        let old = old.map(|text| read::digest_column(&text)).transpose()?;
        let entries = read::entries(tx, shard)?;
        if entries.is_empty() {
            tx.execute("DELETE FROM shards WHERE shard = ?1", [shard])?;
            replaced.extend(old);
            continue;
        }
        let bytes = ImageIndex::new(entries.iter().map(Entry::to_descriptor).collect()).to_bytes();
        let size = bytes.len() as i64;
        let digest = context.wait(context.storage.write_blob(bytes.into()))?;
        tx.execute("INSERT OR REPLACE INTO shards VALUES (?1, ?2, ?3)", params![shard, digest.to_string(), size])?;
        replaced.extend(old.filter(|old| *old != digest));
    }
    let root = rebuild::root(tx)?.to_bytes();
    rebuild::remember_root(tx, &digest_of(&root))?;
    context.wait(context.storage.write(INDEX, root))?;
    Ok(replaced)
}

/// An error with all its causes, for a log line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
