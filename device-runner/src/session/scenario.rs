//! What a scenario's result is made of, beside the latencies: a throughput, or a rate that keeps a bound.

use std::collections::BTreeMap;

use edgeyard_job::spec::Scenario;
use edgeyard_measure::scenario::{TINY_ITERATIONS, TINY_SECONDS};
use edgeyard_measure::server::Trial;
use edgeyard_record::{Server, ServerTrial, Throughput};

use super::subject::{Search, Series};
use crate::timing::Timing;

/// The scenario's name in records.
pub const fn name(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::SingleStream => "SingleStream",
        Scenario::MultiStream => "MultiStream",
        Scenario::Server => "Server",
        Scenario::Offline => "Offline",
        Scenario::Tiny => "Tiny",
    }
}

/// Whether the throughput is what counts.
pub const fn counts_throughput(scenario: Scenario) -> bool {
    matches!(scenario, Scenario::Offline | Scenario::Tiny)
}

/// The throughput of a series whose inferences take `batch` samples each; `None` in other scenarios and of no windows.
pub fn throughput(scenario: Scenario, series: &Series, batch: u64) -> Option<Throughput> {
    let samples = series.count() * batch;
    let nanoseconds = series.nanoseconds();
    let per_second = match scenario {
        _ if samples == 0 || nanoseconds == 0 => return None,
        Scenario::Offline => samples as f64 * 1e9 / nanoseconds as f64,
        Scenario::Tiny => edgeyard_measure::series::median(&rates(series, batch)),
        Scenario::SingleStream | Scenario::MultiStream | Scenario::Server => return None,
    };
    Some(Throughput {
        samples_per_second: decimal(per_second),
        samples,
        queries: series.windows.len() as u64,
        duration_nanoseconds: nanoseconds,
    })
}

/// Samples per second of each window.
fn rates(series: &Series, batch: u64) -> Vec<f64> {
    let rate = |window: &edgeyard_record::Window| {
        let nanoseconds = window.end_nanoseconds.saturating_sub(window.start_nanoseconds).max(1);
        (window.count * batch) as f64 * 1e9 / nanoseconds as f64
    };
    series.windows.iter().map(rate).collect()
}

/// What a series lacks of what its scenario needs, in words.
pub fn too_short(scenario: Scenario, timing: &Timing, series: &Series, batch: u64) -> Option<String> {
    let samples = series.count() * batch;
    match scenario {
        _ if series.windows.is_empty() => None,
        Scenario::Offline if samples < timing.minimum_count => {
            Some(format!("{samples} samples instead of {}", timing.minimum_count))
        }
        Scenario::Tiny => {
            let is_short = |window: &edgeyard_record::Window| {
                let nanoseconds = window.end_nanoseconds.saturating_sub(window.start_nanoseconds);
                (nanoseconds as f64) < TINY_SECONDS * 1e9 || window.count < TINY_ITERATIONS
            };
            series
                .windows
                .iter()
                .any(is_short)
                .then(|| timing.too_short.clone().unwrap_or_else(|| format!("windows of less than {TINY_SECONDS} s")))
        }
        _ => None,
    }
}

/// What a Server run found: the rate of the search, if the latencies measured at it keep the bound as well.
pub fn server(search: &Search, latencies: &[u64], bound: u64, percentile: f64) -> Server {
    let Search { found, rate } = search;
    let measured = Trial::judge(*rate, latencies, bound, percentile);
    let highest = found.rate.filter(|_| measured.passed).map(decimal);
    let mut unavailable = BTreeMap::new();
    if highest.is_none() {
        unavailable.insert("highestQueriesPerSecond".into(), "LatencyBoundBroken".into());
    }
    let trial = |trial: &Trial| ServerTrial {
        queries_per_second: decimal(trial.rate),
        queries: trial.queries,
        over_bound: trial.over,
        kept: trial.passed,
    };
    Server {
        highest_queries_per_second: highest,
        measured_queries_per_second: decimal(*rate),
        at_limit: found.at_limit,
        over_bound: measured.over,
        trials: found.trials.iter().map(trial).collect(),
        unavailable,
    }
}

