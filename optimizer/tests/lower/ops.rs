//! Single operators, lowered in every mode, against onnxruntime, LiteRT and TensorFlow Lite Micro.

use edgeyard_optimizer::ir::DataType;

use super::harness::{Case, case, check, float, int, ints, text};

#[test]
fn convolutions_agree_in_every_mode() {
    let conv = |name: &str, x: &[usize], w: &[usize]| {
        case(name).input("x", x).weights("w", w).weights("b", &w[..1]).output("y")
    };
    let wb = ["x", "w", "b"];
    check(vec![
        conv("valid", &[1, 3, 8, 8], &[4, 3, 3, 3]).node("Conv", &wb, "y", &[]).operators(&[
            "TRANSPOSE",
            "CONV_2D",
            "TRANSPOSE",
        ]),
        conv("same", &[1, 3, 8, 8], &[4, 3, 3, 3]).node("Conv", &wb, "y", &[("pads", ints(&[1, 1, 1, 1]))]),
        conv("stride2_pads1", &[1, 3, 8, 8], &[4, 3, 3, 3])
            .node("Conv", &wb, "y", &[("pads", ints(&[1, 1, 1, 1])), ("strides", ints(&[2, 2]))])
            .operators(&["TRANSPOSE", "PAD", "CONV_2D", "TRANSPOSE"]),
        conv("asymmetric", &[1, 2, 9, 7], &[5, 2, 3, 2]).node(
            "Conv",
            &wb,
            "y",
            &[("pads", ints(&[2, 0, 1, 3])), ("strides", ints(&[2, 1]))],
        ),
        conv("same_upper", &[1, 2, 9, 8], &[5, 2, 3, 3])
            .node("Conv", &wb, "y", &[("auto_pad", text("SAME_UPPER")), ("strides", ints(&[2, 2]))])
            .operators(&["TRANSPOSE", "CONV_2D", "TRANSPOSE"]),
        conv("same_lower", &[1, 2, 8, 8], &[5, 2, 2, 3]).node("Conv", &wb, "y", &[("auto_pad", text("SAME_LOWER"))]),
        conv("dilated", &[1, 3, 12, 12], &[4, 3, 3, 3]).node(
            "Conv",
            &wb,
            "y",
            &[("dilations", ints(&[2, 3])), ("pads", ints(&[2, 3, 2, 3]))],
        ),
        conv("grouped", &[1, 6, 8, 8], &[8, 3, 3, 3]).node("Conv", &wb, "y", &[("group", int(2))]),
        conv("depthwise", &[1, 4, 8, 8], &[4, 1, 3, 3])
            .node("Conv", &wb, "y", &[("group", int(4)), ("pads", ints(&[1, 1, 1, 1]))])
            .operators(&["TRANSPOSE", "DEPTHWISE_CONV_2D", "TRANSPOSE"]),
        conv("depthwise_multiplier", &[1, 4, 8, 8], &[8, 1, 3, 3]).node(
            "Conv",
            &wb,
            "y",
            &[("group", int(4)), ("strides", ints(&[2, 2]))],
        ),
        conv("depthwise_dilated", &[1, 4, 10, 10], &[4, 1, 3, 3]).node(
            "Conv",
            &wb,
            "y",
            &[("group", int(4)), ("dilations", ints(&[2, 2]))],
        ),
        conv("one_dimensional", &[1, 3, 20], &[4, 3, 5]).node(
            "Conv",
            &wb,
            "y",
            &[("pads", ints(&[2, 2])), ("strides", ints(&[2]))],
        ),
        conv("one_channel", &[1, 1, 8, 8], &[4, 1, 3, 3]).node("Conv", &wb, "y", &[]).operators(&[
            "RESHAPE",
            "CONV_2D",
            "TRANSPOSE",
        ]),
        conv("relu", &[1, 3, 8, 8], &[4, 3, 3, 3])
            .node("Conv", &wb, "c", &[])
            .node("Relu", &["c"], "y", &[])
            .operators(&["TRANSPOSE", "CONV_2D", "TRANSPOSE"]),
        conv("relu6", &[1, 3, 8, 8], &[4, 3, 3, 3])
            .floats("low", &[], vec![0.0])
            .floats("high", &[], vec![6.0])
            .node("Conv", &wb, "c", &[])
            .node("Clip", &["c", "low", "high"], "y", &[]),
        case("no_bias").input("x", &[1, 3, 6, 6]).weights("w", &[2, 3, 3, 3]).output("y").node(
            "Conv",
            &["x", "w"],
            "y",
            &[],
        ),
        case("batch_of_three").input("x", &[3, 3, 6, 6]).weights("w", &[2, 3, 3, 3]).output("y").node(
            "Conv",
            &["x", "w"],
            "y",
            &[],
        ),
    ]);
}

