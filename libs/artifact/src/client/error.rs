//! What a call to the store can fail with, sorted by what the caller should do about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::Digest;

/// Who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request itself is wrong: a digest that is not stored, no right to it, a file that cannot be read. The same
    /// call fails again.
    BadInput,
    /// The namespace's quota is used up: someone must delete or raise it.
    Quota,
    /// Another attempt or another lease has taken over; stop.
    Superseded,
    /// The store or the way to it is broken; a later attempt may work.
    Infrastructure,
}

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The store answered 4xx or 507.
    #[error("the store refused to {action}: {reason} ({status}): {message}")]
    Refused {
        /// What was asked.
        action: String,
        /// The HTTP status.
        status: u16,
        /// The answer's `reason`, one CamelCase word.
        reason: String,
        /// The answer's `message`.
        message: String,
    },
    /// No answer within the patience.
    #[error("the store at {url} gave no answer to \"{action}\" for {} s", waited.as_secs())]
    Unreachable {
        /// What was asked.
        action: String,
        /// The store's URL.
        url: String,
        /// For how long it was tried.
        waited: Duration,
        /// The last failure.
        #[source]
        source: reqwest::Error,
    },
    /// 5xx or 429 for all of the patience.
    #[error("the store at {url} could not {action} for {} s: {status}: {message}", waited.as_secs())]
    Unavailable {
        /// What was asked.
        action: String,
        /// The store's URL.
        url: String,
        /// For how long it was tried.
        waited: Duration,
        /// The last HTTP status.
        status: u16,
        /// The last message.
        message: String,
    },
    /// The store's certificate is not one of the authority given.
    #[error("the certificate of the store at {url} is not trusted: check the certificate authority given for it")]
    Untrusted {
        /// The store's URL.
        url: String,
        /// What the TLS library says.
        #[source]
        source: reqwest::Error,
    },
    /// What came is not what the digest names.
    #[error(
        "the store sent bytes with digest {actual} for {expected}: its disk may be damaged, run `edgeyard-store fsck`"
    )]
    Corrupt {
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// An answer that this version cannot read.
    #[error("the store's answer to \"{action}\" cannot be read")]
    Answer {
        /// What was asked.
        action: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A local file.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The URL, the certificate authority or the token cannot be used.
    #[error("{0}")]
    Configuration(String),
}

impl ClientError {
    /// Who has to act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Refused { reason, .. } if reason == "QuotaExceeded" => ErrorClass::Quota,
            Self::Refused { reason, .. } if reason == "StaleFencingToken" || reason == "AttemptTaken" => {
                ErrorClass::Superseded
            }
            // An expired grant or token: a new attempt gets a new one.
            Self::Refused { status: 401, .. } => ErrorClass::Infrastructure,
            Self::Refused { .. } | Self::File { .. } | Self::Configuration(_) => ErrorClass::BadInput,
            Self::Unreachable { .. }
            | Self::Unavailable { .. }
            | Self::Untrusted { .. }
            | Self::Corrupt { .. }
            | Self::Answer { .. } => ErrorClass::Infrastructure,
        }
    }

    /// The store's `reason`, if it was the store that refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } => Some(reason),
            _ => None,
        }
    }

    /// Whether the thing asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}
