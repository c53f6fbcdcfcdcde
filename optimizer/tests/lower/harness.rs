//! Builds small ONNX models, lowers them in every mode and asks onnxruntime, LiteRT and TensorFlow Lite Micro, through
//! a Python script, how well the results agree.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use edgeyard_optimizer::ir::{Attribute, DataType, Graph, Model, Node, Tensor, Value, import_tflite};
use edgeyard_optimizer::lower::{Int8Io, Mode, Range, Ranges, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, simplify};

/// A model and what is expected of its lowered forms.
pub struct Case {
    pub name: String,
    pub model: Model,
    /// Least signal-to-noise ratio of int8 against float, in dB; none if int8 cannot be.
    pub int8: Option<f64>,
    /// TensorFlow Lite Micro computes the model too; otherwise only LiteRT, with floats inside.
    pub micro: bool,
    /// Largest difference in integers between LiteRT's optimised kernels and TensorFlow Lite Micro.
    pub steps: u64,
    /// Largest difference in integers between LiteRT's reference kernels and TensorFlow Lite Micro; none where the
    /// reference kernels lack the operator or get it wrong.
    pub reference: Option<u64>,
    /// The operators expected in the float file, in order, where they matter.
    pub operators: Option<Vec<&'static str>>,
    /// Largest difference of float32 results, relative to the largest result.
    pub float: f64,
    seed: u64,
}

/// What the runtimes said about one case.
#[derive(Debug, serde::Deserialize)]
pub struct Verdict {
    error: Option<String>,
    #[serde(default)]
    float_error: f64,
    #[serde(default)]
    half_sqnr: f64,
    #[serde(default)]
    int8_sqnr: f64,
    #[serde(default)]
    micro_sqnr: f64,
    #[serde(default)]
    dynamic_sqnr: f64,
    #[serde(default)]
    int4_sqnr: f64,
    #[serde(default)]
    int16_sqnr: Option<f64>,
    #[serde(default)]
    micro_int16_sqnr: Option<f64>,
    #[serde(default)]
    reference_steps: Option<u64>,
    #[serde(default)]
    optimised_steps: u64,
    /// The float32 file, read back as ONNX, against the source.
    #[serde(default)]
    import_error: Option<f64>,
}

pub fn case(name: &str) -> Case {
    let mut graph = Graph::default();
    graph.name = "test".into();
    graph.opset = 17;
    let model = Model { ir_version: 8, opsets: BTreeMap::from([(String::new(), 17)]), graph, rest: Vec::new() };
    let seed =
        name.bytes().fold(1469598103934665603_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(1099511628211));
    Case {
        name: name.to_owned(),
        model,
        int8: Some(30.0),
        micro: true,
        steps: 1,
        reference: Some(0),
        operators: None,
        float: 2e-5,
        seed,
    }
}

impl Case {
    pub fn opset(mut self, opset: i64) -> Self {
        self.model.graph.opset = opset;
        self.model.opsets.insert(String::new(), opset);
        self
    }

    pub fn input(mut self, name: &str, shape: &[usize]) -> Self {
        self.model.graph.inputs.push(Value::fixed(name, DataType::F32, shape));
        self
    }

    /// An input of another type.
    pub fn input_of(mut self, name: &str, shape: &[usize], dtype: DataType) -> Self {
        self.model.graph.inputs.push(Value::fixed(name, dtype, shape));
        self
    }

    /// Random values, about normal with deviation 0.5.
    pub fn weights(self, name: &str, shape: &[usize]) -> Self {
        self.spread(name, shape, 0.5, 0.0)
    }

    /// Random values, about normal.
    pub fn spread(mut self, name: &str, shape: &[usize], deviation: f32, mean: f32) -> Self {
        let values = (0..shape.iter().product()).map(|_| self.normal() * deviation + mean).collect();
        self.floats(name, shape, values)
    }

    pub fn floats(mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Self {
        self.model.graph.initializers.insert(name.into(), Tensor::f32(shape, values));
        self
    }

    pub fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.model.graph.initializers.insert(name.into(), Tensor::i64(&[values.len()], values.to_vec()));
        self
    }

