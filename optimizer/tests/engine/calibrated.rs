//! Ranges against numpy.

use edgeyard_job::spec::Calibrator;
use edgeyard_optimizer::calibrate::{PERCENTILE, Range, calibrate};
use edgeyard_optimizer::dataset::Dataset;
use edgeyard_optimizer::ir::Tensor;
use edgeyard_optimizer::runtime::OnnxRuntime;

use super::support::{Builder, Noise, python, write_npz};

const SAMPLES: usize = 101;

fn found(calibrator: Calibrator, folder: &std::path::Path, batch: usize) -> (Range, Range) {
    let builder = Builder::new(13, &[batch, 500])
        .constant("k", Tensor::f32(&[], vec![3.0]))
        .node("Mul", &["x", "k"], "m", &[])
        .node("Relu", &["m"], "y", &[]);
    let dataset = Dataset::open(&folder.join("x.npz")).unwrap();
    let mut steps = Vec::new();
    let mut step = |done, total| {
        steps.push((done, total));
        true
    };
    let runtime = OnnxRuntime::load().unwrap();
    let result = calibrate(&runtime, &builder.loaded(), &dataset, SAMPLES, calibrator, &mut step).unwrap();
    assert_eq!(result.samples, SAMPLES);
    assert_eq!(result.ranges.keys().collect::<Vec<_>>(), ["m", "x", "y"]);
    assert_eq!(steps.last(), Some(&(SAMPLES as u64, SAMPLES as u64)));
    (result.ranges["m"], result.ranges["y"])
}

fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    // Later samples are larger, so that histograms must grow.
    let x: Vec<f32> = (0..SAMPLES)
        .flat_map(|sample| {
            Noise::new(sample as u64).values(500).into_iter().map(move |v| v * (1.0 + sample as f32 / 20.0))
        })
        .collect();
    write_npz(&folder.path().join("x.npz"), &[SAMPLES, 500], &x, None);
    folder
}

fn numpy(folder: &std::path::Path, code: &str) -> Vec<f32> {
    let code = format!("import sys, numpy as np; x = np.load(sys.argv[1])['x'] * np.float32(3); print(*{code})");
    python(&code, &[&folder.join("x.npz")]).split_whitespace().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn min_max_is_exact_whatever_the_batch() {
    let folder = data();
    let right = numpy(folder.path(), "[x.min(), x.max()]");
    for batch in [0, 1, 7] {
        let (m, y) = found(Calibrator::MinMax, folder.path(), batch);
        assert_eq!([m.min, m.max], right[..]);
        assert_eq!([y.min, y.max], [0.0, right[1]]);
    }
}

#[test]
fn percentiles_are_numpys_to_a_thousandth_of_the_range() {
    let folder = data();
    let tail = (100.0 - PERCENTILE) / 2.0;
    let right = numpy(folder.path(), &format!("np.percentile(x, [{tail}, {}])", 100.0 - tail));
    let widest = numpy(folder.path(), "[x.min(), x.max()]");
    let (m, y) = found(Calibrator::Percentile, folder.path(), 0);
    let slack = (widest[1] - widest[0]) / 1000.0;
    assert!((m.min - right[0]).abs() < slack && (m.max - right[1]).abs() < slack, "{m:?} against {right:?}");
    assert!(m.min > widest[0] + 4.0 * slack && m.max < widest[1] - 4.0 * slack, "outliers are left out");
    assert!(y.min.abs() < slack && (y.max - right[1]).abs() < slack, "{y:?}");
}

#[test]
fn activations_that_are_no_numbers_are_refused_by_name() {
    let folder = data();
    let dataset = Dataset::open(&folder.path().join("x.npz")).unwrap();
    let runtime = OnnxRuntime::load().unwrap();
    for (op, calibrator) in
        [("Log", Calibrator::MinMax), ("Reciprocal", Calibrator::Percentile), ("Log", Calibrator::MovingAverage)]
    {
        let builder = Builder::new(13, &[1, 500]).node("Relu", &["x"], "r", &[]).node(op, &["r"], "broken", &[]).node(
            "Abs",
            &["broken"],
            "y",
            &[],
        );
        let found = calibrate(&runtime, &builder.loaded(), &dataset, 3, calibrator, &mut |_, _| true);
        let error = found.unwrap_err().to_string();
        assert!(error.starts_with("tensor broken is not a number or infinite on calibration sample 0"), "{error}");
    }
}

#[test]
fn a_moving_average_follows_the_samples_in_their_order() {
    let folder = data();
    // Later samples are larger: in another order it would be another average.
    let average = |pick: &str| {
        format!(
            "(lambda v: [(a := 0.0), [a := a + 0.01 * (float(s) - a) for s in v][-1] / (1 - 0.99 ** len(v))][1])(x.{pick}(axis=1))"
        )
    };
    let right = numpy(folder.path(), &format!("[{}, {}]", average("min"), average("max")));
    for batch in [0, 1, 7] {
        let (m, y) = found(Calibrator::MovingAverage, folder.path(), batch);
        for (found, right) in [(m.min, right[0]), (m.max, right[1]), (y.max, right[1])] {
            assert!((found - right).abs() <= right.abs() * f32::EPSILON, "{found} against {right}");
        }
        assert_eq!(y.min, 0.0);
    }
}
