//! Operators that exporters of transformers, detectors and recurrent models use, lowered in every mode, against
//! onnxruntime, LiteRT and TensorFlow Lite Micro.

use edgeyard_optimizer::ir::{DataType, Tensor};

use super::harness::{Case, case, check, float, int, ints};

fn flags(case: Case, name: &str, shape: &[usize], values: Vec<bool>) -> Case {
    let mut case = case;
    let data = edgeyard_optimizer::ir::TensorData::Bool(values);
    case.model.graph.initializers.insert(name.into(), Tensor { dims: shape.to_vec(), data });
    case
}

#[test]
fn functions_without_an_operator_agree_in_float() {
    let x = |name: &str| case(name).input("x", &[1, 3, 4, 5]).output("y");
    let alone = |name: &str, op: &str| x(name).node(op, &["x"], "y", &[]).int8(28.0).without_micro();
    let shifted = |name: &str| x(name).floats("four", &[], vec![4.5]).node("Add", &["x", "four"], "p", &[]);
    check(vec![
        alone("erf", "Erf"),
        alone("mish", "Mish").opset(18),
        alone("softsign", "Softsign"),
        alone("selu", "Selu"),
        x("celu").node("Celu", &["x"], "y", &[("alpha", float(0.7))]).int8(28.0).without_micro(),
        x("elu_of_slope").node("Elu", &["x"], "y", &[("alpha", float(0.4))]).int8(28.0).without_micro(),
        x("round")
            .floats("ten", &[], vec![3.0])
            .node("Mul", &["x", "ten"], "p", &[])
            .node("Round", &["p"], "y", &[])
            .int8(8.0)
            .without_micro(),
        shifted("reciprocal").node("Reciprocal", &["p"], "y", &[]).int8(20.0).without_micro(),
        x("sum").node("Relu", &["x"], "r", &[]).node("Sum", &["x", "r", "x"], "y", &[]).int8(28.0),
        x("mean").node("Relu", &["x"], "r", &[]).node("Mean", &["x", "r"], "y", &[]).int8(28.0),
    ]);
}

#[test]
fn types_and_choices_agree() {
    let x = |name: &str| case(name).input("x", &[1, 3, 4, 5]);
    let bools = int(DataType::Bool.onnx());
    let floats = int(DataType::F32.onnx());
    let compared = |name: &str, op: &str| {
        x(name)
            .floats("limit", &[], vec![0.25])
            .node(op, &["x", "limit"], "is", &[])
            .node("Cast", &["is"], "y", &[("to", floats.clone())])
            .output("y")
            .int8(8.0)
            .without_micro()
    };
    let mask: Vec<bool> = (0..20).map(|at| at % 3 == 0).collect();
    check(vec![
        compared("greater", "Greater"),
        compared("less", "Less"),
        compared("greater_or_equal", "GreaterOrEqual"),
        compared("less_or_equal", "LessOrEqual"),
        x("logic")
            .floats("low", &[], vec![-0.5])
            .floats("high", &[], vec![0.5])
            .node("Less", &["x", "low"], "a", &[])
            .node("Greater", &["x", "high"], "b", &[])
            .node("Or", &["a", "b"], "c", &[])
            .node("Not", &["c"], "d", &[])
            .node("Cast", &["d"], "y", &[("to", floats.clone())])
            .output("y")
            .int8(8.0)
            .without_micro(),
        x("truncated")
            .floats("ten", &[], vec![10.0])
            .node("Mul", &["x", "ten"], "p", &[])
            .node("Cast", &["p"], "i", &[("to", int(DataType::I32.onnx()))])
            .node("Cast", &["i"], "y", &[("to", floats.clone())])
            .output("y")
            .int8(18.0)
            .without_micro(),
        x("truth")
            .node("Relu", &["x"], "r", &[])
            .node("Cast", &["r"], "b", &[("to", bools)])
            .node("Cast", &["b"], "y", &[("to", floats.clone())])
            .output("y")
            .int8(4.0)
            .without_micro(),
        x("halves")
            .node("Cast", &["x"], "h", &[("to", int(DataType::F16.onnx()))])
            .node("Cast", &["h"], "y", &[("to", floats)])
            .output("y")
            .within(1e-3),
        flags(x("where_constant"), "mask", &[4, 5], mask)
            .floats("low", &[], vec![-3.0])
            .node("Where", &["mask", "x", "low"], "y", &[])
            .output("y")
            .int8(28.0)
            .without_micro(),
        x("where_computed")
            .floats("zero", &[], vec![0.0])
            .node("Greater", &["x", "zero"], "is", &[])
            .node("Sigmoid", &["x"], "s", &[])
            .node("Where", &["is", "x", "s"], "y", &[])
            .output("y")
            .int8(22.0)
            .without_micro(),
    ]);
}

#[test]
fn expansion_agrees_in_every_mode() {
    let x = |name: &str, shape: &[usize]| case(name).input("x", shape).output("y");
    check(vec![
        x("expand_one_axis", &[1, 3, 1, 5]).ints("s", &[1, 3, 4, 5]).node("Expand", &["x", "s"], "y", &[]),
        x("expand_many", &[1, 3, 1, 1]).ints("s", &[2, 3, 7, 5]).node("Expand", &["x", "s"], "y", &[]),
        x("expand_rank", &[3, 1]).ints("s", &[2, 3, 4]).node("Expand", &["x", "s"], "y", &[]),
        x("expand_after_conv", &[1, 3, 6, 6])
            .weights("w", &[4, 3, 3, 3])
            .node("Conv", &["x", "w"], "c", &[])
            .node("GlobalAveragePool", &["c"], "g", &[])
            .ints("s", &[1, 4, 4, 4])
            .node("Expand", &["g", "s"], "e", &[])
            .node("Mul", &["c", "e"], "y", &[])
            .int8(25.0),
    ]);
}

