//! What to do next for a ModelOptimization, from what is seen and nothing else.

use crate::outcome::Outcome;
use crate::{Refusal, reason};

use super::Optimization;

/// The first attempt and three retries.
pub const MAX_ATTEMPTS: u32 = 4;
/// Seconds before the first retry; doubles with each.
const FIRST_BACKOFF: i64 = 10;

/// How a task's end is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Made and within the constraints; of an import: everything is in the store.
    Done,
    /// Made, but outside the constraints.
    Rejected(Refusal),
    /// Not made.
    Failed(Refusal),
}

/// The import or one artefact, as seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// How it ended, if it did.
    pub settled: Option<Settled>,
    /// Whether a job is at it.
    pub active: bool,
    /// The highest attempt that ended without settling it; 0 if none did.
    pub failed_attempts: u32,
    /// When the last of these ended.
    pub failed_at: Option<i64>,
    /// Why.
    pub failure: Option<Refusal>,
}

/// One attempt at a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// What it came to; `None` while it is under way.
    pub outcome: Option<Outcome>,
    /// When it ended, in Unix seconds.
    pub ended_at: Option<i64>,
}

impl Task {
    /// A task that needs no work.
    pub fn done() -> Self {
        Self { settled: Some(Settled::Done), ..Self::default() }
    }

    /// Folds the attempts that are seen. `Done` and `ConstraintNotMet` do not settle a task here: the caller has to read
    /// the result first, and sets `settled` itself.
    pub fn from_attempts(attempts: &[Attempt]) -> Self {
        let mut task = Self::default();
        for attempt in attempts {
            let Some(outcome) = &attempt.outcome else {
                task.active = true;
                continue;
            };
            match outcome {
                Outcome::Impossible(why) => task.settled = Some(Settled::Failed(why.clone())),
                Outcome::Infrastructure(why) | Outcome::Stopped(why) => {
                    if attempt.number > task.failed_attempts {
                        task.failed_attempts = attempt.number;
                        task.failed_at = attempt.ended_at;
                        task.failure = Some(why.clone());
                    }
                }
                // Nothing to start and nothing to wait for but the result, which the caller reads.
                Outcome::Done { .. } | Outcome::ConstraintNotMet { .. } => task.active = true,
            }
        }
        if task.settled.is_none() && !task.active && task.failed_attempts >= MAX_ATTEMPTS {
            let why = task.failure.clone().unwrap_or_else(|| Refusal::new(reason::CRASHED, "ended without a message"));
            let message = format!("{} (after {} attempts)", why.message, task.failed_attempts);
            task.settled = Some(Settled::Failed(Refusal { reason: why.reason, message }));
        }
        task
    }
}

/// When the attempt after `failed_attempts` may start.
pub fn retry_at(failed_attempts: u32, failed_at: i64) -> i64 {
    failed_at + FIRST_BACKOFF * (1 << failed_attempts.clamp(1, 10).saturating_sub(1))
}

/// What is seen of a ModelOptimization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Now, in Unix seconds.
    pub now: i64,
    /// When work started.
    pub started: i64,
    /// The import; [`Task::done`] if there is nothing to import.
    pub import: Task,
    /// The artefacts, in the plan's order.
    pub artifacts: Vec<Task>,
}

/// How a ModelOptimization ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// There is a result.
    Complete {
        /// All were verified, or some.
        reason: &'static str,
        /// For people.
        message: String,
    },
    /// There is none.
    Failed(Refusal),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the import.
    Import {
        /// From 1.
        attempt: u32,
    },
    /// Start making an artefact.
    Make {
        /// Its place in the plan.
        artifact: usize,
        /// From 1.
        attempt: u32,
    },
    /// Delete all jobs that are under way.
    Stop,
    /// Nothing before this time, unless something changes.
    WaitUntil(i64),
    /// Write the end into the status.
    End(End),
}

