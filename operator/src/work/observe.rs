//! Reads the state of jobs and pods into the plain data that plans are made from.

use edgeyard_plan::optimization::Attempt;
use edgeyard_plan::outcome::{Outcome, PodEnd};
use edgeyard_plan::{Refusal, pods, reason};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt as _};

use crate::frame::names::label;
use crate::frame::write::call;
use crate::frame::{Error, write};

/// Seconds after which a Job without a pod is asked for its events.
const NO_POD_AFTER: i64 = 2;

/// One job of an object and what is known of it.
#[derive(Clone, Debug)]
pub struct SeenJob {
    /// The Job.
    pub job: Job,
    /// Which attempt it is, from its label.
    pub attempt: u32,
    /// What it came to; `None` while it is under way.
    pub outcome: Option<Outcome>,
    /// When it ended, in Unix seconds.
    pub ended_at: Option<i64>,
    /// What keeps it from running.
    pub problem: Option<Refusal>,
}

impl SeenJob {
    /// For [`Task::from_attempts`](edgeyard_plan::optimization::Task::from_attempts).
    pub fn as_attempt(&self) -> Attempt {
        Attempt { number: self.attempt, outcome: self.outcome.clone(), ended_at: self.ended_at }
    }

    /// Whether the job has the label with that value.
    pub fn has_label(&self, name: &str, value: &str) -> bool {
        self.job.labels().get(name).is_some_and(|found| found == value)
    }
}

/// All jobs that an object owns, with what their pods say. `selector` is the label that they carry.
///
/// # Errors
/// [`Error`].
pub async fn jobs<K>(client: &Client, owner: &K, selector: &str, image: &str, now: i64) -> Result<Vec<SeenJob>, Error>
where
    K: Resource<DynamicType = ()>,
{
    let namespace = owner.meta().namespace.clone().unwrap_or_default();
    let all: Vec<Job> = write::list(client, &namespace, selector).await?;
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let own: Vec<Job> =
        all.into_iter().filter(|job| job.owner_references().iter().any(|owner| owner.uid == uid)).collect();
    if own.is_empty() {
        return Ok(Vec::new());
    }
    let all_pods: Vec<Pod> = write::list(client, &namespace, selector).await?;
    let mut seen = Vec::new();
    for job in own {
        let pod = all_pods.iter().find(|pod| {
            pod.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == job.metadata.uid.as_deref())
        });
        let mut problem = pod.and_then(|pod| waiting(pod, image));
        let outcome = outcome(&job, pod);
        let old_enough =
            seconds(job.metadata.creation_timestamp.as_ref()).is_some_and(|made| now - made >= NO_POD_AFTER);
        if pod.is_none() && outcome.is_none() && old_enough {
            problem = refused_pod(client, &namespace, &job).await?;
        }
        seen.push(SeenJob {
            attempt: attempt(&job),
            ended_at: outcome.is_some().then(|| ended_at(&job, pod).unwrap_or(now)),
            outcome,
            problem,
            job,
        });
    }
    Ok(seen)
}

/// The attempt in an object's labels; 0 if there is none.
pub fn attempt<K: Resource>(object: &K) -> u32 {
    object.labels().get(label::ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What a job came to. Its pod knows first; the Job itself follows a moment later.
fn outcome(job: &Job, pod: Option<&Pod>) -> Option<Outcome> {
    const PROGRAM: &str = "the optimizer";
    if let Some(end) = pod.and_then(end) {
        return Some(end.outcome(PROGRAM));
    }
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let holds = |type_: &str| conditions.iter().find(|found| found.type_ == type_ && found.status == "True");
    if holds("Complete").is_some() {
        return Some(Outcome::Done { result: None });
    }
    holds("Failed").map(|failed| {
        let said = failed.reason.clone().unwrap_or_default();
        let word = if said == "DeadlineExceeded" { reason::DEADLINE_EXCEEDED } else { reason::POD_LOST };
        Outcome::Infrastructure(Refusal::new(
            word,
            format!("the Job failed ({said}): {}", failed.message.as_deref().unwrap_or("its pod is gone")),
        ))
    })
}

/// How a pod ended; `None` while it has not.
pub fn end(pod: &Pod) -> Option<PodEnd> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.as_ref().and_then(|list| list.first());
    let terminated =
        container.and_then(|container| container.state.as_ref()).and_then(|state| state.terminated.as_ref());
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if terminated.is_none() && !over {
        return None;
    }
    Some(PodEnd {
        exit_code: terminated.map(|state| state.exit_code),
        container_reason: terminated.and_then(|state| state.reason.clone()),
        pod_reason: status.reason.clone(),
        pod_message: status.message.clone(),
        log: terminated.and_then(|state| state.message.clone()),
    })
}

/// When a pod's container began to run, in Unix seconds.
pub fn running_since(pod: &Pod) -> Option<i64> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let running = container.state.as_ref()?.running.as_ref()?;
    seconds(running.started_at.as_ref())
}

