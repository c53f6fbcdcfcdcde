//! Bytes behind `object_store`: a local folder or S3. Every write is durable and atomic when it returns.
//!
//! A blob is streamed to a staged file (or multipart upload) and gets its name only after its digest was checked, so a
//! process that is killed leaves nothing under a blob's name.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use edgeyard_artifact::{Digest, Hasher, digest_of};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt as _};

/// Pieces in which blobs are written to a folder.
const LOCAL_PART: usize = 1 << 20;
/// And to S3, which wants at least 5 MiB and takes 10,000 of them: blobs of up to 80 GiB.
const S3_PART: usize = 8 << 20;
const BLOBS: &str = "blobs/sha256";

/// Where all bytes are.
#[derive(Clone)]
pub struct Storage {
    objects: Arc<dyn ObjectStore>,
    root: Option<PathBuf>,
    // Held for as long as anything can write: two stores on one folder would overwrite each other's index.json.
    _lock: Option<Arc<std::fs::File>>,
}

/// A blob as found by listing.
#[derive(Debug, Clone, Copy)]
pub struct StoredBlob {
    /// Its name.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// When it was written, in milliseconds since 1970.
    pub written_at: i64,
}

impl Storage {
    /// Opens a folder (made if absent, and locked) or an `s3://BUCKET/PREFIX`.
    ///
    /// # Errors
    /// When the folder cannot be used, another process has it, or the S3 settings are incomplete.
    pub fn open(location: &str) -> anyhow::Result<Self> {
        if let Some(bucket) = location.strip_prefix("s3://") {
            let s3 =
                AmazonS3Builder::from_env().with_url(location).build().with_context(|| format!("open {location}"))?;
            let prefix = bucket.split_once('/').map_or("", |(_, prefix)| prefix);
            let objects: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(s3, prefix));
            return Ok(Self { objects, root: None, _lock: None });
        }
        let root = FilePath::new(location);
        std::fs::create_dir_all(root.join(BLOBS)).with_context(|| format!("make the folder {location}"))?;
        let root = root.canonicalize().with_context(|| format!("find the folder {location}"))?;
        let lock = std::fs::File::create(root.join(".lock")).with_context(|| format!("write to {location}"))?;
        if lock.try_lock().is_err() {
            anyhow::bail!(
                "another edgeyard-store uses {location}: stop it first (a running store sweeps and reindexes by itself)"
            );
        }
        let local =
            LocalFileSystem::new_with_prefix(&root).with_context(|| format!("open {location}"))?.with_fsync(true);
        Ok(Self { objects: Arc::new(local), root: Some(root), _lock: Some(Arc::new(lock)) })
    }

    /// The folder, unless it is S3.
    pub fn root(&self) -> Option<&FilePath> {
        self.root.as_deref()
    }

    /// Removes staged files that a killed process left. Call before anything is written.
    ///
    /// On S3 unfinished multipart uploads are invisible; a lifecycle rule of the bucket removes them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn remove_leftovers(&self) -> std::io::Result<usize> {
        let Some(root) = &self.root else { return Ok(0) };
        let mut removed = 0;
        for folder in [root.clone(), root.join(BLOBS)] {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                // LocalFileSystem stages NAME as NAME#COUNTER; no name of ours has a '#'.
                if entry.file_name().to_string_lossy().contains('#') {
                    std::fs::remove_file(entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Writes a small object under a name of the layout.
    ///
    /// # Errors
    /// The storage's.
    pub async fn write(&self, name: &str, bytes: impl Into<Bytes>) -> object_store::Result<()> {
        self.objects.put(&Path::from(name), bytes.into().into()).await?;
        Ok(())
    }

    /// Writes a small blob under its digest.
    ///
    /// # Errors
    /// The storage's.
    pub async fn write_blob(&self, bytes: Bytes) -> object_store::Result<Digest> {
        let digest = digest_of(&bytes);
        self.objects.put(&blob_path(&digest), bytes.into()).await?;
        Ok(digest)
    }

    /// Reads a small object; `None` if there is none.
    ///
    /// # Errors
    /// The storage's.
    pub async fn read(&self, name: &str) -> object_store::Result<Option<Bytes>> {
        absent_is_none(async { self.objects.get(&Path::from(name)).await?.bytes().await }.await)
    }

    /// Reads a small blob; `None` if there is none.
    ///
    /// # Errors
    /// The storage's.
    pub async fn read_blob(&self, digest: &Digest) -> object_store::Result<Option<Bytes>> {
        absent_is_none(async { self.objects.get(&blob_path(digest)).await?.bytes().await }.await)
    }

    /// Streams a part of a blob; `None` if there is none.
    ///
    /// # Errors
    /// The storage's.
    pub async fn stream_blob(
        &self,
        digest: &Digest,
        range: std::ops::Range<u64>,
    ) -> object_store::Result<Option<BoxStream<'static, object_store::Result<Bytes>>>> {
        if range.is_empty() {
            // An empty range is an error to object_store; an empty blob is not.
            return Ok(
                absent_is_none(self.objects.head(&blob_path(digest)).await)?.map(|_| futures::stream::empty().boxed())
            );
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..Default::default() };
        Ok(absent_is_none(self.objects.get_opts(&blob_path(digest), options).await)?
            .map(object_store::GetResult::into_stream))
    }

    /// Removes a blob; one that is gone is success.
    ///
    /// # Errors
    /// The storage's.
    pub async fn delete_blob(&self, digest: &Digest) -> object_store::Result<()> {
        absent_is_none(self.objects.delete(&blob_path(digest)).await).map(|_| ())
    }

    /// All blobs, in no order.
    pub fn list_blobs(&self) -> BoxStream<'static, object_store::Result<StoredBlob>> {
        self.objects
            .list(Some(&Path::from(BLOBS)))
            .try_filter_map(|meta| async move {
                let digest = meta.location.filename().and_then(|name| format!("sha256:{name}").parse().ok());
                Ok(digest.map(|digest| StoredBlob {
                    digest,
                    size: meta.size,
                    written_at: meta.last_modified.timestamp_millis(),
                }))
            })
            .boxed()
    }

    /// Begins to take in a blob that should have this digest.
    pub fn begin(&self, expected: Digest) -> BlobUpload {
        BlobUpload { storage: self.clone(), expected, hasher: Hasher::new(), buffer: BytesMut::new(), multipart: None }
    }
}

