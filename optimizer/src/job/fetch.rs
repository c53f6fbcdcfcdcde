//! Brings one input into a local file: from a mounted path, over https, or from S3. No more than the limit is ever
//! read, and the digest is computed on the way.

use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use edgeyard_artifact::Hasher;
use edgeyard_job::ExitCode;
use edgeyard_job::spec::ImportFrom;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use reqwest::{StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::addresses::{PrivateAddress, Resolver, is_public};

const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Pauses before a failed download is tried again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Names a PEM file of further certificate authorities, as OpenSSL has it.
const AUTHORITIES_VARIABLE: &str = "SSL_CERT_FILE";

/// Why an input cannot be brought.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The file or object is not there.
    #[error("{place} does not exist: {problem}")]
    NotFound {
        /// Path or URI.
        place: String,
        /// What was answered.
        problem: String,
    },
    /// More bytes than allowed.
    #[error("{place} is larger than {max_bytes} bytes, the limit for imports; ask an administrator to raise it")]
    TooLarge {
        /// Path or URI.
        place: String,
        /// The limit.
        max_bytes: u64,
    },
    /// An address that is not public.
    #[error(transparent)]
    Private(#[from] PrivateAddress),
    /// A URI that is not supported.
    #[error("{uri} cannot be fetched: {problem}")]
    Uri {
        /// The URI.
        uri: String,
        /// Why not.
        problem: String,
    },
    /// The other side refuses.
    #[error("{place} may not be read: {problem}; give credentials with secretRef")]
    Denied {
        /// Path or URI.
        place: String,
        /// What was answered.
        problem: String,
    },
    /// Nobody answers, or the answer breaks off.
    #[error("{place} cannot be reached: {problem}")]
    Unreachable {
        /// The URI.
        place: String,
        /// What happened.
        problem: String,
    },
    /// The local disk.
    #[error("the working folder cannot be written")]
    Disk(#[source] std::io::Error),
}

impl FetchError {
    /// The reason for a termination message.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "InputNotFound",
            Self::TooLarge { .. } => "InputTooLarge",
            Self::Private(_) => "PrivateAddress",
            Self::Uri { .. } => "InvalidUri",
            Self::Denied { .. } => "InputDenied",
            Self::Unreachable { .. } => "SourceUnreachable",
            Self::Disk(_) => "DiskFailed",
        }
    }

    /// The exit code for a job.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreachable { .. } | Self::Disk(_) => ExitCode::Infrastructure,
            _ => ExitCode::BadInput,
        }
    }
}

/// What may be fetched.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Whether addresses may be private.
    pub allow_private: bool,
    /// No input is larger.
    pub max_bytes: u64,
}

/// Brings an input to `to`; gives its digest and size.
pub async fn fetch(
    from: &ImportFrom,
    to: &Path,
    limits: Limits,
) -> Result<(edgeyard_artifact::Digest, u64), FetchError> {
    match from {
        ImportFrom::Path(path) => copy(Path::new(path), to, limits).await,
        ImportFrom::Uri(uri) => {
            let url = Url::parse(uri).map_err(|error| invalid(uri, error.to_string()))?;
            let mut pauses = PAUSES.into_iter();
            loop {
                let tried = match url.scheme() {
                    "https" => download(&url, to, limits).await,
                    "s3" => download_s3(&url, to, limits).await,
                    scheme => Err(invalid(uri, format!("{scheme} is not supported; use https or s3"))),
                };
                match (tried, pauses.next()) {
                    (Err(FetchError::Unreachable { .. }), Some(pause)) => tokio::time::sleep(pause).await,
                    (done, _) => return done,
                }
            }
        }
    }
}

fn invalid(uri: &str, problem: String) -> FetchError {
    FetchError::Uri { uri: uri.to_owned(), problem }
}

async fn copy(path: &Path, to: &Path, limits: Limits) -> Result<(edgeyard_artifact::Digest, u64), FetchError> {
    let place = path.display().to_string();
    let open = async || -> std::io::Result<(tokio::fs::File, std::fs::Metadata)> {
        let file = tokio::fs::File::open(path).await?;
        let metadata = file.metadata().await?;
        Ok((file, metadata))
    };
    let (file, metadata) = open().await.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => FetchError::Denied { place: place.clone(), problem: error.to_string() },
        _ => FetchError::NotFound { place: place.clone(), problem: error.to_string() },
    })?;
    if !metadata.is_file() {
        return Err(FetchError::NotFound { place, problem: "it is not a file".to_owned() });
    }
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; 1 << 18];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then_some((chunk, file)))
    });
    let chunks = chunks.map_err(|error| FetchError::Unreachable { place: place.clone(), problem: error.to_string() });
    save(chunks, &place, to, limits).await
}

