//! A progress bar on standard error, when that is a terminal.

use std::sync::{Mutex, PoisonError};

use edgeyard_job::Progress;
use edgeyard_optimizer::optimize::Watcher;
use indicatif::{ProgressBar, ProgressStyle};

/// One bar at a time: each step has its own.
#[derive(Default)]
pub struct Bar {
    current: Mutex<Option<(String, ProgressBar)>>,
}

impl Watcher for Bar {
    fn progress(&self, progress: &Progress) {
        let Progress { step, message, done, total } = progress;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(shown, _)| shown != step) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            let bar = ProgressBar::new(*total);
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(message.clone());
            *current = Some((step.clone(), bar));
        }
        if let Some((_, bar)) = &*current {
            bar.set_position(*done);
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

impl Bar {
    /// Removes the bar.
    pub fn finish(&self) {
        if let Some((_, bar)) = self.current.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}
