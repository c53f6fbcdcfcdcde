//! Reads all that is known of a run: its lease, its pods, its device and its record.

use edgeyard_crds::benchmark_status::{Fidelity, ResultHeadline};
use edgeyard_crds::descriptor::Descriptor;
use edgeyard_crds::device::EdgeDevice;
use edgeyard_crds::device_class::EdgeDeviceClass;
use edgeyard_crds::lease::{DeviceLease, Grant, LeasePhase};
use edgeyard_crds::run::{BenchmarkRun, RunStep};
use edgeyard_crds::scalars::Digest;
use edgeyard_job::media_type;
use edgeyard_plan::benchmark::{DeviceClass, device_class};
use edgeyard_plan::run::{DeviceState, Expected, Lease, Observed, Pod as SeenPod, RecordState, Run, check, headlines};
use edgeyard_plan::{Refusal, reason};
use edgeyard_record::Record;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};

use crate::frame::names::condition;
use crate::frame::write::{self, call};
use crate::frame::{Context, Error, conditions};
use crate::work::{observe, problem, reports};

use super::build;

/// All that is known.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The lease, for the plan.
    pub lease: Lease,
    /// The lease itself, if it is this run's.
    pub lease_object: Option<DeviceLease>,
    /// The device that was granted.
    pub grant: Option<Grant>,
    /// The device, if it is there.
    pub device: Option<EdgeDevice>,
    /// Its class, or what is wrong with it.
    pub class: Option<Result<DeviceClass, Refusal>>,
    /// The present attempt's pod, for the plan.
    pub pod: SeenPod,
    /// When the present attempt's pod began to run.
    pub running_since: Option<i64>,
    /// All pods of the run, of whichever attempt.
    pub pods: Vec<Pod>,
    /// Whether some are of other attempts.
    pub stale_pods: bool,
    /// The record, for the plan.
    pub record: RecordState,
    /// The record's headlines and where it is.
    pub found: Option<(Vec<ResultHeadline>, Descriptor)>,
}

impl Seen {
    /// What the plan wants to know.
    pub fn observed(&self, now: i64, failed_attempts: u32) -> Observed {
        let offline = self.device.as_ref().and_then(|device| {
            let conditions = device.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let online = conditions::find(conditions, condition::ONLINE).filter(|online| online.status == "False")?;
            Some(online.last_transition_time.0.as_second())
        });
        Observed {
            now,
            failed_attempts,
            lease: self.lease.clone(),
            pod: self.pod.clone(),
            stale_pods: self.stale_pods,
            device: offline.map_or(DeviceState::Online, DeviceState::Offline),
            record: self.record.clone(),
        }
    }
}

/// Reads it all.
///
/// # Errors
/// [`Error`].
pub async fn look(context: &Context, object: &BenchmarkRun, run: &Run) -> Result<Seen, Error> {
    let client = &context.client;
    let found = write::get::<DeviceLease>(client, &object.namespace().unwrap_or_default(), &object.name_any()).await?;
    let (lease, lease_object) = lease(object, found);
    let grant = lease_object
        .as_ref()
        .and_then(|lease| lease.status.as_ref())
        .and_then(|status| status.grants.first().cloned())
        .filter(|_| lease == Lease::Granted);
    let device_ref = grant
        .as_ref()
        .map(|grant| grant.device_ref.clone())
        .or_else(|| object.status.as_ref().and_then(|status| status.device_ref.clone()));
    let mut device = None;
    let mut class = None;
    let mut pods = Vec::new();
    if let Some(at) = &device_ref {
        device = write::get::<EdgeDevice>(client, &at.namespace.0, &at.name.0).await?;
        pods = write::list::<Pod>(client, &at.namespace.0, &build::selector(object)).await?;
    }
    if let Some(device) = &device {
        class = Some(look_up_class(context, &device.spec.device_class_name.0).await?);
    }
    let attempt = attempt(object);
    let stale_pods = pods.iter().any(|pod| observe::attempt(pod) != attempt);
    let own = pods.iter().find(|pod| observe::attempt(*pod) == attempt);
    let ran = object.status.as_ref().is_some_and(|status| status.running_time.is_some());
    let mut seen = Seen {
        lease,
        lease_object,
        grant,
        device,
        pod: pod(own, ran, &context.settings.worker_image),
        running_since: own.and_then(observe::running_since),
        stale_pods,
        class,
        record: RecordState::Unknown(None),
        found: None,
        pods,
    };
    look_for_record(context, object, run, attempt, &mut seen).await?;
    Ok(seen)
}

