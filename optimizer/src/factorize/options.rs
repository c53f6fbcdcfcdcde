//! What a layer can be replaced by, and at what error. Errors are E‖(W − Ŵ)(x − E x)‖² for the layer's own input patches x
//! if there is data, else ‖W − Ŵ‖²: the same formulas with the identity in place of the covariance Σ of x. Given the first
//! factors, the last one is the least-squares solution, so every error is that of what is really put into the graph.
//!
//! - Svd: Ŵ = U Uᵀ W with U the leading eigenvectors of W Σ Wᵀ, the best there is for a rank (Eckart & Young 1936; with Σ,
//!   Zhang et al. 2016).
//! - Spatial SVD (Jaderberg et al. 2014): the kernel as a matrix (in·kh)×(kw·out), projected on its leading right singular
//!   vectors, Σ averaged over kernel columns.
//! - Tucker-2 (Kim et al. 2016): input channels by singular values of the unfolding along them (HOSVD), then output channels
//!   as in Svd of what is left.

use faer::Mat;

use super::linear::{columns, divide, eigen, inner, roots};
use super::site::{Kind, Site};
use super::{Factorization, FactorizeError};

/// How many ranks are tried where each costs a solution.
const GRID: usize = 32;

/// One way to split a layer.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub method: Method,
    /// Its ranks: one, or of input and output channels.
    pub ranks: [usize; 2],
    /// Multiply-accumulates for one sample.
    pub macs: u64,
    /// Lost share of the energy, 0 to 1.
    pub error: f64,
    /// What a budget adds up: the error, or with data what the model's outputs lose by it.
    pub weighted: f64,
}

/// How a layer is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Svd,
    Spatial,
    Tucker,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Self::Svd => "Svd",
            Self::Spatial => "SpatialSvd",
            Self::Tucker => "Tucker2",
        }
    }
}

/// The factors: weights of each stage as matrices [out, in·kh·kw] of its own window.
#[derive(Debug, Clone)]
pub(super) struct Factors {
    pub stages: Vec<Mat<f64>>,
    /// Their product, as the layer's weights were.
    pub product: Mat<f64>,
}

/// Every choice worth having: fewer multiply-accumulates than the layer itself.
pub(super) fn choices(
    site: &Site,
    method: Factorization,
    covariance: Option<&Mat<f64>>,
) -> Result<Vec<Choice>, FactorizeError> {
    let Site { kind, dims: [_, _, high, wide], .. } = site;
    let large = matches!(kind, Kind::Conv { .. }) && high * wide > 1;
    let methods: &[Method] = match method {
        Factorization::Auto if large => &[Method::Svd, Method::Spatial, Method::Tucker],
        Factorization::SpatialSvd if large => &[Method::Spatial],
        Factorization::Tucker2 if large => &[Method::Tucker],
        Factorization::Svd if large => &[],
        _ => &[Method::Svd],
    };
    let problem = Problem::new(site, covariance);
    let mut found = Vec::new();
    if problem.energy > 0.0 {
        for method in methods {
            let more = match method {
                Method::Svd => problem.svd(),
                Method::Spatial => problem.spatial(),
                Method::Tucker => problem.tucker(),
            };
            found.extend(more.ok_or_else(|| FactorizeError::Decomposition(site.layer.clone()))?);
        }
    }
    found.retain(|choice| choice.macs < site.macs);
    found.iter_mut().for_each(|choice| choice.weighted = choice.error);
    Ok(found)
}

/// The factors of a choice.
pub(super) fn factors(site: &Site, choice: &Choice, covariance: Option<&Mat<f64>>) -> Result<Factors, FactorizeError> {
    let problem = Problem::new(site, covariance);
    let [first, second] = choice.ranks;
    let found = match choice.method {
        Method::Svd => problem.svd_factors(first),
        Method::Spatial => problem.spatial_basis().and_then(|basis| problem.spatial_factors(&basis, first)),
        Method::Tucker => problem.tucker_basis().and_then(|basis| problem.tucker_factors(&basis, first, second)),
    };
    found.ok_or_else(|| FactorizeError::Decomposition(site.layer.clone()))
}

/// One layer, its weights W and the covariance Σ of its input.
struct Problem<'a> {
    site: &'a Site,
    covariance: Option<&'a Mat<f64>>,
    /// W Σ.
    weighted: Mat<f64>,
    /// tr(W Σ Wᵀ).
    energy: f64,
}

