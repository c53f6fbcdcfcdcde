//! A store in this process on a loopback port, with a clock that tests move and keys that they sign grants with.
#![allow(dead_code)] // each test program uses its part

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use edgeyard_artifact::grant::{self, Claims, SigningKey};
use edgeyard_artifact::{Bearer, Client, Digest, StoreAccess};
use edgeyard_store::api::{self, App, ProgressBoard};
use edgeyard_store::auth::{Authority, GrantKeys, Reviewer};
use edgeyard_store::index::Index;
use edgeyard_store::metrics::Metrics;
use edgeyard_store::quota::Quotas;
use edgeyard_store::storage::Storage;
use edgeyard_store::{Clock, server};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{RwLock, Semaphore, oneshot};

pub const TOKEN: &str = "a static token of the tests";
pub const START: i64 = 1_790_000_000_000;
pub const QUOTA: u64 = 1 << 30;

pub struct TestStore {
    pub url: String,
    pub app: Arc<App>,
    pub folder: TempDir,
    pub time: Arc<AtomicI64>,
    pub key: SigningKey,
    _stop: oneshot::Sender<()>,
}

pub struct Options {
    pub quotas: Quotas,
    pub reviewer: Option<Reviewer>,
    pub keys: Option<GrantKeys>,
}

impl Default for Options {
    fn default() -> Self {
        Self { quotas: Quotas::new(QUOTA, []), reviewer: None, keys: None }
    }
}

pub fn clock(time: &Arc<AtomicI64>) -> Clock {
    let time = Arc::clone(time);
    Arc::new(move || time.load(Ordering::SeqCst))
}

impl TestStore {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let folder = TempDir::new().unwrap();
        let time = Arc::new(AtomicI64::new(START));
        let key = grant::generate().unwrap();
        let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
        let index = Index::open(&folder.path().join("index.sqlite"), storage.clone(), clock(&time)).await.unwrap();
        let keys = options.keys.unwrap_or_else(|| GrantKeys::Fixed(vec![key.verifying_key()]));
        let app = Arc::new(App {
            storage,
            index,
            authority: Authority::new(keys, options.reviewer, Some(TOKEN)),
            quotas: options.quotas,
            progress: ProgressBoard::default(),
            metrics: Metrics::new(),
            clock: clock(&time),
            publishing: RwLock::new(()),
            uploads: Semaphore::new(api::UPLOADS),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let router = api::router(Arc::clone(&app));
        let stopped = async { drop(stopped.await) };
        tokio::spawn(async move { server::serve(listener, None, router, stopped, Duration::ZERO).await });
        Self { url, app, folder, time, key, _stop: stop }
    }

    pub fn advance(&self, seconds: i64) {
        self.time.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// A client that does not wait for a store that is away.
    pub fn client(&self) -> Client {
        self.client_with(Bearer::Token(TOKEN.into()))
    }

    pub fn client_with(&self, bearer: Bearer) -> Client {
        let access = StoreAccess { url: self.url.clone(), certificate_authority_pem: None };
        Client::new(access, bearer).unwrap().with_patience(Duration::ZERO)
    }

    pub fn claims(&self, namespace: &str, uid: &str) -> Claims {
        Claims {
            namespace: namespace.into(),
            uid: uid.into(),
            attempt: 1,
            device: None,
            fencing_token: None,
            read: vec![],
            expires_at: START / 1000 + 3600,
            key_id: String::new(),
        }
    }

    pub fn grant(&self, claims: &Claims) -> Client {
        self.client_with(Bearer::Grant(grant::sign(&self.key, claims)))
    }

    pub fn reader(&self, namespace: &str, read: Vec<Digest>) -> Client {
        self.grant(&Claims { read, ..self.claims(namespace, "reader") })
    }
}

/// Plain HTTP, to see what the client hides.
pub fn http() -> reqwest::Client {
    // Fails only if another test has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// What a refused call was refused for.
pub fn reason<T: std::fmt::Debug>(result: Result<T, edgeyard_artifact::ClientError>) -> (u16, String) {
    match result.unwrap_err() {
        edgeyard_artifact::ClientError::Refused { status, reason, message, .. } => {
            assert!(!message.is_empty());
            (status, reason)
        }
        other => panic!("{other:?}"),
    }
}

pub fn refused(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

/// Bytes that do not repeat within a blob, so that a piece in the wrong place shows.
pub fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