#[test]
fn batch_normalisation_agrees_alone_and_folded() {
    let norm = |name: &str, shape: &[usize]| {
        case(name)
            .input("x", shape)
            .weights("scale", &shape[1..2])
            .weights("bias", &shape[1..2])
            .weights("mean", &shape[1..2])
            .spread("variance", &shape[1..2], 0.05, 1.0)
            .output("y")
    };
    let parameters = ["scale", "bias", "mean", "variance"];
    let after = |x: &'static str| [&[x][..], &parameters].concat();
    check(vec![
        norm("alone", &[1, 4, 6, 6]).node("BatchNormalization", &after("x"), "y", &[]),
        norm("matrix", &[2, 6]).node("BatchNormalization", &after("x"), "y", &[("epsilon", float(0.01))]),
        norm("one_dimensional", &[1, 4, 9]).node("BatchNormalization", &after("x"), "y", &[]),
        norm("after_conv", &[1, 4, 6, 6])
            .weights("w", &[4, 4, 3, 3])
            .node("Conv", &["x", "w"], "c", &[])
            .node("BatchNormalization", &after("c"), "y", &[])
            .operators(&["TRANSPOSE", "CONV_2D", "TRANSPOSE"]),
    ]);
}

#[test]
fn matrix_products_agree_in_every_mode() {
    let gemm = |name: &str| case(name).input("x", &[2, 12]).output("y");
    let cases = vec![
        gemm("transposed").weights("w", &[5, 12]).weights("b", &[5]).node(
            "Gemm",
            &["x", "w", "b"],
            "y",
            &[("transB", int(1))],
        ),
        gemm("plain").weights("w", &[12, 5]).node("Gemm", &["x", "w"], "y", &[]),
        gemm("scaled").weights("w", &[12, 5]).weights("b", &[1]).node(
            "Gemm",
            &["x", "w", "b"],
            "y",
            &[("alpha", float(0.5)), ("beta", float(2.0))],
        ),
        case("left_transposed").input("x", &[12, 3]).output("y").weights("w", &[12, 5]).node(
            "Gemm",
            &["x", "w"],
            "y",
            &[("transA", int(1))],
        ),
        gemm("full_c").weights("w", &[12, 5]).weights("c", &[2, 5]).node("Gemm", &["x", "w", "c"], "y", &[]),
        gemm("computed_b").input("z", &[5, 12]).node("Gemm", &["x", "z"], "y", &[("transB", int(1))]),
        gemm("matmul").weights("w", &[12, 5]).node("MatMul", &["x", "w"], "y", &[]),
        gemm("matmul_add")
            .weights("w", &[12, 5])
            .weights("b", &[5])
            .node("MatMul", &["x", "w"], "m", &[])
            .node("Add", &["m", "b"], "y", &[])
            .operators(&["FULLY_CONNECTED"]),
        case("matmul_3d").input("x", &[1, 4, 6]).output("y").weights("w", &[6, 5]).node(
            "MatMul",
            &["x", "w"],
            "y",
            &[],
        ),
        case("matmul_two").input("x", &[1, 2, 4, 6]).input("z", &[1, 2, 6, 3]).output("y").node(
            "MatMul",
            &["x", "z"],
            "y",
            &[],
        ),
    ];
    check(cases.into_iter().map(|case: Case| case.reference_within(1)).collect());
}

