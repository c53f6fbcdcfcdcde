//! What goes into each layer on calibration data: mean and covariance of its input patches, as its weights see them; and what a layer's
//! weights should be when the layers before it were changed.

use std::collections::BTreeMap;

use faer::Mat;

use crate::ir::Model;
use crate::prune::activations::{observe, observe_all};
use crate::prune::{Data, ObserveError};

use super::linear::{divide, inner};
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

/// A layer behind others that were changed.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    /// The weights that come nearest to the source's outputs, given what reaches the layer now.
    pub weights: Mat<f64>,
    /// The patches that reach it now.
    pub moments: Moments,
    /// E W x of the source, without bias.
    pub target: Vec<f64>,
}

/// Sums over patches.
struct Sums {
    mean: Vec<f64>,
    product: Mat<f64>,
    fourth: f64,
    count: f64,
}

impl Sums {
    fn new(size: usize) -> Self {
        Self { mean: vec![0.0; size], product: Mat::zeros(size, size), fourth: 0.0, count: 0.0 }
    }

    fn add(&mut self, patches: &Mat<f64>) {
        let (rows, size) = (patches.nrows(), patches.ncols());
        for (column, mean) in self.mean.iter_mut().enumerate() {
            *mean += (0..rows).map(|row| patches[(row, column)]).sum::<f64>();
        }
        let norm = |row: usize| (0..size).map(|column| patches[(row, column)].powi(2)).sum::<f64>();
        self.fourth += (0..rows).map(|row| norm(row).powi(2)).sum::<f64>();
        self.product += patches.transpose() * patches;
        self.count += rows as f64;
    }

    /// The moments, and how far and to which multiple of the identity their covariance was moved.
    fn finish(self, centred: bool) -> (Moments, f64, f64) {
        let Self { mean, product, fourth, count } = self;
        let mean: Vec<f64> = mean.into_iter().map(|sum| sum / count).collect();
        let centre = |i: usize, j: usize| if centred { mean[i] * mean[j] } else { 0.0 };
        let size = product.ncols();
        let mut covariance = Mat::from_fn(size, size, |i, j| product[(i, j)] / count - centre(i, j));
        let square = inner(&product, &product) / count / count;
        let (part, level) = shrink(&mut covariance, count, fourth / count, square);
        (Moments { mean, covariance }, part, level)
    }
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
            let sums = sums.entry(site.node).or_insert_with(|| Sums::new(site.weights.ncols()));
            sums.add(&patches(site, values, dims));
        }
    })?;
    let mut found = BTreeMap::new();
    for site in sites {
        let Some(sums) = sums.remove(&site.node).filter(|sums| sums.count > 0.0) else { continue };
        found.insert(site.node, sums.finish(site.has_bias).0);
    }
    Ok(found)
}

/// What the weights W of a layer of `source` should be in `changed`, where x̂ reaches it instead of x: argmin over V of
/// E‖W(x − E x) − V(x̂ − E x̂)‖², the reconstruction of Zhang et al. 2016, 3.3. The covariance of W x and x̂ is moved towards W as far as
/// that of x̂ is towards the identity, so that W stays what it was in directions that the data does not show. `None` where nothing was
/// seen or nothing can be solved.
pub(super) fn follow(
    source: &Model,
    changed: &Model,
    site: &Site,
    data: &Data<'_>,
) -> Result<Option<Followed>, ObserveError> {
    let names = [site.input.clone()];
    let (out, size) = (site.weights.nrows(), site.weights.ncols());
    let (mut sums, mut cross, mut target) = (Sums::new(size), Mat::<f64>::zeros(out, size), vec![0.0; out]);
    let mut wanted: Mat<f64> = Mat::zeros(0, out);
    observe_all(&[(source, &names), (changed, &names)], data, |which, _, values, dims| {
        let patches = patches(site, values, dims);
        if which == 0 {
            wanted = &patches * site.weights.transpose();
            return;
        }
        for (row, target) in target.iter_mut().enumerate() {
            *target += (0..wanted.nrows()).map(|at| wanted[(at, row)]).sum::<f64>();
        }
        cross += wanted.transpose() * &patches;
        sums.add(&patches);
    })?;
    let count = sums.count;
    if count == 0.0 {
        return Ok(None);
    }
    target.iter_mut().for_each(|sum| *sum /= count);
    let (moments, part, level) = sums.finish(site.has_bias);
    let centre = |i: usize, j: usize| if site.has_bias { target[i] * moments.mean[j] } else { 0.0 };
    let reached = Mat::from_fn(out, size, |i, j| {
        (cross[(i, j)] / count - centre(i, j)) * (1.0 - part) + site.weights[(i, j)] * level * part
    });
    let weights = divide(&reached, &moments.covariance);
    Ok(weights.map(|weights| Followed { weights, moments, target }))
}

/// Moves a covariance towards a multiple of the identity as far as its own uncertainty asks for (Ledoit & Wolf 2004): fits to few
/// samples then stay near the weights as they were. `fourth` is E‖x‖⁴ and `square` ‖E x xᵀ‖². Gives the part and the multiple.
fn shrink(covariance: &mut Mat<f64>, count: f64, fourth: f64, square: f64) -> (f64, f64) {
    let size = covariance.ncols() as f64;
    let level = (0..covariance.ncols()).map(|at| covariance[(at, at)]).sum::<f64>() / size;
    let spread = inner(covariance, covariance) - level * level * size;
    let part = if spread > 0.0 { ((fourth - square) / count / spread).clamp(0.0, 1.0) } else { 1.0 };
    *covariance = Mat::from_fn(covariance.nrows(), covariance.ncols(), |i, j| {
        covariance[(i, j)] * (1.0 - part) + if i == j { level * part } else { 0.0 }
    });
    (part, level)
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
