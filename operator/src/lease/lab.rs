//! The lab as it is watched: every device, class, queue, lease, node and namespace, in stores that the scheduler reads.
//!
//! Controllers of leases and devices are woken from here and not by watches of their own: what woke them is then in
//! what they read.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use edgeyard_crds::device::EdgeDevice;
use edgeyard_crds::device_class::EdgeDeviceClass;
use edgeyard_crds::lease::DeviceLease;
use edgeyard_crds::queue::LeaseQueue;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use tokio::sync::Notify;

use super::core::schedule::Plan;
use super::core::{DeviceId, LeaseUid, QueueId, World};
use super::view;
use crate::frame::names::label;
use crate::frame::{Context, Guarded, Running, Shutdown};

/// Wakes a lease's controller.
pub type LeaseTriggers = UnboundedReceiver<ObjectRef<Guarded<DeviceLease>>>;
/// Wakes a device's controller.
pub type DeviceTriggers = UnboundedReceiver<ObjectRef<Guarded<EdgeDevice>>>;

/// The lab as it is watched.
pub struct Lab {
    /// Devices.
    pub devices: Store<Guarded<EdgeDevice>>,
    /// Device classes.
    pub classes: Store<Guarded<EdgeDeviceClass>>,
    /// Leases.
    pub leases: Store<Guarded<DeviceLease>>,
    /// Queues.
    pub queues: Store<Guarded<LeaseQueue>>,
    /// Nodes.
    pub nodes: Store<Node>,
    /// Runner pods: all that carry a lease's label.
    pub pods: Store<PartialObjectMeta<Pod>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Something changed: the scheduler should look.
    pub changed: Arc<Notify>,
    pub(super) wake_lease: UnboundedSender<ObjectRef<Guarded<DeviceLease>>>,
    pub(super) wake_device: UnboundedSender<ObjectRef<Guarded<EdgeDevice>>>,
    last: Mutex<Arc<Pass>>,
    written: Mutex<HashMap<DeviceId, Written>>,
}

/// What the scheduler saw and wanted in its last pass.
#[derive(Debug, Default)]
pub struct Pass {
    /// What it saw.
    pub world: World,
    /// What it wanted.
    pub plan: Plan,
}

/// A device as it was last written here, until the watch has brought it.
struct Written {
    device: Arc<EdgeDevice>,
    /// The versions that it replaced, one after the other.
    replaces: Vec<String>,
}

