//! Leases: who has which device, and until when.
//!
//! [`core`] decides, on plain data. [`lab`] watches and hands the core its world; [`scheduler`] is the one loop that
//! assigns devices; each kind has its controller. All of them meet in the objects' statuses only, by compare-and-swap.

pub mod core;
pub mod view;
pub mod lab;
pub mod scheduler;
pub mod measure;
pub mod give_back;
pub mod device_lease;
pub mod device;
pub mod device_class;
pub mod queue;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod view_tests;

use std::sync::Arc;

use edgeyard_crds::device::EdgeDevice;
use edgeyard_crds::device_class::EdgeDeviceClass;
use edgeyard_crds::lease::DeviceLease;
use edgeyard_crds::queue::LeaseQueue;

use crate::frame::{Context, Running, run_controller};
use lab::Lab;

/// The scheduler, the watches it lives on, and the controllers of devices, classes, queues and leases.
pub fn controllers(context: &Arc<Context>) -> Vec<Running> {
    let (lab, lease_triggers, device_triggers, mut all) = Lab::watch(context);
    all.push(Box::pin(scheduler::run(Arc::clone(context), Arc::clone(&lab))));

    let sights = Arc::clone(&lab);
    let leases = run_controller::<DeviceLease, _, _>(
        "DeviceLease",
        context,
        Box::new(|controller| controller.reconcile_on(lease_triggers)),
        move |lease, context| device_lease::reconcile(lease, Arc::clone(&sights), context),
    );
    all.push(lab.when_ready(context, leases));

    let sights = Arc::clone(&lab);
    let devices = run_controller::<EdgeDevice, _, _>(
        "EdgeDevice",
        context,
        Box::new(|controller| controller.reconcile_on(device_triggers)),
        move |device, context| device::reconcile(device, Arc::clone(&sights), context),
    );
    all.push(lab.when_ready(context, devices));

    all.push(run_controller::<EdgeDeviceClass, _, _>(
        "EdgeDeviceClass",
        context,
        Box::new(|controller| controller),
        device_class::reconcile,
    ));
    all.push(run_controller::<LeaseQueue, _, _>(
        "LeaseQueue",
        context,
        Box::new(|controller| controller),
        queue::reconcile,
    ));
    all
}
