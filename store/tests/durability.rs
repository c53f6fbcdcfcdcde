//! Kill -9, lost databases, damaged files: what was answered with 201 is there, what was not is invisible.

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use common::{START, TOKEN, bytes, clock, http};
use edgeyard_artifact::grant::{self, Claims};
use edgeyard_artifact::{Bearer, Client, ResultFilter, StoreAccess, digest_of};
use edgeyard_store::fsck::fsck;
use edgeyard_store::index::{Index, IndexError, remove_database};
use edgeyard_store::layout::Entry;
use edgeyard_store::storage::Storage;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

const RECORD: &str = "application/vnd.edgeyard.record.v1+json";

/// The real binary.
struct Process {
    child: Child,
    address: String,
    tls: Option<String>,
}

impl Process {
    fn start(folder: &Path, more: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", folder, more)
    }

    fn start_at(address: &str, folder: &Path, more: &[&str]) -> Self {
        let token = folder.join("token");
        std::fs::write(&token, TOKEN).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgeyard-store"));
        command.args(["--log-format", "json", "serve", "--listen", address, "--static-token"]).arg(token);
        command.arg("--data").arg(folder.join("data")).args(more).env("EDGEYARD_LOG", "info");
        if !more.contains(&"--tls-cert") {
            command.arg("--insecure");
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let address = loop {
            let Some(line) = lines.next() else { panic!("the store ended: {seen:#?}") };
            let line = line.unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if event["message"] == "serving" {
                break event["address"].as_str().unwrap().to_owned();
            }
            seen.push(line);
        };
        // Someone has to read on, or the store blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, tls: None }
    }

    fn client(&self) -> Client {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let access =
            StoreAccess { url: format!("{scheme}://{}", self.address), certificate_authority_pem: self.tls.clone() };
        Client::new(access, Bearer::Token(TOKEN.into())).unwrap().with_patience(Duration::ZERO)
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    fn terminate(&mut self) -> std::process::ExitStatus {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn staged(data: &Path) -> usize {
    let names = std::fs::read_dir(data.join("blobs/sha256")).unwrap();
    names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains('#')).count()
}

/// Sends the head and `sent` bytes of a blob of `length` bytes, and waits until the store has taken them.
async fn half_an_upload(store: &Process, blob: &[u8], sent: usize) -> tokio::net::TcpStream {
    let before = received(store).await;
    let mut stream = tokio::net::TcpStream::connect(&store.address).await.unwrap();
    let head = format!(
        "PUT /v1/namespaces/vision/blobs/{} HTTP/1.1\r\nhost: store\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n",
        digest_of(blob),
        blob.len(),
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&blob[..sent]).await.unwrap();
    stream.flush().await.unwrap();
    while received(store).await < before + sent as u64 {}
    stream
}

/// Bytes of blobs and results that the store has taken since it started.
async fn received(store: &Process) -> u64 {
    let metrics = http().get(format!("http://{}/metrics", store.address)).send().await.unwrap().text().await.unwrap();
    let value = metrics.lines().find_map(|line| line.strip_prefix("edgeyard_store_received_bytes_total "));
    value.unwrap().parse().unwrap()
}

#[tokio::test]
async fn kill_9_in_an_upload_leaves_nothing_visible() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let store = Process::start(folder.path(), &[]);
    let kept = store.client().put_blob("vision", bytes(10_000, 1), "x/y").await.unwrap().digest;
    let record = store.client().put_result("vision", "run", 1, RECORD, "{\"n\":1}").await.unwrap();
    let large = bytes(40 << 20, 2);
    let digest = digest_of(&large);
    let _stream = half_an_upload(&store, &large, 20 << 20).await;
    assert_eq!(staged(&data), 1, "it was in the middle of an upload");
    store.kill();
    assert_eq!(staged(&data), 1, "nobody could clean up");

    let store = Process::start(folder.path(), &[]);
    assert_eq!(staged(&data), 0, "unfinished uploads go at the start");
    assert!(!data.join("blobs/sha256").join(digest.hex()).exists());
    let client = store.client();
    assert!(!client.has_blob("vision", &digest).await.unwrap());
    assert_eq!(client.usage("vision").await.unwrap().used_bytes, 10_000 + record.size_bytes);
    assert_eq!(client.get_blob("vision", &kept).await.unwrap(), bytes(10_000, 1));
    assert_eq!(client.get_result("vision", "run", 1).await.unwrap(), "{\"n\":1}");
    client.put_blob("vision", large, "x/y").await.unwrap();
    assert!(client.has_blob("vision", &digest).await.unwrap());
}

#[tokio::test]
async fn a_client_waits_for_a_store_that_is_killed_and_comes_back() {
    let folder = TempDir::new().unwrap();
    let store = Process::start(folder.path(), &[]);
    let address = store.address.clone();
    let patient = store.client().with_patience(Duration::from_secs(60));
    store.kill();
    let refused = patient.with_patience(Duration::ZERO).usage("vision").await.unwrap_err();
    assert!(matches!(refused, edgeyard_artifact::ClientError::Unreachable { .. }), "{refused}");
    let waiting = tokio::spawn(async move { patient.put_blob("vision", vec![1, 2, 3], "x/y").await });
    // The same port again, as a Service keeps its address.
    let again = Process::start_at(&address, folder.path(), &[]);
    let made = waiting.await.unwrap().unwrap();
    assert!(again.client().has_blob("vision", &made.digest).await.unwrap());
}

#[tokio::test]
async fn sigterm_lets_an_upload_finish() {
    let folder = TempDir::new().unwrap();
    let mut store = Process::start(folder.path(), &[]);
    let blob = bytes(12 << 20, 2);
    let mut stream = half_an_upload(&store, &blob, 9 << 20).await;
    assert!(Command::new("kill").arg(store.child.id().to_string()).status().unwrap().success());
    // New connections are refused once it is draining.
    while tokio::net::TcpStream::connect(&store.address).await.is_ok() {}
    stream.write_all(&blob[9 << 20..]).await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    assert!(store.child.wait().unwrap().success());
    let store = Process::start(folder.path(), &[]);
    assert!(store.client().has_blob("vision", &digest_of(&blob)).await.unwrap());
}

/// Something of every kind.
async fn fill(client: &Client, grants: Option<(&grant::SigningKey, &str)>) {
    for seed in 0..40 {
        let blob = client.put_blob("vision", bytes(100 + seed, seed as u64), "x/y").await.unwrap();
        let body = format!("{{\"metadata\":{{\"name\":\"n{}\"}},\"made\":\"{}\"}}", seed % 3, blob.digest);
        client.put_result("vision", &format!("uid-{seed}"), 1, RECORD, body).await.unwrap();
        client.pin("speech", &format!("owner-{}", seed % 5), &[blob.digest]).await.unwrap();
    }
    client.unpin("speech", "owner-4").await.unwrap();
    let Some((key, url)) = grants else { return };
    let claims = Claims {
        namespace: "vision".into(),
        uid: "fenced".into(),
        attempt: 3,
        device: Some("lab/cpu".into()),
        fencing_token: Some(77),
        read: vec![],
        expires_at: i64::MAX,
        key_id: String::new(),
    };
    let access = StoreAccess { url: url.into(), certificate_authority_pem: None };
    let pod = Client::new(access, Bearer::Grant(grant::sign(key, &claims))).unwrap();
    pod.put_result("vision", "fenced", 3, RECORD, "{}").await.unwrap();
}

async fn open(data: &Path) -> (Storage, Index) {
    // The thread of an index that was dropped holds the lock until it has ended.
    let storage = loop {
        if let Ok(storage) = Storage::open(data.to_str().unwrap()) {
            break storage;
        }
        tokio::task::yield_now().await;
    };
    let clock = clock(&Arc::new(AtomicI64::new(START)));
    let index = Index::open(&data.join("index.sqlite"), storage.clone(), clock).await.unwrap();
    (storage, index)
}

#[tokio::test]
async fn the_database_is_rebuilt_from_the_layout_to_the_letter() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let key = grant::generate().unwrap();
    let public = folder.path().join("key");
    std::fs::write(&public, grant::encode_public(&key.verifying_key())).unwrap();
    let with_key = ["--grant-public-key", public.to_str().unwrap()];
    let mut store = Process::start(folder.path(), &with_key);
    fill(&store.client(), Some((&key, &format!("http://{}", store.address)))).await;
    let listed = store.client().list_results("vision", &ResultFilter::default()).await.unwrap();
    assert!(store.terminate().success());

    let (storage, index) = open(&data).await;
    assert!(!index.was_rebuilt(), "an orderly end leaves both in step");
    let (entries, references) = (index.entries().unwrap(), index.references().unwrap());
    // 40 blobs, 41 results that are blobs too, 4 pins, 1 fence.
    assert_eq!(entries.len(), 40 + 2 * 41 + 4 + 1);
    assert_eq!(references.len(), 40);
    assert!(entries.contains(&Entry::Fence { device: "lab/cpu".into(), token: 77 }));
    drop((storage, index));

    let (storage, _index) = {
        while Storage::open(data.to_str().unwrap()).is_err() {
            tokio::task::yield_now().await;
        }
        remove_database(&data.join("index.sqlite")).unwrap();
        let (storage, index) = open(&data).await;
        assert!(index.was_rebuilt());
        assert_eq!(index.entries().unwrap(), entries);
        assert_eq!(index.references().unwrap(), references);
        assert!(fsck(&storage, &index).await.unwrap().is_clean());
        (storage, index)
    };
    drop((storage, _index));
    while Storage::open(data.to_str().unwrap()).is_err() {
        tokio::task::yield_now().await;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_edgeyard-store")).args(["reindex", "--data"]).arg(&data).output();
    let output = output.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "rebuilt the index: 127 entries\n");
    let store = Process::start(folder.path(), &with_key);
    assert_eq!(store.client().list_results("vision", &ResultFilter::default()).await.unwrap(), listed);
}

#[tokio::test]
async fn a_database_that_is_behind_or_broken_is_noticed() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let database = data.join("index.sqlite");
    let mut store = Process::start(folder.path(), &[]);
    store.client().put_blob("vision", vec![1], "x/y").await.unwrap();
    assert!(store.terminate().success());
    // As a crash leaves it that loses SQLite's last commit: the layout is ahead.
    let behind = std::fs::read(&database).unwrap();
    let mut store = Process::start(folder.path(), &[]);
    let later = store.client().put_blob("vision", vec![2], "x/y").await.unwrap().digest;
    assert!(store.terminate().success());
    for content in [behind, b"this is not a database, and longer than its header is".to_vec()] {
        remove_database(&database).unwrap();
        std::fs::write(&database, content).unwrap();
        let mut store = Process::start(folder.path(), &[]);
        assert!(store.client().has_blob("vision", &later).await.unwrap());
        store.client().put_blob("vision", vec![3], "x/y").await.unwrap();
        assert!(store.terminate().success());
    }
}

