//! What goes into each layer on calibration data: mean and covariance of its input patches, as its weights see them.

use std::collections::BTreeMap;

use faer::Mat;

use crate::ir::Model;
use crate::prune::activations::observe;
use crate::prune::{Data, ObserveError};

use super::linear::inner;
use super::site::{Kind, Site};

/// Patches that are taken of one sample at most, spread over the picture.
const PATCHES: usize = 256;
/// Longer patches would need a covariance of more than 128 MiB; such layers are split by their weights alone.
pub(crate) const LONGEST: usize = 4096;

/// The input patches of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Moments {
    /// E x.
    pub mean: Vec<f64>,
    /// E (x − E x)(x − E x)ᵀ where the layer has a bias that takes up the mean, else E x xᵀ.
    pub covariance: Mat<f64>,
}

/// Sums over patches.
struct Sums {
    mean: Vec<f64>,
    product: Mat<f64>,
    fourth: f64,
    count: f64,
}

/// Moments by layer; none for layers whose patches are too long or that saw no data.
pub(crate) fn moments(
    model: &Model,
    sites: &[Site],
    data: &Data<'_>,
) -> Result<BTreeMap<usize, Moments>, ObserveError> {
    let watched: Vec<&Site> = sites.iter().filter(|site| site.weights.ncols() <= LONGEST).collect();
    let mut names: Vec<String> = watched.iter().map(|site| site.input.clone()).collect();
    names.sort();
    names.dedup();
    let mut sums: BTreeMap<usize, Sums> = BTreeMap::new();
    observe(model, &names, data, |name, values, dims| {
        for site in watched.iter().filter(|site| site.input == name) {
            let patches = patches(site, values, dims);
            let size = site.weights.ncols();
            let sums = sums.entry(site.node).or_insert_with(|| Sums {
                mean: vec![0.0; size],
                product: Mat::zeros(size, size),
                fourth: 0.0,
                count: 0.0,
            });
            let rows = patches.nrows();
            for (column, mean) in sums.mean.iter_mut().enumerate() {
                *mean += (0..rows).map(|row| patches[(row, column)]).sum::<f64>();
            }
            let norm = |row: usize| (0..size).map(|column| patches[(row, column)].powi(2)).sum::<f64>();
            sums.fourth += (0..rows).map(|row| norm(row).powi(2)).sum::<f64>();
            sums.product += patches.transpose() * &patches;
            sums.count += rows as f64;
        }
    })?;
    let mut found = BTreeMap::new();
    for site in sites {
        let Some(sums) = sums.remove(&site.node).filter(|sums| sums.count > 0.0) else { continue };
        let Sums { mean, product, fourth, count } = sums;
        let mean: Vec<f64> = mean.into_iter().map(|sum| sum / count).collect();
        let centre = |i: usize, j: usize| if site.has_bias { mean[i] * mean[j] } else { 0.0 };
        let size = product.ncols();
        let mut covariance = Mat::from_fn(size, size, |i, j| product[(i, j)] / count - centre(i, j));
        let square = inner(&product, &product) / count / count;
        shrink(&mut covariance, count, fourth / count, square);
        found.insert(site.node, Moments { mean, covariance });
    }
    Ok(found)
}

/// Moves a covariance towards a multiple of the identity as far as its own uncertainty asks for (Ledoit & Wolf 2004): fits to few
/// samples then stay near the weights as they were. `fourth` is E‖x‖⁴ and `square` ‖E x xᵀ‖².
fn shrink(covariance: &mut Mat<f64>, count: f64, fourth: f64, square: f64) {
    let size = covariance.ncols() as f64;
    let level = (0..covariance.ncols()).map(|at| covariance[(at, at)]).sum::<f64>() / size;
    let spread = inner(covariance, covariance) - level * level * size;
    let part = if spread > 0.0 { ((fourth - square) / count / spread).clamp(0.0, 1.0) } else { 1.0 };
    *covariance = Mat::from_fn(covariance.nrows(), covariance.ncols(), |i, j| {
        covariance[(i, j)] * (1.0 - part) + if i == j { level * part } else { 0.0 }
    });
}

/// Patches as rows, in the order of the weights: channel, kernel row, kernel column.
fn patches(site: &Site, values: &[f32], dims: &[usize]) -> Mat<f64> {
    let width = site.weights.ncols();
    let Kind::Conv { window, .. } = &site.kind else {
        let rows = values.len() / width;
        return Mat::from_fn(rows, width, |row, column| f64::from(values[row * width + column]));
    };
    let [samples, channels, height, length] = *dims else { return Mat::zeros(0, width) };
    let [high, wide] = [window.output[0], window.output[1]];
    let step = (high * wide).div_ceil(PATCHES).max(1);
    let places: Vec<usize> = (0..high * wide).step_by(step).collect();
    let [_, _, rows, columns] = site.dims;
    Mat::from_fn(samples * places.len(), width, |at, column| {
        let (sample, place) = (at / places.len(), places[at % places.len()]);
        let (channel, row, across) = (column / (rows * columns), column / columns % rows, column % columns);
        let y = (place / wide * window.strides[0] + row * window.dilations[0]).checked_sub(window.pads[0]);
        let x = (place % wide * window.strides[1] + across * window.dilations[1]).checked_sub(window.pads[1]);
        match (y, x) {
            (Some(y), Some(x)) if y < height && x < length => {
                f64::from(values[((sample * channels + channel) * height + y) * length + x])
            }
            _ => 0.0,
        }
    })
}
