//! What the sweep removes, and what it must not.

mod common;

use std::time::Duration;

use common::{TestStore, bytes, reason, refused};
use edgeyard_artifact::{Digest, digest_of};
use edgeyard_store::fsck::fsck;
use edgeyard_store::sweep::{Swept, sweep};

const GRACE: Duration = Duration::from_secs(86_400);

impl TestStore {
    async fn sweep(&self) -> Swept {
        let now = (self.app.clock)();
        sweep(&self.app.storage, &self.app.index, &self.app.publishing, GRACE, now).await.unwrap()
    }

    async fn has(&self, namespace: &str, digest: &Digest) -> bool {
        self.client().has_blob(namespace, digest).await.unwrap()
    }

    fn file(&self, digest: &Digest) -> std::path::PathBuf {
        self.folder.path().join("blobs/sha256").join(digest.hex())
    }
}

#[tokio::test]
async fn unreferenced_blobs_go_after_the_grace_period() {
    let store = TestStore::start().await;
    let client = store.client();
    let put = async |seed| client.put_blob("vision", bytes(100, seed), "x/y").await.unwrap().digest;
    let (lonely, pinned, used, renewed) = (put(1).await, put(2).await, put(3).await, put(4).await);
    client.pin("vision", "mo-1", &[pinned]).await.unwrap();
    let record = format!("{{\"results\":[{{\"digest\":\"{used}\"}}]}}");
    let record = client.put_result("vision", "run", 1, "x/record", record).await.unwrap().digest;
    store.advance(86_400);
    assert_eq!(store.sweep().await, Swept::default(), "not before the grace period is over");
    store.advance(1);
    assert_eq!(put(4).await, renewed);
    assert_eq!(store.sweep().await, Swept { blobs: 1, bytes: 100, orphans: 0 });
    assert!(!store.has("vision", &lonely).await);
    assert!(!store.file(&lonely).exists());
    for kept in [pinned, used, renewed, record] {
        assert!(store.has("vision", &kept).await);
    }
    // What is no longer pinned goes with the next sweep.
    client.pin("vision", "mo-1", &[]).await.unwrap();
    assert_eq!(store.sweep().await.blobs, 1);
    assert!(!store.has("vision", &pinned).await);
    assert_eq!(
        client.usage("vision").await.unwrap().used_bytes,
        client.get_result("vision", "run", 1).await.unwrap().len() as u64 + 200
    );
    assert!(fsck(&store.app.storage, &store.app.index).await.unwrap().is_clean());
}

#[tokio::test]
async fn a_reference_in_another_namespace_does_not_count_and_a_shared_file_stays() {
    let store = TestStore::start().await;
    let client = store.client();
    let digest = client.put_blob("vision", bytes(50, 1), "x/y").await.unwrap().digest;
    client.put_blob("speech", bytes(50, 1), "x/y").await.unwrap();
    client.pin("speech", "mo", &[digest]).await.unwrap();
    store.advance(90_000);
    assert_eq!(store.sweep().await, Swept { blobs: 1, bytes: 50, orphans: 0 });
    assert!(!store.has("vision", &digest).await);
    assert_eq!(client.get_blob("speech", &digest).await.unwrap(), bytes(50, 1));
}

#[tokio::test]
async fn files_of_nobody_go_and_the_layout_stays() {
    let store = TestStore::start().await;
    // A refused result leaves its body: it was stored before the attempt was found taken.
    store.client().put_result("vision", "run", 1, "x/record", "{}").await.unwrap();
    let refused_body = "{\"other\":1}";
    let result = store.client().put_result("vision", "run", 1, "x/record", refused_body).await;
    assert_eq!(reason(result), refused(409, "AttemptTaken"));
    let orphan = digest_of(refused_body);
    assert!(store.file(&orphan).exists());
    assert_eq!(store.sweep().await.orphans, 0, "young files stay: they may belong to an upload that ends just now");
    // The age of files is the file system's; move our time past it.
    let file_time = std::fs::metadata(store.file(&orphan)).unwrap().modified().unwrap();
    let file_time = file_time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    store.time.store(file_time + 100_000_000, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(store.sweep().await.orphans, 1);
    assert!(!store.file(&orphan).exists());
    let findings = fsck(&store.app.storage, &store.app.index).await.unwrap();
    assert!(findings.is_clean(), "{findings:?}");
    assert_eq!(store.client().get_result("vision", "run", 1).await.unwrap(), "{}");
}