#[test]
fn arithmetic_broadcasts_and_agrees() {
    let two = |name: &str, a: &[usize], b: &[usize]| case(name).input("a", a).input("b", b).output("y");
    let one = |name: &str, a: &[usize]| case(name).input("a", a).output("y");
    check(vec![
        two("add", &[1, 3, 5, 5], &[1, 3, 5, 5]).node("Add", &["a", "b"], "y", &[]).operators(&["ADD"]),
        two("add_channel", &[1, 3, 5, 5], &[1, 3, 1, 1]).node("Add", &["a", "b"], "y", &[]),
        one("add_constant", &[1, 3, 5, 5]).weights("c", &[3, 1, 1]).node("Add", &["a", "c"], "y", &[]),
        one("constant_first", &[1, 3, 5, 5]).weights("c", &[]).node("Sub", &["c", "a"], "y", &[]),
        two("mul", &[2, 7], &[2, 7]).node("Mul", &["a", "b"], "y", &[]),
        one("mul_row", &[4, 7]).weights("c", &[7]).node("Mul", &["a", "c"], "y", &[]),
        two("sub", &[1, 3, 5, 5], &[5]).node("Sub", &["a", "b"], "y", &[]),
        one("div_constant", &[3, 5]).floats("c", &[5], vec![0.5, 2.0, -3.0, 7.0, 1.5]).node(
            "Div",
            &["a", "c"],
            "y",
            &[],
        ),
        one("square", &[3, 5]).floats("c", &[], vec![2.0]).node("Pow", &["a", "c"], "y", &[]),
        two("max", &[3, 5], &[3, 5]).node("Max", &["a", "b"], "y", &[]),
        two("min", &[3, 5], &[3, 5]).node("Min", &["a", "b"], "y", &[]),
        one("add_relu", &[3, 5])
            .weights("c", &[5])
            .node("Add", &["a", "c"], "s", &[])
            .node("Relu", &["s"], "y", &[])
            .operators(&["ADD"]),
        two("div", &[3, 5], &[3, 5]).node("Exp", &["b"], "d", &[]).node("Div", &["a", "d"], "y", &[]).without_micro(),
    ]);
}

#[test]
fn activations_agree_in_every_mode() {
    let x = |name: &str| case(name).input("x", &[2, 3, 4, 5]).output("y");
    let clip = |name: &str, low: f32, high: f32| {
        x(name).floats("low", &[], vec![low]).floats("high", &[], vec![high]).node(
            "Clip",
            &["x", "low", "high"],
            "y",
            &[],
        )
    };
    check(vec![
        x("relu").node("Relu", &["x"], "y", &[]),
        clip("relu6", 0.0, 6.0),
        clip("clip_inside", -0.5, 1.25),
        clip("clip_above_zero", 0.25, 1.0).int8(25.0),
        x("clip_low").floats("low", &[], vec![-0.5]).node("Clip", &["x", "low"], "y", &[]),
        x("clip_after_add")
            .weights("c", &[5])
            .floats("low", &[], vec![0.0])
            .floats("high", &[], vec![1.0])
            .node("Add", &["x", "c"], "s", &[])
            .node("Clip", &["s", "low", "high"], "y", &[]),
        x("sigmoid").node("Sigmoid", &["x"], "y", &[]),
        x("tanh").node("Tanh", &["x"], "y", &[]),
        x("hard_swish").node("HardSwish", &["x"], "y", &[]),
        x("hard_sigmoid").node("HardSigmoid", &["x"], "y", &[("alpha", float(1.0 / 6.0))]),
        x("leaky_relu").node("LeakyRelu", &["x"], "y", &[("alpha", float(0.1))]),
        x("prelu").weights("slope", &[3, 1, 1]).node("PRelu", &["x", "slope"], "y", &[]),
        x("elu").node("Elu", &["x"], "y", &[]).without_reference(),
        x("abs").node("Abs", &["x"], "y", &[]),
        x("softmax").node("Softmax", &["x"], "y", &[]),
        x("softmax_channels").node("Softmax", &["x"], "y", &[("axis", int(1))]),
        x("softmax_old").opset(11).node("Softmax", &["x"], "y", &[("axis", int(1))]).int8(20.0),
        x("exp").node("Exp", &["x"], "y", &[]).without_micro(),
        x("exp_between")
            .weights("c", &[5])
            .node("Add", &["x", "c"], "s", &[])
            .node("Exp", &["s"], "e", &[])
            .node("Sin", &["e"], "f", &[])
            .node("Relu", &["f"], "y", &[])
            .without_micro(),
        x("gelu").opset(20).node("Gelu", &["x"], "y", &[]).without_micro(),
        x("softplus").node("Softplus", &["x"], "y", &[]).without_micro(),
        x("log_softmax").node("LogSoftmax", &["x"], "y", &[]).without_micro(),
        x("neg").node("Neg", &["x"], "y", &[]),
    ]);
}

