//! What exporters of older operator sets take apart is put together again, with the same results.

use std::collections::BTreeMap;

use edgeyard_optimizer::ir::{Attribute, DataType, Node, Tensor, Value, wire::Writer};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::support::{Builder, Noise, assert_near, int, ints, run_one};

/// Simplifies, compares the outputs, gives the operators that are left.
fn same(builder: &Builder, input: &[usize]) -> Vec<String> {
    let mut model = builder.loaded();
    model.graph = simplify(&model.graph, &Shapes::Fixed(BTreeMap::new())).unwrap();
    for seed in 0..3 {
        let x = Noise::new(seed).values(input.iter().product());
        let expected = run_one(&builder.bytes(), &x, input);
        assert_near(&expected, &run_one(&model.to_bytes(), &x, input), 1e-5);
    }
    model.graph.nodes.iter().map(|node| node.op_type.clone()).collect()
}

fn scalar(value: f32) -> Tensor {
    Tensor::f32(&[], vec![value])
}

fn constants(builder: Builder, values: &[(&str, f32)]) -> Builder {
    values.iter().fold(builder, |builder, (name, value)| builder.constant(name, scalar(*value)))
}

/// Clip(x + 3, 0, 6) as `gate`.
fn relu6_of_shifted(builder: Builder, x: &str) -> Builder {
    constants(builder, &[("three", 3.0), ("zero", 0.0), ("six", 6.0), ("sixth", 1.0 / 6.0)])
        .node("Add", &[x, "three"], "shifted", &[])
        .node("Clip", &["shifted", "zero", "six"], "gate", &[])
}

#[test]
fn hard_swish_is_found_in_every_way_it_is_written() {
    let base = |opset| relu6_of_shifted(Builder::new(opset, &[1, 4, 3, 3]), "x");
    let product_first = |opset| base(opset).node("Mul", &["x", "gate"], "p", &[]).node("Div", &["p", "six"], "y", &[]);
    assert_eq!(same(&product_first(14), &[1, 4, 3, 3]), ["HardSwish"]);
    // Opset 13 has no HardSwish.
    assert_eq!(same(&product_first(13), &[1, 4, 3, 3]), ["Add", "Clip", "Mul", "Div"]);
    for (by, op) in [("six", "Div"), ("sixth", "Mul")] {
        let gate_first = |opset| base(opset).node(op, &["gate", by], "h", &[]).node("Mul", &["h", "x"], "y", &[]);
        assert_eq!(same(&gate_first(14), &[1, 4, 3, 3]), ["HardSwish"], "{op}");
        assert_eq!(same(&gate_first(11), &[1, 4, 3, 3]), ["HardSigmoid", "Mul"], "{op}");
    }
    // Another bound, another function.
    let other = constants(Builder::new(14, &[1, 4]), &[("three", 3.0), ("zero", 0.0), ("five", 5.0), ("six", 6.0)])
        .node("Add", &["x", "three"], "shifted", &[])
        .node("Clip", &["shifted", "zero", "five"], "gate", &[])
        .node("Mul", &["x", "gate"], "p", &[])
        .node("Div", &["p", "six"], "y", &[]);
    assert_eq!(same(&other, &[1, 4]).len(), 4);
}

#[test]
fn squeeze_and_excite_keeps_a_hard_sigmoid() {
    let mut noise = Noise::new(2);
    let builder = Builder::new(13, &[1, 4, 6, 6])
        .constant("w1", noise.tensor(&[2, 4, 1, 1]))
        .constant("w2", noise.tensor(&[4, 2, 1, 1]))
        .node("GlobalAveragePool", &["x"], "pool", &[])
        .node("Conv", &["pool", "w1"], "squeezed", &[])
        .node("Relu", &["squeezed"], "r", &[])
        .node("Conv", &["r", "w2"], "excited", &[]);
    let builder =
        relu6_of_shifted(builder, "excited").node("Div", &["gate", "six"], "h", &[]).node("Mul", &["x", "h"], "y", &[]);
    assert_eq!(same(&builder, &[1, 4, 6, 6]), ["GlobalAveragePool", "Conv", "Relu", "Conv", "HardSigmoid", "Mul"]);
}

#[test]
fn sigmoid_and_silu_are_found() {
    let exponential = || {
        constants(Builder::new(13, &[2, 5]), &[("one", 1.0)])
            .node("Neg", &["x"], "n", &[])
            .node("Exp", &["n"], "e", &[])
            .node("Add", &["e", "one"], "s", &[])
    };
    assert_eq!(same(&exponential().node("Div", &["one", "s"], "y", &[]), &[2, 5]), ["Sigmoid"]);
    assert_eq!(same(&exponential().node("Reciprocal", &["s"], "y", &[]), &[2, 5]), ["Sigmoid"]);
    assert_eq!(same(&exponential().node("Div", &["x", "s"], "y", &[]), &[2, 5]), ["Sigmoid", "Mul"]);
}

