//! Runs the source and an artefact side by side on the same samples: how often each is right, and how far their
//! outputs are apart. Workers share the samples; sums are made in the samples' order, so that the result does not
//! depend on how many workers there were.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use edgeyard_job::report::{Accuracy, Agreement};
use edgeyard_job::spec::AccuracyMetric;
use edgeyard_measure::compare::mcnemar;
use thiserror::Error;

use crate::dataset::{Dataset, DatasetError};
use crate::runtime::{Row, Runner, RuntimeError, WithRunner, threads};

/// Samples handed to a worker at once. A constant: sums are made batch by batch.
const BATCH: usize = 32;
/// Each worker holds both models.
const MAX_WORKERS: usize = 8;
/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Why an evaluation fails.
#[derive(Debug, Error)]
pub enum EvaluationError {
    /// The data cannot be used.
    #[error("evaluation data: {0}")]
    Dataset(#[from] DatasetError),
    /// The source does not run.
    #[error("the source model: {0}")]
    Source(RuntimeError),
    /// The artefact does not run.
    #[error("the artefact: {0}")]
    Artifact(RuntimeError),
    /// A label that is no class of the model.
    #[error("evaluation data: sample {sample} has the label {label}, the model tells {classes} classes apart")]
    Label {
        /// Counts from 0.
        sample: usize,
        /// What stands in `y`.
        label: i64,
        /// How many scores the model gives.
        classes: usize,
    },
    /// A metric that only benchmarks compute.
    #[error("evaluation: {0:?} is computed by benchmarks only: take Top1Accuracy or Top5Accuracy")]
    Metric(AccuracyMetric),
    /// The artefact has other outputs than the source.
    #[error("the artefact gives {artifact} output values for a sample, the source {source_values}")]
    Outputs {
        /// Values of the artefact.
        artifact: usize,
        /// Values of the source.
        source_values: usize,
    },
    /// Somebody stopped it.
    #[error("cancelled")]
    Cancelled,
}

/// What to run on.
#[derive(Debug)]
pub enum Samples<'a> {
    /// The first `limit` samples of a dataset.
    Dataset {
        /// The data.
        dataset: &'a Dataset,
        /// How many at most.
        limit: usize,
        /// A class for each sample, and the metric; without, only agreement is found.
        labels: Option<(&'a [i64], AccuracyMetric)>,
    },
    /// Made up, the same every time: shows that an artefact runs when there is no data.
    Synthetic {
        /// Shape of one sample.
        shape: &'a [usize],
        /// How many.
        count: usize,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The source's score.
    pub source: Option<Accuracy>,
    /// The artefact's score.
    pub artifact: Option<Accuracy>,
    /// How far outputs are apart.
    pub agreement: Agreement,
    /// Probability of a difference in right answers as large as this one if both were equally good: McNemar, exact.
    pub mcnemar_p: Option<f64>,
}

impl Comparison {
    /// How far the artefact's score is below the source's.
    pub fn drop(&self) -> Option<f64> {
        Some(self.source.as_ref()?.value - self.artifact.as_ref()?.value)
    }
}

/// Runs both models on all samples. `step` hears (done, total) and says whether to go on.
pub fn compare(
    source: WithRunner<'_>,
    artifact: WithRunner<'_>,
    samples: &Samples<'_>,
    step: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Comparison, EvaluationError> {
    let (total, labels) = match samples {
        Samples::Dataset { dataset, limit, labels } => ((*limit).min(dataset.len()), *labels),
        Samples::Synthetic { count, .. } => (*count, None),
    };
    let workers = threads().clamp(1, MAX_WORKERS).min(total.div_ceil(BATCH).max(1));
    let (send, receive) = sync_channel::<(usize, Vec<f32>, usize)>(workers);
    let receive = Mutex::new(receive);
    let results: Mutex<Vec<(usize, Tally)>> = Mutex::new(Vec::new());
    let failure: Mutex<Option<EvaluationError>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let fail = |error: EvaluationError| {
        failure.lock().unwrap_or_else(|poison| poison.into_inner()).get_or_insert(error);
        stop.store(true, Ordering::SeqCst);
    };
    let serve = |source: &mut dyn Runner, artifact: &mut dyn Runner| -> Result<(), EvaluationError> {
        loop {
            let next = receive.lock().unwrap_or_else(|poison| poison.into_inner()).recv();
            let Ok((first, values, count)) = next else { return Ok(()) };
            if stop.load(Ordering::SeqCst) {
                // Keeps taking, so that the reader is never stuck behind a full channel.
                continue;
            }
            let tally = tally(source, artifact, first, &values, count, labels)?;
            results.lock().unwrap_or_else(|poison| poison.into_inner()).push((first, tally));
        }
    };
    let work = || -> Result<(), EvaluationError> {
        let mut ended = Ok(());
        source(&mut |source: &mut dyn Runner| {
            let loaded = artifact(&mut |artifact: &mut dyn Runner| ended = serve(source, artifact));
            if let Err(error) = loaded {
                ended = Err(EvaluationError::Artifact(error));
            }
        })
        .map_err(EvaluationError::Source)?;
        ended
    };
    let read: Result<(), EvaluationError> = std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                if let Err(error) = work() {
                    fail(error);
                    while receive.lock().unwrap_or_else(|poison| poison.into_inner()).recv().is_ok() {}
                }
            });
        }
        let mut feed = |first: usize, values: Vec<f32>, count: usize| -> Result<bool, EvaluationError> {
            if !step(first as u64, total as u64) {
                stop.store(true, Ordering::SeqCst);
                return Err(EvaluationError::Cancelled);
            }
            Ok(!stop.load(Ordering::SeqCst) && send.send((first, values, count)).is_ok())
        };
        let outcome = match samples {
            Samples::Dataset { dataset, .. } => dataset.for_each_batch(total, BATCH, &mut feed),
            Samples::Synthetic { shape, count } => {
                let size: usize = shape.iter().product();
                (0..*count).step_by(BATCH).try_for_each(|first| {
                    let rows = BATCH.min(count - first);
                    feed(first, synthetic(first * size, rows * size), rows).map(drop)
                })
            }
        };
        drop(send);
        outcome
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|poison| poison.into_inner()) {
        return Err(error);
    }
    read?;
    step(total as u64, total as u64);
    let mut results = results.into_inner().unwrap_or_else(|poison| poison.into_inner());
    results.sort_by_key(|(first, _)| *first);
    let sum = results.iter().fold(Tally::default(), |sum, (_, tally)| sum.and(tally));
    let score = |correct: u64| labels.map(|(_, metric)| accuracy(metric, correct, sum.samples));
    Ok(Comparison {
        source: score(sum.source_correct),
        artifact: score(sum.artifact_correct),
        agreement: Agreement {
            sample_count: sum.samples,
            sqnr_db: sqnr(sum.signal, sum.noise),
            max_abs_difference: sum.max_difference,
            same_top1: if sum.samples == 0 { 0.0 } else { sum.same_top1 as f64 / sum.samples as f64 },
        },
        mcnemar_p: labels.map(|_| mcnemar(sum.only_source, sum.only_artifact)),
    })
}