#[tokio::test]
async fn a_lost_index_json_is_written_again_and_without_both_nothing_is_guessed() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut store = Process::start(folder.path(), &[]);
    fill(&store.client(), None).await;
    assert!(store.terminate().success());
    let root = std::fs::read(data.join("index.json")).unwrap();
    std::fs::remove_file(data.join("index.json")).unwrap();
    let mut store = Process::start(folder.path(), &[]);
    assert!(store.terminate().success());
    assert_eq!(std::fs::read(data.join("index.json")).unwrap(), root);
    std::fs::remove_file(data.join("index.json")).unwrap();
    remove_database(&data.join("index.sqlite")).unwrap();
    let storage = Storage::open(data.to_str().unwrap()).unwrap();
    let clock = clock(&Arc::new(AtomicI64::new(START)));
    let opened = Index::open(&data.join("index.sqlite"), storage, clock).await;
    assert!(matches!(opened, Err(IndexError::Orphaned)));
}

#[tokio::test]
async fn fsck_finds_damage_and_two_stores_do_not_share_a_folder() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let mut store = Process::start(folder.path(), &[]);
    let damaged = store.client().put_blob("vision", bytes(1000, 1), "x/y").await.unwrap().digest;
    let missing = store.client().put_blob("vision", bytes(1000, 2), "x/y").await.unwrap().digest;
    let run = |command: &str| {
        Command::new(env!("CARGO_BIN_EXE_edgeyard-store")).args([command, "--data"]).arg(&data).output().unwrap()
    };
    let second = run("fsck");
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another edgeyard-store"));
    assert!(store.terminate().success());
    let clean = run("fsck");
    assert!(clean.status.success(), "{clean:?}");
    let file = |digest: &edgeyard_artifact::Digest| data.join("blobs/sha256").join(digest.hex());
    let mut content = bytes(1000, 1);
    content[500] ^= 1;
    std::fs::write(file(&damaged), content).unwrap();
    std::fs::remove_file(file(&missing)).unwrap();
    let found = run("fsck");
    assert_eq!(found.status.code(), Some(1));
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(text.contains(&format!("damaged {damaged}\nmissing {missing}\n")), "{text}");
    // Reading tells so too, and putting the bytes again mends both.
    let store = Process::start(folder.path(), &[]);
    let client = store.client();
    let error = client.get_blob("vision", &damaged).await.unwrap_err();
    assert!(matches!(error, edgeyard_artifact::ClientError::Corrupt { .. }), "{error}");
    client.put_blob("vision", bytes(1000, 1), "x/y").await.unwrap();
    client.put_blob("vision", bytes(1000, 2), "x/y").await.unwrap();
    assert_eq!(client.get_blob("vision", &damaged).await.unwrap(), bytes(1000, 1));
    assert_eq!(client.get_blob("vision", &missing).await.unwrap(), bytes(1000, 2));
}

