//! A variant's passes held against a target: what to make, or why not. Everything that can be known without the model is
//! decided here, so that admission, the command line and the job say the same.

use edgeyard_job::spec::{Calibrator, Granularity, Pass, Pattern, Scheme, Score};
use thiserror::Error;

use crate::target::{Int4Rules, Int8Rules, Int16Rules, Support, Target};

/// Sizes of blocks that weights of four bits may share a scale in.
pub const BLOCK_SIZES: [u32; 5] = [16, 32, 64, 128, 256];

/// What to make for a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Passes over the graph, in order.
    pub passes: Vec<Pass>,
    /// How numbers are stored in the end.
    pub numbers: Numbers,
}

/// How numbers are stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// As in the source.
    Float32,
    /// Weights as halves.
    Float16,
    /// 8-bit integers.
    Int8 {
        /// The target's rules.
        rules: Int8Rules,
        /// How many scales weights have.
        granularity: Granularity,
        /// How ranges are found.
        calibrator: Calibrator,
        /// Whether biases are corrected by the mean error.
        bias_correction: bool,
        /// How many operators may stay in floating point.
        max_float_operators: u32,
    },
    /// 8-bit weights; activations are quantised while it runs.
    Int8Dynamic,
    /// 4-bit weights.
    Int4Weights {
        /// The target's rules.
        rules: Int4Rules,
        /// Weights that share a scale; `None`: those of an output channel.
        block_size: Option<u32>,
    },
    /// 8-bit weights, 16-bit activations.
    Int16Activations {
        /// The target's rules.
        rules: Int16Rules,
        /// How many scales weights have.
        granularity: Granularity,
        /// How ranges are found.
        calibrator: Calibrator,
    },
}

/// Why a recipe is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RecipeError {
    /// No target has that name.
    #[error("target {name} is not known: use one of {}", known.join(", "))]
    UnknownTarget {
        /// The name.
        name: String,
        /// All names.
        known: Vec<String>,
    },
    /// The target cannot use a pass.
    #[error("passes: {what} cannot be used for target {target}: {reason}")]
    Refused {
        /// The target.
        target: String,
        /// Which pass or what of it.
        what: String,
        /// Why.
        reason: String,
    },
    /// A pass whose settings are wrong, or passes that do not go together, whatever the target.
    #[error("passes: {0}")]
    Passes(String),
}

/// Whether a recipe cannot do without calibration data.
pub fn needs_calibration(passes: &[Pass]) -> bool {
    passes.iter().any(|pass| {
        matches!(
            pass,
            Pass::Quantize { scheme: Scheme::Int8 | Scheme::Int16Activations, .. }
                | Pass::Prune { score: Score::Taylor, .. }
        )
    })
}

/// Whether a recipe makes something of calibration data where there is some: all that need it, and low rank, which is then
/// fitted to the layers' outputs.
pub fn reads_calibration(passes: &[Pass]) -> bool {
    needs_calibration(passes) || passes.iter().any(|pass| matches!(pass, Pass::Factorize { .. }))
}

impl Target {
    /// Checks a variant's passes against each other and against what the target takes.
    ///
    /// # Errors
    /// [`RecipeError`] that says which pass and why.
    pub fn recipe(&self, passes: &[Pass]) -> Result<Recipe, RecipeError> {
        for pass in passes {
            check(pass).map_err(RecipeError::Passes)?;
        }
        let (last, before) = match passes.split_last() {
            Some((last @ Pass::Quantize { .. }, before)) => (Some(last), before),
            _ => (None, passes),
        };
        if before.iter().any(|pass| matches!(pass, Pass::Quantize { .. })) {
            let twice = passes.iter().filter(|pass| matches!(pass, Pass::Quantize { .. })).count() > 1;
            let problem = if twice {
                "Quantize occurs twice: a model can be quantised once, so keep the one you want, or make two variants"
            } else {
                "Quantize must be the last pass: what comes after it would work on integers; move it to the end"
            };
            return Err(RecipeError::Passes(problem.to_owned()));
        }
        let numbers = match last {
            Some(quantize) => self.numbers(quantize)?,
            None => {
                self.taken(&self.schemes.float32, "a recipe without Quantize")?;
                Numbers::Float32
            }
        };
        Ok(Recipe { passes: before.to_vec(), numbers })
    }

