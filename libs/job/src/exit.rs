//! How a job ends: its exit code and the message it leaves for whoever looks at the pod.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the kubelet reads a container's last words.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Names another file for the last words.
pub const TERMINATION_LOG_VARIABLE: &str = "EDGEYARD_TERMINATION_LOG";
/// The kubelet cuts longer messages.
pub const TERMINATION_LIMIT: usize = 4096;

/// Exit codes of every job binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// What was asked for is done.
    Done = 0,
    /// What was asked for cannot be done; asking again will not help.
    BadInput = 2,
    /// It was done, and it does not keep to a constraint.
    ConstraintNotMet = 3,
    /// Something around the job failed; asking again may help.
    Infrastructure = 4,
    /// Somebody stopped it.
    Cancelled = 5,
}

impl ExitCode {
    /// The meaning of a process' exit code; `None` for codes that no job binary uses.
    pub fn from_code(code: i32) -> Option<Self> {
        [Self::Done, Self::BadInput, Self::ConstraintNotMet, Self::Infrastructure, Self::Cancelled]
            .into_iter()
            .find(|known| *known as i32 == code)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// A job's last words, as JSON in the termination log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    /// Why it ended, in CamelCase; `Succeeded` if all went well.
    pub reason: String,
    /// What happened and what to do about it, for people.
    pub message: String,
    /// Digest of the report or record in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_digest: Option<String>,
}

impl Termination {
    /// The reason of a job that did what it was asked.
    pub const SUCCEEDED: &'static str = "Succeeded";

    /// The JSON, cut so that the kubelet does not cut it into something unreadable.
    pub fn to_log(&self) -> String {
        let mut shortened = self.clone();
        loop {
            let text = serde_json::to_string(&shortened).expect("strings are JSON");
            let excess = text.len().saturating_sub(TERMINATION_LIMIT);
            if excess == 0 || shortened.message.is_empty() {
                return text;
            }
            // A byte of the message is at most six of the text (\u001f), so this never cuts too much.
            let keep = shortened.message.trim_end_matches('…').len().saturating_sub(excess / 6 + "…".len());
            let keep = (0..=keep).rev().find(|at| shortened.message.is_char_boundary(*at)).unwrap_or(0);
            shortened.message.truncate(keep);
            if keep > 0 {
                shortened.message.push('…');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back() {
        for code in [0, 2, 3, 4, 5] {
            assert_eq!(ExitCode::from_code(code).map(|c| c as i32), Some(code));
        }
        assert_eq!(ExitCode::from_code(1), None);
    }

    #[test]
    fn a_long_message_still_fits_and_parses() {
        let long = Termination { reason: "UnsupportedOp".into(), message: "ä\"".repeat(5000), result_digest: None };
        let text = long.to_log();
        assert!(text.len() <= TERMINATION_LIMIT);
        let read: Termination = serde_json::from_str(&text).unwrap();
        assert_eq!(read.reason, "UnsupportedOp");
        assert!(read.message.ends_with('…') && read.message.len() > 1000);
    }
}