async fn save<B: AsRef<[u8]>>(
    chunks: impl Stream<Item = Result<B, FetchError>>,
    place: &str,
    to: &Path,
    limits: Limits,
) -> Result<(edgeyard_artifact::Digest, u64), FetchError> {
    let mut file = tokio::fs::File::create(to).await.map_err(FetchError::Disk)?;
    let mut hasher = Hasher::new();
    let mut chunks = std::pin::pin!(chunks);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        hasher.update(chunk.as_ref());
        if hasher.len() > limits.max_bytes {
            return Err(FetchError::TooLarge { place: place.to_owned(), max_bytes: limits.max_bytes });
        }
        file.write_all(chunk.as_ref()).await.map_err(FetchError::Disk)?;
    }
    file.flush().await.map_err(FetchError::Disk)?;
    let len = hasher.len();
    Ok((hasher.finish(), len))
}

/// A client that speaks to checked addresses only, redirects included.
fn client(allow_private: bool) -> Result<reqwest::Client, String> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = std::env::var_os(AUTHORITIES_VARIABLE).map(PathBuf::from) {
        let said = |problem: String| format!("{AUTHORITIES_VARIABLE} names {}: {problem}", file.display());
        for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| said(error.to_string()))? {
            let certificate = certificate.map_err(|error| said(error.to_string()))?;
            roots.add(certificate).map_err(|error| said(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
        }
        if attempt.url().scheme() != "https" {
            let problem = format!("it redirects to {}, which is not https", attempt.url());
            return attempt.error(problem);
        }
        match literal(attempt.url()) {
            Some(address) if !allow_private && !is_public(address) => {
                let host = attempt.url().host_str().unwrap_or_default().to_owned();
                attempt.error(PrivateAddress { host, address })
            }
            _ => attempt.follow(),
        }
    });
    reqwest::Client::builder()
        // A proxy would connect on our behalf, to addresses nobody checked.
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Resolver { allow_private })
        .redirect(redirects)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("edgeyard-optimizer/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| error.to_string())
}

/// The address, when the host is written as one: no resolver sees those.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn check_literal(url: &Url, limits: Limits) -> Result<(), FetchError> {
    match literal(url) {
        Some(address) if !limits.allow_private && !is_public(address) => {
            Err(PrivateAddress { host: url.host_str().unwrap_or_default().to_owned(), address }.into())
        }
        _ => Ok(()),
    }
}

async fn download(url: &Url, to: &Path, limits: Limits) -> Result<(edgeyard_artifact::Digest, u64), FetchError> {
    let place = shown(url);
    check_literal(url, limits)?;
    let client = client(limits.allow_private).map_err(|problem| invalid(&place, problem))?;
    let response = client.get(url.clone()).send().await.map_err(|error| failed(&place, &error))?;
    let problem = |status: StatusCode| format!("the server answers {status}");
    match response.status() {
        status if status.is_success() => {}
        status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => {
            return Err(FetchError::NotFound { place, problem: problem(status) });
        }
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(FetchError::Denied { place, problem: problem(status) });
        }
        status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            return Err(invalid(&place, problem(status)));
        }
        status => return Err(FetchError::Unreachable { place, problem: problem(status) }),
    }
    if response.content_length().is_some_and(|length| length > limits.max_bytes) {
        return Err(FetchError::TooLarge { place, max_bytes: limits.max_bytes });
    }
    let chunks = response.bytes_stream().map_err(|error| failed(&place, &error));
    save(chunks, &place, to, limits).await
}

