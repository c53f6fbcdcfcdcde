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
        ErrorClass::Infrastructure => Refusal::new(
            reason::STORE_UNAVAILABLE,
            format!("{source}: it is tried again by itself; look at the pod of edgeyard-store"),
        ),
        ErrorClass::BadInput | ErrorClass::Superseded => Refusal::new("StoreRefused", source.to_string()),
    }
}
