//! Runs models on one device and makes the record: time, instructions, memory, accuracy, and whether all that can be
//! trusted.
//!
//! `run` (flags) and `job` (a spec from the operator) make a [`plan::Plan`]; [`session::run`] carries it out with one
//! [`lane`] (child process) for each variant; [`session`] makes the record. Nothing here speaks to Kubernetes, and only
//! `job` speaks to the store.

pub mod accuracy;
pub mod agent;
pub mod analyse;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod cortex_m;
pub mod estimate;
pub mod error;
pub mod inspect;
pub mod job;
pub mod lane;
pub mod machine;
pub mod meter;
pub mod npz;
pub mod overhead;
pub mod parity;
pub mod plan;
pub mod plot;
pub mod progress;
pub mod run;
pub mod runtime;
pub mod session;
pub mod table;
pub mod tensor;
pub mod timing;
pub mod validity;