/// Signal to noise in dB; `None` when there is no noise, or no signal to compare it with.
pub fn sqnr(signal: f64, noise: f64) -> Option<f64> {
    (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10())
}

/// A share with its 95 % Wilson interval.
pub fn accuracy(metric: AccuracyMetric, correct: u64, samples: u64) -> Accuracy {
    let n = samples.max(1) as f64;
    let share = correct as f64 / n;
    let denominator = 1.0 + Z * Z / n;
    let centre = (share + Z * Z / (2.0 * n)) / denominator;
    let half = Z / denominator * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    Accuracy {
        metric,
        value: share,
        lower: (centre - half).max(0.0).min(share),
        upper: (centre + half).min(1.0).max(share),
        sample_count: samples,
        correct,
    }
}

#[derive(Debug, Clone, Default)]
struct Tally {
    samples: u64,
    source_correct: u64,
    artifact_correct: u64,
    /// Samples that one of them alone got right.
    only_source: u64,
    only_artifact: u64,
    same_top1: u64,
    signal: f64,
    noise: f64,
    max_difference: f64,
}

impl Tally {
    fn and(mut self, other: &Self) -> Self {
        let Self {
            samples,
            source_correct,
            artifact_correct,
            only_source,
            only_artifact,
            same_top1,
            signal,
            noise,
            max_difference,
        } = other;
        self.only_source += only_source;
        self.only_artifact += only_artifact;
        self.samples += samples;
        self.source_correct += source_correct;
        self.artifact_correct += artifact_correct;
        self.same_top1 += same_top1;
        self.signal += signal;
        self.noise += noise;
        self.max_difference = self.max_difference.max(*max_difference);
        self
    }
}

