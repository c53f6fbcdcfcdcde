//! `kubectl edgeyard rerun`: one object is one execution, so running again means a new object with the same spec.

use anyhow::{Context as _, Result, bail};
use edgeyard_crds::benchmark::EdgeBenchmark;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt as _};

/// Names of EdgeBenchmarks have at most this many characters.
const LONGEST: usize = 52;
/// Room for what the API server adds to `generateName`.
const ADDED: usize = 5;

/// Arguments of `rerun`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The EdgeBenchmark to run again.
    edge_benchmark: String,
    /// The new object's name; by default the old one's with a random end.
    #[arg(long)]
    name: Option<String>,
}

/// Makes the new object and prints its name.
///
/// # Errors
/// When there is no such object, or what the API server said.
pub async fn run(client: Client, namespace: &str, args: &Args) -> Result<()> {
    let api: Api<EdgeBenchmark> = Api::namespaced(client, namespace);
    let Some(old) = api.get_opt(&args.edge_benchmark).await? else {
        bail!(
            "no EdgeBenchmark {} in {namespace}; `kubectl get edgebenchmarks -n {namespace}` lists them",
            args.edge_benchmark
        );
    };
    let made = api
        .create(&PostParams::default(), &again(old, args.name.clone()))
        .await
        .context("the new object was refused")?;
    println!("edgebenchmark.edgeyard.dev/{}", made.name_any());
    Ok(())
}

/// The same spec under another name, running: a finished one may have been cancelled or suspended.
fn again(old: EdgeBenchmark, name: Option<String>) -> EdgeBenchmark {
    let mut spec = old.spec;
    spec.suspend = false;
    spec.cancel = false;
    let old_name = old.metadata.name.unwrap_or_default();
    let stem: String = old_name.chars().take(LONGEST - ADDED - 1).collect();
    let generate_name = name.is_none().then(|| format!("{stem}-"));
    let metadata = ObjectMeta { name, generate_name, labels: old.metadata.labels, ..ObjectMeta::default() };
    EdgeBenchmark { metadata, spec, status: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_benchmark_runs_again_under_a_name_that_fits() {
        let name = "a".repeat(52);
        let old: EdgeBenchmark = serde_yaml::from_str(&format!(
            "{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeBenchmark, metadata: {{name: {name}, uid: x}}, spec: {{cancel: true, models: [], devices: []}}}}"
        ))
        .unwrap();
        let new = again(old, None);
        assert!(!new.spec.cancel && new.status.is_none() && new.metadata.uid.is_none());
        assert_eq!(new.metadata.generate_name.unwrap().len() + ADDED, LONGEST);
    }
}
