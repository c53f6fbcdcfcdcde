//! What the runner can fail with: a reason for programs, a message for people, and the exit code that says who has to act.

use edgeyard_job::{ExitCode, Termination};
use serde::{Deserialize, Serialize};

/// Why a run, or one variant of it, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// In CamelCase.
    pub reason: String,
    /// What happened and what to do about it.
    pub message: String,
    /// Whether asking again can help.
    pub class: Class,
}

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// The one who asked.
    BadInput,
    /// The one who runs the machine.
    Infrastructure,
    /// Nobody: it was stopped.
    Cancelled,
}

impl Failure {
    /// What was asked for cannot be done.
    pub fn bad_input(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), class: Class::BadInput }
    }

    /// Something around the run failed.
    pub fn infrastructure(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), class: Class::Infrastructure }
    }

    /// Somebody stopped the run.
    pub fn cancelled() -> Self {
        Self { reason: "Cancelled".into(), message: "stopped by a signal".into(), class: Class::Cancelled }
    }

    /// A local file could not be used.
    pub fn file(error: &std::io::Error) -> Self {
        // fs-err names the file and what was tried.
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
                Self::bad_input("FileUnreadable", error.to_string())
            }
            _ => Self::infrastructure("FileUnusable", error.to_string()),
        }
    }

    /// The process' exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self.class {
            Class::BadInput => ExitCode::BadInput,
            Class::Infrastructure => ExitCode::Infrastructure,
            Class::Cancelled => ExitCode::Cancelled,
        }
    }

    /// The last words of a pod.
    pub fn termination(&self) -> Termination {
        Termination { reason: self.reason.clone(), message: self.message.clone(), result_digest: None }
    }

    /// The same failure, saying what it is about.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::file(&error)
    }
}