/// The present attempt, from 1.
pub fn attempt(object: &BenchmarkRun) -> u32 {
    object.status.as_ref().and_then(|status| status.attempt).and_then(|n| u32::try_from(n).ok()).unwrap_or(1).max(1)
}

/// What a lease says. One of the same name that is another run's is on its way out: names are not given twice.
fn lease(object: &BenchmarkRun, found: Option<DeviceLease>) -> (Lease, Option<DeviceLease>) {
    let Some(lease) = found else { return (Lease::None, None) };
    let own = lease.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == object.metadata.uid.as_deref());
    if !own {
        return (Lease::Deleting, None);
    }
    if lease.metadata.deletion_timestamp.is_some() {
        return (Lease::Deleting, Some(lease));
    }
    let status = lease.status.as_ref();
    let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let why = conditions::find(conditions, condition::GRANTED)
        .map(|granted| Refusal { reason: granted.reason.clone(), message: granted.message.clone() });
    let since = observe::seconds(lease.metadata.creation_timestamp.as_ref()).unwrap_or(0);
    let seen = match status.and_then(|status| status.phase) {
        None | Some(LeasePhase::Queued) => Lease::Queued { since, why },
        Some(LeasePhase::Granted) if status.is_some_and(|status| !status.grants.is_empty()) => Lease::Granted,
        Some(LeasePhase::Granted) => Lease::Queued { since, why },
        Some(LeasePhase::Released | LeasePhase::Expired) => {
            Lease::Ended(why.unwrap_or_else(|| Refusal::new(reason::DEVICE_LOST, "the lease ended")))
        }
    };
    (seen, Some(lease))
}

fn pod(own: Option<&Pod>, ran: bool, image: &str) -> SeenPod {
    let Some(pod) = own else { return if ran { SeenPod::Vanished } else { SeenPod::None } };
    if let Some(end) = observe::end(pod) {
        return SeenPod::Ended(end.outcome("the device runner"));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return SeenPod::Deleting;
    }
    match observe::running_since(pod) {
        Some(since) => SeenPod::Running { since },
        None => SeenPod::Starting {
            since: observe::seconds(pod.metadata.creation_timestamp.as_ref()).unwrap_or(0),
            problem: observe::waiting(pod, image),
        },
    }
}

async fn look_up_class(context: &Context, name: &str) -> Result<Result<DeviceClass, Refusal>, Error> {
    let api: Api<EdgeDeviceClass> = Api::all(context.client.clone());
    let found = call(format!("read EdgeDeviceClass {name}"), api.get_opt(name)).await?;
    Ok(match found {
        Some(class) => device_class(name, class.spec),
        None => Err(Refusal::new(
            reason::DEVICE_CLASS_NOT_FOUND,
            format!("there is no EdgeDeviceClass {name}: create it, or make the EdgeDevice anew with another class"),
        )),
    })
}

/// Asks the store for the present attempt's record when a pod ended, or is not there although there may have been one.
async fn look_for_record(
    context: &Context,
    object: &BenchmarkRun,
    run: &Run,
    attempt: u32,
    seen: &mut Seen,
) -> Result<(), Error> {
    let step = object.status.as_ref().and_then(|status| status.step);
    let may_have_run = matches!(step, Some(RunStep::Preparing | RunStep::Measuring));
    match seen.pod {
        SeenPod::Ended(_) | SeenPod::Vanished => {}
        SeenPod::None if may_have_run => {}
        _ => return Ok(()),
    }
    let (namespace, uid) = (object.namespace().unwrap_or_default(), object.uid().unwrap_or_default());
    let bytes = match reports::result(context, &namespace, &uid, attempt).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            seen.record = RecordState::Absent;
            return Ok(());
        }
        Err(Error::Store { source, .. }) => {
            seen.record = RecordState::Unknown(Some(problem::store(&source)));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if seen.pod == SeenPod::None {
        seen.pod = SeenPod::Vanished;
    }
    seen.record = match read(object, run, seen.grant.as_ref(), attempt, &bytes) {
        Err(why) => RecordState::Wrong(why),
        Ok(record) => {
            let fidelity = match &seen.class {
                Some(Ok(class)) => class.fidelity,
                // The class is gone: believe the record.
                _ if record.device.fidelity == "Hardware" => Fidelity::Hardware,
                _ => Fidelity::Emulated,
            };
            let all_failed = all_failed(&record);
            let descriptor = Descriptor {
                digest: Digest(edgeyard_artifact::digest_of(&bytes).to_string()),
                size_bytes: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
                media_type: media_type::RECORD.to_owned(),
            };
            seen.found = Some((headlines(&record, fidelity), descriptor));
            all_failed.map_or(RecordState::Good, RecordState::AllFailed)
        }
    };
    Ok(())
}

