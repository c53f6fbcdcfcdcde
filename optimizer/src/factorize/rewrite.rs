//! From a model to a model: finds choices, takes one for each layer, and puts the new layers in.

use std::collections::{BTreeMap, BTreeSet};

use faer::Mat;

use crate::cost::{Shaped, layers, shaped};
use crate::ir::{Attribute, Graph, Model, Node, Tensor, TensorData, Window, infer};
use crate::prune::Data;
use crate::simplify::remove_dead;

use super::choose::{by_budget, by_energy, least};
use super::fit::{Followed, LONGEST, Moments, follow, moments};
use super::options::{Choice, Factors, Method, choices, factors};
use super::site::{Kind, Site, sites};
use super::weigh::weigh;
use super::{FactorizeError, Goal, Outcome, Replaced, Settings};

/// See [`super::factorize`].
pub(super) fn run(model: &mut Model, settings: &Settings, data: Option<&Data<'_>>) -> Result<Outcome, FactorizeError> {
    let shaped = shaped(&model.graph, 1)?;
    let sites = sites(&model.graph, &shaped)?;
    let total = layers(&model.graph)?.total.macs;
    let mut outcome = Outcome::default();
    let moments = match data {
        Some(data) => moments(model, &sites, data)?,
        None => BTreeMap::new(),
    };
    if data.is_some() {
        for site in sites.iter().filter(|site| site.weights.ncols() > LONGEST) {
            outcome.notes.push(format!("{}: split by its weights alone, its input patches are too long", site.layer));
        }
    }
    let covariance = |site: &Site| moments.get(&site.node).map(|moments: &Moments| &moments.covariance);
    let mut options: Vec<Vec<Choice>> =
        sites.iter().map(|site| choices(site, settings.method, covariance(site))).collect::<Result<_, _>>()?;
    let nothing = |why: &str| FactorizeError::Nothing { method: settings.method, why: why.to_owned() };
    if options.iter().all(Vec::is_empty) {
        return Err(nothing(""));
    }
    if let (Some(data), Goal::Macs(_)) = (data, settings.goal) {
        weigh(model, &sites, &mut options, data, |site, choice| {
            let (mut split, own) = (model.clone(), moments.get(&site.node));
            let factors = factors(site, choice, own.map(|own| &own.covariance))?;
            let off = &site.weights - &factors.product;
            let shift = own.filter(|_| site.has_bias).map(|own| applied(&off, &own.mean));
            put(&mut split.graph, site, choice, factors, shift);
            Ok(split)
        })?;
    }
    let taken: Vec<Option<usize>> = match settings.goal {
        Goal::Energy(energy) => options.iter().map(|options| by_energy(options, energy)).collect(),
        Goal::Macs(share) => {
            let whole: Vec<u64> = sites.iter().map(|site| site.macs).collect();
            let fixed = total.saturating_sub(whole.iter().sum());
            let budget = (total as f64 * share).floor() as u64;
            let lowest = fixed + least(&options, &whole);
            let beyond = || FactorizeError::Budget { wanted: share, least: lowest as f64 / total.max(1) as f64 };
            let room = budget.checked_sub(fixed).ok_or_else(beyond)?;
            by_budget(&options, &whole, room).ok_or_else(beyond)?
        }
    };
    let mut changed = model.clone();
    let (mut added, mut fitted) = (0, 0);
    let mut moved: BTreeSet<String> = BTreeSet::new();
    // In the order in which they run: each layer is fitted to what those before it really give.
    for ((site, options), taken) in sites.iter().zip(&options).zip(taken) {
        let own = moments.get(&site.node);
        let mut site = Site { node: site.node + added, ..site.clone() };
        let behind = match data {
            Some(data) if own.is_some() && !is_sparse(&site) && is_behind(&changed.graph, &moved, &site.input) => {
                follow(model, &changed, &site, data)?
            }
            _ => None,
        };
        let (seen, target) = match behind {
            Some(Followed { weights, moments, target }) => {
                site.weights = weights;
                (Some(moments), target)
            }
            None if taken.is_none() => continue,
            None => (own.cloned(), own.map_or_else(Vec::new, |own| applied(&site.weights, &own.mean))),
        };
        // What the bias must take up.
        let shift = |product: &Mat<f64>| -> Option<Vec<f64>> {
            let now = applied(product, &seen.as_ref().filter(|_| site.has_bias)?.mean);
            Some(target.iter().zip(now).map(|(target, now)| target - now).collect())
        };
        moved.insert(changed.graph.nodes[site.node].output().to_owned());
        let Some(choice) = taken.map(|at| &options[at]) else {
            let shift = shift(&site.weights);
            refit(&mut changed.graph, &site, shift);
            fitted += 1;
            continue;
        };
        let factors = factors(&site, choice, seen.as_ref().map(|seen| &seen.covariance))?;
        let shift = shift(&factors.product);
        added += factors.stages.len() - 1;
        put(&mut changed.graph, &site, choice, factors, shift);
        let ranks = match choice.method {
            Method::Tucker => choice.ranks.to_vec(),
            Method::Svd | Method::Spatial => vec![choice.ranks[0]],
        };
        outcome.layers.push(Replaced {
            layer: site.layer,
            method: choice.method.name(),
            ranks,
            lost_energy: choice.error,
            macs: (site.macs, choice.macs),
        });
    }
    if outcome.layers.is_empty() {
        return Err(nothing(" that far"));
    }
    for Replaced { layer, method, ranks, lost_energy, macs } in &outcome.layers {
        let lost = lost_energy * 100.0;
        outcome.notes.push(format!(
            "{layer}: {method} of rank {}, {} instead of {} multiply-accumulates, {lost:.2} % of the energy lost",
            ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join("×"),
            macs.1,
            macs.0
        ));
    }
    if fitted > 0 {
        outcome.notes.push(format!("{fitted} more layers were fitted to what those before them give now"));
    }
    remove_dead(&mut changed.graph);
    note_shapes(&mut changed.graph, &shaped);
    *model = changed;
    Ok(outcome)
}

