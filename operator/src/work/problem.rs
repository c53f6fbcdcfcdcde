//! What an error means to the user: a reason and a message for a condition, or nothing if it passes by itself.

use edgeyard_artifact::{ClientError, ErrorClass};
use edgeyard_plan::{Refusal, reason};

use crate::frame::Error;

/// A request was refused by the API server for its content.
const NOT_ADMITTED: &str = "NotAdmitted";

/// What to write into the conditions about an error; `None` if there is nothing that the user could do or know.
pub fn explain(error: &Error) -> Option<Refusal> {
    match error {
        Error::Store { source, .. } => Some(store(source)),
        Error::Api { action, .. } => error.refusal().map(|said| {
            if said.contains("exceeded quota") {
                Refusal::new(
                    reason::QUOTA_EXCEEDED,
                    format!(
                        "cannot {action}: {said}: delete what is not needed, or raise the namespace's ResourceQuota"
                    ),
                )
            } else {
                Refusal::new(NOT_ADMITTED, format!("cannot {action}: {said}"))
            }
        }),
        _ => None,
    }
}

/// What to say about a store that failed.
pub fn store(source: &ClientError) -> Refusal {
    match source.class() {
        ErrorClass::Quota => Refusal::new(
            reason::QUOTA_EXCEEDED,
            format!("{source}: delete objects whose results are not needed, or ask for a larger quota of the store"),
        ),
        ErrorClass::Infrastructure => {
            let what = match source {
                ClientError::Unreachable { url, .. } => format!("the store at {url} gives no answer"),
                ClientError::Unavailable { url, status, message, .. } => {
                    format!("the store at {url} is not well: {status}: {message}")
                }
                other => other.to_string(),
            };
            let advice = "it is tried again by itself; if it lasts, look at the pod of edgeyard-store";
            Refusal::new(reason::STORE_UNAVAILABLE, format!("{what}: {advice}"))
        }
        ErrorClass::BadInput | ErrorClass::Superseded => Refusal::new("StoreRefused", source.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, message: &str) -> Error {
        let status = kube::core::Status::failure(message, "Forbidden").with_code(code);
        Error::api("create Job vision/j", kube::Error::Api(status.boxed()))
    }

    #[test]
    fn a_quota_and_an_admission_rule_are_told_apart() {
        let quota = explain(&refused(403, "jobs.batch \"j\" is forbidden: exceeded quota: q")).unwrap();
        assert_eq!(quota.reason, reason::QUOTA_EXCEEDED);
        assert!(quota.message.contains("create Job vision/j") && quota.message.contains("raise"), "{quota}");
        assert_eq!(explain(&refused(403, "violates PodSecurity")).unwrap().reason, NOT_ADMITTED);
        assert_eq!(explain(&refused(500, "etcd")), None, "it passes by itself");
    }

    #[test]
    fn a_full_store_and_a_store_that_is_away_are_told_apart() {
        let answer = |status, reason: &str| ClientError::Refused {
            action: "store x".into(),
            status,
            reason: reason.into(),
            message: "m".into(),
        };
        assert_eq!(store(&answer(507, "QuotaExceeded")).reason, reason::QUOTA_EXCEEDED);
        let away = ClientError::Unavailable {
            action: "read x".into(),
            url: "https://store".into(),
            waited: std::time::Duration::from_secs(5),
            status: 503,
            message: "starting".into(),
        };
        let told = store(&away);
        assert_eq!(told.reason, reason::STORE_UNAVAILABLE);
        assert!(told.message.contains("https://store") && told.message.contains("by itself"), "{told}");
    }
}
