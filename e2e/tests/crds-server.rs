//! The API's cases against a real API server, in a namespace that is made for them.

#[path = "../../crds/tests/table/mod.rs"]
mod table;

use anyhow::{Result, ensure};
use edgeyard_e2e::Cluster;
use serde_json::{Value, json};
use table::{Case, Request, Verdict};

#[test]
#[ignore = "needs a cluster: cargo xtask test --only crds-server"]
fn api_server_answers_as_intended() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    install_crds(&cluster)?;
    // An operator would write the status of the very objects that are tried.
    let operator = "deployment/edgeyard-operator";
    let installed = !cluster.kubectl(&["get", operator, "-n", "edgeyard-system", "--ignore-not-found"])?.is_empty();
    if installed {
        cluster.kubectl(&["scale", operator, "-n", "edgeyard-system", "--replicas=0"])?;
        let pods = "app.kubernetes.io/component=operator";
        cluster.kubectl(&["wait", "--for=delete", "pod", "-l", pods, "-n", "edgeyard-system", "--timeout=60s"])?;
    }
    let namespace = Namespace::create(&cluster)?;
    let mut wrong = vec![];
    let (mut accepted, mut rejected) = (0, 0);
    for case in table::cases() {
        match (case.server(), namespace.answer(&case)) {
            (Verdict::Accepts, Ok(())) => accepted += 1,
            (Verdict::Rejects, Err(error))
                if error.to_string().contains(case.message.as_deref().unwrap_or_default()) =>
            {
                rejected += 1;
            }
            (_, answer) => wrong.push(format!("{}: {answer:?}", case.name)),
        }
    }
    if installed {
        cluster.kubectl(&["scale", operator, "-n", "edgeyard-system", "--replicas=1"])?;
    }
    println!("{accepted} accepted, {rejected} rejected as intended");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(accepted > 10 && rejected > 30, "the table has shrunk");
    Ok(())
}

/// Every rule that the CRDs have is named by the message of some case that is rejected.
#[test]
#[ignore = "needs a cluster: cargo xtask test --only crds-server"]
fn every_explanation_is_shown_to_users() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    install_crds(&cluster)?;
    for (path, word) in [
        ("modeloptimizations.spec.variants.passes.quantize.calibrator", "Percentile"),
        ("edgebenchmarks.spec.devices.targets", "runtimes"),
        ("benchmarkruns.status.step", "Measuring"),
        ("edgedeviceclasses.spec.isolation", "Node"),
        ("edgedevices.spec.stopPolicy", "HoldAndDrain"),
        ("leasequeues.spec.allowedNamespaces.from", "Same"),
        ("deviceleases.spec.release", "Cannot be undone"),
    ] {
        let text = cluster.kubectl(&["explain", path, "--api-version=edgeyard.dev/v1alpha1"])?;
        ensure!(text.contains(word), "kubectl explain {path} does not say {word}:\n{text}");
    }
    Ok(())
}

fn install_crds(cluster: &Cluster) -> Result<()> {
    let crds: Vec<Value> = edgeyard_crds::generate::all().iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": crds }).to_string();
    cluster.kubectl_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &list)?;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
    Ok(())
}

struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl<'a> Namespace<'a> {
    fn create(cluster: &'a Cluster) -> Result<Self> {
        let name = format!("crds-{}", std::process::id());
        cluster.kubectl(&["create", "namespace", &name])?;
        Ok(Self { cluster, name })
    }

    fn answer(&self, case: &Case) -> Result<()> {
        let (mut before, mut after) = case.objects();
        if case.on == Request::Create {
            return self.kubectl(&["create", "--dry-run=server", "-f", "-"], &after);
        }
        // Finalizers would outlive the test. An installed operator would write status: these objects say that they
        // are not its business by being deleted at once.
        for object in [&mut before, &mut after] {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("finalizers");
            }
        }
        self.kubectl(&["delete", "--ignore-not-found", "--wait", "-f", "-"], &before)?;
        self.kubectl(&["create", "-f", "-"], &before)?;
        self.kubectl(&["replace", "--subresource=status", "-f", "-"], &before)?;
        match case.on {
            Request::Status => {
                self.kubectl(&["replace", "--subresource=status", "--dry-run=server", "-f", "-"], &after)
            }
            Request::Create | Request::Update => self.kubectl(&["replace", "--dry-run=server", "-f", "-"], &after),
        }
    }

    fn kubectl(&self, arguments: &[&str], input: &Value) -> Result<()> {
        let arguments = [&["--namespace", &self.name], arguments].concat();
        self.cluster.kubectl_with(&arguments, &input.to_string())?;
        Ok(())
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.cluster.kubectl(&["delete", "namespace", "--wait=false", &self.name]) {
            eprintln!("namespace {}: {error}", self.name);
        }
    }
}
