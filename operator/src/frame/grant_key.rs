//! The key that signs grants: private part in a Secret, public part in a ConfigMap that the store reads.
//! Made once, when absent; whoever loses the race to make it takes the other's.

use std::collections::BTreeMap;

use edgeyard_artifact::grant::{self, SigningKey};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::core::ObjectMeta;

use super::names::{MANAGED_BY, MANAGER};
use super::{Error, write};

/// Name of the Secret and of the ConfigMap.
pub const NAME: &str = "edgeyard-grant-key";
const PRIVATE: &str = "private";
const PUBLIC: &str = "public";

/// Reads the key of this namespace, making it when there is none, and publishes its public part.
///
/// # Errors
/// [`Error`]; a Secret of that name without a key is never overwritten.
pub async fn ensure(client: &Client, namespace: &str) -> Result<SigningKey, Error> {
    let key = match write::get::<Secret>(client, namespace, NAME).await? {
        Some(secret) => read(namespace, &secret)?,
        None => make(client, namespace).await?,
    };
    publish(client, namespace, &key).await?;
    Ok(key)
}

async fn make(client: &Client, namespace: &str) -> Result<SigningKey, Error> {
    let key = grant::generate().map_err(|e| Error::Unexpected(format!("the system gives no randomness: {e}")))?;
    let secret = Secret {
        metadata: metadata(namespace),
        data: Some(BTreeMap::from([(PRIVATE.into(), ByteString(grant::encode_private(&key).into_bytes()))])),
        ..Secret::default()
    };
    if write::create(client, &secret).await?.is_some() {
        tracing::info!(secret = NAME, "made the key that signs grants");
        return Ok(key);
    }
    let other = write::get::<Secret>(client, namespace, NAME).await?;
    read(namespace, &other.ok_or_else(|| Error::Conflict { action: format!("make the Secret {NAME}") })?)
}

fn read(namespace: &str, secret: &Secret) -> Result<SigningKey, Error> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(PRIVATE));
    let text = bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    text.and_then(|text| grant::decode_private(text).ok()).ok_or_else(|| {
        Error::Unexpected(format!(
            "the Secret {namespace}/{NAME} has no Ed25519 key under `{PRIVATE}`: delete it and a new one is made"
        ))
    })
}

/// A key that changed moves the old public part to `previous`, so that grants already given stay good.
async fn publish(client: &Client, namespace: &str, key: &SigningKey) -> Result<(), Error> {
    let public = grant::encode_public(&key.verifying_key());
    let present = write::get::<ConfigMap>(client, namespace, NAME).await?.and_then(|map| map.data).unwrap_or_default();
    if present.get(PUBLIC) == Some(&public) {
        return Ok(());
    }
    let mut data = BTreeMap::from([(PUBLIC.to_owned(), public)]);
    if let Some(previous) = present.get(PUBLIC) {
        data.insert("previous".to_owned(), previous.clone());
    }
    let map = ConfigMap { metadata: metadata(namespace), data: Some(data), ..ConfigMap::default() };
    write::apply(client, &map).await?;
    Ok(())
}

fn metadata(namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.into()),
        namespace: Some(namespace.into()),
        labels: Some(BTreeMap::from([(MANAGED_BY.into(), MANAGER.into())])),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::frame::mock::{Exchange, context, finish};

    const NOW: &str = "2026-11-23T09:00:00Z";
    const SECRET: &str = "/api/v1/namespaces/sys/secrets/edgeyard-grant-key";
    const MAP: &str = "/api/v1/namespaces/sys/configmaps/edgeyard-grant-key";

    fn secret(key: &SigningKey) -> Value {
        let data = ByteString(grant::encode_private(key).into_bytes());
        json!({ "metadata": { "name": NAME, "namespace": "sys" }, "data": { "private": data } })
    }

    fn map(public: &str) -> Value {
        json!({ "metadata": { "name": NAME, "namespace": "sys" }, "data": { "public": public } })
    }

    #[tokio::test]
    async fn the_loser_of_the_race_takes_the_winners_key() {
        let winner = grant::generate().unwrap();
        let public = grant::encode_public(&winner.verifying_key());
        let published = public.clone();
        let script = vec![
            Exchange::not_found("GET", SECRET),
            Exchange::conflict("POST", "/api/v1/namespaces/sys/secrets"),
            Exchange::new("GET", SECRET, 200, secret(&winner)),
            Exchange::new("GET", MAP, 200, map("old")),
            Exchange::new("PATCH", MAP, 200, map(&public)).with_body(move |body| {
                assert_eq!(body["data"]["public"], json!(published));
                assert_eq!(body["data"]["previous"], "old", "grants that were given stay good");
            }),
        ];
        let (context, server) = context(NOW, script);
        let key = ensure(&context.client, "sys").await.unwrap();
        assert_eq!(key.to_bytes(), winner.to_bytes());
        finish(context, server).await;
    }

    #[tokio::test]
    async fn a_key_that_is_there_is_kept_and_nothing_is_written() {
        let key = grant::generate().unwrap();
        let public = grant::encode_public(&key.verifying_key());
        let script =
            vec![Exchange::new("GET", SECRET, 200, secret(&key)), Exchange::new("GET", MAP, 200, map(&public))];
        let (context, server) = context(NOW, script);
        assert_eq!(ensure(&context.client, "sys").await.unwrap().to_bytes(), key.to_bytes());
        finish(context, server).await;
    }

    #[tokio::test]
    async fn a_strange_secret_is_not_overwritten() {
        let strange = json!({ "metadata": { "name": NAME, "namespace": "sys" }, "data": {} });
        let (context, server) = context(NOW, vec![Exchange::new("GET", SECRET, 200, strange)]);
        let error = ensure(&context.client, "sys").await.unwrap_err();
        assert!(error.to_string().contains("sys/edgeyard-grant-key"), "{error}");
        finish(context, server).await;
    }
}
