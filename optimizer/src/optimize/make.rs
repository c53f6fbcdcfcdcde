//! From source to artefact: the passes over the float graph in their order, then the numbers that the target stores.

use std::collections::BTreeSet;

use edgeyard_job::report::CalibrationSummary;
use edgeyard_job::spec::{Calibrator, Granularity, ModelFormat, Pass};
use edgeyard_targets::{Int4Form as TargetForm, Int8Rules, Integer, InterfaceType, Numbers};

use super::clock::Clock;
use super::read::Work;
use crate::calibrate::{Calibration, calibrate};
use crate::error::OptimizeError;
use crate::factorize::{self, factorize};
use crate::ir::{DataType, Graph, Model, Tensor};
use crate::lower::{Choices, Int8Io, Mode, to_tflite_with};
use crate::prune::{self, prune};
use crate::quantize::{
    Element, Granularities, Int4Form, QdqError, QdqOptions, correct_biases, dynamic, equalize, half_weights, int4,
    quantize,
};
use crate::simplify::{explicit_padding, simplify, to_opset_13};

/// The float graph after all passes but the last, ready to be stored in any numbers.
pub(super) struct Prepared<'a> {
    /// The simplified source, before any pass.
    pub source: &'a Graph,
    /// What passes made of it.
    pub model: Model,
    /// Found on `model`, for schemes that need ranges.
    pub calibration: Option<Calibration>,
    /// What passes say.
    pub notes: Vec<String>,
    /// Nothing was asked for: the source is the artefact, byte for byte.
    pub untouched: bool,
}

/// An artefact, not yet run.
pub(super) struct Made {
    pub artifact: Vec<u8>,
    pub notes: Vec<String>,
}

