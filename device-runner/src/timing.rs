//! For how long a variant is measured, and how its queries are cut into turns: what the scenario asks for, as far as the
//! profile leaves time for it. What a profile leaves out is said, in words, in the record.

use std::time::Duration;

use edgeyard_job::spec::{HeadlinePercentile, Profile, Scenario, Workload};
use edgeyard_measure::scenario::{self, Rules};

use crate::error::Failure;

/// The most samples that a variant keeps.
pub const MOST_SAMPLES: u64 = 1_000_000;

/// How a variant is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// What the scenario asks for.
    pub rules: Rules,
    /// Windows, each a turn.
    pub windows: u32,
    /// No further turns, even if queries are missing.
    pub exactly: bool,
    /// All windows together.
    pub measure: Duration,
    /// Queries in each window at least.
    pub window_queries: u64,
    /// Queries in any case, as far as `cap` allows.
    pub minimum_count: u64,
    /// All windows together, at most.
    pub cap: Duration,
    /// Warm-up, at least and at most.
    pub warm_up: (Duration, Duration),
    /// Idling before and after, where energy is measured.
    pub idle: Duration,
    /// What an official run of the scenario has and this one has not.
    pub shortened: Vec<String>,
    /// Whether the scenario has no result for that reason.
    pub too_short: Option<String>,
    /// `Server`: queries of one trial, and the relative precision of the search.
    pub trial: (u64, f64),
}

/// What a profile gives.
struct Given {
    windows: u32,
    measure: u64,
    queries: u64,
    cap: u64,
    warm_up: (u64, u64),
    idle: u64,
    tiny_window: u64,
    trials: u64,
    precision: f64,
}

const fn given(profile: Profile) -> Given {
    // Milliseconds. 64 queries are the least from which the 90th percentile can be told, 1,024 are LoadGen's default.
    match profile {
        Profile::Smoke => Given {
            windows: 4,
            measure: 1000,
            queries: 64,
            cap: 10_000,
            warm_up: (100, 1000),
            idle: 200,
            tiny_window: 250,
            trials: 1,
            precision: 0.1,
        },
        Profile::Quick => Given {
            windows: 10,
            measure: 5000,
            queries: 1024,
            cap: 30_000,
            warm_up: (500, 3000),
            idle: 1000,
            tiny_window: 1000,
            trials: 2,
            precision: 0.05,
        },
        Profile::Standard => Given {
            windows: 30,
            measure: 60_000,
            queries: 1024,
            cap: 180_000,
            warm_up: (2000, 10_000),
            idle: 5000,
            tiny_window: 10_000,
            trials: 4,
            precision: 0.02,
        },
        Profile::Official => Given {
            windows: 30,
            measure: (scenario::OFFICIAL_SECONDS * 1000.0) as u64,
            queries: 1024,
            cap: 3_600_000,
            warm_up: (5000, 60_000),
            idle: 10_000,
            tiny_window: 10_000,
            trials: 8,
            precision: 0.01,
        },
    }
}

impl Timing {
    /// How a workload is measured; `set` is the number of samples of the data set, if there is one.
    ///
    /// # Errors
    /// `LatencyBoundMissing` or `LatencyBoundUnused`, `TooFewQueries` with the number that the percentile needs.
    pub fn of(workload: &Workload, set: Option<u64>) -> Result<Self, Failure> {
        let Workload { scenario, profile, seed: _, query_count, percentile, latency_bound_nanoseconds: _ } = workload;
        let share = percentile.map(HeadlinePercentile::share);
        let rules = match scenario {
            Scenario::SingleStream => scenario::single_stream(share),
            Scenario::MultiStream => scenario::multi_stream(share),
            Scenario::Server => scenario::server(share),
            Scenario::Offline => scenario::offline(set.unwrap_or(u64::MAX)),
            Scenario::Tiny => scenario::tiny(),
        };
        check(workload, &rules)?;
        let ms = Duration::from_millis;
        let Given { windows, measure, queries, cap, warm_up, idle, tiny_window, trials, precision } = given(*profile);
        let mut timing = Self {
            windows,
            exactly: false,
            measure: ms(measure),
            window_queries: 1,
            minimum_count: queries.max(rules.minimum_queries),
            cap: ms(cap),
            warm_up: (ms(warm_up.0), ms(warm_up.1)),
            idle: ms(idle),
            shortened: Vec::new(),
            too_short: None,
            trial: (rules.minimum_queries * trials, precision),
            rules,
        };
        match scenario {
            Scenario::Tiny => {
                timing.windows = rules.windows.unwrap_or(windows);
                timing.exactly = true;
                timing.measure = ms(tiny_window) * timing.windows;
                timing.window_queries = rules.window_iterations;
                timing.minimum_count = rules.minimum_queries;
                let asked = ms((rules.window_seconds * 1000.0) as u64);
                if ms(tiny_window) < asked {
                    let what = format!("windows of {:?} instead of {asked:?}", ms(tiny_window));
                    timing.too_short = Some(what.clone());
                    timing.shortened.push(what);
                }
            }
            _ if *profile != Profile::Official => {
                let asked = Duration::from_secs_f64(scenario::OFFICIAL_SECONDS);
                timing.shortened.push(format!("{:?} a variant instead of {asked:?}", timing.measure));
            }
            _ => {}
        }
        if *scenario == Scenario::Offline {
            // All samples are the queries of the windows together.
            timing.exactly = true;
            timing.minimum_count = rules.samples_per_query;
            if matches!(profile, Profile::Standard | Profile::Official) {
                timing.window_queries = rules.samples_per_query.div_ceil(u64::from(windows));
            }
        }
        if let Some(asked) = *query_count {
            // Who asks for a number gets it; the run's deadline is its only limit.
            timing.minimum_count = timing.minimum_count.max(asked);
            timing.cap = Duration::MAX;
            timing.trial.0 = timing.trial.0.max(asked);
            if timing.exactly {
                timing.window_queries = timing.window_queries.max(asked.div_ceil(u64::from(timing.windows)));
            }
        }
        Ok(timing)
    }

