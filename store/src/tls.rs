//! The store's certificate, read again when its files change: cert-manager and the chart renew it in place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Kubelet refreshes mounted Secrets within about a minute; there is no use in looking more often.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Serves the certificate that was read last.
#[derive(Debug)]
pub struct Certificate {
    files: (PathBuf, PathBuf),
    current: RwLock<(Arc<CertifiedKey>, Vec<u8>)>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read or do not fit each other.
    pub fn open(certificate: &Path, key: &Path) -> anyhow::Result<Arc<Self>> {
        let files = (certificate.to_owned(), key.to_owned());
        let current = RwLock::new(read(&files)?);
        Ok(Arc::new(Self { files, current }))
    }

    /// Reads the files again; says whether they have changed.
    ///
    /// # Errors
    /// As [`Certificate::open`]; the old certificate stays in use.
    pub fn reload(&self) -> anyhow::Result<bool> {
        let (key, text) = read(&self.files)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.1 != text;
        *current = (key, text);
        Ok(changed)
    }

    /// Reloads for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.reload() {
                Ok(true) => tracing::info!("the certificate was renewed"),
                Ok(false) => {}
                // Written half, or not yet the matching key: the next look will tell.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the certificate cannot be read again"),
            }
        }
    }

    /// What the TLS listener needs.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<rustls::ServerConfig> {
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(self) as _;
        let mut config =
            builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

fn read((certificate, key): &(PathBuf, PathBuf)) -> anyhow::Result<(Arc<CertifiedKey>, Vec<u8>)> {
    let mut text = std::fs::read(certificate).with_context(|| format!("read {}", certificate.display()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not PEM of certificates", certificate.display()))?;
    anyhow::ensure!(!chain.is_empty(), "{} has no certificate", certificate.display());
    let key_text = std::fs::read(key).with_context(|| format!("read {}", key.display()))?;
    let private = PrivateKeyDer::from_pem_slice(&key_text)
        .with_context(|| format!("{} is not PEM of a private key", key.display()))?;
    let certified = CertifiedKey::from_der(chain, private, &ring::default_provider())
        .with_context(|| format!("{} does not fit {}", key.display(), certificate.display()))?;
    text.extend_from_slice(&key_text);
    Ok((Arc::new(certified), text))
}
