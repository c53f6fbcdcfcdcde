//! What differs between machines: a name, a counter of instructions or time, a serial port.

#[cfg(any(feature = "mps2-an385", feature = "mps2-an386", feature = "mps2-an500"))]
mod mps2;
#[cfg(any(feature = "mps2-an385", feature = "mps2-an386", feature = "mps2-an500"))]
pub use mps2::*;
#[cfg(feature = "mps3-an547")]
mod mps3_an547;
#[cfg(feature = "mps3-an547")]
pub use mps3_an547::*;
#[cfg(feature = "nrf52840")]
mod nrf52840;
#[cfg(feature = "nrf52840")]
pub use nrf52840::*;
#[cfg(feature = "stm32h743")]
mod stm32h743;
#[cfg(feature = "stm32h743")]
pub use stm32h743::*;
#[cfg(not(feature = "semihosting"))]
mod cycles;
