//! The optimizer's own tests against the runtimes: every rewritten graph is run beside the one it was made from.

// All of this is test code, helpers included.
#![allow(clippy::panic, clippy::unwrap_used)]

mod support;
mod corrupt;
mod round_trip;
mod shapes;
mod simplified;
mod calibrated;
mod patterns;
mod quantized;
mod compressed;
mod inputs;
mod integers;
mod precise;
mod command_line;
mod pipeline;
