//! Arm MPS2 with the AN385, AN386 and AN500 images, as QEMU emulates them.
//!
//! The CMSDK timer ticks at 25 MHz. Under `-icount shift=6` an instruction takes 64 ns, that is 1.6 ticks: each count of
//! instructions since the timer's start gives another tick count, so that the instructions are exact, not rounded.

const TIMER: *mut u32 = 0x4000_0000 as *mut u32;
const CTRL: usize = 0;
const VALUE: usize = 1;
const RELOAD: usize = 2;
const INTERRUPT: usize = 3;

const UART: *mut u32 = 0x4000_4000 as *mut u32;
const DATA: usize = 0;
const STATE: usize = 1;
const UART_CTRL: usize = 2;
const DIVIDER: usize = 4;

/// As in machines.toml.
pub const NAME: &str = if cfg!(feature = "mps2-an385") {
    "mps2-an385"
} else if cfg!(feature = "mps2-an386") {
    "mps2-an386"
} else {
    "mps2-an500"
};

/// What the counts stand for: instructions.
pub const UNIT: u32 = 0;

/// Instructions that a number of ticks stands for, exactly.
pub fn instructions(ticks: u32) -> u32 {
    (u64::from(ticks) * 5).div_ceil(8) as u32
}

/// Sets up the serial port.
pub fn prepare() {
    // SAFETY: registers of the board's UART 0.
    unsafe {
        UART.add(DIVIDER).write_volatile(16);
        UART.add(UART_CTRL).write_volatile(3);
    }
    // QEMU may have decided before this that nobody listens, and sleep; a timer that runs out makes it look again.
    start();
    // SAFETY: registers of the board's timer 0.
    unsafe {
        TIMER.add(VALUE).write_volatile(250);
        while TIMER.add(INTERRUPT).read_volatile() == 0 {}
    }
}

/// Starts the counter at zero.
#[inline(always)]
pub fn start() {
    // SAFETY: registers of the board's timer 0.
    unsafe {
        TIMER.add(CTRL).write_volatile(0);
        TIMER.add(RELOAD).write_volatile(u32::MAX);
        TIMER.add(VALUE).write_volatile(u32::MAX);
        TIMER.add(INTERRUPT).write_volatile(1);
        // With its interrupt, which the core never sees, the timer also tells that it ran over.
        TIMER.add(CTRL).write_volatile(9);
    }
}

/// Ticks since [`start`]; none if the counter ran over.
#[inline(always)]
pub fn elapsed() -> Option<u32> {
    // SAFETY: registers of the board's timer 0.
    let (value, wrapped) = unsafe { (TIMER.add(VALUE).read_volatile(), TIMER.add(INTERRUPT).read_volatile()) };
    if wrapped == 0 { Some(u32::MAX - value) } else { None }
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
