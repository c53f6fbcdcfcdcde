//! Pins: what an object needs or made is kept by the store while the object lives.
//!
//! An owner is the object's UID. Pins are written before the status that names their digests, and removed when the
//! object is gone (see [`gone`](super::gone)): a finalizer would hold every deletion until the store answers, and all that
//! a lost removal costs is space.

use std::collections::BTreeSet;

use edgeyard_artifact::Digest;

use crate::frame::{Context, Error};

/// Pins `new` for an object if it is another set than `old`.
///
/// # Errors
/// [`Error::Store`].
pub async fn update(
    context: &Context,
    namespace: &str,
    uid: &str,
    old: &BTreeSet<String>,
    new: &BTreeSet<String>,
) -> Result<(), Error> {
    if new.is_empty() || new.is_subset(old) {
        return Ok(());
    }
    let digests: Vec<Digest> = new.iter().filter_map(|text| text.parse().ok()).collect();
    context
        .store
        .pin(namespace, uid, &digests)
        .await
        .map_err(|error| Error::store(format!("pin blobs for {uid}"), error))
}
