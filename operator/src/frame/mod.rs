//! What every controller stands on: settings, the way to the API server, conditions, events, metrics, leader election.
//!
//! Nothing here knows what a lease or a benchmark is. Controllers are made by [`run_controller`]; their writes go
//! through [`write`], so that each has a timeout and one field manager.

pub mod names;
pub mod settings;
pub mod clock;
pub mod error;
pub mod context;
pub mod conditions;
pub mod write;
pub mod finalizer;
pub mod events;
pub mod metrics;
pub mod results;
pub mod controller;
pub mod grant_key;
pub mod leader;
pub mod serve;
pub mod shutdown;
#[cfg(test)]
pub mod mock;

pub use conditions::Conditions;
pub use context::Context;
pub use controller::{Extend, Guarded, run_controller};
pub use error::{Error, Requeue};
pub use settings::Settings;
pub use shutdown::Shutdown;

/// A controller that runs until [`Shutdown`]; see [`run_controller`].
pub type Running = futures::future::BoxFuture<'static, ()>;