impl Work<'_> {
    /// Does all passes but the last.
    pub fn prepare(&self, clock: &mut Clock) -> Result<Prepared<'_>, OptimizeError> {
        let source = &self.simplified;
        // By its parts: a model of many weights is not copied twice.
        let Model { ir_version, opsets, graph: _, rest } = &self.model;
        let mut model =
            Model { ir_version: *ir_version, opsets: opsets.clone(), graph: source.clone(), rest: rest.clone() };
        let mut notes = Vec::new();
        for pass in &self.recipe.passes {
            notes.extend(self.pass(&mut model, pass, clock)?);
        }
        if self.target.format == ModelFormat::TfLite {
            explicit_padding(&mut model.graph);
        }
        let calibration = match &self.recipe.numbers {
            Numbers::Int8 { calibrator, .. } | Numbers::Int16Activations { calibrator, .. } => {
                if self.target.format == ModelFormat::Onnx {
                    to_opset_13(&mut model)?;
                }
                Some(self.calibrate(&model, *calibrator, clock)?)
            }
            _ => None,
        };
        if let Numbers::Int8 { granularity, bias_correction: true, rules, .. } = &self.recipe.numbers {
            clock.start("correctBiases");
            let (dataset, samples) = self.calibration.as_ref().ok_or(OptimizeError::CalibrationRequired)?;
            let matrices = match rules.inputs_and_outputs {
                // Kernels for microcontrollers have one scale for a whole matrix.
                InterfaceType::Quantized => Granularity::PerTensor,
                InterfaceType::Float32 => *granularity,
            };
            let granularities = Granularities { convolutions: *granularity, matrices };
            let mut step = self.step("CorrectBiases", "measuring the mean error of quantised weights");
            notes.extend(correct_biases(&self.runtime, &mut model, granularities, dataset, *samples, &mut step)?);
        }
        clock.stop();
        let untouched = self.recipe.passes.is_empty()
            && self.recipe.numbers == Numbers::Float32
            && (self.target.format == ModelFormat::TfLite) == self.imported
            && self.request.input_values.is_empty()
            && self.request.input_shapes.is_empty();
        Ok(Prepared { source, model, calibration, notes, untouched })
    }

    fn pass(&self, model: &mut Model, pass: &Pass, clock: &mut Clock) -> Result<Vec<String>, OptimizeError> {
        let notes = match pass {
            Pass::Equalize {} => {
                clock.start("equalize");
                equalize(&mut model.graph)
            }
            Pass::Prune { pattern, score, sparsity, n, m } => {
                clock.start("prune");
                let settings = prune::Settings::new(*pattern, *score, *sparsity, *n, *m);
                let step = self.step("Prune", "measuring what flows through the layers");
                prune(model, &settings, self.data(&step).as_ref())?.notes
            }
            Pass::Factorize { method, energy, macs } => {
                clock.start("factorize");
                let settings = factorize::Settings::new(*method, *energy, *macs)?;
                let step = self.step("Factorize", "measuring what flows through the layers");
                factorize(model, &settings, self.data(&step).as_ref())?.notes
            }
            Pass::Quantize { .. } => return Ok(Vec::new()),
        };
        // Shapes of what was cut or split are found again, and what fell idle goes.
        model.graph = simplify(&model.graph, &self.shapes())?;
        Ok(notes)
    }

    fn calibrate(
        &self,
        model: &Model,
        calibrator: Calibrator,
        clock: &mut Clock,
    ) -> Result<Calibration, OptimizeError> {
        clock.start("calibrate");
        let (dataset, samples) = self.calibration.as_ref().ok_or(OptimizeError::CalibrationRequired)?;
        let mut step = self.step("Calibrate", "finding the ranges of activations");
        Ok(calibrate(&self.runtime, model, dataset, *samples, calibrator, &mut step)?)
    }

    /// Stores the prepared graph in the recipe's numbers, but `keep_float`, operators by the first tensor they make.
    pub fn store(
        &self,
        prepared: &Prepared<'_>,
        keep_float: &BTreeSet<String>,
        clock: &mut Clock,
    ) -> Result<Made, OptimizeError> {
        clock.start("convert");
        let (artifact, notes) = match self.target.format {
            ModelFormat::Onnx => self.store_onnx(prepared, keep_float)?,
            ModelFormat::TfLite => self.store_tflite(prepared, keep_float)?,
        };
        clock.stop();
        Ok(Made { artifact, notes })
    }

    fn store_onnx(
        &self,
        prepared: &Prepared<'_>,
        keep_float: &BTreeSet<String>,
    ) -> Result<(Vec<u8>, Vec<String>), OptimizeError> {
        if prepared.untouched {
            // The runtime does all of our simplifications itself: the source is the artefact, byte for byte, but for
            // weights in files of their own, which come into it.
            return Ok((self.reference.clone(), Vec::new()));
        }
        let mut model = prepared.model.clone();
        let notes = match &self.recipe.numbers {
            Numbers::Float32 => Vec::new(),
            Numbers::Float16 => half_weights(&mut model.graph),
            Numbers::Int8Dynamic => {
                to_opset_13(&mut model)?;
                dynamic(&mut model.graph)?
            }
            Numbers::Int4Weights { rules, block_size } => {
                let form = match rules.form {
                    TargetForm::OnnxBlocks => Int4Form::MatMulNBits,
                    TargetForm::OnnxQdq | TargetForm::TfLiteFilters => Int4Form::Qdq,
                };
                int4(&mut model, *block_size, form)?
            }
            Numbers::Int8 { rules, granularity, .. } => {
                let found = prepared.calibration.as_ref().ok_or(OptimizeError::CalibrationRequired)?;
                match quantize(&model.graph, &found.ranges, &qdq(rules, *granularity, keep_float)) {
                    Ok(quantized) => {
                        model.graph = quantized.graph;
                        if rules.float_bias {
                            float_biases(&mut model.graph);
                        }
                        quantized.notes
                    }
                    // All that could be quantised was kept.
                    Err(QdqError::NothingToDo) if !keep_float.is_empty() => Vec::new(),
                    Err(error) => return Err(error.into()),
                }
            }
            Numbers::Int16Activations { .. } => {
                let problem = "16-bit activations are not stored in ONNX".to_owned();
                return Err(OptimizeError::Recipe(edgeyard_targets::RecipeError::Passes(problem)));
            }
        };
        Ok((model.to_bytes(), notes))
    }

    fn store_tflite(
        &self,
        prepared: &Prepared<'_>,
        keep_float: &BTreeSet<String>,
    ) -> Result<(Vec<u8>, Vec<String>), OptimizeError> {
        if prepared.untouched {
            return Ok((self.source.clone(), Vec::new()));
        }
        let io = |interface: InterfaceType| match interface {
            InterfaceType::Float32 => Int8Io::Float,
            InterfaceType::Quantized => Int8Io::Int8,
        };
        let mut choices = Choices { keep_float: keep_float.clone(), ..Choices::default() };
        let mode = match &self.recipe.numbers {
            Numbers::Float32 => Mode::Float32,
            Numbers::Float16 => Mode::Float16Weights,
            Numbers::Int8Dynamic => Mode::Int8Dynamic,
            Numbers::Int4Weights { block_size, .. } => {
                choices.block_size = *block_size;
                Mode::Int4Weights
            }
            Numbers::Int8 { rules, granularity, .. } => {
                choices.granularity = *granularity;
                Mode::Int8 { io: io(rules.inputs_and_outputs) }
            }
            Numbers::Int16Activations { rules, granularity, .. } => {
                choices.granularity = *granularity;
                Mode::Int16Activations { io: io(rules.inputs_and_outputs) }
            }
        };
        let ranges = prepared.calibration.as_ref().map(|found| &found.ranges);
        let lowered = to_tflite_with(&prepared.model.graph, mode, ranges, &choices)?;
        Ok((lowered.bytes, lowered.notes))
    }

    /// What the report says of calibration.
    pub fn summary(&self, prepared: &Prepared<'_>) -> Option<CalibrationSummary> {
        let calibrator = match &self.recipe.numbers {
            Numbers::Int8 { calibrator, .. } | Numbers::Int16Activations { calibrator, .. } => *calibrator,
            _ => return None,
        };
        prepared.calibration.as_ref().map(|found| CalibrationSummary {
            calibrator: format!("{calibrator:?}"),
            sample_count: found.samples as u64,
            tensors: found.ranges.len() as u64,
        })
    }
}

