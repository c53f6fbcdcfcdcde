//! A recipe's passes, from the API's words to the job's.

use edgeyard_crds::passes::{self, Step};
use edgeyard_crds::scalars::Ratio;
use edgeyard_job::spec;

use crate::{Refusal, reason};

/// One pass as the job is told of it.
pub(super) fn pass(pass: passes::Pass) -> Result<spec::Pass, Refusal> {
    Ok(match pass.validate()? {
        Step::Equalize(passes::Equalize {}) => spec::Pass::Equalize {},
        Step::Prune(prune) => self::prune(prune)?,
        Step::Factorize(passes::Factorize { method, energy, macs }) => spec::Pass::Factorize {
            method: match method {
                Some(passes::FactorizeMethod::Auto) | None => spec::Factorization::Auto,
                Some(passes::FactorizeMethod::SpatialSvd) => spec::Factorization::SpatialSvd,
                Some(passes::FactorizeMethod::Tucker2) => spec::Factorization::Tucker2,
                Some(passes::FactorizeMethod::Svd) => spec::Factorization::Svd,
            },
            energy: energy.map(|share| self::share(&share, "factorize.energy")).transpose()?,
            macs: macs.map(|share| self::share(&share, "factorize.macs")).transpose()?,
        },
        Step::Quantize(quantize) => self::quantize(quantize)?,
    })
}

fn prune(prune: passes::Prune) -> Result<spec::Pass, Refusal> {
    let passes::Prune { pattern, score, sparsity, keep, group_size } = prune;
    let count = |number: i32, field: &str| {
        u32::try_from(number)
            .map_err(|_| Refusal::new(reason::INVALID_SPEC, format!("prune.{field}: {number} must be at least 1")))
    };
    Ok(spec::Pass::Prune {
        pattern: match pattern {
            passes::PrunePattern::Unstructured => spec::Pattern::Unstructured,
            passes::PrunePattern::NOfM => spec::Pattern::NOfM,
            passes::PrunePattern::Structured => spec::Pattern::Structured,
        },
        score: match score {
            Some(passes::PruneScore::Taylor) => spec::Score::Taylor,
            Some(passes::PruneScore::Magnitude) | None => spec::Score::Magnitude,
        },
        sparsity: sparsity.map(|share| self::share(&share, "prune.sparsity")).transpose()?,
        n: keep.map(|keep| count(keep, "keep")).transpose()?,
        m: group_size.map(|size| count(size, "groupSize")).transpose()?,
    })
}

fn quantize(quantize: passes::Quantize) -> Result<spec::Pass, Refusal> {
    let passes::Quantize { scheme, granularity, calibrator, bias_correction, max_float_operators, block_size } =
        quantize;
    let count = |number: i32, field: &str| {
        u32::try_from(number)
            .map_err(|_| Refusal::new(reason::INVALID_SPEC, format!("quantize.{field}: {number} is below zero")))
    };
    Ok(spec::Pass::Quantize {
        scheme: match scheme {
            passes::QuantizationScheme::Float16 => spec::Scheme::Float16,
            passes::QuantizationScheme::Int8 => spec::Scheme::Int8,
            passes::QuantizationScheme::Int8Dynamic => spec::Scheme::Int8Dynamic,
            passes::QuantizationScheme::Int4Weights => spec::Scheme::Int4Weights,
            passes::QuantizationScheme::Int16Activations => spec::Scheme::Int16Activations,
        },
        granularity: match granularity {
            Some(passes::Granularity::PerTensor) => spec::Granularity::PerTensor,
            Some(passes::Granularity::PerChannel) | None => spec::Granularity::PerChannel,
        },
        calibrator: match calibrator {
            Some(passes::Calibrator::MinMax) | None => spec::Calibrator::MinMax,
            Some(passes::Calibrator::MovingAverage) => spec::Calibrator::MovingAverage,
            Some(passes::Calibrator::Percentile) => spec::Calibrator::Percentile,
            Some(passes::Calibrator::Entropy) => spec::Calibrator::Entropy,
            Some(passes::Calibrator::MeanSquaredError) => spec::Calibrator::MeanSquaredError,
        },
        bias_correction: bias_correction.unwrap_or_default(),
        max_float_operators: count(max_float_operators.unwrap_or_default(), "maxFloatOperators")?,
        block_size: block_size.map(|size| count(size, "blockSize")).transpose()?,
    })
}

/// A ratio as a number.
pub(super) fn share(ratio: &Ratio, field: &str) -> Result<f64, Refusal> {
    ratio
        .0
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| Refusal::new(reason::INVALID_SPEC, format!("{field}: {ratio} is not a number from 0 to 1")))
}
