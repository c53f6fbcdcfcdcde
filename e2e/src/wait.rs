//! Waiting for conditions, never for time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::Cluster;

/// How long to wait between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

/// Looks until there is something; an error of a look is only kept for the message.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut last = None;
    loop {
        match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = Some(error),
        }
        if start.elapsed() > limit {
            let message = format!("waited {} s for: {what}", limit.as_secs());
            return Err(last.map_or_else(|| anyhow::anyhow!("{message}"), |error| error.context(message.clone())));
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// How a work object ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The whole object.
    pub object: Value,
    /// Whether it is `Complete`, else it is `Failed`.
    pub complete: bool,
    /// The reason of that condition.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// A condition of an object, if it has it with this status.
pub fn condition<'a>(object: &'a Value, type_: &str, status: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == type_ && c["status"] == status)
}

impl Cluster {
    /// Waits until a work object is `Complete` or `Failed`.
    pub fn ended(&self, kind: &str, namespace: &str, name: &str, limit: Duration) -> Result<Outcome> {
        wait_for(&format!("{kind} {namespace}/{name} to end"), limit, || {
            let object = self.get(kind, namespace, name)?.with_context(|| format!("{kind} {name} is gone"))?;
            let found = ["Complete", "Failed"]
                .iter()
                .find_map(|type_| condition(&object, type_, "True").map(|c| (*type_ == "Complete", c.clone())));
            Ok(found.map(|(complete, condition)| Outcome {
                complete,
                reason: condition["reason"].as_str().unwrap_or_default().to_owned(),
                message: condition["message"].as_str().unwrap_or_default().to_owned(),
                object,
            }))
        })
    }

    /// Waits until a work object is `Complete`; its failure is an error.
    pub fn completed(&self, kind: &str, namespace: &str, name: &str, limit: Duration) -> Result<Value> {
        let outcome = self.ended(kind, namespace, name, limit)?;
        if !outcome.complete {
            bail!("{kind} {namespace}/{name} failed: {}: {}", outcome.reason, outcome.message);
        }
        Ok(outcome.object)
    }

    /// Waits until a condition has a status and a reason (any reason if empty) and gives its message.
    pub fn has_condition(
        &self,
        (kind, namespace, name): (&str, &str, &str),
        (type_, status, reason): (&str, &str, &str),
        limit: Duration,
    ) -> Result<String> {
        let what = format!("{kind} {namespace}/{name} to have {type_}={status} {reason}");
        wait_for(&what, limit, || {
            let object = self.get(kind, namespace, name)?.with_context(|| format!("{kind} {name} is gone"))?;
            Ok(condition(&object, type_, status)
                .filter(|c| reason.is_empty() || c["reason"] == reason)
                .map(|c| c["message"].as_str().unwrap_or_default().to_owned()))
        })
    }
}
