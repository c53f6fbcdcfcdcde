//! The public keys that grants are verified with: from a file, or from the ConfigMap that the operator keeps.

use std::sync::{Mutex, PoisonError};

use edgeyard_artifact::grant::{self, VerifyingKey};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use crate::api::ApiError;

/// A key that was taken out of the ConfigMap is believed no longer than this.
const LIFETIME_MS: i64 = 60_000;
/// A signature that fits no key makes the store look again, but not more often than this.
const PAUSE_MS: i64 = 2_000;

/// Where the keys are.
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum GrantKeys {
    /// No grants are taken.
    None,
    /// Always the same.
    Fixed(Vec<VerifyingKey>),
    /// A ConfigMap of the cluster.
    ConfigMap {
        /// The namespace's ConfigMaps.
        api: Api<ConfigMap>,
        /// Its name.
        name: String,
        /// What was read last, and when.
        read: Mutex<Option<(Vec<VerifyingKey>, i64)>>,
    },
}

impl GrantKeys {
    /// Keys from a ConfigMap of the namespace that `api` looks at.
    pub fn config_map(api: Api<ConfigMap>, name: impl Into<String>) -> Self {
        Self::ConfigMap { api, name: name.into(), read: Mutex::new(None) }
    }

    pub(super) async fn known(&self, now: i64) -> Result<Vec<VerifyingKey>, ApiError> {
        self.no_older_than(LIFETIME_MS, now).await
    }

    pub(super) async fn refreshed(&self, now: i64) -> Result<Vec<VerifyingKey>, ApiError> {
        self.no_older_than(PAUSE_MS, now).await
    }

    async fn no_older_than(&self, age: i64, now: i64) -> Result<Vec<VerifyingKey>, ApiError> {
        let (api, name, read) = match self {
            Self::None => return Ok(Vec::new()),
            Self::Fixed(keys) => return Ok(keys.clone()),
            Self::ConfigMap { api, name, read } => (api, name, read),
        };
        let last = read.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((keys, at)) = last
            && now - at < age
        {
            return Ok(keys);
        }
        let unavailable = |why: String| ApiError::unavailable(format!("the key of grants is not known yet: {why}"));
        let found = match super::kubernetes::in_time(api.get_opt(name)).await {
            Ok(found) => found.ok_or_else(|| unavailable(format!("the operator has not made ConfigMap {name}")))?,
            Err(why) => return Err(unavailable(why)),
        };
        let data = found.data.unwrap_or_default();
        let mut keys = Vec::new();
        for field in ["public", "previous"] {
            if let Some(text) = data.get(field).filter(|text| !text.trim().is_empty()) {
                let key = grant::decode_public(text);
                keys.push(key.map_err(|error| unavailable(format!("{field} in ConfigMap {name}: {error}")))?);
            }
        }
        *read.lock().unwrap_or_else(PoisonError::into_inner) = Some((keys.clone(), now));
        Ok(keys)
    }
}
