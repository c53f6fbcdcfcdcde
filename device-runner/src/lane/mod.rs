//! A lane is the child process in which one variant runs, so that a crash or an exhausted memory takes down that variant
//! only. Parent and child speak in frames over the child's stdin and stdout; a lane that hears nothing consumes nothing.

pub mod protocol;
mod child;
pub mod window;
mod handle;

pub use child::run as run_child;
pub use handle::{Lane, Watch};
