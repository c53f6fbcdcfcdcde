//! The commands: put the parts together and run them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use edgeyard_artifact::{digest_of, grant};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, Semaphore, watch};

use crate::api::{self, App, ProgressBoard};
use crate::args::{Arguments, Command, Data, Serve};
use crate::auth::{Authority, GrantKeys, Reviewer};
use crate::index::{Index, remove_database};
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::storage::Storage;
use crate::tls::Certificate;
use crate::{Clock, fsck, server, sweep, system_clock};

/// A store that was killed frees its lock at once, but its successor may start while it is still draining.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command to its end.
///
/// # Errors
/// What makes it impossible; [`ExitCode`] says what a command found.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve(arguments) => serve(*arguments).await.map(|()| ExitCode::SUCCESS),
            Command::Reindex(data) => reindex(&data).await,
            Command::Sweep { data, sweep_grace_seconds } => {
                let (storage, index) = open(&data, system_clock(), Duration::ZERO).await?;
                let grace = Duration::from_secs(sweep_grace_seconds);
                let swept = sweep::sweep(&storage, &index, &RwLock::new(()), grace, system_clock()()).await?;
                println!("removed {} blobs ({} bytes) and {} stray files", swept.blobs, swept.bytes, swept.orphans);
                Ok(ExitCode::SUCCESS)
            }
            Command::Fsck(data) => check(&data).await,
        }
    })
}

/// Where the SQLite file is.
pub fn index_path(data: &Data, storage: &Storage) -> PathBuf {
    match (&data.index, storage.root()) {
        (Some(path), _) => path.clone(),
        (None, Some(root)) => root.join("index.sqlite"),
        // One file for each location, so that two stores on one machine do not share it.
        (None, None) => std::env::temp_dir().join(format!("edgeyard-store-{}.sqlite", digest_of(&data.data).short())),
    }
}

