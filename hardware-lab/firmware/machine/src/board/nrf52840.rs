//! Nordic nRF52840 as on the Arduino Nano 33 BLE Sense: 64 MHz, serial port on the pins TX (P1.03) and RX (P1.10).
//! It builds; it was never run on the board.
//!
//! UARTE0 is used through its registers of the plain UART, at the same address: they have a FIFO of six bytes, which polling
//! needs, where the DMA interface has none.

use super::cycles;
pub use super::cycles::{UNIT, elapsed, instructions, start};

const CLOCK_START: *mut u32 = 0x4000_0000 as *mut u32;
const CLOCK_STARTED: *mut u32 = 0x4000_0100 as *mut u32;

const PORT1_OUTSET: *mut u32 = 0x5000_0808 as *mut u32;
const PORT1_DIRSET: *mut u32 = 0x5000_0818 as *mut u32;
const TX: u32 = 3;
const RX: u32 = 10;
/// Bit of a pin number that says port 1.
const PORT1: u32 = 1 << 5;

const UART: usize = 0x4000_2000;
const START_RX: usize = 0x000;
const START_TX: usize = 0x008;
const RX_READY: usize = 0x108;
const TX_READY: usize = 0x11C;
const ENABLE: usize = 0x500;
const PIN_TX: usize = 0x50C;
const PIN_RX: usize = 0x514;
const RXD: usize = 0x518;
const TXD: usize = 0x51C;
const BAUD_RATE: usize = 0x524;

/// As in machines.toml.
pub const NAME: &str = "nrf52840";

fn write(register: usize, value: u32) {
    // SAFETY: callers name registers of UART 0.
    unsafe { ((UART + register) as *mut u32).write_volatile(value) };
}

fn read(register: usize) -> u32 {
    // SAFETY: as above.
    unsafe { ((UART + register) as *const u32).read_volatile() }
}

/// Takes the clock from the crystal, whose precision the serial port needs; sets up the port, 115200 baud 8N1, and the counter.
pub fn prepare() {
    // SAFETY: registers of the clock and of port 1.
    unsafe {
        CLOCK_STARTED.write_volatile(0);
        CLOCK_START.write_volatile(1);
        while CLOCK_STARTED.read_volatile() == 0 {}
        PORT1_OUTSET.write_volatile(1 << TX);
        PORT1_DIRSET.write_volatile(1 << TX);
    }
    // A bootloader may have left it on, in its other mode.
    write(ENABLE, 0);
    write(PIN_TX, PORT1 | TX);
    write(PIN_RX, PORT1 | RX);
    write(BAUD_RATE, 0x01D7_E000);
    write(ENABLE, 4);
    write(RX_READY, 0);
    write(START_RX, 1);
    write(START_TX, 1);
    cycles::prepare();
}

/// Waits for a byte.
pub fn uart_read() -> u8 {
    while read(RX_READY) == 0 {}
    // The event first: reading the byte lets the next one raise it again.
    write(RX_READY, 0);
    read(RXD) as u8
}

/// Sends a byte and waits until it is on its way.
pub fn uart_write(byte: u8) {
    write(TX_READY, 0);
    write(TXD, u32::from(byte));
    while read(TX_READY) == 0 {}
}
