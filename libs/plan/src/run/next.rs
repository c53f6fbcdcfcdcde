//! What to do next for a BenchmarkRun, from what is seen and nothing else.
//!
//! One attempt is one lease, one pod, one record. When something around it fails, lease and pod go and the next attempt
//! begins with a new lease, so that a fencing token never serves two attempts.

use edgeyard_crds::benchmark::DeviceLossPolicy;
use edgeyard_crds::run::RunStep;

use crate::outcome::Outcome;
use crate::{Refusal, reason};

use super::Run;

/// How often a runner that crashed, or whose record is missing, is started again.
pub const RUNNER_RETRIES: u32 = 2;
/// Seconds that a runner has beyond `runSeconds` to end by itself and to store its record.
const RUN_MARGIN: i64 = 30;
/// Seconds of a lease beyond what preparing and measuring may take.
const LEASE_MARGIN: i64 = 60;

/// How long a lease has to last for one attempt.
pub fn lease_seconds(run: &Run) -> i64 {
    run.timeouts.prepare_seconds + run.timeouts.run_seconds + RUN_MARGIN + LEASE_MARGIN
}

/// What is seen of the run's DeviceLease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// There is none.
    None,
    /// It is on its way out.
    Deleting,
    /// It waits; since when, and what it says.
    Queued {
        /// Unix seconds.
        since: i64,
        /// What its condition says.
        why: Option<Refusal>,
    },
    /// It has a device.
    Granted,
    /// It has none any more, or never got one.
    Ended(Refusal),
}

/// What is seen of the present attempt's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pod {
    /// There is none, and none was seen running.
    None,
    /// There is none, but it was seen running.
    Vanished,
    /// It is on its way out.
    Deleting,
    /// It exists and does not run.
    Starting {
        /// Unix seconds of its creation.
        since: i64,
        /// What keeps it from running.
        problem: Option<Refusal>,
    },
    /// It runs.
    Running {
        /// Unix seconds.
        since: i64,
    },
    /// It ended.
    Ended(Outcome),
}

/// What is seen of the device that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Nothing is wrong with it.
    Online,
    /// It is silent since.
    Offline(i64),
}

/// What the store has for the present attempt. Looked up when the pod ended or vanished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// Not looked up, or the store gave no answer: why.
    Unknown(Option<Refusal>),
    /// Nothing.
    Absent,
    /// A record that is not of this attempt.
    Wrong(Refusal),
    /// The record that was asked for, in which every variant failed.
    AllFailed(Refusal),
    /// The record that was asked for.
    Good,
}

/// What is seen of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Now, in Unix seconds.
    pub now: i64,
    /// How many attempts ended by a failure that is not the model's.
    pub failed_attempts: u32,
    /// The lease.
    pub lease: Lease,
    /// The present attempt's pod.
    pub pod: Pod,
    /// Whether pods of earlier attempts are still there.
    pub stale_pods: bool,
    /// The device.
    pub device: DeviceState,
    /// The record.
    pub record: RecordState,
}

/// What to do. Each may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for a device.
    CreateLease,
    /// Give the device back and forget the lease.
    DeleteLease,
    /// Give the device back; the lease stays as a trace.
    ReleaseLease,
    /// Start the present attempt's pod.
    StartPod,
    /// Remove pods and their Secrets, of all attempts.
    DeletePods,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Under way.
    Go {
        /// Where it is.
        step: RunStep,
        /// What to do now.
        actions: Vec<Action>,
        /// What to say about it.
        why: Refusal,
        /// Whether somebody should look, though it may still pass by itself.
        stuck: bool,
        /// When to look again at the latest.
        until: Option<i64>,
    },
    /// Stopped by the user; the attempt does not count. `restart` says that it had begun, so that the next one needs
    /// another number.
    Suspended {
        /// What to do now.
        actions: Vec<Action>,
        /// Whether the attempt had begun.
        restart: bool,
    },
    /// The attempt failed, the next one begins.
    Retry {
        /// What to do now.
        actions: Vec<Action>,
        /// Why it failed.
        why: Refusal,
    },
    /// The end: the record is good.
    Succeeded,
    /// The end: there is no usable record.
    Failed(Refusal),
}

