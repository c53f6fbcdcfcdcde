//! What a reconciler can fail with, sorted by when it is worth trying again.

use std::time::Duration;

use edgeyard_artifact::{ClientError, ErrorClass};

/// Why a reconciliation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("cannot {action}")]
    Api {
        /// What was to be done, with the object's name.
        action: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("no answer within {} s to: {action}", after.as_secs())]
    Timeout {
        /// What was to be done.
        action: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The object was changed by somebody else since it was read.
    #[error("outdated: {action}")]
    Conflict {
        /// What was to be done.
        action: String,
    },
    /// The store failed.
    #[error("the store failed: {action}")]
    Store {
        /// What was to be done.
        action: String,
        /// The client's error.
        #[source]
        source: Box<ClientError>,
    },
    /// The object cannot be worked on until somebody edits it. Its status should say so already.
    #[error("{reason}: {message}")]
    Invalid {
        /// A reason of [`names::reason`](super::names::reason).
        reason: &'static str,
        /// Which field, and what would be right.
        message: String,
    },
    /// A thing that is always there is missing: a bug, or an object made by hand.
    #[error("{0}")]
    Unexpected(String),
}

/// When to reconcile again after an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// At once, as far as the watch has caught up: the object was outdated.
    Soon,
    /// After a pause that doubles with each failure in a row.
    Backoff,
    /// When the object changes.
    AwaitChange,
}

impl Error {
    /// When to try again.
    pub fn requeue(&self) -> Requeue {
        match self {
            Self::Conflict { .. } => Requeue::Soon,
            Self::Invalid { .. } => Requeue::AwaitChange,
            Self::Api { .. } | Self::Timeout { .. } | Self::Store { .. } | Self::Unexpected(_) => Requeue::Backoff,
        }
    }

    /// One word for metrics; a closed set.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Api { source, .. } if is_status(source, 403) => "forbidden",
            Self::Api { .. } => "api_error",
            Self::Timeout { .. } => "timeout",
            Self::Conflict { .. } => "conflict",
            Self::Store { .. } => "store_error",
            Self::Invalid { .. } => "invalid",
            Self::Unexpected(_) => "unexpected",
        }
    }

    /// Sorts an error of kube's.
    pub fn api(action: impl Into<String>, source: kube::Error) -> Self {
        let action = action.into();
        // 409 with another reason (AlreadyExists) cannot come from an apply, and means the same to a create: look again.
        if is_status(&source, 409) { Self::Conflict { action } } else { Self::Api { action, source: Box::new(source) } }
    }

    /// Wraps an error of the store's client.
    pub fn store(action: impl Into<String>, source: ClientError) -> Self {
        Self::Store { action: action.into(), source: Box::new(source) }
    }

    /// Whether the API server said that the object, its namespace or its kind does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } if is_status(source, 404))
    }

    /// Whether the request was refused for its content, so that the same request fails again: a full quota, an
    /// admission webhook, a Pod Security rule, an invalid object. The text is the API server's.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => Some(status.message.clone()),
                _ => None,
            },
            Self::Store { source, .. } => match source.class() {
                ErrorClass::BadInput | ErrorClass::Quota => Some(source.to_string()),
                ErrorClass::Superseded | ErrorClass::Infrastructure => None,
            },
            _ => None,
        }
    }

    /// The error and its sources in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its sources in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        // Some libraries repeat their source in their own text.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
