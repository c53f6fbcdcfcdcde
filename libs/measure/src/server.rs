//! The Server scenario's search for the highest rate whose latencies keep a bound. Pure: a closure runs a trial, be it on a
//! runtime or in a simulated queue.

use crate::early_stopping::keeps_bound;

/// What one trial at a rate found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Queries per second that were issued.
    pub rate: f64,
    /// Queries.
    pub queries: u64,
    /// Queries whose latency, from the scheduled arrival to the answer, was above the bound.
    pub over: u64,
    /// Whether early stopping says that the percentile keeps the bound.
    pub passed: bool,
}

impl Trial {
    /// Judges the latencies of a trial against a bound in the same unit, as LoadGen judges a Server run.
    pub fn judge(rate: f64, latencies: &[u64], bound: u64, percentile: f64) -> Self {
        let over = latencies.iter().filter(|latency| **latency > bound).count() as u64;
        let queries = latencies.len() as u64;
        Self { rate, queries, over, passed: keeps_bound(percentile, queries, over) }
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The highest rate that passed, in queries per second; `None` if none did.
    pub rate: Option<f64>,
    /// Whether the highest rate that was allowed passed, so that the capacity may be above it.
    pub at_limit: bool,
    /// All trials, in order.
    pub trials: Vec<Trial>,
}

/// The highest rate between `low` and `high` (queries per second, `0 < low < high`) that passes, to a relative `precision`
/// (such as 0.02). Bisects the logarithm of the rate, for a rate is as far from its double as from its half.
///
/// `probe` runs one trial at a rate; it should use the same seed for each, so that the arrivals are the same but for their
/// scale and the outcome falls with the rate. The number of trials is at most `2 + log2(ln(high/low) / ln(1 + precision))`,
/// rounded up.
///
/// # Errors
/// What `probe` fails with ends the search.
pub fn highest_rate<E>(
    low: f64,
    high: f64,
    precision: f64,
    mut probe: impl FnMut(f64) -> Result<Trial, E>,
) -> Result<Found, E> {
    let mut trials = Vec::new();
    let mut passes = |rate: f64, trials: &mut Vec<Trial>| -> Result<bool, E> {
        let trial = probe(rate)?;
        trials.push(trial);
        Ok(trial.passed)
    };
    if !passes(low, &mut trials)? {
        return Ok(Found { rate: None, at_limit: false, trials });
    }
    if passes(high, &mut trials)? {
        return Ok(Found { rate: Some(high), at_limit: true, trials });
    }
    let (mut low, mut high) = (low, high);
    while high / low > 1.0 + precision {
        let middle = (low * high).sqrt();
        // Below the spacing of floating point there is no middle.
        if middle <= low || middle >= high {
            break;
        }
        if passes(middle, &mut trials)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Found { rate: Some(low), at_limit: false, trials })
}

/// Latencies, in the order of arrival, of a queue with one server: queries arrive at these times and each is served for
/// `service`, all in one unit of time. What the search is tested on, its capacity being known.
pub fn queue(arrivals: &[u64], service: u64) -> Vec<u64> {
    let mut free = 0;
    arrivals
        .iter()
        .map(|arrival| {
            free = free.max(*arrival) + service;
            free - arrival
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::poisson;
    use std::convert::Infallible;

    /// One millisecond.
    const SERVICE: u64 = 1_000_000;
    const QUERIES: usize = 60_000;

    fn trial(rate: f64, bound: u64) -> Trial {
        Trial::judge(rate, &queue(&poisson(rate, QUERIES, 7), SERVICE), bound, 0.99)
    }

    /// P(wait ≤ t) in an M/D/1 queue with load ρ, t in units of the service time (Erlang 1909).
    fn erlang(load: f64, t: f64) -> f64 {
        let mut sum = 0.0;
        let mut factorial = 1.0;
        for k in 0..=t as i32 {
            if k > 0 {
                factorial *= f64::from(k);
            }
            let x = load * (f64::from(k) - t);
            sum += x.powi(k) / factorial * (-x).exp();
        }
        (1.0 - load) * sum
    }

    /// The load at which the 99th percentile of the latency is just so many service times.
    fn capacity(bound: f64) -> f64 {
        let (mut low, mut high) = (0.01, 0.999);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if erlang(middle, bound - 1.0) >= 0.99 { low = middle } else { high = middle }
        }
        low
    }

    #[test]
    fn the_known_capacity_of_a_queue_is_found() {
        for bound in [3.0, 5.0, 10.0] {
            let nanoseconds = (bound * SERVICE as f64) as u64;
            let found =
                highest_rate(10.0, 10_000.0, 0.005, |rate| Ok::<_, Infallible>(trial(rate, nanoseconds))).unwrap();
            let rate = found.rate.unwrap();
            // Erlang's formula knows the capacity; early stopping wants to be sure and stays a little below.
            let known = capacity(bound) * 1000.0;
            assert!((0.95 * known..1.01 * known).contains(&rate), "bound {bound}: {rate} of {known}");
            // By brute force, in steps of the same precision up from far below.
            let mut brute = 0.5 * known;
            while trial(brute * 1.005, nanoseconds).passed {
                brute *= 1.005;
            }
            assert!((rate / brute - 1.0).abs() <= 0.0051, "bound {bound}: {rate}, by brute force {brute}");
            assert!(!found.at_limit && found.trials.len() <= 13, "{} trials", found.trials.len());
        }
    }

    #[test]
    fn a_search_tells_when_it_meets_its_limits() {
        let judged = |passed| move |rate| Ok::<_, Infallible>(Trial { rate, queries: 1, over: 0, passed });
        let none = highest_rate(1.0, 2.0, 0.01, judged(false)).unwrap();
        assert_eq!((none.rate, none.at_limit, none.trials.len()), (None, false, 1));
        let all = highest_rate(1.0, 2.0, 0.01, judged(true)).unwrap();
        assert_eq!((all.rate, all.at_limit, all.trials.len()), (Some(2.0), true, 2));
        assert_eq!(highest_rate(1.0, 2.0, 0.01, |_| Err("broken")), Err("broken"));
        // A precision below that of the numbers ends as well.
        let step = |rate| Ok::<_, Infallible>(Trial { rate, queries: 1, over: 0, passed: rate < 1.5 });
        assert!(highest_rate(1.0, 2.0, 0.0, step).unwrap().rate.is_some_and(|rate| (rate - 1.5).abs() < 1e-9));
    }
}
