//! Whether numbers can be used. The data is kept in any case; a reason comes with what to do about it.

use edgeyard_measure::minimum_queries;
use edgeyard_measure::series::Movement;
use edgeyard_record::{Latency, Validity};

use crate::machine::cooling::CoolDown;
use crate::machine::monitor::Seen;
use crate::runtime::SecondOpinion;

/// The numbers can be used.
pub const VALID: &str = "Valid";
/// It cannot be told whether they can be used.
pub const INCONCLUSIVE: &str = "Inconclusive";
/// They cannot be used.
pub const INVALID: &str = "Invalid";

/// A larger share of processor time given to others shows in latencies.
const MOST_STOLEN: f64 = 0.01;
/// A runtime that waits for a processor for a larger share of the time is not what the numbers are of.
const MOST_WAITED: f64 = 0.05;
/// A clock that falls below this share of its highest shows in latencies.
const LEAST_CLOCK: f64 = 0.9;

/// What validity is judged by.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What was measured.
    pub latency: Option<&'a Latency>,
    /// How its samples moved, and by how much the slower of two modes is slower.
    pub moved: Option<(Movement, Option<f64>)>,
    /// The percentile that counts; `None` where the throughput does.
    pub percentile: Option<f64>,
    /// What the scenario needs and the profile left out.
    pub too_short: Option<&'a str>,
    /// Whether queries of a Server run were late more often than the bound allows.
    pub bound_broken: bool,
    /// Whether the clock went back, or not as fast as another.
    pub clock_jumped: bool,
    /// Whether an output is not a number.
    pub has_nan: bool,
    /// Threads of the runtime.
    pub threads: u32,
    /// Processors that they could use.
    pub usable_processors: u32,
    /// Whether no time is reported anyway.
    pub clock_is_emulated: bool,
    /// What a second counter said of a microcontroller's instructions.
    pub second_opinion: Option<&'a SecondOpinion>,
    /// The emulated core and the one that is meant, if they differ.
    pub other_core: Option<(&'static str, &'static str)>,
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

    fn verdict(self) -> Validity {
        let Self { invalid, reasons, recommendations } = self;
        let state = match (invalid, reasons.is_empty()) {
            (true, _) => INVALID,
            (false, false) => INCONCLUSIVE,
            (false, true) => VALID,
        };
        Validity { state: state.into(), reasons, recommendations }
    }
}