    pub fn node(mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Self {
        let mut node = Node::new(op, &format!("{op}_{output}"), inputs, &output.split(',').collect::<Vec<_>>());
        for (name, value) in attributes {
            node = node.with(name, value.clone());
        }
        self.model.graph.nodes.push(node);
        self
    }

    pub fn output(self, name: &str) -> Self {
        self.output_of(name, DataType::F32)
    }

    pub fn output_of(mut self, name: &str, dtype: DataType) -> Self {
        let value = Value { name: name.into(), dtype, shape: Vec::new(), has_shape: false };
        self.model.graph.outputs.push(value);
        self
    }

    pub fn int8(mut self, least: f64) -> Self {
        self.int8 = Some(least);
        self
    }

    /// TensorFlow Lite Micro is refused: an operator has no integer kernel.
    pub fn without_micro(mut self) -> Self {
        self.micro = false;
        self
    }

    /// How far float32 results may be from onnxruntime's.
    pub fn within(mut self, float: f64) -> Self {
        self.float = float;
        self
    }

    pub fn steps(mut self, steps: u64) -> Self {
        self.steps = steps;
        self
    }

    /// LiteRT's reference kernels are left out.
    pub fn without_reference(mut self) -> Self {
        self.reference = None;
        self
    }

    /// LiteRT's FULLY_CONNECTED rounds once where TensorFlow Lite Micro rounds twice: results may be that many integers
    /// apart.
    pub fn reference_within(mut self, steps: u64) -> Self {
        self.reference = Some(steps);
        self
    }

    pub fn operators(mut self, operators: &[&'static str]) -> Self {
        self.operators = Some(operators.to_vec());
        self
    }

    fn normal(&mut self) -> f32 {
        let uniform = |seed: &mut u64| {
            *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (*seed >> 40) as f32 / (1 << 24) as f32
        };
        (0..12).map(|_| uniform(&mut self.seed)).sum::<f32>() - 6.0
    }
}

pub fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

pub fn int(value: i64) -> Attribute {
    Attribute::Int(value)
}

pub fn float(value: f32) -> Attribute {
    Attribute::Float(value)
}

pub fn text(value: &str) -> Attribute {
    Attribute::String(value.as_bytes().to_vec())
}

fn oracle(step: &str, folder: &Path) {
    let python = std::env::var_os("EDGEYARD_PYTHON")
        .expect("EDGEYARD_PYTHON is not set: run `cargo xtask setup`, then the tests by `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lower/oracle.py");
    let output = Command::new(python).arg(script).arg(step).arg(folder).output().expect("Python starts");
    assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Lowers all cases in all modes and checks every promise; reports all that fail at once. With `EDGEYARD_KEEP_LOWERED`
/// set, the files stay in the temporary folder.
pub fn check(cases: Vec<Case>) {
    let mut folder = tempfile::tempdir().unwrap();
    folder.disable_cleanup(std::env::var_os("EDGEYARD_KEEP_LOWERED").is_some());
    let at = |name: &str, kind: &str| folder.path().join(format!("{name}.{kind}"));
    let mut failures = Vec::new();
    let mut lowered = Vec::new();
    for mut case in cases {
        std::fs::write(at(&case.name, "onnx"), case.model.to_bytes()).unwrap();
        match simplify(&case.model.graph, &Shapes::Fixed(BTreeMap::new())) {
            Ok(graph) => case.model.graph = graph,
            Err(error) => {
                failures.push(format!("{}: {error}", case.name));
                continue;
            }
        }
        std::fs::write(at(&case.name, "simple.onnx"), case.model.to_bytes()).unwrap();
        lowered.push(case);
    }
    oracle("ranges", folder.path());
    let calibrated: BTreeMap<String, BTreeMap<String, (f32, f32)>> = read(&folder.path().join("ranges.json"));
    for case in &lowered {
        let ranges: Ranges = calibrated[&case.name]
            .iter()
            .map(|(tensor, (min, max))| (tensor.clone(), Range { min: *min, max: *max }))
            .collect();
        let mut modes = vec![
            ("f32.tflite", Mode::Float32),
            ("f16.tflite", Mode::Float16Weights),
            ("dyn.tflite", Mode::Int8Dynamic),
            ("i4.tflite", Mode::Int4Weights),
        ];
        // Not every operator that microcontrollers have in 8 bits do they have in 16; lowering says which.
        let wide = Mode::Int16Activations { io: Int8Io::Int8 };
        if case.int8.is_some() && case.micro && to_tflite(&case.model.graph, wide, Some(&ranges)).is_ok() {
            modes.push(("i16.tflite", wide));
        }
        if case.int8.is_some() {
            modes.push(("i8f.tflite", Mode::Int8 { io: Int8Io::Float }));
            modes.push(("i16f.tflite", Mode::Int16Activations { io: Int8Io::Float }));
            if case.micro {
                modes.push(("i8.tflite", Mode::Int8 { io: Int8Io::Int8 }));
            } else if to_tflite(&case.model.graph, Mode::Int8 { io: Int8Io::Int8 }, Some(&ranges)).is_ok() {
                failures.push(format!("{}: int8 throughout is expected to be refused", case.name));
            }
        }
        for (kind, mode) in modes {
            match to_tflite(&case.model.graph, mode, Some(&ranges)) {
                Ok(lowered) => {
                    let operators = sequence(&lowered.bytes);
                    if let Some(expected) = &case.operators
                        && mode == Mode::Float32
                        && operators != *expected
                    {
                        failures.push(format!("{}: operators {operators:?}, expected {expected:?}", case.name));
                    }
                    if matches!(mode, Mode::Float32 | Mode::Int4Weights | Mode::Int8 { io: Int8Io::Float }) {
                        match import_tflite(&lowered.bytes) {
                            Ok(model) if mode == Mode::Float32 => {
                                std::fs::write(at(&case.name, "import.onnx"), model.to_bytes()).unwrap();
                            }
                            Ok(_) => {}
                            Err(error) => failures.push(format!("{} {kind}: {error}", case.name)),
                        }
                    }
                    std::fs::write(at(&case.name, kind), lowered.bytes).unwrap();
                }
                Err(error) => failures.push(format!("{} {kind}: {error}", case.name)),
            }
        }
    }
    oracle("check", folder.path());
    let verdicts: BTreeMap<String, Verdict> = read(&folder.path().join("verdicts.json"));
    for case in &lowered {
        let verdict = &verdicts[&case.name];
        if let Some(error) = &verdict.error {
            failures.push(format!("{}: {error}", case.name));
            continue;
        }
        let mut fail = |what: String| failures.push(format!("{}: {what}; {verdict:?}", case.name));
        if verdict.float_error.is_nan() || verdict.float_error > case.float {
            fail("float32 differs from onnxruntime".into());
        }
        if verdict.import_error.is_none_or(|error| error.is_nan() || error > case.float.max(2e-5)) {
            fail("the imported .tflite differs from its source".into());
        }
        if verdict.half_sqnr < 50.0 {
            fail("float16 weights lose too much".into());
        }
        if verdict.dynamic_sqnr < 28.0 || verdict.int4_sqnr < 10.0 {
            fail("integer weights lose too much".into());
        }
        let Some(least) = case.int8 else { continue };
        if [verdict.int16_sqnr, verdict.micro_int16_sqnr].into_iter().flatten().any(|found| found < least + 3.0) {
            fail(format!("16-bit activations are not above {least} dB"));
        }
        if verdict.int8_sqnr < least || (case.micro && verdict.micro_sqnr < least) {
            fail(format!("int8 is below {least} dB"));
        }
        if !case.micro {
            continue;
        }
        if case.reference.is_some_and(|most| verdict.reference_steps.is_none_or(|steps| steps > most)) {
            fail("LiteRT's reference kernels and TensorFlow Lite Micro differ".into());
        }
        if verdict.optimised_steps > case.steps {
            fail("LiteRT's optimised kernels and TensorFlow Lite Micro differ".into());
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// The operators of a file, in order.
pub fn sequence(file: &[u8]) -> Vec<String> {
    let model = edgeyard_tflite::read(file).unwrap();
    model.subgraphs[0].operators.iter().map(|operator| operator.code.builtin.to_string()).collect()
}
