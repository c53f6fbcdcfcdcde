//! `edgeyard-operator`: arguments, TLS provider, logs, then [`edgeyard_operator::run`].

use clap::Parser as _;
use edgeyard_operator::frame::settings::{LogFormat, Settings};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    // Two providers in one program panic when TLS starts; this names the one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    match settings.log_format {
        LogFormat::Json => logs.json().flatten_event(true).init(),
        LogFormat::Pretty => logs.init(),
    }
    edgeyard_operator::run(settings).await
}