/// Checks a record against the grant, or against what the status noted of it when the lease has ended since.
fn read(
    object: &BenchmarkRun,
    run: &Run,
    grant: Option<&Grant>,
    attempt: u32,
    bytes: &[u8],
) -> Result<Record, Refusal> {
    let record: Record = serde_json::from_slice(bytes).map_err(|error| {
        Refusal::new(
            reason::RESULT_MISMATCH,
            format!("the record cannot be read: {error}: use operator and worker images of one release"),
        )
    })?;
    let status = object.status.as_ref();
    let granted = grant.map(|grant| (&grant.device_ref, grant.fencing_token));
    let noted = status.and_then(|status| Some((status.device_ref.as_ref()?, status.fencing_token?)));
    let (device, fencing_token) = granted
        .or(noted)
        .ok_or_else(|| Refusal::new(reason::RESULT_MISMATCH, "there is a record although no device was granted"))?;
    let expected = Expected {
        namespace: object.namespace().unwrap_or_default(),
        uid: object.uid().unwrap_or_default(),
        attempt,
        device: (device.namespace.0.clone(), device.name.0.clone()),
        fencing_token,
    };
    check(run, &expected, &record)?;
    Ok(record)
}

/// Why there are no figures at all, if there are none.
fn all_failed(record: &Record) -> Option<Refusal> {
    let mut failures = record.results.iter().map(|result| result.failure.as_ref());
    let first = failures.next().flatten()?;
    if failures.any(|failure| failure.is_none()) {
        return None;
    }
    let message = format!("every variant failed, the first with {}: {}", first.reason, first.message);
    Some(Refusal::new(reason::ALL_VARIANTS_FAILED, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> BenchmarkRun {
        serde_yaml::from_str(
            r"
apiVersion: edgeyard.dev/v1alpha1
kind: BenchmarkRun
metadata: {name: b-m4-0, namespace: vision, uid: 19ab0000-0000-4000-8000-000000000000}
spec:
  benchmarkName: b
  device: {name: m4, deviceClassName: c}
  variants: []
",
        )
        .unwrap()
    }

    fn found(owner: &str, more: &str) -> DeviceLease {
        serde_yaml::from_str(&format!(
            r"
apiVersion: edgeyard.dev/v1alpha1
kind: DeviceLease
metadata:
  name: b-m4-0
  creationTimestamp: '1970-01-01T00:00:07Z'
  ownerReferences: [{{apiVersion: edgeyard.dev/v1alpha1, kind: BenchmarkRun, name: b-m4-0, uid: {owner}}}]
spec: {{requests: [{{name: m4, deviceClassName: c}}]}}
{more}
"
        ))
        .unwrap()
    }

    #[test]
    fn a_lease_of_an_earlier_run_is_waited_for() {
        let own = "19ab0000-0000-4000-8000-000000000000";
        assert_eq!(lease(&object(), None).0, Lease::None);
        assert_eq!(lease(&object(), Some(found("other", ""))).0, Lease::Deleting);
        assert_eq!(lease(&object(), Some(found(own, ""))).0, Lease::Queued { since: 7, why: None });
    }

    #[test]
    fn the_leases_word_is_passed_on() {
        let own = "19ab0000-0000-4000-8000-000000000000";
        let with = |phase: &str| {
            let status = format!(
                "status: {{phase: {phase}, conditions: [{{type: Granted, status: 'False', reason: DeviceHeld, message: m, lastTransitionTime: '2026-11-23T09:00:00Z'}}]}}"
            );
            lease(&object(), Some(found(own, &status))).0
        };
        let why = Refusal::new("DeviceHeld", "m");
        assert_eq!(with("Queued"), Lease::Queued { since: 7, why: Some(why.clone()) });
        assert_eq!(with("Expired"), Lease::Ended(why));
    }

    #[test]
    fn a_pod_that_ran_and_is_gone_has_vanished() {
        assert_eq!(pod(None, false, "i"), SeenPod::None);
        assert_eq!(pod(None, true, "i"), SeenPod::Vanished);
    }
}