impl<'a> Problem<'a> {
    fn new(site: &'a Site, covariance: Option<&'a Mat<f64>>) -> Self {
        let weighted = match covariance {
            Some(covariance) => &site.weights * covariance,
            None => site.weights.clone(),
        };
        let energy = inner(&weighted, &site.weights);
        Self { site, covariance, weighted, energy }
    }

    fn lost(&self, kept: f64) -> f64 {
        (1.0 - kept / self.energy).clamp(0.0, 1.0)
    }

    /// Ranks to try, all up to [`GRID`], then spread evenly in the logarithm.
    fn grid(most: usize) -> Vec<usize> {
        if most <= GRID {
            return (1..=most).collect();
        }
        let step = (most as f64).ln() / (GRID - 1) as f64;
        let mut ranks: Vec<usize> =
            (0..GRID).map(|at| ((at as f64 * step).exp().round() as usize).clamp(1, most)).collect();
        ranks.dedup();
        ranks
    }

    fn svd(&self) -> Option<Vec<Choice>> {
        let (values, _) = eigen(&(&self.weighted * self.site.weights.transpose()))?;
        let [out, inner, high, wide] = self.site.dims.map(|size| size as u64);
        let mut kept = 0.0;
        let most = self.site.weights.nrows().min(self.site.weights.ncols());
        let choice = |(at, value): (usize, &f64)| {
            kept += value;
            let rank = at as u64 + 1;
            let macs = self.site.places * rank * (inner * high * wide + out);
            Choice { method: Method::Svd, ranks: [at + 1, 0], macs, error: self.lost(kept), weighted: 0.0 }
        };
        Some(values.iter().take(most).enumerate().map(choice).collect())
    }

    fn svd_factors(&self, rank: usize) -> Option<Factors> {
        let (_, vectors) = eigen(&(&self.weighted * self.site.weights.transpose()))?;
        let last = columns(&vectors, rank);
        let first = last.transpose() * &self.site.weights;
        let product = &last * &first;
        Some(Factors { stages: vec![first, last], product })
    }

    /// Σ averaged over what `same` tells: `part(column)` is (place in the part, the rest).
    fn averaged(&self, size: usize, part: impl Fn(usize) -> (usize, usize)) -> Mat<f64> {
        let Some(covariance) = self.covariance else { return Mat::identity(size, size) };
        let mut sum: Mat<f64> = Mat::zeros(size, size);
        let parts: Vec<(usize, usize)> = (0..covariance.ncols()).map(part).collect();
        for (j, (to, rest)) in parts.iter().enumerate() {
            for (i, (from, other)) in parts.iter().enumerate() {
                if rest == other {
                    sum[(*from, *to)] += covariance[(i, j)];
                }
            }
        }
        let count = covariance.ncols() as f64 / size as f64;
        Mat::from_fn(size, size, |i, j| sum[(i, j)] / count)
    }

    /// The kernel as (in·kh)×(kw·out), and its right singular vectors.
    fn spatial_basis(&self) -> Option<(Mat<f64>, Mat<f64>)> {
        let [out, inner, high, wide] = self.site.dims;
        let rows = inner * high;
        let kernel =
            Mat::from_fn(rows, wide * out, |row, column| self.site.weights[(column % out, row * wide + column / out)]);
        let covariance = self.averaged(rows, |column| (column / wide, column % wide));
        let (_, vectors) = eigen(&(kernel.transpose() * &covariance * &kernel))?;
        Some((kernel, vectors))
    }

    fn spatial(&self) -> Option<Vec<Choice>> {
        let basis = self.spatial_basis()?;
        let [out, inner, high, wide] = self.site.dims;
        let Kind::Conv { window, size } = &self.site.kind else { return Some(Vec::new()) };
        let most = (inner * high).min(wide * out);
        let mut choices = Vec::new();
        for rank in Self::grid(most) {
            let first = (rank * inner * high * window.output[0] * size[1]) as u64;
            let macs = first + self.site.places * (rank * wide * out) as u64;
            if macs >= self.site.macs {
                continue;
            }
            let kept = self.kept(&self.columns_of_spatial(&basis, rank).1)?;
            choices.push(Choice {
                method: Method::Spatial,
                ranks: [rank, 0],
                macs,
                error: self.lost(kept),
                weighted: 0.0,
            });
        }
        Some(choices)
    }