/// The next step of a run that has not ended.
pub fn next(run: &Run, seen: &Observed) -> Next {
    let Observed { now, lease, pod, stale_pods, device, record, .. } = seen;
    // A record that is there wins over everything: nothing that was measured is lost.
    if matches!(pod, Pod::Ended(_) | Pod::Vanished) {
        match record {
            RecordState::Good => return Next::Succeeded,
            RecordState::AllFailed(why) => return Next::Failed(why.clone()),
            RecordState::Unknown(why) if !run.cancel => {
                let otherwise = || Refusal::new(reason::MEASURING, "reading the record");
                return go(RunStep::Measuring, &[], why.clone().unwrap_or_else(otherwise), why.is_some(), None);
            }
            RecordState::Unknown(_) | RecordState::Absent | RecordState::Wrong(_) => {}
        }
    }
    if run.cancel {
        return Next::Failed(Refusal::new(reason::CANCELLED, "cancelled by spec.cancel"));
    }
    if run.suspend {
        let mut actions = Vec::new();
        if *pod != Pod::None || *stale_pods {
            actions.push(Action::DeletePods);
        }
        if !matches!(lease, Lease::None | Lease::Deleting) {
            actions.push(Action::DeleteLease);
        }
        return Next::Suspended { actions, restart: *pod != Pod::None };
    }
    match lease {
        Lease::None if *stale_pods || *pod == Pod::Deleting => {
            go(RunStep::Queued, &[Action::DeletePods], queued("the last attempt's pod ends"), false, None)
        }
        // The pod of a lease that is gone must not run on.
        Lease::None if *pod != Pod::None => retry(run, seen, reason::DEVICE_LOST, "the lease is gone"),
        Lease::None => go(RunStep::Queued, &[Action::CreateLease], queued("asks for a device"), false, None),
        Lease::Deleting => match pod {
            Pod::None | Pod::Deleting => {
                go(RunStep::Queued, &[], queued("the last attempt's device is given back"), false, None)
            }
            _ => retry(run, seen, reason::DEVICE_LOST, "the lease was deleted"),
        },
        Lease::Ended(why) => retry(run, seen, reason::DEVICE_LOST, &format!("{}: {}", why.reason, why.message)),
        Lease::Queued { since, why } => {
            let deadline = since + run.timeouts.queue_seconds;
            let waits = why.clone().unwrap_or_else(|| queued("waits for a device"));
            if *now >= deadline {
                return Next::Failed(Refusal::new(
                    reason::QUEUE_TIMEOUT,
                    format!(
                        "no device within timeouts.queueSeconds: {} ({}: {}): raise priority or queueSeconds, or ask for \
                         another device",
                        run.timeouts.queue_seconds, waits.reason, waits.message
                    ),
                ));
            }
            // What the queue says about somebody who has to act is passed on.
            let stuck = why.as_ref().is_some_and(|why| !matches!(why.reason.as_str(), "Queued" | "WaitingForDevice"));
            go(RunStep::Queued, &[], waits, stuck, Some(deadline))
        }
        Lease::Granted => granted(run, seen, *now, pod, *stale_pods, *device, record),
    }
}

