//! How much a layer's lost energy matters: each layer is split alone, and what the model's outputs lose by it is measured on
//! calibration data. A budget then spares the layers whose errors reach the outputs.

use std::collections::BTreeMap;

use crate::ir::{Graph, Model};
use crate::prune::activations::observe_all;
use crate::prune::{Data, ObserveError};

use super::FactorizeError;
use super::options::Choice;
use super::site::Site;

/// The lost energy of the choice that is tried: about what half of the work costs a trained network.
const TRIED: f64 = 0.05;
/// Samples that are looked at: an average over so many is steady enough for weights.
const SAMPLES: usize = 64;

/// Multiplies the errors of each layer's choices by E‖y − ŷ‖² / E‖y − E y‖² of the outputs y for each unit of its own lost energy. `split`
/// puts one choice into a copy of the model.
pub(super) fn weigh(
    model: &Model,
    sites: &[Site],
    options: &mut [Vec<Choice>],
    data: &Data<'_>,
    split: impl Fn(&Site, &Choice) -> Result<Model, FactorizeError>,
) -> Result<(), FactorizeError> {
    if sites.len() < 2 {
        return Ok(());
    }
    let data = Data { samples: data.samples.min(SAMPLES), ..*data };
    let names = ends(&model.graph);
    for (site, choices) in sites.iter().zip(options.iter_mut()) {
        let off = |choice: &Choice| (choice.error - TRIED).abs();
        let real = choices.iter().filter(|choice| choice.error > 1e-6);
        let Some(tried) = real.min_by(|a, b| off(a).total_cmp(&off(b))) else { continue };
        let weight = lost(model, &split(site, tried)?, &names, &data)? / tried.error;
        choices.iter_mut().for_each(|choice| choice.weighted = choice.error * weight);
    }
    Ok(())
}

/// What to compare: the outputs, before a Softmax, which hides how sure a model is.
fn ends(graph: &Graph) -> Vec<String> {
    let end = |name: &str| match graph.nodes.iter().find(|node| node.outputs.iter().any(|output| output == name)) {
        Some(node) if node.op_type == "Softmax" && node.is_standard() => node.input(0).unwrap_or(name).to_owned(),
        _ => name.to_owned(),
    };
    graph.outputs.iter().map(|output| end(&output.name)).collect()
}

/// The share of the outputs' variance that is lost, summed over outputs.
fn lost(source: &Model, changed: &Model, names: &[String], data: &Data<'_>) -> Result<f64, ObserveError> {
    #[derive(Default)]
    struct Sums {
        held: Vec<f32>,
        off: f64,
        square: f64,
        sum: Vec<f64>,
        rows: f64,
    }
    let mut sums: BTreeMap<String, Sums> = BTreeMap::new();
    observe_all(&[(source, names), (changed, names)], data, |which, name, values, dims| {
        let sums = sums.entry(name.to_owned()).or_default();
        if which == 1 {
            sums.off += sums.held.iter().zip(values).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
            return;
        }
        sums.held = values.to_vec();
        let size = values.len() / dims.first().copied().unwrap_or(1).max(1);
        sums.sum.resize(size, 0.0);
        for row in values.chunks_exact(size.max(1)) {
            sums.rows += 1.0;
            for (sum, value) in sums.sum.iter_mut().zip(row) {
                *sum += f64::from(*value);
                sums.square += f64::from(*value).powi(2);
            }
        }
    })?;
    let share = |sums: &Sums| {
        let spread = sums.square - sums.sum.iter().map(|sum| sum * sum / sums.rows.max(1.0)).sum::<f64>();
        if spread > 0.0 { sums.off / spread } else { 0.0 }
    };
    Ok(sums.values().map(share).sum())
}
