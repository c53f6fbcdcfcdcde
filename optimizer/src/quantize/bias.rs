//! Corrects biases by the mean error that quantised weights make on the calibration data: E[W̃x] − E[Wx] for each output
//! channel, taken from what the float model feeds each layer (Nagel et al. 2019, 4.2, with measured means). The float
//! graph is corrected, so that every way of writing integers gains; ranges that were calibrated before stay right.

use std::collections::BTreeMap;

use edgeyard_job::spec::Granularity;

use super::parameters::quantize_weights;
use crate::calibrate::feed::feed;
use crate::calibrate::{CalibrationError, free_batch};
use crate::dataset::Dataset;
use crate::ir::{Attribute, DataType, Model, Node, Tensor, Value};
use crate::runtime::{OnnxRuntime, threads};

/// How many scales weights will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granularities {
    /// Of convolutions.
    pub convolutions: Granularity,
    /// Of Gemm; microcontrollers have one scale for each.
    pub matrices: Granularity,
}

/// Corrects the biases of Conv and Gemm for what 8-bit weights will do to their outputs. `step` hears (done, total) and
/// says whether to go on. Gives remarks for people.
///
/// # Errors
/// [`CalibrationError`] when the model does not run on the data.
pub fn correct_biases(
    runtime: &OnnxRuntime,
    model: &mut Model,
    granularities: Granularities,
    dataset: &Dataset,
    limit: usize,
    step: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<String>, CalibrationError> {
    let (probe, sites) = probe(model, granularities);
    if sites.is_empty() {
        return Ok(vec!["no bias to correct: the model has no Conv or Gemm with constant weights".to_owned()]);
    }
    let mut session = runtime.session(&probe.to_bytes(), threads())?;
    let mut sums: BTreeMap<String, (Vec<f64>, usize)> = BTreeMap::new();
    feed(&mut session, dataset, limit, free_batch(&model.graph), step, |session, batch| {
        session.observe(batch.values, batch.shape, |output, dims| {
            let channels: usize = dims[1..].iter().product();
            let (sum, rows) = sums.entry(output.name.to_owned()).or_insert_with(|| (vec![0.0; channels], 0));
            // Rows that fill up a fixed batch are no samples.
            let real = if dims[0] == batch.shape[0] { batch.count } else { dims[0] };
            for row in output.values.chunks_exact(channels.max(1)).take(real) {
                row.iter().zip(sum.iter_mut()).for_each(|(value, sum)| *sum += f64::from(*value));
                *rows += 1;
            }
        })?;
        Ok(())
    })?;
    let mut corrected = 0;
    for site in &sites {
        let Some((sum, rows)) = sums.get(&site.output) else { continue };
        let errors: Vec<f32> = sum.iter().map(|sum| (sum / (*rows).max(1) as f64) as f32).collect();
        if errors.iter().all(|error| error.is_finite()) {
            subtract(model, site, &errors);
            corrected += 1;
        }
    }
    Ok(vec![format!("biases of {corrected} operators corrected")])
}

/// Where an error was measured.
struct Site {
    node: usize,
    output: String,
    channels: usize,
}

/// A model whose outputs are the mean errors of each layer's outputs, by channel.
fn probe(model: &Model, granularities: Granularities) -> (Model, Vec<Site>) {
    let mut probe = model.clone();
    let mut sites = Vec::new();
    let mut nodes = Vec::with_capacity(model.graph.nodes.len() * 2);
    for (at, node) in model.graph.nodes.iter().enumerate() {
        nodes.push(node.clone());
        let Some((errors, channels)) = weight_errors(model, node, granularities) else { continue };
        let weights = probe.graph.fresh(&format!("{}_weight_error", node.output()));
        probe.graph.initializers.insert(weights.clone(), errors);
        let error = probe.graph.fresh(&format!("{}_error", node.output()));
        let mut product = node.clone();
        product.touch();
        product.inputs.truncate(2);
        product.inputs[1] = weights;
        product.outputs = vec![error.clone()];
        product.name = error.clone();
        nodes.push(product);
        let output = if node.is("Conv") {
            let mean = probe.graph.fresh(&format!("{}_mean_error", node.output()));
            nodes.push(Node::new("GlobalAveragePool", &mean, &[&error], &[&mean]));
            mean
        } else {
            error
        };
        sites.push(Site { node: at, output, channels });
    }
    probe.graph.nodes = nodes;
    let output = |site: &Site| Value {
        name: site.output.clone(),
        dtype: DataType::Undefined,
        shape: Vec::new(),
        has_shape: false,
    };
    probe.graph.outputs = sites.iter().map(output).collect();
    crate::simplify::remove_dead(&mut probe.graph);
    (probe, sites)
}

/// What quantising adds to the weights of a node whose bias can be corrected, and its output channels.
fn weight_errors(model: &Model, node: &Node, granularities: Granularities) -> Option<(Tensor, usize)> {
    let graph = &model.graph;
    let weights = graph.constant(node.input(1)?)?;
    let data = weights.as_f32()?;
    let (axis, granularity) = match node.op_type.as_str() {
        "Conv" if node.is_standard() && weights.dims.len() >= 3 => (0, granularities.convolutions),
        "Gemm" if node.is_standard() && weights.dims.len() == 2 => {
            (usize::from(node.int("transB", 0) == 0), granularities.matrices)
        }
        _ => return None,
    };
    let channels = weights.dims[axis];
    let plain = node.float("alpha", 1.0) == 1.0 && node.float("beta", 1.0) == 1.0;
    let bias = match node.input(2) {
        None => true,
        Some(name) => graph.constant(name).and_then(|bias| bias.as_f32()).is_some_and(|bias| bias.len() == channels),
    };
    if !plain || !bias || data.is_empty() {
        return None;
    }
    let axis = (granularity == Granularity::PerChannel).then_some(axis);
    let (stored, scales) = quantize_weights(data, &weights.dims, axis);
    let inner = axis.map_or(data.len(), |axis| weights.dims[axis + 1..].iter().product::<usize>().max(1));
    let error =
        |(at, (value, stored)): (usize, (&f32, &i8))| f32::from(*stored) * scales[at / inner % scales.len()] - value;
    let errors = data.iter().zip(&stored).enumerate().map(error).collect();
    Some((Tensor::f32(&weights.dims, errors), channels))
}

fn subtract(model: &mut Model, site: &Site, errors: &[f32]) {
    let graph = &mut model.graph;
    let node = &graph.nodes[site.node];
    // A bias of its own, as others may share the old one.
    let name = graph.fresh(&format!("{}_corrected_bias", node.output()));
    let old = node.input(2).and_then(|name| graph.constant(name));
    let dims = old.map_or_else(|| vec![site.channels], |bias| bias.dims.clone());
    let old = old.and_then(|bias| bias.as_f32()).map_or_else(|| vec![0.0; site.channels], <[f32]>::to_vec);
    let new = old.iter().zip(errors).map(|(bias, error)| bias - error).collect();
    graph.initializers.insert(name.clone(), Tensor::f32(&dims, new));
    let node = &mut graph.nodes[site.node];
    node.touch();
    node.inputs.truncate(2);
    node.inputs.push(name);
    if node.is("Gemm") {
        node.set("beta", Attribute::Float(1.0));
    }
}
