//! Whether numbers can be used. The data is kept in any case; a reason comes with what to do about it.

use edgeyard_measure::minimum_queries;
use edgeyard_record::{Latency, Validity};

/// The numbers can be used.
pub const VALID: &str = "Valid";
/// It cannot be told whether they can be used.
pub const INCONCLUSIVE: &str = "Inconclusive";
/// They cannot be used.
pub const INVALID: &str = "Invalid";

/// What validity is judged by.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What was measured.
    pub latency: Option<&'a Latency>,
    /// Whether an output is not a number.
    pub has_nan: bool,
    /// Threads of the runtime.
    pub threads: u32,
    /// Processors that they could use.
    pub usable_processors: u32,
    /// Whether no time is reported anyway.
    pub clock_is_emulated: bool,
}

#[derive(Default)]
struct Judgement {
    invalid: bool,
    reasons: Vec<String>,
    recommendations: Vec<String>,
}

impl Judgement {
    fn add(&mut self, invalid: bool, reason: &str, recommendation: String) {
        self.invalid |= invalid;
        self.reasons.push(reason.into());
        self.recommendations.push(recommendation);
    }
}

/// Judges one variant.
pub fn of_variant(evidence: &Evidence) -> Validity {
    let Evidence { latency, has_nan, threads, usable_processors, clock_is_emulated } = evidence;
    let mut judgement = Judgement::default();
    if *has_nan {
        judgement.add(true, "NaNOutput", "an output is not a number: check the model and its inputs".into());
    }
    if let Some(latency) = latency {
        if let Some(periods) = latency.disturbance.throttled_periods.filter(|periods| *periods > 0) {
            judgement.add(
                true,
                "Throttled",
                format!(
                    "the processor quota held the runner back in {periods} periods: give the device class a whole number of \
                     processors, at least as many as threads, or no limit"
                ),
            );
        }
        if !latency.warm_up_steady {
            judgement.add(
                false,
                "NotSteady",
                "times still changed when warm-up ended: keep the machine idle, or take a longer profile".into(),
            );
        }
        let needed = minimum_queries(0.9);
        if latency.count < needed {
            judgement.add(
                false,
                "TooFewSamples",
                format!("{} inferences are fewer than {needed}: take a longer profile", latency.count),
            );
        }
    }
    if !clock_is_emulated && threads > usable_processors {
        judgement.add(
            false,
            "MoreThreadsThanProcessors",
            format!("{threads} threads shared {usable_processors} processors: ask for fewer threads or a larger limit"),
        );
    }
    let Judgement { invalid, reasons, recommendations } = judgement;
    let state = match (invalid, reasons.is_empty()) {
        (true, _) => INVALID,
        (false, false) => INCONCLUSIVE,
        (false, true) => VALID,
    };
    Validity { state: state.into(), reasons, recommendations }
}

/// A run is as valid as the worst of its variants.
pub fn of_run<'a>(variants: impl Iterator<Item = &'a Validity>) -> Validity {
    let mut run = Validity { state: VALID.into(), reasons: Vec::new(), recommendations: Vec::new() };
    let rank = |state: &str| [VALID, INCONCLUSIVE, INVALID].iter().position(|known| *known == state);
    for variant in variants {
        if rank(&variant.state) > rank(&run.state) {
            run.state.clone_from(&variant.state);
        }
        for (all, new) in [(&mut run.reasons, &variant.reasons), (&mut run.recommendations, &variant.recommendations)] {
            let missing: Vec<String> = new.iter().filter(|item| !all.contains(item)).cloned().collect();
            all.extend(missing);
        }
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(threads: u32, has_nan: bool) -> Validity {
        of_variant(&Evidence { latency: None, has_nan, threads, usable_processors: 2, clock_is_emulated: false })
    }

    #[test]
    fn the_worst_variant_decides_and_reasons_are_named_once() {
        let (valid, crowded, broken) = (judged(1, false), judged(4, false), judged(4, true));
        assert_eq!(valid.state, VALID);
        assert_eq!(
            (crowded.state.as_str(), crowded.reasons.as_slice()),
            (INCONCLUSIVE, &["MoreThreadsThanProcessors".into()][..])
        );
        let run = of_run([&crowded, &broken, &valid].into_iter());
        assert_eq!((run.state.as_str(), run.reasons.len()), (INVALID, 2));
        assert_eq!(run.reasons.len(), run.recommendations.len());
    }
}
