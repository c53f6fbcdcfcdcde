//! Factorised graphs against ONNX Runtime, errors against closed forms and NumPy, budgets against costs.

use edgeyard_optimizer::cost::cost;
use edgeyard_optimizer::dataset::Dataset;
use edgeyard_optimizer::factorize::{Factorization, FactorizeError, Goal, Outcome, Settings, factorize};
use edgeyard_optimizer::ir::{Model, Tensor};
use edgeyard_optimizer::prune::Data;
use edgeyard_optimizer::runtime::OnnxRuntime;
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::nets::{Net, all};
use super::support::{Builder, Noise, assert_near, int, ints, python, run, run_one, sqnr, text, write_npz};

fn split(model: &Model, method: Factorization, goal: Goal) -> Result<(Model, Outcome), FactorizeError> {
    let mut model = model.clone();
    let outcome = factorize(&mut model, &Settings { method, goal }, None)?;
    Ok((model, outcome))
}

/// A matrix of low rank plus a little, so that even full rank saves work.
fn low_rank(noise: &mut Noise, rows: usize, columns: usize, rank: usize) -> Vec<f32> {
    let (a, b) = (noise.values(rows * rank), noise.values(rank * columns));
    let at = |i: usize, j: usize| (0..rank).map(|k| a[i * rank + k] * b[k * columns + j]).sum::<f32>() / rank as f32;
    (0..rows * columns).map(|at_| at(at_ / columns, at_ % columns)).collect()
}

#[test]
fn all_of_the_energy_gives_equal_outputs() {
    let mut noise = Noise::new(1);
    let mut check = |builder: Builder, input: &[usize], method: Factorization, names: &[&str]| {
        let source = builder.loaded();
        let (model, outcome) = split(&source, method, Goal::Energy(1.0)).unwrap();
        let x = noise.values(input.iter().product());
        assert_near(&run_one(&source.to_bytes(), &x, input), &run_one(&model.to_bytes(), &x, input), 1e-4);
        let new: Vec<&str> = model.graph.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(new, names);
        let (before, after) = (cost(&source.graph).unwrap(), cost(&model.graph).unwrap());
        let saved: u64 = outcome.layers.iter().map(|layer| layer.macs.0 - layer.macs.1).sum();
        assert!(saved > 0 && before.macs - after.macs == saved, "{:?}", outcome.layers);
    };
    let mut noise = Noise::new(2);
    for transposed in [0, 1] {
        let dims = if transposed == 1 { [24, 40] } else { [40, 24] };
        let builder = Builder::new(17, &[0, 40])
            .constant("w", Tensor::f32(&dims, low_rank(&mut noise, dims[0], dims[1], 6)))
            .constant("b", noise.tensor(&[24]));
        let attributes = [("transB", int(transposed)), ("alpha", edgeyard_optimizer::ir::Attribute::Float(0.5))];
        check(
            builder.node("Gemm", &["x", "w", "b"], "y", &attributes),
            &[3, 40],
            Factorization::Auto,
            &["Gemm_y_v", "Gemm_y_u"],
        );
    }
    let builder = Builder::new(17, &[2, 3, 40]).constant("w", Tensor::f32(&[40, 24], low_rank(&mut noise, 40, 24, 5)));
    check(
        builder.node("MatMul", &["x", "w"], "y", &[]),
        &[2, 3, 40],
        Factorization::Svd,
        &["MatMul_y_v", "MatMul_y_u"],
    );
    let strided = [("strides", ints(&[2, 1])), ("pads", ints(&[2, 0, 1, 3])), ("dilations", ints(&[1, 2]))];
    let pointwise =
        Builder::new(17, &[1, 20, 9, 7]).constant("w", Tensor::f32(&[16, 20, 1, 1], low_rank(&mut noise, 16, 20, 4)));
    check(
        pointwise.node("Conv", &["x", "w"], "y", &strided),
        &[1, 20, 9, 7],
        Factorization::Svd,
        &["Conv_y_v", "Conv_y_u"],
    );
    // Kernels that are a sum of three products of a column and a row.
    let (columns, rows) = (noise.values(3 * 8 * 3), noise.values(3 * 12 * 3));
    let at = |o: usize, i: usize, h: usize, w: usize| {
        (0..3).map(|r| columns[(r * 8 + i) * 3 + h] * rows[(r * 12 + o) * 3 + w]).sum::<f32>()
    };
    let kernel: Vec<f32> = (0..12 * 8 * 9).map(|n| at(n / 72, n / 9 % 8, n / 3 % 3, n % 3)).collect();
    let conv = |attributes: &[_]| {
        let builder = Builder::new(17, &[1, 8, 9, 7]).constant("w", Tensor::f32(&[12, 8, 3, 3], kernel.clone()));
        builder.constant("b", Noise::new(3).tensor(&[12])).node("Conv", &["x", "w", "b"], "y", attributes)
    };
    check(conv(&strided), &[1, 8, 9, 7], Factorization::SpatialSvd, &["Conv_y_v", "Conv_y_u"]);
    check(
        conv(&[("auto_pad", text("SAME_LOWER")), ("strides", ints(&[2, 2]))]),
        &[1, 8, 9, 7],
        Factorization::SpatialSvd,
        &["Conv_y_v", "Conv_y_u"],
    );
    // Kernels of Tucker rank 3×4.
    let (core, left, right) = (noise.values(3 * 4 * 9), noise.values(12 * 4), noise.values(8 * 3));
    let at = |o: usize, i: usize, k: usize| {
        (0..12).map(|n| core[n * 9 + k] * left[o * 4 + n % 4] * right[i * 3 + n / 4]).sum::<f32>() / 4.0
    };
    let kernel: Vec<f32> = (0..12 * 8 * 9).map(|n| at(n / 72, n / 9 % 8, n % 9)).collect();
    let builder = Builder::new(17, &[1, 8, 9, 7]).constant("w", Tensor::f32(&[12, 8, 3, 3], kernel));
    let builder = builder.node("Conv", &["x", "w"], "y", &strided);
    check(builder, &[1, 8, 9, 7], Factorization::Tucker2, &["Conv_y_v", "Conv_y_c", "Conv_y_u"]);
}

