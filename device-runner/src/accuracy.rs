//! How right outputs are, recomputed from their raw bytes: the share of right answers with Wilson's interval, or a measure
//! of the scores with an interval by bootstrap.

mod measures;

use edgeyard_job::spec::AccuracyMetric;
use edgeyard_measure::interval::{CONFIDENCE, Interval};
use edgeyard_measure::wilson;

use crate::error::Failure;
use crate::npz;
use crate::plan::{Answers, Data, Scoring};
use crate::tensor::{Array, Element, TensorInfo};

/// A bootstrap of fewer samples says nothing.
const LEAST_FOR_BOOTSTRAP: usize = 16;

/// A score.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The score.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Interval,
    /// Where the interval is from: `Wilson` or `Bootstrap`.
    pub interval_method: &'static str,
    /// Samples scored.
    pub count: u64,
    /// Which samples were answered right, in order; `None` where the metric does not count them.
    pub right: Option<Vec<bool>>,
}

impl Score {
    /// Samples answered right.
    pub fn correct(&self) -> Option<u64> {
        Some(self.right.as_ref()?.iter().filter(|right| **right).count() as u64)
    }
}

/// The metric's name.
pub const fn metric_name(metric: AccuracyMetric) -> &'static str {
    match metric {
        AccuracyMetric::Top1Accuracy => "Top1Accuracy",
        AccuracyMetric::Top5Accuracy => "Top5Accuracy",
        AccuracyMetric::AreaUnderCurve => "AreaUnderCurve",
        AccuracyMetric::MeanAbsoluteError => "MeanAbsoluteError",
        AccuracyMetric::MacroF1 => "MacroF1",
    }
}

/// Reads a data set: `x`, and with a metric also `y`.
///
/// # Errors
/// `DatasetMalformed`, `EvaluationEmpty`, `LabelsMissing`.
pub fn read_data(archive: &[u8], metric: Option<AccuracyMetric>, what: &str) -> Result<Data, Failure> {
    let found = || format!("it has {:?}", npz::names(archive));
    let x = npz::read(archive, "x")
        .map_err(|failure| failure.about(what))?
        .ok_or_else(|| Failure::bad_input("DatasetMalformed", format!("{what} has no array \"x\": {}", found())))?;
    if x.count() == 0 {
        return Err(Failure::bad_input(
            "EvaluationEmpty",
            format!("{what} has no samples: its x has shape {:?}", x.shape),
        ));
    }
    let scoring = match metric {
        None => None,
        Some(metric) => {
            let y = npz::read(archive, "y").map_err(|failure| failure.about(what))?.ok_or_else(|| {
                Failure::bad_input("LabelsMissing", format!("{what} has no array \"y\" with the labels: {}", found()))
            })?;
            Some(Scoring { answers: answers(&y, x.count(), metric, what)?, metric })
        }
    };
    Ok(Data { x, digest: edgeyard_record::digest(archive), scoring })
}

fn answers(y: &Array, count: usize, metric: AccuracyMetric, what: &str) -> Result<Answers, Failure> {
    let refused = |why: String| Err(Failure::bad_input("DatasetMalformed", format!("{what}: {why}")));
    if y.count() != count {
        return refused(format!("x has {count} samples and y has {} labels", y.count()));
    }
    let is_counted = matches!(metric, AccuracyMetric::Top1Accuracy | AccuracyMetric::Top5Accuracy);
    if !is_counted && count < LEAST_FOR_BOOTSTRAP {
        return refused(format!(
            "{count} samples are too few for the interval of {}: give {LEAST_FOR_BOOTSTRAP} or more",
            metric_name(metric)
        ));
    }
    let numbers: Vec<f64> = y.data.chunks_exact(y.element.size()).map(|bytes| y.element.read(bytes)).collect();
    if metric == AccuracyMetric::MeanAbsoluteError {
        return match numbers.iter().find(|number| !number.is_finite()) {
            Some(odd) => refused(format!("y holds {odd}, from which nothing has a distance")),
            None => Ok(Answers::Values(numbers.len() / count, numbers)),
        };
    }
    if !matches!(y.shape.as_slice(), [_] | [_, 1]) {
        return refused(format!("y has shape {:?}: give one class number for each sample", y.shape));
    }
    if let Some(odd) = numbers.iter().find(|number| number.fract() != 0.0 || **number < 0.0) {
        return refused(format!("y holds {odd}, which is no class number"));
    }
    if metric == AccuracyMetric::AreaUnderCurve {
        let positive = numbers.iter().filter(|number| **number == 1.0).count();
        if let Some(odd) = numbers.iter().find(|number| **number > 1.0) {
            return refused(format!("y holds {odd}: a curve has the classes 0 and 1"));
        }
        if positive == 0 || positive == count {
            return refused("y holds one class only: a curve needs samples of 0 and of 1".into());
        }
    }
    Ok(Answers::Classes(numbers.into_iter().map(|number| number as i64).collect()))
}