/// Whether the tensor depends on one of `moved`.
fn is_behind(graph: &Graph, moved: &BTreeSet<String>, tensor: &str) -> bool {
    let mut behind: BTreeSet<&str> = moved.iter().map(String::as_str).collect();
    for node in &graph.nodes {
        if node.reads().any(|name| behind.contains(name)) {
            behind.extend(node.outputs.iter().map(String::as_str));
        }
    }
    behind.contains(tensor)
}

/// Whether weights were pruned before: a fit would fill their zeros.
fn is_sparse(site: &Site) -> bool {
    let zeros = |column: usize| (0..site.weights.nrows()).filter(|row| site.weights[(*row, column)] == 0.0).count();
    let zeros: usize = (0..site.weights.ncols()).map(zeros).sum();
    zeros * 10 > site.weights.nrows() * site.weights.ncols()
}

/// W · x.
fn applied(weights: &Mat<f64>, x: &[f64]) -> Vec<f64> {
    (0..weights.nrows()).map(|row| x.iter().enumerate().map(|(at, x)| weights[(row, at)] * x).sum()).collect()
}

/// Gives the layer the site's weights, and a bias that takes up `shift`.
fn refit(graph: &mut Graph, site: &Site, shift: Option<Vec<f64>>) {
    let old = graph.nodes[site.node].clone();
    let Some(name) = old.input(1).map(str::to_owned) else { return };
    let bias = bias(graph, site, &old, shift);
    let as_it_is = matches!(site.kind, Kind::Conv { .. } | Kind::Gemm { transposed: true });
    if let Some(tensor) = graph.initializers.get_mut(&name) {
        tensor.data = matrix(&site.weights, as_it_is).data;
    }
    let node = &mut graph.nodes[site.node];
    node.touch();
    node.inputs.truncate(2);
    node.inputs.extend(bias);
}

/// Replaces the layer's operator by its stages.
fn put(graph: &mut Graph, site: &Site, choice: &Choice, factors: Factors, shift: Option<Vec<f64>>) {
    let old = graph.nodes[site.node].clone();
    let count = factors.stages.len();
    let suffixes: &[&str] = if count == 2 { &["v", "u"] } else { &["v", "c", "u"] };
    let bias = bias(graph, site, &old, shift);
    let mut input = site.input.clone();
    let mut nodes = Vec::with_capacity(count);
    for (stage, (weights, suffix)) in factors.stages.iter().zip(suffixes).enumerate() {
        let last = stage + 1 == count;
        let name = format!("{}_{suffix}", site.layer);
        let constant = graph.fresh(&format!("{name}_weight"));
        let output = if last { old.output().to_owned() } else { graph.fresh(&name) };
        let (node, tensor) = match &site.kind {
            Kind::Conv { window, .. } => conv(window, choice.method, stage, weights),
            Kind::Gemm { transposed: true } => {
                (Node::new("Gemm", "", &[], &[]).with("transB", Attribute::Int(1)), matrix(weights, true))
            }
            Kind::Gemm { transposed: false } => (Node::new("Gemm", "", &[], &[]), matrix(weights, false)),
            Kind::MatMul => (Node::new("MatMul", "", &[], &[]), matrix(weights, false)),
        };
        graph.initializers.insert(constant.clone(), tensor);
        let mut node = node;
        node.name = name;
        node.inputs = vec![input, constant];
        node.outputs = vec![output.clone()];
        if last {
            node.inputs.extend(bias.clone());
            // Gemm's factors for the product and the bias.
            for attribute in ["alpha", "beta"] {
                if let Some(value) = old.attributes.get(attribute) {
                    node.set(attribute, value.clone());
                }
            }
        }
        input = output;
        nodes.push(node);
    }
    graph.nodes.splice(site.node..=site.node, nodes);
}

