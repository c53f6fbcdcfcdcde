//! The benchmark record: what one BenchmarkRun found on one device, for good.
//!
//! Every field is always present. What is unknown is `null`, and `unavailable` says why. There are
//! no floating point numbers: times are integer nanoseconds, ratios are decimal strings, so the
//! canonical JSON (see [`canonical`]) and its digest do not depend on who writes it.

pub mod canonical;
mod reasons;
mod schema;

pub use canonical::{CanonicalError, canonical_json, digest};
pub use schema::*;