#[tokio::test]
async fn tls_with_a_certificate_that_is_renewed() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        (name.to_owned(), made.cert.pem())
    };
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (_, first) = write("first");
    let flags = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let mut store = Process::start(folder.path(), &flags);
    store.tls = Some(first);
    let made = store.client().put_blob("vision", vec![1, 2, 3], "x/y").await.unwrap();
    assert!(store.client().has_blob("vision", &made.digest).await.unwrap());
    let (_, other) = write("second");
    store.tls = Some(other.clone());
    let error = store.client().usage("vision").await.unwrap_err();
    assert!(matches!(error, edgeyard_artifact::ClientError::Untrusted { .. }), "{error:?}");
    drop(store);
    // The renewal itself, without waiting for the watcher.
    let served = edgeyard_store::tls::Certificate::open(&certificate, &key).unwrap();
    assert!(!served.reload().unwrap());
    write("third");
    assert!(served.reload().unwrap());
    std::fs::write(&key, "half").unwrap();
    assert!(served.reload().is_err(), "a broken file does not replace what works");
}

#[test]
fn plain_http_stays_on_loopback() {
    let folder = TempDir::new().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_edgeyard-store"))
        .args(["serve", "--insecure", "--listen", "0.0.0.0:0", "--data"])
        .arg(folder.path())
        .arg("--static-token")
        .arg(token)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("loopback"));
}
