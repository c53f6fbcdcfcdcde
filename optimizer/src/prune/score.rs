//! How much each unit of channels matters. By magnitude: the L2 norm of all weights in the unit, for each weight tensor relative to the
//! mean of the set, summed over tensors (Fang et al. 2023, DepGraph, for groups; Li et al. 2017 for filters). By activations: the share
//! of the next operators' mean squared pre-activation that the unit brings, E[x_c²]·‖W_c‖², summed over the operators that read
//! it: the first-order effect of leaving it out when channels are taken as independent.

use std::collections::BTreeMap;

use crate::ir::{Graph, Model};

use super::activations::{Data, mean_squares};
use super::elements::{Weights, weights};
use super::labels::{FROZEN, Labels};
use super::{ObserveError, PruneError};

/// Where a unit of channels stands in the constants: (constant, axis) to indexes.
pub(super) type Members = BTreeMap<(String, usize), Vec<usize>>;

/// Squared norms of the slices of a constant along an axis.
fn squared_norms(graph: &Graph, name: &str, axis: usize) -> Result<Vec<f64>, PruneError> {
    let Some((tensor, values)) = graph.constant(name).and_then(|tensor| Some((tensor, tensor.as_f32()?))) else {
        return Ok(Vec::new());
    };
    let (len, inner) = (tensor.dims[axis], tensor.dims[axis + 1..].iter().product::<usize>().max(1));
    let mut sums = vec![0.0; len];
    for (at, piece) in values.chunks_exact(inner).enumerate() {
        sums[at % len] += piece.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    }
    match sums.iter().all(|sum| sum.is_finite()) {
        true => Ok(sums),
        false => Err(PruneError::NotFinite(name.to_owned())),
    }
}

/// Scores of the units of one set, by magnitude.
pub(super) fn magnitude(graph: &Graph, units: &[&Members]) -> Result<Vec<f64>, PruneError> {
    let Some(first) = units.first() else { return Ok(Vec::new()) };
    let rank = |name: &str| graph.constant(name).map_or(0, |tensor| tensor.dims.len());
    let matrices = first.keys().any(|(name, _)| rank(name) > 1);
    let mut scores = vec![0.0; units.len()];
    for key in first.keys().filter(|(name, _)| !matrices || rank(name) > 1) {
        let squares = squared_norms(graph, &key.0, key.1)?;
        let norm = |unit: &&Members| {
            unit.get(key).map_or(0.0, |indices| indices.iter().filter_map(|at| squares.get(*at)).sum::<f64>().sqrt())
        };
        let norms: Vec<f64> = units.iter().map(norm).collect();
        let mean = norms.iter().sum::<f64>() / norms.len() as f64;
        for (score, norm) in scores.iter_mut().zip(norms) {
            *score += if mean > 0.0 { norm / mean } else { 0.0 };
        }
    }
    Ok(scores)
}

/// The effect of every root label, by activations.
pub(super) fn effects(model: &Model, labels: &mut Labels, data: &Data<'_>) -> Result<BTreeMap<u32, f64>, PruneError> {
    let graph = &model.graph;
    let readers: Vec<Weights> =
        weights(graph).into_iter().filter(|reader| labels.tensors.contains_key(&reader.input)).collect();
    let wanted = readers.iter().map(|reader| (reader.input.clone(), reader.input_axis)).collect();
    let squares = mean_squares(model, &wanted, data).map_err(|error: ObserveError| PruneError::Observe(error))?;
    let mut effects = BTreeMap::new();
    for reader in readers {
        let Some(channels) = labels
            .tensors
            .get(&reader.input)
            .and_then(|axes| axes.get(crate::ir::axis(reader.input_axis, axes.len())?).cloned())
        else {
            continue;
        };
        let seen = squares.get(&reader.input).map_or(&[][..], Vec::as_slice);
        let norms = by_channel(graph, &reader)?;
        let own: Vec<f64> = (0..channels.len())
            .map(|at| seen.get(at).copied().unwrap_or(0.0) * norms.get(at).copied().unwrap_or(0.0))
            .collect();
        let total: f64 = own.iter().sum();
        for (label, effect) in channels.iter().zip(own) {
            let root = labels.root(*label);
            if root != FROZEN && total > 0.0 {
                *effects.entry(root).or_insert(0.0) += effect / total;
            }
        }
    }
    Ok(effects)
}

/// Squared norm of the weights that see each input channel.
fn by_channel(graph: &Graph, reader: &Weights) -> Result<Vec<f64>, PruneError> {
    if reader.groups == 1 {
        return squared_norms(graph, &reader.tensor, reader.axis);
    }
    let Some((tensor, values)) = graph.constant(&reader.tensor).and_then(|tensor| Some((tensor, tensor.as_f32()?)))
    else {
        return Ok(Vec::new());
    };
    let [rows, len, ..] = tensor.dims.as_slice() else { return Ok(Vec::new()) };
    let inner = tensor.dims[2..].iter().product::<usize>().max(1);
    let mut sums = vec![0.0; len * reader.groups];
    let rows_of_group = rows.div_ceil(reader.groups).max(1);
    for (at, piece) in values.chunks_exact(inner).enumerate() {
        let (row, channel) = (at / len, at % len);
        sums[row / rows_of_group * len + channel] += piece.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    }
    match sums.iter().all(|sum| sum.is_finite()) {
        true => Ok(sums),
        false => Err(PruneError::NotFinite(reader.tensor.clone())),
    }
}