#[test]
fn gelu_is_found_in_every_way_it_is_written() {
    let values = [("root", std::f32::consts::SQRT_2), ("one", 1.0), ("half", 0.5)];
    let erf = |opset| {
        constants(Builder::new(opset, &[2, 6]), &values)
            .node("Div", &["x", "root"], "d", &[])
            .node("Erf", &["d"], "e", &[])
            .node("Add", &["e", "one"], "a", &[])
    };
    let late = |opset| erf(opset).node("Mul", &["x", "a"], "p", &[]).node("Mul", &["p", "half"], "y", &[]);
    assert_eq!(same(&late(20), &[2, 6]), ["Gelu"]);
    assert_eq!(same(&late(17), &[2, 6]).len(), 5);
    let early = erf(20).node("Mul", &["x", "half"], "p", &[]).node("Mul", &["p", "a"], "y", &[]);
    assert_eq!(same(&early, &[2, 6]), ["Gelu"]);
    let values = [("three", 3.0), ("k", 0.044_715), ("c", 0.797_884_6), ("one", 1.0), ("half", 0.5)];
    let tanh = constants(Builder::new(20, &[2, 6]), &values)
        .node("Pow", &["x", "three"], "cube", &[])
        .node("Mul", &["cube", "k"], "kc", &[])
        .node("Add", &["x", "kc"], "sum", &[])
        .node("Mul", &["sum", "c"], "scaled", &[])
        .node("Tanh", &["scaled"], "t", &[])
        .node("Add", &["t", "one"], "a", &[])
        .node("Mul", &["x", "a"], "p", &[])
        .node("Mul", &["p", "half"], "y", &[]);
    assert_eq!(same(&tanh, &[2, 6]), ["Gelu"]);
}

#[test]
fn layer_normalisation_is_found_with_and_without_scale_and_shift() {
    let mut noise = Noise::new(7);
    let parts = |opset: i64, keep: &str| {
        let axes = [("axes", ints(&[-1]))];
        constants(Builder::new(opset, &[2, 3, 8]), &[("two", 2.0), ("eps", 1e-5)])
            .node("ReduceMean", &["x"], "mean", &axes)
            .node("Sub", &["x", "mean"], "d", &[])
            .node("Pow", &["d", "two"], "sq", &[])
            .node("ReduceMean", &["sq"], "var", &axes)
            .node("Add", &["var", "eps"], "safe", &[])
            .node("Sqrt", &["safe"], "root", &[])
            .node("Div", &["d", "root"], keep, &[])
    };
    assert_eq!(same(&parts(17, "y"), &[2, 3, 8]), ["LayerNormalization"]);
    assert_eq!(same(&parts(16, "y"), &[2, 3, 8]).len(), 7);
    let scaled = |last: &str| parts(17, "n").node("Mul", &["n", "gamma"], last, &[]);
    let gamma = noise.tensor(&[8]);
    assert_eq!(same(&scaled("y").constant("gamma", gamma.clone()), &[2, 3, 8]), ["LayerNormalization"]);
    let shifted = scaled("m").constant("gamma", gamma).constant("beta", noise.tensor(&[8]));
    assert_eq!(same(&shifted.node("Add", &["beta", "m"], "y", &[]), &[2, 3, 8]), ["LayerNormalization"]);
    // A scale of another shape stays a product.
    let wide = scaled("y").constant("gamma", noise.tensor(&[3, 8]));
    assert_eq!(same(&wide, &[2, 3, 8]), ["LayerNormalization", "Mul"]);
}

/// A graph as an attribute.
fn branch(attribute: &str, nodes: &[Node], output: &str) -> Attribute {
    let mut graph = Writer::default();
    for node in nodes {
        graph.bytes(1, &node.to_bytes());
    }
    graph.bytes(2, b"branch");
    let mut kind = Writer::default();
    kind.bytes(1, &{
        let mut tensor = Writer::default();
        tensor.int(1, DataType::F32.onnx());
        tensor.finish()
    });
    let mut value = Writer::default();
    value.bytes(1, output.as_bytes()).bytes(2, &kind.finish());
    graph.bytes(12, &value.finish());
    let mut proto = Writer::default();
    proto.bytes(1, attribute.as_bytes()).bytes(6, &graph.finish()).int(20, 5);
    Attribute::Opaque(proto.finish())
}