#[test]
fn pooling_agrees_in_every_mode() {
    let x = |name: &str| case(name).input("x", &[1, 3, 9, 9]).output("y");
    let kernel = |size: i64| ("kernel_shape", ints(&[size, size]));
    let strides = |size: i64| ("strides", ints(&[size, size]));
    let pads = |values: [i64; 4]| ("pads", ints(&values));
    check(vec![
        x("max").node("MaxPool", &["x"], "y", &[kernel(2), strides(2)]),
        x("max_padded").node("MaxPool", &["x"], "y", &[kernel(3), strides(2), pads([1, 1, 1, 1])]),
        x("max_odd_pads").node("MaxPool", &["x"], "y", &[kernel(3), strides(1), pads([2, 0, 1, 1])]),
        x("max_after_relu").node("Relu", &["x"], "r", &[]).node(
            "MaxPool",
            &["r"],
            "y",
            &[kernel(3), pads([2, 0, 1, 1])],
        ),
        x("max_ceil").node("MaxPool", &["x"], "y", &[kernel(2), strides(2), ("ceil_mode", int(1))]),
        x("global_max").node("GlobalMaxPool", &["x"], "y", &[]),
        x("average").node("AveragePool", &["x"], "y", &[kernel(3), strides(3)]),
        x("average_same").node("AveragePool", &["x"], "y", &[kernel(3), pads([1, 1, 1, 1])]),
        x("average_include").node(
            "AveragePool",
            &["x"],
            "y",
            &[kernel(3), pads([1, 1, 1, 1]), ("count_include_pad", int(1))],
        ),
        x("average_odd").node("AveragePool", &["x"], "y", &[kernel(3), strides(2), pads([2, 1, 0, 1])]).int8(26.0),
        x("average_ceil").node("AveragePool", &["x"], "y", &[kernel(2), strides(2), ("ceil_mode", int(1))]),
        x("average_ceil_include").node(
            "AveragePool",
            &["x"],
            "y",
            &[kernel(2), strides(2), pads([1, 1, 0, 0]), ("ceil_mode", int(1)), ("count_include_pad", int(1))],
        ),
        case("max_1d").input("x", &[1, 3, 12]).output("y").node(
            "MaxPool",
            &["x"],
            "y",
            &[("kernel_shape", ints(&[3])), ("strides", ints(&[2]))],
        ),
        x("global_average").node("GlobalAveragePool", &["x"], "y", &[]).operators(&["MEAN"]),
    ]);
}

#[test]
fn reductions_agree_in_every_mode() {
    let x = |name: &str| case(name).input("x", &[2, 3, 4, 5]).output("y");
    let index = |name: &str| case(name).input("x", &[2, 3, 4, 5]).output_of("y", DataType::I64);
    check(vec![
        x("spatial").node("ReduceMean", &["x"], "y", &[("axes", ints(&[2, 3])), ("keepdims", int(0))]),
        x("channels").node("ReduceMean", &["x"], "y", &[("axes", ints(&[1]))]),
        x("last").node("ReduceMean", &["x"], "y", &[("axes", ints(&[-1])), ("keepdims", int(0))]),
        x("opset18").opset(18).ints("axes", &[2]).node("ReduceMean", &["x", "axes"], "y", &[]),
        x("max").node("ReduceMax", &["x"], "y", &[("axes", ints(&[3])), ("keepdims", int(0))]),
        index("arg_max").node("ArgMax", &["x"], "y", &[("axis", int(1))]).int8(10.0).without_micro(),
        index("arg_min_last")
            .node("ArgMin", &["x"], "y", &[("axis", int(-1)), ("keepdims", int(0))])
            .int8(10.0)
            .without_micro(),
        x("sum").ints("axes", &[2, 3]).node("ReduceSum", &["x", "axes"], "y", &[]).without_reference(),
    ]);
}