    fn numbers(&self, quantize: &Pass) -> Result<Numbers, RecipeError> {
        let Pass::Quantize { scheme, granularity, calibrator, bias_correction, max_float_operators, block_size } =
            quantize
        else {
            return Ok(Numbers::Float32);
        };
        let (granularity, calibrator) = (*granularity, *calibrator);
        let what = format!("Quantize with scheme {scheme:?}");
        Ok(match scheme {
            Scheme::Float16 => {
                self.taken(&self.schemes.float16, &what)?;
                Numbers::Float16
            }
            Scheme::Int8Dynamic => {
                self.taken(&self.schemes.int8_dynamic, &what)?;
                Numbers::Int8Dynamic
            }
            Scheme::Int8 => {
                let rules = self.taken(&self.schemes.int8, &what)?.clone();
                self.granular(&rules.granularities, granularity)?;
                let (bias_correction, max_float_operators) = (*bias_correction, *max_float_operators);
                if max_float_operators > 0 && !rules.mixed_precision {
                    let reason = "it computes in integers only: leave maxFloatOperators out";
                    return Err(self.refuse("maxFloatOperators", reason));
                }
                Numbers::Int8 { rules, granularity, calibrator, bias_correction, max_float_operators }
            }
            Scheme::Int16Activations => {
                let rules = self.taken(&self.schemes.int16_activations, &what)?.clone();
                self.granular(&rules.granularities, granularity)?;
                Numbers::Int16Activations { rules, granularity, calibrator }
            }
            Scheme::Int4Weights => {
                let rules = self.taken(&self.schemes.int4_weights, &what)?.clone();
                match block_size {
                    Some(size) if !rules.block_sizes.contains(size) => {
                        let sizes: Vec<String> = rules.block_sizes.iter().map(u32::to_string).collect();
                        let reason = match sizes.is_empty() {
                            true => {
                                "its kernels take one scale for each output channel: leave blockSize out".to_owned()
                            }
                            false => format!("it takes blocks of {}", sizes.join(", ")),
                        };
                        return Err(self.refuse(&format!("blockSize {size}"), &reason));
                    }
                    None if !rules.per_channel => {
                        let sizes: Vec<String> = rules.block_sizes.iter().map(u32::to_string).collect();
                        let reason = format!("give a blockSize: it takes blocks of {}", sizes.join(", "));
                        return Err(self.refuse("Int4Weights without blockSize", &reason));
                    }
                    _ => {}
                }
                Numbers::Int4Weights { rules, block_size: *block_size }
            }
        })
    }

    fn taken<'a, T>(&self, support: &'a Support<T>, what: &str) -> Result<&'a T, RecipeError> {
        match support {
            Support::Taken(rules) => Ok(rules),
            Support::Refused(refused) => Err(self.refuse(what, &refused.refused)),
        }
    }

    fn granular(&self, taken: &[Granularity], asked: Granularity) -> Result<(), RecipeError> {
        if taken.contains(&asked) {
            return Ok(());
        }
        let takes: Vec<String> = taken.iter().map(|taken| format!("{taken:?}")).collect();
        let reason = format!("its weights can be {} only", takes.join(" or "));
        Err(self.refuse(&format!("granularity {asked:?}"), &reason))
    }

    fn refuse(&self, what: &str, reason: &str) -> RecipeError {
        RecipeError::Refused { target: self.name.clone(), what: what.to_owned(), reason: reason.to_owned() }
    }
}

