//! Why an optimisation fails: each cause with the exit code and the CamelCase reason that the operator shows.

use edgeyard_job::ExitCode;
use thiserror::Error;

use crate::calibrate::CalibrationError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluationError;
use crate::ir::LoadError;
use crate::lower::LowerError;
use crate::quantize::QdqError;
use crate::runtime::RuntimeError;
use crate::simplify::{SimplifyError, UpgradeError};
use crate::target::RecipeError;

/// Why an optimisation fails.
#[derive(Debug, Error)]
pub enum OptimizeError {
    /// The target cannot use the passes, or there is no such target.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Int8 without data.
    #[error(
        "passes: Quantize with scheme Int8 needs calibration data: give an .npz with an array x of typical inputs \
         (spec.calibration, or --calibration)"
    )]
    CalibrationRequired,
    /// The source is no model.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The source's shapes do not work out.
    #[error("the source model: {0}")]
    Simplify(#[from] SimplifyError),
    /// The source is too old for int8.
    #[error("the source model: {0}")]
    Upgrade(#[from] UpgradeError),
    /// The calibration data is unusable, or the model on it.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// The graph cannot be quantised.
    #[error(transparent)]
    Quantize(#[from] QdqError),
    /// The graph cannot be lowered.
    #[error("the source model: {0}")]
    Lower(#[from] LowerError),
    /// Evaluation does not work out.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    /// A dataset is unusable, whatever it was for.
    #[error(transparent)]
    Dataset(DatasetError),
    /// A runtime is missing, or the model cannot be fed.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

impl OptimizeError {
    /// For calibration data.
    pub fn calibration_data(error: DatasetError) -> Self {
        Self::Calibration(CalibrationError::Dataset(error))
    }

    /// For data of any use.
    pub fn dataset(error: DatasetError) -> Self {
        Self::Dataset(error)
    }

    /// For evaluation data.
    pub fn evaluation_data(error: DatasetError) -> Self {
        Self::Evaluation(EvaluationError::Dataset(error))
    }

    /// The reason for a termination message.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Recipe(RecipeError::UnknownTarget { .. }) => "UnknownTarget",
            Self::Recipe(_) => "IncompatiblePass",
            Self::CalibrationRequired => "CalibrationRequired",
            Self::Model(LoadError::NotOnnx(_)) => "NotOnnx",
            Self::Model(LoadError::Io(_)) => "Unreadable",
            Self::Model(LoadError::Unsupported(_)) | Self::Upgrade(_) => "UnsupportedModel",
            Self::Model(_) | Self::Simplify(_) => "InvalidModel",
            Self::Calibration(CalibrationError::Dataset(_)) => "InvalidCalibrationData",
            Self::Calibration(CalibrationError::Cancelled) | Self::Evaluation(EvaluationError::Cancelled) => {
                "Cancelled"
            }
            Self::Calibration(CalibrationError::NotFinite { .. }) => "InvalidModel",
            Self::Evaluation(EvaluationError::Dataset(_) | EvaluationError::Label { .. }) => "InvalidEvaluationData",
            Self::Dataset(_) => "InvalidData",
            Self::Quantize(_) => "NotQuantizable",
            Self::Lower(LowerError::Op { .. }) => "UnsupportedOperator",
            Self::Lower(_) => "NotLowerable",
            Self::Evaluation(EvaluationError::Artifact(error)) if !is_missing(error) => "VerificationFailed",
            Self::Evaluation(EvaluationError::Outputs { .. }) => "VerificationFailed",
            Self::Evaluation(EvaluationError::Metric(_)) => "UnsupportedMetric",
            Self::Calibration(CalibrationError::Runtime(error))
            | Self::Evaluation(EvaluationError::Artifact(error) | EvaluationError::Source(error))
            | Self::Runtime(error) => {
                if is_missing(error) {
                    "RuntimeMissing"
                } else {
                    "InvalidModel"
                }
            }
        }
    }

    /// The exit code for a job.
    pub fn exit_code(&self) -> ExitCode {
        match self.reason() {
            "Cancelled" => ExitCode::Cancelled,
            "RuntimeMissing" => ExitCode::Infrastructure,
            _ => ExitCode::BadInput,
        }
    }
}

fn is_missing(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::Missing { .. })
}
