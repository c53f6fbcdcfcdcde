//! One request, repeated until it is answered or the patience ends; and the TLS set-up below it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{Bearer, Client, ClientError};
use crate::ErrorBody;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer; a large upload is hashed and synced before it is answered.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// What one try ended with.
pub(super) enum Failure {
    /// Repeating does not help.
    Final(ClientError),
    /// No usable answer.
    Connection(reqwest::Error),
    /// 5xx or 429.
    Busy(StatusCode, String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Final(error)
    }
}

/// The HTTP client and the parsed base URL.
pub(super) fn connector(
    url: &str,
    authority_pem: Option<&str>,
    address: Option<SocketAddr>,
) -> Result<(reqwest::Client, Url), ClientError> {
    let mut base =
        Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host()).ok_or_else(|| {
            ClientError::Configuration(format!("{url:?} is not the URL of a store: write https://HOST:PORT"))
        })?;
    // The store is in the cluster or on loopback; a proxy for the outside world would only break the way to it.
    let mut builder = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT);
    // The provider is named here, so that a program need not install one, and two providers cannot collide.
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Configuration(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(authorities(&base, authority_pem)?)
        .with_no_client_auth();
    builder = builder.use_preconfigured_tls(tls);
    if let (Some(address), Some(host)) = (address, base.host_str().map(str::to_owned)) {
        builder = builder.resolve(&host, address);
        // A port in the URL wins over that of the address.
        let changed = base.set_port(Some(address.port()));
        debug_assert!(changed.is_ok(), "an http URL takes a port");
    }
    let http = builder
        .build()
        .map_err(|error| ClientError::Configuration(format!("the HTTP client cannot be set up: {error}")))?;
    Ok((http, base))
}

fn authorities(base: &Url, pem: Option<&str>) -> Result<rustls::RootCertStore, ClientError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.unwrap_or_default().as_bytes()) {
        let added = certificate.ok().and_then(|certificate| roots.add(certificate).ok());
        if added.is_none() {
            return Err(ClientError::Configuration("the certificate authority is not PEM of certificates".into()));
        }
    }
    if roots.is_empty() && base.scheme() == "https" {
        return Err(ClientError::Configuration(format!(
            "{base} needs a certificate authority: give the PEM that signed the store's certificate"
        )));
    }
    Ok(roots)
}

/// The base URL with these path segments, each percent-encoded as needed.
pub(super) fn path_segments(base: &Url, segments: &[&str]) -> Result<Url, ClientError> {
    // "." and ".." would be folded into another path by the URL's own rules.
    if let Some(bad) = segments.iter().find(|s| s.is_empty() || **s == "." || **s == "..") {
        return Err(ClientError::Configuration(format!("{bad:?} cannot be a name in the store")));
    }
    let mut url = base.clone();
    url.path_segments_mut()
        .map_err(|()| ClientError::Configuration(format!("{base} cannot be the URL of a store")))?
        .pop_if_empty()
        .extend(segments);
    Ok(url)
}

impl Client {
    /// Sends a request until it is answered, and gives the answer's body.
    pub(super) async fn send(
        &self,
        action: String,
        request: impl Fn(&reqwest::Client) -> RequestBuilder + Send + Sync,
    ) -> Result<Bytes, ClientError> {
        let mut retry = self.retry(&action);
        loop {
            let attempt = async {
                let response = self.once(&action, request(&self.inner.http)).await?;
                response.bytes().await.map_err(Failure::Connection)
            };
            match attempt.await {
                Ok(body) => return Ok(body),
                Err(failure) => retry.after(failure).await?,
            }
        }
    }

