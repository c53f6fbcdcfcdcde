//! Replaces layers by products of thinner ones. Each layer has options (`options`): how to split it, with what ranks, for
//! how many multiply-accumulates and at what error; `choose` picks one for each layer, by a share of energy to keep or so
//! that a budget for the whole model is met with the least error; `rewrite` puts the new layers in. With calibration
//! data, errors are those of the layers' outputs, not of their weights; a budget weighs them by what they do to the model's
//! outputs (`weigh`), and each layer is fitted to what the changed layers before it give (`fit`), in the order in which they run.

mod choose;
mod fit;
mod linear;
mod options;
mod rewrite;
mod site;
mod weigh;

use thiserror::Error;

use crate::ir::{InferError, Model};
use crate::prune::{Data, ObserveError};

pub use edgeyard_job::spec::Factorization;

// Pruning fits weights to data in the same way.
pub(crate) use fit::{LONGEST, Moments, moments};
pub(crate) use linear::divide;
pub(crate) use site::{Kind, Site, sites};

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Keep this share of each layer's squared singular values, above 0 and at most 1.
    Energy(f64),
    /// End with at most this share of the model's multiply-accumulates, above 0 and below 1.
    Macs(f64),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How convolutions are split.
    pub method: Factorization,
    /// How far to go.
    pub goal: Goal,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Remarks for people.
    pub notes: Vec<String>,
    /// The layers that were replaced.
    pub layers: Vec<Replaced>,
}

/// One layer that was replaced.
#[derive(Debug, Clone, PartialEq)]
pub struct Replaced {
    /// Its name.
    pub layer: String,
    /// `Svd`, `SpatialSvd`, `Tucker2`.
    pub method: &'static str,
    /// The ranks: one, or those of input and output channels.
    pub ranks: Vec<usize>,
    /// Share of the squared norm of weights (with data: of outputs) that is lost, by singular values.
    pub lost_energy: f64,
    /// Multiply-accumulates before and after.
    pub macs: (u64, u64),
}

/// Why a model is not factorised.
#[derive(Debug, Error)]
pub enum FactorizeError {
    /// Neither or both of the goals, or one out of range.
    #[error(
        "passes: Factorize needs exactly one of energy (above 0, at most 1) and macs (above 0, below 1); it has {given}"
    )]
    Goal {
        /// What was given.
        given: String,
    },
    /// Nothing to factorise.
    #[error("passes: Factorize finds no layer whose work falls when it is split by {method:?}{why}")]
    Nothing {
        /// The method.
        method: Factorization,
        /// More about it.
        why: String,
    },
    /// A budget below what is possible.
    #[error(
        "passes: Factorize cannot bring the model to {wanted} of its multiply-accumulates; rank 1 everywhere leaves \
         {least:.3}: ask for more, or take method Auto"
    )]
    Budget {
        /// The share asked for.
        wanted: f64,
        /// The least share.
        least: f64,
    },
    /// A weight that is no number.
    #[error("weight {0} holds a value that is not finite: the model itself is broken there")]
    NotFinite(String),
    /// The decomposition does not converge.
    #[error("the singular values of {0} cannot be found")]
    Decomposition(String),
    /// Shapes that contradict one another.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The model does not run on the data.
    #[error(transparent)]
    Observe(#[from] ObserveError),
}

impl Settings {
    /// From a recipe's pass.
    ///
    /// # Errors
    /// [`FactorizeError::Goal`].
    pub fn new(method: Factorization, energy: Option<f64>, macs: Option<f64>) -> Result<Self, FactorizeError> {
        let goal = match (energy, macs) {
            (Some(share), None) if share > 0.0 && share <= 1.0 => Goal::Energy(share),
            (None, Some(share)) if share > 0.0 && share < 1.0 => Goal::Macs(share),
            _ => {
                let text = |value: Option<f64>| value.map_or("none".to_owned(), |value| value.to_string());
                let given = format!("energy: {}, macs: {}", text(energy), text(macs));
                return Err(FactorizeError::Goal { given });
            }
        };
        Ok(Self { method, goal })
    }
}

/// Factorises `model`; on an error it stays as it was. A layer is replaced only where its multiply-accumulates fall. New
/// layers are called after the old one: `{layer}_v`, (`{layer}_c`,) `{layer}_u`, in the order in which they run; the last
/// keeps the old one's output and bias.
///
/// # Errors
/// [`FactorizeError`].
pub fn factorize(model: &mut Model, settings: &Settings, data: Option<&Data<'_>>) -> Result<Outcome, FactorizeError> {
    rewrite::run(model, settings, data)
}
