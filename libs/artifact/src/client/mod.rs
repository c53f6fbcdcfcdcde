//! The store's HTTP client. Every call is idempotent, so every call is retried while the store is away.

mod error;
mod request;
mod transfer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use error::{ClientError, ErrorClass};
pub use transfer::{OnProgress, Upload};

use crate::{Descriptor, Digest, PinList, ResultList, Usage};
use request::path_segments;

/// How long a call is repeated before it fails: a store may be away while its node is replaced.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(300);

/// Where the store is, and whose certificate it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreAccess {
    /// Base URL, such as `https://edgeyard-store.edgeyard-system.svc:8443`.
    pub url: String,
    /// The certificate authority as PEM; needed for https, and the only one trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority_pem: Option<String>,
}

/// What is shown to the store.
#[derive(Clone)]
pub enum Bearer {
    /// A grant signed by the operator.
    Grant(String),
    /// A file with a ServiceAccount token; read again for every request, because it is rotated.
    TokenFile(PathBuf),
    /// A token.
    Token(String),
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Grant(_) => f.write_str("Grant(…)"),
            Self::TokenFile(path) => f.debug_tuple("TokenFile").field(path).finish(),
            Self::Token(_) => f.write_str("Token(…)"),
        }
    }
}

/// Which results to list.
#[derive(Debug, Clone, Default)]
pub struct ResultFilter {
    /// Only this media type.
    pub media_type: Option<String>,
    /// Only this `metadata.name`.
    pub name: Option<String>,
    /// At most so many, newest first.
    pub limit: Option<u32>,
}

/// A client of one store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
    patience: Duration,
}

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    base: Url,
    bearer: Bearer,
}

impl Client {
    /// A client with [`DEFAULT_PATIENCE`].
    ///
    /// # Errors
    /// [`ClientError::Configuration`] for a URL or certificate authority that cannot be used.
    pub fn new(access: StoreAccess, bearer: Bearer) -> Result<Self, ClientError> {
        Self::build(access, bearer, None)
    }

