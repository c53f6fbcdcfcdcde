//! Integer models. Every float tensor gets a scale and a zero point from its calibrated range, under the rules of
//! TFLite's kernels: some operators give a fixed scale, some need one scale for all they touch (`groups`), weights
//! are symmetric and mostly per channel (`constants`). Models with integers for weights alone are made in `hybrid`.

mod bounds;
mod clamp;
mod constants;
mod groups;
mod hybrid;
mod islands;
mod rules;

pub(super) use clamp::expand_clamps;
pub(super) use hybrid::{WeightBits, weights};

use std::collections::BTreeSet;

use edgeyard_tflite::{BuiltinOp, Options, Quantization, TensorType};

use super::draft::{DEQUANTIZE_OPTIONS, Draft, Op, QUANTIZE_OPTIONS, TensorId, Value};
use super::ranges::{Range, Ranges};
use super::walk::refusal;
use super::{Choices, Int8Io, LowerError, StaysFloat};
use crate::ir::Graph;
use crate::quantize::check_weights;

/// Scale and zero point of a whole tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Affine {
    scale: f32,
    zero_point: i32,
}

/// How activations are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activations {
    /// -128 to 127 with a zero point.
    Int8,
    /// -32767 to 32767, zero in the middle, as the kernels demand.
    Int16,
}

/// What to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub io: Int8Io,
    pub activations: Activations,
    pub choices: &'a Choices,
}

impl Activations {
    fn dtype(self) -> TensorType {
        match self {
            Self::Int8 => TensorType::Int8,
            Self::Int16 => TensorType::Int16,
        }
    }

    /// Covers a range, and zero exactly, with all stored values.
    fn covering(self, range: Range) -> Affine {
        let (min, max) = (f64::from(range.min.min(0.0)), f64::from(range.max.max(0.0)));
        // A tensor that is always zero: any scale represents it.
        if max - min < f64::from(f32::MIN_POSITIVE) * 65536.0 {
            return Affine { scale: 1.0, zero_point: 0 };
        }
        match self {
            Self::Int8 => {
                let scale = (max - min) / 255.0;
                let zero_point = (-128.0 - min / scale).round().clamp(-128.0, 127.0) as i32;
                Affine { scale: scale as f32, zero_point }
            }
            Self::Int16 => Affine { scale: (max.max(-min) / 32767.0) as f32, zero_point: 0 },
        }
    }

    /// Constants as such activations.
    fn store(self, values: &[f32], affine: Affine) -> Value {
        let real = |value: &f32| f64::from(*value) / f64::from(affine.scale) + f64::from(affine.zero_point);
        match self {
            Self::Int8 => {
                Value::I8(values.iter().map(|value| real(value).round().clamp(-128.0, 127.0) as i8).collect())
            }
            Self::Int16 => {
                Value::I16(values.iter().map(|value| real(value).round().clamp(-32767.0, 32767.0) as i16).collect())
            }
        }
    }
}

impl Affine {
    fn quantization(self) -> Quantization {
        Quantization::per_tensor(self.scale, i64::from(self.zero_point))
    }
}

/// Indices of the nodes that stay float by choice, and of clamps that do nothing else than follow one of them.
fn chosen_floats(graph: &Graph, draft: &Draft, choices: &Choices) -> BTreeSet<usize> {
    let mut chosen = BTreeSet::new();
    let mut tensors: BTreeSet<&str> = BTreeSet::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let follows = matches!(node.op_type.as_str(), "Relu" | "Clip" | "PRelu" | "LeakyRelu")
            && node.input(0).is_some_and(|input| tensors.contains(input));
        if choices.keep_float.contains(node.output()) || follows {
            chosen.insert(at);
            tensors.insert(node.output());
        }
    }
    // A node that went into another's operator, as a bias or an activation, is that operator now.
    let absorbed: Vec<usize> = chosen.iter().copied().filter(|at| draft.ops.iter().all(|op| op.node != *at)).collect();
    for at in absorbed {
        let name = graph.nodes[at].output();
        let made = |op: &&Op| op.outputs.iter().any(|&output| draft.tensors[output].origin.as_deref() == Some(name));
        chosen.extend(draft.ops.iter().rfind(made).map(|op| op.node));
    }
    chosen
}