/// The next actions. None means: wait for a change.
pub fn next(plan: &Optimization, seen: &Observed) -> Vec<Action> {
    let Observed { now, started, import, artifacts } = seen;
    let any_active = import.active || artifacts.iter().any(|task| task.active);
    let stop = || if any_active { vec![Action::Stop] } else { Vec::new() };
    let end = |end: End| [stop(), vec![Action::End(end)]].concat();

    if let Some(Settled::Failed(why) | Settled::Rejected(why)) = &import.settled {
        return end(End::Failed(why.clone()));
    }
    if let Some(over) = outcome(plan, artifacts) {
        return end(over);
    }
    let deadline = started + plan.active_deadline_seconds;
    if plan.suspend {
        return stop();
    }
    if *now >= deadline {
        return end(End::Failed(deadline_exceeded(plan, seen)));
    }
    let mut actions = Vec::new();
    let mut wake = deadline;
    let mut ready = |task: &Task| match task.failed_at.map(|at| retry_at(task.failed_attempts, at)) {
        Some(at) if at > *now => {
            wake = wake.min(at);
            false
        }
        _ => true,
    };
    if import.settled.is_none() {
        if !import.active && ready(import) {
            actions.push(Action::Import { attempt: import.failed_attempts + 1 });
        }
    } else {
        let mut free = plan.parallelism.saturating_sub(artifacts.iter().filter(|task| task.active).count());
        for (artifact, task) in artifacts.iter().enumerate() {
            if task.settled.is_none() && !task.active && free > 0 && ready(task) {
                actions.push(Action::Make { artifact, attempt: task.failed_attempts + 1 });
                free -= 1;
            }
        }
    }
    actions.push(Action::WaitUntil(wake));
    actions
}

/// The end, if there is nothing left to do.
fn outcome(plan: &Optimization, artifacts: &[Task]) -> Option<End> {
    let total = artifacts.len();
    let named = |wanted: fn(&Settled) -> Option<&Refusal>| {
        plan.artifacts
            .iter()
            .zip(artifacts)
            .filter_map(|(artifact, task)| {
                let why = wanted(task.settled.as_ref()?)?;
                Some((format!("{}/{}", artifact.variant, artifact.target), why))
            })
            .collect::<Vec<_>>()
    };
    let bad = named(|settled| match settled {
        Settled::Done => None,
        Settled::Rejected(why) | Settled::Failed(why) => Some(why),
    });
    let listed = || {
        let first: Vec<_> =
            bad.iter().take(3).map(|(name, why)| format!("{name}: {}: {}", why.reason, why.message)).collect();
        let rest = bad.len().saturating_sub(first.len());
        let more = if rest > 0 { format!("; and {rest} more, see status.artifacts") } else { String::new() };
        first.join("; ") + &more
    };
    if plan.all_or_nothing && !bad.is_empty() {
        return Some(End::Failed(Refusal::new(
            reason::ARTIFACTS_FAILED,
            format!("{} of {total} artefacts failed and partialFailurePolicy is Fail: {}", bad.len(), listed()),
        )));
    }
    if artifacts.iter().any(|task| task.settled.is_none()) {
        return None;
    }
    let verified = total - bad.len();
    Some(match (verified, bad.len()) {
        (0, _) => {
            // A single cause is more useful to programs than the general word.
            let cause = &bad[0].1.reason;
            let same = bad.iter().all(|(_, why)| why.reason == *cause);
            let word = if same { cause.as_str() } else { reason::NO_ARTIFACT_VERIFIED };
            End::Failed(Refusal::new(word, format!("0 of {total} verified: {}", listed())))
        }
        (_, 0) => {
            End::Complete { reason: reason::ARTIFACTS_VERIFIED, message: format!("{verified} of {total} verified") }
        }
        _ => End::Complete {
            reason: reason::ARTIFACTS_PARTLY_VERIFIED,
            message: format!("{verified} of {total} verified; {}", listed()),
        },
    })
}

