//! Lets the channels that stay make up for those that go: the operators that read them get the weights that come nearest to
//! what they made of all channels, by least squares on calibration data (He et al. 2017, Channel Pruning).

use std::collections::BTreeSet;

use faer::Mat;

use crate::cost::Shaped;
use crate::factorize::{Kind, LONGEST, Moments, Site, divide, moments, sites};
use crate::ir::{Model, Node, Tensor, TensorData};

use super::PruneError;
use super::activations::Data;
use super::labels::Labels;

/// Refits every layer that loses input channels: W' = W Σ Pᵀ (P Σ Pᵀ)⁻¹ with the covariance Σ of its input and P the choice
/// of what stays; its bias takes up the change of the mean. Gives how many layers were refitted.
pub(super) fn refit(
    model: &mut Model,
    shaped: &Shaped,
    labels: &mut Labels,
    gone: &BTreeSet<u32>,
    data: &Data<'_>,
) -> Result<usize, PruneError> {
    let mut found: Vec<(Site, Vec<usize>)> = Vec::new();
    for site in sites(&model.graph, shaped).unwrap_or_default() {
        let axis = if matches!(site.kind, Kind::MatMul) { -1 } else { 1 };
        let Some(axes) = labels.tensors.get(&site.input).cloned() else { continue };
        let Some(channels) = crate::ir::axis(axis, axes.len()).map(|at| axes[at].clone()) else { continue };
        let patch = site.weights.ncols() / channels.len().max(1);
        let keep: Vec<usize> =
            (0..site.weights.ncols()).filter(|at| !gone.contains(&labels.root(channels[at / patch]))).collect();
        if keep.len() < site.weights.ncols() {
            found.push((site, keep));
        }
    }
    let watched: Vec<Site> = found.iter().map(|(site, _)| site.clone()).collect();
    let moments = moments(model, &watched, data)?;
    let mut count = 0;
    for (site, keep) in found {
        let Some(moments) = moments.get(&site.node) else { continue };
        let Some(weights) = solve(&site, &keep, moments) else { continue };
        let bias = site.has_bias.then(|| shift(&site, &weights, moments));
        put(model, labels, &site, &weights, bias);
        count += 1;
    }
    Ok(count)
}

/// Operations that the fit of one layer may take; about ten seconds.
const MOST: f64 = 2e10;

/// Refits every layer of `pruned` in which weights became zeros: each output channel by itself, its zeros stay. Gives how many layers
/// were refitted, and the names of those that are too large.
pub(super) fn refit_elements(
    source: &Model,
    pruned: &mut Model,
    data: &Data<'_>,
) -> Result<(usize, Vec<String>), PruneError> {
    let shaped = crate::cost::shaped(&source.graph, 1)?;
    let mut found: Vec<(Site, Vec<Vec<usize>>)> = Vec::new();
    let mut left_out = Vec::new();
    let after = sites(&pruned.graph, &shaped).unwrap_or_default();
    for (site, sparse) in sites(&source.graph, &shaped).unwrap_or_default().into_iter().zip(after) {
        let stays = |row: usize| (0..site.weights.ncols()).filter(|at| sparse.weights[(row, *at)] != 0.0).collect();
        let rows: Vec<Vec<usize>> = (0..site.weights.nrows()).map(stays).collect();
        let work: f64 = rows.iter().map(|keep: &Vec<usize>| (keep.len() as f64).powi(3) / 3.0).sum();
        if rows.iter().all(|keep| keep.len() == site.weights.ncols()) {
            continue;
        }
        if work > MOST || site.weights.ncols() > LONGEST {
            left_out.push(site.layer.clone());
            continue;
        }
        found.push((site, rows));
    }
    let watched: Vec<Site> = found.iter().map(|(site, _)| site.clone()).collect();
    let moments = moments(source, &watched, data)?;
    let mut count = 0;
    for (site, rows) in found {
        let Some(moments) = moments.get(&site.node) else { continue };
        let mut weights = Mat::zeros(site.weights.nrows(), site.weights.ncols());
        for (row, keep) in rows.iter().enumerate() {
            let one =
                Site { weights: Mat::from_fn(1, weights.ncols(), |_, at| site.weights[(row, at)]), ..site.clone() };
            // Without a solution the row stays as it was pruned.
            let fitted = solve(&one, keep, moments);
            for at in keep {
                weights[(row, *at)] = fitted.as_ref().map_or(site.weights[(row, *at)], |fitted| fitted[(0, *at)]);
            }
        }
        let bias = site.has_bias.then(|| shift(&site, &weights, moments));
        put(pruned, &mut Labels::new(), &site, &weights, bias);
        count += 1;
    }
    Ok((count, left_out))
}