    /// The first stage [rank, in·kh], and what the last sees of a patch: [rank·kw, in·kh·kw].
    fn columns_of_spatial(&self, (kernel, vectors): &(Mat<f64>, Mat<f64>), rank: usize) -> (Mat<f64>, Mat<f64>) {
        let wide = self.site.dims[3];
        let first = (kernel * &columns(vectors, rank)).transpose().to_owned();
        let seen = Mat::from_fn(rank * wide, self.site.weights.ncols(), |row, column| {
            if row % wide == column % wide { first[(row / wide, column / wide)] } else { 0.0 }
        });
        (first, seen)
    }

    fn spatial_factors(&self, basis: &(Mat<f64>, Mat<f64>), rank: usize) -> Option<Factors> {
        let (first, seen) = self.columns_of_spatial(basis, rank);
        let last = self.solve(&seen)?;
        let product = &last * &seen;
        Some(Factors { stages: vec![first, last], product })
    }

    /// Left factor of the kernel unfolded along its input channels, best first: [in, in].
    fn tucker_basis(&self) -> Option<Mat<f64>> {
        let [out, inner, high, wide] = self.site.dims;
        let patch = high * wide;
        let unfolded = Mat::from_fn(inner, patch * out, |row, column| {
            self.site.weights[(column / patch, row * patch + column % patch)]
        });
        let (root, back) = roots(&self.averaged(inner, |column| (column / patch, column % patch)))?;
        let weighted = &root * &unfolded;
        let (_, vectors) = eigen(&(&weighted * weighted.transpose()))?;
        Some(&back * &vectors)
    }

    /// What the second stage sees of a patch: [rank·kh·kw, in·kh·kw].
    fn seen_of_tucker(&self, basis: &Mat<f64>, rank: usize) -> Mat<f64> {
        let patch = self.site.dims[2] * self.site.dims[3];
        Mat::from_fn(rank * patch, self.site.weights.ncols(), |row, column| {
            if row % patch == column % patch { basis[(column / patch, row / patch)] } else { 0.0 }
        })
    }

    fn tucker(&self) -> Option<Vec<Choice>> {
        let basis = self.tucker_basis()?;
        let [out, inner, high, wide] = self.site.dims;
        let Kind::Conv { size, .. } = &self.site.kind else { return Some(Vec::new()) };
        let mut choices = Vec::new();
        for first in Self::grid(inner) {
            let seen = self.seen_of_tucker(&basis, first);
            let fitted = self.solve(&seen)?;
            let spread = self.spread(&seen);
            let (values, _) = eigen(&(&fitted * &spread * fitted.transpose()))?;
            let mut kept = 0.0;
            for (at, value) in values.iter().enumerate().take(out.min(first * high * wide)) {
                kept += value;
                let second = at + 1;
                let macs = (first * inner * size[0] * size[1]) as u64
                    + self.site.places * (second * (first * high * wide + out)) as u64;
                choices.push(Choice {
                    method: Method::Tucker,
                    ranks: [first, second],
                    macs,
                    error: self.lost(kept),
                    weighted: 0.0,
                });
            }
        }
        Some(choices)
    }

    fn tucker_factors(&self, basis: &Mat<f64>, first: usize, second: usize) -> Option<Factors> {
        let seen = self.seen_of_tucker(basis, first);
        let fitted = self.solve(&seen)?;
        let (_, vectors) = eigen(&(&fitted * self.spread(&seen) * fitted.transpose()))?;
        let last = columns(&vectors, second);
        let core = last.transpose() * &fitted;
        let product = &last * &core * &seen;
        let reduce = columns(basis, first).transpose().to_owned();
        Some(Factors { stages: vec![reduce, core, last], product })
    }

    /// P Σ Pᵀ.
    fn spread(&self, seen: &Mat<f64>) -> Mat<f64> {
        match self.covariance {
            Some(covariance) => seen * covariance * seen.transpose(),
            None => seen * seen.transpose(),
        }
    }

    /// The last stage for what it sees: W Σ Pᵀ (P Σ Pᵀ)⁻¹.
    fn solve(&self, seen: &Mat<f64>) -> Option<Mat<f64>> {
        divide(&(&self.weighted * seen.transpose()), &self.spread(seen))
    }

    /// The energy that is kept with the best last stage: tr(W Σ Pᵀ (P Σ Pᵀ)⁻¹ P Σ Wᵀ).
    fn kept(&self, seen: &Mat<f64>) -> Option<f64> {
        let reached = &self.weighted * seen.transpose();
        Some(inner(&divide(&reached, &self.spread(seen))?, &reached))
    }
}
