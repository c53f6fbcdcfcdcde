//! What compression without fine-tuning costs on the trained example: accuracy on all 10,000 test images.

use edgeyard_optimizer::cost::cost;
use edgeyard_optimizer::dataset::Dataset;
use edgeyard_optimizer::factorize::{Factorization, Goal, factorize};
use edgeyard_optimizer::ir::{Model, load_file};
use edgeyard_optimizer::prune::{Data, Pattern, Score, Settings, prune};
use edgeyard_optimizer::runtime::OnnxRuntime;

use super::support::{mnist, mnist_model, run_one, write_npz};

/// Share of right answers among all test images.
fn accuracy(model: &Model) -> f64 {
    let (x, y) = mnist("t10k", 10_000);
    let bytes = model.to_bytes();
    let mut right = 0;
    for (x, y) in x.chunks(500 * 784).zip(y.chunks(500)) {
        let scores = run_one(&bytes, x, &[500, 1, 28, 28]);
        for (scores, label) in scores.chunks(10).zip(y) {
            let best = (0..10).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
            right += usize::from(best as i64 == *label);
        }
    }
    right as f64 / 10_000.0
}

#[test]
fn half_of_the_work_costs_little_accuracy_by_low_rank() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calib.npz");
    // The example's calibration data.
    write_npz(&path, &[128, 1, 28, 28], &mnist("train", 128).0, None);
    let (runtime, dataset) = (OnnxRuntime::load().unwrap(), Dataset::open(&path).unwrap());
    let data = Data { runtime: &runtime, dataset: &dataset, samples: 128, step: None };
    let source = load_file(&mnist_model()).unwrap();
    let (before, whole) = (cost(&source.graph).unwrap(), accuracy(&source));
    println!("source: {before:?}, accuracy {whole}");
    let mut drops = Vec::new();
    for with in [None, Some(&data)] {
        for method in [Factorization::Auto, Factorization::SpatialSvd, Factorization::Tucker2] {
            let mut model = source.clone();
            let settings = edgeyard_optimizer::factorize::Settings { method, goal: Goal::Macs(0.5) };
            let outcome = factorize(&mut model, &settings, with).unwrap();
            let after = cost(&model.graph).unwrap();
            assert!(after.macs * 2 <= before.macs);
            let drop = (whole - accuracy(&model)) * 100.0;
            println!(
                "{method:?}, data {}: {} MACs, drop {drop:.2} points, {:?}",
                with.is_some(),
                after.macs,
                outcome.notes
            );
            drops.push(drop);
        }
    }
    // With data; the bar of the project.
    assert!(drops[3] <= 1.2, "{drops:?}");
}

#[test]
fn pruning_without_fine_tuning_is_told_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calib.npz");
    write_npz(&path, &[128, 1, 28, 28], &mnist("train", 128).0, None);
    let (runtime, dataset) = (OnnxRuntime::load().unwrap(), Dataset::open(&path).unwrap());
    let data = Data { runtime: &runtime, dataset: &dataset, samples: 128, step: None };
    let source = load_file(&mnist_model()).unwrap();
    let (before, whole) = (cost(&source.graph).unwrap(), accuracy(&source));
    let drop = |settings: Settings| {
        let mut model = source.clone();
        prune(&mut model, &settings, Some(&data)).unwrap();
        let drop = (whole - accuracy(&model)) * 100.0;
        let after = cost(&model.graph).unwrap();
        println!("{settings:?}: drop {drop:.2} points, {after:?} of {before:?}");
        (drop, after)
    };
    let mut drops = Vec::new();
    for score in [Score::Magnitude, Score::Taylor] {
        let (sparse, cost) = drop(Settings::new(Pattern::NOfM, score, None, Some(2), Some(4)));
        assert!(cost.nonzero_parameters * 100 < before.nonzero_parameters * 55);
        let (unstructured, _) = drop(Settings::new(Pattern::Unstructured, score, Some(0.5), None, None));
        let (structured, small) = drop(Settings::new(Pattern::Structured, score, Some(0.5), None, None));
        assert!(small.macs * 3 < before.macs && small.parameters * 10 < before.parameters * 6);
        // No bar: only that data helps, and that the model still tells digits apart with it.
        drops.push([sparse, unstructured, structured]);
    }
    for (blind, seeing) in drops[0].iter().zip(&drops[1]) {
        assert!(seeing < blind && *seeing < 10.0, "{drops:?}");
    }
}
