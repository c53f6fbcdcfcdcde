//! The store's rights in the cluster: who may read what, and which writer is too late.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use edgeyard_e2e::{Cluster, Example, Namespace, cluster, lab};
use serde_json::Value;

#[test]
#[ignore = "needs a cluster: cargo xtask test --only store-server"]
fn another_namespaces_token_reads_nothing() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "owner")?;
    let stranger = Namespace::create(&cluster, "stranger")?;
    let model = &example.inputs["MODEL"];
    let store = Store::new(&cluster)?;
    let (own, other) = (store.token(&cluster, example.name())?, store.token(&cluster, stranger.name())?);
    let blob = format!("/v1/namespaces/{}/blobs/{model}", example.name());
    ensure!(store.status("GET", &blob, &own)? == "200", "the owner cannot read its own blob");
    ensure!(store.status("GET", &blob, &other)? == "403", "a stranger reads a blob");
    let foreign = format!("/v1/namespaces/{}/blobs/{model}", stranger.name());
    ensure!(store.status("GET", &foreign, &other)? == "404", "a digest is a capability");
    let results = format!("/v1/namespaces/{}/results", example.name());
    ensure!(store.status("GET", &results, &own)? == "200", "the owner cannot list its own results");
    ensure!(store.status("GET", &results, &other)? == "403", "a stranger lists results");
    ensure!(store.status("GET", &results, "no-token")? == "401", "anybody reads");
    Ok(())
}

/// The store as seen from the host, through a port-forward.
struct Store {
    forward: std::process::Child,
    port: u16,
    authority: std::path::PathBuf,
}

impl Store {
    fn new(cluster: &Cluster) -> Result<Self> {
        let map = cluster.get("configmap", lab::SYSTEM, "edgeyard-store-ca")?.context("the store's CA")?;
        let authority = edgeyard_e2e::root().join(format!("target/e2e/store-ca-{}.crt", std::process::id()));
        fs_err::create_dir_all(authority.parent().context("a folder")?)?;
        fs_err::write(&authority, map["data"]["ca.crt"].as_str().context("ca.crt")?)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let ports = format!("{port}:8443");
        let mut command =
            cluster.command("kubectl", &["port-forward", "-n", lab::SYSTEM, "service/edgeyard-store", &ports]);
        let forward = command.stdout(std::process::Stdio::null()).spawn()?;
        let store = Self { forward, port, authority };
        edgeyard_e2e::wait_for("the port-forward", std::time::Duration::from_secs(30), || {
            Ok((store.status("GET", "/healthz", "none")? == "200").then_some(()))
        })?;
        Ok(store)
    }

    fn token(&self, cluster: &Cluster, namespace: &str) -> Result<String> {
        let token = cluster.kubectl(&["create", "token", "default", "-n", namespace, "--audience=edgeyard-store"])?;
        Ok(token.trim().to_owned())
    }

    fn status(&self, method: &str, path: &str, token: &str) -> Result<String> {
        let name = format!("edgeyard-store.{}.svc", lab::SYSTEM);
        let Self { port, authority, .. } = self;
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--request",
            method,
            "--cacert",
        ]);
        command.arg(authority).arg("--resolve").arg(format!("{name}:{port}:127.0.0.1"));
        command
            .arg("--header")
            .arg(format!("Authorization: Bearer {token}"))
            .arg(format!("https://{name}:{port}{path}"));
        cluster::run(command, None)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.forward.kill();
        let _ = self.forward.wait();
    }
}

/// The list of results is JSON with digests that can be read.
#[test]
#[ignore = "needs a cluster: cargo xtask test --only store-server"]
fn a_namespace_sees_its_usage_and_nothing_twice() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "usage")?;
    let twice = example.push(&edgeyard_e2e::data::model())?;
    ensure!(twice == example.inputs["MODEL"], "the same file has two digests");
    let listed: Value = serde_json::from_str(&cluster.edgeyard(&["get", "-n", example.name(), "-o", "json"])?)?;
    ensure!(listed["items"].as_array().is_some_and(Vec::is_empty), "results of nothing: {listed}");
    Ok(())
}
