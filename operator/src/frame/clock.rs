//! Wall-clock time as something that tests can set. Deadlines come from API timestamps, so this is the only clock.

use std::fmt::Debug;

pub use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Tells the time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands where it was set.
#[derive(Debug, Clone, Copy)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// From `now` until `then`; zero when `then` is past.
pub fn until(now: Timestamp, then: Timestamp) -> std::time::Duration {
    then.duration_since(now).try_into().unwrap_or_default()
}
