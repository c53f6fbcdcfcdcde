//! A model held against a target's rules: the source before any work starts, and the artefact that was made of it. The rules
//! are data (`edgeyard-targets`); here models become the neutral view that rules look at.

mod onnx;
mod tflite;

use std::collections::BTreeMap;

use edgeyard_job::report::{Finding, Severity};
use edgeyard_job::spec::ModelFormat;
use edgeyard_targets::{InterfaceType, Numbers, Otherwise, Target, View, lint};

use crate::ir::{DataType, Dim, Graph, Value};
use crate::lower::{Int8Io, LowerError, Mode, StaysFloat, outline};
use crate::simplify::{Allowed, fuse_patterns};

pub use onnx::view as onnx_view;
pub use tflite::view as tflite_view;

/// The rule that an operator breaks which cannot be lowered at all.
pub const NOT_LOWERED: &str = "lowering";

/// Findings that stop the work.
pub fn refused(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.severity == Severity::Refused).collect()
}

/// The rule that an operator breaks which is not computed in integers.
pub const STAYS_FLOAT: &str = "integer-kernels";

/// Whether looking at the source can tell anything: an ONNX target that takes everything needs no rehearsal.
pub fn has_say(target: &Target) -> bool {
    let graded = |rule: &edgeyard_targets::Rule| rule.severity == Severity::Refused && rule.operators.is_empty();
    target.format == ModelFormat::TfLite
        || target.operators.otherwise != Otherwise::Taken
        || target.rules.iter().any(graded)
}

/// What a target would say of a simplified source, in the numbers that it will be stored in. For `.tflite` targets the graph
/// is lowered in floats, without its calibration, and looked at as if its numbers were those already; an operator that cannot
/// be lowered is a finding too, and what comes after it is looked at all the same.
pub fn lint_source(target: &Target, mut graph: Graph, numbers: &Numbers) -> Vec<Finding> {
    if target.format == ModelFormat::Onnx {
        return lint(target, &onnx::view(&graph));
    }
    fuse_patterns(&mut graph, Allowed::All);
    let mode = mode(numbers);
    let mut findings = Vec::new();
    let lowered = loop {
        match outline(&graph, mode) {
            Ok(lowered) => break lowered,
            Err(error) => {
                let (finding, node) = unlowered(&graph, &error);
                findings.push(finding);
                let cut = node.filter(|node| cut(&mut graph, *node));
                if cut.is_none() {
                    return findings;
                }
            }
        }
    };
    // A model without nodes is lowered too, to a copy.
    let label = |node: &usize| graph.nodes.get(*node).map_or("the model", |node| node.label()).to_owned();
    let labels = lowered.nodes.iter().map(label).collect::<Vec<_>>();
    let mut view = tflite::view(&lowered.model, Some(&labels));
    assume(&mut view, numbers);
    findings.extend(lint(target, &view));
    for StaysFloat { node, why } in lowered.floats {
        let Some(node) = graph.nodes.get(node) else { continue };
        let finding = float_finding(target, mode, node.label(), &node.op_type, &why);
        // A list of operators may have said so already.
        let known = findings.iter().any(|known| {
            known.severity == Severity::Refused
                && finding.severity == Severity::Refused
                && known.subject.starts_with(&format!("{} (", node.label()))
        });
        if !known {
            findings.push(finding);
        }
    }
    findings
}

/// What [`lint_source`] says of an operator without integers.
fn float_finding(target: &Target, mode: Mode, node: &str, op: &str, why: &str) -> Finding {
    let inside = matches!(mode, Mode::Int8 { io: Int8Io::Float } | Mode::Int16Activations { io: Int8Io::Float });
    let (severity, message) = match inside {
        true => (
            Severity::Fallback,
            format!(
                "{why}: it stays in float32, between DEQUANTIZE and QUANTIZE; {}, if that costs too much",
                target.operators.remedy
            ),
        ),
        false => (
            Severity::Refused,
            format!("{why}, and {} computes with integers throughout; {}", target.name, target.operators.remedy),
        ),
    };
    Finding { severity, rule: STAYS_FLOAT.to_owned(), subject: format!("{node} ({op})"), message }
}

