//! One model at a time: simplify it, lower it in two modes, and ask the runtimes through a Python script how far the results are
//! from the original's. What is expected of a model is stated; more than that fails too, so that the tables stay true.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use edgeyard_optimizer::ir::{self, Model};
use edgeyard_optimizer::lower::{Int8Io, Mode, Range, Ranges, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, bind, explicit_padding, simplify, to_opset_13};

/// A model and what is expected of it.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub name: &'static str,
    /// Sizes for free dimensions.
    pub shapes: &'static [(&'static str, &'static [usize])],
    /// Inputs that are constants.
    pub values: &'static [(&'static str, f64)],
    /// The least agreement of the float lowering, in dB.
    pub float: f64,
    /// The same with int8 inside and floats outside.
    pub int8: f64,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Verdict {
    error: Option<String>,
    /// Largest difference of an output, relative to that output's largest value.
    declared: Option<f64>,
    fixed: Option<f64>,
    float: Option<f64>,
    float_sqnr: Option<f64>,
    int8_sqnr: Option<f64>,
}

/// Simplification may reorder sums; nothing more.
const SIMPLIFIED: f64 = 1e-4;

fn oracle(step: &str, folder: &Path) {
    let python = std::env::var_os("EDGEYARD_PYTHON")
        .expect("EDGEYARD_PYTHON is not set: run `cargo xtask setup`, then the tests by `cargo xtask test`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/oracle.py");
    let output = Command::new(python).arg(script).arg(step).arg(folder).output().expect("Python starts");
    assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The folder of the published models.
pub fn corpus() -> PathBuf {
    let folder = std::env::var_os("EDGEYARD_CORPUS_DIR")
        .expect("EDGEYARD_CORPUS_DIR is not set: run `cargo xtask setup`, then the tests by `cargo xtask test`");
    PathBuf::from(folder)
}

/// Makes `FOLDER/NAME.onnx` for onnx's light models.
pub fn make_light(folder: &Path) {
    oracle("light", folder);
}

/// Simplifies and lowers `FOLDER/NAME.onnx` of every entry and checks all that is expected; tells all that fails at once.
pub fn check(folder: &Path, models: &[Expected]) {
    let mut failures = Vec::new();
    let work = tempfile::tempdir().unwrap();
    let mut graphs = BTreeMap::new();
    for expected in models {
        let file = folder.join(format!("{}.onnx", expected.name));
        let start = Instant::now();
        match simplified(&file, expected, work.path()) {
            Ok(model) => {
                println!(
                    "{}: {} nodes, {:.2} s",
                    expected.name,
                    model.graph.nodes.len(),
                    start.elapsed().as_secs_f64()
                );
                graphs.insert(expected.name, model);
            }
            Err(error) => failures.push(format!("{}: {error}", expected.name)),
        }
        std::fs::copy(&file, work.path().join(format!("{}.onnx", expected.name))).unwrap();
    }
    oracle("ranges", work.path());
    let ranges: BTreeMap<String, BTreeMap<String, (f32, f32)>> =
        serde_json::from_slice(&std::fs::read(work.path().join("ranges.json")).unwrap()).unwrap();
    for expected in models {
        let Some(model) = graphs.get(expected.name) else { continue };
        let ranges: Ranges = ranges[expected.name]
            .iter()
            .map(|(name, (min, max))| (name.clone(), Range { min: *min, max: *max }))
            .collect();
        let modes = [("f32", Mode::Float32), ("i8", Mode::Int8 { io: Int8Io::Float })];
        for (kind, mode) in modes {
            match to_tflite(&model.graph, mode, Some(&ranges)) {
                Ok(lowered) => {
                    std::fs::write(work.path().join(format!("{}.{kind}.tflite", expected.name)), lowered.bytes)
                        .unwrap();
                }
                Err(error) => failures.push(format!("{} {kind}: {error}", expected.name)),
            }
        }
    }
    oracle("check", work.path());
    let verdicts: BTreeMap<String, Verdict> =
        serde_json::from_slice(&std::fs::read(work.path().join("verdicts.json")).unwrap()).unwrap();
    for expected in models.iter().filter(|expected| graphs.contains_key(expected.name)) {
        let verdict = &verdicts[expected.name];
        println!("{}: {verdict:?}", expected.name);
        let mut fail = |what: &str| failures.push(format!("{}: {what}: {verdict:?}", expected.name));
        if verdict.error.is_some() {
            fail("a runtime fails");
            continue;
        }
        for (what, difference) in [("declared", verdict.declared), ("fixed", verdict.fixed)] {
            if difference.is_none_or(|difference| difference.is_nan() || difference > SIMPLIFIED) {
                fail(&format!("simplified with {what} shapes it is another model"));
            }
        }
        for (what, least, sqnr) in
            [("float", expected.float, verdict.float_sqnr), ("int8", expected.int8, verdict.int8_sqnr)]
        {
            if !sqnr.is_some_and(|sqnr| sqnr >= least) {
                fail(&format!("{what} in LiteRT is below {least} dB"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Writes the model simplified with declared and with fixed shapes; gives the latter.
fn simplified(file: &Path, expected: &Expected, work: &Path) -> Result<Model, String> {
    let mut source = ir::load_file(file).map_err(|error| error.to_string())?;
    let values = expected.values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    bind(&mut source.graph, &values, &mut BTreeMap::new()).map_err(|error| error.to_string())?;
    let shapes = expected.shapes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    let make = |shapes: &Shapes| -> Result<Model, String> {
        let mut model = source.clone();
        model.graph = simplify(&model.graph, shapes).map_err(|error| error.to_string())?;
        Ok(model)
    };
    let declared = make(&Shapes::Declared)?;
    std::fs::write(work.join(format!("{}.declared.onnx", expected.name)), declared.to_bytes()).unwrap();
    let mut fixed = make(&Shapes::Fixed(shapes))?;
    explicit_padding(&mut fixed.graph);
    to_opset_13(&mut fixed).map_err(|error| error.to_string())?;
    std::fs::write(work.join(format!("{}.fixed.onnx", expected.name)), fixed.to_bytes()).unwrap();
    Ok(fixed)
}