/// Scores of one sample in the first output.
fn width(infos: &[TensorInfo], batch: usize) -> Result<usize, Failure> {
    match infos.first() {
        Some(first) => Ok(first.len() / batch.max(1)),
        None => Err(Failure::bad_input("UnsupportedModel", "the model has no output to score")),
    }
}

/// Refuses right answers that a model with these outputs cannot give.
///
/// # Errors
/// `DatasetDoesNotFit`, with what the output has and the metric needs.
pub fn check(scoring: &Scoring, infos: &[TensorInfo], batch: usize) -> Result<(), Failure> {
    let width = width(infos, batch)?;
    let refused = |why: String| Err(Failure::bad_input("DatasetDoesNotFit", why));
    let name = infos.first().map_or("", |first| first.name.as_str());
    match (scoring.metric, &scoring.answers) {
        (AccuracyMetric::MeanAbsoluteError, Answers::Values(wanted, _)) => {
            if *wanted == width {
                return Ok(());
            }
            refused(format!("y has {wanted} numbers for each sample, and output {name:?} has {width}"))
        }
        (AccuracyMetric::AreaUnderCurve, Answers::Classes(_)) => match width {
            1 | 2 => Ok(()),
            _ => refused(format!(
                "output {name:?} has {width} scores for each sample: a curve needs one, or two classes"
            )),
        },
        (_, Answers::Classes(_)) if width < 2 => refused(format!(
            "output {name:?} has {width} score for each sample: a class needs two or more to choose from"
        )),
        (_, Answers::Classes(labels)) => {
            match labels.iter().position(|label| usize::try_from(*label).is_ok_and(|label| label >= width)) {
                Some(index) => {
                    refused(format!("label {} of sample {index} is beyond the model's {width} classes", labels[index]))
                }
                None => Ok(()),
            }
        }
        (metric, Answers::Values(..)) => {
            refused(format!("{} compares classes, and y has numbers", metric_name(metric)))
        }
    }
}

/// Scores the first output of each sample. `outputs` holds, for each inference, all outputs one after the other; `seed`
/// fixes the resampling.
///
/// # Errors
/// What [`check`] refuses.
pub fn score(
    scoring: &Scoring,
    outputs: &[u8],
    infos: &[TensorInfo],
    batch: usize,
    seed: u64,
) -> Result<Score, Failure> {
    check(scoring, infos, batch)?;
    let width = width(infos, batch)?;
    let Some(first) = infos.first() else { return Err(Failure::bad_input("UnsupportedModel", "there is no output")) };
    let row = infos.iter().map(TensorInfo::bytes).sum::<usize>();
    let size = first.element.size();
    let of = |index: usize| {
        let start = index / batch * row + index % batch * width * size;
        &outputs[start..start + width * size]
    };
    let real = |index: usize, place: usize| {
        let raw = first.element.read(&of(index)[place * size..]);
        match (first.scale, first.zero_point) {
            (Some(scale), zero_point) => (raw - zero_point.unwrap_or(0) as f64) * f64::from(scale),
            (None, _) => raw,
        }
    };
    match (scoring.metric, &scoring.answers) {
        (metric @ (AccuracyMetric::Top1Accuracy | AccuracyMetric::Top5Accuracy), Answers::Classes(labels)) => {
            let depth = if metric == AccuracyMetric::Top1Accuracy { 1 } else { 5 };
            let right = |(index, label): (usize, &i64)| is_among_best(of(index), first.element, *label as usize, depth);
            counted(labels.iter().enumerate().map(right).collect())
        }
        (AccuracyMetric::AreaUnderCurve, Answers::Classes(labels)) => {
            // Of two classes, the second's score less the first's orders samples as the second's probability does.
            let score = |index| if width == 1 { real(index, 0) } else { real(index, 1) - real(index, 0) };
            let scores: Vec<f64> = (0..labels.len()).map(score).collect();
            let positive: Vec<bool> = labels.iter().map(|label| *label == 1).collect();
            resampled(labels.len(), seed, measures::area_under_curve(&scores, &positive))
        }
        (AccuracyMetric::MacroF1, Answers::Classes(labels)) => {
            let truth: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
            let answers: Vec<usize> = (0..labels.len()).map(|index| best(of(index), first.element)).collect();
            resampled(labels.len(), seed, measures::macro_f1(&truth, &answers, width))
        }
        (_, Answers::Values(_, values)) => {
            let count = values.len() / width.max(1);
            let errors: Vec<f64> = (0..count)
                .map(|index| {
                    let distance = |place: usize| (real(index, place) - values[index * width + place]).abs();
                    (0..width).map(distance).sum::<f64>() / width as f64
                })
                .collect();
            resampled(count, seed, measures::weighted_mean(&errors))
        }
        (AccuracyMetric::MeanAbsoluteError, Answers::Classes(_)) => {
            Err(Failure::bad_input("DatasetDoesNotFit", "MeanAbsoluteError compares numbers, and y has classes"))
        }
    }
}

