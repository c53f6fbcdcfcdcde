//! `kubectl edgeyard selftest`: measures a tiny model on a device of its own, and removes everything again.
//!
//! `helm test` runs it in a pod. It needs no data and no lab: it makes a device class, an emulated device, a queue, a
//! ModelOptimization and an EdgeBenchmark, waits for the result and says what it found.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// The name of everything that is made.
const NAME: &str = "edgeyard-selftest";
const MODEL: &[u8] = include_bytes!("../selftest/tiny.onnx");
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// Arguments of `selftest`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 150)]
    timeout_seconds: u64,
}

/// Runs the self-test in a namespace.
///
/// # Errors
/// What was refused, or why the benchmark did not complete.
pub async fn run(client: Client, namespace: &str, args: &Args) -> Result<()> {
    let objects = objects(namespace);
    remove(&client, namespace, &objects).await?;
    let result =
        tokio::time::timeout(Duration::from_secs(args.timeout_seconds), measure(&client, namespace, &objects)).await;
    let removed = remove(&client, namespace, &objects).await;
    match result {
        Ok(measured) => measured?,
        Err(_) => bail!(
            "no result within {} s; `kubectl get mo,eb,br,dl,pods -n {namespace}` shows why",
            args.timeout_seconds
        ),
    }
    removed
}

async fn measure(client: &Client, namespace: &str, objects: &[Value]) -> Result<()> {
    for object in objects {
        let api = api(client, namespace, object)?;
        let body: DynamicObject = serde_json::from_value(object.clone())?;
        api.create(&PostParams::default(), &body).await.with_context(|| format!("cannot create {}", object["kind"]))?;
        println!("made {} {NAME}", object["kind"].as_str().unwrap_or_default());
    }
    let benchmark = objects.last().context("there are objects")?;
    let api = api(client, namespace, benchmark)?;
    let mut shown = String::new();
    loop {
        let object = api.get(NAME).await?;
        let status = &object.data["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        for condition in &conditions {
            let text = format!(
                "{}: {}",
                condition["reason"].as_str().unwrap_or_default(),
                condition["message"].as_str().unwrap_or_default()
            );
            match (condition["type"].as_str(), condition["status"].as_str()) {
                (Some("Complete"), Some("True")) => return report(status),
                (Some("Failed"), Some("True")) => bail!("the benchmark failed: {text}"),
                (Some("Ready"), Some("False")) if text != shown => {
                    println!("{text}");
                    shown = text;
                }
                _ => {}
            }
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

fn report(status: &Value) -> Result<()> {
    let results = status["results"].as_array().context("a complete benchmark has results")?;
    let [result] = results.as_slice() else { bail!("one result was expected, there are {}", results.len()) };
    if let Some(failure) = result["failure"].as_str() {
        bail!("the variant failed: {failure}");
    }
    println!("measured {} on {}: {result}", result["variant"], result["unit"]);
    println!("Edgeyard works.");
    Ok(())
}

/// Removes what an earlier or this run made, the last first, and waits until it is gone.
async fn remove(client: &Client, namespace: &str, objects: &[Value]) -> Result<()> {
    for object in objects.iter().rev() {
        let api = api(client, namespace, object)?;
        loop {
            match api.delete(NAME, &DeleteParams::default()).await {
                Ok(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
                Err(kube::Error::Api(status)) if status.is_not_found() => break,
                Err(error) => return Err(error).with_context(|| format!("cannot delete {}", object["kind"])),
            }
        }
    }
    Ok(())
}

fn api(client: &Client, namespace: &str, object: &Value) -> Result<Api<DynamicObject>> {
    let (api_version, kind) =
        (object["apiVersion"].as_str().context("apiVersion")?, object["kind"].as_str().context("kind")?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural =
        if kind == "EdgeDeviceClass" { "edgedeviceclasses".to_owned() } else { format!("{}s", kind.to_lowercase()) };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural);
    Ok(if kind == "EdgeDeviceClass" {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    })
}

/// What is made, in this order.
fn objects(namespace: &str) -> Vec<Value> {
    use base64::Engine as _;
    let model = base64::engine::general_purpose::STANDARD.encode(MODEL);
    let object = |kind: &str, spec: Value| {
        let mut object =
            json!({"apiVersion": "edgeyard.dev/v1alpha1", "kind": kind, "metadata": {"name": NAME}, "spec": spec});
        if kind != "EdgeDeviceClass" {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object
    };
    vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": namespace}, "binaryData": {"model.onnx": model}}),
        object(
            "EdgeDeviceClass",
            json!({
                "fidelity": "Emulated", "isolation": "Unit", "targets": ["ort-x86"], "backend": {"type": "Runtime"},
                "runner": {"resources": {"limits": {"cpu": "1", "memory": "256Mi"}}},
            }),
        ),
        object("EdgeDevice", json!({"deviceClassName": NAME, "connection": {"type": "Emulator"}})),
        object("LeaseQueue", json!({"allowedNamespaces": {"from": "Same"}})),
        object(
            "ModelOptimization",
            json!({
                "source": {"format": "ONNX", "artifact": {"configMapKeyRef": {"name": NAME, "key": "model.onnx"}}},
                "variants": [{"name": "fp32", "targets": ["ort-x86"], "passes": []}],
            }),
        ),
        object(
            "EdgeBenchmark",
            json!({
                "models": [{"name": "tiny", "modelOptimization": {"name": NAME}}],
                "devices": [{"name": "own", "deviceClassName": NAME}],
                "queueRef": {"namespace": namespace, "name": NAME},
                "workload": {"scenario": "SingleStream", "profile": "Smoke", "seed": 1},
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt as _;

    #[test]
    fn the_objects_are_of_our_api_and_the_benchmark_is_last() {
        let objects = objects("system");
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            let crd = edgeyard_crds::generate::all().into_iter().find(|crd| crd.spec.names.kind == kind);
            assert!(crd.is_some() || kind == "ConfigMap", "{kind}");
        }
        let benchmark: edgeyard_crds::benchmark::EdgeBenchmark =
            serde_json::from_value(objects.last().unwrap().clone()).unwrap();
        assert_eq!(benchmark.name_any(), NAME);
        let optimization: edgeyard_crds::optimization::ModelOptimization =
            serde_json::from_value(objects[4].clone()).unwrap();
        assert_eq!(optimization.spec.variants.len(), 1);
    }
}