/// What keeps a pod from running.
pub fn waiting(pod: &Pod, image: &str) -> Option<Refusal> {
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let word = condition.reason.as_deref().unwrap_or_default();
        return pods::waiting(word, condition.message.as_deref().unwrap_or_default(), image);
    }
    let container = status.container_statuses.as_ref()?.first()?;
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    pods::waiting(
        waiting.reason.as_deref().unwrap_or_default(),
        waiting.message.as_deref().unwrap_or_default(),
        &container.image,
    )
}

/// Why a Job cannot make its pod: a quota, or an admission rule.
async fn refused_pod(client: &Client, namespace: &str, job: &Job) -> Result<Option<Refusal>, Error> {
    let uid = job.metadata.uid.as_deref().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields(&format!("involvedObject.uid={uid},reason=FailedCreate")).limit(5);
    let events = match call(format!("list events of Job {}", job.name_any()), api.list(&params)).await {
        Ok(events) => events,
        // Without the right to read events the user is told less, and nothing else is wrong.
        Err(error) if error.refusal().is_some() => {
            tracing::debug!(error = %error.chain(), "events cannot be read");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(events.items.last().and_then(|event| event.message.clone()).map(|said| {
        if said.contains("exceeded quota") {
            Refusal::new(
                reason::QUOTA_EXCEEDED,
                format!("{said}: delete what is not needed, or raise the namespace's ResourceQuota"),
            )
        } else {
            Refusal::new("PodNotAdmitted", said)
        }
    }))
}

fn ended_at(job: &Job, pod: Option<&Pod>) -> Option<i64> {
    let of_pod = || {
        let container = pod?.status.as_ref()?.container_statuses.as_ref()?.first()?;
        seconds(container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
    };
    let of_job = || {
        let conditions = job.status.as_ref()?.conditions.as_ref()?;
        seconds(conditions.last()?.last_transition_time.as_ref())
    };
    of_pod().or_else(of_job)
}

/// A time of the API as Unix seconds.
pub fn seconds(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> Pod {
        serde_yaml::from_str(&format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, status: {yaml}}}")).unwrap()
    }

    #[test]
    fn the_kubelets_words_are_read() {
        let ended = pod(
            "{phase: Succeeded, containerStatuses: [{name: job, image: i, imageID: '', ready: false, restartCount: 0, state: {terminated: {exitCode: 0, reason: OOMKilled, message: '{}'}}}]}",
        );
        let end = end(&ended).unwrap();
        assert_eq!((end.exit_code, end.container_reason.as_deref()), (Some(0), Some("OOMKilled")));
        assert!(matches!(end.outcome("x"), Outcome::Impossible(why) if why.reason == "OutOfMemory"));
    }

    #[test]
    fn an_evicted_pod_has_no_container() {
        let evicted = pod("{phase: Failed, reason: Evicted, message: low on memory}");
        assert!(
            matches!(end(&evicted).unwrap().outcome("x"), Outcome::Infrastructure(why) if why.message.contains("low on memory"))
        );
        assert_eq!(end(&pod("{phase: Running}")), None);
    }

    #[test]
    fn a_missing_image_and_a_full_node_are_told() {
        let waits = pod(
            "{phase: Pending, containerStatuses: [{name: job, image: 'worker:1', imageID: '', ready: false, restartCount: 0, state: {waiting: {reason: ErrImageNeverPull, message: absent}}}]}",
        );
        assert_eq!(waiting(&waits, "other").unwrap().reason, reason::IMAGE_UNAVAILABLE);
        let full = pod(
            "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: 0/1 nodes}]}",
        );
        assert!(waiting(&full, "i").unwrap().message.contains("0/1 nodes"));
    }
}