    /// One try; anything but success is a [`Failure`].
    pub(super) async fn once(&self, action: &str, request: RequestBuilder) -> Result<Response, Failure> {
        let bearer = self.bearer().await?;
        let response = request.bearer_auth(bearer).send().await.map_err(|error| self.classify(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.unwrap_or_default();
        let ErrorBody { reason, message } = serde_json::from_slice(&body).unwrap_or_else(|_| ErrorBody {
            reason: status.canonical_reason().unwrap_or("Unknown").replace(' ', ""),
            message: String::from_utf8_lossy(&body).chars().take(300).collect(),
        });
        let repeat = status == StatusCode::TOO_MANY_REQUESTS
            || (status.is_server_error() && status != StatusCode::INSUFFICIENT_STORAGE);
        if repeat {
            return Err(Failure::Busy(status, message));
        }
        let refused = ClientError::Refused { action: action.to_owned(), status: status.as_u16(), reason, message };
        Err(Failure::Final(refused))
    }

    /// Counts the tries of one call.
    pub(super) fn retry<'a>(&'a self, action: &'a str) -> Retry<'a> {
        Retry { client: self, action, started: Instant::now(), pause: FIRST_PAUSE }
    }

    fn classify(&self, error: reqwest::Error) -> Failure {
        if certificate_is_refused(&error) {
            return Failure::Final(ClientError::Untrusted { url: self.inner.base.to_string(), source: error });
        }
        Failure::Connection(error)
    }

    async fn bearer(&self) -> Result<String, ClientError> {
        match &self.inner.bearer {
            Bearer::Grant(token) | Bearer::Token(token) => Ok(token.trim().to_owned()),
            Bearer::TokenFile(path) => match tokio::fs::read_to_string(path).await {
                Ok(token) => Ok(token.trim().to_owned()),
                Err(source) => Err(ClientError::File { path: path.clone(), source }),
            },
        }
    }
}

/// The tries of one call, with growing pauses for as long as the client's patience lasts.
pub(super) struct Retry<'a> {
    client: &'a Client,
    action: &'a str,
    started: Instant,
    pause: Duration,
}

impl Retry<'_> {
    /// Waits before the next try, or says that there is none.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), ClientError> {
        let waited = self.started.elapsed();
        let over = waited + self.pause > self.client.patience;
        let action = self.action;
        let url = || self.client.inner.base.to_string();
        match failure {
            Failure::Final(error) => return Err(error),
            Failure::Connection(source) if over => {
                return Err(ClientError::Unreachable { action: action.to_owned(), url: url(), waited, source });
            }
            Failure::Busy(status, message) if over => {
                let (action, status) = (action.to_owned(), status.as_u16());
                return Err(ClientError::Unavailable { action, url: url(), waited, status, message });
            }
            Failure::Connection(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(action, error, "the store is not reachable; trying again");
            }
            Failure::Busy(status, message) => {
                tracing::warn!(action, status = status.as_u16(), message, "the store is not ready; trying again");
            }
        }
        tokio::time::sleep(jitter(self.pause)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Half to all of `pause`, so that many pods do not come back at the same moment.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [128];
    // Without randomness every pod waits the same; that is worse, but no failure.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause * u32::from(byte[0]) / 512
}

/// Whether rustls refused the certificate. `io::Error` wraps it twice, and its `source` skips what it wraps.
fn certificate_is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
        return true;
    }
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.is_some_and(|inner| certificate_is_refused(inner)) || error.source().is_some_and(certificate_is_refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_single_segments() {
        let base = Url::parse("https://store:8443/").unwrap();
        let url = path_segments(&base, &["v1", "a/b", "c?d"]).unwrap();
        assert_eq!(url.as_str(), "https://store:8443/v1/a%2Fb/c%3Fd");
        assert!(path_segments(&base, &["v1", ".."]).is_err());
        assert!(path_segments(&base, &["v1", ""]).is_err());
    }

    #[test]
    fn https_needs_an_authority_and_urls_are_checked() {
        for (url, pem) in [
            ("https://store:8443", None),
            ("https://store:8443", Some("no pem")),
            ("ftp://store", None),
            ("store:8443", None),
        ] {
            assert!(matches!(connector(url, pem, None), Err(ClientError::Configuration(_))), "{url}");
        }
        assert!(connector("http://127.0.0.1:1", None, None).is_ok());
    }

    /// Controllers and runtimes move these futures between threads.
    #[test]
    fn every_call_can_be_spawned() {
        fn spawnable(_: impl Future + Send + 'static) {}
        let access = super::super::StoreAccess { url: "http://127.0.0.1:1".into(), certificate_authority_pem: None };
        let client = Client::new(access, Bearer::Token("t".into())).unwrap();
        let digest = crate::digest_of("");
        macro_rules! check {
            ($($call:expr),* $(,)?) => {$({
                let c = client.clone();
                spawnable(async move { drop($call(&c).await) });
            })*};
        }
        check!(
            |c: &Client| {
                let c = c.clone();
                async move { c.has_blob("n", &digest).await }
            },
            |c: &Client| {
                let c = c.clone();
                async move { c.get_blob("n", &digest).await }
            },
            |c: &Client| {
                let c = c.clone();
                async move { c.put_blob("n", vec![1], "a/b").await }
            },
            |c: &Client| {
                let c = c.clone();
                async move { c.put_result("n", "u", 1, "a/b", "{}").await }
            },
            |c: &Client| {
                let c = c.clone();
                async move { c.put_progress("n", "u", 1, &1).await }
            },
            |c: &Client| {
                let c = c.clone();
                async move { c.pin("n", "o", &[digest]).await }
            },
            |c: &Client| {
                let c = c.clone();
                async move { c.get_blob_to_file("n", &digest, std::path::Path::new("f")).await }
            },
        );
    }

    #[test]
    fn jitter_stays_within_bounds() {
        let pause = Duration::from_secs(1);
        for _ in 0..100 {
            let waited = jitter(pause);
            assert!(waited >= pause / 2 && waited <= pause, "{waited:?}");
        }
    }
}
