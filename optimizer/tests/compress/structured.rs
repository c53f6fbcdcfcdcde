//! The sliced graph gives what the masked graph gives. The mask is made here, from the list of what was removed.

use edgeyard_optimizer::cost::cost;
use edgeyard_optimizer::ir::{Model, TensorData};
use edgeyard_optimizer::prune::{Outcome, Pattern, PruneError, Score, Settings, prune};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::nets::{Made, Net, all};
use super::support::{Noise, assert_near, python, run};

pub fn settings(sparsity: f64, multiple: usize) -> Settings {
    Settings { multiple, ..Settings::new(Pattern::Structured, Score::Magnitude, Some(sparsity), None, None) }
}

/// The model with zeros where channels were removed.
pub fn masked(model: &Model, outcome: &Outcome) -> Model {
    let mut model = model.clone();
    for removed in &outcome.removed {
        let tensor = model.graph.initializers.get_mut(&removed.tensor).unwrap();
        let (len, inner) = (tensor.dims[removed.axis], tensor.dims[removed.axis + 1..].iter().product::<usize>());
        let TensorData::F32(values) = &mut tensor.data else { panic!("{} is no float", removed.tensor) };
        for (at, value) in values.iter_mut().enumerate() {
            if removed.indices.contains(&(at / inner % len)) {
                *value = 0.0;
            }
        }
    }
    model
}

/// Prunes and compares; gives the source and the pruned model.
fn check(made: &Made, simplified: bool, sparsity: f64, multiple: usize) -> (Model, Model, Outcome) {
    let name = made.name;
    let mut source = made.model.clone();
    if simplified {
        source.graph = simplify(&source.graph, &Shapes::Declared).unwrap();
    }
    let mut pruned = source.clone();
    let outcome =
        prune(&mut pruned, &settings(sparsity, multiple), None).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mask = masked(&source, &outcome);
    for seed in 0..3 {
        let x = Noise::new(seed + 100).values(made.input.iter().product());
        let (expected, got) = (run(&mask.to_bytes(), &x, &made.input), run(&pruned.to_bytes(), &x, &made.input));
        assert_eq!(expected.len(), got.len());
        for (expected, got) in expected.iter().zip(&got) {
            assert_eq!(expected.1, got.1, "{name}");
            assert_near(&expected.2, &got.2, 1e-5);
            let best = |values: &[f32]| (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]));
            assert_eq!(best(&expected.2), best(&got.2), "{name}");
        }
        // The mask itself changes the outputs, or this proves nothing.
        let whole = run(&source.to_bytes(), &x, &made.input);
        assert!(whole.iter().zip(&got).any(|(a, b)| a.2.iter().zip(&b.2).any(|(a, b)| (a - b).abs() > 1e-3)), "{name}");
    }
    assert!(pruned.to_bytes().len() < source.to_bytes().len(), "{name}");
    (source, pruned, outcome)
}

#[test]
fn sliced_graphs_equal_masked_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for made in all() {
        for (simplified, sparsity, multiple) in [(true, 0.5, 4), (false, 0.3, 1), (true, 0.75, 8)] {
            // A few channels of the small networks do not fill a block of 8.
            let (source, pruned, outcome) = check(&made, simplified, sparsity, multiple);
            let (before, after) = (cost(&source.graph).unwrap(), cost(&pruned.graph).unwrap());
            let name = made.name;
            assert!(after.macs < before.macs && after.peak_activation_bytes <= before.peak_activation_bytes, "{name}");
            assert_eq!(before.parameters - after.parameters, outcome.removed_parameters, "{name}");
            let bytes = pruned.to_bytes();
            let again = edgeyard_optimizer::ir::load(&bytes, None).unwrap();
            assert_eq!(cost(&again.graph).unwrap(), after, "{name}");
            std::fs::write(folder.path().join(format!("{:03}.onnx", expected.len())), bytes).unwrap();
            expected.push(after.macs);
        }
    }
    // Counted from the saved files by other code: onnx's shape inference and the definition of each operator.
    let counted = python(
        "import sys, pathlib, onnx, numpy as np\n\
         for path in sorted(pathlib.Path(sys.argv[1]).glob('*.onnx')):\n\
         \x20   m = onnx.load(path); m.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1\n\
         \x20   m = onnx.shape_inference.infer_shapes(m, strict_mode=True, data_prop=True)\n\
         \x20   onnx.checker.check_model(m)\n\
         \x20   s = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*m.graph.value_info, *m.graph.output, *m.graph.input]}\n\
         \x20   s.update({i.name: list(i.dims) for i in m.graph.initializer})\n\
         \x20   total = 0\n\
         \x20   for n in m.graph.node:\n\
         \x20       if n.op_type == 'Conv': total += np.prod(s[n.output[0]]) * np.prod(s[n.input[1]][1:])\n\
         \x20       if n.op_type == 'ConvTranspose': total += np.prod(s[n.input[0]]) * np.prod(s[n.input[1]][1:])\n\
         \x20       if n.op_type in ('Gemm', 'MatMul'): total += np.prod(s[n.output[0]]) * s[n.input[0]][-1]\n\
         \x20   print(int(total))\n",
        &[folder.path()],
    );
    let counted: Vec<u64> = counted.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(counted, expected);
}

