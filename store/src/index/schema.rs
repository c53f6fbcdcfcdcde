//! Tables, and how connections are opened. A database of another version is thrown away and rebuilt.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Changes with every change of [`TABLES`].
const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE shards (shard INTEGER PRIMARY KEY, digest TEXT NOT NULL, size INTEGER NOT NULL) STRICT;
CREATE TABLE blobs (
    namespace TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL,
    created_at INTEGER NOT NULL, touched_at INTEGER NOT NULL, shard INTEGER NOT NULL,
    PRIMARY KEY (namespace, digest)) STRICT, WITHOUT ROWID;
CREATE INDEX blobs_by_digest ON blobs (digest);
CREATE INDEX blobs_by_shard ON blobs (shard);
CREATE TABLE results (
    namespace TEXT NOT NULL, uid TEXT NOT NULL, attempt INTEGER NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
    size INTEGER NOT NULL, media_type TEXT NOT NULL, created_at INTEGER NOT NULL, shard INTEGER NOT NULL,
    PRIMARY KEY (namespace, uid, attempt)) STRICT, WITHOUT ROWID;
CREATE INDEX results_by_time ON results (namespace, created_at);
CREATE INDEX results_by_name ON results (namespace, name, created_at);
CREATE INDEX results_by_digest ON results (namespace, digest);
CREATE INDEX results_by_shard ON results (shard);
CREATE TABLE refs (
    namespace TEXT NOT NULL, digest TEXT NOT NULL, uid TEXT NOT NULL, attempt INTEGER NOT NULL,
    PRIMARY KEY (namespace, digest, uid, attempt)) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
    namespace TEXT NOT NULL, owner TEXT NOT NULL, digests TEXT NOT NULL, shard INTEGER NOT NULL,
    PRIMARY KEY (namespace, owner)) STRICT, WITHOUT ROWID;
CREATE INDEX pins_by_shard ON pins (shard);
CREATE TABLE pinned (
    namespace TEXT NOT NULL, digest TEXT NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (namespace, digest, owner)) STRICT, WITHOUT ROWID;
CREATE TABLE fences (device TEXT PRIMARY KEY, token INTEGER NOT NULL, shard INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE usage (namespace TEXT PRIMARY KEY, used INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TRIGGER blob_comes AFTER INSERT ON blobs BEGIN
    INSERT INTO usage VALUES (new.namespace, new.size)
        ON CONFLICT (namespace) DO UPDATE SET used = used + excluded.used;
END;
CREATE TRIGGER blob_goes AFTER DELETE ON blobs BEGIN
    UPDATE usage SET used = used - old.size WHERE namespace = old.namespace;
END;
";

/// Opens for writing. The flag says whether the tables are new, so that the content has to be rebuilt.
pub(super) fn open_writer(path: &Path) -> rusqlite::Result<(Connection, bool)> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The layout is the truth and is synced: a commit that SQLite loses with the power is found missing and rebuilt.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == VERSION {
        return Ok((connection, false));
    }
    if version != 0 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    connection.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))?;
    Ok((connection, true))
}

/// Opens for reading, beside the writer.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    Ok(connection)
}
