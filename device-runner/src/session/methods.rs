//! The harness in its own words: how it measures, for who reads a record without this program.

use std::collections::BTreeMap;

use edgeyard_job::spec::{Backend, Scenario};
use edgeyard_measure::interval::CONFIDENCE;
use edgeyard_measure::{PERCENTILE_METHOD, bootstrap, early_stopping, verdict};

use super::subject::{COUNTED_INPUTS, KEPT_INPUTS, MOST_KEPT, REWARM};
use crate::machine::monitor;
use crate::plan::Plan;
use crate::timing::Timing;

/// How a plan is measured.
pub fn describe(plan: &Plan, timing: &Timing, clock_is_emulated: bool) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    let mut say = |name: &str, what: String| {
        said.insert(name.to_owned(), what);
    };
    let of_data = if plan.data.is_some() { "samples of the data set" } else { "numbers made" };
    say("isolation", "a process for each variant; accuracy in the process that was measured".into());
    if clock_is_emulated {
        say("inputs", format!("{COUNTED_INPUTS} {of_data}, by the seed; instructions are counted twice on each"));
        if matches!(plan.backend, Backend::CortexM { serial_port: None, .. }) {
            say(
                "counts",
                "the machine's timer under QEMU's -icount; on the first input each operator's count is confirmed by a TCG plugin"
                    .into(),
            );
        }
        return said;
    }
    let inputs = if plan.data.is_some() && plan.workload.scenario == Scenario::Offline {
        format!("samples of the data set in order, up to {MOST_KEPT} bytes of them, over and over")
    } else {
        format!("{KEPT_INPUTS} {of_data}, by the seed, over and over")
    };
    say("inputs", inputs);
    say(
        "timed",
        match plan.workload.scenario {
            Scenario::SingleStream | Scenario::Offline | Scenario::Tiny => "the inference, without setting its input",
            Scenario::MultiStream => {
                "from the first inference to the last of a query, with setting inputs between them"
            }
            Scenario::Server => "from the scheduled arrival to the answer, with waiting and setting the input",
        }
        .into(),
    );
    say(
        "turns",
        format!(
            "{} of {:?} for each variant, A B A B, {REWARM} inferences before each",
            timing.windows,
            timing.window()
        ),
    );
    let (least, most) = timing.warm_up;
    say("warmUp", format!("{least:?} to {most:?}, until medians show no trend and the temperature stays"));
    say(
        "intervals",
        format!(
            "{} %, order statistics for percentiles, block bootstrap (BCa, {} resamples) for mean and median",
            CONFIDENCE * 100.0,
            bootstrap::RESAMPLES
        ),
    );
    say("percentiles", PERCENTILE_METHOD.into());
    say("earlyStopping", format!("LoadGen's, confidence {}", early_stopping::CONFIDENCE));
    say(
        "comparison",
        format!(
            "windows' medians: Mann-Whitney and Hodges-Lehmann, Holm, significance {}, beside the noise floor of the reference",
            verdict::SIGNIFICANCE
        ),
    );
    say("monitorInterval", format!("{:?}", monitor::INTERVAL));
    said
}