fn conditional(condition: Builder, name: &str, output: &str) -> Builder {
    // Both branches, and those of every other If, use the same inner names.
    let then = [Node::new("Neg", "n", &["x"], &["inner"]), Node::new("Exp", "e", &["inner"], &["out"])];
    let other = [Node::new("Abs", "n", &["x"], &["inner"]), Node::new("Sqrt", "e", &["inner"], &["out"])];
    condition.node(
        "If",
        &[name],
        output,
        &[("then_branch", branch("then_branch", &then, "out")), ("else_branch", branch("else_branch", &other, "out"))],
    )
}

#[test]
fn an_if_of_known_condition_becomes_the_branch_it_takes() {
    for (size, left) in [(3, ["Neg", "Exp", "Neg", "Exp", "Add"]), (4, ["Abs", "Sqrt", "Abs", "Sqrt", "Add"])] {
        // x.shape[1] == 3, as PyTorch's scripted models ask it.
        let builder = Builder::new(13, &[1, size])
            .constant("one", Tensor::i64(&[], vec![1]))
            .constant("three", Tensor::i64(&[], vec![3]))
            .node("Shape", &["x"], "s", &[])
            .node("Gather", &["s", "one"], "n", &[("axis", int(0))])
            .node("Equal", &["n", "three"], "is", &[]);
        let builder = conditional(conditional(builder, "is", "one_way"), "is", "again");
        let builder = builder.node("Add", &["one_way", "again"], "y", &[]);
        assert_eq!(same(&builder, &[1, size]), left);
    }
}

#[test]
fn an_if_that_depends_on_the_data_stays() {
    let builder = Builder::new(13, &[1, 3])
        .constant("zero", scalar(0.0))
        .node("ReduceSum", &["x"], "sum", &[("keepdims", int(0))])
        .node("Greater", &["sum", "zero"], "is", &[]);
    let builder = conditional(builder, "is", "chosen").node("Relu", &["chosen"], "y", &[]);
    assert_eq!(same(&builder, &[1, 3]), ["ReduceSum", "Greater", "If", "Relu"]);
}

#[test]
fn masks_and_positions_of_exporters_fold() {
    // A causal mask: Where(Trilu(ones), 0, -1e9), and positions by Range, Expand and Cast.
    let list = |values: &[i64]| Tensor::i64(&[values.len()], values.to_vec());
    let builder = Builder::new(14, &[1, 4, 4])
        .constant("shape", list(&[4, 4]))
        .constant("low", scalar(-1e9))
        .constant("zero", scalar(0.0))
        .constant("start", Tensor::i64(&[], vec![0]))
        .constant("limit", Tensor::i64(&[], vec![4]))
        .constant("step", Tensor::i64(&[], vec![1]))
        .node("ConstantOfShape", &["shape"], "ones", &[("value", Attribute::Tensor(list(&[1])))])
        .node("Trilu", &["ones"], "lower", &[("upper", int(0))])
        .node("Cast", &["lower"], "mask", &[("to", int(DataType::Bool.onnx()))])
        .node("Where", &["mask", "zero", "low"], "bias", &[])
        .node("Range", &["start", "limit", "step"], "positions", &[])
        .node("Expand", &["positions", "shape"], "grid", &[])
        .node("Cast", &["grid"], "floats", &[("to", int(DataType::F32.onnx()))])
        .node("Add", &["x", "bias"], "masked", &[])
        .node("Softmax", &["masked"], "p", &[])
        .node("Add", &["p", "floats"], "y", &[]);
    assert_eq!(same(&builder, &[1, 4, 4]), ["Add", "Softmax", "Add"]);
}

#[test]
fn a_resize_by_scales_has_a_known_shape() {
    let builder = Builder::new(13, &[1, 2, 5, 4])
        .constant("scales", Tensor::f32(&[4], vec![1.0, 1.0, 2.0, 1.5]))
        .constant("rows", Tensor::i64(&[], vec![2]))
        .constant("axes", Tensor::i64(&[1], vec![0]))
        .node("Resize", &["x", "", "scales"], "r", &[])
        .node("Shape", &["r"], "s", &[])
        .node("Gather", &["s", "rows"], "n", &[])
        .node("Unsqueeze", &["n", "axes"], "u", &[])
        .constant("rest", Tensor::i64(&[1], vec![-1]))
        .node("Concat", &["u", "rest"], "t", &[("axis", int(0))])
        .node("Reshape", &["r", "t"], "y", &[]);
    let mut model = builder.loaded();
    model.graph.outputs[0] = Value::fixed("y", DataType::F32, &[10, 12]);
    model.graph = simplify(&model.graph, &Shapes::Declared).unwrap();
    assert_eq!(model.graph.shape_of("y"), Some(&[10, 12][..]));
    assert_eq!(same(&builder, &[1, 2, 5, 4]), ["Resize", "Reshape"]);
}
