//! A cluster, through the programs that users have: kubectl (with our plugin) and helm.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// A cluster. Without a kubeconfig of its own it is the one that the environment names.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// The kubeconfig; absent: `KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
    /// A folder that is searched for programs before `PATH`.
    pub bin: Option<PathBuf>,
}

impl Cluster {
    /// The cluster that `KUBECONFIG` names; the test runner sets it.
    pub fn from_environment() -> Result<Self> {
        if std::env::var_os("KUBECONFIG").is_none() {
            bail!("KUBECONFIG names no cluster: run this through `cargo xtask test --only NAME`");
        }
        Ok(Self::default())
    }

    /// A program that talks to this cluster.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let path = self.bin.as_ref().map(|bin| bin.join(program)).filter(|path| path.exists());
        let mut command = Command::new(path.unwrap_or_else(|| program.into()));
        command.args(arguments);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        if let Some(bin) = &self.bin {
            let mut paths = vec![bin.clone()];
            paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
            if let Ok(joined) = std::env::join_paths(paths) {
                command.env("PATH", joined);
            }
        }
        command
    }

    /// Runs kubectl and gives what it printed; its complaint is the error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("kubectl", arguments), None)
    }

    /// As [`Self::kubectl`], with something on standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        run(self.command("kubectl", arguments), Some(input))
    }

    /// Runs our plugin.
    pub fn edgeyard(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("kubectl-edgeyard", arguments), None)
    }

    /// Runs helm.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        run(self.command("helm", arguments), None)
    }

    /// Server-side applies manifests.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl_with(&["apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-"], manifests)?;
        Ok(())
    }

    /// An object; `None` if there is none.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text)?))
    }

    /// All objects of a kind in a namespace; `""` for all namespaces.
    pub fn list(&self, kind: &str, namespace: &str, selector: &str) -> Result<Vec<Value>> {
        let mut arguments = vec!["get", kind, "-o", "json", "-l", selector];
        if namespace.is_empty() {
            arguments.push("--all-namespaces");
        } else {
            arguments.extend(["-n", namespace]);
        }
        let mut list: Value = serde_json::from_str(&self.kubectl(&arguments)?)?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            other => bail!("kubectl get {kind} gave {other} instead of items"),
        }
    }

    /// The name of the first node that pods can run on.
    pub fn node(&self) -> Result<String> {
        let nodes = self.list("nodes", "", "")?;
        let first = nodes.first().context("the cluster has no node")?;
        Ok(first["metadata"]["name"].as_str().context("a node has a name")?.to_owned())
    }
}

/// Runs a program; what it wrote to standard error is the error.
pub fn run(mut command: Command, input: Option<&str>) -> Result<String> {
    let shown = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown}: cannot be started; `cargo xtask setup` installs it"))?;
    let writer = child.stdin.take().zip(input.map(str::to_owned)).map(|(mut stdin, input)| {
        // A full pipe must not stop us from reading the answer. A program that does not read ends by itself.
        std::thread::spawn(move || stdin.write_all(input.as_bytes()))
    });
    let output = child.wait_with_output()?;
    if let Some(writer) = writer {
        let _ = writer.join();
    }
    if !output.status.success() {
        bail!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
