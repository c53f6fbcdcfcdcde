//! Operators that stay float in an integer model, between conversions; neighbours share one stretch of float. Some have no
//! integer kernel or shall stay float (`needs_float`). Where a model may contain floats, those are added that integers are
//! too coarse for: see [`Islands`].

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_tflite::{Activation, BuiltinOp, TensorType};

use super::super::draft::{DEQUANTIZE_OPTIONS, Draft, Op, QUANTIZE_OPTIONS, TensorId};
use super::super::ranges::{Range, Ranges};
use super::{Activations, computes_floats, conversion, float_twin, rules};

/// How much coarser than its own a scale may be that a tensor is forced into: two bits, 12 dB.
const COARSER: f32 = 4.0;

/// Operators that stay float, by the first tensor that each makes.
#[derive(Debug, Default)]
pub(super) struct Islands {
    ops: BTreeSet<TensorId>,
    /// How many of them are float for precision alone.
    pub precise: usize,
}

/// True if the operator is not computed in integers: it has no kernel, its lowering needs the precision of floats, or
/// it is among the `chosen` nodes.
pub(super) fn needs_float(draft: &Draft, op: &Op, activations: Activations, chosen: &BTreeSet<usize>) -> bool {
    let tensors = || op.inputs.iter().flatten().chain(&op.outputs);
    // Positions are found in integers of 8 bits, but not of 16.
    let finds = activations == Activations::Int16 && matches!(op.op, BuiltinOp::ARG_MAX | BuiltinOp::ARG_MIN);
    (computes_floats(draft, op) || finds)
        && (!rules::has_kernel(op.op, activations)
            || chosen.contains(&op.node)
            || tensors().any(|&tensor| draft.tensors[tensor].keeps_float))
}

/// How precise an operator wants an input. In order: a tensor gets the most that a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// A root and a quotient are steep at zero: small values shall not be rounded on their way from the nearest product.
    Unrounded,
    /// A logarithm sees ratios alone: small values matter as much as large ones, whatever linear filters they come from.
    Ratios,
}

/// What an operator that stays float wants of an input, if it is more than integers give.
fn wants(op: &Op, input: usize) -> Option<Wanted> {
    match op.op {
        BuiltinOp::LOG => Some(Wanted::Ratios),
        BuiltinOp::SQRT | BuiltinOp::RSQRT | BuiltinOp::POW if input == 0 => Some(Wanted::Unrounded),
        BuiltinOp::DIV if input == 1 => Some(Wanted::Unrounded),
        _ => None,
    }
}

/// A product without an activation: one layer of a filter bank, not of a network.
fn is_filter(op: &Op) -> bool {
    let product = matches!(op.op, BuiltinOp::CONV_2D | BuiltinOp::DEPTHWISE_CONV_2D | BuiltinOp::FULLY_CONNECTED);
    let plain = op.clone().activation_mut().is_none_or(|activation| *activation == Activation::None);
    product && plain && op.clamp == (0.0, 0.0)
}

/// Computes each value from a few others, without weights: cheap in floats.
fn is_light(op: &Op) -> bool {
    rules::keeps_scale(op.op)
        || matches!(
            op.op,
            BuiltinOp::ADD
                | BuiltinOp::SUB
                | BuiltinOp::MUL
                | BuiltinOp::SUM
                | BuiltinOp::MEAN
                | BuiltinOp::ABS
                | BuiltinOp::RELU
                | BuiltinOp::CONCATENATION
                | BuiltinOp::MAXIMUM
                | BuiltinOp::MINIMUM
        )
}

impl Islands {
    /// Operators that have to be float.
    pub fn needed(draft: &Draft, activations: Activations, chosen: &BTreeSet<usize>) -> Self {
        let needed = draft.ops.iter().filter(|op| needs_float(draft, op, activations, chosen));
        Self { ops: needed.map(|op| op.outputs[0]).collect(), precise: 0 }
    }

    /// Adds operators that integers are too coarse for:
    /// - sigmoids, softmaxes and tangents whose values use less than a quarter of the scale that integer kernels give
    ///   them: the scores of a detector, for instance;
    /// - concatenations for the model's output of values that differ in size by more than 4: one scale would serve
    ///   the large ones;
    /// - what goes into roots and divisors, back to the nearest product, and what goes into logarithms, through linear
    ///   filters too: of a spectrogram all of it, from the sound on;
    /// - what moves values from all these to an output.
    pub fn add_precise(&mut self, draft: &Draft, ranges: &Ranges, activations: Activations) {
        let before = self.ops.len();
        let coarse = draft.ops.iter().filter(|op| is_coarse(draft, op, ranges, activations));
        self.ops.extend(coarse.map(|op| op.outputs[0]));
        self.add_magnified(draft);
        self.add_tails(draft, ranges, activations);
        self.precise = self.ops.len() - before;
    }

    fn contains(&self, op: &Op) -> bool {
        self.ops.contains(&op.outputs[0])
    }

    fn add_magnified(&mut self, draft: &Draft) {
        let mut wanted: BTreeMap<TensorId, Wanted> = BTreeMap::new();
        let mut read_as_integers: BTreeSet<TensorId> = draft.outputs.iter().map(|(_, tensor)| *tensor).collect();
        for op in draft.ops.iter().rev() {
            let output = op.outputs[0];
            let alone = !read_as_integers.contains(&output) && op.outputs.len() == 1 && computes_floats(draft, op);
            let wish = wanted.get(&output).copied().filter(|_| alone);
            let fed = wish.filter(|wish| is_light(op) || (*wish == Wanted::Ratios && is_filter(op)));
            if fed.is_some() {
                self.ops.insert(output);
            }
            // A root under a logarithm passes on what that wants.
            let passed = fed.or(wish.filter(|_| op.op == BuiltinOp::SQRT || op.op == BuiltinOp::POW));
            for (at, input) in op.inputs.iter().enumerate().filter_map(|(at, input)| Some((at, (*input)?))) {
                if !self.contains(op) {
                    read_as_integers.insert(input);
                } else if let Some(wish) = passed.max(wants(op, at)) {
                    let known = wanted.entry(input).or_insert(wish);
                    *known = (*known).max(wish);
                }
            }
        }
    }

