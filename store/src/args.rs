//! The command line; every flag can be given as an environment variable too.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Keeps Edgeyard's artefacts and records.
#[derive(Parser, Debug, Clone)]
#[command(name = "edgeyard-store", version, max_term_width = 110)]
pub struct Arguments {
    /// How to write logs (EDGEYARD_LOG sets the level, such as debug).
    #[arg(long, global = true, env = "EDGEYARD_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to write logs.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What to do.
#[derive(Subcommand, Debug, Clone)]
pub enum Command {
    /// Answer requests until SIGTERM.
    Serve(Box<Serve>),
    /// Rebuild the SQLite index from the OCI layout. `serve` does this by itself when they differ.
    Reindex(Data),
    /// Remove blobs that nothing refers to. `serve` does this by itself from time to time.
    Sweep {
        /// Where the data is.
        #[command(flatten)]
        data: Data,
        /// Blobs younger than this are kept.
        #[arg(long, env = "EDGEYARD_STORE_SWEEP_GRACE_SECONDS", default_value_t = 86_400)]
        sweep_grace_seconds: u64,
    },
    /// Read every blob and compare it with its digest; exit code 1 if anything is damaged.
    Fsck(Data),
}

/// Where the data is.
#[derive(Args, Debug, Clone)]
pub struct Data {
    /// A folder, or s3://BUCKET/PREFIX (credentials and endpoint from AWS_… variables).
    #[arg(long, env = "EDGEYARD_STORE_DATA")]
    pub data: String,
    /// The SQLite file; by default in the data folder, or in the temporary folder for s3.
    #[arg(long, env = "EDGEYARD_STORE_INDEX")]
    pub index: Option<PathBuf>,
}

/// How to serve.
#[derive(Args, Debug, Clone)]
pub struct Serve {
    /// Where the data is.
    #[command(flatten)]
    pub data: Data,
    /// Where to listen.
    #[arg(long, env = "EDGEYARD_STORE_LISTEN", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// PEM of the certificate and its chain; read again when it changes.
    #[arg(long, env = "EDGEYARD_STORE_TLS_CERT", requires = "tls_key", required_unless_present = "insecure")]
    pub tls_cert: Option<PathBuf>,
    /// PEM of the private key.
    #[arg(long, env = "EDGEYARD_STORE_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Plain http, on a loopback address only.
    #[arg(long, env = "EDGEYARD_STORE_INSECURE", conflicts_with = "tls_cert")]
    pub insecure: bool,
    /// Plain http for /metrics, /healthz and /readyz alone, for scrapers and probes.
    #[arg(long, env = "EDGEYARD_STORE_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Write the address that is listened on to this file once connections are accepted.
    #[arg(long)]
    pub address_file: Option<PathBuf>,
    /// Bytes that a namespace may store.
    #[arg(long, env = "EDGEYARD_STORE_QUOTA_BYTES", default_value_t = 10 << 30)]
    pub quota_bytes: u64,
    /// Another quota for one namespace; may be repeated, or separated by commas.
    #[arg(long = "namespace-quota", value_name = "NAMESPACE=BYTES", value_delimiter = ',', value_parser = namespace_quota)]
    #[arg(env = "EDGEYARD_STORE_NAMESPACE_QUOTA")]
    pub namespace_quota: Vec<(String, u64)>,
    /// Blobs that nothing refers to are removed when they are older than this.
    #[arg(long, env = "EDGEYARD_STORE_SWEEP_GRACE_SECONDS", default_value_t = 86_400)]
    pub sweep_grace_seconds: u64,
    /// How often to look for such blobs.
    #[arg(long, env = "EDGEYARD_STORE_SWEEP_INTERVAL_SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..))]
    pub sweep_interval_seconds: u64,
    /// How long requests may go on after SIGTERM.
    #[arg(long, env = "EDGEYARD_STORE_DRAIN_SECONDS", default_value_t = 20)]
    pub drain_seconds: u64,
    /// Ask the cluster who a token belongs to and what they may do, and take grants that its operator signed.
    #[arg(long, env = "EDGEYARD_STORE_KUBERNETES")]
    pub kubernetes: bool,
    /// Namespace of the ConfigMap with the operator's public key; by default the pod's own.
    #[arg(long, env = "EDGEYARD_STORE_NAMESPACE", requires = "kubernetes")]
    pub namespace: Option<String>,
    /// Name of that ConfigMap.
    #[arg(long, default_value = "edgeyard-grant-key", requires = "kubernetes")]
    pub grant_key_config_map: String,
    /// Take grants signed by this key (base64 of 32 bytes), without a cluster.
    #[arg(long, value_name = "FILE", conflicts_with = "kubernetes")]
    pub grant_public_key: Option<PathBuf>,
    /// Whoever shows the token in this file may do everything, without a cluster.
    #[arg(long, value_name = "FILE", conflicts_with = "kubernetes")]
    pub static_token: Option<PathBuf>,
}

fn namespace_quota(text: &str) -> Result<(String, u64), String> {
    let wrong = || format!("{text:?} is not NAMESPACE=BYTES, such as vision=1073741824");
    let (namespace, bytes) = text.split_once('=').ok_or_else(wrong)?;
    if namespace.is_empty() {
        return Err(wrong());
    }
    Ok((namespace.to_owned(), bytes.parse().map_err(|_| wrong())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn quotas_by_namespace() {
        assert_eq!(namespace_quota("vision=5"), Ok(("vision".into(), 5)));
        for wrong in ["vision", "=5", "vision=", "vision=5Gi"] {
            assert!(namespace_quota(wrong).is_err(), "{wrong}");
        }
    }
}
