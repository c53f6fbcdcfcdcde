//! SciPy as an independent implementation. Inputs are drawn here, written into a small program and printed back by Python as
//! numbers, in full precision.

use std::io::Write as _;
use std::process::{Command, Stdio};

use edgeyard_measure::compare::{hodges_lehmann, holm, mann_whitney, mcnemar};
use edgeyard_measure::random::Random;
use edgeyard_measure::schedule::{kolmogorov_smirnov, poisson};
use edgeyard_measure::series::{autocorrelation, mann_kendall};
use edgeyard_measure::special::{beta_quantile, beta_regularized, binomial_cdf, normal_quantile};
use edgeyard_measure::{bootstrap, early_stopping, minimum_queries, order_statistic, wilson};

/// What a program that can use `np`, `stats`, `special` and `say` prints.
fn scipy(program: &str) -> Vec<f64> {
    let python = std::env::var_os("EDGEYARD_PYTHON")
        .expect("EDGEYARD_PYTHON is not set: run `cargo xtask setup`, then the tests by `cargo xtask test`");
    let mut child = Command::new(python)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("EDGEYARD_PYTHON runs");
    let prelude = "import numpy as np\nfrom scipy import stats, special\n\
                   def say(*x):\n    for y in x: print(repr(float(y)))\n";
    child
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(format!("{prelude}{program}").as_bytes())
        .expect("Python reads its program");
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "Python failed on:\n{program}");
    let text = String::from_utf8(output.stdout).expect("Python prints text");
    text.split_whitespace().map(|x| x.parse().expect("Python prints numbers")).collect()
}

#[track_caller]
fn agree(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let off = (found - wanted).abs() / wanted.abs().max(1e-6);
        assert!(off <= tolerance, "number {index} is {found}, SciPy's {wanted}");
    }
}

fn normals(random: &mut Random, n: usize, mean: f64) -> Vec<f64> {
    (0..n).map(|_| mean + random.normal()).collect()
}

#[test]
fn distributions() {
    let mut random = Random::new(1);
    let (mut found, mut program) = (Vec::new(), String::new());
    for _ in 0..200 {
        let (a, b) = ((12.0 * random.unit()).exp(), (12.0 * random.unit()).exp());
        let p = 0.001 + 0.998 * random.unit();
        let x = beta_quantile(p, a, b);
        found.push(x);
        program.push_str(&format!("say(special.betaincinv({a:?}, {b:?}, {p:?}))\n"));
        if x < 1.0 {
            found.push(beta_regularized(x, a, b));
            program.push_str(&format!("say(special.betainc({a:?}, {b:?}, {x:?}))\n"));
        }
        found.push(normal_quantile(p));
        program.push_str(&format!("say(special.ndtri({p:?}))\n"));
        let n = 1 + random.below(1_000_000) as u64;
        let k = (n as f64 * 0.1) as i64;
        found.push(binomial_cdf(k, n, 0.1));
        program.push_str(&format!("say(stats.binom.cdf({k}, {n}, 0.1))\n"));
    }
    agree(&found, &scipy(&program), 1e-9);
}

#[test]
fn wilson_intervals() {
    let mut random = Random::new(2);
    let (mut found, mut program) = (Vec::new(), String::new());
    for _ in 0..200 {
        let n = 1 + random.below(50_000);
        let k = random.below(n + 1);
        let confidence = 0.5 + 0.499 * random.unit();
        let interval = wilson(k as u64, n as u64, confidence).unwrap();
        found.extend([interval.lower, interval.upper]);
        program.push_str(&format!(
            "i = stats.binomtest({k}, {n}).proportion_ci({confidence:?}, method='wilson'); say(i.low, i.high)\n"
        ));
    }
    agree(&found, &scipy(&program), 1e-9);
}

#[test]
fn order_statistic_intervals() {
    let mut random = Random::new(3);
    let (mut found, mut program) = (Vec::new(), String::new());
    for _ in 0..300 {
        let n = 1 + random.below(20_000);
        let p = 0.01 + 0.98 * random.unit();
        let (lower, upper) = order_statistic(n, p, 0.95);
        found.extend([lower, upper].map(|place| place.map_or(-1.0, |place| place as f64)));
        // SciPy's own interval of a quantile; it is of the same order statistics, by the same binomial tails.
        program.push_str(&format!(
            "i = stats.quantile_test(np.arange({n}, dtype=float), q=0, p={p:?}).confidence_interval(0.95)\n\
             say(*[-1 if not np.isfinite(x) else x for x in i])\n"
        ));
    }
    let wanted = scipy(&program);
    assert_eq!(found, wanted);
}

