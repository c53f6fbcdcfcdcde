//! The operator's command line; every flag is also an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
pub use edgeyard_crds::device_class::Architecture;

/// Runs the controllers of Edgeyard.
#[derive(Parser, Clone, Debug)]
#[command(name = "edgeyard-operator", version)]
pub struct Settings {
    /// Namespace of the operator: its Lease, grant key and Secrets live there.
    #[arg(long, env = "EDGEYARD_NAMESPACE", default_value = "edgeyard-system")]
    pub namespace: String,

    /// Image of optimizer Jobs and runner pods, unless a device class names its own.
    #[arg(long, env = "EDGEYARD_WORKER_IMAGE", default_value = "localhost/edgeyard/worker:dev")]
    pub worker_image: String,

    /// The same for devices of 64-bit ARM; without it, `--worker-image` is taken to be for both.
    #[arg(long, env = "EDGEYARD_WORKER_IMAGE_ARM64")]
    pub worker_image_arm64: Option<String>,

    /// The same for Jobs that run a vendor's compiler, such as Vela for ethos-u; without it, or with an image that has none, artefacts of
    /// such targets are held against the target's rules only.
    #[arg(long, env = "EDGEYARD_COMPILER_IMAGE")]
    pub compiler_image: Option<String>,

    /// When nodes pull the worker image: Always, IfNotPresent or Never.
    #[arg(long, env = "EDGEYARD_WORKER_PULL_POLICY", default_value = "IfNotPresent")]
    pub worker_pull_policy: String,

    /// Where pods and the operator find the store.
    #[arg(long, env = "EDGEYARD_STORE_URL", default_value = "https://edgeyard-store.edgeyard-system.svc:8443")]
    pub store_url: String,

    /// PEM file with the certificate authority of the store.
    #[arg(long, env = "EDGEYARD_STORE_CA")]
    pub store_ca: Option<PathBuf>,

    /// File with the ServiceAccount token that the operator shows to the store.
    #[arg(long, env = "EDGEYARD_STORE_TOKEN_FILE", default_value = "/var/run/secrets/edgeyard/store-token")]
    pub store_token_file: PathBuf,

    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "EDGEYARD_METRICS_LISTEN", default_value = "0.0.0.0:8080")]
    pub metrics_listen: SocketAddr,

    /// Take a Lease before working, so that a second operator can stand by: true or false.
    #[arg(long, env = "EDGEYARD_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// How long a leader that fell silent keeps others waiting.
    #[arg(long, env = "EDGEYARD_LEASE_DURATION_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..))]
    pub lease_duration_seconds: u16,

    /// How many objects of one kind are reconciled at once.
    #[arg(long, env = "EDGEYARD_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,

    /// How long a runner pod may take to end before its device is freed all the same.
    #[arg(long, env = "EDGEYARD_RELEASE_TIMEOUT_SECONDS", default_value_t = 120)]
    pub release_timeout_seconds: u32,

    /// Let import Jobs fetch from private and link-local addresses: true or false.
    #[arg(
        long,
        env = "EDGEYARD_ALLOW_PRIVATE_ADDRESSES",
        default_value_t = false,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    pub allow_private_addresses: bool,

    /// The largest input that an import Job takes.
    #[arg(long, env = "EDGEYARD_MAX_INPUT_BYTES", default_value_t = 2 << 30)]
    pub max_input_bytes: u64,

    /// Port at which each node's agent answers; runner pods ask it for what they may not read themselves.
    #[arg(long, env = "EDGEYARD_NODE_AGENT_PORT")]
    pub node_agent_port: Option<u16>,

    /// Something else than running the controllers.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How log lines look.
    #[arg(long, env = "EDGEYARD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// What else the operator's program can do.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Suspend all work, free all devices and remove what only the operator can: before an uninstall.
    Drain(crate::drain::Args),
}

/// How log lines look.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people at a terminal.
    Pretty,
}

impl Settings {
    /// The image for pods of an architecture.
    pub fn worker_image(&self, architecture: Architecture) -> &str {
        match (architecture, &self.worker_image_arm64) {
            (Architecture::Arm64, Some(image)) => image,
            (Architecture::Arm64, None) | (Architecture::Amd64, _) => &self.worker_image,
        }
    }

    /// [`Self::lease_duration_seconds`] as a duration.
    pub fn lease_duration(&self) -> Duration {
        Duration::from_secs(self.lease_duration_seconds.into())
    }
}