#[test]
fn what_is_lost_is_the_energy_of_the_singular_values_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let builder = Builder::new(17, &[1, 30]).constant("w", Noise::new(5).tensor(&[20, 30]));
    let builder = builder.node("Gemm", &["x", "w"], "y", &[("transB", int(1))]);
    let source = builder.loaded();
    let weights = source.graph.initializers["w"].to_bytes().unwrap();
    std::fs::write(folder.path().join("w"), weights).unwrap();
    let squares = python(
        "import sys, numpy as np\n\
         w = np.fromfile(sys.argv[1] + '/w', np.float32).reshape(20, 30).astype(np.float64)\n\
         print(*np.linalg.svd(w, compute_uv=False) ** 2)",
        &[folder.path()],
    );
    let squares: Vec<f64> = squares.split_whitespace().map(|text| text.parse().unwrap()).collect();
    let total: f64 = squares.iter().sum();
    for energy in [0.3, 0.6, 0.85] {
        let (model, outcome) = split(&source, Factorization::Svd, Goal::Energy(energy)).unwrap();
        let kept = |rank: usize| squares[..rank].iter().sum::<f64>() / total;
        let rank = (1..=20).find(|rank| kept(*rank) >= energy).unwrap();
        assert_eq!(outcome.layers[0].ranks, [rank]);
        assert!((outcome.layers[0].lost_energy - (1.0 - kept(rank))).abs() < 1e-9);
        // The identity shows the product of the new weights.
        let identity: Vec<f32> = (0..900).map(|at| f32::from(u8::from(at / 30 == at % 30))).collect();
        let mut free = model.clone();
        free.graph.inputs[0].shape[0] = edgeyard_optimizer::ir::Dim::Static(30);
        free.graph.outputs[0].has_shape = false;
        let product = run_one(&free.to_bytes(), &identity, &[30, 30]);
        let w = source.graph.initializers["w"].as_f32().unwrap();
        let error: f64 = (0..600).map(|at| f64::from(product[at % 30 * 20 + at / 30] - w[at]).powi(2)).sum();
        assert!((error / total - outcome.layers[0].lost_energy).abs() < 1e-5);
    }
}

