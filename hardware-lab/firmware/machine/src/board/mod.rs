//! What differs between machines: a name, a counter of instructions or time, a serial port.

#[cfg(any(feature = "mps2-an385", feature = "mps2-an386"))]
mod mps2;
#[cfg(any(feature = "mps2-an385", feature = "mps2-an386"))]
pub use mps2::*;
