//! The artefact and record store: the only state of Edgeyard outside the Kubernetes API.
//!
//! Blobs and results lie in an OCI image layout behind `object_store`; `index.json` is the truth about what belongs to
//! whom, and SQLite is a copy of it that answers questions quickly and can be thrown away. See [`layout`] for the order
//! of writes that makes `kill -9` harmless.

pub mod args;
pub mod commands;
pub mod api;
pub mod auth;
pub mod quota;
pub mod index;
pub mod layout;
pub mod storage;
pub mod sweep;
pub mod fsck;
pub mod metrics;
pub mod server;
pub mod tls;

/// Gives the time in milliseconds since 1970; injected so that tests can move it.
pub type Clock = std::sync::Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's clock.
pub fn system_clock() -> Clock {
    std::sync::Arc::new(|| jiff::Timestamp::now().as_millisecond())
}

/// A time of a [`Clock`] as RFC 3339 in UTC.
pub fn rfc3339(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