/// A blob on its way in; nothing is visible before [`BlobUpload::publish`]. Dropping it drops what was staged.
pub struct BlobUpload {
    storage: Storage,
    expected: Digest,
    hasher: Hasher,
    buffer: BytesMut,
    multipart: Option<Box<dyn MultipartUpload>>,
}

impl BlobUpload {
    /// Takes the next piece.
    ///
    /// # Errors
    /// The storage's.
    pub async fn push(&mut self, piece: &[u8]) -> object_store::Result<()> {
        self.hasher.update(piece);
        self.buffer.extend_from_slice(piece);
        let part = if self.storage.root.is_some() { LOCAL_PART } else { S3_PART };
        if self.buffer.len() >= part {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> object_store::Result<()> {
        let part = self.buffer.split().freeze();
        if self.multipart.is_none() {
            self.multipart = Some(self.storage.objects.put_multipart(&blob_path(&self.expected)).await?);
        }
        if let Some(multipart) = &mut self.multipart {
            multipart.put_part(part.into()).await?;
        }
        Ok(())
    }

    /// Bytes taken so far.
    pub const fn len(&self) -> u64 {
        self.hasher.len()
    }

    /// Whether no byte has come yet.
    pub const fn is_empty(&self) -> bool {
        self.hasher.is_empty()
    }

    /// The digest of what came.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives the blob its name. The caller has compared [`BlobUpload::digest`] with what it expects.
    ///
    /// # Errors
    /// The storage's; then nothing is visible.
    pub async fn publish(mut self) -> object_store::Result<()> {
        if self.multipart.is_none() {
            self.storage.objects.put(&blob_path(&self.expected), self.buffer.freeze().into()).await?;
            return Ok(());
        }
        if !self.buffer.is_empty() {
            self.flush().await?;
        }
        if let Some(multipart) = &mut self.multipart {
            multipart.complete().await?;
        }
        Ok(())
    }

    /// Gives up, and tells S3 so.
    pub async fn abort(mut self) {
        if let Some(multipart) = &mut self.multipart
            && let Err(error) = multipart.abort().await
        {
            tracing::warn!(digest = %self.expected, error = %error, "an unfinished upload could not be removed");
        }
    }
}

fn blob_path(digest: &Digest) -> Path {
    Path::from(format!("{BLOBS}/{}", digest.hex()))
}

fn absent_is_none<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