/// What is wrong with a pass by itself, if anything is.
fn check(pass: &Pass) -> Result<(), String> {
    let share = |name: &str, value: f64, one: bool| {
        let fits = value > 0.0 && (value < 1.0 || one && value == 1.0);
        if fits { Ok(()) } else { Err(format!("{name} is {value}: it must be above 0 and below 1")) }
    };
    match pass {
        Pass::Equalize {} => Ok(()),
        Pass::Prune { pattern: Pattern::NOfM, sparsity, n, m, .. } => match (sparsity, n, m) {
            (None, Some(n), Some(m)) if (1..*m).contains(n) && *m <= 32 => Ok(()),
            (Some(_), ..) => Err("Prune with pattern NOfM takes n and m, not sparsity".to_owned()),
            (None, Some(n), Some(m)) => {
                Err(format!("Prune with n={n} and m={m}: n must be from 1 to m-1, and m at most 32"))
            }
            _ => Err("Prune with pattern NOfM needs n and m, such as n=2 and m=4".to_owned()),
        },
        Pass::Prune { pattern, sparsity, n, m, .. } => match (sparsity, n, m) {
            (Some(sparsity), None, None) => share("Prune's sparsity", *sparsity, false),
            (None, ..) => Err(format!("Prune with pattern {pattern:?} needs a sparsity, such as 0.5")),
            _ => Err(format!("Prune with pattern {pattern:?} takes a sparsity; n and m belong to pattern NOfM")),
        },
        Pass::Factorize { energy, macs, .. } => match (energy, macs) {
            (Some(energy), None) => share("Factorize's energy", *energy, true),
            (None, Some(macs)) => share("Factorize's macs", *macs, true),
            _ => Err("Factorize needs exactly one of energy and macs".to_owned()),
        },
        Pass::Quantize { scheme, granularity, calibrator, bias_correction, max_float_operators, block_size } => {
            let misplaced = |what: &str, of: &str| Err(format!("{what} belongs to scheme {of}, not to {scheme:?}"));
            let ranged = matches!(scheme, Scheme::Int8 | Scheme::Int16Activations);
            if !ranged && *granularity != Granularity::default() {
                return misplaced("granularity", "Int8 and Int16Activations");
            }
            if !ranged && *calibrator != Calibrator::default() {
                return misplaced("calibrator", "Int8 and Int16Activations");
            }
            if *scheme != Scheme::Int8 && *bias_correction {
                return misplaced("biasCorrection", "Int8");
            }
            if *scheme != Scheme::Int8 && *max_float_operators > 0 {
                return misplaced("maxFloatOperators", "Int8");
            }
            match block_size {
                Some(_) if *scheme != Scheme::Int4Weights => misplaced("blockSize", "Int4Weights"),
                Some(size) if !BLOCK_SIZES.contains(size) => {
                    Err(format!("blockSize is {size}: it must be 16, 32, 64, 128 or 256"))
                }
                _ => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int8(granularity: Granularity) -> Pass {
        let mut pass = Pass::quantize(Scheme::Int8);
        if let Pass::Quantize { granularity: set, .. } = &mut pass {
            *set = granularity;
        }
        pass
    }

    fn refused(target: &str, passes: &[Pass]) -> String {
        Target::find(target).unwrap().recipe(passes).unwrap_err().to_string()
    }

    #[test]
    fn what_a_target_cannot_use_is_refused_with_its_reason() {
        assert!(refused("tflm", &[]).contains("Int8"));
        assert_eq!(
            refused("tflm", &[int8(Granularity::PerTensor)]),
            "passes: granularity PerTensor cannot be used for target tflm: its weights can be PerChannel only"
        );
        assert!(refused("tensorrt", &[Pass::quantize(Scheme::Int8Dynamic)]).contains("tensorrt"));
        let four = |size| Pass::Quantize {
            scheme: Scheme::Int4Weights,
            granularity: Granularity::PerChannel,
            calibrator: Calibrator::MinMax,
            bias_correction: false,
            max_float_operators: 0,
            block_size: size,
        };
        assert!(refused("tensorrt", &[four(Some(16))]).contains("it takes blocks of 64, 128"));
        assert!(refused("tensorrt", &[four(None)]).contains("give a blockSize"));
        assert!(refused("litert", &[four(Some(16))]).contains("it takes blocks of 32, 64, 128, 256"));
        assert!(Target::find("litert").unwrap().recipe(&[four(Some(32))]).is_ok());
        assert!(Target::find("ort-x86").unwrap().recipe(&[four(Some(32))]).is_ok());
        let mut mixed = int8(Granularity::PerChannel);
        if let Pass::Quantize { max_float_operators, .. } = &mut mixed {
            *max_float_operators = 2;
        }
        assert!(Target::find("litert").unwrap().recipe(std::slice::from_ref(&mixed)).is_ok());
        assert!(refused("edgetpu", &[mixed]).contains("integers only"));
    }

    #[test]
    fn quantize_is_last_and_once() {
        let quantize = int8(Granularity::PerChannel);
        assert!(refused("litert", &[quantize.clone(), quantize.clone()]).contains("twice"));
        assert!(refused("litert", &[quantize.clone(), Pass::Equalize {}]).contains("last"));
        let recipe = Target::find("litert").unwrap().recipe(&[Pass::Equalize {}, quantize]).unwrap();
        assert_eq!(recipe.passes, [Pass::Equalize {}]);
        assert!(matches!(recipe.numbers, Numbers::Int8 { .. }));
    }

    #[test]
    fn settings_are_checked() {
        let prune = |pattern, sparsity, n, m| Pass::Prune { pattern, score: Score::Magnitude, sparsity, n, m };
        let cases = [
            (prune(Pattern::Structured, None, None, None), "needs a sparsity"),
            (prune(Pattern::Structured, Some(1.0), None, None), "below 1"),
            (prune(Pattern::Unstructured, Some(0.5), Some(2), None), "belong to pattern NOfM"),
            (prune(Pattern::NOfM, None, Some(4), Some(4)), "n must be from 1"),
            (prune(Pattern::NOfM, None, Some(2), None), "needs n and m"),
            (prune(Pattern::NOfM, Some(0.5), Some(2), Some(4)), "not sparsity"),
            (Pass::Factorize { method: Default::default(), energy: None, macs: None }, "exactly one"),
            (Pass::Factorize { method: Default::default(), energy: Some(0.5), macs: Some(0.5) }, "exactly one"),
            (Pass::Factorize { method: Default::default(), energy: None, macs: Some(0.0) }, "above 0"),
        ];
        for (pass, part) in cases {
            let text = refused("ort-x86", std::slice::from_ref(&pass));
            assert!(text.contains(part), "{pass:?}: {text}");
        }
    }

    #[test]
    fn calibration_is_needed_by_ranges_and_taylor() {
        let taylor =
            Pass::Prune { pattern: Pattern::Structured, score: Score::Taylor, sparsity: Some(0.5), n: None, m: None };
        assert!(needs_calibration(&[taylor]) && needs_calibration(&[Pass::quantize(Scheme::Int16Activations)]));
        assert!(!needs_calibration(&[Pass::quantize(Scheme::Int8Dynamic), Pass::Equalize {}]));
    }

    #[test]
    fn a_target_comes_from_data_alone() {
        let text = "
            {name: new, summary: s, format: ONNX, runtime: OnnxRuntime, proves: Linted,
             operators: {otherwise: Refused, remedy: replace it, list: {Conv: null}},
             rules: [{name: small-window, operators: [Conv], require: {quantity: 'attribute:group', max: 1},
                      severity: Fallback, why: its units have no groups, remedy: take another layer}],
             schemes: {Float32: {refused: because}, Float16: {}, Int8Dynamic: {refused: no}, Int4Weights: {refused: no},
                       Int16Activations: {refused: no},
                       Int8: {activations: Int8, granularities: [PerTensor], inputsAndOutputs: Float32}}}";
        let target = Target::parse(text).unwrap();
        assert!(target.recipe(&[]).unwrap_err().to_string().contains("because"));
        assert!(matches!(target.recipe(&[int8(Granularity::PerTensor)]).unwrap().numbers, Numbers::Int8 { .. }));
        use crate::view::{Attribute, Operator, View};
        let operator = |kind: &str, group: i64| Operator {
            label: kind.to_lowercase(),
            kind: kind.to_owned(),
            attributes: [("group".to_owned(), Attribute::Int(group))].into(),
            ..Operator::default()
        };
        let view = View {
            format: edgeyard_job::spec::ModelFormat::Onnx,
            subgraphs: 1,
            opset: Some(17),
            tensors: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            operators: vec![operator("Conv", 1), operator("Conv", 2), operator("Relu", 1)],
        };
        let found: Vec<_> = crate::lint(&target, &view).into_iter().map(|f| (f.rule, f.subject, f.message)).collect();
        let say = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            found,
            [
                say("small-window", "conv (Conv)", "its units have no groups (group is 2): take another layer"),
                say("operator", "relu (Relu)", "Relu is not among the operators of new: replace it"),
            ]
        );
        assert!(Target::parse(&text.replace("attribute:group", "groups")).is_err());
    }
}