/// Judges one variant.
pub fn of_variant(evidence: &Evidence) -> Validity {
    let Evidence {
        latency,
        moved,
        percentile,
        too_short,
        bound_broken,
        clock_jumped,
        has_nan,
        threads,
        usable_processors,
        clock_is_emulated,
        second_opinion,
        other_core,
    } = evidence;
    let mut judgement = Judgement::default();
    judge_counts(*second_opinion, *other_core, &mut judgement);
    if *clock_jumped {
        judgement.add(
            true,
            "ClockJumped",
            "the clock went back, or not as fast as another clock of the machine: it was suspended, or its clock is broken; \
             measure again"
                .into(),
        );
    }
    if let Some(what) = too_short {
        judgement.add(false, "ProfileTooShort", format!("the scenario has no result of {what}: take a longer profile"));
    }
    if *bound_broken {
        judgement.add(
            false,
            "LatencyBoundBroken",
            "more queries were late than the bound allows: no rate that was tried keeps it; allow more time, or take a \
             smaller model or more threads"
                .into(),
        );
    }
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
        let measured: u64 =
            latency.windows.iter().map(|window| window.end_nanoseconds.saturating_sub(window.start_nanoseconds)).sum();
        let waited = latency.disturbance.waited_nanoseconds.unwrap_or(0) as f64 / measured.max(1) as f64;
        if waited > MOST_WAITED {
            judgement.add(
                false,
                "ProcessorShared",
                format!(
                    "the runtime was ready and had no processor for {:.1} % of the time: keep other work off the machine, give \
                     the device class whole processors, or take fewer threads",
                    waited * 100.0
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
        let needed = percentile.map_or(0, minimum_queries);
        if latency.count < needed {
            judgement.add(
                false,
                "TooFewSamples",
                format!("{} queries are fewer than {needed}: take a longer profile", latency.count),
            );
        }
    }
    if let Some((movement, modes)) = moved {
        judge_series(*movement, *modes, &mut judgement);
    }
    if !clock_is_emulated && threads > usable_processors {
        judgement.add(
            false,
            "MoreThreadsThanProcessors",
            format!("{threads} threads shared {usable_processors} processors: ask for fewer threads or a larger limit"),
        );
    }
    judgement.verdict()
}

/// Judges instruction counts.
fn judge_counts(opinion: Option<&SecondOpinion>, other_core: Option<(&str, &str)>, judgement: &mut Judgement) {
    match opinion {
        Some(SecondOpinion::Disagrees(how)) => judgement.add(
            true,
            "CountsDisagree",
            format!(
                "{how}: use the firmware and the plugin of one release, and the QEMU that `cargo xtask setup` installs"
            ),
        ),
        Some(SecondOpinion::Missing) => judgement.add(
            false,
            "CountsUnconfirmed",
            "the plugin that confirms counts is not beside the firmware: build both with `cargo xtask firmware`".into(),
        ),
        Some(SecondOpinion::NotAsked | SecondOpinion::Agrees(_)) | None => {}
    }
    if let Some((has, meant)) = other_core {
        judgement.add(
            false,
            "OtherCore",
            format!(
                "the class means a {meant} and its machine has a {has}: outputs and memory hold, instructions are the {has}'s"
            ),
        );
    }
}

/// The name of a movement; `None` of a steady series.
pub const fn name_of(movement: Movement) -> Option<&'static str> {
    match movement {
        Movement::Steady => None,
        Movement::Ramp(_) => Some("Ramp"),
        Movement::Step(..) => Some("Step"),
        Movement::Drift(_) => Some("Drifting"),
    }
}

/// Names how a series moved. A ramp or a step has two modes for that reason alone; what wanders between two speeds and
/// stays for a while at each is bimodal.
fn judge_series(movement: Movement, modes: Option<f64>, judgement: &mut Judgement) {
    let percent = |share: f64| format!("{:+.1} %", share * 100.0);
    match (movement, modes) {
        (Movement::Steady, None) => {}
        (Movement::Steady | Movement::Drift(_), Some(gap)) => judgement.add(
            false,
            "Bimodal",
            format!(
                "inferences ran at two speeds, {} apart: look for another load on the machine, cores of two kinds, or a clock \
                 that changes, and bind the runner to one core",
                percent(gap)
            ),
        ),
        (Movement::Ramp(by), _) => judgement.add(
            false,
            "Ramp",
            format!(
                "times went one way all through the run, by {}: the device may heat up; let it cool down and warm up longer",
                percent(by)
            ),
        ),
        (Movement::Step(at, by), _) => judgement.add(
            false,
            "Step",
            format!(
                "times changed by {} at inference {at} and stayed there: something began, ended or changed the clock then",
                percent(by)
            ),
        ),
        (Movement::Drift(by), None) => judgement.add(
            false,
            "Drifting",
            format!("times wandered over {}: keep other work off the machine, or take a longer profile", percent(by)),
        ),
    }
}

/// Judges latencies, in nanoseconds and in the order of time, of which nothing else is known; `percentile`, 0 to 1, is what
/// they are to tell.
pub fn of_series(durations: &[u64], percentile: Option<f64>) -> Validity {
    use edgeyard_measure::series;
    let mut judgement = Judgement::default();
    let needed = minimum_queries(percentile.unwrap_or(0.5));
    if (durations.len() as u64) < needed.max(series::LEAST_SAMPLES) {
        let advice = format!(
            "{} latencies are fewer than {}: measure for longer",
            durations.len(),
            needed.max(series::LEAST_SAMPLES)
        );
        judgement.add(false, "TooFewSamples", advice);
    }
    let zeros = durations.iter().filter(|duration| **duration == 0).count();
    if zeros * 2 > durations.len() {
        let advice = "most latencies are 0: the clock is too coarse, or the unit is wrong".into();
        judgement.add(false, "CoarseClock", advice);
    }
    judge_series(series::movement(durations), series::two_modes(durations), &mut judgement);
    judgement.verdict()
}

/// Judges the machine as it was seen from the side: `throttled` are reasons of [`crate::machine::throttle::between`].
pub fn of_machine(seen: &Seen, throttled: &[&str], cooled: Option<&CoolDown>) -> Validity {
    let mut judgement = Judgement::default();
    for reason in throttled {
        let advice = match *reason {
            "UnderVoltage" => "the supply's voltage fell too low: take a stronger supply or a shorter cable",
            "FrequencyCapped" => "the firmware held the clock down: take a stronger supply, and cool the device",
            _ => "the machine slowed itself down because of its temperature: cool it, or wait for it with coolDown",
        };
        judgement.add(true, reason, advice.into());
    }
    if let Some(reason) = cooled.and_then(CoolDown::reason) {
        let advice = match reason {
            "TooHot" => "the device did not cool down to the temperature that was asked for: cool it, or allow more",
            _ => {
                "no temperature can be read, so nothing was waited for: leave the temperature out, or run the node agent"
            }
        };
        judgement.add(false, reason, advice.into());
    }
    if seen.governors.len() > 1 {
        let seen = seen.governors.join(", ");
        judgement.add(
            false,
            "GovernorChanged",
            format!("the governor changed meanwhile ({seen}): set it once for all"),
        );
    }
    if let Some(stolen) = seen.stolen.filter(|stolen| *stolen > MOST_STOLEN) {
        judgement.add(
            false,
            "ProcessorStolen",
            format!(
                "the host gave {:.1} % of the processor time to others: measure on a machine of your own",
                stolen * 100.0
            ),
        );
    }
    if let Some((lowest, highest)) =
        seen.kilohertz.filter(|(lowest, highest)| (*lowest as f64) < LEAST_CLOCK * *highest as f64)
    {
        judgement.add(
            false,
            "ClockChanged",
            format!(
                "the clock went between {lowest} and {highest} kHz: set the governor to performance and cool the device"
            ),
        );
    }
    judgement.verdict()
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

    fn evidence(threads: u32) -> Evidence<'static> {
        Evidence {
            latency: None,
            moved: None,
            percentile: Some(0.9),
            too_short: None,
            bound_broken: false,
            clock_jumped: false,
            has_nan: false,
            threads,
            usable_processors: 2,
            clock_is_emulated: false,
            second_opinion: None,
            other_core: None,
        }
    }

    fn judged(threads: u32, has_nan: bool) -> Validity {
        of_variant(&Evidence { has_nan, ..evidence(threads) })
    }

    #[test]
    fn what_went_wrong_has_its_name() {
        let named = |evidence: Evidence| {
            let found = of_variant(&evidence);
            assert_eq!(found.reasons.len(), found.recommendations.len());
            (found.state, found.reasons.join(" "))
        };
        let expected = |state: &str, reason: &str| (state.to_owned(), reason.to_owned());
        assert_eq!(named(Evidence { clock_jumped: true, ..evidence(1) }), expected(INVALID, "ClockJumped"));
        let short = Evidence { too_short: Some("windows of 1s"), ..evidence(1) };
        assert_eq!(named(short), expected(INCONCLUSIVE, "ProfileTooShort"));
        let late = Evidence { bound_broken: true, ..evidence(1) };
        assert_eq!(named(late), expected(INCONCLUSIVE, "LatencyBoundBroken"));
    }

    #[test]
    fn counts_that_disagree_are_invalid_and_those_of_another_core_are_told() {
        let judged = |opinion: &SecondOpinion, other_core| {
            let found = of_variant(&Evidence {
                second_opinion: Some(opinion),
                other_core,
                clock_is_emulated: true,
                ..evidence(1)
            });
            (found.state, found.reasons.join(" "), found.recommendations.join(" "))
        };
        let disagrees = SecondOpinion::Disagrees("7 and 8".into());
        let (state, reasons, advice) = judged(&disagrees, None);
        assert_eq!((state.as_str(), reasons.as_str()), (INVALID, "CountsDisagree"));
        assert!(advice.contains("7 and 8"));
        let (state, reasons, _) = judged(&SecondOpinion::Missing, None);
        assert_eq!((state.as_str(), reasons.as_str()), (INCONCLUSIVE, "CountsUnconfirmed"));
        let agrees = SecondOpinion::Agrees(Default::default());
        assert_eq!(judged(&agrees, None).0, VALID);
        let (state, reasons, advice) = judged(&agrees, Some(("Cortex-M3", "Cortex-M0+")));
        assert_eq!((state.as_str(), reasons.as_str()), (INCONCLUSIVE, "OtherCore"));
        assert!(advice.contains("instructions are the Cortex-M3's"), "{advice}");
    }

    #[test]
    fn series_that_move_are_named() {
        let named = |level: fn(usize) -> u64| {
            let found = of_series(&(0..2000).map(level).collect::<Vec<_>>(), Some(0.9));
            (found.state, found.reasons.first().cloned())
        };
        // A sawtooth of 1 % stands for noise.
        assert_eq!(named(|n| 1000 + n as u64 % 11), (VALID.into(), None));
        assert_eq!(named(|n| 1000 + n as u64 % 11 + n as u64 / 20), (INCONCLUSIVE.into(), Some("Ramp".into())));
        let step = |n: usize| if n < 900 { 1000 } else { 1100 } + n as u64 % 11;
        assert_eq!(named(step), (INCONCLUSIVE.into(), Some("Step".into())));
        let bimodal = |n: usize| if n % 5 < 2 { 1000 } else { 1100 } + n as u64 % 11;
        assert_eq!(named(bimodal), (INCONCLUSIVE.into(), Some("Bimodal".into())));
        let dwelling = |n: usize| if (n / 130).is_multiple_of(2) { 1000 } else { 1100 } + n as u64 % 11;
        assert_eq!(named(dwelling), (INCONCLUSIVE.into(), Some("Bimodal".into())));
        let wave = |n: usize| 1000 + n as u64 % 11 + (50.0 * (n as f64 / 80.0).sin() + 50.0) as u64;
        assert_eq!(named(wave), (INCONCLUSIVE.into(), Some("Drifting".into())));
        assert_eq!(of_series(&[5; 10], None).reasons, ["TooFewSamples"]);
    }

    #[test]
    fn a_machine_that_was_shared_is_told() {
        let busy = Seen { stolen: Some(0.05), kilohertz: Some((1_000_000, 2_000_000)), ..Seen::default() };
        assert_eq!(of_machine(&busy, &[], None).reasons, ["ProcessorStolen", "ClockChanged"]);
        assert_eq!(of_machine(&Seen::default(), &[], None).state, VALID);
        let hot = CoolDown {
            target_millidegrees: 40_000,
            first_millidegrees: Some(70_000),
            last_millidegrees: Some(50_000),
            waited: std::time::Duration::from_secs(300),
        };
        assert_eq!(of_machine(&Seen::default(), &[], Some(&hot)).reasons, ["TooHot"]);
        let throttled = of_machine(&Seen::default(), &["ThermalThrottling"], None);
        assert_eq!((throttled.state.as_str(), throttled.reasons.len()), (INVALID, 1));
        let changed = Seen { governors: vec!["performance".into(), "powersave".into()], ..Seen::default() };
        assert_eq!(of_machine(&changed, &[], None).reasons, ["GovernorChanged"]);
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
