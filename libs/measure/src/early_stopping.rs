//! Early stopping as LoadGen does it (`early_stopping.cc`, MLPerf inference rules, appendix): how many of the slowest
//! queries must be discarded so that, with confidence `c`, the percentile is not above the slowest one left.
//!
//! With t slow queries among n, LoadGen asks for the least h with I_{p-d}(h, t+1) ≤ 1-c and h + t ≤ n. The left side is
//! P(Bin(h+t, 1-p+d) ≤ t), so the largest t that n allows is found directly by bisection.

use crate::special::binomial_cdf;

/// LoadGen's confidence.
pub const CONFIDENCE: f64 = 0.99;

/// What early stopping says about n queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// The percentile, 0 to 1.
    pub percentile: f64,
    /// Queries.
    pub n: u64,
    /// How many of the slowest are discarded.
    pub discarded: u64,
}

impl EarlyStopping {
    /// Where the estimate stands in the sorted series: the slowest that is left.
    pub fn index(&self) -> usize {
        (self.n - self.discarded - 1) as usize
    }

    /// The estimate.
    ///
    /// # Panics
    /// Never, if `sorted` has the `n` that was asked for.
    pub fn estimate<T: Copy>(&self, sorted: &[T]) -> Option<T> {
        sorted.get(self.index()).copied()
    }
}

/// Fewer queries than the percentile needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{n} queries are too few for this percentile: it needs at least {needed}")]
pub struct TooFewQueries {
    /// Queries there are.
    pub n: u64,
    /// Queries needed.
    pub needed: u64,
}

/// Whether `n` queries, of which `over` were above a latency bound, show that the percentile (0 to 1, exclusive) keeps the
/// bound: LoadGen's rule for Server runs, n ≥ h + t with t = `over`.
pub fn keeps_bound(percentile: f64, n: u64, over: u64) -> bool {
    // Binomial probabilities of k ≥ n are 1, so that no query, or none but slow ones, keep nothing.
    holds(n, over, percentile)
}

/// P(at most `t` of `n` queries are slow) ≤ 1 - c.
fn holds(n: u64, t: u64, percentile: f64) -> bool {
    binomial_cdf(t as i64, n, 1.0 - percentile) < 1.0 - CONFIDENCE
}

/// How many of `n` queries are discarded for the percentile (0 to 1, exclusive).
///
/// # Errors
/// [`TooFewQueries`] with the number needed.
pub fn early_stopping(percentile: f64, n: u64) -> Result<EarlyStopping, TooFewQueries> {
    if n < 2 || !holds(n, 1, percentile) {
        return Err(TooFewQueries { n, needed: minimum_queries(percentile) });
    }
    // holds(t) falls with t: true at 1, false at n.
    let (mut good, mut bad) = (1, n);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(n, middle, percentile) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    // LoadGen's t counts the estimate itself.
    Ok(EarlyStopping { percentile, n, discarded: good - 1 })
}

/// The least number of queries for which the percentile (0 to 1, exclusive) can be told.
pub fn minimum_queries(percentile: f64) -> u64 {
    let mut enough = 2_u64;
    while !holds(enough, 1, percentile) {
        enough *= 2;
    }
    let mut few = enough / 2;
    while enough - few > 1 {
        let middle = few + (enough - few) / 2;
        if holds(middle, 1, percentile) {
            enough = middle;
        } else {
            few = middle;
        }
    }
    enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::beta_regularized;
    use proptest::prelude::*;

    #[test]
    fn the_minimum_table_of_the_rules() {
        let found = [0.9, 0.95, 0.97, 0.99, 0.999].map(minimum_queries);
        assert_eq!(found, [64, 130, 219, 662, 6636]);
    }

    #[test]
    fn what_published_logs_discard() {
        assert_eq!(early_stopping(0.9, 944_092).unwrap().discarded, 93_730);
        assert_eq!(early_stopping(0.9, 550_312).unwrap().discarded, 54_512);
    }

    #[test]
    fn too_few_says_how_many_are_needed() {
        assert_eq!(early_stopping(0.99, 100).unwrap_err(), TooFewQueries { n: 100, needed: 662 });
        let least = early_stopping(0.99, 662).unwrap();
        assert_eq!((least.discarded, least.index()), (0, 661));
    }

    /// LoadGen's own loop: for t = 1, 2, … the least h, until h + t is above n. P(Bin(h + t, q) ≤ t) is carried along from
    /// one h or t to the next by the two recurrences of the binomial distribution, so no function of ours is used.
    fn brute_force(percentile: f64, n: u64) -> Option<u64> {
        let q = 1.0 - percentile;
        // Of m = h + t trials: P(≤ t) and P(= t).
        let (mut m, mut t) = (1.0_f64, 0.0_f64);
        let (mut below, mut at) = (percentile, percentile);
        let mut found = None;
        loop {
            t += 1.0;
            at *= (m - t + 1.0) / t * q / percentile;
            below += at;
            while below > 0.01 {
                below -= q * at;
                at *= (m + 1.0) / (m + 1.0 - t) * percentile;
                m += 1.0;
            }
            if m > n as f64 {
                return found;
            }
            found = Some(t as u64 - 1);
        }
    }

    #[test]
    fn brute_force_agrees_on_ten_thousand_inputs() {
        let mut random = crate::random::Random::new(20);
        let mut told = 0;
        for _ in 0..10_000 {
            // Products of more factors than these would underflow.
            let (least, most) = if random.unit() < 0.5 { (0.9, 6000.0_f64) } else { (0.5, 900.0) };
            let percentile = least + (0.9995 - least) * random.unit();
            let n = (most.ln() * random.unit()).exp() as u64 + 1;
            let fast = early_stopping(percentile, n).ok().map(|found| found.discarded);
            told += usize::from(fast.is_some());
            assert_eq!(fast, brute_force(percentile, n), "n {n} percentile {percentile}");
        }
        assert!(told > 3000, "only {told} had queries enough");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The definition, with the incomplete beta function: the least h with I_p(h, t + 1) ≤ 0.01.
        #[test]
        fn the_definition_agrees(n in 2_u64..400, percentile in 0.5_f64..0.98) {
            let least = |t: u64| (1..=n).find(|h| beta_regularized(percentile, *h as f64, t as f64 + 1.0) <= 0.01);
            let wanted = (1..n).take_while(|t| least(*t).is_some_and(|h| h + t <= n)).last().map(|t| t - 1);
            prop_assert_eq!(early_stopping(percentile, n).ok().map(|found| found.discarded), wanted);
        }
    }

    #[test]
    fn a_bound_is_kept_as_loadgen_judges_it() {
        // Without a slow query ln 0.01 / ln 0.99 = 458.2 are needed.
        assert!(keeps_bound(0.99, 459, 0) && !keeps_bound(0.99, 458, 0));
        assert!(keeps_bound(0.99, 662, 1) && !keeps_bound(0.99, 661, 1));
        assert!(keeps_bound(0.9, 944_092, 93_731) && !keeps_bound(0.9, 944_092, 93_732));
        assert!(!keeps_bound(0.9, 0, 0) && !keeps_bound(0.9, 100, 100));
    }
}