    fn add_tails(&mut self, draft: &Draft, ranges: &Ranges, activations: Activations) {
        // What reaches only outputs and floats.
        let mut readers_are_integers: BTreeSet<TensorId> = BTreeSet::new();
        let mut tail: BTreeSet<TensorId> = BTreeSet::new();
        for op in draft.ops.iter().rev() {
            let moves = (rules::keeps_scale(op.op) || op.op == BuiltinOp::CONCATENATION) && computes_floats(draft, op);
            let ends = moves && !readers_are_integers.contains(&op.outputs[0]);
            if ends {
                tail.insert(op.outputs[0]);
            } else if !self.contains(op) {
                readers_are_integers.extend(op.inputs.iter().flatten());
            }
        }
        for op in draft.ops.iter().filter(|op| tail.contains(&op.outputs[0])) {
            let computed = || op.inputs.iter().flatten().filter(|&&tensor| draft.tensors[tensor].value.is_none());
            if computed().all(|tensor| self.ops.contains(tensor)) || is_uneven(draft, op, ranges, activations) {
                self.ops.insert(op.outputs[0]);
            }
        }
    }
}

fn range_of(draft: &Draft, tensor: TensorId, ranges: &Ranges) -> Option<Range> {
    ranges.get(draft.tensors[tensor].origin.as_ref()?).copied().filter(|range| range.min <= range.max)
}

fn is_coarse(draft: &Draft, op: &Op, ranges: &Ranges, activations: Activations) -> bool {
    let (Some(fixed), Some(range)) = (rules::fixed_output(op.op, activations), range_of(draft, op.outputs[0], ranges))
    else {
        return false;
    };
    // Values that are always zero have any scale.
    range.max.max(-range.min) > 0.0 && activations.covering(range).scale * COARSER <= fixed.scale
}

/// True for a concatenation whose scale is too coarse for an input.
fn is_uneven(draft: &Draft, op: &Op, ranges: &Ranges, activations: Activations) -> bool {
    if op.op != BuiltinOp::CONCATENATION {
        return false;
    }
    let inputs = op.inputs.iter().flatten().filter_map(|&tensor| range_of(draft, tensor, ranges));
    let scales = inputs.filter(|range| range.max.max(-range.min) > 0.0).map(|range| activations.covering(range).scale);
    let (least, most) = scales.fold((f32::INFINITY, 0f32), |(least, most), scale| (least.min(scale), most.max(scale)));
    least * COARSER <= most
}

/// Surrounds every operator of the islands by conversions. Returns those without a kernel. With `open_ends`, what islands
/// read from the model's input and give as its output is float there too.
pub(super) fn surround(
    draft: &mut Draft,
    activations: Activations,
    islands: &Islands,
    open_ends: bool,
) -> BTreeSet<String> {
    let mut floats: BTreeMap<TensorId, TensorId> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    let ops = std::mem::take(&mut draft.ops);
    if open_ends {
        for at in 0..draft.inputs.len() {
            let inner = draft.inputs[at].1;
            let read = ops.iter().any(|op| islands.contains(op) && op.inputs.contains(&Some(inner)));
            if read && draft.tensors[inner].dtype == TensorType::Float32 {
                let outer = float_twin(draft, inner);
                draft.tensors[outer].keeps_float = true;
                draft.inputs[at].1 = outer;
                floats.insert(inner, outer);
                draft.ops.push(conversion(BuiltinOp::QUANTIZE, QUANTIZE_OPTIONS, outer, inner, 0));
            }
        }
    }
    for mut op in ops {
        if !islands.contains(&op) {
            draft.ops.push(op);
            continue;
        }
        if !rules::has_kernel(op.op, activations) {
            kept.insert(op.op.to_string());
        }
        for input in op.inputs.iter_mut().flatten() {
            let slot = &draft.tensors[*input];
            if slot.value.is_some() || slot.keeps_float || slot.dtype != TensorType::Float32 {
                continue;
            }
            let outside = *input;
            *input = *floats.entry(outside).or_insert_with(|| {
                let inside = float_twin(draft, outside);
                draft.tensors[inside].keeps_float = true;
                draft.ops.push(conversion(BuiltinOp::DEQUANTIZE, DEQUANTIZE_OPTIONS, outside, inside, op.node));
                inside
            });
        }
        let node = op.node;
        let mut back = Vec::new();
        for output in &mut op.outputs {
            let outside = *output;
            if draft.tensors[outside].keeps_float || draft.tensors[outside].dtype != TensorType::Float32 {
                continue;
            }
            *output = float_twin(draft, outside);
            draft.tensors[*output].keeps_float = true;
            floats.insert(outside, *output);
            draft.twins.push((outside, *output));
            back.push(conversion(BuiltinOp::QUANTIZE, QUANTIZE_OPTIONS, *output, outside, node));
            if open_ends {
                for (_, tensor) in draft.outputs.iter_mut().filter(|(_, tensor)| *tensor == outside) {
                    *tensor = *output;
                }
            }
        }
        draft.ops.push(op);
        draft.ops.extend(back);
    }
    kept
}
