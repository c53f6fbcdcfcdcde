//! The life of the operator: connect, serve, become leader, run the controllers, drain.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::frame::leader::{Candidate, Ended};
use crate::frame::serve::{Health, serve};
use crate::frame::settings::Command;
use crate::frame::{Context, Settings, grant_key};

/// Runs until SIGTERM or SIGINT; what is being reconciled then is finished.
///
/// # Errors
/// When the operator cannot start, or loses its leadership.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("cannot find an API server")?;
    if let Some(Command::Drain(args)) = &settings.command {
        return crate::drain::run(client, &settings.namespace, args).await;
    }
    let store_ca = match &settings.store_ca {
        Some(path) => {
            Some(std::fs::read_to_string(path).with_context(|| format!("cannot read --store-ca {}", path.display()))?)
        }
        None => None,
    };
    let listener = TcpListener::bind(settings.metrics_listen)
        .await
        .with_context(|| format!("cannot listen on --metrics-listen {}", settings.metrics_listen))?;
    let grant_key = grant_key::ensure(&client, &settings.namespace).await.context("no key to sign grants with")?;
    let context = Arc::new(Context::new(client, settings, store_ca, grant_key)?);

    let health = Health::default();
    let server = tokio::spawn(serve(listener, context.metrics.clone(), health.clone(), context.shutdown.clone()));
    stop_on_signal(&context)?;
    health.set_ready();
    lead(&context).await?;
    context.shutdown.trigger();
    server.await.context("the metrics server panicked")?.context("the metrics server failed")
}

async fn lead(context: &Arc<Context>) -> anyhow::Result<()> {
    let settings = &context.settings;
    let work = {
        let context = Arc::clone(context);
        async move {
            context.metrics.leader.set(1);
            futures::future::join_all(crate::controllers(&context)).await;
        }
    };
    if !settings.leader_elect {
        work.await;
        return Ok(());
    }
    let mut candidate =
        Candidate::new(context.client.clone(), &settings.namespace, identity(), settings.lease_duration());
    if !candidate.acquire(&context.shutdown).await {
        return Ok(());
    }
    tracing::info!("leading");
    // On their own task: a renewal must not wait for a controller's poll.
    let work = tokio::spawn(work);
    let ended = candidate
        .hold(async {
            if let Err(error) = work.await {
                tracing::error!(%error, "a controller panicked");
            }
        })
        .await;
    match ended {
        // All controllers end by themselves only on shutdown.
        Ended::Released if context.shutdown.is_triggered() => Ok(()),
        Ended::Released => bail!("the controllers ended by themselves"),
        // Without draining: another may be leading already.
        Ended::Lost => bail!("lost the leadership"),
    }
}

fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".into());
    let nonce = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{host}_{:x}_{nonce:x}", std::process::id())
}

fn stop_on_signal(context: &Arc<Context>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = context.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.trigger();
    });
    Ok(())
}