fn tally(
    source: &mut dyn Runner,
    artifact: &mut dyn Runner,
    first: usize,
    values: &[f32],
    count: usize,
    labels: Option<(&[i64], AccuracyMetric)>,
) -> Result<Tally, EvaluationError> {
    let expected = run(source, values, count).map_err(EvaluationError::Source)?;
    let got = run(artifact, values, count).map_err(EvaluationError::Artifact)?;
    let mut tally = Tally { samples: count as u64, ..Tally::default() };
    for (offset, (expected, got)) in expected.iter().zip(&got).enumerate() {
        if expected.values.len() != got.values.len() || expected.scores != got.scores {
            return Err(EvaluationError::Outputs { artifact: got.values.len(), source_values: expected.values.len() });
        }
        for (right, value) in expected.values.iter().zip(&got.values) {
            let difference = f64::from(*right) - f64::from(*value);
            tally.signal += f64::from(*right).powi(2);
            tally.noise += difference * difference;
            tally.max_difference = tally.max_difference.max(difference.abs());
        }
        let best = |row: &Row| (0..row.scores).find(|class| rank(row.scores(), *class) == Some(0));
        tally.same_top1 += u64::from(best(expected) == best(got));
        if let Some((labels, metric)) = labels {
            let sample = first + offset;
            let label = labels[sample];
            let class = usize::try_from(label).ok().filter(|class| *class < expected.scores);
            let class = class.ok_or(EvaluationError::Label { sample, label, classes: expected.scores })?;
            let within = metric.among_best().ok_or(EvaluationError::Metric(metric))?;
            let right = |row: &Row| u64::from(rank(row.scores(), class).is_some_and(|rank| rank < within));
            let (by_source, by_artifact) = (right(expected), right(got));
            tally.source_correct += by_source;
            tally.artifact_correct += by_artifact;
            tally.only_source += u64::from(by_source > by_artifact);
            tally.only_artifact += u64::from(by_artifact > by_source);
        }
    }
    Ok(tally)
}

/// Runs in pieces that the runner takes.
fn run(runner: &mut dyn Runner, values: &[f32], count: usize) -> Result<Vec<Row>, RuntimeError> {
    let size = values.len() / count.max(1);
    let batch = runner.batch().max(1);
    let mut rows = Vec::with_capacity(count);
    for piece in values.chunks(batch * size.max(1)) {
        rows.extend(runner.run(piece, piece.len() / size.max(1))?);
    }
    Ok(rows)
}

/// How many classes come before `class`: higher scores, and equal ones with a lower number, as an argmax has it.
/// `None` for a score that is no number.
fn rank(scores: &[f32], class: usize) -> Option<usize> {
    let own = scores.get(class).copied().filter(|score| !score.is_nan())?;
    Some(scores.iter().enumerate().filter(|(other, score)| **score > own || **score == own && *other < class).count())
}

