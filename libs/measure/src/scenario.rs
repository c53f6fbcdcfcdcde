//! What a scenario asks for, as plain data: the runner feeds inputs by it and the record is judged by it. The numbers are
//! those of the MLPerf Inference rules (scenarios, early stopping) and of the MLPerf Tiny rules (performance mode).

use crate::early_stopping::minimum_queries;

/// Samples of one MultiStream query.
pub const MULTI_STREAM_SAMPLES: u64 = 8;
/// Samples of an Offline run, unless the set is smaller.
pub const OFFLINE_SAMPLES: u64 = 24_576;
/// Windows of a Tiny run; no fewer and no more.
pub const TINY_WINDOWS: u32 = 5;
/// Seconds that each Tiny window lasts at least.
pub const TINY_SECONDS: f64 = 10.0;
/// Inferences that each Tiny window has at least.
pub const TINY_ITERATIONS: u64 = 10;
/// Seconds that an official run of any scenario but Tiny lasts at least.
pub const OFFICIAL_SECONDS: f64 = 600.0;

/// What a scenario asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Samples that one query holds; its latency is that of its last sample. For Offline all samples are one query.
    pub samples_per_query: u64,
    /// The percentile of query latencies that the run is about, 0 to 1; `None` where throughput counts.
    pub percentile: Option<f64>,
    /// Queries without which nothing can be said about that percentile.
    pub minimum_queries: u64,
    /// Windows that make up the result: exactly so many. `None` where the run is as long as its profile.
    pub windows: Option<u32>,
    /// Seconds that each window lasts at least; 0 without windows.
    pub window_seconds: f64,
    /// Inferences that each window has at least; 0 without windows.
    pub window_iterations: u64,
}

const fn queries(samples_per_query: u64, percentile: Option<f64>, minimum_queries: u64) -> Rules {
    Rules { samples_per_query, percentile, minimum_queries, windows: None, window_seconds: 0.0, window_iterations: 0 }
}

/// One query of one sample after the other; by default the 90th percentile. `percentile` is between 0 and 1, exclusive.
pub fn single_stream(percentile: Option<f64>) -> Rules {
    let percentile = percentile.unwrap_or(0.9);
    queries(1, Some(percentile), minimum_queries(percentile))
}

/// One query of eight samples after the other; by default the 99th percentile of the queries' latencies.
pub fn multi_stream(percentile: Option<f64>) -> Rules {
    let percentile = percentile.unwrap_or(0.99);
    queries(MULTI_STREAM_SAMPLES, Some(percentile), minimum_queries(percentile))
}

/// Queries of one sample that arrive as a Poisson process; by default the 99th percentile is held against a bound. See
/// [`crate::server`] for the search of the highest rate.
pub fn server(percentile: Option<f64>) -> Rules {
    let percentile = percentile.unwrap_or(0.99);
    queries(1, Some(percentile), minimum_queries(percentile))
}

/// All samples in one query, of a set of `set` samples: [`OFFLINE_SAMPLES`], or the whole set if it is smaller. The
/// throughput counts.
pub fn offline(set: u64) -> Rules {
    queries(OFFLINE_SAMPLES.min(set).max(1), None, 1)
}

/// As MLPerf Tiny: the result is [`tiny_rate`] of exactly five windows.
pub const fn tiny() -> Rules {
    Rules {
        samples_per_query: 1,
        percentile: None,
        minimum_queries: TINY_WINDOWS as u64 * TINY_ITERATIONS,
        windows: Some(TINY_WINDOWS),
        window_seconds: TINY_SECONDS,
        window_iterations: TINY_ITERATIONS,
    }
}

/// A window of a Tiny run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TinyWindow {
    /// From the beginning of its first inference to the end of its last.
    pub seconds: f64,
    /// Inferences.
    pub iterations: u64,
}

/// Why windows make no Tiny result.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum TinyError {
    /// Not five windows.
    #[error("a Tiny run has exactly {TINY_WINDOWS} windows, not {0}")]
    Windows(usize),
    /// A window that is too short.
    #[error("window {0} lasts {1} s, but each must last at least {TINY_SECONDS} s")]
    Seconds(usize, f64),
    /// A window with too few inferences.
    #[error("window {0} has {1} inferences, but each must have at least {TINY_ITERATIONS}")]
    Iterations(usize, u64),
}

/// Inferences per second of a Tiny run: the median of the rates of its windows.
///
/// # Errors
/// [`TinyError`], with the window (from 1) that breaks a rule.
pub fn tiny_rate(windows: &[TinyWindow]) -> Result<f64, TinyError> {
    if windows.len() != TINY_WINDOWS as usize {
        return Err(TinyError::Windows(windows.len()));
    }
    let mut rates = Vec::with_capacity(windows.len());
    for (index, TinyWindow { seconds, iterations }) in windows.iter().enumerate() {
        if seconds.is_nan() || *seconds < TINY_SECONDS {
            return Err(TinyError::Seconds(index + 1, *seconds));
        }
        if *iterations < TINY_ITERATIONS {
            return Err(TinyError::Iterations(index + 1, *iterations));
        }
        rates.push(*iterations as f64 / seconds);
    }
    Ok(crate::series::median(&rates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_rules() {
        let single = single_stream(None);
        assert_eq!((single.percentile, single.samples_per_query, single.minimum_queries), (Some(0.9), 1, 64));
        let multi = multi_stream(None);
        assert_eq!((multi.percentile, multi.samples_per_query, multi.minimum_queries), (Some(0.99), 8, 662));
        assert_eq!(server(None).minimum_queries, 662);
        assert_eq!(single_stream(Some(0.999)).minimum_queries, 6636);
        assert_eq!(offline(50_000).samples_per_query, 24_576);
        assert_eq!((offline(10_000).samples_per_query, offline(0).samples_per_query), (10_000, 1));
        assert_eq!((tiny().windows, tiny().window_seconds, tiny().window_iterations), (Some(5), 10.0, 10));
    }

    #[test]
    fn a_tiny_result_is_the_median_of_exactly_five() {
        let window = |seconds, iterations| TinyWindow { seconds, iterations };
        let good = [window(10.0, 100), window(10.0, 120), window(20.0, 220), window(10.0, 90), window(11.0, 1100)];
        assert_eq!(tiny_rate(&good), Ok(11.0));
        assert_eq!(tiny_rate(&good[..4]), Err(TinyError::Windows(4)));
        let mut short = good;
        short[2].seconds = 9.99;
        assert_eq!(tiny_rate(&short), Err(TinyError::Seconds(3, 9.99)));
        short[2] = window(30.0, 9);
        assert_eq!(
            tiny_rate(&short).unwrap_err().to_string(),
            "window 3 has 9 inferences, but each must have at least 10"
        );
    }
}
