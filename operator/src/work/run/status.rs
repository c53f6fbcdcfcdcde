//! Computes a run's status from what was seen and decided. Pure; written in one go at the end.

use edgeyard_crds::optimization_status::Phase;
use edgeyard_crds::run::{BenchmarkRun, BenchmarkRunStatus, RunStep};
use edgeyard_plan::run::Lease;
use edgeyard_plan::{Refusal, reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::frame::Conditions;
use crate::frame::clock::Timestamp;

use super::dereference::Seen;

/// A status in the making.
#[derive(Clone, Debug)]
pub struct Draft {
    status: BenchmarkRunStatus,
    conditions: Conditions,
    now: Timestamp,
}

impl Draft {
    /// Starts from the status that the object has.
    pub fn new(object: &BenchmarkRun, now: Timestamp) -> Self {
        let generation = object.metadata.generation;
        let mut status = object.status.clone().unwrap_or_else(empty);
        status.observed_generation = generation.unwrap_or(-1);
        let conditions = Conditions::from_old(&status.conditions, generation, now);
        Self { status, conditions, now }
    }

    /// Notes when work started.
    pub fn begin(&mut self) {
        self.status.start_time.get_or_insert(Time(self.now));
        self.status.attempt.get_or_insert(1);
    }

    /// The present attempt.
    pub fn attempt(&self) -> i32 {
        self.status.attempt.unwrap_or(1)
    }

    /// How many attempts failed for reasons that are not the model's.
    pub fn failed_attempts(&self) -> u32 {
        self.status.failed_attempts.and_then(|failed| u32::try_from(failed).ok()).unwrap_or(0)
    }

    /// Writes down the device and the times of the present attempt.
    pub fn describe(&mut self, seen: &Seen) {
        if let (Lease::Granted, Some(grant)) = (&seen.lease, &seen.grant) {
            self.status.device_ref = Some(grant.device_ref.clone());
            self.status.fencing_token = Some(grant.fencing_token);
            self.status.granted_time.get_or_insert(Time(self.now));
        }
        if let Some(since) = seen.running_since.and_then(|since| Timestamp::from_second(since).ok()) {
            self.status.running_time.get_or_insert(Time(since));
        }
    }

    /// It is under way.
    pub fn go(&mut self, step: RunStep, why: &Refusal, stuck: bool) {
        self.status.step = Some(step);
        self.status.phase = Some(if step == RunStep::Queued { Phase::Pending } else { Phase::Running });
        if stuck {
            self.conditions.blocked(&why.reason, &*why.message);
        } else {
            self.conditions.progressing(&why.reason, &*why.message);
        }
    }

    /// The user stopped it. An attempt that had begun needs another number: its record's key may be taken.
    pub fn suspend(&mut self, restart: bool) {
        if restart {
            self.next_attempt();
        }
        self.status.step = None;
        self.status.phase = Some(Phase::Suspended);
        self.conditions.blocked(reason::SUSPENDED, "suspended by spec.suspend: set it to false to go on");
    }

    /// The attempt failed, the next one begins.
    pub fn retry(&mut self, why: &Refusal) {
        let failed = self.attempt();
        self.status.failed_attempts = Some(self.status.failed_attempts.unwrap_or(0) + 1);
        self.next_attempt();
        self.status.step = Some(RunStep::Queued);
        self.status.phase = Some(Phase::Pending);
        let message = format!("attempt {failed} failed: {}: {}; it is tried again", why.reason, why.message);
        self.conditions.progressing(&why.reason, message);
    }

    /// The device of the last attempt stays in the status until the next one is granted: its pods are found by it.
    fn next_attempt(&mut self) {
        self.status.attempt = Some(self.attempt() + 1);
        self.status.granted_time = None;
        self.status.running_time = None;
    }

    /// The record is there and is what was asked for.
    pub fn succeed(&mut self, seen: &Seen) {
        self.keep_record(seen);
        self.status.step = None;
        self.status.phase = Some(Phase::Succeeded);
        self.status.completion_time.get_or_insert(Time(self.now));
        let failed = self.status.results.iter().filter(|result| result.failure.is_some()).count();
        let all = self.status.results.len();
        let message = match failed {
            0 if all == 1 => "1 variant was measured".to_owned(),
            0 => format!("{all} variants were measured"),
            _ => format!("{} of {all} variants were measured, {failed} failed: see status.results", all - failed),
        };
        self.conditions.complete(reason::RECORDED, message);
    }

    /// Shows the record, also of a run that failed.
    pub fn keep_record(&mut self, seen: &Seen) {
        if let Some((results, record)) = &seen.found {
            self.status.results.clone_from(results);
            self.status.record = Some(record.clone());
        }
    }

    /// It ended without a usable record.
    pub fn fail(&mut self, why: &Refusal) {
        self.status.step = None;
        self.status.phase = Some(Phase::Failed);
        self.status.completion_time.get_or_insert(Time(self.now));
        self.conditions.failed(&why.reason, &*why.message);
    }

    /// Something failed on the way.
    pub fn trouble(&mut self, why: &Refusal) {
        self.status.phase.get_or_insert(Phase::Pending);
        if why.reason == reason::STORE_UNAVAILABLE {
            self.conditions.progressing(&why.reason, &*why.message);
        } else {
            self.conditions.blocked(&why.reason, &*why.message);
        }
    }

    /// The status to write.
    pub fn into_status(self) -> BenchmarkRunStatus {
        BenchmarkRunStatus { conditions: self.conditions.into_list(), ..self.status }
    }
}

fn empty() -> BenchmarkRunStatus {
    BenchmarkRunStatus {
        observed_generation: -1,
        phase: None,
        step: None,
        attempt: None,
        failed_attempts: None,
        device_ref: None,
        fencing_token: None,
        start_time: None,
        granted_time: None,
        running_time: None,
        completion_time: None,
        results: Vec::new(),
        record: None,
        conditions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use edgeyard_crds::conditions::{FAILED, READY};

    use super::*;
    use crate::frame::conditions::{find, is_true};

    fn object() -> BenchmarkRun {
        serde_yaml::from_str(
            r"
apiVersion: edgeyard.dev/v1alpha1
kind: BenchmarkRun
metadata: {name: b, namespace: vision, uid: u, generation: 2}
spec: {benchmarkName: b, device: {name: m4, deviceClassName: c}, variants: []}
",
        )
        .unwrap()
    }

    #[test]
    fn a_retry_counts_and_a_suspension_does_not() {
        let mut draft = Draft::new(&object(), Timestamp::from_second(100).unwrap());
        draft.begin();
        draft.status.running_time = Some(Time(draft.now));
        draft.retry(&Refusal::new("Crashed", "boom"));
        assert_eq!((draft.attempt(), draft.failed_attempts()), (2, 1));
        assert_eq!(draft.status.running_time, None);
        draft.suspend(true);
        draft.suspend(false);
        assert_eq!((draft.attempt(), draft.failed_attempts()), (3, 1));
        let status = draft.into_status();
        assert_eq!(find(&status.conditions, READY).unwrap().reason, reason::SUSPENDED);
        assert!(!is_true(&status.conditions, FAILED));
    }
}