#[test]
fn shape_operators_agree_in_every_mode() {
    let x = |name: &str| case(name).input("x", &[1, 3, 4, 6]).output("y");
    check(vec![
        x("flatten").node("Flatten", &["x"], "y", &[]).operators(&["RESHAPE"]),
        x("reshape").ints("s", &[1, -1, 2, 6]).node("Reshape", &["x", "s"], "y", &[]),
        x("transpose").node("Transpose", &["x"], "y", &[("perm", ints(&[0, 2, 3, 1]))]).operators(&["TRANSPOSE"]),
        x("transpose_3d").ints("s", &[3, 4, 6]).node("Reshape", &["x", "s"], "r", &[]).node(
            "Transpose",
            &["r"],
            "y",
            &[("perm", ints(&[2, 0, 1]))],
        ),
        x("concat").input("z", &[1, 2, 4, 6]).node("Concat", &["x", "z"], "y", &[("axis", int(1))]).int8(28.0),
        x("concat_constant").weights("c", &[1, 3, 4, 2]).node("Concat", &["x", "c"], "y", &[("axis", int(-1))]),
        x("concat_softmax").node("Softmax", &["x"], "p", &[]).node("Relu", &["x"], "r", &[]).node(
            "Concat",
            &["p", "r"],
            "y",
            &[("axis", int(1))],
        ),
        x("pad").ints("p", &[0, 0, 1, 2, 0, 0, 2, 1]).node("Pad", &["x", "p"], "y", &[]),
        x("pad_value").ints("p", &[0, 0, 1, 2, 0, 0, 2, 1]).floats("v", &[], vec![1.5]).node(
            "Pad",
            &["x", "p", "v"],
            "y",
            &[],
        ),
        x("pad_reflect").ints("p", &[0, 0, 1, 2, 0, 0, 2, 1]).node(
            "Pad",
            &["x", "p"],
            "y",
            &[("mode", text("reflect"))],
        ),
        x("squeeze").ints("a", &[0]).node("Squeeze", &["x", "a"], "y", &[]),
        x("unsqueeze").ints("s", &[12, 6]).node("Reshape", &["x", "s"], "r", &[]).ints("a", &[1]).node(
            "Unsqueeze",
            &["r", "a"],
            "y",
            &[],
        ),
        x("slice").ints("b", &[1, -5]).ints("e", &[3, 100]).ints("a", &[1, 3]).node(
            "Slice",
            &["x", "b", "e", "a"],
            "y",
            &[],
        ),
        x("slice_steps").ints("b", &[0, 1]).ints("e", &[4, 6]).ints("a", &[2, 3]).ints("s", &[2, 3]).node(
            "Slice",
            &["x", "b", "e", "a", "s"],
            "y",
            &[],
        ),
        x("split").ints("parts", &[1, 2]).node("Split", &["x", "parts"], "y,z", &[("axis", int(1))]).output("z"),
        x("gather").ints("i", &[2, 0]).node("Gather", &["x", "i"], "y", &[("axis", int(1))]),
        x("depth_to_space").ints("s", &[1, 12, 3, 2]).node("Reshape", &["x", "s"], "r", &[]).node(
            "DepthToSpace",
            &["r"],
            "y",
            &[("blocksize", int(2))],
        ),
        x("depth_to_space_crd").ints("s", &[1, 12, 3, 2]).node("Reshape", &["x", "s"], "r", &[]).node(
            "DepthToSpace",
            &["r"],
            "y",
            &[("blocksize", int(2)), ("mode", text("CRD"))],
        ),
        x("tile").ints("n", &[1, 2, 1, 3]).node("Tile", &["x", "n"], "y", &[]),
        x("space_to_depth").node("SpaceToDepth", &["x"], "y", &[("blocksize", int(2))]),
        x("identity_output").node("Identity", &["x"], "y", &[]),
    ]);
}