fn deadline_exceeded(plan: &Optimization, seen: &Observed) -> Refusal {
    let settled = seen.artifacts.iter().filter(|task| task.settled.is_some()).count();
    let last = seen.artifacts.iter().chain([&seen.import]).find_map(|task| task.failure.as_ref());
    let cause = last.map(|why| format!(" (last failure: {}: {})", why.reason, why.message)).unwrap_or_default();
    Refusal::new(
        reason::DEADLINE_EXCEEDED,
        format!(
            "{settled} of {} artefacts were settled within activeDeadlineSeconds: {}{cause}: create a new object with a \
             larger deadline or parallelism",
            seen.artifacts.len(),
            plan.active_deadline_seconds
        ),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{MINIMAL, from_yaml};
    use super::*;

    fn why() -> Refusal {
        Refusal::new("Test", "because")
    }

    fn seen(import: Task, artifacts: Vec<Task>) -> Observed {
        Observed { now: 1000, started: 0, import, artifacts }
    }

    #[test]
    fn the_import_comes_first() {
        let plan = from_yaml(MINIMAL).unwrap();
        let tasks = vec![Task::default(); 4];
        assert_eq!(
            next(&plan, &seen(Task::default(), tasks.clone())),
            [Action::Import { attempt: 1 }, Action::WaitUntil(3600)]
        );
        assert_eq!(
            next(&plan, &seen(Task { active: true, ..Task::default() }, tasks.clone())),
            [Action::WaitUntil(3600)]
        );
        assert_eq!(
            next(&plan, &seen(Task::done(), tasks)),
            [Action::Make { artifact: 0, attempt: 1 }, Action::WaitUntil(3600)]
        );
    }

    #[test]
    fn an_impossible_import_ends_it() {
        let plan = from_yaml(MINIMAL).unwrap();
        let import = Task { settled: Some(Settled::Failed(why())), ..Task::default() };
        assert_eq!(next(&plan, &seen(import, vec![Task::default(); 4])), [Action::End(End::Failed(why()))]);
    }

    #[test]
    fn a_failed_attempt_waits_and_counts() {
        let plan = from_yaml(MINIMAL).unwrap();
        let failed = Task::from_attempts(&[Attempt {
            number: 2,
            outcome: Some(Outcome::Infrastructure(why())),
            ended_at: Some(995),
        }]);
        let mut tasks = vec![Task::done(), Task::done(), Task::done(), failed];
        assert_eq!(next(&plan, &seen(Task::done(), tasks.clone())), [Action::WaitUntil(995 + 20)]);
        tasks[3].failed_at = Some(900);
        assert_eq!(next(&plan, &seen(Task::done(), tasks))[0], Action::Make { artifact: 3, attempt: 3 });
    }

    #[test]
    fn retries_end() {
        let attempt = |number| Attempt { number, outcome: Some(Outcome::Infrastructure(why())), ended_at: Some(1) };
        assert!(Task::from_attempts(&[attempt(1), attempt(2), attempt(3)]).settled.is_none());
        assert!(matches!(
            Task::from_attempts(&[attempt(1), attempt(4)]).settled,
            Some(Settled::Failed(why)) if why.message == "because (after 4 attempts)"
        ));
    }

    #[test]
    fn suspending_stops_and_does_nothing_else() {
        let plan = Optimization { suspend: true, ..from_yaml(MINIMAL).unwrap() };
        let mut tasks = vec![Task::default(); 4];
        assert_eq!(next(&plan, &seen(Task::done(), tasks.clone())), []);
        tasks[1].active = true;
        assert_eq!(next(&plan, &seen(Task::done(), tasks)), [Action::Stop]);
    }

    #[test]
    fn the_deadline_says_how_far_it_got() {
        let plan = from_yaml(MINIMAL).unwrap();
        let mut tasks = vec![Task::default(); 4];
        tasks[0] = Task::done();
        tasks[1].active = true;
        let late = Observed { now: 3600, ..seen(Task::done(), tasks) };
        let actions = next(&plan, &late);
        assert_eq!(actions[0], Action::Stop);
        assert!(matches!(&actions[1], Action::End(End::Failed(why))
            if why.reason == "DeadlineExceeded" && why.message.starts_with("1 of 4")));
    }

    #[test]
    fn some_failures_are_accepted_unless_forbidden() {
        let accept = from_yaml(MINIMAL).unwrap();
        let mut tasks = vec![Task::done(); 4];
        tasks[2].settled = Some(Settled::Rejected(why()));
        let world = seen(Task::done(), tasks);
        assert!(matches!(&next(&accept, &world)[..], [Action::End(End::Complete { reason, message })]
            if *reason == "ArtifactsPartlyVerified" && message.contains("int8/ort-x86: Test: because")));
        let failed = |word: &str| Task { settled: Some(Settled::Failed(Refusal::new(word, "m"))), ..Task::default() };
        let one_cause = seen(Task::done(), vec![failed("UnsupportedOperator"); 4]);
        assert!(
            matches!(&next(&accept, &one_cause)[..], [Action::End(End::Failed(why))] if why.reason == "UnsupportedOperator")
        );
        let two_causes = seen(Task::done(), [vec![failed("A"); 3], vec![failed("B")]].concat());
        assert!(
            matches!(&next(&accept, &two_causes)[..], [Action::End(End::Failed(why))] if why.reason == "NoArtifactVerified")
        );
        let strict = Optimization { all_or_nothing: true, ..accept };
        assert!(
            matches!(&next(&strict, &world)[..], [Action::End(End::Failed(why))] if why.reason == "ArtifactsFailed")
        );
    }

    /// What a job of the simulated world does.
    fn outcomes() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            4 => Just(Outcome::Done { result: None }),
            1 => Just(Outcome::ConstraintNotMet { result: None, why: why() }),
            1 => Just(Outcome::Impossible(why())),
            3 => Just(Outcome::Infrastructure(why())),
            1 => Just(Outcome::Stopped(why())),
        ]
    }

    proptest! {
        /// Whatever jobs do, and whenever the user suspends and resumes: the limits hold and it comes to an end.
        #[test]
        fn every_history_ends(script in prop::collection::vec((outcomes(), any::<u8>(), 0..30_i64), 1..60), parallelism in 1..5_usize,
            all_or_nothing in any::<bool>()) {
            let mut plan = Optimization { parallelism, all_or_nothing, ..from_yaml(MINIMAL).unwrap() };
            // Tasks 0..4 are artefacts, task 4 is the import.
            let mut attempts: Vec<Vec<Attempt>> = vec![Vec::new(); 5];
            let mut results: Vec<Option<Settled>> = vec![None; 5];
            let mut now = 0;
            let mut script = script.into_iter().cycle();
            let mut ended = None;
            for _ in 0..2000 {
                let task = |index: usize| {
                    let mut task = Task::from_attempts(&attempts[index]);
                    if let Some(settled) = &results[index] {
                        task = Task { settled: Some(settled.clone()), active: false, ..task };
                    }
                    task
                };
                let world = Observed { now, started: 0, import: task(4), artifacts: (0..4).map(task).collect() };
                let actions = next(&plan, &world);
                for action in &actions {
                    match action {
                        Action::Import { attempt } => {
                            prop_assert!(!plan.suspend);
                            prop_assert_eq!(*attempt, world.import.failed_attempts + 1);
                            attempts[4].push(Attempt { number: *attempt, outcome: None, ended_at: None });
                        }
                        Action::Make { artifact, attempt } => {
                            prop_assert!(!plan.suspend && results[4].is_some());
                            prop_assert!(*attempt <= MAX_ATTEMPTS);
                            prop_assert!(attempts[*artifact].iter().all(|a| a.outcome.is_some() && a.number < *attempt));
                            attempts[*artifact].push(Attempt { number: *attempt, outcome: None, ended_at: None });
                        }
                        Action::Stop => for list in &mut attempts {
                            list.retain(|attempt| attempt.outcome.is_some());
                        },
                        Action::WaitUntil(at) => prop_assert!(*at > now && *at <= plan.active_deadline_seconds),
                        Action::End(end) => ended = Some(end.clone()),
                    }
                }
                let active = attempts[..4].iter().filter(|list| list.iter().any(|a| a.outcome.is_none())).count();
                prop_assert!(active <= parallelism);
                if ended.is_some() {
                    prop_assert_eq!(active, 0);
                    break;
                }
                // The world moves: time passes, the user toggles suspend now and then, one job may end.
                let (outcome, dice, seconds) = script.next().expect("cycles");
                now += seconds + 1;
                plan.suspend = !plan.suspend && dice > 240;
                let under_way: Vec<_> =
                    (0..5).filter(|index| attempts[*index].iter().any(|a| a.outcome.is_none())).collect();
                if !under_way.is_empty() {
                    let index = under_way[usize::from(dice) % under_way.len()];
                    let attempt = attempts[index].last_mut().expect("it is under way");
                    match &outcome {
                        Outcome::Done { .. } => results[index] = Some(Settled::Done),
                        Outcome::ConstraintNotMet { why, .. } if index < 4 => results[index] = Some(Settled::Rejected(why.clone())),
                        Outcome::ConstraintNotMet { .. } => results[index] = Some(Settled::Done),
                        _ => {}
                    }
                    attempt.outcome = Some(outcome);
                    attempt.ended_at = Some(now);
                }
            }
            prop_assert!(ended.is_some(), "no end after 2000 steps, time {}", now);
        }
    }
}
