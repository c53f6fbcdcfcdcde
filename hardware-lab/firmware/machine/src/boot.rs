//! From reset to `main`: vector table, memory, FPU; and what happens on a fault.

use crate::{memory, semihosting, session};
#[cfg(target_abi = "eabihf")]
use core::arch::asm;
use core::arch::naked_asm;

type Vector = unsafe extern "C" fn() -> !;

unsafe extern "C" {
    static _stack_end: u32;
}

/// The table that the core reads at reset, after the initial stack pointer.
#[repr(C)]
struct Vectors {
    stack: *const u32,
    handlers: [Vector; 15],
}

// SAFETY: the table is constant; the pointer in it is only an address.
unsafe impl Sync for Vectors {}

#[used]
#[unsafe(link_section = ".vectors")]
static VECTORS: Vectors = Vectors {
    stack: &raw const _stack_end,
    handlers: [reset, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault, fault],
};

#[unsafe(no_mangle)]
unsafe extern "C" fn reset() -> ! {
    // SAFETY: runs first and once, before any Rust value lives in the memory that it fills.
    unsafe {
        memory::initialise();
        #[cfg(not(feature = "semihosting"))]
        take_over();
        #[cfg(target_abi = "eabihf")]
        enable_fpu();
    }
    crate::main()
}

/// Full access to coprocessors 10 and 11, which are the FPU and MVE.
#[cfg(target_abi = "eabihf")]
unsafe fn enable_fpu() {
    const CPACR: *mut u32 = 0xE000_ED88 as *mut u32;
    // SAFETY: the register exists on every core with an FPU.
    unsafe {
        CPACR.write_volatile(CPACR.read_volatile() | 0xF << 20);
        asm!("dsb", "isb");
    }
}

/// On boards a bootloader ran before: its interrupts are stopped, and ours is the table of vectors.
#[cfg(not(feature = "semihosting"))]
unsafe fn take_over() {
    const VTOR: *mut *const Vectors = 0xE000_ED08 as *mut *const Vectors;
    // SAFETY: the table is aligned (it starts the flash) and lives forever.
    unsafe {
        core::arch::asm!("cpsid i");
        VTOR.write_volatile(&raw const VECTORS);
        core::arch::asm!("dsb", "isb");
    }
}

/// Every exception is one that must not happen. Moves to a fresh stack: the old one may be what faulted.
#[unsafe(naked)]
unsafe extern "C" fn fault() -> ! {
    naked_asm!(
        "mrs r0, msp",
        "mov r1, lr",
        "ldr r2, ={top}",
        "msr msp, r2",
        "b {report}",
        top = sym _stack_end,
        report = sym report,
    )
}

/// Reads what the core says about the fault, and tells the host.
unsafe extern "C" fn report(frame: *const u32, _return: u32) -> ! {
    const CFSR: *const u32 = 0xE000_ED28 as *const u32;
    let mut words = [0u32; 12];
    // SAFETY: the fault registers exist on every ARMv7-M and ARMv8-M core.
    unsafe {
        words[8] = CFSR.read_volatile();
        words[9] = CFSR.add(1).read_volatile();
        words[10] = CFSR.add(3).read_volatile();
        words[11] = CFSR.add(4).read_volatile();
    }
    // A frame outside the stack was never written: the fault was in pushing it.
    if memory::stack().contains(&(frame as usize)) {
        for (i, word) in words.iter_mut().enumerate().take(8) {
            // SAFETY: the core pushed eight words here.
            *word = unsafe { frame.add(i).read_volatile() };
        }
    }
    session::report_fault(&words);
    semihosting::exit(2)
}
