//! How right outputs are, recomputed from their raw bytes.

use edgeyard_job::spec::AccuracyMetric;

use crate::error::Failure;
use crate::npz;
use crate::plan::{Data, Scoring};
use crate::tensor::{Array, Element, TensorInfo};

/// A score.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Which samples were answered right, in order.
    pub right: Vec<bool>,
}

impl Score {
    /// Samples answered right.
    pub fn correct(&self) -> u64 {
        self.right.iter().filter(|right| **right).count() as u64
    }

    /// Samples scored.
    pub fn count(&self) -> u64 {
        self.right.len() as u64
    }
}

/// The metric's name.
pub const fn metric_name(metric: AccuracyMetric) -> &'static str {
    match metric {
        AccuracyMetric::Top1Accuracy => "Top1Accuracy",
        AccuracyMetric::Top5Accuracy => "Top5Accuracy",
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
            Some(Scoring { labels: labels(&y, x.count(), what)?, metric })
        }
    };
    Ok(Data { x, digest: edgeyard_record::digest(archive), scoring })
}

fn labels(y: &Array, count: usize, what: &str) -> Result<Vec<i64>, Failure> {
    let refused = |why: String| Err(Failure::bad_input("DatasetMalformed", format!("{what}: {why}")));
    if !matches!(y.shape.as_slice(), [_] | [_, 1]) {
        return refused(format!("y has shape {:?}: give one class number for each sample", y.shape));
    }
    if y.count() != count {
        return refused(format!("x has {count} samples and y has {} labels", y.count()));
    }
    let numbers: Vec<f64> = y.data.chunks_exact(y.element.size()).map(|bytes| y.element.read(bytes)).collect();
    match numbers.iter().find(|number| number.fract() != 0.0 || **number < 0.0) {
        Some(odd) => refused(format!("y holds {odd}, which is no class number")),
        None => Ok(numbers.into_iter().map(|number| number as i64).collect()),
    }
}

/// Scores the first output of each sample. `outputs` holds, for each inference, all outputs one after the other.
///
/// # Errors
/// `DatasetDoesNotFit` if a label is beyond the model's classes.
pub fn score(scoring: &Scoring, outputs: &[u8], infos: &[TensorInfo], batch: usize) -> Result<Score, Failure> {
    let Some(first) = infos.first() else {
        return Err(Failure::bad_input("UnsupportedModel", "the model has no output to score"));
    };
    let row = infos.iter().map(TensorInfo::bytes).sum::<usize>();
    let classes = first.len() / batch.max(1);
    if classes < 2 {
        return Err(Failure::bad_input(
            "DatasetDoesNotFit",
            format!(
                "output {:?} has {classes} score for each sample: a class needs two or more to choose from",
                first.name
            ),
        ));
    }
    let depth = match scoring.metric {
        AccuracyMetric::Top1Accuracy => 1,
        AccuracyMetric::Top5Accuracy => 5,
    };
    let mut right = Vec::with_capacity(scoring.labels.len());
    for (index, label) in scoring.labels.iter().enumerate() {
        let class = usize::try_from(*label).unwrap_or(usize::MAX);
        if class >= classes {
            return Err(Failure::bad_input(
                "DatasetDoesNotFit",
                format!("label {label} of sample {index} is beyond the model's {classes} classes"),
            ));
        }
        let start = index / batch * row + index % batch * classes * first.element.size();
        let scores = &outputs[start..start + classes * first.element.size()];
        right.push(is_among_best(scores, first.element, class, depth));
    }
    Ok(Score { right })
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
        score(&Scoring { labels: labels.into(), metric }, &bytes, infos, batch).unwrap().correct()
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
        let scoring = Scoring { labels: vec![3], metric: AccuracyMetric::Top1Accuracy };
        let error = score(&scoring, &[0, 0, 0], &[info(Element::I8, &[1, 3])], 1).unwrap_err();
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
}