#[test]
fn early_stopping_by_another_beta_function() {
    let mut random = Random::new(4);
    let (mut found, mut program) = (
        Vec::new(),
        String::from(
            "def least(p, t):\n    low, high = 1, 1\n    while special.betainc(high, t + 1, p) > 0.01: high *= 2\n    \
         while low < high:\n        m = (low + high) // 2\n        \
         if special.betainc(m, t + 1, p) <= 0.01: high = m\n        else: low = m + 1\n    return low\n",
        ),
    );
    for _ in 0..200 {
        let p = [0.5, 0.9, 0.95, 0.97, 0.99, 0.999][random.below(6)];
        let n = minimum_queries(p) + random.below(2_000_000) as u64;
        let discarded = early_stopping(p, n).unwrap().discarded;
        found.extend([1.0, 0.0, minimum_queries(p) as f64]);
        // As many may be slow, but not one more.
        let t = discarded + 1;
        program.push_str(&format!(
            "say(least({p}, {t}) + {t} <= {n}, least({p}, {t} + 1) + {t} + 1 <= {n}, least({p}, 1) + 1)\n"
        ));
    }
    assert_eq!(found, scipy(&program));
}

#[test]
fn rank_tests() {
    let mut random = Random::new(5);
    let (mut found, mut program) = (Vec::new(), String::new());
    for round in 0..100 {
        let (m, n) = (4 + random.below(40), 4 + random.below(40));
        let shift = random.unit();
        let (mut a, mut b) = (normals(&mut random, m, 0.0), normals(&mut random, n, shift));
        if round % 2 == 0 {
            // With ties.
            a.iter_mut().chain(&mut b).for_each(|x| *x = (*x * 3.0).round());
        }
        let test = mann_whitney(&a, &b).unwrap();
        found.extend([test.u, test.p]);
        program.push_str(&format!(
            "t = stats.mannwhitneyu({a:?}, {b:?}, method='asymptotic'); say(t.statistic, t.pvalue)\n"
        ));
        // Kendall's tau against time is the trend test without the correction for continuity, of one for two neighbours
        // exchanged.
        let p = mann_kendall(&b);
        found.push(p);
        program.push_str(&format!(
            "y = np.array({b:?}); S = sum(np.sign(y[j] - y[i]) for i in range(len(y)) for j in range(i))\n\
             k = stats.kendalltau(np.arange(len(y)), y, method='asymptotic').pvalue\n\
             say(1 if S == 0 else 2 * stats.norm.sf((abs(S) - 1) * stats.norm.isf(k / 2) / abs(S)))\n"
        ));
        found.push(autocorrelation(&b, 1));
        program.push_str("d = y - y.mean(); say((d[:-1] * d[1:]).sum() / (d * d).sum())\n");
    }
    agree(&found, &scipy(&program), 1e-9);
}

#[test]
fn hodges_and_lehmanns_interval_is_what_the_exact_test_does_not_reject() {
    let mut random = Random::new(6);
    let (mut found, mut program) = (Vec::new(), String::new());
    for _ in 0..30 {
        let (m, n) = (4 + random.below(16), 4 + random.below(16));
        let (a, b) = (normals(&mut random, m, 0.0), normals(&mut random, n, 0.7));
        let (shift, interval) = hodges_lehmann(&a, &b, 0.95).unwrap();
        found.extend([shift, 1.0, 0.0, 1.0, 0.0]);
        let (lower, upper) = (interval.lower, interval.upper);
        program.push_str(&format!(
            "a, b = np.array({a:?}), np.array({b:?}); say(np.median(np.subtract.outer(b, a)))\n\
             p = lambda d: stats.mannwhitneyu(a, b - d, method='exact').pvalue > 0.05\n\
             e = 1e-9; say(p({lower:?} + e), p({lower:?} - e), p({upper:?} - e), p({upper:?} + e))\n"
        ));
    }
    agree(&found, &scipy(&program), 1e-9);
}

