//! Leaves out weights that matter little: single ones ([`Pattern::Unstructured`], [`Pattern::NOfM`]), which become zeros, or
//! whole channels with all that depends on them ([`Pattern::Structured`]), after which shapes are smaller. Structured
//! pruning goes in four steps: `labels` and `follow` find which indexes of which tensors belong together, `score` says
//! how much each such unit matters, `slice` cuts. No fine-tuning is done here.

pub mod activations;
mod elements;
mod follow;
mod labels;
mod refit;
mod score;
mod slice;
mod structured;

use thiserror::Error;

use crate::ir::{InferError, Model};

pub use activations::{Data, ObserveError};
pub use edgeyard_job::spec::{Pattern, Score};

/// What to leave out.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Which weights may go.
    pub pattern: Pattern,
    /// What makes a weight unimportant.
    pub score: Score,
    /// `Unstructured` and `Structured`: the share to leave out, above 0 and below 1.
    pub sparsity: Option<f64>,
    /// `NOfM`: how many of every `m` stay.
    pub n: Option<u32>,
    /// `NOfM`: the length of a group along the input channels.
    pub m: Option<u32>,
    /// `Structured`: channels stay in multiples of this where a layer has that many, because kernels work in such blocks.
    pub multiple: usize,
}

impl Settings {
    /// Channels that kernels of every target take at once.
    pub const MULTIPLE: usize = 4;

    /// From a recipe's pass.
    pub fn new(pattern: Pattern, score: Score, sparsity: Option<f64>, n: Option<u32>, m: Option<u32>) -> Self {
        Self { pattern, score, sparsity, n, m, multiple: Self::MULTIPLE }
    }
}

/// What was left out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Remarks for people: what was cut to what, what could not be, and why.
    pub notes: Vec<String>,
    /// Weights that became zeros or went away.
    pub removed_parameters: u64,
    /// `Structured`: what was cut from every constant, with indexes before the cut.
    pub removed: Vec<Removed>,
}

/// What was cut from one constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The constant's name.
    pub tensor: String,
    /// Along which axis.
    pub axis: usize,
    /// The indexes that went, ascending.
    pub indices: Vec<usize>,
}

/// Why nothing can be left out.
#[derive(Debug, Error)]
pub enum PruneError {
    /// A share that is none.
    #[error("passes: Prune with pattern {pattern:?} needs a sparsity above 0 and below 1, such as 0.5; it has {given}")]
    Sparsity {
        /// The pattern.
        pattern: Pattern,
        /// What was given.
        given: String,
    },
    /// A group that is none.
    #[error(
        "passes: Prune with pattern NOfM needs n and m with 0 < n < m and m at most 64, such as n: 2, m: 4; it has {given}"
    )]
    Group {
        /// What was given.
        given: String,
    },
    /// A multiple that is none.
    #[error("passes: Prune: channels cannot stay in multiples of 0; 1 leaves them free")]
    Multiple,
    /// Nothing to prune.
    #[error("passes: Prune with pattern {pattern:?} finds nothing to leave out: {why}")]
    Nothing {
        /// The pattern.
        pattern: Pattern,
        /// Why.
        why: String,
    },
    /// A score that needs data.
    #[error(
        "passes: Prune with score Taylor needs calibration data: give an .npz with an array x of typical inputs \
         (spec.calibration, or --calibration), or take score Magnitude"
    )]
    DataRequired,
    /// A weight that is no number.
    #[error("weight {0} holds a value that is not finite: the model itself is broken there")]
    NotFinite(String),
    /// Shapes that contradict one another.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The model does not run on the data.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The cut does not work out; nothing was changed.
    #[error("the pruned model would be broken at {at}: {problem}; please report the model")]
    Inconsistent {
        /// Where.
        at: String,
        /// What does not fit.
        problem: String,
    },
}

/// Prunes `model`; on an error it stays as it was. `data` is needed for [`Score::Taylor`].
///
/// - `Unstructured`: in every Conv, ConvTranspose, Gemm and MatMul with constant weights the share `sparsity` of weights
///   with the smallest scores becomes zero. The share is the same in each layer: one threshold for the whole model would
///   empty the large layers, whose weights are small because they are many.
/// - `NOfM`: of every `m` weights along the input channels the `n` with the largest scores stay. A shorter rest of `r`
///   keeps `ceil(n·r/m)`.
/// - `Structured`: of each set of channels that depend on one another the share `sparsity` goes, rounded so that the
///   rest is a multiple of [`Settings::multiple`] where the set is larger than that.
///
///   With data, the channels that stay then make up for those that went, by least squares (see `refit`): the source's outputs on
///   calibration data are come nearer to, without training.
///
/// With data, the weights that stay in `Unstructured` and `NOfM` are fitted in the same way, for each output channel by itself
/// (Hassibi & Stork 1993, all at once), where that takes at most 2·10¹⁰ operations for a layer.
///
/// Scores of single weights: `|w|`, or with data `|w|·rms(x_c)` with the root mean square of the input channel that it
/// meets (Sun et al. 2023, Wanda). Scores of channels: see `score`.
///
/// # Errors
/// [`PruneError`].
pub fn prune(model: &mut Model, settings: &Settings, data: Option<&Data<'_>>) -> Result<Outcome, PruneError> {
    let Settings { pattern, score, sparsity, n, m, multiple } = settings;
    let data = match score {
        Score::Magnitude => None,
        Score::Taylor => Some(data.ok_or(PruneError::DataRequired)?),
    };
    let share = || match sparsity {
        Some(share) if *share > 0.0 && *share < 1.0 => Ok(*share),
        Some(share) => Err(PruneError::Sparsity { pattern: *pattern, given: share.to_string() }),
        None => Err(PruneError::Sparsity { pattern: *pattern, given: "none".to_owned() }),
    };
    match pattern {
        Pattern::Unstructured => elements::unstructured(model, share()?, data),
        Pattern::NOfM => match (n, m) {
            (Some(n), Some(m)) if 0 < *n && n < m && *m <= 64 => {
                elements::n_of_m(model, *n as usize, *m as usize, data)
            }
            _ => {
                let text = |value: &Option<u32>| value.map_or("none".to_owned(), |value| value.to_string());
                Err(PruneError::Group { given: format!("n: {}, m: {}", text(n), text(m)) })
            }
        },
        Pattern::Structured if *multiple == 0 => Err(PruneError::Multiple),
        Pattern::Structured => structured::structured(model, share()?, *multiple, data),
    }
}