#[test]
fn the_budget_is_met() {
    let mut split_layers = 0;
    for made in all() {
        let mut source = made.model.clone();
        source.graph = simplify(&source.graph, &Shapes::Declared).unwrap();
        let before = cost(&source.graph).unwrap().macs;
        for (method, share) in [
            (Factorization::Auto, 0.6),
            (Factorization::Auto, 0.35),
            (Factorization::SpatialSvd, 0.6),
            (Factorization::Tucker2, 0.6),
            (Factorization::Svd, 0.9),
        ] {
            let name = made.name;
            match split(&source, method, Goal::Macs(share)) {
                Ok((model, outcome)) => {
                    let after = cost(&model.graph).unwrap().macs;
                    assert!(after as f64 <= share * before as f64, "{name} {method:?}: {after} of {before}");
                    let saved: u64 = outcome.layers.iter().map(|layer| layer.macs.0 - layer.macs.1).sum();
                    assert_eq!(before - after, saved, "{name} {method:?}");
                    assert!(outcome.layers.iter().all(|layer| layer.macs.1 < layer.macs.0));
                    let x = Noise::new(9).values(made.input.iter().product());
                    let (expected, got) =
                        (run(&source.to_bytes(), &x, &made.input), run(&model.to_bytes(), &x, &made.input));
                    assert!(expected.iter().zip(&got).all(|(a, b)| a.0 == b.0 && a.1 == b.1), "{name}");
                    split_layers += outcome.layers.len();
                }
                Err(FactorizeError::Budget { least, .. }) => assert!(least > share, "{name} {method:?}: {least}"),
                Err(FactorizeError::Nothing { .. }) => assert_ne!(method, Factorization::Auto, "{name}"),
                Err(error) => panic!("{name} {method:?}: {error}"),
            }
        }
    }
    assert!(split_layers > 60, "{split_layers}");
}

#[test]
fn with_data_outputs_are_closer_at_the_same_cost() {
    // Inputs of few directions, which the weights alone do not show.
    let folder = tempfile::tempdir().unwrap();
    let (mut noise, path) = (Noise::new(11), folder.path().join("x.npz"));
    let mixed: Vec<f32> = noise.values(6 * 48);
    let sample = |noise: &mut Noise| -> Vec<f32> {
        let parts = noise.values(6);
        let x = |at: usize| (0..6).map(|k| parts[k] * mixed[k * 48 + at]).sum::<f32>() + 0.05 * noise.value() + 1.0;
        (0..48).map(x).collect()
    };
    let x: Vec<f32> = (0..300).flat_map(|_| sample(&mut noise)).collect();
    write_npz(&path, &[200, 3, 4, 4], &x[..200 * 48], None);
    let mut net = Net::new(12, &[0, 3, 4, 4]);
    let y = net.conv_relu("x", 3, 16, 3);
    let y = net.conv_relu(&y, 16, 16, 3);
    let y = net.op("Flatten", &[&y], &[]);
    let y = net.gemm(&y, 256, 24);
    let source = net.done("data", &[&y]).model;
    let (runtime, dataset) = (OnnxRuntime::load().unwrap(), Dataset::open(&path).unwrap());
    let data = Data { runtime: &runtime, dataset: &dataset, samples: 200, step: None };
    // On samples that were not used.
    let quality = |model: &Model| {
        let shape = [100, 3, 4, 4];
        sqnr(&run_one(&source.to_bytes(), &x[200 * 48..], &shape), &run_one(&model.to_bytes(), &x[200 * 48..], &shape))
    };
    for method in [Factorization::Auto, Factorization::SpatialSvd, Factorization::Tucker2] {
        let settings = Settings { method, goal: Goal::Macs(0.45) };
        let (mut blind, mut seeing) = (source.clone(), source.clone());
        factorize(&mut blind, &settings, None).unwrap();
        factorize(&mut seeing, &settings, Some(&data)).unwrap();
        assert!(
            quality(&seeing) > quality(&blind) + 3.0,
            "{method:?}: {} against {}",
            quality(&seeing),
            quality(&blind)
        );
    }
}

/// Samples of unit size and what runs them, in a folder.
fn samples(noise: &mut Noise, folder: &std::path::Path, shape: &[usize]) -> (Vec<f32>, Dataset) {
    let (x, path) = (noise.values(shape.iter().product()), folder.join("x.npz"));
    write_npz(&path, shape, &x, None);
    (x, Dataset::open(&path).unwrap())
}