/// The bias of the last stage.
fn bias(graph: &mut Graph, site: &Site, old: &Node, shift: Option<Vec<f64>>) -> Option<String> {
    let name = old.input(2).map(str::to_owned);
    let Some(shift) = shift else { return name };
    let (dims, values) = match name.as_deref().and_then(|name| graph.constant(name)) {
        Some(tensor) => (tensor.dims.clone(), tensor.as_f32().map_or_else(Vec::new, <[f32]>::to_vec)),
        None => (vec![shift.len()], vec![0.0; shift.len()]),
    };
    let moved = values.iter().zip(&shift).map(|(value, shift)| (f64::from(*value) + shift) as f32).collect();
    let fresh = graph.fresh(&format!("{}_bias", site.layer));
    graph.initializers.insert(fresh.clone(), Tensor { dims, data: TensorData::F32(moved) });
    Some(fresh)
}

/// A matrix [out, in] as a constant, as it is or transposed.
fn matrix(weights: &Mat<f64>, as_it_is: bool) -> Tensor {
    let (out, inner) = (weights.nrows(), weights.ncols());
    if as_it_is {
        let values = (0..out * inner).map(|at| weights[(at / inner, at % inner)] as f32).collect();
        return Tensor::f32(&[out, inner], values);
    }
    let values = (0..out * inner).map(|at| weights[(at % out, at / out)] as f32).collect();
    Tensor::f32(&[inner, out], values)
}

/// One stage of a convolution: which part of the window it takes.
fn conv(window: &Window, method: Method, stage: usize, weights: &Mat<f64>) -> (Node, Tensor) {
    // (rows, columns): whether this stage slides along them.
    let along = match (method, stage) {
        (Method::Svd, 0) | (Method::Tucker, 1) => [true, true],
        (Method::Spatial, 0) => [true, false],
        (Method::Spatial, _) => [false, true],
        (Method::Svd | Method::Tucker, _) => [false, false],
    };
    let pick = |values: &[usize], still: usize| -> Vec<i64> {
        values.iter().enumerate().map(|(at, value)| if along[at % 2] { *value } else { still } as i64).collect()
    };
    let (kernel, strides) = (pick(&window.kernel, 1), pick(&window.strides, 1));
    let node = Node::new("Conv", "", &[], &[])
        .with("kernel_shape", Attribute::Ints(kernel.clone()))
        .with("strides", Attribute::Ints(strides))
        .with("pads", Attribute::Ints(pick(&window.pads, 0)))
        .with("dilations", Attribute::Ints(pick(&window.dilations, 1)));
    let patch = (kernel[0] * kernel[1]) as usize;
    let inner = weights.ncols() / patch;
    let flat = matrix(weights, true);
    let tensor = Tensor { dims: vec![weights.nrows(), inner, kernel[0] as usize, kernel[1] as usize], data: flat.data };
    (node, tensor)
}

/// Writes down the shapes of new tensors, where those around them are known.
fn note_shapes(graph: &mut Graph, before: &Shaped) {
    for index in 0..graph.nodes.len() {
        let name = graph.nodes[index].output().to_owned();
        if before.dtype(&name).is_some() || graph.shape_of(&name).is_some() {
            continue;
        }
        if let Ok(Some(outputs)) = infer(graph, &graph.nodes[index])
            && let Some((dtype, shape)) = outputs.first()
        {
            let (dtype, shape) = (*dtype, shape.clone());
            graph.note(&name, dtype, &shape);
        }
    }
}
