//! `cargo xtask cluster`: a single-node Kubernetes on this machine, from real parts, in a network namespace of its own.
//!
//! There is one at most per machine. What runs is under [`RUN`], whichever checkout started it, so any checkout can clear it away;
//! what is stored is under `target/cluster` of the checkout that started it, mounted into [`RUN`] while it runs.

mod cgroup;
mod mounts;
mod network;
mod pki;
mod config;
mod daemon;
mod images;
mod volumes;
mod binfmt;
mod discovery;
mod traces;
mod up;
mod down;
pub mod suite;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Subcommand;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::shell::{cmd, output, say};
use crate::{layout, setup};

pub use binfmt::Arm64;
pub use down::down;
pub use images::{import, imported_digest};
pub use up::up;
pub use volumes::recycle as recycle_volumes;

/// Sockets, state and mounts of the running cluster. Fixed and short: socket paths hold 107 characters.
pub const RUN: &str = "/run/edgeyard-lab";
/// Name of the node.
pub const NODE: &str = "edgeyard-lab";
/// Address of the cluster's end of the veth pair: API server 6443, Prometheus 9090.
pub const NODE_ADDRESS: &str = "10.231.0.2";
const HOST_ADDRESS: &str = "10.231.0.1";
const POD_SUBNET: &str = "10.232.0.0/24";
const POD_PREFIX: &str = "10.232.0.";
const SERVICE_SUBNET: &str = "10.233.0.0/24";
const API_SERVICE: &str = "10.233.0.1";
const DNS_SERVICE: &str = "10.233.0.10";

/// Arguments of `cluster`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start the cluster; clears away what a killed one left
    Up,
    /// Stop the cluster and remove every trace of it but its logs
    Down,
    /// Say what runs
    Status,
    /// Print the path of the kubeconfig
    Kubeconfig,
    /// Tell Prometheus which pods to scrape; `up` starts it
    #[command(hide = true)]
    Discover {
        /// The kubectl to watch pods with
        kubectl: PathBuf,
    },
}

/// Runs `cargo xtask cluster …`.
///
/// # Errors
/// The step that failed; the logs are in `target/cluster/log`.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.command {
        Verb::Up => {
            setup::install()?;
            up()?;
            println!("cluster: KUBECONFIG={} PATH={}:$PATH", kubeconfig()?.display(), bin_dir()?.display());
            println!("cluster: Prometheus is at {}", prometheus_url());
        }
        Verb::Down => down()?,
        Verb::Status => return status(),
        Verb::Discover { kubectl } => return discovery::run(kubectl),
        Verb::Kubeconfig => println!("{}", kubeconfig()?.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// What `up` leaves in [`RUN`] about itself.
#[derive(Serialize, Deserialize)]
struct State {
    checkout: PathBuf,
}

impl State {
    fn path() -> PathBuf {
        PathBuf::from(RUN).join("state.json")
    }

    fn read() -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(Self::path()).ok()?).ok()
    }

    fn write(&self) -> Result<()> {
        Ok(fs::write(Self::path(), serde_json::to_string(self)?)?)
    }
}

/// `target/cluster` of this checkout.
fn place() -> Result<PathBuf> {
    Ok(layout::target()?.join("cluster"))
}

/// The administrator's kubeconfig.
///
/// # Errors
/// Outside a checkout.
pub fn kubeconfig() -> Result<PathBuf> {
    Ok(place()?.join("kubeconfig"))
}

/// Links to kubectl, helm and our plugin.
///
/// # Errors
/// Outside a checkout.
pub fn bin_dir() -> Result<PathBuf> {
    Ok(place()?.join("bin"))
}

/// Where the host reaches the lab's Prometheus.
#[must_use]
pub fn prometheus_url() -> String {
    format!("http://{NODE_ADDRESS}:9090")
}

/// `kubectl` of this cluster.
///
/// # Errors
/// When Kubernetes' version cannot be read.
pub fn kubectl<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Command> {
    let kubectl = setup::kubernetes::dir(&layout::root()?, &layout::cache()?)?.join("kubectl");
    let mut command = cmd(&kubectl.to_string_lossy(), args);
    command.env("KUBECONFIG", kubeconfig()?);
    Ok(command)
}

/// Whether the cluster of this checkout runs and its node is ready.
#[must_use]
pub fn is_up() -> bool {
    let ours = State::read().is_some_and(|state| layout::root().is_ok_and(|root| root == state.checkout));
    let ready = || -> Result<bool> {
        if !daemon::all_alive() {
            return Ok(false);
        }
        let path = r"jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        Ok(output(&mut kubectl(["get", "node", NODE, "--request-timeout=5s", "-o", path])?)? == "True")
    };
    ours && ready().unwrap_or(false)
}

fn status() -> Result<ExitCode> {
    let Some(State { checkout }) = State::read() else {
        let left = down::leftovers()?;
        if left.is_empty() {
            say("the cluster is down");
            return Ok(ExitCode::SUCCESS);
        }
        say("the cluster is down, but this is left of it; `cargo xtask cluster down` removes it:");
        left.iter().for_each(|line| say(line));
        return Ok(ExitCode::FAILURE);
    };
    say(&format!("started by {}", checkout.display()));
    for (name, alive) in daemon::list() {
        say(&format!("{name:<24} {}", if alive { "runs" } else { "DEAD" }));
    }
    if !is_up() {
        say("not usable from this checkout; `cargo xtask cluster up` mends that");
        return Ok(ExitCode::FAILURE);
    }
    output(&mut kubectl(["get", "nodes,pods", "--all-namespaces", "-o", "wide"])?)?.lines().for_each(say);
    say(&format!("KUBECONFIG={}", kubeconfig()?.display()));
    say(&format!("Prometheus is at {}", prometheus_url()));
    Ok(ExitCode::SUCCESS)
}

/// Held while the cluster goes up or down, or images are imported.
fn lock() -> Result<fs::File> {
    setup::lock(
        std::path::Path::new("/run/edgeyard-lab.lock"),
        "somebody else is starting or stopping the cluster; waiting",
    )
    .context("locking the cluster")
}
