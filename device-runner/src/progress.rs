//! How far a run is: a bar for people at a terminal, lines for logs, the store for the operator.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use edgeyard_job::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Someone who wants to know.
pub trait Observer: Send + Sync {
    /// The run is there now.
    fn at(&self, progress: &Progress);
}

/// Nobody.
#[derive(Debug)]
pub struct Silent;

impl Observer for Silent {
    fn at(&self, _: &Progress) {}
}

/// A bar on stderr, if that is a terminal.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// An empty bar.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {pos:>3}/{len:3} {elapsed}, {eta} left  {msg}")
            .expect("the template is constant");
        bar.set_style(style);
        Self(bar)
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Observer for Bar {
    fn at(&self, progress: &Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
        self.0.set_message(progress.message.clone());
    }
}

/// Hands on about one report a second, and every new step.
pub struct Throttled<F: Fn(Progress) + Send + Sync> {
    to: F,
    last: Mutex<Option<(Instant, String)>>,
}

impl<F: Fn(Progress) + Send + Sync> Throttled<F> {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Hands on to `to`, which must not block for long.
    pub fn new(to: F) -> Self {
        Self { to, last: Mutex::new(None) }
    }
}

impl<F: Fn(Progress) + Send + Sync> Observer for Throttled<F> {
    fn at(&self, progress: &Progress) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        if last.as_ref().is_some_and(|(at, step)| *step == progress.step && now - *at < Self::INTERVAL) {
            return;
        }
        *last = Some((now, progress.step.clone()));
        drop(last);
        (self.to)(progress.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_step_is_always_told_and_the_rest_rarely() {
        let told = Mutex::new(Vec::new());
        let observer = Throttled::new(|progress: Progress| told.lock().unwrap().push(progress.step));
        for step in ["Load", "Load", "Load", "Measure", "Measure"] {
            observer.at(&Progress { step: step.into(), message: String::new(), done: 0, total: 0 });
        }
        assert_eq!(*told.lock().unwrap(), ["Load", "Measure"]);
    }
}
