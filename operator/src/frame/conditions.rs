//! Conditions in both dialects: `Complete`/`Failed` for `kubectl wait`, `Ready`/`Reconciling`/`Stalled` for kstatus
//! (Argo CD, Flux). Pure; the time comes in as an argument.

use edgeyard_crds::conditions::{COMPLETE, FAILED, READY, RECONCILING, STALLED};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::clock::Timestamp;

/// The longest message that the CRDs take.
const MAX_MESSAGE: usize = 512;

/// The conditions of one object while its status is computed. Starts from the old ones, so that `lastTransitionTime`
/// stays while a status stays; all get the same `observedGeneration`.
#[derive(Debug, Clone)]
pub struct Conditions {
    list: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Conditions {
    /// Starts from what the status said before. `generation` is the object's `metadata.generation`.
    pub fn from_old(old: &[Condition], generation: Option<i64>, now: Timestamp) -> Self {
        let mut list = old.to_vec();
        // All that is said stays said of the present generation, or `kubectl wait` hangs on a finished object whose
        // mutable field was changed.
        for condition in &mut list {
            condition.observed_generation = generation;
        }
        Self { list, generation, now }
    }

    /// Sets one condition to True or False.
    pub fn set(&mut self, type_: &str, holds: bool, reason: &str, message: impl Into<String>) -> &mut Self {
        self.set_status(type_, if holds { "True" } else { "False" }, reason, message.into())
    }

    /// Sets one condition to Unknown.
    pub fn set_unknown(&mut self, type_: &str, reason: &str, message: impl Into<String>) -> &mut Self {
        self.set_status(type_, "Unknown", reason, message.into())
    }

    /// Drops a condition that no longer says anything.
    pub fn remove(&mut self, type_: &str) -> &mut Self {
        self.list.retain(|condition| condition.type_ != type_);
        self
    }

    /// Work is under way: not Complete, not Failed, Reconciling.
    pub fn progressing(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        let message = message.into();
        self.set(COMPLETE, false, reason, &*message).set(FAILED, false, reason, &*message);
        self.reconciling(reason, message)
    }

    /// Nothing happens until somebody acts (suspended, no such queue, …), but it may still end well.
    pub fn blocked(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        let message = message.into();
        self.set(COMPLETE, false, reason, &*message).set(FAILED, false, reason, &*message);
        self.stalled(reason, message)
    }

    /// It ended well: Complete and Ready.
    pub fn complete(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        let message = message.into();
        self.set(COMPLETE, true, reason, &*message).set(FAILED, false, reason, &*message);
        self.ready(reason, message)
    }

    /// It ended badly: Failed and Stalled.
    pub fn failed(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        let message = message.into();
        self.set(COMPLETE, false, reason, &*message).set(FAILED, true, reason, &*message);
        self.stalled(reason, message)
    }

    /// kstatus only, for objects that never complete: all is well.
    pub fn ready(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        self.kstatus((true, false, false), reason, message.into())
    }

    /// kstatus only: work is under way.
    pub fn reconciling(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        self.kstatus((false, true, false), reason, message.into())
    }

    /// kstatus only: nothing happens until somebody acts.
    pub fn stalled(&mut self, reason: &str, message: impl Into<String>) -> &mut Self {
        self.kstatus((false, false, true), reason, message.into())
    }

    /// What goes into the status, sorted by type so that the same facts give the same list.
    pub fn into_list(self) -> Vec<Condition> {
        let mut list = self.list;
        list.sort_by(|a, b| a.type_.cmp(&b.type_));
        list
    }

    fn kstatus(&mut self, holds: (bool, bool, bool), reason: &str, message: String) -> &mut Self {
        let (ready, reconciling, stalled) = holds;
        self.set(READY, ready, reason, &*message).set(RECONCILING, reconciling, reason, &*message);
        self.set(STALLED, stalled, reason, message)
    }

    fn set_status(&mut self, type_: &str, status: &str, reason: &str, message: String) -> &mut Self {
        let message = bounded(message);
        if let Some(present) = self.list.iter_mut().find(|condition| condition.type_ == type_) {
            if present.status != status {
                present.last_transition_time = Time(self.now);
                present.status = status.to_owned();
            }
            present.reason = reason.to_owned();
            present.message = message;
        } else {
            self.list.push(Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                observed_generation: self.generation,
                last_transition_time: Time(self.now),
            });
        }
        self
    }
}

/// Whether the condition is there and True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// At most [`MAX_MESSAGE`] characters, or the API server refuses the whole status.
fn bounded(message: String) -> String {
    if message.chars().count() <= MAX_MESSAGE {
        return message;
    }
    let mut cut: String = message.chars().take(MAX_MESSAGE - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_stays_while_the_status_stays() {
        let mut first = Conditions::from_old(&[], Some(1), at(10));
        first.progressing("Queued", "waits");
        let first = first.into_list();
        let mut second = Conditions::from_old(&first, Some(2), at(20));
        second.complete("Done", "is there");
        let second = second.into_list();
        let time = |type_| find(&second, type_).unwrap().last_transition_time.0;
        assert_eq!(time(COMPLETE), at(20));
        assert_eq!(time(FAILED), at(10), "False before and after");
        assert_eq!(time(STALLED), at(10));
        assert!(second.iter().all(|c| c.observed_generation == Some(2) && c.reason == "Done"));
        assert!(is_true(&second, READY) && !is_true(&second, RECONCILING));
    }

    #[test]
    fn untouched_conditions_follow_the_generation() {
        let mut old = Conditions::from_old(&[], Some(1), at(1));
        old.set("Granted", true, "Allocated", "");
        let new = Conditions::from_old(&old.into_list(), Some(7), at(2)).into_list();
        assert_eq!(new[0].observed_generation, Some(7));
        assert_eq!(new[0].last_transition_time.0, at(1));
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let mut conditions = Conditions::from_old(&[], None, at(0));
        conditions.set("Ready", false, "Long", "ä".repeat(600));
        let list = conditions.into_list();
        assert_eq!(list[0].message.chars().count(), MAX_MESSAGE);
        assert!(list[0].message.ends_with('…'));
    }
}