fn dims<'a>(model: &'a Model, name: &str) -> &'a [usize] {
    &model.graph.initializers[name].dims
}

fn named(name: &str) -> Made {
    all().into_iter().find(|made| made.name == name).unwrap()
}

#[test]
fn shapes_shrink_where_channels_depend_on_one_another() {
    let (_, plain, _) = check(&named("plain"), true, 0.5, 4);
    assert_eq!(
        (dims(&plain, "w0"), dims(&plain, "w3"), dims(&plain, "f7")),
        (&[8, 3, 3, 3][..], &[12, 8, 3, 3][..], &[7, 12][..])
    );
    // A depthwise convolution stays one.
    let (_, mobile, _) = check(&named("mobilenet"), true, 0.5, 4);
    let groups: Vec<i64> = mobile.graph.nodes.iter().map(|node| node.int("group", 1)).filter(|g| *g > 1).collect();
    assert_eq!(groups, [32, 32]);
    // Whole groups of two, and eight of sixteen channels in each of two groups.
    let (_, many, _) = check(&named("resnext"), true, 0.5, 4);
    let (_, wide, _) = check(&named("wide groups"), true, 0.5, 4);
    assert_eq!((dims(&many, "w4"), dims(&wide, "w4")), (&[16, 2, 3, 3][..], &[16, 8, 3, 3][..]));
    // A channel of the flattened image is a block of columns.
    let (_, flat, _) = check(&named("perceptron"), true, 0.5, 4);
    assert_eq!(dims(&flat, "f3"), [16, 4 * 36]);
    // The hidden layer of a transformer's block shrinks, the stream that the normalisation sees does not.
    let (_, block, outcome) = check(&named("transformer"), true, 0.5, 4);
    assert_eq!((dims(&block, "in"), dims(&block, "out")), (&[16, 16][..], &[16, 16][..]));
    assert!(outcome.notes.iter().any(|note| note.contains("in: 16 of 32 channels stay")), "{:?}", outcome.notes);
}

#[test]
fn the_weakest_channels_go() {
    let mut net = Net::new(5, &[1, 2, 4, 4]);
    let y = net.conv_relu("x", 2, 8, 3);
    let y = net.head(&y, 8);
    let mut made = net.done("weak", &[&y]);
    let weights = made.model.graph.initializers.get_mut("w0").unwrap();
    let TensorData::F32(values) = &mut weights.data else { panic!("no floats") };
    for channel in [1, 4, 6] {
        values[channel * 18..(channel + 1) * 18].iter_mut().for_each(|value| *value *= 0.01);
    }
    made.model.graph.initializers.get_mut("w0").unwrap();
    let outcome = prune(&mut made.model, &settings(0.375, 1), None).unwrap();
    let gone = outcome.removed.iter().find(|removed| removed.tensor == "w0").unwrap();
    assert_eq!((gone.axis, gone.indices.as_slice()), (0, &[1, 4, 6][..]));
}

#[test]
fn what_cannot_be_pruned_is_refused_and_left_alone() {
    let mut model = named("plain").model;
    let before = model.to_bytes();
    for sparsity in [0.0, 1.0, -0.5, f64::NAN] {
        let error = prune(&mut model, &settings(sparsity, 4), None).unwrap_err();
        assert!(matches!(error, PruneError::Sparsity { .. }), "{error}");
    }
    let missing = Settings { sparsity: None, ..settings(0.5, 4) };
    assert!(prune(&mut model, &missing, None).unwrap_err().to_string().contains("it has none"));
    let taylor = Settings { score: Score::Taylor, ..settings(0.5, 4) };
    assert!(matches!(prune(&mut model, &taylor, None).unwrap_err(), PruneError::DataRequired));
    assert!(matches!(prune(&mut model, &settings(0.5, 0), None).unwrap_err(), PruneError::Multiple));
    assert!(prune(&mut model, &settings(0.01, 4), None).unwrap_err().to_string().contains("too few channels"));
    let weights = model.graph.initializers.get_mut("w0").unwrap();
    let TensorData::F32(values) = &mut weights.data else { panic!("no floats") };
    let good = std::mem::replace(&mut values[5], f32::NAN);
    assert!(
        matches!(prune(&mut model, &settings(0.5, 4), None).unwrap_err(), PruneError::NotFinite(name) if name == "w0")
    );
    let TensorData::F32(values) = &mut model.graph.initializers.get_mut("w0").unwrap().data else {
        panic!("no floats")
    };
    values[5] = good;
    assert_eq!(model.to_bytes(), before);

    let mut net = Net::new(1, &[1, 3, 4, 4]);
    let y = net.conv("x", 3, 8, 3, 1, 1);
    let y = net.op("DepthToSpace", &[&y], &[("blocksize", super::support::int(2))]);
    let mut model = net.done("frozen", &[&y]).model;
    let error = prune(&mut model, &settings(0.5, 4), None).unwrap_err().to_string();
    assert!(error.contains("tied to what must stay: DepthToSpace"), "{error}");
}
