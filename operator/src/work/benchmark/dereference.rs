//! Reads what a benchmark builds on: ModelOptimizations, the lab behind its queue, and its runs.

use std::collections::BTreeMap;

use edgeyard_crds::benchmark::EdgeBenchmark;
use edgeyard_crds::device::EdgeDevice;
use edgeyard_crds::device_class::EdgeDeviceClass;
use edgeyard_crds::optimization::ModelOptimization;
use edgeyard_crds::queue::LeaseQueue;
use edgeyard_crds::run::BenchmarkRun;
use edgeyard_plan::benchmark::{Benchmark, DeviceClass, DeviceView, ModelSubject, Pool, device_class, pool};
use edgeyard_plan::{Refusal, reason};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::frame::names::{DEFAULT_QUEUE, label};
use crate::frame::write::{self, call};
use crate::frame::{Context, Error};

/// The devices that each entry can have, and their class, by the entry's name.
#[derive(Clone, Debug, Default)]
pub struct Lab {
    /// The devices.
    pub pools: BTreeMap<String, Pool>,
    /// Their class.
    pub classes: BTreeMap<String, DeviceClass>,
}

/// The ModelOptimizations that a benchmark names and that exist.
///
/// # Errors
/// [`Error`].
pub async fn optimizations(
    context: &Context,
    object: &EdgeBenchmark,
    plan: &Benchmark,
) -> Result<BTreeMap<String, ModelOptimization>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let mut found = BTreeMap::new();
    for model in &plan.models {
        if let ModelSubject::Optimized { name, .. } = &model.subject
            && let Some(made) = write::get::<ModelOptimization>(&context.client, &namespace, name).await?
        {
            found.insert(name.clone(), made);
        }
    }
    Ok(found)
}

/// Looks at the queue's lab. A [`Refusal`] is what somebody has to mend there, or in the spec.
///
/// # Errors
/// [`Error`].
pub async fn lab(context: &Context, plan: &Benchmark) -> Result<Result<Lab, Refusal>, Error> {
    let queue = match queue(context, plan).await? {
        Ok(queue) => queue,
        Err(why) => return Ok(Err(why)),
    };
    let api: Api<EdgeDevice> = Api::namespaced(context.client.clone(), &queue.namespace().unwrap_or_default());
    let all = call("list EdgeDevices", api.list(&ListParams::default())).await?.items;
    let given_out: Vec<DeviceView> = all.iter().map(view).filter(|device| selected(&queue, device)).collect();
    let mut lab = Lab::default();
    for entry in &plan.devices {
        let pool = match pool(entry, &given_out) {
            Ok(pool) => pool,
            Err(why) => return Ok(Err(why)),
        };
        let api: Api<EdgeDeviceClass> = Api::all(context.client.clone());
        let found = call(format!("read EdgeDeviceClass {}", pool.class), api.get_opt(&pool.class)).await?;
        let class = match found {
            Some(class) => device_class(&pool.class, class.spec),
            None => Err(Refusal::new(
                reason::DEVICE_CLASS_NOT_FOUND,
                format!("spec.devices: {}: there is no EdgeDeviceClass {}: create it", entry.name, pool.class),
            )),
        };
        match class {
            Ok(class) => lab.classes.insert(entry.name.clone(), class),
            Err(why) => return Ok(Err(why)),
        };
        lab.pools.insert(entry.name.clone(), pool);
    }
    Ok(Ok(lab))
}

/// The queue that is named, or the one that is annotated as default.
async fn queue(context: &Context, plan: &Benchmark) -> Result<Result<LeaseQueue, Refusal>, Error> {
    if let Some(named) = &plan.queue {
        let found = write::get::<LeaseQueue>(&context.client, &named.namespace.0, &named.name.0).await?;
        return Ok(found.ok_or_else(|| {
            Refusal::new(
                reason::QUEUE_NOT_FOUND,
                format!(
                    "spec.queueRef: there is no LeaseQueue {}/{}: create it, or name another",
                    named.namespace, named.name
                ),
            )
        }));
    }
    let api: Api<LeaseQueue> = Api::all(context.client.clone());
    let all = call("list LeaseQueues", api.list(&ListParams::default())).await?.items;
    let default = all.into_iter().find(|queue| queue.annotations().get(DEFAULT_QUEUE).is_some_and(|is| is == "true"));
    Ok(default.ok_or_else(|| {
        Refusal::new(
            reason::QUEUE_NOT_FOUND,
            format!(
                "there is no default LeaseQueue: name one in spec.queueRef, or annotate one with {DEFAULT_QUEUE}=true"
            ),
        )
    }))
}

fn view(device: &EdgeDevice) -> DeviceView {
    DeviceView {
        name: device.name_any(),
        class: device.spec.device_class_name.0.clone(),
        labels: device.labels().iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}

fn selected(queue: &LeaseQueue, device: &DeviceView) -> bool {
    let wanted = &queue.spec.device_selector.match_labels;
    wanted.iter().all(|(key, value)| device.labels.iter().any(|(own, is)| own == key && is == value))
}

/// The runs of a benchmark, in the order of `spec.devices`.
///
/// # Errors
/// [`Error`].
pub async fn runs(context: &Context, object: &EdgeBenchmark, plan: &Benchmark) -> Result<Vec<BenchmarkRun>, Error> {
    let selector = format!("{}={}", label::BENCHMARK, object.name_any());
    let all: Vec<BenchmarkRun> =
        write::list(&context.client, &object.namespace().unwrap_or_default(), &selector).await?;
    let uid = object.metadata.uid.as_deref();
    let mut own: Vec<_> = all
        .into_iter()
        .filter(|run| run.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid))
        .collect();
    own.sort_by_key(|run| (plan.devices.iter().position(|entry| entry.name == run.spec.device.name.0), run.spec.unit));
    Ok(own)
}