fn counted(right: Vec<bool>) -> Result<Score, Failure> {
    let count = right.len() as u64;
    let correct = right.iter().filter(|right| **right).count() as u64;
    let interval = wilson(correct, count, CONFIDENCE).ok_or_else(|| nothing_to_score("there is no sample"))?;
    let value = correct as f64 / count as f64;
    Ok(Score { value, interval, interval_method: "Wilson", count, right: Some(right) })
}

fn resampled(count: usize, seed: u64, measure: impl Fn(&[u32]) -> Option<f64>) -> Result<Score, Failure> {
    let value = measure(&vec![1; count]).filter(|value| value.is_finite());
    let interval = measures::bootstrap(count, seed, &measure);
    let (Some(value), Some(interval)) = (value, interval) else {
        return Err(nothing_to_score("an output is not a number"));
    };
    Ok(Score { value, interval, interval_method: "Bootstrap", count: count as u64, right: None })
}

fn nothing_to_score(why: &str) -> Failure {
    Failure::bad_input("NotScored", format!("the outputs have no score: {why}"))
}

/// The class with the highest score; the first of equals.
fn best(scores: &[u8], element: Element) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (class, bytes) in scores.chunks_exact(element.size()).enumerate() {
        let score = element.read(bytes);
        if score > best.1 {
            best = (class, score);
        }
    }
    best.0
}

/// Whether fewer than `depth` classes are better; of equal scores the lower class is the better, as in `argmax`.
fn is_among_best(scores: &[u8], element: Element, class: usize, depth: usize) -> bool {
    let read = |index: usize| element.read(&scores[index * element.size()..]);
    let own = read(class);
    let count = scores.len() / element.size();
    let better = (0..count).filter(|other| read(*other) > own || read(*other) == own && *other < class).count();
    !own.is_nan() && better < depth
}

