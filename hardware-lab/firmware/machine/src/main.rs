//! The firmware: waits for frames (PROTOCOL.md), loads a model into memory, runs it on request and answers with outputs and
//! with the instructions that each operator took.
#![no_std]
#![no_main]

mod boot;
mod board;
#[cfg_attr(not(feature = "semihosting"), path = "no_host.rs")]
mod semihosting;
mod uart;
mod link;
mod memory;
mod session;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

/// The operator that is running, for fault reports; `NO_OP` outside of inference.
static RUNNING: AtomicU32 = AtomicU32::new(NO_OP);
const NO_OP: u32 = u32::MAX;

fn running() -> u32 {
    RUNNING.load(Ordering::Relaxed)
}

/// Called by [`boot`] once memory is set up.
fn main() -> ! {
    board::prepare();
    memory::paint_stack();
    let code = session::serve();
    semihosting::exit(code)
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    semihosting::say("panic: ");
    if let Some(text) = info.message().as_str() {
        semihosting::say(text);
    }
    session::report_panic();
    semihosting::exit(3)
}
