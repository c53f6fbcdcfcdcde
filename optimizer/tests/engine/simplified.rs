//! Simplified graphs give what the original gives, with fewer operations.

use std::collections::BTreeMap;

use edgeyard_optimizer::ir::{Attribute, Graph, Tensor};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::support::{Builder, Noise, assert_near, int, ints, run_one};

/// Simplifies, compares the outputs, gives the operators that are left.
fn same(builder: &Builder, input: &[usize]) -> Vec<String> {
    same_with(builder, input, &Shapes::Declared)
}

fn same_with(builder: &Builder, input: &[usize], shapes: &Shapes) -> Vec<String> {
    let mut model = builder.loaded();
    model.graph = simplify(&model.graph, shapes).unwrap();
    for seed in 0..3 {
        let x = Noise::new(seed).values(input.iter().product());
        let expected = run_one(&builder.bytes(), &x, input);
        assert_near(&expected, &run_one(&model.to_bytes(), &x, input), 1e-5);
    }
    operators(&model.graph)
}

fn operators(graph: &Graph) -> Vec<String> {
    graph.nodes.iter().map(|node| node.op_type.clone()).collect()
}

/// Parameters of a batch normalisation.
fn normalized(builder: Builder, channels: usize, input: &str, output: &str) -> Builder {
    let mut noise = Noise::new(9);
    let variance = noise.values(channels).iter().map(|value| value.abs() + 0.1).collect();
    builder
        .constant("gamma", noise.tensor(&[channels]))
        .constant("beta", noise.tensor(&[channels]))
        .constant("mean", noise.tensor(&[channels]))
        .constant("variance", Tensor::f32(&[channels], variance))
        .node(
            "BatchNormalization",
            &[input, "gamma", "beta", "mean", "variance"],
            output,
            &[("epsilon", Attribute::Float(1e-3))],
        )
}

#[test]
fn batch_normalisation_goes_into_the_weights() {
    for bias in [false, true] {
        let mut noise = Noise::new(3);
        let builder = Builder::new(13, &[0, 4, 6, 6])
            .constant("w", noise.tensor(&[8, 2, 3, 3]))
            .constant("b", noise.tensor(&[8]));
        let inputs: &[&str] = if bias { &["x", "w", "b"] } else { &["x", "w"] };
        let builder = builder.node("Conv", inputs, "c", &[("group", int(2))]);
        let builder = normalized(builder, 8, "c", "n").node("Relu", &["n"], "y", &[]);
        assert_eq!(same(&builder, &[2, 4, 6, 6]), ["Conv", "Relu"]);
        for transposed in [0, 1] {
            let dims = if transposed == 1 { [5, 7] } else { [7, 5] };
            let builder =
                Builder::new(13, &[0, 7]).constant("w", noise.tensor(&dims)).constant("b", noise.tensor(&[5]));
            let builder = builder.node("Gemm", inputs, "g", &[("transB", int(transposed))]);
            assert_eq!(same(&normalized(builder, 5, "g", "y"), &[3, 7]), ["Gemm"]);
        }
    }
}

#[test]
fn batch_normalisation_that_must_stay_becomes_a_mul_and_an_add() {
    // The convolution's output is read twice, so its weights must not change.
    let builder = Builder::new(13, &[1, 4, 6, 6]).constant("w", Noise::new(3).tensor(&[4, 4, 3, 3]));
    let builder = builder.node("Conv", &["x", "w"], "c", &[]);
    let builder = normalized(builder, 4, "c", "n").node("Add", &["c", "n"], "y", &[]);
    assert_eq!(same(&builder, &[1, 4, 6, 6]), ["Conv", "Mul", "Add", "Add"]);
    assert_eq!(same(&normalized(Builder::new(13, &[2, 3, 4]), 3, "x", "y"), &[2, 3, 4]), ["Mul", "Add"]);
    assert_eq!(same(&normalized(Builder::new(13, &[2, 3]), 3, "x", "y"), &[2, 3]), ["Mul", "Add"]);
}