async fn download_s3(url: &Url, to: &Path, limits: Limits) -> Result<(edgeyard_artifact::Digest, u64), FetchError> {
    let place = shown(url);
    // The endpoint comes from the user's Secret, so it is checked like any other address.
    for variable in ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"] {
        if let Some(endpoint) = std::env::var(variable).ok().and_then(|text| Url::parse(&text).ok()) {
            check_literal(&endpoint, limits)?;
        }
    }
    let client = client(limits.allow_private).map_err(|problem| invalid(&place, problem))?;
    let path =
        object_store::path::Path::from_url_path(url.path()).map_err(|error| invalid(&place, error.to_string()))?;
    let store = AmazonS3Builder::from_env()
        .with_url(url.as_str())
        .with_http_connector(Checked(client))
        .build()
        .map_err(|error| invalid(&place, error.to_string()))?;
    let failed = |error: object_store::Error| match &error {
        object_store::Error::NotFound { .. } => {
            FetchError::NotFound { place: place.clone(), problem: "there is no such object".to_owned() }
        }
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            FetchError::Denied { place: place.clone(), problem: error.to_string() }
        }
        _ => private(&error).map_or_else(
            || FetchError::Unreachable { place: place.clone(), problem: super::explain(&error) },
            FetchError::Private,
        ),
    };
    let object = store.get(&path).await.map_err(failed)?;
    if object.meta.size > limits.max_bytes {
        return Err(FetchError::TooLarge { place: place.clone(), max_bytes: limits.max_bytes });
    }
    save(object.into_stream().map_err(failed), &place, to, limits).await
}

/// Gives `object_store` our client instead of its own.
#[derive(Debug)]
struct Checked(reqwest::Client);

impl HttpConnector for Checked {
    fn connect(&self, _: &object_store::ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// A URL without what may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // These fail for URLs without a host only, which have no password either.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.to_string()
}

fn failed(place: &str, error: &reqwest::Error) -> FetchError {
    if let Some(private) = private(error) {
        return private.into();
    }
    if error.is_redirect() {
        return invalid(place, super::explain(error));
    }
    FetchError::Unreachable { place: place.to_owned(), problem: super::explain(error) }
}

/// The refusal of an address, wherever it stands among the causes.
fn private(error: &(dyn Error + 'static)) -> Option<PrivateAddress> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<PrivateAddress>() {
            return Some(found.clone());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fails(uri: &str, limits: Limits) -> FetchError {
        let folder = tempfile::tempdir().unwrap();
        fetch(&ImportFrom::Uri(uri.to_owned()), &folder.path().join("f"), limits).await.unwrap_err()
    }

    #[tokio::test]
    async fn private_addresses_are_refused_by_number_and_by_name() {
        let limits = Limits { allow_private: false, max_bytes: 100 };
        let uris = [
            "https://127.0.0.1/m",
            "https://[::1]/m",
            "https://169.254.169.254/latest",
            "https://localhost:1/m",
            "https://0x7f000001/m",
        ];
        for uri in uris {
            let error = fails(uri, limits).await;
            assert!(matches!(error, FetchError::Private(_)), "{uri}: {error}");
            assert_eq!(error.exit_code(), ExitCode::BadInput);
        }
    }

    #[tokio::test]
    async fn other_schemes_are_refused() {
        for uri in ["http://example.com/m", "file:///etc/passwd", "oci://example.com/m", "nonsense"] {
            let error = fails(uri, Limits { allow_private: true, max_bytes: 100 }).await;
            assert!(matches!(error, FetchError::Uri { .. }), "{uri}: {error}");
        }
    }

    #[tokio::test]
    async fn a_file_is_copied_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"0123456789").unwrap();
        let source = ImportFrom::Path(from.display().to_string());
        let limits = |max_bytes| Limits { allow_private: false, max_bytes };
        let (digest, size) = fetch(&source, &to, limits(10)).await.unwrap();
        assert_eq!((digest, size), (edgeyard_artifact::digest_of(b"0123456789"), 10));
        assert_eq!(std::fs::read(&to).unwrap(), b"0123456789");
        assert!(matches!(fetch(&source, &to, limits(9)).await, Err(FetchError::TooLarge { .. })));
        let missing = ImportFrom::Path(folder.path().join("none").display().to_string());
        assert_eq!(fetch(&missing, &to, limits(9)).await.unwrap_err().reason(), "InputNotFound");
    }

    #[test]
    fn messages_show_no_secrets() {
        let url = Url::parse("https://me:secret@example.com/m.onnx?X-Amz-Signature=abc").unwrap();
        assert_eq!(shown(&url), "https://example.com/m.onnx");
    }
}