/// Whether an output is not a number.
pub fn has_nan(outputs: &[u8], infos: &[TensorInfo]) -> bool {
    let row = infos.iter().map(TensorInfo::bytes).sum::<usize>();
    if row == 0 || !infos.iter().any(|info| matches!(info.element, Element::F16 | Element::F32 | Element::F64)) {
        return false;
    }
    outputs.chunks_exact(row).any(|row| {
        let mut at = 0;
        infos.iter().any(|info| {
            let own = &row[at..at + info.bytes()];
            at += info.bytes();
            own.chunks_exact(info.element.size()).any(|bytes| info.element.read(bytes).is_nan())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(element: Element, shape: &[usize]) -> TensorInfo {
        TensorInfo { name: "y".into(), element, shape: shape.into(), scale: None, zero_point: None }
    }

    fn scored(metric: AccuracyMetric, labels: &[i64], outputs: &[i8], infos: &[TensorInfo], batch: usize) -> u64 {
        let bytes: Vec<u8> = outputs.iter().map(|n| *n as u8).collect();
        let scoring = Scoring { answers: Answers::Classes(labels.into()), metric };
        score(&scoring, &bytes, infos, batch, 1).unwrap().correct().unwrap()
    }

    #[test]
    fn the_first_of_equal_scores_wins() {
        let infos = [info(Element::I8, &[1, 3])];
        let outputs = [5, 5, -1, 5, 5, -1, 0, 1, 2];
        assert_eq!(scored(AccuracyMetric::Top1Accuracy, &[0, 1, 2], &outputs, &infos, 1), 2);
    }

    #[test]
    fn top_five() {
        let infos = [info(Element::I8, &[1, 6])];
        let outputs = [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6];
        assert_eq!(scored(AccuracyMetric::Top5Accuracy, &[0, 1], &outputs, &infos, 1), 1);
    }

    #[test]
    fn batches_and_further_outputs_are_stepped_over() {
        let infos = [info(Element::I8, &[2, 2]), info(Element::I8, &[1])];
        // Two inferences of two samples, then one byte of the second output; the last sample is padding.
        let outputs = [1, 0, 0, 1, 9, 0, 1, 7, 7, 9];
        assert_eq!(scored(AccuracyMetric::Top1Accuracy, &[0, 1, 1], &outputs, &infos, 2), 3);
    }

    #[test]
    fn labels_beyond_the_classes_are_told() {
        let scoring = Scoring { answers: Answers::Classes(vec![3]), metric: AccuracyMetric::Top1Accuracy };
        let error = check(&scoring, &[info(Element::I8, &[1, 3])], 1).unwrap_err();
        assert!(error.message.contains("label 3"), "{error}");
    }

    #[test]
    fn what_is_not_a_number_is_never_right() {
        let bytes: Vec<u8> = [f32::NAN, 0.0].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert!(!is_among_best(&bytes, Element::F32, 0, 1));
        assert!(has_nan(&bytes, &[info(Element::F32, &[1, 2])]));
        assert!(!has_nan(&[255; 2], &[info(Element::I8, &[1, 2])]));
    }

    #[test]
    fn data_sets_without_what_they_need_are_refused() {
        let x = Array { element: Element::U8, shape: vec![2, 1], data: vec![1, 2] };
        let y = Array { element: Element::I64, shape: vec![1], data: vec![0; 8] };
        let empty = Array { element: Element::U8, shape: vec![0, 1], data: vec![] };
        let metric = Some(AccuracyMetric::Top1Accuracy);
        let reason = |arrays: &[(&str, &Array)]| {
            let archive = npz::write(arrays.iter().copied()).unwrap();
            read_data(&archive, metric, "e.npz").unwrap_err().reason
        };
        assert_eq!(reason(&[("y", &y)]), "DatasetMalformed");
        assert_eq!(reason(&[("x", &x)]), "LabelsMissing");
        assert_eq!(reason(&[("x", &x), ("y", &y)]), "DatasetMalformed");
        assert_eq!(reason(&[("x", &empty), ("y", &y)]), "EvaluationEmpty");
    }

    fn refused(metric: AccuracyMetric, y: &[f64], shape: &[usize]) -> String {
        let x = Array { element: Element::U8, shape: vec![20, 1], data: vec![0; 20] };
        let data = y.iter().flat_map(|number| number.to_le_bytes()).collect();
        let y = Array { element: Element::F64, shape: shape.into(), data };
        let archive = npz::write([("x", &x), ("y", &y)]).unwrap();
        read_data(&archive, Some(metric), "e.npz").unwrap_err().message
    }

    #[test]
    fn answers_that_a_metric_cannot_use_are_refused() {
        use AccuracyMetric::{AreaUnderCurve, MacroF1, MeanAbsoluteError};
        assert!(refused(AreaUnderCurve, &[1.0; 20], &[20]).contains("one class only"));
        let mut three = [0.0; 20];
        three[..2].copy_from_slice(&[1.0, 2.0]);
        assert!(refused(AreaUnderCurve, &three, &[20]).contains("y holds 2"));
        assert!(refused(MeanAbsoluteError, &[f64::NAN; 20], &[20]).contains("NaN"));
        assert!(refused(MacroF1, &[0.5; 20], &[20]).contains("no class number"));
        assert!(refused(MacroF1, &[0.0; 40], &[20, 2]).contains("[20, 2]"));
        assert!(refused(MacroF1, &[0.0; 3], &[3]).contains("20 samples"));
        let few = Array { element: Element::U8, shape: vec![3, 1], data: vec![0; 3] };
        let archive = npz::write([("x", &few), ("y", &few)]).unwrap();
        assert!(read_data(&archive, Some(MacroF1), "e").unwrap_err().message.contains("16 or more"));
    }

    #[test]
    fn answers_that_do_not_fit_the_output_are_refused() {
        let refused = |metric, answers, shape: &[usize]| {
            check(&Scoring { answers, metric }, &[info(Element::F32, shape)], 1).unwrap_err().message
        };
        let values = Answers::Values(2, vec![0.0; 40]);
        assert!(refused(AccuracyMetric::MeanAbsoluteError, values, &[1, 3]).contains("2 numbers"));
        let classes = || Answers::Classes(vec![0, 1]);
        assert!(refused(AccuracyMetric::AreaUnderCurve, classes(), &[1, 3]).contains("3 scores"));
        assert!(refused(AccuracyMetric::MacroF1, classes(), &[1, 1]).contains("1 score"));
    }

    #[test]
    fn numbers_are_compared_in_the_outputs_own_unit() {
        let output = TensorInfo { scale: Some(0.5), zero_point: Some(-2), ..info(Element::I8, &[1, 1]) };
        let scoring = Scoring { answers: Answers::Values(1, vec![1.0; 16]), metric: AccuracyMetric::MeanAbsoluteError };
        // (4 + 2) · 0.5 = 3 is 2 away from 1.
        let found = score(&scoring, &[4; 16], &[output], 1, 1).unwrap();
        assert_eq!((found.value, found.interval.lower, found.interval.upper), (2.0, 2.0, 2.0));
        assert_eq!((found.interval_method, found.correct()), ("Bootstrap", None));
        let nan: Vec<u8> = [f32::NAN; 16].iter().flat_map(|n| n.to_le_bytes()).collect();
        let failure = score(&scoring, &nan, &[info(Element::F32, &[1, 1])], 1, 1).unwrap_err();
        assert_eq!(failure.reason, "NotScored");
    }
}
