//! The node agent: tells restricted pods what they cannot read of their node (RAPL, throttle counters, the board's model),
//! and the client with which they ask. It only reads, and only these few files.
//!
//! `GET /v1/machine` answers with [`Machine`] as JSON, `GET /metrics` with the same for Prometheus, `GET /healthz` with 200.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::machine::throttle::{self, Throttle};
use crate::machine::{Root, cooling};
use crate::meter::rapl;
use crate::{cli, clock};

/// Where the agent is: `http://IP:PORT`.
pub const VARIABLE: &str = "EDGEYARD_NODE_AGENT";
/// Answers are at least so far apart: whoever could read RAPL at kilohertz could read secrets from it (PLATYPUS, Lipp et
/// al. 2021).
const LEAST_AGE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(2);
const LARGEST_ANSWER: u64 = 1 << 20;

/// Serve what restricted pods cannot read of this node.
#[derive(clap::Args, Debug)]
pub struct AgentArguments {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:9464")]
    pub listen: SocketAddr,
    /// Where the node's file system is mounted; only sys, proc and dev below it are read.
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What the agent read.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// `1`.
    pub schema_version: String,
    /// CLOCK_MONOTONIC_RAW when the energy counters were read, the same clock for all processes of the node.
    pub clock_nanoseconds: u64,
    /// The board's model from the device tree; null on machines without one.
    pub board_model: Option<String>,
    /// RAPL's packages; empty where there are none or they cannot be read.
    pub rapl: Vec<rapl::Zone>,
    /// Counters and bits of throttling.
    pub throttle: Throttle,
    /// The hottest thermal zone.
    pub hottest_millidegrees: Option<i64>,
}

/// Reads the machine.
pub fn read(root: &Root) -> Machine {
    Machine {
        schema_version: "1".into(),
        clock_nanoseconds: clock::now(),
        rapl: rapl::packages(root),
        board_model: root.read("/sys/firmware/devicetree/base/model").or_else(|| root.read("/proc/device-tree/model")),
        throttle: throttle::read_here(root),
        hottest_millidegrees: cooling::hottest(root),
    }
}

#[derive(Clone)]
struct Served {
    root: Root,
    last: Arc<Mutex<Option<(Instant, Machine)>>>,
}

impl Served {
    fn machine(&self) -> Machine {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((when, machine)) if when.elapsed() < LEAST_AGE => machine.clone(),
            _ => {
                let machine = read(&self.root);
                *last = Some((Instant::now(), machine.clone()));
                machine
            }
        }
    }
}

/// The agent's routes over a root.
pub fn router(root: Root) -> Router {
    async fn machine(State(served): State<Served>) -> Json<Machine> {
        Json(served.machine())
    }
    async fn metrics(State(served): State<Served>) -> impl IntoResponse {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4")], exposition(&served.machine()))
    }
    Router::new()
        .route("/v1/machine", get(machine))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Served { root, last: Arc::default() })
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// `AddressUnusable` when it cannot listen.
pub fn execute(arguments: &AgentArguments) -> Result<(), Failure> {
    let AgentArguments { listen, root } = arguments;
    let refused =
        |error: std::io::Error| Failure::infrastructure("AddressUnusable", format!("--listen {listen}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        cli::print(&format!("listening on http://{address}"));
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let stopped = async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = tokio::signal::ctrl_c() => (),
            }
        };
        axum::serve(listener, router(Root::new(root))).with_graceful_shutdown(stopped).await.map_err(refused)
    })
}

fn exposition(machine: &Machine) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, series: Vec<(String, String)>| {
        if series.is_empty() {
            return;
        }
        text.push_str(&format!("# HELP edgeyard_node_{name} {help}\n# TYPE edgeyard_node_{name} {kind}\n"));
        for (labels, value) in series {
            text.push_str(&format!("edgeyard_node_{name}{labels} {value}\n"));
        }
    };
    let one = |value: Option<u64>| value.map(|value| (String::new(), value.to_string())).into_iter().collect();
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
    let packages = machine.rapl.iter().map(|zone| {
        let joules = zone.energy_microjoules as f64 / 1e6;
        (format!("{{package=\"{}\"}}", escaped(&zone.name)), format!("{joules:.6}"))
    });
    family("rapl_energy_joules_total", "counter", "Energy that a package took, as RAPL counts it.", packages.collect());
    let Throttle { core_events, package_events, raspberry_pi_bits, unavailable: _ } = &machine.throttle;
    family("throttle_core_events_total", "counter", "Times that a core throttled by heat.", one(*core_events));
    family("throttle_package_events_total", "counter", "Times that a package throttled by heat.", one(*package_events));
    let bits = raspberry_pi_bits.iter().flat_map(|bits| {
        ["UnderVoltage", "FrequencyCapped", "Throttled", "SoftTemperatureLimit"].into_iter().enumerate().flat_map(
            move |(bit, name)| {
                [("now", bit), ("boot", bit + 16)].map(|(since, bit)| {
                    (format!("{{reason=\"{name}\",since=\"{since}\"}}"), (bits >> bit & 1).to_string())
                })
            },
        )
    });
    family("raspberry_pi_throttled", "gauge", "Whether the firmware holds the board back.", bits.collect());
    let celsius = machine.hottest_millidegrees.map(|told| (String::new(), format!("{:.3}", told as f64 / 1e3)));
    family("temperature_celsius", "gauge", "The hottest thermal zone.", celsius.into_iter().collect());
    let model = machine.board_model.iter().map(|model| (format!("{{model=\"{}\"}}", escaped(model)), "1".to_owned()));
    family("board_info", "gauge", "The board's model.", model.collect());
    text
}

/// Asks the agent of this node.
#[derive(Clone, Debug)]
pub struct Client {
    authority: String,
}

impl Client {
    /// The agent that [`VARIABLE`] names, if it is set.
    pub fn from_environment() -> Option<Self> {
        Self::new(&std::env::var(VARIABLE).ok()?)
    }

    /// The agent at `http://IP:PORT`.
    pub fn new(url: &str) -> Option<Self> {
        let authority = url.trim().strip_prefix("http://")?.trim_end_matches('/');
        (!authority.is_empty() && !authority.contains('/')).then(|| Self { authority: authority.to_owned() })
    }

    /// What the agent reads now.
    ///
    /// # Errors
    /// `NodeAgentUnreachable`: nobody answers, or not with a machine.
    pub fn machine(&self) -> Result<Machine, Failure> {
        let failed = |why: String| {
            Failure::infrastructure("NodeAgentUnreachable", format!("the node agent at {}: {why}", self.authority))
        };
        let body = self.get("/v1/machine").map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&body).map_err(|error| failed(format!("answered no machine: {error}")))
    }

    /// HTTP/1.0, so that the answer ends where the connection does: meters are read in a thread that has no async runtime.
    fn get(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let other = |why: &str| std::io::Error::other(why.to_owned());
        let address = self.authority.to_socket_addrs()?.next().ok_or_else(|| other("has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.authority)?;
        let mut answer = Vec::new();
        stream.take(LARGEST_ANSWER).read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| other("answered no HTTP"))?;
        let head = String::from_utf8_lossy(&answer[..end]);
        let status = head.lines().next().unwrap_or_default().to_owned();
        if status.split(' ').nth(1) != Some("200") {
            return Err(other(&format!("answered {status:?}")));
        }
        Ok(answer.split_off(end + 4))
    }
}
