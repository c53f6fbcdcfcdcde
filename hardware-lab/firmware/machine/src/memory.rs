//! The machine's memory as the linker laid it out, and how much of the stack was ever used.

use core::ops::Range;

unsafe extern "C" {
    static mut _stack_start: u32;
    static mut _stack_end: u32;
    static mut _data_start: u32;
    static mut _data_end: u32;
    static _data_image: u32;
    static mut _bss_start: u32;
    static mut _bss_end: u32;
    static mut _arena_start: u8;
    static mut _arena_end: u8;
    static mut _model_start: u8;
    static mut _model_end: u8;
    static _code_bytes: u8;
}

/// What unused stack is filled with.
const PAINT: u32 = 0xA5C3_5A3C;

/// Copies the initial values of statics and clears the others.
///
/// # Safety
/// Only at reset, before anything lives there.
pub unsafe fn initialise() {
    // SAFETY: the linker's symbols delimit memory of this program; see above for the rest.
    unsafe {
        let (mut to, end) = (&raw mut _data_start, &raw mut _data_end);
        let mut from = &raw const _data_image;
        while to < end {
            to.write_volatile(from.read_volatile());
            (to, from) = (to.add(1), from.add(1));
        }
        let (mut to, end) = (&raw mut _bss_start, &raw mut _bss_end);
        while to < end {
            to.write_volatile(0);
            to = to.add(1);
        }
    }
}

/// Addresses of the stack.
pub fn stack() -> Range<usize> {
    (&raw const _stack_start) as usize..(&raw const _stack_end) as usize
}

/// Fills the unused part of the stack, so that [`stack_used`] can tell later how deep it went.
pub fn paint_stack() {
    let here = 0u32;
    // A margin below this frame, for the calls that this loop might make.
    let end = (&raw const here as usize) - 256;
    let mut at = stack().start;
    while at < end {
        // SAFETY: below the live part of the stack.
        unsafe { (at as *mut u32).write_volatile(PAINT) };
        at += 4;
    }
}

/// The most bytes of stack ever in use.
pub fn stack_used() -> u32 {
    let range = stack();
    let mut at = range.start;
    // SAFETY: reads the stack's own memory.
    while at < range.end && unsafe { (at as *const u32).read_volatile() } == PAINT {
        at += 4;
    }
    (range.end - at) as u32
}

/// Bytes of code, constants and initial values.
pub fn code_bytes() -> u32 {
    (&raw const _code_bytes) as u32
}

/// Bytes of statics.
pub fn static_bytes() -> u32 {
    ((&raw const _bss_end) as usize - (&raw const _data_start) as usize) as u32
}

/// Memory for a model's file.
///
/// # Safety
/// At most one slice may be alive.
pub unsafe fn model() -> &'static mut [u8] {
    // SAFETY: the linker reserved the region; the caller promises the rest.
    unsafe { region(&raw mut _model_start, &raw mut _model_end) }
}

/// Memory for everything that the engine writes.
///
/// # Safety
/// At most one slice may be alive.
pub unsafe fn arena() -> &'static mut [u8] {
    // SAFETY: as above.
    unsafe { region(&raw mut _arena_start, &raw mut _arena_end) }
}

unsafe fn region(start: *mut u8, end: *mut u8) -> &'static mut [u8] {
    // SAFETY: the caller names the bounds of a reserved region that nobody else uses.
    unsafe { core::slice::from_raw_parts_mut(start, end as usize - start as usize) }
}