fn granted(
    run: &Run,
    seen: &Observed,
    now: i64,
    pod: &Pod,
    stale_pods: bool,
    device: DeviceState,
    record: &RecordState,
) -> Next {
    let lost_at = match device {
        DeviceState::Online => None,
        DeviceState::Offline(since) => Some(since + run.device_loss.grace_seconds),
    };
    let silent =
        || format!("the device is silent for more than deviceLoss.graceSeconds: {}", run.device_loss.grace_seconds);
    match pod {
        Pod::Ended(outcome) => ended(run, seen, outcome, record),
        _ if lost_at.is_some_and(|at| now >= at) => retry(run, seen, reason::DEVICE_LOST, &silent()),
        Pod::Vanished => retry(run, seen, reason::POD_LOST, "the runner's pod is gone and left no record"),
        Pod::Deleting => go(RunStep::Preparing, &[], preparing("an earlier pod ends"), false, lost_at),
        Pod::None if stale_pods => {
            go(RunStep::Preparing, &[Action::DeletePods], preparing("an earlier pod ends"), false, lost_at)
        }
        Pod::None => go(RunStep::Preparing, &[Action::StartPod], preparing("the runner's pod is made"), false, lost_at),
        Pod::Starting { since, problem } => {
            let deadline = since + run.timeouts.prepare_seconds;
            if now >= deadline {
                let seconds = run.timeouts.prepare_seconds;
                return Next::Failed(match problem {
                    Some(why) => Refusal {
                        reason: why.reason.clone(),
                        message: format!("{} (given up after timeouts.prepareSeconds: {seconds})", why.message),
                    },
                    None => Refusal::new(
                        reason::PREPARE_TIMEOUT,
                        format!(
                            "the runner's pod did not start within timeouts.prepareSeconds: {seconds}: look at its events"
                        ),
                    ),
                });
            }
            let why = problem.clone().unwrap_or_else(|| preparing("the runner's pod starts"));
            go(RunStep::Preparing, &[], why, problem.is_some(), earliest(Some(deadline), lost_at))
        }
        Pod::Running { since } => {
            let deadline = since + run.timeouts.run_seconds + RUN_MARGIN;
            if now >= deadline {
                return Next::Failed(Refusal::new(
                    reason::RUN_TIMEOUT,
                    format!(
                        "the runner did not end within timeouts.runSeconds: {}: measure fewer variants, use profile Smoke, \
                         or raise runSeconds",
                        run.timeouts.run_seconds
                    ),
                ));
            }
            let why = Refusal::new(reason::MEASURING, "measures");
            go(RunStep::Measuring, &[], why, false, earliest(Some(deadline), lost_at))
        }
    }
}

fn ended(run: &Run, seen: &Observed, outcome: &Outcome, record: &RecordState) -> Next {
    match (outcome, record) {
        (_, RecordState::Wrong(why)) => retry(run, seen, &why.reason, &why.message),
        (Outcome::Impossible(why), _) => Next::Failed(why.clone()),
        (Outcome::Infrastructure(why) | Outcome::Stopped(why), _) => retry(run, seen, &why.reason, &why.message),
        (Outcome::Done { .. } | Outcome::ConstraintNotMet { .. }, _) => {
            retry(run, seen, reason::RESULT_MISSING, "the runner ended well, but the store has no record of it")
        }
    }
}

fn retry(run: &Run, seen: &Observed, word: &str, message: &str) -> Next {
    let failed = seen.failed_attempts + 1;
    let lost = word == reason::DEVICE_LOST;
    let allowed = match run.device_loss.policy {
        _ if !lost => RUNNER_RETRIES,
        DeviceLossPolicy::Retry => u32::try_from(run.device_loss.max_retries).unwrap_or(0),
        DeviceLossPolicy::Fail => 0,
    };
    if failed > allowed {
        let advice = if lost { ": look at the EdgeDevice's conditions" } else { "" };
        return Next::Failed(Refusal::new(word, format!("{message} (after {failed} attempt(s)){advice}")));
    }
    let mut actions = Vec::new();
    if seen.pod != Pod::None || seen.stale_pods {
        actions.push(Action::DeletePods);
    }
    if !matches!(seen.lease, Lease::None | Lease::Deleting) {
        actions.push(Action::DeleteLease);
    }
    Next::Retry { actions, why: Refusal::new(word, message) }
}

fn go(step: RunStep, actions: &[Action], why: Refusal, stuck: bool, until: Option<i64>) -> Next {
    Next::Go { step, actions: actions.to_vec(), why, stuck, until }
}

fn queued(message: &str) -> Refusal {
    Refusal::new(reason::QUEUED, message)
}

fn preparing(message: &str) -> Refusal {
    Refusal::new(reason::PREPARING, message)
}

