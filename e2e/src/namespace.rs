//! A namespace for one test, gone with it.

use anyhow::Result;

use crate::{Cluster, diagnose};

/// A namespace that is deleted when this goes out of scope; a failing test shows what was in it first.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    /// Makes a namespace with this prefix; pods in it are held to the restricted standard.
    pub fn create(cluster: &'a Cluster, prefix: &str) -> Result<Self> {
        let name = format!("{prefix}-{}", std::process::id());
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ))?;
        allow(cluster, &name)?;
        Ok(Self { cluster, name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Lets the namespace's own ServiceAccount push to the store and read from it.
pub fn allow(cluster: &Cluster, namespace: &str) -> Result<()> {
    cluster.apply(&format!(
        "{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: edgeyard-store, namespace: {namespace}}}, roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edgeyard-store-user}}, subjects: [{{kind: ServiceAccount, name: default, namespace: {namespace}}}]}}"
    ))
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            diagnose::print(self.cluster, &self.name);
        }
        let deleted =
            self.cluster.kubectl(&["delete", "namespace", &self.name, "--ignore-not-found", "--timeout=150s"]);
        if let Err(error) = deleted {
            eprintln!("namespace {}: {error}", self.name);
        }
    }
}
