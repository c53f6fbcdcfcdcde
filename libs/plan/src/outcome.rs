//! What the end of a pod means: whether to go on, to try again, or to tell the user.

use edgeyard_job::{ExitCode, Termination};

use crate::{Refusal, reason};

/// How a pod's container ended, as the kubelet says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEnd {
    /// The container's exit code; `None` if there is no container status at all.
    pub exit_code: Option<i32>,
    /// The kubelet's reason, such as `OOMKilled`, `Error`, `Completed`.
    pub container_reason: Option<String>,
    /// The pod's own reason, such as `Evicted`, and its message.
    pub pod_reason: Option<String>,
    /// The pod's message.
    pub pod_message: Option<String>,
    /// What the container wrote to its termination log.
    pub log: Option<String>,
}

/// What a job came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was asked; the result is in the store.
    Done {
        /// The result's digest.
        result: Option<String>,
    },
    /// It did what it was asked, and a constraint is not met; the result is in the store.
    ConstraintNotMet {
        /// The result's digest.
        result: Option<String>,
        /// Why.
        why: Refusal,
    },
    /// It cannot be done; trying again will not help.
    Impossible(Refusal),
    /// Something around it failed; trying again may help.
    Infrastructure(Refusal),
    /// Somebody stopped it.
    Stopped(Refusal),
}

impl PodEnd {
    /// What it means. `program` is the job's name for people, such as `the optimizer`.
    pub fn outcome(&self, program: &str) -> Outcome {
        // A child that is killed for memory leaves exit code 0 and this reason.
        if self.container_reason.as_deref() == Some("OOMKilled") {
            return Outcome::Impossible(Refusal::new(
                reason::OUT_OF_MEMORY,
                format!(
                    "{program} needed more memory than its limit: use a smaller model or data set, or raise the limit"
                ),
            ));
        }
        let last_words = self.log.as_deref().and_then(|log| serde_json::from_str::<Termination>(log).ok());
        let Some(code) = self.exit_code else {
            let what = self.pod_reason.as_deref().unwrap_or("without a reason");
            let message = self.pod_message.as_deref().unwrap_or_default();
            return Outcome::Infrastructure(Refusal::new(
                reason::POD_LOST,
                format!("the pod of {program} was ended by the cluster ({what}) {message}").trim_end().to_owned(),
            ));
        };
        let result = last_words.as_ref().and_then(|words| words.result_digest.clone());
        let told = |words: Option<Termination>, otherwise: &str| match words {
            Some(words) => Refusal { reason: word(&words.reason, otherwise), message: words.message },
            None => Refusal::new(
                otherwise,
                match &self.log {
                    Some(log) if !log.is_empty() => {
                        format!("{program} ended with exit code {code}: {}", tail(log))
                    }
                    _ => format!("{program} ended with exit code {code} and no message: look at its log"),
                },
            ),
        };
        match ExitCode::from_code(code) {
            Some(ExitCode::Done) => Outcome::Done { result },
            Some(ExitCode::ConstraintNotMet) => {
                Outcome::ConstraintNotMet { result, why: told(last_words, reason::ACCURACY_DROP_TOO_LARGE) }
            }
            Some(ExitCode::BadInput) => Outcome::Impossible(told(last_words, reason::INVALID_SPEC)),
            Some(ExitCode::Infrastructure) => Outcome::Infrastructure(told(last_words, reason::CRASHED)),
            Some(ExitCode::Cancelled) => Outcome::Stopped(told(last_words, reason::POD_LOST)),
            None => Outcome::Infrastructure(told(last_words, reason::CRASHED)),
        }
    }
}

/// A job's reason becomes a condition's, whose shape the API server checks.
fn word(found: &str, otherwise: &str) -> String {
    let fits = found.len() <= 40
        && found.starts_with(|c: char| c.is_ascii_uppercase())
        && found.chars().all(|c| c.is_ascii_alphanumeric());
    if fits { found } else { otherwise }.to_owned()
}

/// The last 300 characters: a panic's message comes last.
fn tail(log: &str) -> &str {
    let log = log.trim();
    let start = log.char_indices().rev().nth(299).map_or(0, |(at, _)| at);
    &log[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, log: &str) -> Outcome {
        PodEnd { exit_code: Some(code), log: Some(log.into()), ..PodEnd::default() }.outcome("the optimizer")
    }

    #[test]
    fn exit_codes_mean_what_the_job_says() {
        let words = r#"{"reason":"UnsupportedOp","message":"node a","resultDigest":"sha256:1"}"#;
        assert_eq!(ended(0, words), Outcome::Done { result: Some("sha256:1".into()) });
        assert_eq!(ended(2, words), Outcome::Impossible(Refusal::new("UnsupportedOp", "node a")));
        assert_eq!(ended(4, words), Outcome::Infrastructure(Refusal::new("UnsupportedOp", "node a")));
        assert!(matches!(ended(3, words), Outcome::ConstraintNotMet { result: Some(_), .. }));
        assert!(matches!(ended(5, words), Outcome::Stopped(_)));
    }

    #[test]
    fn a_panic_is_retried_and_quoted() {
        let Outcome::Infrastructure(why) = ended(101, "thread main panicked") else { panic!("not retried") };
        assert_eq!((why.reason.as_str(), why.message.contains("panicked")), ("Crashed", true));
    }

    #[test]
    fn a_child_killed_for_memory_is_no_success() {
        let end = PodEnd { exit_code: Some(0), container_reason: Some("OOMKilled".into()), ..PodEnd::default() };
        assert!(matches!(end.outcome("x"), Outcome::Impossible(why) if why.reason == "OutOfMemory"));
    }

    #[test]
    fn an_eviction_is_retried() {
        let end = PodEnd { pod_reason: Some("Evicted".into()), ..PodEnd::default() };
        assert!(matches!(end.outcome("x"), Outcome::Infrastructure(why) if why.message.contains("Evicted")));
    }

    #[test]
    fn a_malformed_reason_cannot_break_the_status() {
        let Outcome::Impossible(why) = ended(2, r#"{"reason":"not camel case","message":"m"}"#) else { panic!() };
        assert_eq!(why.reason, "InvalidSpec");
    }
}