#[test]
fn normalisations_agree_in_float_and_between_conversions() {
    let x = |name: &str, shape: &[usize]| case(name).input("x", shape).output("y");
    let parameters = |case: Case, shape: &[usize]| case.weights("scale", shape).weights("bias", shape);
    check(vec![
        parameters(x("layer", &[1, 4, 16]), &[16])
            .node("LayerNormalization", &["x", "scale", "bias"], "y", &[])
            .int8(22.0)
            .without_micro(),
        parameters(x("instance", &[1, 4, 6, 6]), &[4])
            .node("InstanceNormalization", &["x", "scale", "bias"], "y", &[])
            .int8(22.0)
            .without_micro(),
        x("l2", &[2, 3, 8]).node("LpNormalization", &["x"], "y", &[]),
    ]);
}

#[test]
fn resizing_agrees_in_every_mode() {
    let x = |name: &str| {
        case(name)
            .input("x", &[1, 3, 4, 6])
            .output("y")
            .ints("up", &[1, 3, 8, 12])
            .ints("down", &[1, 3, 2, 3])
            .ints("odd", &[1, 3, 7, 11])
    };
    let nearest = |coordinates: &str, rounding: &str| {
        [
            ("mode", text("nearest")),
            ("coordinate_transformation_mode", text(coordinates)),
            ("nearest_mode", text(rounding)),
        ]
    };
    let linear = |coordinates: &str| [("mode", text("linear")), ("coordinate_transformation_mode", text(coordinates))];
    let (up, down, odd) = (["x", "", "", "up"], ["x", "", "", "down"], ["x", "", "", "odd"]);
    check(vec![
        x("nearest").node("Resize", &up, "y", &nearest("asymmetric", "floor")),
        x("nearest_half_pixel").node("Resize", &up, "y", &nearest("half_pixel", "round_prefer_floor")),
        x("nearest_down").node("Resize", &down, "y", &nearest("half_pixel", "round_prefer_floor")),
        x("nearest_odd").node("Resize", &odd, "y", &nearest("asymmetric", "ceil")),
        x("linear").node("Resize", &up, "y", &linear("half_pixel")),
        x("linear_odd").node("Resize", &odd, "y", &linear("half_pixel")),
        x("linear_corners").node("Resize", &odd, "y", &linear("align_corners")),
        x("linear_asymmetric").node("Resize", &up, "y", &linear("asymmetric")),
        x("scales").floats("s", &[4], vec![1.0, 1.0, 2.0, 2.0]).node(
            "Resize",
            &["x", "", "s"],
            "y",
            &linear("half_pixel"),
        ),
    ]);
}

#[test]
fn transposed_convolutions_agree_in_every_mode() {
    let x = |name: &str, w: &[usize]| {
        case(name).input("x", &[1, 3, 5, 5]).weights("w", w).weights("b", &w[1..2]).output("y")
    };
    let wb = ["x", "w", "b"];
    check(vec![
        x("plain", &[3, 4, 3, 3]).node("ConvTranspose", &wb, "y", &[]),
        x("stride2", &[3, 4, 2, 2]).node("ConvTranspose", &wb, "y", &[("strides", ints(&[2, 2]))]),
        x("padded", &[3, 4, 3, 3]).node(
            "ConvTranspose",
            &wb,
            "y",
            &[("strides", ints(&[2, 2])), ("pads", ints(&[1, 1, 1, 1])), ("output_padding", ints(&[1, 1]))],
        ),
        x("cropped", &[3, 4, 4, 4]).node(
            "ConvTranspose",
            &wb,
            "y",
            &[("strides", ints(&[2, 2])), ("pads", ints(&[1, 1, 1, 1]))],
        ),
        x("dilated", &[3, 4, 3, 3]).node("ConvTranspose", &wb, "y", &[("dilations", ints(&[2, 2]))]),
    ]);
}
