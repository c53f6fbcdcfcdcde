//! Models with state, and models fed with integers: LSTM and GRU in every direction and mode, long sequences, embeddings;
//! against onnxruntime, LiteRT and TensorFlow Lite Micro. All samples of a case run one after the other in one
//! interpreter, so a state that outlives an inference shows.

use edgeyard_optimizer::ir::{DataType, import_tflite};
use edgeyard_optimizer::lower::{Mode, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::harness::{Case, case, check, float, int, text};

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
fn long_sequences_are_written_out_step_by_step() {
    let steps = |case: Case| case.int8(14.0).steps(20).reference_within(20);
    let lstm = |direction: &str, [time, hidden]: [usize; 2], outputs: &str| {
        let settings = [("hidden_size", int(hidden as i64)), ("direction", text(direction))];
        let made = layer(&format!("long_{direction}_{time}"), "LSTM", [time, 3, hidden], direction);
        made.node("LSTM", &["x", "w", "r", "b"], outputs, &settings)
    };
    check(vec![
        // More steps than TensorFlow Lite Micro joins at once.
        steps(lstm("forward", [20, 6], "y").output("y")),
        steps(lstm("reverse", [17, 9], "y,h").output("y").output("h")),
        steps(lstm("bidirectional", [16, 4], "y,h").output("y").output("h")),
    ]);
}

#[test]
fn what_recurrent_layers_cannot_be_is_said() {
    let refused = |case: Case| {
        let graph = simplify(&case.model.graph, &Shapes::Fixed(Default::default())).unwrap();
        to_tflite(&graph, Mode::Float32, None).unwrap_err().to_string()
    };
    let size = ("hidden_size", int(4));
    let of = |op: &str, time: usize| layer("refused", op, [time, 3, 4], "forward");
    let long = of("GRU", 400).node("GRU", &["x", "w", "r", "b"], "y", std::slice::from_ref(&size)).output("y");
    let error = refused(long);
    assert!(error.contains("op GRU") && error.contains("400 steps"), "{error}");
    let peeping = of("LSTM", 3).spread("p", &[1, 12], 0.4, 0.0);
    let peeping = peeping.node("LSTM", &["x", "w", "r", "b", "", "", "", "p"], "y", std::slice::from_ref(&size));
    let error = refused(peeping.output("y"));
    assert!(error.contains("peepholes"), "{error}");
    let clipped = of("GRU", 3).node("GRU", &["x", "w", "r"], "y", &[size.clone(), ("clip", float(3.0))]).output("y");
    assert!(refused(clipped).contains("clips"));
    let turned = of("GRU", 3).node("GRU", &["x", "w", "r"], "y", &[size, ("layout", int(1))]).output("y");
    let error = simplify(&turned.model.graph, &Shapes::Fixed(Default::default()))
        .map(|graph| to_tflite(&graph, Mode::Float32, None).unwrap_err().to_string());
    assert!(error.unwrap().contains("layout is 1"));
}

#[test]
fn integers_are_fed_as_integers() {
    let words = |name: &str, dtype: DataType| case(name).input_of("x", &[1, 7], dtype).weights("table", &[6, 4]);
    let floats = [("to", int(DataType::F32.onnx()))];
    // Fewer classes than words: the last words are none. Words from 3 down count from the end.
    let one_hot = |name: &str, axis: i64, values: Vec<f32>| {
        case(name)
            .input_of("x", &[1, 7], DataType::I64)
            .ints("three", &[3])
            .node("Sub", &["x", "three"], "around", &[])
            .ints("depth", &[2])
            .floats("values", &[2], values)
            .node("OneHot", &["around", "depth", "values"], "y", &[("axis", int(axis))])
            .output("y")
            .without_micro()
    };
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
        one_hot("one_hot_last", -1, vec![0.0, 1.0]),
        one_hot("one_hot_first", 1, vec![-0.5, 2.0]),
        case("one_hot_by_hand")
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

fn place(graph: &mut edgeyard_tflite::Subgraph, tensor: edgeyard_tflite::Tensor) -> i32 {
    graph.tensors.push(tensor);
    graph.tensors.len() as i32 - 1
}

/// A file of one UNIDIRECTIONAL_SEQUENCE_LSTM behind a REVERSE_V2, as converters for phones make it.
fn sequence_file(time_major: bool, peepholes: bool) -> Vec<u8> {
    let (time, batch, features, hidden) = (5, 2, 3, 4);
    let mut file = edgeyard_tflite::Model::new("");
    let mut graph = edgeyard_tflite::Subgraph::default();
    let float = edgeyard_tflite::TensorType::Float32;
    let mut seed = 11_u64;
    let mut weights = |graph: &mut edgeyard_tflite::Subgraph, shape: Vec<i32>| {
        let value = |_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        let mut tensor = edgeyard_tflite::Tensor::new(float, shape);
        tensor.buffer = file.add_buffer(values.iter().flat_map(|value| value.to_le_bytes()).collect());
        place(graph, tensor)
    };
    let mut inputs = vec![-1; 24];
    for gate in 0..4 {
        inputs[1 + gate] = weights(&mut graph, vec![hidden, features]);
        inputs[5 + gate] = weights(&mut graph, vec![hidden, hidden]);
        inputs[12 + gate] = weights(&mut graph, vec![hidden]);
    }
    if peepholes {
        (9..12).for_each(|at| inputs[at] = weights(&mut graph, vec![hidden]));
    }
    let mut axis = edgeyard_tflite::Tensor::new(edgeyard_tflite::TensorType::Int32, vec![1]);
    axis.buffer = file.add_buffer(i32::from(!time_major).to_le_bytes().to_vec());
    let axis = place(&mut graph, axis);
    let dims = |last: i32| if time_major { vec![time, batch, last] } else { vec![batch, time, last] };
    let tensor = |graph: &mut edgeyard_tflite::Subgraph, name: &str, shape: Vec<i32>, is_variable: bool| {
        let tensor = edgeyard_tflite::Tensor::new(float, shape);
        place(graph, edgeyard_tflite::Tensor { name: name.to_owned(), is_variable, ..tensor })
    };
    let x = tensor(&mut graph, "x", dims(features), false);
    let turned = tensor(&mut graph, "turned", dims(features), false);
    let y = tensor(&mut graph, "y", dims(hidden), false);
    inputs[0] = turned;
    inputs[18] = tensor(&mut graph, "state", vec![batch, hidden], true);
    inputs[19] = tensor(&mut graph, "cell", vec![batch, hidden], true);
    let options = edgeyard_tflite::op_options::UnidirectionalSequenceLstm {
        fused_activation_function: edgeyard_tflite::Activation::Tanh,
        time_major,
        ..Default::default()
    };
    let reverse = edgeyard_tflite::Options::Empty(81);
    use edgeyard_tflite::{BuiltinOp, Operator};
    graph.operators.push(Operator::builtin(BuiltinOp::REVERSE_V2, reverse, vec![x, axis], vec![turned]));
    let lstm = BuiltinOp::UNIDIRECTIONAL_SEQUENCE_LSTM;
    graph.operators.push(Operator::builtin(lstm, options, inputs, vec![y]));
    (graph.inputs, graph.outputs) = (vec![x], vec![y]);
    file.subgraphs.push(graph);
    edgeyard_tflite::write(&file).unwrap()
}

#[test]
fn the_operator_for_sequences_is_imported_as_an_lstm() {
    let python = std::env::var_os("EDGEYARD_PYTHON").expect("`cargo xtask setup` makes it, `cargo xtask test` sets it");
    let code = "
import sys, numpy, onnxruntime
from ai_edge_litert.interpreter import Interpreter
source = Interpreter(model_path=sys.argv[1])
source.allocate_tensors()
i, o = source.get_input_details()[0], source.get_output_details()[0]
x = numpy.random.default_rng(4).standard_normal(i['shape']).astype(numpy.float32)
source.set_tensor(i['index'], x)
source.invoke()
expected = source.get_tensor(o['index'])
found = onnxruntime.InferenceSession(sys.argv[2], providers=['CPUExecutionProvider']).run(None, {'x': x})[0]
assert expected.shape == found.shape and numpy.abs(expected).max() > 0.05, (expected.shape, found.shape)
print(numpy.abs(expected - found).max())
";
    for (time_major, peepholes) in [(true, false), (true, true), (false, false), (false, true)] {
        let folder = tempfile::tempdir().unwrap();
        let (source, made) = (folder.path().join("s.tflite"), folder.path().join("m.onnx"));
        let file = sequence_file(time_major, peepholes);
        std::fs::write(&source, &file).unwrap();
        std::fs::write(&made, import_tflite(&file).unwrap().to_bytes()).unwrap();
        let run = std::process::Command::new(&python).arg("-c").arg(code).arg(&source).arg(&made).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let difference: f32 = String::from_utf8_lossy(&run.stdout).trim().parse().unwrap();
        assert!(difference < 1e-5, "time major {time_major}, peepholes {peepholes}: {difference}");
    }
}