    /// One turn.
    pub fn window(&self) -> Duration {
        self.measure / self.windows
    }

    /// Room for samples of one window.
    pub fn room(&self) -> u64 {
        MOST_SAMPLES / u64::from(self.windows)
    }

    /// Inferences of one query.
    pub fn inferences_per_query(&self, scenario: Scenario) -> u64 {
        if scenario == Scenario::MultiStream { self.rules.samples_per_query } else { 1 }
    }

    /// The percentile that early stopping is told of.
    pub fn percentile(&self) -> f64 {
        self.rules.percentile.unwrap_or(0.9)
    }
}

/// A percentile's name in records.
pub fn percentile_name(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

fn check(workload: &Workload, rules: &Rules) -> Result<(), Failure> {
    let is_server = workload.scenario == Scenario::Server;
    match workload.latency_bound_nanoseconds {
        None | Some(0) if is_server => {
            return Err(Failure::bad_input(
                "LatencyBoundMissing",
                "the Server scenario looks for the highest rate that keeps a latency bound: give one above 0",
            ));
        }
        Some(_) if !is_server => {
            return Err(Failure::bad_input(
                "LatencyBoundUnused",
                "only the Server scenario has a latency bound: leave it out",
            ));
        }
        _ => {}
    }
    match (workload.query_count, rules.percentile) {
        (Some(count), Some(p)) if count < rules.minimum_queries => Err(Failure::bad_input(
            "TooFewQueries",
            format!(
                "{count} queries are too few to tell the {}th percentile: ask for {} or more",
                percentile_name(p),
                rules.minimum_queries
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(scenario: Scenario, profile: Profile) -> Workload {
        Workload {
            scenario,
            profile,
            seed: 1,
            query_count: None,
            percentile: None,
            latency_bound_nanoseconds: (scenario == Scenario::Server).then_some(1_000_000),
        }
    }

    #[test]
    fn tiny_is_exactly_five_windows_and_says_when_they_are_short() {
        let standard = Timing::of(&workload(Scenario::Tiny, Profile::Standard), None).unwrap();
        assert_eq!((standard.windows, standard.window(), standard.window_queries), (5, Duration::from_secs(10), 10));
        assert!(standard.exactly && standard.shortened.is_empty() && standard.too_short.is_none());
        let quick = Timing::of(&workload(Scenario::Tiny, Profile::Quick), None).unwrap();
        assert_eq!((quick.windows, quick.too_short.as_deref()), (5, Some("windows of 1s instead of 10s")));
    }

    #[test]
    fn an_official_run_leaves_nothing_out() {
        for scenario in [Scenario::SingleStream, Scenario::MultiStream, Scenario::Server, Scenario::Offline] {
            let official = Timing::of(&workload(scenario, Profile::Official), Some(100)).unwrap();
            assert!(official.shortened.is_empty() && official.measure == Duration::from_secs(600), "{scenario:?}");
            let quick = Timing::of(&workload(scenario, Profile::Quick), Some(100)).unwrap();
            assert_eq!(quick.shortened, ["5s a variant instead of 600s"], "{scenario:?}");
        }
    }

    #[test]
    fn offline_takes_the_set_or_so_many_samples() {
        let of = |set| Timing::of(&workload(Scenario::Offline, Profile::Standard), set).unwrap();
        assert_eq!((of(None).minimum_count, of(Some(100_000)).minimum_count), (24_576, 24_576));
        assert_eq!((of(Some(300)).minimum_count, of(Some(300)).window_queries), (300, 10));
    }

    #[test]
    fn what_cannot_be_told_is_refused_with_the_number_needed() {
        let refused = |change: fn(&mut Workload)| {
            let mut workload = workload(Scenario::SingleStream, Profile::Quick);
            change(&mut workload);
            let failure = Timing::of(&workload, None).unwrap_err();
            (failure.reason, failure.message)
        };
        let (reason, message) = refused(|w| {
            w.query_count = Some(100);
            w.percentile = Some(HeadlinePercentile::P99);
        });
        assert!(reason == "TooFewQueries" && message.contains("662"), "{message}");
        assert_eq!(refused(|w| w.latency_bound_nanoseconds = Some(1)).0, "LatencyBoundUnused");
        assert_eq!(refused(|w| w.scenario = Scenario::Server).0, "LatencyBoundMissing");
        let mut many = workload(Scenario::SingleStream, Profile::Smoke);
        many.query_count = Some(5000);
        let timing = Timing::of(&many, None).unwrap();
        assert_eq!((timing.minimum_count, timing.cap), (5000, Duration::MAX));
    }

    #[test]
    fn percentiles_have_names() {
        assert_eq!([0.5, 0.9, 0.97, 0.999].map(percentile_name), ["50", "90", "97", "99.9"]);
    }
}