/// Turns a float draft into an int8 one.
pub(super) fn quantize(
    graph: &Graph,
    draft: &mut Draft,
    ranges: &Ranges,
    plan: Plan<'_>,
    notes: &mut Vec<String>,
) -> Result<(), LowerError> {
    let Plan { io, activations, choices } = plan;
    check_weights(graph)?;
    let chosen = chosen_floats(graph, draft, choices);
    match activations {
        Activations::Int8 => clamp::saturate_clamps(draft, &chosen),
        // Symmetric values reach below zero whatever the range is: they saturate in the wrong place.
        Activations::Int16 => clamp::expand_clamps(draft),
    }
    drop_dead(draft);
    if let (Some(&at), Int8Io::Int8) = (chosen.first(), io) {
        let why = "it shall stay float, and the target computes with integers throughout";
        return Err(refusal(graph, at, why, "leave maxFloatOperators out for this target"));
    }
    let float_only = draft.ops.iter().find(|op| islands::needs_float(draft, op, activations, &chosen));
    if let Some(node) = float_only.map(|op| op.node) {
        if io == Int8Io::Int8 {
            let missing = draft.ops.iter().find(|op| op.node == node && !rules::has_kernel(op.op, activations));
            let why = missing.map_or_else(
                || "integers are too coarse for it".to_owned(),
                |op| format!("its TFLite operator {} has no {} kernel", op.op, activations.dtype()),
            );
            let remedy = "replace the operator, or use a target that takes floats inside the model";
            return Err(refusal(graph, node, why, remedy));
        }
        let kept = islands::surround(draft, activations, &chosen).into_iter().collect::<Vec<_>>().join(", ");
        if !kept.is_empty() {
            notes.push(format!("{kept}: computed in float32, for want of {} kernels", activations.dtype()));
        }
        if !chosen.is_empty() {
            let names: Vec<&str> = chosen.iter().filter_map(|at| Some(graph.nodes.get(*at)?.label())).collect();
            notes.push(format!("computed in float32, as they are sensitive: {}", names.join(", ")));
        }
        drop_dead(draft);
    }
    let wide = draft.ops.iter().find(|op| draft.tensors[op.outputs[0]].dtype == TensorType::Int64);
    if let Some(op) = wide
        && io == Int8Io::Int8
    {
        let why = "it gives 64-bit integers";
        return Err(refusal(graph, op.node, why, "leave it out of the model and do it on the result"));
    }
    groups::insert_requantization(draft, activations);
    let parameters = groups::parameters(graph, draft, ranges, activations)?;
    groups::drop_needless_requantization(draft, &parameters);
    constants::quantize(draft, &parameters, plan);
    for (tensor, affine) in parameters.iter().enumerate() {
        let slot = &mut draft.tensors[tensor];
        if let Some(affine) = affine
            && slot.value.is_none()
            && !slot.keeps_float
            && slot.dtype == TensorType::Float32
        {
            slot.dtype = activations.dtype();
            slot.quantization = Some(affine.quantization());
        }
    }
    if activations == Activations::Int16 {
        general_scales(draft);
    }
    if io == Int8Io::Float {
        float_ends(draft, activations.dtype());
    }
    Ok(())
}

/// What [`quantize`] would leave in floats, node by node.
pub(super) fn stay_float(draft: &Draft, activations: Activations) -> Vec<StaysFloat> {
    let mut draft = draft.clone();
    let chosen = BTreeSet::new();
    match activations {
        Activations::Int8 => clamp::saturate_clamps(&mut draft, &chosen),
        Activations::Int16 => clamp::expand_clamps(&mut draft),
    }
    drop_dead(&mut draft);
    let mut found: Vec<StaysFloat> = Vec::new();
    for op in draft.ops.iter().filter(|op| islands::needs_float(&draft, op, activations, &chosen)) {
        let missing = !rules::has_kernel(op.op, activations);
        let why = match missing {
            true => format!("its TFLite operator {} has no {} kernel", op.op, activations.dtype()),
            false => "integers are too coarse for it".to_owned(),
        };
        match found.iter_mut().find(|known| known.node == op.node) {
            Some(known) if missing => known.why = why,
            Some(_) => {}
            None => found.push(StaysFloat { node: op.node, why }),
        }
    }
    found
}

/// 16-bit sums take scales that are powers of two unless they are told otherwise.
fn general_scales(draft: &mut Draft) {
    for op in &mut draft.ops {
        match &mut op.options {
            Options::Add(options) => options.pot_scale_int16 = false,
            Options::Sub(options) => options.pot_scale_int16 = false,
            _ => {}
        }
    }
}

fn computes_floats(draft: &Draft, op: &Op) -> bool {
    // A CAST takes numbers as they stand: integers that stand for others have to be floats again before it. Kernels that
    // compare integers abort on scales of 1 and above, which constants of zero have.
    let float = |tensor: &TensorId| draft.tensors[*tensor].dtype == TensorType::Float32;
    let as_they_stand = matches!(
        op.op,
        BuiltinOp::CAST
            | BuiltinOp::GREATER
            | BuiltinOp::GREATER_EQUAL
            | BuiltinOp::LESS
            | BuiltinOp::LESS_EQUAL
            | BuiltinOp::EQUAL
    ) && op.inputs.iter().flatten().any(float);
    as_they_stand || op.outputs.iter().any(|&tensor| draft.tensors[tensor].dtype == TensorType::Float32)
}

/// Operations without readers would otherwise ask for ranges.
fn drop_dead(draft: &mut Draft) {
    loop {
        let readers = draft.readers();
        let before = draft.ops.len();
        draft.ops.retain(|op| op.outputs.iter().any(|&tensor| readers[tensor] > 0));
        if draft.ops.len() == before {
            return;
        }
    }
}

/// Feeds and gives floats, with the conversions inside the model.
fn float_ends(draft: &mut Draft, stored: TensorType) {
    let mut first = Vec::new();
    for at in 0..draft.inputs.len() {
        let inner = draft.inputs[at].1;
        if draft.tensors[inner].dtype != stored {
            continue;
        }
        let outer = float_twin(draft, inner);
        draft.inputs[at].1 = outer;
        first.push(conversion(BuiltinOp::QUANTIZE, QUANTIZE_OPTIONS, outer, inner, 0));
    }
    draft.ops.splice(0..0, first);
    for at in 0..draft.outputs.len() {
        let inner = draft.outputs[at].1;
        if draft.tensors[inner].dtype != stored {
            continue;
        }
        let outer = float_twin(draft, inner);
        draft.outputs[at].1 = outer;
        let node = draft.ops.last().map_or(0, |op| op.node);
        draft.ops.push(conversion(BuiltinOp::DEQUANTIZE, DEQUANTIZE_OPTIONS, inner, outer, node));
    }
}

fn float_twin(draft: &mut Draft, tensor: TensorId) -> TensorId {
    let shape = draft.tensors[tensor].shape.clone();
    draft.computed(&shape, None)
}

fn conversion(op: BuiltinOp, options: u8, from: TensorId, to: TensorId, node: usize) -> Op {
    Op { op, options: Options::Empty(options), inputs: vec![Some(from)], outputs: vec![to], node, clamp: (0.0, 0.0) }
}
