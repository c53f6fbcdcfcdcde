//! Arm MPS3 with the AN547 image (Corstone SSE-300), as QEMU emulates it; secure aliases of everything.
//!
//! The system counter ticks at 32 MHz. Under `-icount shift=6` an instruction takes 64 ns, that is 2.048 ticks: a difference of
//! two readings is off by less than one tick, which is less than half an instruction, so that rounding gives the count exactly.

/// Control frame of the system counter.
const COUNTER: *mut u32 = 0x5810_0000 as *mut u32;
/// A system timer: its first two words are the counter's value.
const TIMER: *mut u32 = 0x5800_0000 as *mut u32;
const COMPARE_LOW: usize = 8;
const COMPARE_HIGH: usize = 9;
const TIMER_CTRL: usize = 11;

const UART: *mut u32 = 0x5930_3000 as *mut u32;
const DATA: usize = 0;
const STATE: usize = 1;
const UART_CTRL: usize = 2;
const DIVIDER: usize = 4;

/// As in machines.toml.
pub const NAME: &str = "mps3-an547";

static mut STARTED: u32 = 0;

/// What the counts stand for: instructions.
pub const UNIT: u32 = 0;

/// Instructions that a number of ticks stands for, exactly.
pub fn instructions(ticks: u32) -> u32 {
    ((u64::from(ticks) * 125 + 128) / 256) as u32
}

/// Starts the counter and sets up the serial port.
pub fn prepare() {
    // SAFETY: registers of the system counter and of UART 0.
    unsafe {
        COUNTER.write_volatile(1);
        UART.add(DIVIDER).write_volatile(16);
        UART.add(UART_CTRL).write_volatile(3);
    }
    // QEMU may have decided before this that nobody listens, and sleep; a timer that runs out makes it look again.
    // SAFETY: registers of timer 0; its interrupt stays masked. Bit 2 of the control register says that it ran out.
    unsafe {
        TIMER.add(COMPARE_HIGH).write_volatile(0);
        TIMER.add(COMPARE_LOW).write_volatile(TIMER.read_volatile() + 1000);
        TIMER.add(TIMER_CTRL).write_volatile(3);
        while TIMER.add(TIMER_CTRL).read_volatile() & 4 == 0 {}
        TIMER.add(TIMER_CTRL).write_volatile(0);
    }
}

/// Takes note of the counter.
#[inline(always)]
pub fn start() {
    // SAFETY: a register of the timer; the static is used by one thread of execution.
    unsafe { STARTED = TIMER.read_volatile() };
}

/// Ticks since [`start`]. The counter's upper half is left out: no operator runs for two minutes of the guest's time.
#[inline(always)]
pub fn elapsed() -> Option<u32> {
    // SAFETY: as above.
    Some(unsafe { TIMER.read_volatile().wrapping_sub(STARTED) })
}

/// Waits for a byte.
pub fn uart_read() -> u8 {
    // SAFETY: registers of the board's UART 0.
    unsafe {
        while UART.add(STATE).read_volatile() & 2 == 0 {}
        UART.add(DATA).read_volatile() as u8
    }
}

/// Waits until a byte can be sent.
pub fn uart_write(byte: u8) {
    // SAFETY: registers of the board's UART 0.
    unsafe {
        while UART.add(STATE).read_volatile() & 1 != 0 {}
        UART.add(DATA).write_volatile(u32::from(byte));
    }
}
