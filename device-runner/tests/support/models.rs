//! Small models whose outputs can be computed by hand.

use edgeyard_tflite::{BuiltinOp, Model, Operator, Quantization, Signature, Subgraph, Tensor, TensorType, op_options};

/// Weights of [`dense_onnx`] and [`dense_tflite`]: class k is the input's k-th number, doubled.
pub const CLASSES: usize = 3;

fn weights() -> Vec<f32> {
    let mut weights = vec![0.0; CLASSES * CLASSES];
    for class in 0..CLASSES {
        weights[class * CLASSES + class] = 2.0;
    }
    weights
}

/// Protobuf, as far as ONNX needs it.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn int(mut self, field: u64, number: u64) -> Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }
}

const FLOAT: u64 = 1;

fn value_info(name: &str, shape: &[u64]) -> Message {
    let dimensions = shape.iter().fold(Message::default(), |all, n| all.message(1, Message::default().int(1, *n)));
    let tensor = Message::default().int(1, FLOAT).message(2, dimensions);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor))
}

fn constant(name: &str, shape: &[u64], values: &[f32]) -> Message {
    let dimensions = shape.iter().fold(Message::default(), |all, n| all.int(1, *n));
    dimensions.int(2, FLOAT).text(8, name).bytes(9, &super::bytes(values))
}

fn node(op: &str, inputs: &[&str], output: &str) -> Message {
    inputs.iter().fold(Message::default(), |all, name| all.text(1, name)).text(2, output).text(4, op)
}

fn onnx(graph: Message) -> Vec<u8> {
    let opset = Message::default().text(1, "").int(2, 13);
    Message::default().int(1, 8).message(7, graph).message(8, opset).0
}

/// `y = x · W` with three numbers in and three out.
pub fn dense_onnx() -> Vec<u8> {
    let n = CLASSES as u64;
    let graph = Message::default()
        .message(1, node("MatMul", &["x", "w"], "y"))
        .text(2, "dense")
        .message(5, constant("w", &[n, n], &weights()))
        .message(11, value_info("x", &[1, n]))
        .message(12, value_info("y", &[1, n]));
    onnx(graph)
}

/// A product of square matrices that takes a while: `size`³ multiplications.
pub fn slow_onnx(size: u64) -> Vec<u8> {
    let values = vec![0.001_f32; (size * size) as usize];
    let graph = Message::default()
        .message(1, node("MatMul", &["x", "w"], "y"))
        .text(2, "slow")
        .message(5, constant("w", &[size, size], &values))
        .message(11, value_info("x", &[size, size]))
        .message(12, value_info("y", &[size, size]));
    onnx(graph)
}

/// `y = ln x`, which is no number below 0.
pub fn log_onnx() -> Vec<u8> {
    let graph = Message::default()
        .message(1, node("Log", &["x"], "y"))
        .text(2, "log")
        .message(11, value_info("x", &[1, 2]))
        .message(12, value_info("y", &[1, 2]));
    onnx(graph)
}

/// The same as [`dense_onnx`], as a .tflite in floating point.
pub fn dense_tflite() -> Vec<u8> {
    let mut model = Model::new("dense");
    let data = super::bytes(&weights());
    let n = CLASSES as i32;
    let weights =
        Tensor { buffer: model.add_buffer(data), name: "w".into(), ..Tensor::new(TensorType::Float32, vec![n, n]) };
    let named = |name: &str| Tensor { name: name.into(), ..Tensor::new(TensorType::Float32, vec![1, n]) };
    finish(model, vec![named("x"), weights, named("y")], vec![0, 1, -1])
}

/// The same in int8: inputs in steps of 1/100 around 0, outputs in steps of 1/50.
pub fn dense_tflite_int8() -> Vec<u8> {
    let mut model = Model::new("dense");
    let n = CLASSES as i32;
    // 127 steps of 2/127 are 2.
    let data: Vec<u8> = weights().iter().map(|w| if *w == 0.0 { 0 } else { 127 }).collect();
    let quantized = |dtype, shape: Vec<i32>, name: &str, scale: f32| Tensor {
        name: name.into(),
        quantization: Some(Quantization::per_tensor(scale, 0)),
        ..Tensor::new(dtype, shape)
    };
    let w = Tensor { buffer: model.add_buffer(data), ..quantized(TensorType::Int8, vec![n, n], "w", 2.0 / 127.0) };
    let bias = vec![0; CLASSES * 4];
    let b = Tensor { buffer: model.add_buffer(bias), ..quantized(TensorType::Int32, vec![n], "b", 0.01 * 2.0 / 127.0) };
    let x = quantized(TensorType::Int8, vec![1, n], "x", 0.01);
    let y = quantized(TensorType::Int8, vec![1, n], "y", 0.02);
    finish(model, vec![x, w, y, b], vec![0, 1, 3])
}

/// `y = max(x, 0)` on so many int8 numbers: a small file whose tensors can be as large as one likes.
pub fn relu_tflite_int8(length: i32) -> Vec<u8> {
    let mut model = Model::new("relu");
    let tensor = |name: &str| Tensor {
        name: name.into(),
        quantization: Some(Quantization::per_tensor(0.1, 0)),
        ..Tensor::new(TensorType::Int8, vec![1, length])
    };
    let mut graph = Subgraph {
        tensors: vec![tensor("x"), tensor("y")],
        inputs: vec![0],
        outputs: vec![1],
        operators: vec![Operator::builtin(BuiltinOp::RELU, edgeyard_tflite::Options::None, vec![0], vec![1])],
        ..Subgraph::default()
    };
    graph.operators[0].code.version = edgeyard_tflite::operator_version(&graph, &graph.operators[0]);
    model.subgraphs.push(graph);
    edgeyard_tflite::write(&model).unwrap()
}

fn finish(mut model: Model, tensors: Vec<Tensor>, inputs: Vec<i32>) -> Vec<u8> {
    let options = op_options::FullyConnected::default();
    let mut graph = Subgraph {
        name: "main".into(),
        tensors,
        inputs: vec![0],
        outputs: vec![2],
        operators: vec![Operator::builtin(BuiltinOp::FULLY_CONNECTED, options, inputs, vec![2])],
    };
    let version = edgeyard_tflite::operator_version(&graph, &graph.operators[0]);
    graph.operators[0].code.version = version;
    model.subgraphs.push(graph);
    model.signatures.push(Signature {
        key: "serving_default".into(),
        inputs: vec![("x".into(), 0)],
        outputs: vec![("y".into(), 2)],
        subgraph: 0,
    });
    edgeyard_tflite::write(&model).unwrap()
}
