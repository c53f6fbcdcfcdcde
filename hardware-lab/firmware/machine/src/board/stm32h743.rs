//! ST STM32H743 as on the NUCLEO-H743ZI2: Cortex-M7 on its internal oscillator of 64 MHz with both caches, USART3 on PD8 and PD9,
//! which is the serial port of the board's ST-LINK. It builds; it was never run on the board.

use super::cycles;
pub use super::cycles::{UNIT, elapsed, instructions, start};
use core::arch::asm;

const RCC_AHB4ENR: *mut u32 = 0x5802_44E0 as *mut u32;
const RCC_APB1LENR: *mut u32 = 0x5802_44E8 as *mut u32;

const PORT_D_MODE: *mut u32 = 0x5802_0C00 as *mut u32;
const PORT_D_FUNCTION_HIGH: *mut u32 = 0x5802_0C24 as *mut u32;

const USART: *mut u32 = 0x4000_4800 as *mut u32;
const CR1: usize = 0;
const BRR: usize = 3;
const ISR: usize = 7;
const ICR: usize = 8;
const RDR: usize = 9;
const TDR: usize = 10;

/// Hertz of the internal oscillator, which after reset drives core, buses and USART undivided.
const CLOCK: u32 = 64_000_000;

/// As in machines.toml.
pub const NAME: &str = "stm32h743";

/// Turns the caches on, and sets up the serial port, 115200 baud 8N1, and the counter.
pub fn prepare() {
    // SAFETY: registers of the clock control, of port D and of USART 3, in the order of the reference manual.
    unsafe {
        enable_caches();
        RCC_AHB4ENR.write_volatile(RCC_AHB4ENR.read_volatile() | 1 << 3);
        RCC_APB1LENR.write_volatile(RCC_APB1LENR.read_volatile() | 1 << 18);
        // A clock takes effect two cycles after its bit is set: reading it back waits for that.
        let _ = (RCC_AHB4ENR.read_volatile(), RCC_APB1LENR.read_volatile());
        PORT_D_FUNCTION_HIGH.write_volatile(PORT_D_FUNCTION_HIGH.read_volatile() & !0xFF | 0x77);
        PORT_D_MODE.write_volatile(PORT_D_MODE.read_volatile() & !(0xF << 16) | 0xA << 16);
        USART.add(CR1).write_volatile(0);
        USART.add(BRR).write_volatile((CLOCK + 57_600) / 115_200);
        // Receiver, transmitter, and the FIFOs of sixteen bytes.
        USART.add(CR1).write_volatile(1 << 29 | 1 << 3 | 1 << 2 | 1);
    }
    cycles::prepare();
}

/// Waits for a byte.
pub fn uart_read() -> u8 {
    // SAFETY: registers of USART 3.
    unsafe {
        loop {
            let state = USART.add(ISR).read_volatile();
            // What an overrun lost, the frame's checksum shows.
            if state & 1 << 3 != 0 {
                USART.add(ICR).write_volatile(1 << 3);
            }
            if state & 1 << 5 != 0 {
                return USART.add(RDR).read_volatile() as u8;
            }
        }
    }
}

/// Waits until a byte can be sent.
pub fn uart_write(byte: u8) {
    // SAFETY: registers of USART 3.
    unsafe {
        while USART.add(ISR).read_volatile() & 1 << 7 == 0 {}
        USART.add(TDR).write_volatile(u32::from(byte));
    }
}

/// Without the caches weights would come over the bus one by one.
///
/// # Safety
/// Once, with both caches off, as after a reset.
unsafe fn enable_caches() {
    const CCR: *mut u32 = 0xE000_ED14 as *mut u32;
    const CCSIDR: *const u32 = 0xE000_ED80 as *const u32;
    const CSSELR: *mut u32 = 0xE000_ED84 as *mut u32;
    const ICIALLU: *mut u32 = 0xE000_EF50 as *mut u32;
    const DCISW: *mut u32 = 0xE000_EF60 as *mut u32;
    // SAFETY: the sequence of the core's manual: invalidate, then enable, with barriers between.
    unsafe {
        ICIALLU.write_volatile(0);
        asm!("dsb", "isb");
        CCR.write_volatile(CCR.read_volatile() | 1 << 17);
        asm!("dsb", "isb");
        CSSELR.write_volatile(0);
        asm!("dsb");
        // Both are told less one; lines have 32 bytes, and the way's number is in the top two bits.
        let size = CCSIDR.read_volatile();
        let (sets, ways) = (size >> 13 & 0x7FFF, size >> 3 & 0x3FF);
        for set in 0..=sets {
            for way in 0..=ways.min(3) {
                DCISW.write_volatile(way << 30 | set << 5);
            }
        }
        asm!("dsb");
        CCR.write_volatile(CCR.read_volatile() | 1 << 16);
        asm!("dsb", "isb");
    }
}