impl Lab {
    /// The lab, the streams that wake its controllers, and the watches that have to run.
    pub fn watch(context: &Arc<Context>) -> (Arc<Self>, LeaseTriggers, DeviceTriggers, Vec<Running>) {
        let client = &context.client;
        let changed = Arc::new(Notify::new());
        let mut all = Vec::new();
        let mut watches = Watches { changed: &changed, shutdown: &context.shutdown, all: &mut all };
        let config = watcher::Config::default;
        let pods = config().labels(label::LEASE);
        let devices = watches.add("EdgeDevice", watcher(Api::all(client.clone()), config()));
        let classes = watches.add("EdgeDeviceClass", watcher(Api::all(client.clone()), config()));
        let leases = watches.add("DeviceLease", watcher(Api::all(client.clone()), config()));
        let queues = watches.add("LeaseQueue", watcher(Api::all(client.clone()), config()));
        let nodes = watches.add("Node", watcher(Api::<Node>::all(client.clone()), config()).modify(strip));
        let pods = watches.add("Pod", watcher(Api::<PartialObjectMeta<Pod>>::all(client.clone()), pods));
        let namespaces =
            watches.add("Namespace", watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), config()));
        let (wake_lease, lease_triggers) = unbounded();
        let (wake_device, device_triggers) = unbounded();
        let lab = Arc::new(Self {
            devices,
            classes,
            leases,
            queues,
            nodes,
            pods,
            namespaces,
            changed,
            wake_lease,
            wake_device,
            last: Mutex::default(),
            written: Mutex::default(),
        });
        (lab, lease_triggers, device_triggers, all)
    }

    /// Waits until every store holds its first list.
    pub async fn ready(&self) {
        // An error means that a watch was dropped, and so that everything is ending.
        let _ = self.devices.wait_until_ready().await;
        let _ = self.classes.wait_until_ready().await;
        let _ = self.leases.wait_until_ready().await;
        let _ = self.queues.wait_until_ready().await;
        let _ = self.nodes.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
    }

    /// Runs something once the stores are filled: before, every lease would seem to have lost its devices.
    pub fn when_ready(self: &Arc<Self>, context: &Context, then: Running) -> Running {
        let lab = Arc::clone(self);
        let stopped = context.shutdown.wait();
        Box::pin(async move {
            tokio::select! {
                () = lab.ready() => then.await,
                () = stopped => {}
            }
        })
    }

    /// The core's world as the stores have it now, with what was written here since.
    pub fn world(&self, now_ms: i64) -> World {
        let nodes = self.nodes.state();
        let classes = self.classes_by_name();
        let device = |device: &EdgeDevice| {
            let class = classes.get(&device.spec.device_class_name.0).and_then(|class| class.0.as_ref().ok());
            (device_id(device), view::device(device, class, &nodes))
        };
        World {
            now_ms,
            devices: self.present_devices().iter().map(|d| device(d)).collect(),
            leases: readable(&self.leases.state())
                .map(|lease| (LeaseUid(lease.uid().unwrap_or_default()), view::lease(lease)))
                .collect(),
            queues: readable(&self.queues.state())
                .map(|queue| {
                    let id = QueueId { namespace: queue.namespace().unwrap_or_default(), name: queue.name_any() };
                    (id, view::queue(queue))
                })
                .collect(),
            namespaces: self
                .namespaces
                .state()
                .iter()
                .map(|namespace| (namespace.name_any(), namespace.metadata.labels.clone().unwrap_or_default()))
                .collect(),
        }
    }

    /// A device's facts as the stores have them now.
    pub fn facts(&self, device: &EdgeDevice) -> view::DeviceFacts {
        let class = self.classes.get(&ObjectRef::new(&device.spec.device_class_name.0));
        view::device_facts(device, class.as_ref().and_then(|class| class.0.as_ref().ok()), &self.nodes.state())
    }

    /// Whether the stores know a lease of this UID.
    pub fn knows_lease(&self, uid: &str) -> bool {
        self.leases.find(|lease| lease.meta().uid.as_deref() == Some(uid)).is_some()
    }

    /// Runner pods in a device's namespace that belong to it but not to its present holder.
    pub fn has_strays(&self, device: &EdgeDevice) -> bool {
        let holder = device.status.as_ref().and_then(|status| status.lease_ref.as_ref()).map(|holder| &holder.uid.0);
        let uid = device.meta().uid.as_ref();
        self.pods
            .find(|pod| {
                let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
                let lease = pod.metadata.labels.as_ref().and_then(|labels| labels.get(label::LEASE));
                owners.iter().any(|owner| Some(&owner.uid) == uid) && lease != holder
            })
            .is_some()
    }

    /// The devices, each as it was last seen or written.
    pub fn present_devices(&self) -> Vec<Arc<EdgeDevice>> {
        let mut written = lock(&self.written);
        let cached = self.devices.state();
        let ids: Vec<_> = readable(&cached).map(device_id).collect();
        written.retain(|id, _| ids.contains(id));
        readable(&cached)
            .map(|device| {
                let id = device_id(device);
                let is_older = |w: &Written| device.resource_version().is_some_and(|v| w.replaces.contains(&v));
                match written.get(&id) {
                    Some(newer) if is_older(newer) => Arc::clone(&newer.device),
                    _ => {
                        written.remove(&id);
                        Arc::new(device.clone())
                    }
                }
            })
            .collect()
    }

    /// Remembers an answer of the API server, so that the next pass need not wait for the watch.
    pub fn remember(&self, replaced: &EdgeDevice, device: EdgeDevice) {
        let mut written = lock(&self.written);
        let id = device_id(&device);
        let mut replaces = written.remove(&id).map(|before| before.replaces).unwrap_or_default();
        replaces.extend(replaced.resource_version());
        written.insert(id, Written { device: Arc::new(device), replaces });
    }

    /// The scheduler's last pass.
    pub fn last(&self) -> Arc<Pass> {
        Arc::clone(&lock(&self.last))
    }

    pub(super) fn set_last(&self, pass: Pass) -> (Arc<Pass>, Arc<Pass>) {
        let new = Arc::new(pass);
        let old = std::mem::replace(&mut *lock(&self.last), Arc::clone(&new));
        (old, new)
    }

    fn classes_by_name(&self) -> BTreeMap<String, Arc<Guarded<EdgeDeviceClass>>> {
        self.classes.state().into_iter().map(|class| (class.name_any(), class)).collect()
    }
}

/// A device's name in the core.
pub fn device_id(device: &EdgeDevice) -> DeviceId {
    DeviceId { namespace: device.namespace().unwrap_or_default(), name: device.name_any() }
}

/// The objects that could be read.
fn readable<K>(objects: &[Arc<Guarded<K>>]) -> impl Iterator<Item = &K> {
    objects.iter().filter_map(|object| object.0.as_ref().ok())
}

/// Nodes carry long lists of images and of who manages which field.
fn strip(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(status) = &mut node.status {
        let conditions = status.conditions.take();
        *status = k8s_openapi::api::core::v1::NodeStatus { conditions, ..Default::default() };
    }
}

struct Watches<'a> {
    changed: &'a Arc<Notify>,
    shutdown: &'a Shutdown,
    all: &'a mut Vec<Running>,
}

impl Watches<'_> {
    fn add<K, S>(&mut self, kind: &'static str, stream: S) -> Store<K>
    where
        K: Resource<DynamicType: Eq + Hash + Clone + Default + Send + Sync> + Clone + Debug + Send + Sync + 'static,
        S: Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    {
        let (reader, writer) = store();
        let changed = Arc::clone(self.changed);
        let stopped = self.shutdown.wait();
        self.all.push(Box::pin(async move {
            let events = stream.default_backoff().reflect(writer);
            futures::pin_mut!(events);
            tokio::pin!(stopped);
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = &mut stopped => None,
                };
                match event {
                    None => break,
                    // A first list is worth a look when it is whole.
                    Some(Ok(watcher::Event::Init | watcher::Event::InitApply(_))) => {}
                    Some(Ok(_)) => changed.notify_one(),
                    Some(Err(error)) => {
                        tracing::warn!(kind, error = %crate::frame::error::chain(&error), "watch");
                    }
                }
            }
        }));
        reader
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
