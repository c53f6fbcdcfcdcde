//! Whole models, lowered in every mode: what operators do to one another, and to the size of the file.

use std::collections::BTreeMap;

use super::harness::{Case, case, check, float, int, ints, sequence};
use edgeyard_optimizer::ir::{Attribute, Graph};
use edgeyard_optimizer::lower::{Int8Io, LowerError, Mode, Range, Ranges, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, simplify};

type Attributes = Vec<(&'static str, Attribute)>;

fn same(stride: i64) -> Attributes {
    vec![("pads", ints(&[1, 1, 1, 1])), ("strides", ints(&[stride, stride])), ("kernel_shape", ints(&[3, 3]))]
}

/// A small digit classifier as PyTorch exports it: logits or probabilities from a 28x28 image.
fn digits(name: &str) -> Case {
    case(name)
        .input("image", &[1, 1, 28, 28])
        .spread("w1", &[16, 1, 3, 3], 0.3, 0.0)
        .spread("b1", &[16], 0.1, 0.0)
        .spread("w2", &[32, 16, 3, 3], 0.08, 0.0)
        .spread("b2", &[32], 0.1, 0.0)
        .spread("w3", &[10, 1568], 0.03, 0.0)
        .spread("b3", &[10], 0.1, 0.0)
        .node("Conv", &["image", "w1", "b1"], "c1", &same(1))
        .node("Relu", &["c1"], "r1", &[])
        .node("MaxPool", &["r1"], "p1", &[("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))])
        .node("Conv", &["p1", "w2", "b2"], "c2", &same(1))
        .node("Relu", &["c2"], "r2", &[])
        .node("MaxPool", &["r2"], "p2", &[("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))])
        .node("Flatten", &["p2"], "f", &[])
        .node("Gemm", &["f", "w3", "b3"], "logits", &[("transB", int(1))])
        .node("Softmax", &["logits"], "probabilities", &[])
        .output("probabilities")
        .int8(25.0)
        .reference_within(1)
        // Softmax spreads one step of its input over several of its output.
        .steps(8)
}

fn graph_of(case: &Case) -> Graph {
    simplify(&case.model.graph, &Shapes::Fixed(BTreeMap::new())).unwrap()
}

/// The same range for everything.
fn ranges_of(graph: &Graph) -> Ranges {
    let range = Range { min: -3.0, max: 3.0 };
    let computed = graph.nodes.iter().flat_map(|node| node.outputs.clone());
    graph.inputs.iter().map(|value| value.name.clone()).chain(computed).map(|name| (name, range)).collect()
}

#[test]
fn networks_agree_in_every_mode() {
    let clip = |model: Case, x: &str, y: &str| model.node("Clip", &[x, "zero", "six"], y, &[]);
    let mut bottleneck = case("inverted_residual")
        .input("x", &[1, 8, 12, 12])
        .floats("zero", &[], vec![0.0])
        .floats("six", &[], vec![6.0])
        .weights("w1", &[24, 8, 1, 1])
        .weights("b1", &[24])
        .weights("w2", &[24, 1, 3, 3])
        .weights("b2", &[24])
        .spread("w3", &[8, 24, 1, 1], 0.2, 0.0)
        .node("Conv", &["x", "w1", "b1"], "c1", &[]);
    bottleneck = clip(bottleneck, "c1", "r1");
    let mut depthwise = same(1);
    depthwise.push(("group", int(24)));
    bottleneck = bottleneck.node("Conv", &["r1", "w2", "b2"], "c2", &depthwise);
    bottleneck = clip(bottleneck, "c2", "r2")
        .node("Conv", &["r2", "w3"], "c3", &[])
        .node("Add", &["x", "c3"], "sum", &[])
        .node("GlobalAveragePool", &["sum"], "mean", &[])
        .node("Flatten", &["mean"], "flat", &[])
        .weights("w4", &[8, 5])
        .node("MatMul", &["flat", "w4"], "y", &[])
        .output("y")
        .int8(25.0)
        .reference_within(1)
        .steps(2)
        .operators(&[
            "TRANSPOSE",
            "CONV_2D",
            "DEPTHWISE_CONV_2D",
            "CONV_2D",
            "ADD",
            "MEAN",
            "RESHAPE",
            "FULLY_CONNECTED",
        ]);

    let squeeze = case("squeeze_and_excite")
        .input("x", &[1, 6, 8, 8])
        .weights("w1", &[6, 6, 3, 3])
        .weights("w2", &[3, 6, 1, 1])
        .weights("w3", &[6, 3, 1, 1])
        .node("Conv", &["x", "w1"], "c", &same(1))
        .node("HardSwish", &["c"], "h", &[])
        .node("GlobalAveragePool", &["h"], "m", &[])
        .node("Conv", &["m", "w2"], "s", &[])
        .node("Relu", &["s"], "r", &[])
        .node("Conv", &["r", "w3"], "e", &[])
        .node("HardSigmoid", &["e"], "g", &[("alpha", float(1.0 / 6.0))])
        .node("Mul", &["h", "g"], "y", &[])
        .output("y")
        .int8(25.0)
        .steps(3);

    let branches = case("branches_that_join")
        .input("x", &[1, 4, 8, 8])
        .weights("w1", &[4, 4, 1, 1])
        .spread("w2", &[3, 4, 3, 3], 0.1, 0.0)
        .node("Conv", &["x", "w1"], "a", &[])
        .node("Conv", &["x", "w2"], "b", &same(1))
        .node("Sigmoid", &["b"], "sb", &[])
        .node("MaxPool", &["x"], "p", &same(1))
        .node("Concat", &["a", "sb", "p"], "joined", &[("axis", int(1))])
        .node("Relu", &["joined"], "y", &[])
        .output("y")
        .int8(28.0)
        .steps(2);

    let series = case("time_series")
        .input("x", &[1, 3, 32])
        .weights("w1", &[8, 3, 5])
        .weights("b1", &[8])
        .weights("w2", &[8, 8, 3])
        .weights("w3", &[4, 8])
        .weights("b3", &[4])
        .node("Conv", &["x", "w1", "b1"], "c1", &[("pads", ints(&[2, 2]))])
        .node("Relu", &["c1"], "r1", &[])
        .node("MaxPool", &["r1"], "p1", &[("kernel_shape", ints(&[2])), ("strides", ints(&[2]))])
        .node("Conv", &["p1", "w2"], "c2", &[("dilations", ints(&[2]))])
        .node("Relu", &["c2"], "r2", &[])
        .node("ReduceMean", &["r2"], "m", &[("axes", ints(&[2])), ("keepdims", int(0))])
        .node("Gemm", &["m", "w3", "b3"], "y", &[("transB", int(1))])
        .output("y")
        .int8(25.0)
        .reference_within(1)
        .steps(2);

    let attention = case("attention")
        .input("x", &[1, 6, 8])
        .weights("wq", &[8, 8])
        .weights("wk", &[8, 8])
        .weights("wv", &[8, 8])
        .floats("scale", &[], vec![0.35])
        .node("MatMul", &["x", "wq"], "q", &[])
        .node("MatMul", &["x", "wk"], "k", &[])
        .node("MatMul", &["x", "wv"], "v", &[])
        .node("Transpose", &["k"], "kt", &[("perm", ints(&[0, 2, 1]))])
        .node("MatMul", &["q", "kt"], "scores", &[])
        .node("Mul", &["scores", "scale"], "scaled", &[])
        .node("Softmax", &["scaled"], "p", &[("axis", int(-1))])
        .node("MatMul", &["p", "v"], "y", &[])
        .output("y")
        .int8(22.0)
        .reference_within(4)
        .steps(4);

    check(vec![digits("digits"), bottleneck, squeeze, branches, series, attention]);
}

#[test]
fn a_classifier_keeps_no_transposes_and_shrinks_as_its_weights_do() {
    let model = digits("digits");
    let graph = graph_of(&model);
    let ranges = ranges_of(&graph);
    let lower = |mode| to_tflite(&graph, mode, Some(&ranges)).unwrap().bytes;
    let whole = lower(Mode::Float32);
    let half = lower(Mode::Float16Weights);
    let float_ends = lower(Mode::Int8 { io: Int8Io::Float });
    let integers = lower(Mode::Int8 { io: Int8Io::Int8 });
    let layers =
        ["RESHAPE", "CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"];
    assert_eq!(sequence(&whole), layers);
    assert_eq!(sequence(&integers), layers);
    assert_eq!(sequence(&float_ends).len(), layers.len() + 2);

    // Half the weights and at most two kilobytes of structure; a quarter and three for int8.
    let weights = 4 * (16 * 9 + 16 + 32 * 16 * 9 + 32 + 10 * 1568 + 10);
    assert!(whole.len() < weights + 2048, "{} bytes", whole.len());
    assert!(half.len() < weights / 2 + 2500, "{} bytes", half.len());
    assert!(integers.len() < weights / 4 + 3072, "{} bytes", integers.len());
    assert!(float_ends.len() * 10 < whole.len() * 3, "{} of {} bytes", float_ends.len(), whole.len());
}

#[test]
fn lowering_is_deterministic() {
    let graph = graph_of(&digits("digits"));
    let ranges = ranges_of(&graph);
    let lower = || to_tflite(&graph, Mode::Int8 { io: Int8Io::Float }, Some(&ranges)).unwrap().bytes;
    assert_eq!(lower(), lower());
}

#[test]
fn the_interface_keeps_names_shapes_and_order() {
    let model = case("two_ends")
        .input("first", &[1, 3, 4, 5])
        .input("second", &[1, 3, 1, 1])
        .node("Mul", &["first", "second"], "product", &[])
        .node("GlobalAveragePool", &["product"], "mean", &[])
        .output("mean")
        .output("product");
    let file = to_tflite(&graph_of(&model), Mode::Float32, None).unwrap().bytes;
    let summary = edgeyard_tflite::inspect(&file).unwrap();
    let ends = |list: &[edgeyard_tflite::TensorSummary]| -> Vec<(String, Vec<i32>)> {
        list.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
    };
    assert_eq!(
        ends(&summary.inputs),
        [("first".to_owned(), vec![1, 3, 4, 5]), ("second".to_owned(), vec![1, 3, 1, 1])]
    );
    assert_eq!(
        ends(&summary.outputs),
        [("mean".to_owned(), vec![1, 3, 1, 1]), ("product".to_owned(), vec![1, 3, 4, 5])]
    );
}

#[test]
fn what_cannot_be_lowered_is_named_with_its_node() {
    let message = |model: Case, mode: Mode| {
        let graph = graph_of(&model);
        to_tflite(&graph, mode, Some(&ranges_of(&graph))).unwrap_err().to_string()
    };
    let x = || case("refused").input("x", &[1, 3, 4, 4]).output("y");
    assert_eq!(
        message(x().node("Det", &["x"], "y", &[]), Mode::Float32),
        "op Det (node Det_y) cannot be lowered: there is no lowering for it; \
         replace it by supported operators, or use a target that runs ONNX"
    );
    let computed = x().input("w", &[2, 3, 3, 3]).node("Conv", &["x", "w"], "y", &[]);
    assert_eq!(
        message(computed, Mode::Float32),
        "op Conv (node Conv_y) cannot be lowered: its weights w is computed at run time; make the weights a constant"
    );
    let int8 = Mode::Int8 { io: Int8Io::Int8 };
    let exponential = message(x().node("Exp", &["x"], "y", &[]), int8);
    assert!(exponential.contains("op Exp (node Exp_y)") && exponential.contains("no int8 kernel"), "{exponential}");
    let dilated = x().opset(19).node(
        "AveragePool",
        &["x"],
        "y",
        &[("kernel_shape", ints(&[2, 2])), ("dilations", ints(&[2, 2]))],
    );
    assert!(message(dilated, Mode::Float32).contains("TFLite has no dilated average pooling"));
}

#[test]
fn int8_without_ranges_names_what_is_missing() {
    let graph = graph_of(&digits("digits"));
    let mode = Mode::Int8 { io: Int8Io::Float };
    assert_eq!(to_tflite(&graph, mode, None).unwrap_err(), LowerError::NoRanges);
    let mut ranges = ranges_of(&graph);
    ranges.remove("r1");
    let error = to_tflite(&graph, mode, Some(&ranges)).unwrap_err();
    assert!(matches!(&error, LowerError::Range { tensor, .. } if tensor == "r1"), "{error}");
    ranges.insert("r1".into(), Range { min: 0.0, max: f32::INFINITY });
    let error = to_tflite(&graph, mode, Some(&ranges)).unwrap_err();
    assert!(error.to_string().contains("r1") && error.to_string().contains("inf"), "{error}");
}
