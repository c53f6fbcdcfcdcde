//! Why an optimisation fails: each cause with the exit code and the CamelCase reason that the operator shows.

use edgeyard_job::ExitCode;
use edgeyard_job::report::{Finding, Severity};
use edgeyard_targets::RecipeError;
use thiserror::Error;

use crate::calibrate::CalibrationError;
use crate::dataset::DatasetError;
use crate::evaluate::EvaluationError;
use crate::factorize::FactorizeError;
use crate::ir::{ImportError, LoadError};
use crate::lint::{NOT_LOWERED, refused};
use crate::lower::LowerError;
use crate::optimize::VelaError;
use crate::prune::{ObserveError, PruneError};
use crate::quantize::{QdqError, SensitivityError, WeightError};
use crate::runtime::RuntimeError;
use crate::simplify::{SimplifyError, UpgradeError};

/// Why an optimisation fails.
#[derive(Debug, Error)]
pub enum OptimizeError {
    /// The target cannot use the passes, or there is no such target.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A pass that needs data, without data.
    #[error(
        "passes: Quantize with scheme Int8 or Int16Activations, and Prune with score Taylor, needs calibration data: give \
         an .npz with an array x of typical inputs (spec.calibration, or --calibration)"
    )]
    CalibrationRequired,
    /// Too little data.
    #[error(
        "calibration data: {used} sample says nothing about the range of activations: give at least {least}, and better \
         100 or more, that look like what the model will see"
    )]
    TooFewSamples {
        /// How many there are.
        used: usize,
        /// How many are needed.
        least: usize,
    },
    /// A constraint that nothing decides or nothing can keep to.
    #[error("constraints: {0}")]
    Constraint(String),
    /// The target's rules refuse the model.
    #[error("target {target} does not take the model:{}", lines(findings))]
    Rules {
        /// The target.
        target: String,
        /// All findings.
        findings: Vec<Finding>,
    },
    /// The source is a `.tflite` that cannot be taken in.
    #[error("the source model: {0}")]
    Import(#[from] ImportError),
    /// The source's weights are no numbers.
    #[error(transparent)]
    Weight(#[from] WeightError),
    /// Nothing can be left out.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// Nothing can be split.
    #[error(transparent)]
    Factorize(#[from] FactorizeError),
    /// The vendor's compiler does not take the artefact.
    #[error(transparent)]
    Compiler(VelaError),
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

impl From<SensitivityError> for OptimizeError {
    /// Ranking fails for the reasons that quantising and calibrating fail for.
    fn from(error: SensitivityError) -> Self {
        match error {
            SensitivityError::Quantize(error) => Self::Quantize(error),
            SensitivityError::Upgrade(error) => Self::Upgrade(error),
            SensitivityError::Run(error) => Self::Calibration(error),
        }
    }
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
            Self::CalibrationRequired | Self::Prune(PruneError::DataRequired) => "CalibrationRequired",
            Self::TooFewSamples { .. } => "InvalidCalibrationData",
            Self::Constraint(_) => "ImpossibleConstraint",
            Self::Rules { findings, .. } if refused(findings).iter().all(|finding| finding.rule == NOT_LOWERED) => {
                "UnsupportedOperator"
            }
            Self::Rules { .. } => "TargetRefuses",
            Self::Import(ImportError::Operator { .. }) => "UnsupportedOperator",
            Self::Import(ImportError::Read(_)) => "InvalidModel",
            Self::Import(ImportError::Model(_)) => "UnsupportedModel",
            Self::Weight(_) => "InvalidModel",
            Self::Prune(PruneError::Nothing { .. }) => "NothingToPrune",
            Self::Prune(PruneError::Sparsity { .. } | PruneError::Group { .. } | PruneError::Multiple) => {
                "IncompatiblePass"
            }
            Self::Prune(PruneError::Inconsistent { .. }) => "NotPrunable",
            Self::Factorize(FactorizeError::Goal { .. }) => "IncompatiblePass",
            Self::Factorize(FactorizeError::Budget { .. }) => "ImpossibleConstraint",
            Self::Factorize(FactorizeError::Nothing { .. } | FactorizeError::Decomposition(_)) => "NotFactorizable",
            Self::Prune(PruneError::Observe(ObserveError::Dataset(_)))
            | Self::Factorize(FactorizeError::Observe(ObserveError::Dataset(_))) => "InvalidCalibrationData",
            Self::Prune(PruneError::Observe(ObserveError::Runtime(error)))
            | Self::Factorize(FactorizeError::Observe(ObserveError::Runtime(error)))
                if is_missing(error) =>
            {
                "RuntimeMissing"
            }
            Self::Prune(PruneError::Observe(ObserveError::Cancelled))
            | Self::Factorize(FactorizeError::Observe(ObserveError::Cancelled)) => "Cancelled",
            Self::Prune(_) | Self::Factorize(_) => "InvalidModel",
            Self::Compiler(VelaError::Refused(_)) => "VerificationFailed",
            Self::Compiler(_) => "CompilerFailed",
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
            "RuntimeMissing" | "CompilerFailed" => ExitCode::Infrastructure,
            _ => ExitCode::BadInput,
        }
    }
}

/// What is refused, a line each.
fn lines(findings: &[Finding]) -> String {
    let refused = findings.iter().filter(|finding| finding.severity == Severity::Refused);
    refused.map(|Finding { subject, message, rule, .. }| format!("\n  {subject}: {message} [{rule}]")).collect()
}

fn is_missing(error: &RuntimeError) -> bool {
    matches!(error, RuntimeError::Missing { .. })
}
