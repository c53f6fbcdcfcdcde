//! Carries out a run's actions. Each may be repeated.

use edgeyard_crds::lease::{DeviceLease, LeasePhase};
use edgeyard_crds::run::BenchmarkRun;
use edgeyard_job::spec;
use edgeyard_plan::jobs::{self, GrantedDevice};
use edgeyard_plan::run::{Action, Lease, Next, Pod as SeenPod, Run, lease_seconds};
use edgeyard_plan::{Refusal, reason};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt as _;

use crate::frame::{Context, Error, write};
use crate::work::inputs::{self, GRANT_MARGIN};

use super::build;
use super::dereference::{Seen, attempt};

/// Carries out `actions`. Gives a [`Refusal`] when the device's class cannot be used, which no retry mends.
///
/// # Errors
/// [`Error`].
pub async fn apply(
    context: &Context,
    object: &BenchmarkRun,
    run: &Run,
    seen: &Seen,
    actions: &[Action],
) -> Result<Result<(), Refusal>, Error> {
    for action in actions {
        match action {
            Action::CreateLease => {
                let lease = build::lease(object, inputs::owner_of(object)?, run, false);
                write::create(&context.client, &lease).await?;
            }
            Action::DeleteLease => {
                if let Some(lease) = &seen.lease_object {
                    write::delete(&context.client, lease).await?;
                }
            }
            Action::ReleaseLease => release(context, object, seen.lease_object.as_ref()).await?,
            Action::DeletePods => delete_pods(context, &seen.pods).await?,
            Action::StartPod => {
                if let Err(why) = start(context, object, run, seen).await? {
                    return Ok(Err(why));
                }
            }
        }
    }
    Ok(Ok(()))
}

/// While a lease is wanted, it follows the run's priority and deadlines; while a pod has not started, its Secret is there.
///
/// # Errors
/// [`Error`].
pub async fn keep_lease(
    context: &Context,
    object: &BenchmarkRun,
    run: &Run,
    seen: &Seen,
    step: &Next,
) -> Result<(), Error> {
    if !matches!(step, Next::Go { .. }) || !matches!(seen.lease, Lease::Queued { .. } | Lease::Granted) {
        return Ok(());
    }
    if let Some(lease) = &seen.lease_object {
        let longer = lease.spec.duration_seconds.max(lease_seconds(run));
        if lease.spec.priority != run.priority || lease.spec.duration_seconds != longer {
            let mut wanted = build::lease(object, inputs::owner_of(object)?, run, false);
            wanted.spec.duration_seconds = longer;
            write::apply(&context.client, &wanted).await?;
        }
    }
    if matches!(seen.pod, SeenPod::Starting { .. })
        && let Some(pod) = seen.pods.iter().find(|pod| crate::work::observe::attempt(*pod) == attempt(object))
    {
        let present =
            write::get::<Secret>(&context.client, &pod.namespace().unwrap_or_default(), &pod.name_any()).await?;
        if present.is_none() {
            // The operator ended between the two writes; the pod waits for its Secret.
            let _ = start(context, object, run, seen).await?;
        }
    }
    Ok(())
}

/// Makes the present attempt's pod, then the Secret that it waits for and that goes with it.
async fn start(context: &Context, object: &BenchmarkRun, run: &Run, seen: &Seen) -> Result<Result<(), Refusal>, Error> {
    let (Some(grant), Some(lease)) = (&seen.grant, &seen.lease_object) else {
        return Err(Error::Unexpected("a pod is to start without a lease".to_owned()));
    };
    let Some(device) = &seen.device else {
        return Ok(Err(Refusal::new(reason::DEVICE_LOST, format!("the EdgeDevice {} is gone", grant.device_ref.name))));
    };
    let class = match &seen.class {
        Some(Ok(class)) => class,
        Some(Err(why)) => return Ok(Err(why.clone())),
        None => return Err(Error::Unexpected("a device without a class".to_owned())),
    };
    let attempt = attempt(object);
    let granted = GrantedDevice {
        namespace: grant.device_ref.namespace.0.clone(),
        name: grant.device_ref.name.0.clone(),
        uid: grant.device_ref.uid.0.clone(),
        fencing_token: grant.fencing_token,
    };
    let identity = spec::Identity {
        namespace: object.namespace().unwrap_or_default(),
        name: run.benchmark.clone(),
        uid: object.uid().unwrap_or_default(),
        attempt,
    };
    let mut spec = jobs::measure_spec(identity, inputs::store_access(context, String::new()), run, granted, class);
    let expires = context.now().as_second() + lease_seconds(run) + GRANT_MARGIN;
    let reads = jobs::reads(&spec.work);
    spec.store.grant = context.sign(&build::claims(object, attempt, grant, &reads, expires));
    let child = build::identity(object, &lease.uid().unwrap_or_default(), grant, attempt);
    let pod = build::pod(&context.settings, &child, class, device, run);
    let made = match write::create(&context.client, &pod).await? {
        Some(made) => made,
        None => {
            let present = write::get::<Pod>(&context.client, &child.namespace, &child.name).await?;
            present.ok_or_else(|| Error::Conflict { action: format!("make pod {}", child.name) })?
        }
    };
    write::apply(&context.client, &build::secret(&child, &spec, &made)).await?;
    Ok(Ok(()))
}

/// Their Secrets go with them.
async fn delete_pods(context: &Context, pods: &[Pod]) -> Result<(), Error> {
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        write::delete(&context.client, pod).await?;
    }
    Ok(())
}

async fn release(context: &Context, object: &BenchmarkRun, lease: Option<&DeviceLease>) -> Result<(), Error> {
    let Some(lease) = lease.filter(|lease| !lease.spec.release && lease.metadata.deletion_timestamp.is_none()) else {
        return Ok(());
    };
    let phase = lease.status.as_ref().and_then(|status| status.phase);
    if matches!(phase, Some(LeasePhase::Released | LeasePhase::Expired)) {
        return Ok(());
    }
    let mut released = lease.clone();
    released.spec.release = true;
    released.metadata = kube::core::ObjectMeta {
        name: lease.metadata.name.clone(),
        namespace: lease.metadata.namespace.clone(),
        labels: lease.metadata.labels.clone(),
        owner_references: Some(vec![inputs::owner_of(object)?]),
        ..kube::core::ObjectMeta::default()
    };
    released.status = None;
    write::apply(&context.client, &released).await?;
    Ok(())
}

/// After the end: the device is given back, pods go. Repeated whenever a finished run is looked at, and cheap.
///
/// # Errors
/// [`Error`].
pub async fn clean_up(context: &Context, object: &BenchmarkRun) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let lease = write::get::<DeviceLease>(&context.client, &namespace, &object.name_any()).await?;
    let uid = object.metadata.uid.as_deref();
    let own = lease.filter(|lease| lease.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid));
    let device = object.status.as_ref().and_then(|status| status.device_ref.as_ref());
    if let Some(device) = device {
        let pods = write::list::<Pod>(&context.client, &device.namespace.0, &build::selector(object)).await?;
        delete_pods(context, &pods).await?;
    }
    release(context, object, own.as_ref()).await
}