/// The new weights, zero where channels go.
fn solve(site: &Site, keep: &[usize], moments: &Moments) -> Option<Mat<f64>> {
    let weighted = &site.weights * &moments.covariance;
    let reached = Mat::from_fn(weighted.nrows(), keep.len(), |row, at| weighted[(row, keep[at])]);
    let spread = Mat::from_fn(keep.len(), keep.len(), |i, j| moments.covariance[(keep[i], keep[j])]);
    let fitted = divide(&reached, &spread)?;
    let mut weights = Mat::zeros(site.weights.nrows(), site.weights.ncols());
    for (at, column) in keep.iter().enumerate() {
        for row in 0..weights.nrows() {
            weights[(row, *column)] = fitted[(row, at)];
        }
    }
    Some(weights)
}

/// (W − W') E x.
fn shift(site: &Site, weights: &Mat<f64>, moments: &Moments) -> Vec<f64> {
    let change = |row: usize, at: usize| (site.weights[(row, at)] - weights[(row, at)]) * moments.mean[at];
    (0..weights.nrows()).map(|row| (0..weights.ncols()).map(|at| change(row, at)).sum()).collect()
}

fn put(model: &mut Model, labels: &mut Labels, site: &Site, weights: &Mat<f64>, bias: Option<Vec<f64>>) {
    let graph = &mut model.graph;
    let node: Node = graph.nodes[site.node].clone();
    let Some(name) = node.input(1).map(str::to_owned) else { return };
    let Some(tensor) = graph.initializers.get_mut(&name) else { return };
    let (out, inner) = (weights.nrows(), weights.ncols());
    let as_it_is = matches!(site.kind, Kind::Conv { .. } | Kind::Gemm { transposed: true });
    let value = |at: usize| if as_it_is { weights[(at / inner, at % inner)] } else { weights[(at % out, at / out)] };
    tensor.data = TensorData::F32((0..out * inner).map(|at| value(at) as f32).collect());
    let Some(bias) = bias else { return };
    let old = node.input(2).and_then(|name| graph.constant(name)).cloned();
    let old = old.unwrap_or_else(|| Tensor::f32(&[out], vec![0.0; out]));
    let Some(values) = old.as_f32() else { return };
    let moved = values.iter().zip(&bias).map(|(value, shift)| (f64::from(*value) + shift) as f32).collect();
    // A constant of its own: others may read the old one. It loses the channels that its output loses.
    let fresh = graph.fresh(&format!("{}_bias", site.layer));
    let axes = node.input(2).and_then(|name| labels.tensors.get(name).cloned());
    let rows = labels.tensors.get(&name).map(|axes| axes[usize::from(!as_it_is)].clone());
    if let Some(axes) = axes.or(rows.map(|rows| vec![rows])) {
        labels.tensors.insert(fresh.clone(), axes);
    }
    graph.initializers.insert(fresh.clone(), Tensor { dims: old.dims.clone(), data: TensorData::F32(moved) });
    let node = &mut graph.nodes[site.node];
    node.touch();
    node.inputs.resize(2, String::new());
    node.inputs.push(fresh);
    crate::simplify::remove_dead(graph);
}