/// Values between 0 and 1 from a counter, the same on every machine.
pub(crate) fn synthetic(from: usize, len: usize) -> Vec<f32> {
    (from..from + len)
        .map(|at| {
            // The finaliser of SplitMix64.
            let mut z = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scores(f32);

    impl Runner for Scores {
        fn batch(&self) -> usize {
            3
        }

        fn run(&mut self, samples: &[f32], count: usize) -> Result<Vec<Row>, RuntimeError> {
            assert!(count <= 3 && samples.len() == count * 4);
            let row = |sample: &[f32]| Row { values: sample.iter().map(|v| v + self.0).collect(), scores: 4 };
            Ok(samples.chunks(4).map(row).collect())
        }
    }

    type Lend<'a> = &'a mut dyn FnMut(&mut dyn Runner);

    fn with(shift: f32) -> impl Fn(Lend<'_>) -> Result<(), RuntimeError> + Sync {
        move |use_it| {
            use_it(&mut Scores(shift));
            Ok(())
        }
    }

    #[test]
    fn the_interval_is_wilsons() {
        // Newcombe (1998), table I: 81 of 263 and 0 of 20.
        let some = accuracy(AccuracyMetric::Top1Accuracy, 81, 263);
        assert!((some.lower - 0.2553).abs() < 5e-5 && (some.upper - 0.3662).abs() < 5e-5, "{some:?}");
        let none = accuracy(AccuracyMetric::Top1Accuracy, 0, 20);
        assert!(none.lower == 0.0 && (none.upper - 0.1611).abs() < 5e-5, "{none:?}");
    }

    #[test]
    fn ties_go_to_the_first_class() {
        assert_eq!(rank(&[1.0, 3.0, 3.0, 2.0], 1), Some(0));
        assert_eq!(rank(&[1.0, 3.0, 3.0, 2.0], 2), Some(1));
        assert_eq!(rank(&[f32::NAN, 0.0], 0), None);
    }

    #[test]
    fn both_models_see_every_sample_once() {
        let samples = Samples::Synthetic { shape: &[4], count: 100 };
        let mut last = 0;
        let mut step = |done, total| {
            assert_eq!(total, 100);
            last = done;
            true
        };
        let found = compare(&with(0.0), &with(0.5), &samples, &mut step).unwrap();
        assert_eq!((found.agreement.sample_count, last), (100, 100));
        assert!((found.agreement.max_abs_difference - 0.5).abs() < 1e-6);
        assert_eq!(found.agreement.same_top1, 1.0);
        let signal: f64 = synthetic(0, 400).iter().map(|v| f64::from(*v).powi(2)).sum();
        let right = 10.0 * (signal / (400.0 * 0.25)).log10();
        assert!((found.agreement.sqnr_db.unwrap() - right).abs() < 1e-6);
    }

    #[test]
    fn equal_outputs_have_no_noise() {
        let samples = Samples::Synthetic { shape: &[4], count: 5 };
        let found = compare(&with(0.0), &with(0.0), &samples, &mut |_, _| true);
        assert_eq!(found.unwrap().agreement.sqnr_db, None);
    }

    #[test]
    fn cancelling_and_failing_end_the_work() {
        let samples = Samples::Synthetic { shape: &[4], count: 1000 };
        let cancelled = compare(&with(0.0), &with(0.0), &samples, &mut |done, _| done < 64);
        assert!(matches!(cancelled, Err(EvaluationError::Cancelled)));
        let broken = |_: &mut dyn FnMut(&mut dyn Runner)| Err(RuntimeError::Interface("no".to_owned()));
        let failed = compare(&with(0.0), &broken, &samples, &mut |_, _| true);
        assert!(matches!(failed, Err(EvaluationError::Artifact(_))));
    }
}
