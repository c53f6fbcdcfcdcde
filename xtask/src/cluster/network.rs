//! The cluster's network namespace and the veth pair that joins it to the host.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;

use super::{HOST_ADDRESS, NODE_ADDRESS, POD_PREFIX};
use crate::shell::{cmd, output, quiet, succeeds};

const NAMESPACE: &str = "edgeyard-lab";
const HOST_END: &str = "eylab0";
const NODE_END: &str = "eylab1";

/// The namespace as a file, for `nsenter --net=`.
pub fn namespace() -> PathBuf {
    Path::new("/run/netns").join(NAMESPACE)
}

/// Makes the namespace, with addresses at both ends of the pair.
pub fn create() -> Result<()> {
    ip(&format!("netns add {NAMESPACE}"))?;
    ip(&format!("link add {HOST_END} type veth peer name {NODE_END} netns {NAMESPACE}"))?;
    ip(&format!("addr add {HOST_ADDRESS}/24 dev {HOST_END}"))?;
    ip(&format!("link set {HOST_END} up"))?;
    for words in [
        "link set lo up".to_owned(),
        format!("addr add {NODE_ADDRESS}/24 dev {NODE_END}"),
        format!("link set {NODE_END} up"),
        format!("route add default via {HOST_ADDRESS}"),
    ] {
        ip(&format!("-n {NAMESPACE} {words}"))?;
    }
    inside(&["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])?;
    // Absent when the kernel has no br_netfilter; then traffic between pods does not pass iptables, and need not.
    let bridge = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    inside(&["sh", "-c", &format!("[ ! -e {bridge} ] || echo 1 >{bridge}")])
}

/// `ip netns exec` would hide `/sys/fs/cgroup`; `nsenter` changes the network alone.
fn inside(words: &[&str]) -> Result<()> {
    quiet(cmd("nsenter", [format!("--net={}", namespace().display())]).args(words))
}

fn ip(words: &str) -> Result<()> {
    quiet(&mut cmd("ip", words.split(' ')))
}

/// Removes the namespace, the pair, and namespaces of pods that were killed before CNI could.
pub fn remove() -> Result<()> {
    for pod in pods()? {
        ip(&format!("netns del {pod}"))?;
    }
    if namespace().exists() {
        ip(&format!("netns del {NAMESPACE}"))?;
    }
    // Its peer is gone with the namespace as soon as the kernel gets to it; not waiting for that is simpler.
    if link_exists() {
        let _ = ip(&format!("link del {HOST_END}"));
    }
    Ok(())
}

/// What is left of the network.
pub fn leftovers() -> Result<Vec<String>> {
    let mut left: Vec<String> = pods()?.iter().map(|pod| format!("network namespace {pod}")).collect();
    if namespace().exists() {
        left.push(format!("network namespace {NAMESPACE}"));
    }
    if link_exists() {
        left.push(format!("network interface {HOST_END}"));
    }
    Ok(left)
}

fn link_exists() -> bool {
    Path::new("/sys/class/net").join(HOST_END).exists()
}

/// Pods' namespaces (`cni-*`) with an address of our pods: another container system's are none of our business.
fn pods() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir("/run/netns") else { return Ok(vec![]) };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("cni-") && succeeds(&mut cmd("ip", ["-n", &name, "link"])) {
            let addresses = output(&mut cmd("ip", ["-n", &name, "-4", "-o", "addr"]))?;
            if addresses.contains(POD_PREFIX) {
                found.push(name);
            }
        }
    }
    Ok(found)
}
