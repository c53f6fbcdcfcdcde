//! Writes to the API server, each with a timeout, the one field manager, and an error that names the object.
//!
//! Kube's client retries a request for up to minutes; a reconciler that waited for it would hold its slot.

use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::object::HasStatus;
use kube::core::{ApiResource, NamespaceResourceScope};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use super::Error;
use super::names::FIELD_MANAGER;

/// How long one call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// Server-side apply of an object that is wholly ours; gives back what is stored.
///
/// # Errors
/// [`Error`]; [`Error::Conflict`] when the object carries a `resourceVersion` that is outdated.
pub async fn apply<K>(client: &Client, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned,
{
    let body = typed::<K>(serde_json::to_value(object).map_err(|e| Error::Unexpected(e.to_string()))?);
    let action = format!("apply {}", describe(object));
    let patch = Patch::Apply(&body);
    let api = any_api::<K>(client, object.meta().namespace.as_deref());
    let stored =
        call(action, api.patch(&object.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &patch)).await?;
    stored.try_parse().map_err(|e| Error::Unexpected(format!("the API server's answer cannot be read: {e}")))
}

/// Creates an object, for names that must not be taken over. Gives `None` when it exists already.
///
/// # Errors
/// [`Error`].
pub async fn create<K>(client: &Client, object: &K) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
{
    let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    match call(format!("create {}", describe(object)), api.create(&params, object)).await {
        Ok(created) => Ok(Some(created)),
        Err(Error::Conflict { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes `status` if it differs from the object's. The write is a compare-and-swap on the object as it was read, so
/// that a status computed from an old sight never replaces a newer one. Gives whether it wrote.
///
/// # Errors
/// [`Error`]; [`Error::Conflict`] when the object changed since it was read: reconcile again.
pub async fn update_status<K>(client: &Client, object: &K, status: &K::Status) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + HasStatus + DeserializeOwned + Clone + Debug,
    K::Status: Serialize + PartialEq,
{
    if object.status() == Some(status) {
        return Ok(false);
    }
    swap_status(client, object, status).await?;
    Ok(true)
}

/// As [`update_status`], also when nothing differs; gives back the object with its new `resourceVersion`.
///
/// # Errors
/// As [`update_status`].
pub async fn swap_status<K>(client: &Client, object: &K, status: &K::Status) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + HasStatus + DeserializeOwned + Clone + Debug,
    K::Status: Serialize,
{
    let meta = object.meta();
    let body = typed::<K>(serde_json::json!({
        "metadata": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "resourceVersion": meta.resource_version },
        "status": status,
    }));
    let api = any_api::<K>(client, meta.namespace.as_deref());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let action = format!("write the status of {}", describe(object));
    let stored = call(action, api.patch_status(&object.name_any(), &params, &Patch::Apply(&body))).await?;
    stored.try_parse().map_err(|e| Error::Unexpected(format!("the API server's answer cannot be read: {e}")))
}

/// Deletes exactly this object (by UID), dependents in the background. Gone already is success.
///
/// # Errors
/// [`Error`].
pub async fn delete<K>(client: &Client, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    let params = DeleteParams {
        preconditions: object.meta().uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::background()
    };
    delete_with(client, object, &params).await
}

/// As [`delete`], without waiting for a pod to end by itself: its node is taken to be lost.
///
/// # Errors
/// [`Error`].
pub async fn delete_now<K>(client: &Client, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    let params = DeleteParams {
        preconditions: object.meta().uid.clone().map(|uid| Preconditions { uid: Some(uid), resource_version: None }),
        ..DeleteParams::background().grace_period(0)
    };
    delete_with(client, object, &params).await
}

/// Reads one object; `None` when there is none.
///
/// # Errors
/// [`Error`].
pub async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    call(format!("read {} {namespace}/{name}", K::kind(&())), api.get_opt(name)).await
}

/// Lists the objects of one namespace that have these labels (`a=b,c=d`).
///
/// # Errors
/// [`Error`].
pub async fn list<K>(client: &Client, namespace: &str, labels: &str) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(labels);
    Ok(call(format!("list {} in {namespace}", K::plural(&())), api.list(&params)).await?.items)
}

/// Any call of kube's, with the timeout and a named error.
///
/// # Errors
/// [`Error`].
pub async fn call<T>(
    action: impl Into<String>,
    future: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::api(action, source)),
        Err(_) => Err(Error::Timeout { action: action.into(), after: CALL_TIMEOUT }),
    }
}

/// `Kind namespace/name`, for messages.
pub fn describe<K: Resource<DynamicType = ()>>(object: &K) -> String {
    match &object.meta().namespace {
        Some(namespace) => format!("{} {namespace}/{}", K::kind(&()), object.name_any()),
        None => format!("{} {}", K::kind(&()), object.name_any()),
    }
}

async fn delete_with<K>(client: &Client, object: &K, params: &DeleteParams) -> Result<(), Error>
where
    K: Resource<DynamicType = ()>,
{
    let api = any_api::<K>(client, object.meta().namespace.as_deref());
    match call(format!("delete {}", describe(object)), api.delete(&object.name_any(), params)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        // The UID is another one: what was to go is gone.
        Err(Error::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One way to reach cluster-wide and namespaced kinds alike.
fn any_api<K: Resource<DynamicType = ()>>(client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<K>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Adds what server-side apply wants to see.
fn typed<K: Resource<DynamicType = ()>>(mut body: serde_json::Value) -> serde_json::Value {
    body["apiVersion"] = K::api_version(&()).into_owned().into();
    body["kind"] = K::kind(&()).into_owned().into();
    // An apply must not carry these; they come along when an object that was read is applied again.
    if let Some(meta) = body["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    body
}