/// How lowering stores such numbers.
fn mode(numbers: &Numbers) -> Mode {
    let io = |interface: InterfaceType| match interface {
        InterfaceType::Float32 => Int8Io::Float,
        InterfaceType::Quantized => Int8Io::Int8,
    };
    match numbers {
        Numbers::Float32 => Mode::Float32,
        Numbers::Float16 => Mode::Float16Weights,
        Numbers::Int8Dynamic => Mode::Int8Dynamic,
        Numbers::Int4Weights { .. } => Mode::Int4Weights,
        Numbers::Int8 { rules, .. } => Mode::Int8 { io: io(rules.inputs_and_outputs) },
        Numbers::Int16Activations { rules, .. } => Mode::Int16Activations { io: io(rules.inputs_and_outputs) },
    }
}

/// What a target says of an artefact.
pub fn lint_artifact(target: &Target, artifact: &[u8]) -> Result<Vec<Finding>, String> {
    let view = match target.format {
        ModelFormat::Onnx => {
            let model = crate::ir::load(artifact, None).map_err(|error| error.to_string())?;
            onnx::view(&model.graph)
        }
        ModelFormat::TfLite => {
            let model = edgeyard_tflite::read(artifact).map_err(|error| error.to_string())?;
            tflite::view(&model, None)
        }
    };
    Ok(lint(target, &view))
}

fn unlowered(graph: &Graph, error: &LowerError) -> (Finding, Option<usize>) {
    let (subject, node) = match error {
        LowerError::Op { op, node, .. } => (
            format!("{node} ({op})"),
            graph.nodes.iter().position(|other| other.label() == node && other.op_type == *op),
        ),
        LowerError::Input { name, .. } => (name.clone(), None),
        _ => ("the model".to_owned(), None),
    };
    let finding =
        Finding { severity: Severity::Refused, rule: NOT_LOWERED.to_owned(), subject, message: error.to_string() };
    (finding, node)
}

/// Makes what a node computes an input of the graph, so that the rest can be looked at. False if that cannot be.
fn cut(graph: &mut Graph, node: usize) -> bool {
    let outputs: Vec<String> = graph.nodes[node].outputs.iter().filter(|name| !name.is_empty()).cloned().collect();
    let mut fed = Vec::new();
    for name in outputs {
        let float = graph.dtype_of(&name).is_none_or(|dtype| dtype == DataType::F32);
        match graph.shape_of(&name).map(<[usize]>::to_vec) {
            Some(shape) if float && !graph.is_output(&name) => {
                fed.push(Value {
                    name,
                    dtype: DataType::F32,
                    shape: shape.into_iter().map(Dim::Static).collect(),
                    has_shape: true,
                });
            }
            // What comes out needs a maker, and what is no float cannot be fed.
            _ => return false,
        }
    }
    graph.nodes.remove(node);
    graph.inputs.extend(fed);
    true
}

/// Gives floats the types that the recipe will give them.
fn assume(view: &mut View, numbers: &Numbers) {
    let (activations, weights, biases) = match numbers {
        Numbers::Float32 | Numbers::Float16 | Numbers::Int8Dynamic | Numbers::Int4Weights { .. } => return,
        Numbers::Int8 { .. } => ("int8", "int8", "int32"),
        Numbers::Int16Activations { .. } => ("int16", "int8", "int64"),
    };
    let mut bias = BTreeMap::new();
    for operator in &view.operators {
        if matches!(operator.kind.as_str(), "CONV_2D" | "DEPTHWISE_CONV_2D" | "FULLY_CONNECTED")
            && let Some(Some(index)) = operator.inputs.get(2)
        {
            bias.insert(*index, ());
        }
    }
    for (index, tensor) in view.tensors.iter_mut().enumerate().filter(|(_, tensor)| tensor.dtype == "float32") {
        let dtype = match (tensor.constant, bias.contains_key(&index)) {
            (true, true) => biases,
            (true, false) => weights,
            (false, _) => activations,
        };
        dtype.clone_into(&mut tensor.dtype);
    }
}
