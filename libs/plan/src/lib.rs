//! From what users write to what has to be done: validated objects, the artefacts and runs they ask for, the next
//! actions for an observed state, job specs and the shape of pods.
//!
//! Everything here is a plain function on plain data. The operator and `kubectl edgeyard local` do what it says; nothing
//! here reads a clock, a file or an API.

pub mod refusal;
pub mod reason;
pub mod quantity;
pub mod names;
pub mod targets;
pub mod inputs;
pub mod outcome;
pub mod optimization;
pub mod benchmark;
pub mod run;
pub mod jobs;
pub mod pods;

pub use refusal::Refusal;