/// How a target's 8-bit ONNX models are quantised.
pub(super) fn qdq(rules: &Int8Rules, granularity: Granularity, keep_float: &BTreeSet<String>) -> QdqOptions {
    let activations = match rules.activations {
        Integer::UInt8 => Element::UInt8,
        Integer::Int8 => Element::Int8,
    };
    QdqOptions {
        symmetric: rules.symmetric,
        keep_float: keep_float.clone(),
        ..QdqOptions::new(activations, granularity)
    }
}

/// Gives biases back as floats, of the same values as the integers had: the target's compiler stores them itself.
fn float_biases(graph: &mut Graph) {
    let mut floats = Vec::new();
    let constants = &graph.initializers;
    graph.nodes.retain(|node| {
        let tensor = |place: usize| constants.get(node.input(place)?);
        let stored = tensor(0).filter(|tensor| node.is("DequantizeLinear") && tensor.dtype() == DataType::I32);
        let (Some(stored), Some(scales)) = (stored, tensor(1).and_then(Tensor::to_f32)) else { return true };
        let Some(values) = stored.to_i64().filter(|_| !scales.is_empty()) else { return true };
        let float = |(at, value): (usize, &i64)| *value as f32 * scales[at % scales.len()];
        floats.push((
            node.output().to_owned(),
            Tensor::f32(&stored.dims, values.iter().enumerate().map(float).collect()),
        ));
        false
    });
    graph.initializers.extend(floats);
    let read: BTreeSet<&str> = graph.nodes.iter().flat_map(|node| node.reads()).collect();
    let unread: Vec<String> = graph
        .initializers
        .keys()
        .filter(|name| !read.contains(name.as_str()) && !graph.is_output(name))
        .cloned()
        .collect();
    for name in unread {
        graph.initializers.remove(&name);
    }
}