    /// Like [`Client::new`], but connects to `address` whatever the URL's host resolves to: for a store behind a
    /// port-forward, whose certificate names its Service.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn through(access: StoreAccess, bearer: Bearer, address: SocketAddr) -> Result<Self, ClientError> {
        Self::build(access, bearer, Some(address))
    }

    fn build(access: StoreAccess, bearer: Bearer, address: Option<SocketAddr>) -> Result<Self, ClientError> {
        let StoreAccess { url, certificate_authority_pem } = access;
        let (http, base) = request::connector(&url, certificate_authority_pem.as_deref(), address)?;
        Ok(Self { inner: Arc::new(Inner { http, base, bearer }), patience: DEFAULT_PATIENCE })
    }

    /// The same client with another patience; zero tries once.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        Self { inner: Arc::clone(&self.inner), patience }
    }

    /// Whether the namespace has the blob.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn has_blob(&self, namespace: &str, digest: &Digest) -> Result<bool, ClientError> {
        Ok(self.blob_size(namespace, digest).await?.is_some())
    }

    /// The length of a blob; `None` if the namespace has no such blob.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn blob_size(&self, namespace: &str, digest: &Digest) -> Result<Option<u64>, ClientError> {
        let url = self.blob_url(namespace, digest)?;
        let action = format!("look for {digest}");
        let mut retry = self.retry(&action);
        loop {
            let failure = match self.once(&action, self.inner.http.head(url.clone())).await {
                Ok(response) => {
                    let length = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
                    return Ok(Some(length.and_then(|text| text.parse().ok()).unwrap_or_default()));
                }
                Err(failure) => failure,
            };
            match retry.after(failure).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Puts the one result of (`uid`, `attempt`). The same bytes again give the same answer.
    ///
    /// # Errors
    /// [`ClientError`]; class `Superseded` when another attempt's bytes are there or the lease was lost.
    pub async fn put_result(
        &self,
        namespace: &str,
        uid: &str,
        attempt: u32,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<Descriptor, ClientError> {
        let url = self.result_url("results", namespace, uid, attempt)?;
        let body = body.into();
        let action = format!("store the result of {uid}/{attempt}");
        let answer = self
            .send(action.clone(), |http| http.put(url.clone()).header(CONTENT_TYPE, media_type).body(body.clone()))
            .await?;
        parse(&action, &answer)
    }

    /// The body of a result, byte for byte.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_result(&self, namespace: &str, uid: &str, attempt: u32) -> Result<Bytes, ClientError> {
        let url = self.result_url("results", namespace, uid, attempt)?;
        self.send(format!("read the result of {uid}/{attempt}"), |http| http.get(url.clone())).await
    }

    /// The namespace's results, newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_results(&self, namespace: &str, filter: &ResultFilter) -> Result<ResultList, ClientError> {
        let mut url = self.url(&["v1", "namespaces", namespace, "results"])?;
        let ResultFilter { media_type, name, limit } = filter;
        let pairs =
            [("mediaType", media_type.clone()), ("name", name.clone()), ("limit", limit.map(|n| n.to_string()))];
        for (key, value) in pairs {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(key, &value);
            }
        }
        let action = format!("list the results of {namespace}");
        let answer = self.send(action.clone(), |http| http.get(url.clone())).await?;
        parse(&action, &answer)
    }

    /// Says how far (`uid`, `attempt`) is; the last word wins. Tried once: the next report follows anyway.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put_progress<T: Serialize + Sync>(
        &self,
        namespace: &str,
        uid: &str,
        attempt: u32,
        progress: &T,
    ) -> Result<(), ClientError> {
        let url = self.result_url("progress", namespace, uid, attempt)?;
        let once = self.with_patience(Duration::ZERO);
        once.send(format!("note the progress of {uid}/{attempt}"), |http| http.put(url.clone()).json(progress)).await?;
        Ok(())
    }

    /// The last progress of (`uid`, `attempt`), if the store has heard of any since it started.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_progress<T: DeserializeOwned>(
        &self,
        namespace: &str,
        uid: &str,
        attempt: u32,
    ) -> Result<Option<T>, ClientError> {
        let url = self.result_url("progress", namespace, uid, attempt)?;
        let action = format!("read the progress of {uid}/{attempt}");
        match self.send(action.clone(), |http| http.get(url.clone())).await {
            Ok(answer) => parse(&action, &answer).map(Some),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps `digests` from being swept, in place of what `owner` pinned before.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pin(&self, namespace: &str, owner: &str, digests: &[Digest]) -> Result<(), ClientError> {
        let url = self.url(&["v1", "namespaces", namespace, "pins", owner])?;
        let body = serde_json::json!({ "digests": digests });
        self.send(format!("pin blobs for {owner}"), |http| http.put(url.clone()).json(&body)).await?;
        Ok(())
    }

    /// Lets go of all that `owner` pinned; nothing pinned is success too.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unpin(&self, namespace: &str, owner: &str) -> Result<(), ClientError> {
        let url = self.url(&["v1", "namespaces", namespace, "pins", owner])?;
        self.send(format!("unpin blobs of {owner}"), |http| http.request(Method::DELETE, url.clone())).await?;
        Ok(())
    }

    /// Who has pinned blobs, in all namespaces: for finding owners that are gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_pins(&self) -> Result<PinList, ClientError> {
        let url = self.url(&["v1", "pins"])?;
        let action = "list pins".to_owned();
        let answer = self.send(action.clone(), |http| http.get(url.clone())).await?;
        parse(&action, &answer)
    }

    /// What the namespace uses of its quota.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn usage(&self, namespace: &str) -> Result<Usage, ClientError> {
        let url = self.url(&["v1", "namespaces", namespace, "usage"])?;
        let action = format!("tell the usage of {namespace}");
        let answer = self.send(action.clone(), |http| http.get(url.clone())).await?;
        parse(&action, &answer)
    }

    fn url(&self, segments: &[&str]) -> Result<Url, ClientError> {
        path_segments(&self.inner.base, segments)
    }

    fn blob_url(&self, namespace: &str, digest: &Digest) -> Result<Url, ClientError> {
        self.url(&["v1", "namespaces", namespace, "blobs", &digest.to_string()])
    }

    fn result_url(&self, kind: &str, namespace: &str, uid: &str, attempt: u32) -> Result<Url, ClientError> {
        self.url(&["v1", "namespaces", namespace, kind, uid, &attempt.to_string()])
    }
}

fn parse<T: DeserializeOwned>(action: &str, answer: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(answer).map_err(|source| ClientError::Answer { action: action.to_owned(), source })
}
