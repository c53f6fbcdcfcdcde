//! Blobs on their way: streamed, digest-checked, resumed after a break, and visible under their name only when whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, RANGE};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use super::request::Failure;
use super::{Client, ClientError};
use crate::{Descriptor, Digest, Hasher, digest_of};

/// Told (bytes done, bytes in all); starts again from 0 when an upload has to be repeated.
pub type OnProgress = Arc<dyn Fn(u64, u64) + Send + Sync>;

const PIECE: usize = 256 * 1024;

/// What to upload.
#[derive(Clone, Debug)]
pub enum Upload {
    /// A file; it must not change meanwhile.
    Path(PathBuf),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl From<&Path> for Upload {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<PathBuf> for Upload {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<Bytes> for Upload {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Upload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Upload {
    /// Digest and length of what would be uploaded.
    ///
    /// # Errors
    /// [`ClientError::File`] when the file cannot be read.
    pub async fn measure(&self) -> Result<(Digest, u64), ClientError> {
        match self {
            Self::Bytes(bytes) => Ok((digest_of(bytes), bytes.len() as u64)),
            Self::Path(path) => {
                let error = |source| ClientError::File { path: path.clone(), source };
                let mut file = tokio::fs::File::open(path).await.map_err(error)?;
                let mut hasher = Hasher::new();
                let mut piece = vec![0; PIECE];
                loop {
                    match file.read(&mut piece).await.map_err(error)? {
                        0 => return Ok((hasher.clone().finish(), hasher.len())),
                        n => hasher.update(&piece[..n]),
                    }
                }
            }
        }
    }

    async fn body(&self, total: u64, progress: Option<OnProgress>) -> Result<reqwest::Body, ClientError> {
        match self {
            Self::Bytes(bytes) => {
                let bytes = bytes.clone();
                let pieces = futures::stream::unfold((bytes, 0), move |(mut rest, done)| {
                    let progress = progress.clone();
                    async move {
                        if rest.is_empty() {
                            return None;
                        }
                        let piece = rest.split_to(rest.len().min(PIECE));
                        let done = done + piece.len() as u64;
                        if let Some(progress) = &progress {
                            progress(done, total);
                        }
                        Some((Ok::<_, std::io::Error>(piece), (rest, done)))
                    }
                });
                Ok(reqwest::Body::wrap_stream(pieces))
            }
            Self::Path(path) => {
                let error = |source| ClientError::File { path: path.clone(), source };
                let file = tokio::fs::File::open(path).await.map_err(error)?;
                let pieces = futures::stream::unfold(Some((file, 0)), move |state| {
                    let progress = progress.clone();
                    async move {
                        let (mut file, done) = state?;
                        let mut piece = vec![0; PIECE];
                        match file.read(&mut piece).await {
                            Ok(0) => None,
                            Ok(n) => {
                                piece.truncate(n);
                                let done = done + n as u64;
                                if let Some(progress) = &progress {
                                    progress(done, total);
                                }
                                Some((Ok(Bytes::from(piece)), Some((file, done))))
                            }
                            Err(error) => Some((Err(error), None)),
                        }
                    }
                });
                Ok(reqwest::Body::wrap_stream(pieces))
            }
        }
    }
}

impl Client {
    /// Uploads a blob. One that is there already is success.
    ///
    /// # Errors
    /// [`ClientError`]; class `Quota` when the namespace is full.
    pub async fn put_blob(
        &self,
        namespace: &str,
        upload: impl Into<Upload>,
        media_type: &str,
    ) -> Result<Descriptor, ClientError> {
        self.put_blob_with(namespace, upload, media_type, None).await
    }

    /// [`Client::put_blob`] with a callback.
    ///
    /// # Errors
    /// As [`Client::put_blob`].
    pub async fn put_blob_with(
        &self,
        namespace: &str,
        upload: impl Into<Upload>,
        media_type: &str,
        progress: Option<OnProgress>,
    ) -> Result<Descriptor, ClientError> {
        let upload = upload.into();
        let (digest, size_bytes) = upload.measure().await?;
        let url = self.blob_url(namespace, &digest)?;
        let action = format!("store {digest} ({size_bytes} bytes)");
        let mut retry = self.retry(&action);
        loop {
            let attempt = async {
                let body = upload.body(size_bytes, progress.clone()).await?;
                let request = self.inner.http.put(url.clone());
                let request = request.header(CONTENT_TYPE, media_type).header(CONTENT_LENGTH, size_bytes).body(body);
                self.once(&action, request).await
            };
            match attempt.await {
                Ok(_) => break,
                Err(failure) => retry.after(failure).await?,
            }
        }
        Ok(Descriptor { digest, size_bytes, media_type: media_type.to_owned() })
    }

    /// A whole blob in memory, checked against its digest.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_blob(&self, namespace: &str, digest: &Digest) -> Result<Bytes, ClientError> {
        let url = self.blob_url(namespace, digest)?;
        let bytes = self.send(format!("read {digest}"), |http| http.get(url.clone())).await?;
        let actual = digest_of(&bytes);
        if actual != *digest {
            return Err(ClientError::Corrupt { expected: *digest, actual });
        }
        Ok(bytes)
    }

    /// Downloads a blob to `path`, which appears only when it is whole and its digest is right. Gives its length.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_blob_to_file(&self, namespace: &str, digest: &Digest, path: &Path) -> Result<u64, ClientError> {
        self.get_blob_to_file_with(namespace, digest, path, None).await
    }

    /// [`Client::get_blob_to_file`] with a callback.
    ///
    /// # Errors
    /// As [`Client::get_blob_to_file`].
    pub async fn get_blob_to_file_with(
        &self,
        namespace: &str,
        digest: &Digest,
        path: &Path,
        progress: Option<OnProgress>,
    ) -> Result<u64, ClientError> {
        let url = self.blob_url(namespace, digest)?;
        let action = format!("read {digest}");
        let error = |source| ClientError::File { path: path.to_owned(), source };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (file, temporary) = tempfile::NamedTempFile::new_in(folder).map_err(error)?.into_parts();
        let mut download = Download { path, file: tokio::fs::File::from_std(file), hasher: Hasher::new(), progress };
        let mut retry = self.retry(&action);
        loop {
            let mut request = self.inner.http.get(url.clone());
            if !download.hasher.is_empty() {
                request = request.header(RANGE, format!("bytes={}-", download.hasher.len()));
            }
            let attempt = async {
                match self.once(&action, request).await {
                    // The break came after the last byte.
                    Err(Failure::Final(ClientError::Refused { status: 416, .. })) => Ok(()),
                    Err(failure) => Err(failure),
                    Ok(response) => download.take(response).await,
                }
            };
            match attempt.await {
                Ok(()) => break,
                Err(failure) => retry.after(failure).await?,
            }
        }
        let Download { mut file, hasher, .. } = download;
        file.flush().await.map_err(error)?;
        drop(file);
        let (len, actual) = (hasher.len(), hasher.finish());
        if actual != *digest {
            return Err(ClientError::Corrupt { expected: *digest, actual });
        }
        temporary.persist(path).map_err(|e| error(e.error))?;
        Ok(len)
    }
}

/// A file on its way in, over as many connections as it takes.
struct Download<'a> {
    path: &'a Path,
    file: tokio::fs::File,
    hasher: Hasher,
    progress: Option<OnProgress>,
}

impl Download<'_> {
    async fn take(&mut self, response: reqwest::Response) -> Result<(), Failure> {
        let error = |source| ClientError::File { path: self.path.to_owned(), source };
        if !self.hasher.is_empty() && response.status() != StatusCode::PARTIAL_CONTENT {
            self.hasher = Hasher::new();
            self.file.rewind().await.map_err(error)?;
            self.file.set_len(0).await.map_err(error)?;
        }
        let total = response.content_length().map_or(0, |rest| self.hasher.len() + rest);
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(Failure::Connection)?;
            self.file.write_all(&piece).await.map_err(error)?;
            self.hasher.update(&piece);
            if let Some(progress) = &self.progress {
                progress(self.hasher.len(), total);
            }
        }
        Ok(())
    }
}
