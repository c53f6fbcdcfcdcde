//! The SQLite copy of the layout. One thread applies changes and writes the layout in batches; everyone else reads.

mod schema;
mod apply;
mod read;
mod rebuild;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use edgeyard_artifact::Digest;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub use read::{BlobRow, ResultQuery, ResultRow, Sweepable};

use crate::Clock;
use crate::layout::LayoutError;
use crate::storage::Storage;

/// A device and the fencing token that a writer holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// `namespace/name`.
    pub device: String,
    /// The token.
    pub token: i64,
}

/// A change to what belongs to whom. Bytes are stored before a change names them.
#[derive(Debug, Clone)]
pub enum Change {
    /// A blob has come for a namespace.
    PutBlob {
        /// Whose it becomes.
        namespace: String,
        /// Its digest.
        digest: Digest,
        /// Its length.
        size: u64,
        /// Its media type; that of the first upload is kept.
        media_type: String,
        /// The namespace's quota.
        quota: u64,
        /// The lease that the writer holds.
        fence: Option<Fence>,
    },
    /// A result has come.
    PutResult {
        /// Whose it becomes.
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
        /// Digests in the body.
        references: Vec<Digest>,
        /// The namespace's quota.
        quota: u64,
        /// The lease that the writer holds.
        fence: Option<Fence>,
    },
    /// An owner wants these blobs kept, and no others.
    Pin {
        /// Whose blobs.
        namespace: String,
        /// Who wants them.
        owner: String,
        /// Which.
        digests: Vec<Digest>,
    },
    /// An owner lets go.
    Unpin {
        /// Whose blobs.
        namespace: String,
        /// Who wanted them.
        owner: String,
    },
    /// A namespace loses a blob, if still nothing refers to it and nobody has put it since.
    Sweep {
        /// Whose it was.
        namespace: String,
        /// Its digest.
        digest: Digest,
        /// Put last before this time, in milliseconds since 1970.
        before: i64,
    },
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done and durable.
    Done,
    /// It was so already (or, of a sweep, must not be).
    Unchanged,
    /// Another body is there under this uid and attempt.
    AttemptTaken {
        /// Its digest.
        digest: Digest,
    },
    /// The device has been leased again since.
    StaleFencingToken {
        /// The highest token seen.
        highest: i64,
    },
    /// It does not fit.
    QuotaExceeded {
        /// Bytes used.
        used: u64,
    },
}

/// Why the index cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite.
    #[error("the index database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// The storage below.
    #[error("the storage failed")]
    Storage(#[from] object_store::Error),
    /// The layout cannot be read.
    #[error("the OCI layout cannot be read")]
    Layout(#[from] LayoutError),
    /// A file that the layout names is gone or changed.
    #[error("{what} {digest} is missing or damaged: restore it from a backup")]
    Damaged {
        /// What it is.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// Blobs without index.
    #[error("there are blobs but no index.json and no index database: restore index.json, or move the blobs away")]
    Orphaned,
    /// The SQLite file cannot be replaced.
    #[error("the index database cannot be replaced")]
    File(#[from] std::io::Error),
    /// The batch that this change was part of failed; the log says why.
    #[error("the change could not be made durable: {0}")]
    Batch(String),
    /// The writer is gone: the process is ending.
    #[error("the store is stopping")]
    Stopped,
}

/// The index. Cheap to clone.
#[derive(Clone)]
pub struct Index {
    reader: Arc<Mutex<Connection>>,
    writer: mpsc::UnboundedSender<writer::Command>,
    healthy: Arc<AtomicBool>,
    rebuilt: bool,
}

impl Index {
    /// Opens the index beside its storage, and rebuilds it if it does not fit the layout. Must be called in a runtime.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn open(path: &Path, storage: Storage, clock: Clock) -> Result<Self, IndexError> {
        let (commands, queue) = mpsc::unbounded_channel();
        let (opened, outcome) = oneshot::channel();
        let healthy = Arc::new(AtomicBool::new(true));
        let runtime = tokio::runtime::Handle::current();
        let (file, health) = (path.to_owned(), Arc::clone(&healthy));
        std::thread::Builder::new().name("index".into()).spawn(move || {
            writer::run(&file, writer::Context { storage, clock, runtime, healthy: health }, opened, queue);
        })?;
        let rebuilt = outcome.await.map_err(|_| IndexError::Stopped)??;
        let reader = schema::open_reader(path)?;
        Ok(Self { reader: Arc::new(Mutex::new(reader)), writer: commands, healthy, rebuilt })
    }

    /// Whether opening had to rebuild the index.
    pub const fn was_rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// Whether changes can be made at present.
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Makes changes, all in one step; their outcomes are durable when this returns.
    ///
    /// # Errors
    /// [`IndexError`]; then none of the changes was made.
    pub async fn change(&self, changes: Vec<Change>) -> Result<Vec<Outcome>, IndexError> {
        let (reply, outcome) = oneshot::channel();
        self.writer.send(writer::Command { changes, reply }).map_err(|_| IndexError::Stopped)?;
        outcome.await.map_err(|_| IndexError::Stopped)?
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, IndexError> {
        // Queries only read: one that panicked leaves nothing half done.
        let connection = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(query(&connection)?)
    }
}

/// Removes the SQLite file and what belongs to it, so that the next [`Index::open`] rebuilds it.
///
/// # Errors
/// When a file is there and cannot be removed.
pub fn remove_database(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