async fn open(data: &Data, clock: Clock, patience: Duration) -> anyhow::Result<(Storage, Index)> {
    let started = std::time::Instant::now();
    let storage = loop {
        match Storage::open(&data.data) {
            Ok(storage) => break storage,
            Err(error) if started.elapsed() >= patience => return Err(error),
            Err(error) => {
                tracing::info!(reason = format!("{error:#}"), "waiting for the data");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let removed = storage.remove_leftovers().context("remove unfinished uploads")?;
    if removed > 0 {
        tracing::info!(removed, "removed unfinished uploads");
    }
    let index = Index::open(&index_path(data, &storage), storage.clone(), clock).await.context("open the index")?;
    Ok((storage, index))
}

async fn reindex(data: &Data) -> anyhow::Result<ExitCode> {
    // The lock, so that no running store loses its database.
    let storage = Storage::open(&data.data)?;
    remove_database(&index_path(data, &storage)).context("remove the index database")?;
    drop(storage);
    let (_storage, index) = open(data, system_clock(), Duration::ZERO).await?;
    println!("rebuilt the index: {} entries", index.entries()?.len());
    Ok(ExitCode::SUCCESS)
}

async fn check(data: &Data) -> anyhow::Result<ExitCode> {
    let (storage, index) = open(data, system_clock(), Duration::ZERO).await?;
    let findings = fsck::fsck(&storage, &index).await?;
    for digest in &findings.damaged {
        println!("damaged {digest}");
    }
    for digest in &findings.missing {
        println!("missing {digest}");
    }
    println!(
        "checked {} blobs: {} damaged, {} missing",
        findings.checked,
        findings.damaged.len(),
        findings.missing.len()
    );
    Ok(if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve(arguments: Serve) -> anyhow::Result<()> {
    // Installed first: a SIGTERM during start-up must not kill a rebuild half way without a word.
    let (stopping, stop) = watch::channel(false);
    tokio::spawn(async move {
        match signal().await {
            Ok(()) => tracing::info!("stopping"),
            Err(error) => tracing::error!(error = format!("{error:#}"), "no signals can be received"),
        }
        let _ = stopping.send(true);
    });
    anyhow::ensure!(
        arguments.tls_cert.is_some() || arguments.listen.ip().is_loopback(),
        "--insecure listens on a loopback address only, such as 127.0.0.1:8443; give --tls-cert and --tls-key for {}",
        arguments.listen
    );
    let authority = authority(&arguments).await?;
    let certificate = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(Certificate::open(certificate, key)?),
        _ => None,
    };
    let (storage, index) = open(&arguments.data, system_clock(), LOCK_PATIENCE).await?;
    let app = Arc::new(App {
        storage,
        index,
        authority,
        quotas: Quotas::new(arguments.quota_bytes, arguments.namespace_quota.clone()),
        progress: ProgressBoard::default(),
        metrics: Metrics::new(),
        clock: system_clock(),
        publishing: RwLock::new(()),
        uploads: Semaphore::new(api::UPLOADS),
    });
    let every = Duration::from_secs(arguments.sweep_interval_seconds);
    let grace = Duration::from_secs(arguments.sweep_grace_seconds);
    tokio::spawn(sweep_for_ever(Arc::clone(&app), every, grace));
    let tls = match &certificate {
        Some(certificate) => {
            tokio::spawn(Arc::clone(certificate).watch());
            Some(Arc::new(certificate.server_config()?))
        }
        None => None,
    };
    let drain = Duration::from_secs(arguments.drain_seconds);
    if let Some(address) = arguments.metrics_listen {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let stop = stop.clone();
        tokio::spawn(server::serve(listener, None, api::probes(Arc::clone(&app)), stopped(stop), drain));
    }
    let listener =
        TcpListener::bind(arguments.listen).await.with_context(|| format!("listen on {}", arguments.listen))?;
    let address = listener.local_addr().context("find the address that is listened on")?;
    if let Some(file) = &arguments.address_file {
        announce(file, &address.to_string())?;
    }
    tracing::info!(%address, data = arguments.data.data, tls = tls.is_some(), "serving");
    server::serve(listener, tls, api::router(app), stopped(stop), drain).await;
    tracing::info!("stopped");
    Ok(())
}

async fn authority(arguments: &Serve) -> anyhow::Result<Authority> {
    if arguments.kubernetes {
        let client = kube::Client::try_default().await.context("find the cluster")?;
        let namespace = arguments.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let config_maps = kube::Api::namespaced(client.clone(), &namespace);
        let keys = GrantKeys::config_map(config_maps, &arguments.grant_key_config_map);
        return Ok(Authority::new(keys, Some(Reviewer::new(client)), None));
    }
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let keys = match &arguments.grant_public_key {
        Some(path) => {
            let key = grant::decode_public(&read(path)?).with_context(|| format!("read {}", path.display()))?;
            GrantKeys::Fixed(vec![key])
        }
        None => GrantKeys::None,
    };
    let token = arguments.static_token.as_deref().map(read).transpose()?;
    if let (Some(token), Some(path)) = (&token, &arguments.static_token) {
        anyhow::ensure!(!token.trim().is_empty(), "{} is empty", path.display());
    }
    anyhow::ensure!(
        token.is_some() || arguments.grant_public_key.is_some(),
        "nobody could use this store: give --kubernetes, --static-token or --grant-public-key"
    );
    Ok(Authority::new(keys, None, token.as_deref()))
}

async fn sweep_for_ever(app: Arc<App>, every: Duration, grace: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match sweep::sweep(&app.storage, &app.index, &app.publishing, grace, (app.clock)()).await {
            Ok(swept) => {
                app.metrics.swept(swept.blobs, swept.bytes);
                tracing::info!(blobs = swept.blobs, bytes = swept.bytes, orphans = swept.orphans, "swept");
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the sweep failed"),
        }
    }
}

/// Writes the address whole or not at all: whoever waits for the file reads it as soon as it is there.
fn announce(file: &Path, address: &str) -> anyhow::Result<()> {
    let mut staged = file.as_os_str().to_owned();
    staged.push(".new");
    std::fs::write(&staged, address)
        .and_then(|()| std::fs::rename(&staged, file))
        .with_context(|| format!("write {}", file.display()))
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A closed channel means that the process ends anyway.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