fn earliest(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    [a, b].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{MINIMAL, from_yaml};
    use super::*;

    fn why(word: &str) -> Refusal {
        Refusal::new(word, "because")
    }

    fn seen(lease: Lease, pod: Pod) -> Observed {
        Observed {
            now: 1000,
            failed_attempts: 0,
            lease,
            pod,
            stale_pods: false,
            device: DeviceState::Online,
            record: RecordState::Unknown(None),
        }
    }

    fn actions(next: &Next) -> &[Action] {
        match next {
            Next::Go { actions, .. } | Next::Suspended { actions, .. } | Next::Retry { actions, .. } => actions,
            Next::Succeeded | Next::Failed(_) => &[],
        }
    }

    #[test]
    fn the_usual_way() {
        let run = from_yaml(MINIMAL).unwrap();
        assert_eq!(actions(&next(&run, &seen(Lease::None, Pod::None))), [Action::CreateLease]);
        let waiting = next(&run, &seen(Lease::Queued { since: 950, why: None }, Pod::None));
        assert!(matches!(waiting, Next::Go { step: RunStep::Queued, until: Some(1050), stuck: false, .. }));
        assert_eq!(actions(&next(&run, &seen(Lease::Granted, Pod::None))), [Action::StartPod]);
        let running = next(&run, &seen(Lease::Granted, Pod::Running { since: 990 }));
        assert!(matches!(running, Next::Go { step: RunStep::Measuring, until: Some(1220), .. }));
        let done =
            Observed { record: RecordState::Good, ..seen(Lease::Granted, Pod::Ended(Outcome::Done { result: None })) };
        assert_eq!(next(&run, &done), Next::Succeeded);
    }

    #[test]
    fn what_the_queue_says_is_passed_on() {
        let run = from_yaml(MINIMAL).unwrap();
        let lease = Lease::Queued { since: 950, why: Some(why("NamespaceNotAllowed")) };
        assert!(matches!(next(&run, &seen(lease.clone(), Pod::None)),
            Next::Go { why, stuck: true, .. } if why.reason == "NamespaceNotAllowed"));
        let late = Observed { now: 1050, ..seen(lease, Pod::None) };
        assert!(matches!(next(&run, &late), Next::Failed(why)
            if why.reason == "QueueTimeout" && why.message.contains("NamespaceNotAllowed")));
    }

    #[test]
    fn a_record_wins_over_a_lost_lease_a_crash_and_cancel() {
        let run = Run { cancel: true, suspend: true, ..from_yaml(MINIMAL).unwrap() };
        for pod in [Pod::Vanished, Pod::Ended(Outcome::Infrastructure(why("Crashed")))] {
            let world = Observed { record: RecordState::Good, ..seen(Lease::Ended(why("LeaseExpired")), pod) };
            assert_eq!(next(&run, &world), Next::Succeeded);
        }
    }

    #[test]
    fn a_store_that_is_away_is_waited_for() {
        let run = from_yaml(MINIMAL).unwrap();
        let world = Observed {
            record: RecordState::Unknown(Some(why("StoreUnavailable"))),
            ..seen(Lease::Granted, Pod::Ended(Outcome::Done { result: None }))
        };
        assert!(matches!(next(&run, &world), Next::Go { why, stuck: true, .. } if why.reason == "StoreUnavailable"));
    }

    #[test]
    fn bad_input_is_not_retried_and_a_crash_is_twice() {
        let run = from_yaml(MINIMAL).unwrap();
        let ended = |outcome, failed_attempts| Observed {
            failed_attempts,
            record: RecordState::Absent,
            ..seen(Lease::Granted, Pod::Ended(outcome))
        };
        assert!(matches!(next(&run, &ended(Outcome::Impossible(why("UnsupportedOp")), 0)), Next::Failed(_)));
        let crash = || Outcome::Infrastructure(why("Crashed"));
        let retried = next(&run, &ended(crash(), 1));
        assert_eq!(actions(&retried), [Action::DeletePods, Action::DeleteLease]);
        assert!(matches!(next(&run, &ended(crash(), 2)), Next::Failed(why) if why.message.contains("3 attempt")));
    }

    #[test]
    fn a_silent_device_is_lost_after_its_grace() {
        let mut run = from_yaml(MINIMAL).unwrap();
        let world = |since| Observed {
            device: DeviceState::Offline(since),
            ..seen(Lease::Granted, Pod::Running { since: 900 })
        };
        assert!(matches!(next(&run, &world(950)), Next::Go { until: Some(1010), .. }));
        assert!(matches!(next(&run, &world(940)), Next::Retry { why, .. } if why.reason == "DeviceLost"));
        run.device_loss.policy = DeviceLossPolicy::Fail;
        assert!(matches!(next(&run, &world(940)), Next::Failed(_)));
    }

    #[test]
    fn a_pod_that_cannot_start_says_why_at_once_and_ends_at_the_deadline() {
        let run = from_yaml(MINIMAL).unwrap();
        let pod = |since| Pod::Starting { since, problem: Some(why("ImageUnavailable")) };
        assert!(matches!(next(&run, &seen(Lease::Granted, pod(990))), Next::Go { stuck: true, until: Some(1040), .. }));
        assert!(
            matches!(next(&run, &seen(Lease::Granted, pod(950))), Next::Failed(why) if why.reason == "ImageUnavailable")
        );
    }

    #[test]
    fn suspending_frees_the_device_and_does_not_count() {
        let run = Run { suspend: true, ..from_yaml(MINIMAL).unwrap() };
        let world = seen(Lease::Granted, Pod::Running { since: 900 });
        assert_eq!(
            next(&run, &world),
            Next::Suspended { actions: vec![Action::DeletePods, Action::DeleteLease], restart: true }
        );
        assert_eq!(next(&run, &seen(Lease::None, Pod::None)), Next::Suspended { actions: vec![], restart: false });
    }

    proptest! {
        /// Against a world that grants, revokes, crashes and delays at random: never two pods, no pod without a lease,
        /// bounded attempts, and an end.
        #[test]
        fn every_history_ends(dice in prop::collection::vec((0..16_u8, 1..40_i64), 1..80)) {
            let mut run = from_yaml(MINIMAL).unwrap();
            let mut world = seen(Lease::None, Pod::None);
            let mut dice = dice.into_iter().cycle();
            for round in 0..3000 {
                let step = next(&run, &world);
                match &step {
                    Next::Succeeded | Next::Failed(_) => return Ok(()),
                    Next::Retry { .. } => {
                        world.failed_attempts += 1;
                        prop_assert!(world.failed_attempts <= 2);
                    }
                    Next::Suspended { .. } => {}
                    Next::Go { until, .. } => prop_assert!(until.is_none_or(|until| until > world.now)),
                }
                let new_attempt = matches!(step, Next::Retry { .. } | Next::Suspended { restart: true, .. });
                for action in actions(&step) {
                    match action {
                        Action::CreateLease => {
                            prop_assert_eq!(&world.lease, &Lease::None);
                            world.lease = Lease::Queued { since: world.now, why: None };
                        }
                        Action::DeleteLease => world.lease = Lease::Deleting,
                        Action::ReleaseLease => prop_assert!(false, "only after the end"),
                        Action::StartPod => {
                            prop_assert_eq!(&world.lease, &Lease::Granted);
                            prop_assert!(world.pod == Pod::None && !world.stale_pods);
                            world.pod = Pod::Starting { since: world.now, problem: None };
                        }
                        Action::DeletePods => world.stale_pods = true,
                    }
                }
                if new_attempt {
                    world.stale_pods |= world.pod != Pod::None;
                    world.pod = Pod::None;
                    world.record = RecordState::Unknown(None);
                }
                let (die, seconds) = dice.next().expect("cycles");
                world.now += seconds;
                // In the end the user leaves it alone and what is deleted goes.
                let calm = round > 500;
                run.suspend = die == 15 && !calm;
                // The lease's finalizer removes pods before the lease is gone.
                if world.lease == Lease::Deleting && (die % 2 == 0 || calm) {
                    world.lease = Lease::None;
                    world.stale_pods = false;
                }
                if world.stale_pods && (die % 3 == 0 || calm) {
                    world.stale_pods = false;
                }
                if matches!(world.lease, Lease::Queued { .. }) && die % 3 == 0 {
                    world.lease = Lease::Granted;
                }
                if world.lease == Lease::Granted && die == 13 {
                    world.lease = Lease::Ended(why("Drained"));
                }
                world.pod = match (world.pod.clone(), die) {
                    (Pod::Starting { .. }, 0..=8) => Pod::Running { since: world.now },
                    (Pod::Running { .. }, 0..=3) => {
                        world.record = RecordState::Good;
                        Pod::Ended(Outcome::Done { result: None })
                    }
                    (Pod::Running { .. }, 4..=5) => {
                        world.record = RecordState::Absent;
                        Pod::Ended(Outcome::Infrastructure(why("Crashed")))
                    }
                    (Pod::Running { .. }, 6) => {
                        world.record = RecordState::Absent;
                        Pod::Vanished
                    }
                    (pod, _) => pod,
                };
            }
            prop_assert!(false, "no end after 3000 steps, time {}", world.now);
        }
    }
}
