//! Models, data and runs that the tests share. Models are built here, so that no binary file is committed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use edgeyard_optimizer::ir::{Attribute, DataType, Dim, Graph, Model, Node, Tensor, Value};
use edgeyard_optimizer::runtime::OnnxRuntime;

/// Numbers from a seed, about normal.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    pub fn value(&mut self) -> f32 {
        let sum: f64 = (0..6).map(|_| self.below(1 << 24) as f64 / (1 << 24) as f64).sum();
        ((sum - 3.0) * 1.4) as f32
    }

    pub fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    pub fn tensor(&mut self, dims: &[usize]) -> Tensor {
        Tensor::f32(dims, self.values(dims.iter().product()))
    }
}

/// Builds a model with the input `x` and the output `y`.
pub struct Builder {
    pub model: Model,
}

impl Builder {
    /// A dimension of 0 is free.
    pub fn new(opset: i64, input: &[usize]) -> Self {
        let dims = input.iter().map(|dim| if *dim == 0 { Dim::Symbol("N".to_owned()) } else { Dim::Static(*dim) });
        let x = Value { name: "x".into(), dtype: DataType::F32, shape: dims.collect(), has_shape: true };
        let y = Value { name: "y".into(), dtype: DataType::F32, shape: Vec::new(), has_shape: false };
        let mut graph = Graph::default();
        (graph.name, graph.opset, graph.inputs, graph.outputs) = ("g".into(), opset, vec![x], vec![y]);
        let opsets = BTreeMap::from([(String::new(), opset)]);
        Self { model: Model { ir_version: 8, opsets, graph, rest: Vec::new() } }
    }

    pub fn constant(mut self, name: &str, tensor: Tensor) -> Self {
        self.model.graph.initializers.insert(name.to_owned(), tensor);
        self
    }

    pub fn node(mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Self {
        let mut node = Node::new(op, &format!("{op}_{output}"), inputs, &[output]);
        for (name, value) in attributes {
            node.set(name, value.clone());
        }
        self.model.graph.nodes.push(node);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.model.to_bytes()
    }

    /// As a file would be read.
    pub fn loaded(&self) -> Model {
        edgeyard_optimizer::ir::load(&self.bytes(), None).unwrap()
    }
}

pub fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

pub fn int(value: i64) -> Attribute {
    Attribute::Int(value)
}

pub fn text(value: &str) -> Attribute {
    Attribute::String(value.as_bytes().to_vec())
}

/// Runs a model once; gives every float output with its shape.
pub fn run(model: &[u8], input: &[f32], shape: &[usize]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let runtime = OnnxRuntime::load().expect("`cargo xtask setup` installs ONNX Runtime");
    let mut session = runtime.session(model, 1).unwrap();
    let mut outputs = Vec::new();
    session
        .observe(input, shape, |output, dims| {
            outputs.push((output.name.to_owned(), dims.to_vec(), output.values.to_vec()));
        })
        .unwrap();
    outputs
}

/// The one output of a model.
pub fn run_one(model: &[u8], input: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut outputs = run(model, input, shape);
    assert_eq!(outputs.len(), 1);
    outputs.remove(0).2
}

pub fn assert_near(expected: &[f32], got: &[f32], tolerance: f32) {
    assert_eq!(expected.len(), got.len());
    let scale = expected.iter().fold(1f32, |peak, value| peak.max(value.abs()));
    for (at, (a, b)) in expected.iter().zip(got).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "element {at}: {a} against {b} (of up to {scale})");
    }
}

/// Signal to noise in dB.
pub fn sqnr(expected: &[f32], got: &[f32]) -> f64 {
    assert_eq!(expected.len(), got.len());
    let signal: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
    let noise: f64 = expected.iter().zip(got).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (signal / noise.max(1e-30)).log10()
}

fn npy(descr: &str, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes(), bytes].concat()
}

/// Writes a dataset.
pub fn write_npz(path: &Path, shape: &[usize], x: &[f32], y: Option<&[i64]>) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: Vec<u8>| {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(&bytes).unwrap();
    };
    add("x.npy", npy("<f4", shape, &x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()));
    if let Some(y) = y {
        add("y.npy", npy("<i8", &[y.len()], &y.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()));
    }
    zip.finish().unwrap();
}

/// The trained example model.
pub fn mnist_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mnist/mnist-cnn.onnx")
}

/// The first images of one part of MNIST, and their labels.
pub fn mnist(part: &str, count: usize) -> (Vec<f32>, Vec<i64>) {
    let folder = std::env::var("EDGEYARD_MNIST_DIR")
        .expect("EDGEYARD_MNIST_DIR names MNIST's files; `cargo xtask setup` brings them, `cargo xtask test` sets it");
    let read = |name: &str| std::fs::read(Path::new(&folder).join(format!("{part}-{name}"))).unwrap();
    let (images, labels) = (read("images-idx3-ubyte"), read("labels-idx1-ubyte"));
    let x = images[16..16 + count * 784].iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
    (x, labels[8..8 + count].iter().map(|label| i64::from(*label)).collect())
}

/// Runs Python with numpy and gives what it prints.
pub fn python(code: &str, arguments: &[&Path]) -> String {
    let python = std::env::var("EDGEYARD_PYTHON")
        .expect("EDGEYARD_PYTHON names a Python with numpy; `cargo xtask setup` makes it, `cargo xtask test` sets it");
    let output = std::process::Command::new(python).arg("-c").arg(code).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
