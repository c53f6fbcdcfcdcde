//! Statistics of measurements: plain functions on plain data, no IO and no clock.
//!
//! Everything that a record says about a series of latencies is computed here, so that `analyse` says the same about
//! latencies from elsewhere. Each formula names its source; tests hold them against SciPy and LoadGen's published logs.

pub mod bootstrap;
pub mod compare;
pub mod early_stopping;
pub mod energy;
pub mod interval;
pub mod percentile;
pub mod random;
pub mod samples;
pub mod scenario;
pub mod schedule;
pub mod server;
pub mod series;
pub mod special;
pub mod steady;
pub mod verdict;

pub use early_stopping::{EarlyStopping, TooFewQueries, early_stopping, minimum_queries};
pub use interval::{Interval, order_statistic, wilson};
pub use percentile::{METHOD as PERCENTILE_METHOD, floor_index, pick};
pub use samples::{Sample, SamplesError, pack, unpack};