fn decimal(rate: f64) -> String {
    format!("{rate:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeyard_job::spec::{Profile, Workload};
    use edgeyard_measure::server::Found;
    use edgeyard_record::Window;

    fn series(windows: &[(u64, u64)]) -> Series {
        let window = |(milliseconds, count): &(u64, u64)| Window {
            start_nanoseconds: 5,
            end_nanoseconds: 5 + milliseconds * 1_000_000,
            count: *count,
            median_nanoseconds: 1,
        };
        Series { windows: windows.iter().map(window).collect(), ..Series::default() }
    }

    fn timing(scenario: Scenario, profile: Profile) -> Timing {
        let workload = Workload {
            scenario,
            profile,
            seed: 0,
            query_count: None,
            percentile: None,
            latency_bound_nanoseconds: None,
        };
        Timing::of(&workload, Some(1000)).unwrap()
    }

    #[test]
    fn tiny_is_the_median_of_rates_and_offline_their_mean() {
        let windows = [(10_000, 100), (10_000, 120), (20_000, 220), (10_000, 90), (11_000, 1100)];
        let tiny = throughput(Scenario::Tiny, &series(&windows), 1).unwrap();
        assert_eq!((tiny.samples_per_second.as_str(), tiny.queries), ("11.000", 5));
        let offline = throughput(Scenario::Offline, &series(&[(1000, 10), (3000, 90)]), 4).unwrap();
        assert_eq!((offline.samples_per_second.as_str(), offline.samples), ("100.000", 400));
        assert_eq!(offline.duration_nanoseconds, 4_000_000_000);
        assert_eq!(throughput(Scenario::SingleStream, &series(&windows), 1), None);
        assert_eq!(throughput(Scenario::Offline, &series(&[]), 1), None);
    }

    #[test]
    fn what_a_profile_leaves_out_is_said() {
        let standard = timing(Scenario::Tiny, Profile::Standard);
        assert_eq!(too_short(Scenario::Tiny, &standard, &series(&[(10_000, 10); 5]), 1), None);
        assert!(too_short(Scenario::Tiny, &standard, &series(&[(10_000, 9); 5]), 1).is_some());
        let smoke = timing(Scenario::Tiny, Profile::Smoke);
        let found = too_short(Scenario::Tiny, &smoke, &series(&[(250, 10); 5]), 1);
        assert_eq!(found.as_deref(), Some("windows of 250ms instead of 10s"));
        let offline = timing(Scenario::Offline, Profile::Smoke);
        let found = too_short(Scenario::Offline, &offline, &series(&[(250, 10); 4]), 1);
        assert_eq!(found.as_deref(), Some("40 samples instead of 1000"));
        assert_eq!(too_short(Scenario::Offline, &offline, &series(&[(250, 250); 4]), 1), None);
    }

    #[test]
    fn a_rate_counts_only_if_it_is_kept_while_measuring() {
        let search = Search {
            found: Found {
                rate: Some(100.0),
                at_limit: false,
                trials: vec![Trial { rate: 100.0, queries: 700, over: 1, passed: true }],
            },
            rate: 100.0,
        };
        let kept = server(&search, &[1000; 2000], 5000, 0.99);
        assert_eq!(kept.highest_queries_per_second.as_deref(), Some("100.000"));
        assert!(kept.unavailable.is_empty() && kept.trials.len() == 1);
        let mut late = vec![1000; 2000];
        late[..40].fill(6000);
        let broken = server(&search, &late, 5000, 0.99);
        assert_eq!((broken.highest_queries_per_second, broken.over_bound), (None, 40));
        assert_eq!(broken.measured_queries_per_second, "100.000");
        assert!(broken.unavailable.contains_key("highestQueriesPerSecond"));
    }
}
