//! Fits the formula's one factor to published times, and tells how wrong it is on a time that it did not see.
//!
//! The published times are the best of MLPerf Tiny, closed division: a Cortex-M4 at 120 MHz (NUCLEO-L4R5ZI) and a Cortex-M7. The
//! latter's board is taken to be the 216 MHz DISCO-F746NG; were it a faster one, estimates for the M7 would be too short by the
//! ratio of the clocks. Instructions are our own firmware's on networks of the same shapes (`mlperf-tiny.json`, which
//! `tests/estimate.rs` makes), so that an estimate says how fast a device would be *if our kernels did as well on it as that
//! submission's*: what differs between the four networks is in the error, what is common to all four is in the factor.

use std::sync::LazyLock;

use edgeyard_job::spec::Core;
use edgeyard_record::InstructionMix;
use serde::{Deserialize, Serialize};

/// A published time, and what our firmware needs for a network of the same shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    /// `ad`, `ic`, `kws` or `vww`.
    pub network: String,
    /// Milliseconds of one inference.
    pub milliseconds: f64,
    /// Our firmware's instructions.
    pub mix: InstructionMix,
}

/// A core with published times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// The core.
    pub core: Core,
    /// QEMU's machine whose firmware was counted.
    pub machine: String,
    /// The board of the submission.
    pub board: String,
    /// Its clock.
    pub clock_hertz: u64,
    /// The four networks.
    pub published: Vec<Published>,
}

/// All cores with published times.
pub static REFERENCES: LazyLock<Vec<Reference>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("mlperf-tiny.json")).expect("a test reads the file that is compiled in")
});

/// What was fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Cycles over the table's cycles.
    pub factor: f64,
    /// The largest error of a ratio, when each network's time is told from the other three: 0.5 is half as much again, or a third
    /// less.
    pub leave_one_out_error: f64,
}

/// The fit for a core; `None` where nothing was published.
pub fn fit(core: Core) -> Option<Fit> {
    let reference = REFERENCES.iter().find(|reference| reference.core == core)?;
    let hertz = reference.clock_hertz as f64;
    let of = |p: &Published| (p.milliseconds / 1e3 * hertz, super::cycles_per_kind(core, &p.mix));
    Some(of_pairs(&reference.published.iter().map(of).collect::<Vec<_>>()))
}

/// From pairs of true cycles and the table's: the geometric mean of their ratios, for it is ratios that are wrong.
fn of_pairs(pairs: &[(f64, f64)]) -> Fit {
    let logarithms: Vec<f64> = pairs.iter().map(|(cycles, table)| (cycles / table).ln()).collect();
    let (sum, n) = (logarithms.iter().sum::<f64>(), logarithms.len() as f64);
    let error = |own: &f64| ((sum - own) / (n - 1.0) - own).abs();
    let worst = logarithms.iter().map(error).fold(0.0, f64::max);
    Fit { factor: (sum / n).exp(), leave_one_out_error: worst.exp_m1() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_factor_has_no_error() {
        let found = of_pairs(&[(20.0, 10.0), (2.0, 1.0), (600.0, 300.0)]);
        assert!((found.factor - 2.0).abs() < 1e-12 && found.leave_one_out_error < 1e-12, "{found:?}");
    }

    /// By hand: ratios 1, 1, 1 and 8. From the others, 8 is told as 1; each 1 as 2.
    #[test]
    fn the_error_is_of_what_was_left_out() {
        let found = of_pairs(&[(1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (8.0, 1.0)]);
        assert!((found.factor - 8.0_f64.powf(0.25)).abs() < 1e-12);
        assert!((found.leave_one_out_error - 7.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn references_are_those_that_were_published() {
        let found: Vec<_> = REFERENCES.iter().map(|r| (r.core, r.clock_hertz, r.published.len())).collect();
        assert_eq!(found, [(Core::CortexM4, 120_000_000, 4), (Core::CortexM7, 216_000_000, 4)]);
        for core in [Core::CortexM4, Core::CortexM7] {
            let Fit { factor, leave_one_out_error } = fit(core).unwrap();
            // A core that needs less than a third of a cycle for an instruction, or four, is none that exists.
            assert!((0.33..4.0).contains(&factor), "{core:?}: {factor}");
            assert!(leave_one_out_error > 0.0 && leave_one_out_error < 1.5, "{core:?}: {leave_one_out_error}");
        }
    }
}