#[test]
fn scales_and_shifts_go_into_the_weights_only_where_they_are_per_channel() {
    let mut noise = Noise::new(4);
    let conv = |noise: &mut Noise| {
        Builder::new(13, &[1, 4, 6, 6]).constant("w", noise.tensor(&[4, 4, 3, 3])).node("Conv", &["x", "w"], "c", &[])
    };
    for op in ["Mul", "Add", "Sub", "Div"] {
        for dims in [&[1, 4, 1, 1][..], &[4, 1, 1], &[1], &[]] {
            let builder = conv(&mut noise).constant("k", noise.tensor(dims)).node(op, &["c", "k"], "y", &[]);
            assert_eq!(same(&builder, &[1, 4, 6, 6]), ["Conv"], "{op} {dims:?}");
        }
        // The same number of elements along another axis.
        let builder = conv(&mut noise).constant("k", noise.tensor(&[4])).node(op, &["c", "k"], "y", &[]);
        assert_eq!(same(&builder, &[1, 4, 6, 6]), ["Conv", op]);
    }
    for op in ["Sub", "Div"] {
        let builder = conv(&mut noise).constant("k", noise.tensor(&[1])).node(op, &["k", "c"], "y", &[]);
        assert_eq!(same(&builder, &[1, 4, 6, 6]), ["Conv", op]);
    }
    for op in ["Mul", "Add"] {
        let builder = conv(&mut noise).constant("k", noise.tensor(&[4, 1, 1])).node(op, &["k", "c"], "y", &[]);
        assert_eq!(same(&builder, &[1, 4, 6, 6]), ["Conv"]);
    }
}

#[test]
fn a_product_and_its_bias_become_one() {
    let mut noise = Noise::new(5);
    for order in [["m", "b"], ["b", "m"]] {
        let builder = Builder::new(13, &[3, 7]).constant("w", noise.tensor(&[7, 5])).constant("b", noise.tensor(&[5]));
        let builder = builder.node("MatMul", &["x", "w"], "m", &[]).node("Add", &order, "y", &[]);
        assert_eq!(same(&builder, &[3, 7]), ["Gemm"]);
    }
    let builder = Builder::new(13, &[2, 3, 7]).constant("w", noise.tensor(&[7, 5])).constant("b", noise.tensor(&[5]));
    let builder = builder.node("MatMul", &["x", "w"], "m", &[]).node("Add", &["m", "b"], "y", &[]);
    assert_eq!(same(&builder, &[2, 3, 7]), ["MatMul", "Add"]);
}

#[test]
fn what_does_nothing_goes_and_outputs_keep_their_names() {
    let builder = Builder::new(13, &[2, 3])
        .node("Identity", &["x"], "a", &[])
        .node("Dropout", &["a"], "b", &[])
        .node("Relu", &["b"], "c", &[])
        .node("Transpose", &["c"], "d", &[("perm", ints(&[0, 1]))])
        .node("Flatten", &["d"], "e", &[])
        .node("Identity", &["e"], "y", &[]);
    assert_eq!(same(&builder, &[2, 3]), ["Relu"]);
    // Nothing makes the output but the node that does nothing.
    assert_eq!(same(&Builder::new(13, &[2, 3]).node("Identity", &["x"], "y", &[]), &[2, 3]), ["Identity"]);
}

#[test]
fn shape_arithmetic_of_exporters_folds_when_shapes_are_fixed() {
    // PyTorch's x.view(x.size(0), -1).
    let builder = Builder::new(13, &[0, 3, 4, 5])
        .constant("zero", Tensor::i64(&[], vec![0]))
        .constant("axes", Tensor::i64(&[1], vec![0]))
        .constant("rest", Tensor::i64(&[1], vec![-1]))
        .node("Relu", &["x"], "r", &[])
        .node("Shape", &["r"], "s", &[])
        .node("Gather", &["s", "zero"], "n", &[("axis", int(0))])
        .node("Unsqueeze", &["n", "axes"], "u", &[])
        .node("Concat", &["u", "rest"], "t", &[("axis", int(0))])
        .node("Reshape", &["r", "t"], "y", &[]);
    assert_eq!(same_with(&builder, &[1, 3, 4, 5], &Shapes::Fixed(BTreeMap::new())), ["Relu", "Reshape"]);
    // With a free batch the arithmetic must stay.
    assert_eq!(same(&builder, &[6, 3, 4, 5]).len(), 6);
}

#[test]
fn free_dimensions_are_asked_for_by_name() {
    let mut builder = Builder::new(13, &[1, 3, 4, 4]).node("Relu", &["x"], "y", &[]);
    builder.model.graph.inputs[0].shape[2] = edgeyard_optimizer::ir::Dim::Symbol("height".into());
    let fixed = |given: &[(&str, &[usize])]| {
        let given = given.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        simplify(&builder.loaded().graph, &Shapes::Fixed(given))
    };
    let error = fixed(&[]).unwrap_err().to_string();
    assert!(error.contains("input x has the free dimension height at position 2"), "{error}");
    assert_eq!(fixed(&[("x", &[1, 3, 9, 4])]).unwrap().shape_of("y"), Some(&[1, 3, 9, 4][..]));
    assert!(fixed(&[("x", &[1, 3, 9, 5])]).unwrap_err().to_string().contains("declared as [1, 3, height, 4]"));
    assert!(fixed(&[("z", &[1])]).unwrap_err().to_string().contains("no input"));
}