#[test]
fn grouped_transposed_convolutions_and_dilated_pools_agree() {
    let up = |name: &str, w: &[usize], group: usize| {
        case(name).input("x", &[1, w[0], 5, 4]).weights("w", w).weights("b", &[w[1] * group]).output("y")
    };
    let group = |count: i64| ("group", int(count));
    let wb = ["x", "w", "b"];
    let pool = |name: &str| case(name).input("x", &[1, 3, 9, 8]).output("y");
    check(vec![
        up("up_grouped", &[4, 3, 3, 3], 2).node("ConvTranspose", &wb, "y", &[group(2), ("strides", ints(&[2, 2]))]),
        up("up_depthwise", &[4, 1, 2, 2], 4).node(
            "ConvTranspose",
            &wb,
            "y",
            &[group(4), ("strides", ints(&[2, 2])), ("pads", ints(&[1, 0, 0, 1]))],
        ),
        pool("pool_dilated").node(
            "MaxPool",
            &["x"],
            "y",
            &[("kernel_shape", ints(&[3, 2])), ("dilations", ints(&[2, 3]))],
        ),
        pool("pool_dilated_padded").node(
            "MaxPool",
            &["x"],
            "y",
            &[
                ("kernel_shape", ints(&[2, 2])),
                ("dilations", ints(&[3, 2])),
                ("strides", ints(&[2, 1])),
                ("pads", ints(&[1, 1, 1, 1])),
            ],
        ),
    ]);
}

#[test]
fn products_of_batches_agree_in_every_mode() {
    let two = |name: &str, a: &[usize], b: &[usize]| {
        case(name).input("x", a).input("z", b).output("y").node("MatMul", &["x", "z"], "y", &[]).int8(28.0)
    };
    let right = |name: &str, a: &[usize], b: &[usize]| {
        case(name).input("x", a).weights("w", b).output("y").node("MatMul", &["x", "w"], "y", &[]).int8(28.0)
    };
    let left = |name: &str, a: &[usize], b: &[usize]| {
        case(name).input("x", b).weights("w", a).output("y").node("MatMul", &["w", "x"], "y", &[]).int8(28.0)
    };
    check(vec![
        two("batched", &[2, 3, 4], &[2, 4, 5]),
        two("batched_4d", &[2, 3, 4, 6], &[2, 3, 6, 5]),
        two("batch_broadcast", &[1, 3, 4, 6], &[2, 1, 6, 5]),
        two("rank_broadcast", &[2, 3, 4, 6], &[6, 5]),
        right("constant_batches", &[2, 3, 4], &[2, 4, 5]),
        right("constant_broadcast", &[1, 3, 4], &[2, 4, 5]),
        right("constant_matrix", &[2, 3, 4, 6], &[6, 5]).reference_within(1),
        left("constant_left", &[4, 3], &[2, 3, 5]),
        left("constant_left_batches", &[2, 4, 3], &[2, 3, 5]),
        right("vector_right", &[2, 3, 4], &[4]).reference_within(1),
        left("vector_left", &[3], &[2, 3, 5]),
        two("five_dimensions", &[2, 2, 3, 4, 5], &[2, 2, 3, 5, 6]),
    ]);
}

#[test]
fn what_exporters_took_apart_is_lowered_as_one() {
    let x = |name: &str| case(name).input("x", &[1, 4, 16]).output("y");
    let number = |case: Case, name: &str, value: f32| case.floats(name, &[], vec![value]);
    let gelu = number(number(number(x("gelu_parts"), "root", std::f32::consts::SQRT_2), "one", 1.0), "half", 0.5)
        .node("Div", &["x", "root"], "d", &[])
        .node("Erf", &["d"], "e", &[])
        .node("Add", &["e", "one"], "a", &[])
        .node("Mul", &["x", "a"], "p", &[])
        .node("Mul", &["p", "half"], "y", &[]);
    let axes = [("axes", ints(&[-1]))];
    let norm = number(number(x("norm_parts"), "two", 2.0), "eps", 1e-5)
        .weights("gamma", &[16])
        .weights("beta", &[16])
        .node("ReduceMean", &["x"], "mean", &axes)
        .node("Sub", &["x", "mean"], "d", &[])
        .node("Pow", &["d", "two"], "sq", &[])
        .node("ReduceMean", &["sq"], "var", &axes)
        .node("Add", &["var", "eps"], "safe", &[])
        .node("Sqrt", &["safe"], "root", &[])
        .node("Div", &["d", "root"], "n", &[])
        .node("Mul", &["n", "gamma"], "m", &[])
        .node("Add", &["m", "beta"], "y", &[]);
    let swish = number(number(number(x("swish_parts"), "three", 3.0), "zero", 0.0), "six", 6.0)
        .node("Add", &["x", "three"], "a", &[])
        .node("Clip", &["a", "zero", "six"], "c", &[])
        .node("Mul", &["x", "c"], "p", &[])
        .node("Div", &["p", "six"], "y", &[]);
    check(vec![
        gelu.opset(13).int8(28.0).without_micro().operators(&["GELU"]),
        norm.opset(13)
            .int8(22.0)
            .without_micro()
            .operators(&["MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "MUL", "ADD"]),
        swish.opset(13).operators(&["HARD_SWISH"]),
    ]);
}
