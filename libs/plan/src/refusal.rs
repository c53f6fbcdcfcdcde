//! Why something that was asked for will not be done.

use edgeyard_crds::validate::Invalid;

use crate::reason;

/// Why something will not be done: a word for programs, and what to do about it for people.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{message}")]
pub struct Refusal {
    /// A condition's reason, one of [`crate::reason`] or what a job said.
    pub reason: String,
    /// What was wrong, in which field, and what would be right.
    pub message: String,
}

impl Refusal {
    /// A refusal for `reason`.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::new(reason::INVALID_SPEC, invalid.to_string())
    }
}
