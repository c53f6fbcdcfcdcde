//! Artefacts by digest: what names them, who may touch them, and the client of the store that keeps them.
//!
//! Every other part speaks to the store through [`Client`]; the operator signs a [`grant`] for each pod and the store
//! verifies it. Nothing here knows Kubernetes, and nothing but the client does IO.

mod digest;
mod descriptor;
pub mod grant;
#[cfg(feature = "client")]
mod client;

#[cfg(feature = "client")]
pub use client::{
    Bearer, Client, ClientError, DEFAULT_PATIENCE, ErrorClass, OnProgress, ResultFilter, StoreAccess, Upload,
};
pub use descriptor::{Descriptor, ErrorBody, PinList, PinOwner, ResultEntry, ResultList, Usage, media_type};
pub use digest::{Digest, DigestError, Hasher, digest_of, find_digests};
