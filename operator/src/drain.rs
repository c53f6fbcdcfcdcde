//! `edgeyard-operator drain`: before an uninstall, work is suspended, devices are freed, and nothing is left that only the
//! operator could take off: its finalizer, its key, its leader's Lease.
//!
//! Objects of users stay. They are suspended; after a new install they go on when `suspend` is false again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::conditions::{COMPLETE, FAILED};
use edgeyard_crds::device::EdgeDevice;
use edgeyard_crds::lease::DeviceLease;
use edgeyard_crds::optimization::ModelOptimization;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::frame::grant_key;
use crate::frame::leader;
use crate::frame::names::RELEASE_DEVICE;

const DEPLOYMENT: &str = "edgeyard-operator";
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// Arguments of `drain`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Go on without waiting for devices after this many seconds.
    #[arg(long, default_value_t = 180)]
    pub timeout_seconds: u64,
}

/// Drains; safe to repeat.
///
/// # Errors
/// What the API server said.
pub async fn run(client: Client, namespace: &str, args: &Args) -> Result<()> {
    suspend(&client).await?;
    if !freed(&client, Duration::from_secs(args.timeout_seconds)).await? {
        tracing::warn!("devices are still leased; going on without them");
    }
    stop_operator(&client, namespace, Duration::from_secs(60)).await?;
    for lease in Api::<DeviceLease>::all(client.clone()).list(&ListParams::default()).await? {
        if lease.finalizers().iter().any(|finalizer| finalizer == RELEASE_DEVICE) {
            let rest: Vec<_> =
                lease.finalizers().iter().filter(|finalizer| *finalizer != RELEASE_DEVICE).cloned().collect();
            merge(&client, &lease, json!({"metadata": {"finalizers": rest}})).await?;
        }
    }
    delete(&Api::<Secret>::namespaced(client.clone(), namespace), grant_key::NAME).await?;
    delete(&Api::<ConfigMap>::namespaced(client.clone(), namespace), grant_key::NAME).await?;
    delete(&Api::<Lease>::namespaced(client.clone(), namespace), leader::NAME).await?;
    tracing::info!("drained");
    Ok(())
}

async fn suspend(client: &Client) -> Result<()> {
    let suspended = json!({"spec": {"suspend": true}});
    for object in Api::<ModelOptimization>::all(client.clone()).list(&ListParams::default()).await? {
        if !ended(object.status.as_ref().map(|status| status.conditions.as_slice())) {
            merge(client, &object, suspended.clone()).await?;
        }
    }
    for object in Api::<EdgeBenchmark>::all(client.clone()).list(&ListParams::default()).await? {
        if !ended(object.status.as_ref().map(|status| status.conditions.as_slice())) {
            merge(client, &object, suspended.clone()).await?;
        }
    }
    for lease in Api::<DeviceLease>::all(client.clone()).list(&ListParams::default()).await? {
        // Those of runs are released by their runs; these were booked by people.
        if lease.owner_references().is_empty() && !lease.spec.release {
            merge(client, &lease, json!({"spec": {"release": true}})).await?;
        }
    }
    Ok(())
}

fn ended(conditions: Option<&[Condition]>) -> bool {
    conditions
        .is_some_and(|all| all.iter().any(|c| [COMPLETE, FAILED].contains(&c.type_.as_str()) && c.status == "True"))
}

/// Whether no device is leased any more, before the time is over.
async fn freed(client: &Client, limit: Duration) -> Result<bool> {
    let start = Instant::now();
    loop {
        let devices = Api::<EdgeDevice>::all(client.clone()).list(&ListParams::default()).await?;
        if !devices.iter().any(|device| device.status.as_ref().is_some_and(|status| status.lease_ref.is_some())) {
            return Ok(true);
        }
        if start.elapsed() > limit {
            return Ok(false);
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Without this it would put back what is taken off.
async fn stop_operator(client: &Client, namespace: &str, limit: Duration) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let zero = Patch::Merge(json!({"spec": {"replicas": 0}}));
    match api.patch(DEPLOYMENT, &PatchParams::default(), &zero).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(error).context("cannot stop the operator"),
    }
    let start = Instant::now();
    while start.elapsed() < limit {
        let status = api.get(DEPLOYMENT).await?.status.unwrap_or_default();
        if status.replicas.unwrap_or(0) == 0 {
            return Ok(());
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    Ok(())
}

async fn merge<K>(client: &Client, object: &K, patch: Value) -> Result<()>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot change {}", object.name_any())),
        Ok(_) => Ok(()),
    }
}

async fn delete<K: Clone + DeserializeOwned + std::fmt::Debug>(api: &Api<K>, name: &str) -> Result<()> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot delete {name}")),
        Ok(_) => Ok(()),
    }
}
