//! Models with state, and models fed with integers: LSTM and GRU in every direction and mode, long sequences, embeddings;
//! against onnxruntime, LiteRT and TensorFlow Lite Micro. All samples of a case run one after the other in one
//! interpreter, so a state that outlives an inference shows.

use edgeyard_optimizer::ir::{DataType, Model};
use edgeyard_optimizer::lower::{Mode, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::harness::{Case, case, check, int, sequence, text};

#[test]
fn recurrent_layers_agree_in_every_mode() {
    let hidden = 6;
    let lstm = |name: &str, time: usize, directions: usize| {
        case(name)
            .input("x", &[time, 2, 5])
            .spread("w", &[directions, 4 * hidden, 5], 0.3, 0.0)
            .spread("r", &[directions, 4 * hidden, hidden], 0.3, 0.0)
            .spread("b", &[directions, 8 * hidden], 0.2, 0.0)
    };
    let size = ("hidden_size", int(hidden as i64));
    let steps = |case: Case| case.int8(18.0).steps(10).reference_within(10);
    check(vec![
        steps(lstm("lstm", 7, 1).node("LSTM", &["x", "w", "r", "b"], "y", std::slice::from_ref(&size)).output("y")),
        steps(
            lstm("lstm_last", 5, 1)
                .node("LSTM", &["x", "w", "r"], ",h,c", std::slice::from_ref(&size))
                .output("h")
                .output("c"),
        ),
        steps(
            lstm("lstm_reverse", 4, 1)
                .node("LSTM", &["x", "w", "r", "b"], "y,h", &[size.clone(), ("direction", text("reverse"))])
                .output("y")
                .output("h"),
        ),
        steps(
            lstm("lstm_both", 4, 2)
                .node("LSTM", &["x", "w", "r", "b"], "y,h,c", &[size.clone(), ("direction", text("bidirectional"))])
                .output("y")
                .output("h")
                .output("c"),
        ),
        steps(
            lstm("lstm_stateful", 1, 1)
                .input("h0", &[1, 2, hidden])
                .input("c0", &[1, 2, hidden])
                .node("LSTM", &["x", "w", "r", "b", "", "h0", "c0"], "y,h,c", &[size])
                .output("y")
                .output("h")
                .output("c"),
        ),
    ]);
}

/// A layer of `gates` gates on [time, batch, features], with every output and a batch of 2.
fn layer(name: &str, op: &str, [time, features, hidden]: [usize; 3], direction: &str) -> Case {
    let gates = if op == "LSTM" { 4 } else { 3 };
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    let deviation = 0.8 / (hidden as f32).sqrt();
    case(name)
        .input("x", &[time, 2, features])
        .spread("w", &[directions, gates * hidden, features], deviation, 0.0)
        .spread("r", &[directions, gates * hidden, hidden], deviation, 0.0)
        .spread("b", &[directions, 2 * gates * hidden], 0.2, 0.0)
}

#[test]
fn gated_recurrent_units_agree_in_every_mode() {
    let steps = |case: Case| case.int8(18.0).steps(12).reference_within(12);
    let mut cases = Vec::new();
    for (late, time, hidden, direction, inputs) in [
        (0, 6, 5, "forward", &["x", "w", "r", "b"][..]),
        (1, 6, 5, "forward", &["x", "w", "r", "b"]),
        (0, 5, 8, "reverse", &["x", "w", "r"]),
        (1, 5, 8, "reverse", &["x", "w", "r", "b"]),
        (0, 4, 3, "bidirectional", &["x", "w", "r", "b"]),
        (1, 4, 3, "bidirectional", &["x", "w", "r"]),
    ] {
        let settings =
            [("hidden_size", int(hidden as i64)), ("linear_before_reset", int(late)), ("direction", text(direction))];
        let made = layer(&format!("gru_{direction}_{late}"), "GRU", [time, 4, hidden], direction);
        cases.push(steps(made.node("GRU", inputs, "y,h", &settings).output("y").output("h")));
    }
    for late in [0, 1] {
        let settings = [("hidden_size", int(6)), ("linear_before_reset", int(late))];
        let made = layer(&format!("gru_stateful_{late}"), "GRU", [2, 4, 6], "forward").input("h0", &[1, 2, 6]);
        let made = made.node("GRU", &["x", "w", "r", "b", "", "h0"], ",h", &settings);
        cases.push(steps(made.output("h")));
    }
    check(cases);
}

#[test]
fn long_sequences_are_one_operator_in_floats_and_start_anew_with_every_inference() {
    let steps = |case: Case| case.int8(14.0).steps(20).reference_within(20);
    let lstm = |direction: &str, [time, hidden]: [usize; 2], outputs: &str| {
        let settings = [("hidden_size", int(hidden as i64)), ("direction", text(direction))];
        let made = layer(&format!("sequence_{direction}_{time}"), "LSTM", [time, 3, hidden], direction);
        made.node("LSTM", &["x", "w", "r", "b"], outputs, &settings)
    };
    let one = ["CONCATENATION", "CONCATENATION", "UNIDIRECTIONAL_SEQUENCE_LSTM", "SLICE", "RESHAPE"];
    check(vec![
        steps(lstm("forward", [20, 6], "y").output("y").operators(&one)),
        steps(lstm("reverse", [17, 9], "y,h").output("y").output("h")),
        steps(lstm("bidirectional", [16, 4], "y,h").output("y").output("h")),
        // The last cell is not told by the operator: written out.
        steps(lstm("forward", [18, 4], ",h,c").output("h").output("c")),
    ]);
}

fn operators(case: &Case, mode: Mode) -> Vec<String> {
    let graph = simplify(&case.model.graph, &Shapes::Fixed(Default::default())).unwrap();
    sequence(&to_tflite(&graph, mode, None).unwrap().bytes)
}

#[test]
fn which_form_a_recurrent_layer_takes_is_a_rule() {
    let settings = [("hidden_size", int(4))];
    let of = |time: usize, outputs: &str, last: &str| {
        let made = layer("form", "LSTM", [time, 3, 4], "forward");
        made.node("LSTM", &["x", "w", "r", "b"], outputs, &settings).output(last)
    };
    let is_one = |case: &Case, mode: Mode| operators(case, mode).iter().any(|op| op == "UNIDIRECTIONAL_SEQUENCE_LSTM");
    assert!(is_one(&of(16, "y", "y"), Mode::Float32));
    assert!(is_one(&of(16, ",h", "h"), Mode::Float16Weights));
    assert!(!is_one(&of(15, "y", "y"), Mode::Float32), "short sequences are written out");
    assert!(!is_one(&of(16, ",,c", "c"), Mode::Float32), "the operator does not tell its cell");
    assert!(!is_one(&of(16, "y", "y"), Mode::Int8Dynamic), "its weights would stay floats");
    assert!(is_one(&of(400, "y", "y"), Mode::Float32), "longer than what is written out");
    let graph: Model = of(400, "y", "y").model;
    let graph = simplify(&graph.graph, &Shapes::Fixed(Default::default())).unwrap();
    let error = to_tflite(&graph, Mode::Int8Dynamic, None).unwrap_err().to_string();
    assert!(error.contains("op LSTM") && error.contains("400 steps"), "{error}");
}

#[test]
fn peepholes_are_there_in_the_operator_for_sequences_only() {
    let settings = [("hidden_size", int(4))];
    let made = layer("peepholes", "LSTM", [3, 3, 4], "forward").spread("p", &[1, 12], 0.4, 0.0);
    let made = made.node("LSTM", &["x", "w", "r", "b", "", "", "", "p"], "y,h", &settings).output("y").output("h");
    let graph = simplify(&made.model.graph, &Shapes::Fixed(Default::default())).unwrap();
    let error = to_tflite(&graph, Mode::Int8Dynamic, None).unwrap_err().to_string();
    assert!(error.contains("peepholes"), "{error}");
    assert!(to_tflite(&graph, Mode::Float32, None).is_ok());
}

#[test]
fn integers_are_fed_as_integers() {
    let words = |name: &str, dtype: DataType| case(name).input_of("x", &[1, 7], dtype).weights("table", &[6, 4]);
    let floats = [("to", int(DataType::F32.onnx()))];
    check(vec![
        words("embedding", DataType::I64)
            .node("Gather", &["table", "x"], "e", &[])
            .weights("w", &[4, 5])
            .node("MatMul", &["e", "w"], "y", &[])
            .output("y"),
        words("embedding_32", DataType::I32).node("Gather", &["table", "x"], "y", &[]).output("y"),
        case("bytes")
            .input_of("x", &[1, 3, 4, 5], DataType::U8)
            .node("Cast", &["x"], "f", &floats)
            .floats("scale", &[], vec![0.2])
            .node("Mul", &["f", "scale"], "y", &[])
            .output("y")
            .without_micro(),
        case("one_hot")
            .input_of("x", &[1, 7, 1], DataType::I64)
            .ints("classes", &[0, 1, 2, 3, 4, 5])
            .node("Equal", &["x", "classes"], "is", &[])
            .node("Cast", &["is"], "hot", &floats)
            .weights("w", &[6, 3])
            .node("MatMul", &["hot", "w"], "y", &[])
            .output("y")
            .without_micro(),
    ]);
}