#[test]
fn what_comes_behind_a_split_layer_is_fitted_as_least_squares_would() {
    let folder = tempfile::tempdir().unwrap();
    let (x, dataset) = samples(&mut Noise::new(31), folder.path(), &[600, 16]);
    let mut net = Net::new(32, &[0, 16]);
    let y = net.gemm("x", 16, 24);
    let hidden = net.relu(&y);
    // One output: no split of it saves work.
    let y = net.gemm(&hidden, 24, 1);
    let source = net.done("behind", &[&y, &hidden]).model;
    let runtime = OnnxRuntime::load().unwrap();
    let data = Data { runtime: &runtime, dataset: &dataset, samples: 600, step: None };
    let mut model = source.clone();
    let settings = Settings { method: Factorization::Auto, goal: Goal::Energy(0.8) };
    let outcome = factorize(&mut model, &settings, Some(&data)).unwrap();
    assert_eq!(outcome.layers.len(), 1, "{:?}", outcome.layers);
    // The same first layer with the second as it was.
    let mut stale = model.clone();
    let last = stale.graph.nodes.iter().position(|node| node.output() == y).unwrap();
    let (now, before) = (stale.graph.nodes[last].inputs.clone(), source.graph.nodes.last().unwrap().inputs.clone());
    for (now, before) in now[1..].iter().zip(&before[1..]) {
        stale.graph.initializers.insert(now.clone(), source.graph.initializers[before].clone());
    }
    let outputs = |model: &Model| run(&model.to_bytes(), &x, &[600, 16]);
    let of = |found: &[(String, Vec<usize>, Vec<f32>)], at: usize| found[at].2.clone();
    let (wanted, got, stale) = (outputs(&source), outputs(&model), outputs(&stale));
    let error = |got: &[f32]| -> f64 {
        of(&wanted, 0).iter().zip(got).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / 600.0
    };
    for (name, values) in [("hidden", of(&got, 1)), ("wanted", of(&wanted, 0))] {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let least: f64 = python(
        "import sys, numpy as np\n\
         read = lambda name: np.fromfile(sys.argv[1] + '/' + name, np.float32).astype(np.float64)\n\
         x, y = np.c_[read('hidden').reshape(600, 24), np.ones(600)], read('wanted')\n\
         print(np.mean((x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2))",
        &[folder.path()],
    )
    .trim()
    .parse()
    .unwrap();
    let (ours, stale) = (error(&of(&got, 0)), error(&of(&stale, 0)));
    // No fit is better than least squares; ours, which stays near the old weights, takes most of what can be won.
    let won = (stale - ours) / (stale - least);
    assert!(least > 0.0 && stale > least * 1.05, "{least} {stale}");
    assert!((0.8..=1.001).contains(&won), "{ours} {least} {stale}");
}

#[test]
fn with_data_weights_of_exact_rank_give_equal_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let mut noise = Noise::new(33);
    let (x, dataset) = samples(&mut noise, folder.path(), &[64, 8, 6, 6]);
    let mut net = Net::new(34, &[0, 8, 6, 6]);
    net.constant("a", Tensor::f32(&[16, 8, 3, 3], low_rank(&mut noise, 16, 72, 3)));
    net.constant("b", Tensor::f32(&[16, 16, 1, 1], low_rank(&mut noise, 16, 16, 4)));
    let y = net.op("Conv", &["x", "a"], &[("pads", ints(&[1; 4]))]);
    let y = net.relu(&y);
    let y = net.op("Conv", &[&y, "b"], &[]);
    let y = net.relu(&y);
    let y = net.head(&y, 16);
    let source = net.done("exact", &[&y]).model;
    let runtime = OnnxRuntime::load().unwrap();
    let data = Data { runtime: &runtime, dataset: &dataset, samples: 64, step: None };
    let mut model = source.clone();
    // What rank 3 and 4 need; less would not do.
    let outcome =
        factorize(&mut model, &Settings { method: Factorization::Auto, goal: Goal::Macs(0.5) }, Some(&data)).unwrap();
    assert!(outcome.layers.iter().all(|layer| layer.lost_energy < 1e-9), "{:?}", outcome.layers);
    let outputs = |model: &Model| run_one(&model.to_bytes(), &x, &[64, 8, 6, 6]);
    assert_near(&outputs(&source), &outputs(&model), 1e-5);
}

#[test]
fn goals_that_are_none_are_refused_and_nothing_changes() {
    let none = [
        (None, None),
        (Some(0.9), Some(0.5)),
        (Some(0.0), None),
        (Some(1.1), None),
        (None, Some(1.0)),
        (None, Some(f64::NAN)),
    ];
    for (energy, macs) in none {
        assert!(matches!(Settings::new(Factorization::Auto, energy, macs), Err(FactorizeError::Goal { .. })));
    }
    let source = all().remove(0).model;
    let error = split(&source, Factorization::Auto, Goal::Macs(0.001)).unwrap_err().to_string();
    assert!(error.contains("rank 1 everywhere leaves 0.0"), "{error}");
    let error = split(&source, Factorization::Auto, Goal::Energy(1.0)).unwrap_err();
    assert!(matches!(error, FactorizeError::Nothing { .. }), "{error}");
    let mut broken = source.clone();
    let weights = broken.graph.initializers.get_mut("w0").unwrap();
    weights.data = edgeyard_optimizer::ir::TensorData::F32(vec![f32::INFINITY; weights.len()]);
    let error = split(&broken, Factorization::Auto, Goal::Energy(0.5)).unwrap_err();
    assert!(matches!(error, FactorizeError::NotFinite(name) if name == "w0"));
}
