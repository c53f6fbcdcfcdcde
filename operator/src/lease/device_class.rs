//! EdgeDeviceClass: checks what CEL cannot, and says so.

use std::sync::Arc;
use std::time::Duration;

use edgeyard_crds::benchmark_status::Fidelity;
use edgeyard_crds::device_class::{Backend, BackendType, EdgeDeviceClass, EdgeDeviceClassSpec, EdgeDeviceClassStatus};
use edgeyard_plan::{quantity, targets};
use kube::runtime::controller::Action;

use crate::frame::names::reason;
use crate::frame::{Conditions, Context, Error, write};

const SLOWLY: Duration = Duration::from_secs(3600);
/// Machines for which there is firmware.
const MACHINES: [&str; 4] = ["mps2-an385", "mps2-an386", "mps2-an500", "mps3-an547"];
/// The only runtime on a Cortex-M.
const ON_CORTEX_M: &str = "tflm";

/// What is wrong with a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// One of [`reason`].
    pub reason: &'static str,
    /// Which field, and what would be right.
    pub message: String,
}

/// Rewrites the status.
///
/// # Errors
/// [`Error`].
pub async fn reconcile(class: Arc<EdgeDeviceClass>, context: Arc<Context>) -> Result<Action, Error> {
    let old = class.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut conditions = Conditions::from_old(old, class.metadata.generation, context.now());
    match complaint(&class.spec) {
        None => conditions.ready(reason::ACCEPTED, "devices of this class can be leased"),
        Some(Complaint { reason, message }) => conditions.stalled(reason, message),
    };
    let status = EdgeDeviceClassStatus {
        observed_generation: class.metadata.generation.unwrap_or(-1),
        conditions: conditions.into_list(),
    };
    write::update_status(&context.client, &*class, &status).await?;
    Ok(Action::requeue(SLOWLY))
}

/// What is wrong with a class, if anything is.
pub fn complaint(spec: &EdgeDeviceClassSpec) -> Option<Complaint> {
    for target in &spec.targets {
        if let Err(refusal) = targets::find(&target.0) {
            return Some(Complaint {
                reason: reason::UNKNOWN_TARGET,
                message: format!("targets: {}", refusal.message),
            });
        }
    }
    let problem = backend(&spec.backend, spec).or_else(|| limits(spec));
    problem.map(|message| Complaint { reason: reason::INVALID_SPEC, message })
}

fn backend(backend: &Backend, spec: &EdgeDeviceClassSpec) -> Option<String> {
    let runs = |target: &str| spec.targets.iter().any(|t| t.0 == target);
    match (backend.type_, &backend.cortex_m) {
        (BackendType::CortexM, None) => Some("backend.cortexM: is required with type CortexM".to_owned()),
        (BackendType::Runtime, Some(_)) => Some("backend.cortexM: is for type CortexM only: remove it".to_owned()),
        (BackendType::CortexM, Some(cortex_m)) => {
            if let Some(port) = &cortex_m.serial_port {
                if spec.fidelity != Fidelity::Hardware {
                    return Some(
                        "backend.cortexM.serialPort: reaches a real board: set fidelity to Hardware".to_owned(),
                    );
                }
                if !spec.runner.device_nodes.contains(port) {
                    return Some(format!(
                        "runner.deviceNodes: must name {port}, which backend.cortexM.serialPort opens"
                    ));
                }
            } else if !MACHINES.contains(&cortex_m.machine.0.as_str()) {
                return Some(format!(
                    "backend.cortexM.machine: there is no firmware for {}: use one of {}",
                    cortex_m.machine,
                    MACHINES.join(", ")
                ));
            }
            let other = spec.targets.iter().find(|target| target.0 != ON_CORTEX_M)?;
            Some(format!("targets: {other} does not run on a Cortex-M: use {ON_CORTEX_M}"))
        }
        (BackendType::Runtime, None) if runs(ON_CORTEX_M) => {
            Some(format!("targets: {ON_CORTEX_M} runs on microcontrollers: set backend.type to CortexM"))
        }
        (BackendType::Runtime, None) => None,
    }
}

fn limits(spec: &EdgeDeviceClassSpec) -> Option<String> {
    let limits = spec.limits.as_ref()?;
    let named = [("flash", &limits.flash), ("memory", &limits.memory), ("arena", &limits.arena)];
    let bad = named.into_iter().find_map(|(name, limit)| {
        let limit = limit.as_ref()?;
        (quantity::units(limit).unwrap_or(0) == 0).then(|| (name, limit.0.clone()))
    });
    if let Some((name, value)) = bad {
        return Some(format!("limits.{name}: {value} is no size: write bytes above zero, such as 256Ki"));
    }
    let bytes = |limit: &Option<_>| limit.as_ref().and_then(quantity::units);
    match (bytes(&limits.arena), bytes(&limits.memory)) {
        (Some(arena), Some(memory)) if arena > memory => {
            Some("limits.arena: is larger than limits.memory, of which it is a part".to_owned())
        }
        _ => None,
    }
}
