//! Adding and removing a finalizer. Kube's helper wraps a whole reconciler; here the pipeline stays in charge, because a
//! lease whose owner is gone must still go through its own states.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::Error;
use super::names::FIELD_MANAGER;
use super::write::{call, describe};

/// Whether the object has the finalizer.
pub fn has<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.finalizers().iter().any(|present| present == finalizer)
}

/// Adds the finalizer; present already is success.
///
/// # Errors
/// [`Error::Conflict`] when the object changed since it was read.
pub async fn add<K>(client: &Client, object: &K, finalizer: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    if has(object, finalizer) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    set(client, object, &finalizers, "add a finalizer to").await
}

/// Removes the finalizer; absent or an object that is gone is success.
///
/// # Errors
/// [`Error::Conflict`] when the object changed since it was read.
pub async fn remove<K>(client: &Client, object: &K, finalizer: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    if !has(object, finalizer) {
        return Ok(());
    }
    let finalizers: Vec<_> = object.finalizers().iter().filter(|present| *present != finalizer).cloned().collect();
    match set(client, object, &finalizers, "remove a finalizer from").await {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}

/// A merge patch with `resourceVersion`: lists are replaced whole, so the list must be the one that was read.
async fn set<K>(client: &Client, object: &K, finalizers: &[String], verb: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let body = serde_json::json!({
        "metadata": { "finalizers": finalizers, "uid": object.uid(), "resourceVersion": object.resource_version() },
    });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    call(format!("{verb} {}", describe(object)), api.patch(&object.name_any(), &params, &Patch::Merge(&body))).await?;
    Ok(())
}
