//! Single weights become zeros; shapes stay.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Graph, Model, Node, TensorData};

use super::activations::{Data, mean_squares};
use super::refit::refit_elements;
use super::{Outcome, Pattern, PruneError};

/// The weights of one operator, and how they meet its input.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    /// The operator.
    pub node: usize,
    /// The constant.
    pub tensor: String,
    /// Its axis of input channels.
    pub axis: usize,
    /// The activation it is multiplied with.
    pub input: String,
    /// The activation's axis of channels; may count from the end.
    pub input_axis: i64,
    /// Groups of a convolution whose weights see only their group's channels.
    pub groups: usize,
}

/// Every constant float weight of Conv, ConvTranspose, Gemm and MatMul; one that is shared appears once for each reader.
pub(super) fn weights(graph: &Graph) -> Vec<Weights> {
    graph.nodes.iter().enumerate().filter_map(|(index, node)| of_node(graph, index, node)).collect()
}

fn of_node(graph: &Graph, index: usize, node: &Node) -> Option<Weights> {
    if !node.is_standard() {
        return None;
    }
    let constant = |at: usize| {
        let name = node.input(at)?;
        let tensor = graph.constant(name)?;
        (tensor.as_f32().is_some() && tensor.dims.len() >= 2).then_some((name, tensor))
    };
    let of = |weight: usize, axis: usize, input: usize, input_axis: i64, groups: usize| {
        let (name, _) = constant(weight)?;
        let input = node.input(input)?.to_owned();
        Some(Weights { node: index, tensor: name.to_owned(), axis, input, input_axis, groups })
    };
    match node.op_type.as_str() {
        "Conv" => of(1, 1, 0, 1, usize::try_from(node.int("group", 1)).ok()?.max(1)),
        "ConvTranspose" => of(1, 0, 0, 1, 1),
        "Gemm" => {
            let axis = usize::from(node.int("transB", 0) != 0);
            of(1, axis, 0, if node.int("transA", 0) != 0 { 0 } else { 1 }, 1)
        }
        "MatMul" => match (constant(0), constant(1)) {
            (None, Some((_, tensor))) => of(1, tensor.dims.len() - 2, 0, -1, 1),
            (Some((_, tensor)), None) => of(0, tensor.dims.len() - 1, 1, -2, 1),
            _ => None,
        },
        _ => None,
    }
}

/// The share `sparsity` of each layer's weights.
pub(super) fn unstructured(model: &mut Model, sparsity: f64, data: Option<&Data<'_>>) -> Result<Outcome, PruneError> {
    each(model, Pattern::Unstructured, data, |scores, _, _| {
        let count = (sparsity * scores.len() as f64).round() as usize;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Equal scores go from the first on, so that the result is the same everywhere.
        order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(a.cmp(b)));
        order.truncate(count);
        order
    })
}

/// All but `n` of every `m` along the input channels.
pub(super) fn n_of_m(model: &mut Model, n: usize, m: usize, data: Option<&Data<'_>>) -> Result<Outcome, PruneError> {
    each(model, Pattern::NOfM, data, |scores, len, inner| {
        let mut gone = Vec::new();
        for base in
            (0..scores.len() / (len * inner)).flat_map(|outer| (0..inner).map(move |at| outer * len * inner + at))
        {
            for first in (0..len).step_by(m) {
                let size = m.min(len - first);
                let keep = (n * size).div_ceil(m);
                let mut group: Vec<usize> = (first..first + size).map(|at| base + at * inner).collect();
                // The largest first; of equal ones the first stays.
                group.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
                gone.extend_from_slice(&group[keep..]);
            }
        }
        gone
    })
}

/// Sets to zero what `pick` gives of (scores, length of the input axis, elements for each of its steps).
fn each(
    model: &mut Model,
    pattern: Pattern,
    data: Option<&Data<'_>>,
    pick: impl Fn(&[f32], usize, usize) -> Vec<usize>,
) -> Result<Outcome, PruneError> {
    let found = weights(&model.graph);
    let squares = match data {
        Some(data) => {
            let wanted: BTreeMap<String, i64> = found.iter().map(|w| (w.input.clone(), w.input_axis)).collect();
            mean_squares(model, &wanted, data)?
        }
        None => BTreeMap::new(),
    };
    let (mut outcome, mut done) = (Outcome::default(), BTreeSet::new());
    let mut changed = Vec::new();
    for weights in found {
        let Weights { node, tensor: name, axis, input, groups, .. } = weights;
        if !done.insert(name.clone()) {
            continue;
        }
        let tensor = &model.graph.initializers[&name];
        let Some(values) = tensor.as_f32() else { continue };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(PruneError::NotFinite(name));
        }
        let (len, inner) = (tensor.dims[axis], tensor.dims[axis + 1..].iter().product::<usize>());
        if values.is_empty() {
            continue;
        }
        let rms: Vec<f32> = squares.get(&input).map_or(Vec::new(), |s| s.iter().map(|s| s.sqrt() as f32).collect());
        // In a grouped convolution, the output channel tells which part of the input a weight sees.
        let rows_of_group = tensor.dims[0].div_ceil(groups).max(1);
        let score = |(at, value): (usize, &f32)| {
            let channel = at / inner % len;
            let group = if groups > 1 { at / (inner * len) / rows_of_group } else { 0 };
            value.abs() * rms.get(group * len + channel).copied().unwrap_or(1.0)
        };
        let scores: Vec<f32> = values.iter().enumerate().map(score).collect();
        let gone = pick(&scores, len, inner);
        let mut values = values.to_vec();
        let mut zeroed = 0u64;
        for at in gone {
            zeroed += u64::from(values[at] != 0.0);
            values[at] = 0.0;
        }
        let share = values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
        outcome.notes.push(format!(
            "{}: {:.1} % of {} weights are zero",
            model.graph.nodes[node].label(),
            share * 100.0,
            values.len()
        ));
        outcome.removed_parameters += zeroed;
        changed.push((name, values));
    }
    if outcome.removed_parameters == 0 {
        let why = match changed.is_empty() {
            true => "no Conv, ConvTranspose, Gemm or MatMul has constant float32 weights",
            false => "its layers are too small, or already as sparse as that",
        };
        return Err(PruneError::Nothing { pattern, why: why.to_owned() });
    }
    let mut work = model.clone();
    for (name, values) in changed {
        if let Some(tensor) = work.graph.initializers.get_mut(&name) {
            tensor.data = TensorData::F32(values);
        }
    }
    if let Some(data) = data {
        let (count, left_out) = refit_elements(model, &mut work, data)?;
        outcome.notes.push(format!("the weights that stay in {count} layers were fitted to the data"));
        outcome.notes.extend(left_out.iter().map(|layer| format!("{layer}: not fitted, it is too large")));
    }
    *model = work;
    Ok(outcome)
}
