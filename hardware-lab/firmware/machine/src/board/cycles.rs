//! The cycle counter of boards: CYCCNT of the core's watchpoint unit (DWT). It counts cycles, not instructions, and wraps after
//! 2^32 of them, about a minute: one operator must not take longer.

const DEMCR: *mut u32 = 0xE000_EDFC as *mut u32;
const DWT_CTRL: *mut u32 = 0xE000_1000 as *mut u32;
const DWT_CYCCNT: *mut u32 = 0xE000_1004 as *mut u32;
const DWT_LAR: *mut u32 = 0xE000_1FB0 as *mut u32;

/// What the counts stand for.
pub const UNIT: u32 = 1;

/// Starts the counter for good.
pub fn prepare() {
    // SAFETY: registers of every ARMv7-M core with a DWT. The lock exists on the M7; elsewhere the write has no effect.
    unsafe {
        DEMCR.write_volatile(DEMCR.read_volatile() | 1 << 24);
        DWT_LAR.write_volatile(0xC5AC_CE55);
        DWT_CYCCNT.write_volatile(0);
        DWT_CTRL.write_volatile(DWT_CTRL.read_volatile() | 1);
    }
}

/// Starts at zero.
#[inline(always)]
pub fn start() {
    // SAFETY: as above.
    unsafe { DWT_CYCCNT.write_volatile(0) };
}

/// Cycles since [`start`].
#[inline(always)]
pub fn elapsed() -> Option<u32> {
    // SAFETY: as above.
    Some(unsafe { DWT_CYCCNT.read_volatile() })
}

/// Cycles are told as they are.
pub fn instructions(ticks: u32) -> u32 {
    ticks
}
