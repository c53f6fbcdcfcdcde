//! The example's model and data in a namespace of a test's own, and manifests around them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use fs_err as fs;

use crate::cluster::run;
use crate::wait::wait_for;
use crate::{Cluster, Namespace, data, lab, root};

/// The example in a namespace.
#[derive(Debug)]
pub struct Example<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Where it is.
    pub namespace: Namespace<'a>,
    /// What `${…}` in the example's manifests stands for: MODEL, TEST (512 samples of it), SMOKE.
    pub inputs: BTreeMap<&'static str, String>,
}

impl<'a> Example<'a> {
    /// Pushes model and data. To be quick, 512 samples stand for the test data.
    pub fn new(cluster: &'a Cluster, prefix: &str) -> Result<Self> {
        let namespace = Namespace::create(cluster, prefix)?;
        data::calibration_map(cluster, namespace.name())?;
        let smoke = data::push(cluster, namespace.name(), &data::mnist()?.join("smoke.npz"))?;
        let inputs = BTreeMap::from([
            ("MODEL", data::push(cluster, namespace.name(), &data::model())?),
            ("TEST", smoke.clone()),
            ("SMOKE", smoke),
        ]);
        Ok(Self { cluster, namespace, inputs })
    }

    /// The namespace's name.
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// Pushes another file and gives its digest.
    pub fn push(&self, file: &Path) -> Result<String> {
        data::push(self.cluster, self.name(), file)
    }

    /// Applies a manifest of the examples.
    pub fn apply_example(&self, file: &str) -> Result<()> {
        self.cluster.apply(&data::manifest(file, self.name(), &self.inputs)?)
    }

    /// A ModelOptimization of a stored model. `more` are further lines of `spec`, indented by two.
    pub fn optimization(&self, name: &str, model: &str, variants: &str, more: &str) -> String {
        format!(
            "apiVersion: edgeyard.dev/v1alpha1
kind: ModelOptimization
metadata: {{name: {name}, namespace: {}}}
spec:
  source: {{format: ONNX, artifact: {{digest: \"{model}\"}}}}
  variants: {variants}
{more}
",
            self.name()
        )
    }

    /// An EdgeBenchmark of ModelOptimizations on devices. `more` are further lines of `spec`, indented by two.
    pub fn benchmark(&self, name: &str, optimizations: &[&str], devices: &str, more: &str) -> String {
        let models: Vec<_> =
            optimizations.iter().map(|o| format!("{{name: {o}, modelOptimization: {{name: {o}}}}}")).collect();
        format!(
            "apiVersion: edgeyard.dev/v1alpha1
kind: EdgeBenchmark
metadata: {{name: {name}, namespace: {}}}
spec:
  models: [{}]
  devices: {devices}
  workload: {{scenario: SingleStream, profile: Smoke, seed: 42}}
{more}
",
            self.name(),
            models.join(", ")
        )
    }

    /// Deletes every object of the user and checks that nothing made for them is left anywhere.
    pub fn cleared(&self) -> Result<()> {
        let namespace = self.name();
        self.cluster.kubectl(&["delete", "eb,mo,dl", "--all", "-n", namespace, "--wait", "--timeout=180s"])?;
        wait_for("nothing to be left", std::time::Duration::from_secs(120), || {
            let left = self.left()?;
            ensure!(left.is_empty(), "left: {}", left.join(", "));
            Ok(Some(()))
        })
    }

    /// What is there that the operator made for objects of this namespace.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        let made = "app.kubernetes.io/managed-by=edgeyard";
        let there = self.cluster.kubectl(&[
            "get",
            "jobs,pods,secrets,configmaps",
            "-n",
            self.name(),
            "-l",
            made,
            "-o",
            "name",
        ])?;
        left.extend(there.lines().map(str::to_owned));
        let runs = self.cluster.kubectl(&["get", "br,dl", "-n", self.name(), "-o", "name"])?;
        left.extend(runs.lines().map(str::to_owned));
        let lab = self.cluster.kubectl(&["get", "pods,secrets", "-n", lab::NAMESPACE, "-l", made, "-o", "name"])?;
        left.extend(lab.lines().map(|line| format!("{}/{line}", lab::NAMESPACE)));
        for device in self.cluster.list("edgedevice", lab::NAMESPACE, "")? {
            if device["status"]["leaseRef"]["namespace"] == self.name() {
                left.push(format!("lease of {}", device["metadata"]["name"]));
            }
        }
        Ok(left)
    }
}

/// Runs a script of `e2e/models` with the oracles' Python and gives the file that it wrote.
pub fn made_by(script: &str, arguments: &[&str], file: &str) -> Result<PathBuf> {
    let python =
        std::env::var("EDGEYARD_PYTHON").context("EDGEYARD_PYTHON is not set: run this through `cargo xtask test`")?;
    let folder = root().join("target/e2e");
    fs::create_dir_all(&folder)?;
    let out = folder.join(file);
    let mut command = Command::new(python);
    command.arg(root().join("e2e/models").join(script)).arg(&out).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    run(command, None)?;
    Ok(out)
}
