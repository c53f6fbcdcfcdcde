//! Single weights: the right ones become zeros.

use std::collections::BTreeSet;

use edgeyard_optimizer::cost::cost;
use edgeyard_optimizer::dataset::Dataset;
use edgeyard_optimizer::ir::{Model, Tensor};
use edgeyard_optimizer::prune::{Data, Pattern, PruneError, Score, Settings, prune};
use edgeyard_optimizer::runtime::OnnxRuntime;

use super::nets::all;
use super::support::{Builder, Noise, int, run_one, write_npz};

fn values<'a>(model: &'a Model, name: &str) -> &'a [f32] {
    model.graph.initializers[name].as_f32().unwrap()
}

fn zeros(values: &[f32]) -> BTreeSet<usize> {
    (0..values.len()).filter(|at| values[*at] == 0.0).collect()
}

#[test]
fn the_smallest_weights_of_each_layer_go() {
    for made in all() {
        let settings = Settings::new(Pattern::Unstructured, Score::Magnitude, Some(0.6), None, None);
        let mut model = made.model.clone();
        let outcome = prune(&mut model, &settings, None).unwrap();
        let mut total = 0;
        for (name, tensor) in &made.model.graph.initializers {
            let after = &model.graph.initializers[name];
            assert_eq!(tensor.dims, after.dims);
            let weights = made.model.graph.nodes.iter().any(|node| {
                matches!(node.op_type.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul") && node.inputs[1] == *name
            });
            if !weights {
                assert_eq!(tensor, after, "{}: {name}", made.name);
                continue;
            }
            let (before, after) = (tensor.as_f32().unwrap(), after.as_f32().unwrap());
            let gone = zeros(after);
            assert_eq!(gone.len(), (0.6 * before.len() as f64).round() as usize, "{}: {name}", made.name);
            let largest = gone.iter().map(|at| before[*at].abs()).fold(0.0, f32::max);
            let kept = (0..before.len()).filter(|at| !gone.contains(at));
            assert!(kept.clone().all(|at| before[at].abs() >= largest && before[at] == after[at]));
            total += gone.iter().filter(|at| before[**at] != 0.0).count() as u64;
        }
        assert_eq!(outcome.removed_parameters, total);
        let (before, after) = (cost(&made.model.graph).unwrap(), cost(&model.graph).unwrap());
        assert_eq!((before.macs, before.parameters), (after.macs, after.parameters));
        assert_eq!(before.nonzero_parameters - after.nonzero_parameters, total, "{}", made.name);
    }
}

#[test]
fn two_of_four_stay_along_the_input_channels() {
    // 10 input channels: two groups of four and a rest of two, of which one stays.
    let mut noise = Noise::new(3);
    let builder = Builder::new(17, &[1, 10, 5, 5]).constant("w", noise.tensor(&[6, 10, 3, 3]));
    let builder = builder.node("Conv", &["x", "w"], "c", &[]).node("Flatten", &["c"], "f", &[]);
    let builder = builder.constant("m", noise.tensor(&[54, 8])).constant("g", noise.tensor(&[7, 8]));
    let builder = builder.node("MatMul", &["f", "m"], "d", &[]).node("Gemm", &["d", "g"], "y", &[("transB", int(1))]);
    for (n, m) in [(2, 4), (1, 4), (3, 8)] {
        let mut model = builder.loaded();
        prune(&mut model, &Settings::new(Pattern::NOfM, Score::Magnitude, None, Some(n), Some(m)), None).unwrap();
        let (n, m) = (n as usize, m as usize);
        for (name, len, inner) in [("w", 10, 9), ("m", 54, 8), ("g", 8, 1)] {
            let (before, after) = (builder.model.graph.initializers[name].as_f32().unwrap(), values(&model, name));
            for start in (0..before.len()).filter(|at| at / inner % len % m == 0) {
                let size = m.min(len - start / inner % len);
                let group: Vec<usize> = (0..size).map(|at| start + at * inner).collect();
                let kept: Vec<usize> = group.iter().copied().filter(|at| after[*at] != 0.0).collect();
                assert_eq!(kept.len(), (n * size).div_ceil(m), "{name} at {start}");
                let smallest = kept.iter().map(|at| before[*at].abs()).fold(f32::MAX, f32::min);
                assert!(group.iter().all(|at| kept.contains(at) || before[*at].abs() <= smallest));
            }
        }
    }
}

#[test]
fn with_data_a_weight_counts_as_much_as_what_it_is_multiplied_with() {
    // Channel 0 is a hundred times as large as the others: its weights stay although they are small.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npz");
    let mut noise = Noise::new(6);
    let x: Vec<f32> =
        noise.values(20 * 8).iter().enumerate().map(|(at, v)| if at % 8 == 0 { v * 100.0 } else { *v }).collect();
    write_npz(&path, &[20, 8], &x, None);
    let weights: Vec<f32> =
        noise.values(8 * 6).iter().enumerate().map(|(at, v)| if at % 8 == 0 { 0.1 } else { v.signum() + v }).collect();
    let builder = Builder::new(17, &[0, 8]).constant("w", Tensor::f32(&[6, 8], weights));
    let builder = builder.node("Gemm", &["x", "w"], "y", &[("transB", int(1))]);
    let (runtime, dataset) = (OnnxRuntime::load().unwrap(), Dataset::open(&path).unwrap());
    let data = Data { runtime: &runtime, dataset: &dataset, samples: 20, step: None };
    let error = |score: Score| {
        let mut model = builder.loaded();
        prune(&mut model, &Settings::new(Pattern::NOfM, score, None, Some(2), Some(4)), Some(&data)).unwrap();
        let (expected, got) = (run_one(&builder.bytes(), &x, &[20, 8]), run_one(&model.to_bytes(), &x, &[20, 8]));
        let first: Vec<bool> = values(&model, "w").iter().step_by(8).map(|value| *value != 0.0).collect();
        (expected.iter().zip(&got).map(|(a, b)| (a - b).powi(2)).sum::<f32>(), first)
    };
    let (blind, seeing) = (error(Score::Magnitude), error(Score::Taylor));
    assert_eq!((blind.1, seeing.1), (vec![false; 6], vec![true; 6]));
    assert!(seeing.0 < blind.0 / 3.0, "{} against {}", seeing.0, blind.0);
}

#[test]
fn groups_that_are_none_are_refused() {
    let mut model = all().remove(0).model;
    for (n, m) in [(None, None), (Some(4), Some(4)), (Some(0), Some(4)), (Some(2), None), (Some(2), Some(128))] {
        let settings = Settings::new(Pattern::NOfM, Score::Magnitude, Some(0.5), n, m);
        let error = prune(&mut model, &settings, None).unwrap_err();
        assert!(matches!(error, PruneError::Group { .. }), "{error}");
    }
    let mut empty = Builder::new(17, &[1, 3]).node("Relu", &["x"], "y", &[]).loaded();
    let settings = Settings::new(Pattern::Unstructured, Score::Magnitude, Some(0.5), None, None);
    assert!(prune(&mut empty, &settings, None).unwrap_err().to_string().contains("constant float32 weights"));
}
