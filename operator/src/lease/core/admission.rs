//! Which queue a lease waits in, and whether it may. A refusal is not the end: it lasts as long as its cause does.

use super::{Allowed, Lease, Queue, QueueId, World, selects};
use crate::frame::names::{DEFAULT_QUEUE, reason};

/// Why a lease may not wait in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`reason`].
    pub reason: &'static str,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// The queue that admits a lease.
///
/// # Errors
/// [`Refusal`], for people to act on.
pub fn admit<'w>(world: &'w World, lease: &Lease) -> Result<(&'w QueueId, &'w Queue), Refusal> {
    if let Err(message) = &lease.requests {
        return refuse(reason::INVALID_SPEC, message.clone());
    }
    let (id, queue) = find(world, lease)?;
    let admitted = match &queue.allowed {
        Allowed::Same => lease.namespace == id.namespace,
        Allowed::Selector(selector) => {
            world.namespaces.get(&lease.namespace).is_some_and(|labels| selects(selector, labels))
        }
        Allowed::All => true,
    };
    if !admitted {
        let cure = match &queue.allowed {
            Allowed::Selector(selector) => format!("label the namespace {}", describe(selector)),
            Allowed::Same | Allowed::All => "set allowedNamespaces of the queue".to_owned(),
        };
        return refuse(
            reason::NAMESPACE_NOT_ALLOWED,
            format!(
                "queue {id} does not take leases from namespace {}: {cure}, or name another queue",
                lease.namespace
            ),
        );
    }
    if lease.priority > queue.max_priority {
        return refuse(
            reason::PRIORITY_TOO_HIGH,
            format!("priority {} is above {}, the highest of queue {id}: lower it", lease.priority, queue.max_priority),
        );
    }
    if lease.duration_seconds > queue.max_duration_seconds {
        return refuse(
            reason::DURATION_TOO_LONG,
            format!(
                "durationSeconds {} is above {}, the longest of queue {id}: make a new lease that is shorter",
                lease.duration_seconds, queue.max_duration_seconds
            ),
        );
    }
    Ok((id, queue))
}

/// The queue that a lease waits in, whether it may or not.
///
/// # Errors
/// [`Refusal`] when there is none.
pub fn find<'w>(world: &'w World, lease: &Lease) -> Result<(&'w QueueId, &'w Queue), Refusal> {
    if let Some(named) = &lease.queue_ref {
        return world.queues.get_key_value(named).ok_or_else(|| Refusal {
            reason: reason::QUEUE_NOT_FOUND,
            message: format!("queue {named} does not exist: create it, or name another in queueRef"),
        });
    }
    // Of several, the first by name, so that all operators choose alike.
    world.queues.iter().find(|(_, queue)| queue.is_default).ok_or_else(|| Refusal {
        reason: reason::NO_DEFAULT_QUEUE,
        message: format!("queueRef is not set and no LeaseQueue is annotated {DEFAULT_QUEUE}=true: name a queue"),
    })
}

fn describe(selector: &super::Labels) -> String {
    selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

fn refuse<T>(reason: &'static str, message: String) -> Result<T, Refusal> {
    Err(Refusal { reason, message })
}