#[test]
fn mcnemar_and_holm() {
    let mut random = Random::new(7);
    let (mut found, mut program) = (Vec::new(), String::new());
    for _ in 0..200 {
        let (b, c) = (random.below(300), random.below(300));
        found.push(mcnemar(b as u64, c as u64));
        program.push_str(&format!("say(stats.binomtest({b}, {b} + {c}, 0.5).pvalue if {b} + {c} else 1)\n"));
    }
    for _ in 0..50 {
        let n = 1 + random.below(12);
        let p: Vec<f64> = (0..n).map(|_| random.unit().powi(3)).collect();
        found.extend(holm(&p));
        // Holm 1979: going up, the largest so far of the i-th smallest times the number of those not yet passed.
        program.push_str(&format!(
            "p = np.array({p:?}); o = np.argsort(p); a = np.empty(len(p))\n\
             a[o] = np.minimum(1, np.maximum.accumulate(p[o] * np.arange(len(p), 0, -1))); say(*a)\n"
        ));
    }
    agree(&found, &scipy(&program), 1e-9);
}

#[test]
fn bootstrap_intervals_of_independent_values() {
    let mut random = Random::new(8);
    let mut program = String::new();
    let (mut found, mut scales) = (Vec::new(), Vec::new());
    for seed in 0..6 {
        // Skewed, so that bias and acceleration matter.
        let values: Vec<f64> = (0..400).map(|_| 10.0 + random.exponential()).collect();
        let mean = bootstrap::mean_of_blocks(&values, 1, 0.95, seed).unwrap();
        let median = bootstrap::median_of_blocks(&values, 1, 0.95, seed).unwrap();
        found.extend([mean.lower, mean.upper, median.lower, median.upper]);
        scales.extend([mean.upper - mean.lower, mean.upper - mean.lower]);
        scales.extend([median.upper - median.lower, median.upper - median.lower]);
        program.push_str(&format!(
            "for f in (np.mean, np.median):\n    \
             i = stats.bootstrap(({values:?},), f, n_resamples=20000, batch=1000, method='BCa', rng=1)\n    \
             say(i.confidence_interval.low, i.confidence_interval.high)\n"
        ));
    }
    let wanted = scipy(&program);
    for ((found, wanted), scale) in found.iter().zip(&wanted).zip(&scales) {
        // A 2.5 % quantile of 2000 resamples has a standard error of √(0.025·0.975/2000)/φ(1.96) = 0.06 deviations, that
        // is 0.015 of the interval; the median's resamples lie on a grid of the values.
        assert!((found - wanted).abs() < 0.08 * scale, "{found} is not {wanted}, of an interval of {scale}");
    }
}

#[test]
fn schedules_are_poisson_processes() {
    let mut found = Vec::new();
    let mut program = String::new();
    for (rate, seed) in [(0.5, 1), (1000.0, 42), (250_000.0, 7)] {
        let times = poisson(rate, 5000, seed);
        let gaps: Vec<f64> = std::iter::once(times[0])
            .chain(times.windows(2).map(|pair| pair[1] - pair[0]))
            .map(|gap| gap as f64 / 1e9)
            .collect();
        let (d, p) = kolmogorov_smirnov(&gaps, |x| 1.0 - (-rate * x).exp());
        assert!(p > 0.01, "{p}");
        found.push(d);
        program.push_str(&format!(
            "t = stats.kstest({gaps:?}, 'expon', args=(0, 1 / {rate:?})); say(t.statistic); assert t.pvalue > 0.01\n"
        ));
        // Counts of a Poisson process in equal times vary as much as they amount to.
        program.push_str(&format!(
            "c = np.bincount((np.cumsum({gaps:?}) * {rate:?} / 10).astype(int))[:-1]\n\
             assert 0.8 < c.var() / c.mean() < 1.25, (c.var(), c.mean())\n"
        ));
    }
    agree(&found, &scipy(&program), 1e-9);
}

#[test]
fn the_kolmogorov_test() {
    let mut random = Random::new(9);
    let (mut found, mut program) = (Vec::new(), String::new());
    for _ in 0..40 {
        let n = 100 + random.below(900);
        let bend = 0.9 + 0.2 * random.unit();
        let values: Vec<f64> = (0..n).map(|_| random.unit().powf(bend)).collect();
        let (d, p) = kolmogorov_smirnov(&values, |x| x);
        found.push((d, p));
        program.push_str(&format!("t = stats.kstest({values:?}, 'uniform'); say(t.statistic, t.pvalue)\n"));
    }
    let wanted = scipy(&program);
    for ((d, p), wanted) in found.into_iter().zip(wanted.chunks_exact(2)) {
        assert!((d - wanted[0]).abs() < 1e-12, "{d} is not {}", wanted[0]);
        // SciPy's is exact, ours asymptotic.
        assert!((p - wanted[1]).abs() < 0.01, "{p} is not {}", wanted[1]);
    }
}
