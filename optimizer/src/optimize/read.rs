//! The request with everything it names looked up, read and checked: all that can be wrong with an input is found here.

use std::collections::BTreeMap;

use edgeyard_job::Progress;
use edgeyard_job::report::Finding;
use edgeyard_job::spec::{AccuracyMetric, ModelFormat};
use edgeyard_targets::{Numbers, Recipe, Target, needs_calibration};

use super::clock::Clock;
use super::{Request, Watcher};
use crate::dataset::Dataset;
use crate::error::OptimizeError;
use crate::ir::{self, Dim, Graph, Model};
use crate::lint::{STAYS_FLOAT, has_say, lint_source, refused};
use crate::prune;
use crate::quantize::check_weights;
use crate::runtime::{OnnxRuntime, RuntimeError};
use crate::simplify::{Shapes, SimplifyError, bind, explicit_padding, simplify};

/// Fewer samples say nothing about ranges.
const LEAST_SAMPLES: usize = 2;

pub(super) struct Work<'a> {
    pub request: &'a Request,
    pub watcher: &'a dyn Watcher,
    pub target: &'static Target,
    pub recipe: Recipe,
    /// The file as it is.
    pub source: Vec<u8>,
    pub model: Model,
    /// Its graph, simplified for the target.
    pub simplified: Graph,
    /// What runs as the source: the file, with what lay in files beside it.
    pub reference: Vec<u8>,
    /// The source runs in LiteRT: a `.tflite` whose inputs are as they were.
    pub runs_as_tflite: bool,
    /// Shapes that were given for inputs that are still there.
    input_shapes: BTreeMap<String, Vec<usize>>,
    /// The source is a `.tflite`.
    pub imported: bool,
    pub calibration: Option<(Dataset, usize)>,
    pub evaluation: Option<(Dataset, Vec<i64>, AccuracyMetric)>,
    pub runtime: OnnxRuntime,
    /// Operators that lowering will leave in floating point.
    pub rehearsed: Vec<Finding>,
}

impl<'a> Work<'a> {
    pub fn read(request: &'a Request, watcher: &'a dyn Watcher, clock: &mut Clock) -> Result<Self, OptimizeError> {
        let target = Target::find(&request.target)?;
        let recipe = target.recipe(&request.passes)?;
        let ranged = needs_calibration(&request.passes);
        if ranged && request.calibration.is_none() {
            return Err(OptimizeError::CalibrationRequired);
        }
        constraints(request, &recipe)?;
        clock.start("read");
        // Loading the runtime's library takes as long as reading a model: both happen at once.
        let runtime = std::thread::spawn(OnnxRuntime::load);
        let source = fs_err::read(&request.model).map_err(ir::LoadError::Io)?;
        let imported = source.get(4..8) == Some(b"TFL3");
        let mut model = match imported {
            true => ir::import_tflite(&source)?,
            false => ir::load(&source, request.model.parent())?,
        };
        let mut input_shapes = request.input_shapes.clone();
        bind(&mut model.graph, &request.input_values, &mut input_shapes)?;
        let bound = !request.input_values.is_empty();
        let reference = match imported || bound || has_external_data(&model.graph, &source) {
            true => model.to_bytes(),
            false => source.clone(),
        };
        let declared = |dataset: &Dataset| match model.graph.inputs.as_slice() {
            [input] => {
                dataset.check_type(input.dtype)?;
                let shape: Vec<i64> = input.shape.iter().map(dim).collect();
                if input.has_shape { dataset.check_shape(&shape) } else { Ok(()) }
            }
            _ => Ok(()),
        };
        let calibration = match &request.calibration {
            Some((path, samples)) => {
                let dataset = Dataset::open(path).map_err(OptimizeError::calibration_data)?;
                declared(&dataset).map_err(OptimizeError::calibration_data)?;
                let used = dataset.len().min(*samples);
                if ranged && used < LEAST_SAMPLES {
                    return Err(OptimizeError::TooFewSamples { used, least: LEAST_SAMPLES });
                }
                Some((dataset, *samples))
            }
            None => None,
        };
        let evaluation = match &request.evaluation {
            Some((path, metric)) => {
                let dataset = Dataset::open(path).map_err(OptimizeError::evaluation_data)?;
                declared(&dataset).map_err(OptimizeError::evaluation_data)?;
                let labels = dataset.labels().map_err(OptimizeError::evaluation_data)?;
                Some((dataset, labels, *metric))
            }
            None => None,
        };
        check_weights(&model.graph)?;
        let runtime = runtime.join().map_err(|_| RuntimeError::Interface("loading ONNX Runtime died".to_owned()))??;
        let mut work = Self {
            request,
            watcher,
            target,
            recipe,
            source,
            model,
            simplified: Graph::default(),
            reference,
            runs_as_tflite: imported && !bound,
            input_shapes,
            imported,
            calibration,
            evaluation,
            runtime,
            rehearsed: Vec::new(),
        };
        clock.start("simplify");
        work.simplified = simplify(&work.model.graph, &work.shapes())?;
        clock.start("lint");
        work.ask_the_rules()?;
        clock.stop();
        Ok(work)
    }

    /// Refuses what the target's rules refuse, before any work.
    fn ask_the_rules(&mut self) -> Result<(), OptimizeError> {
        if !has_say(self.target) {
            return Ok(());
        }
        let mut graph = self.simplified.clone();
        if self.target.format == ModelFormat::TfLite {
            explicit_padding(&mut graph);
        }
        let findings = lint_source(self.target, graph, &self.recipe.numbers);
        if refused(&findings).is_empty() {
            // What rules say is said again of the artefact; what lowering will do is known here.
            self.rehearsed = findings.into_iter().filter(|finding| finding.rule == STAYS_FLOAT).collect();
            return Ok(());
        }
        Err(OptimizeError::Rules { target: self.target.name.clone(), findings })
    }

    /// What is known of the inputs' shapes for this target.
    pub fn shapes(&self) -> Shapes {
        match self.target.format {
            ModelFormat::TfLite => Shapes::Fixed(self.fixed_shapes()),
            ModelFormat::Onnx if self.input_shapes.is_empty() => Shapes::Declared,
            ModelFormat::Onnx => Shapes::Fixed(self.input_shapes.clone()),
        }
    }

    /// Static shapes: what was asked for, else what the data has, else what the model declares.
    fn fixed_shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let mut shapes = self.input_shapes.clone();
        let data = self.calibration.as_ref().map(|(dataset, _)| dataset);
        let data = data.or(self.evaluation.as_ref().map(|(dataset, ..)| dataset));
        if let ([input], Some(dataset)) = (self.model.graph.inputs.as_slice(), data)
            && input.has_shape
            && input.shape.get(1..).is_some_and(|dims| dims.iter().any(|dim| !matches!(dim, Dim::Static(_))))
        {
            let batch = if let Some(Dim::Static(size)) = input.shape.first() { *size } else { 1 };
            let shape = || [&[batch], dataset.sample_shape()].concat();
            shapes.entry(input.name.clone()).or_insert_with(shape);
        }
        shapes
    }

    /// Calibration data as passes over the graph take it.
    pub fn data<'b>(&'b self, step: &'b dyn Fn(u64, u64) -> bool) -> Option<prune::Data<'b>> {
        let (dataset, samples) = self.calibration.as_ref()?;
        Some(prune::Data { runtime: &self.runtime, dataset, samples: *samples, step: Some(step) })
    }

    /// The shape of one sample of the data, or of the declared input.
    pub fn sample_shape(&self) -> Result<Vec<usize>, OptimizeError> {
        if let Some(dataset) = self.evaluation.as_ref().map(|e| &e.0).or(self.calibration.as_ref().map(|c| &c.0)) {
            return Ok(dataset.sample_shape().to_vec());
        }
        let [input] = self.model.graph.inputs.as_slice() else {
            let problem = format!("it has {} inputs, one is expected", self.model.graph.inputs.len());
            return Err(RuntimeError::Interface(problem).into());
        };
        if let Some(shape) = self.input_shapes.get(&input.name) {
            return Ok(shape.get(1..).unwrap_or_default().to_vec());
        }
        let sizes = |(position, dim): (usize, &Dim)| match dim {
            Dim::Static(size) => Ok(*size),
            dim => Err(SimplifyError::FreeDimension { input: input.name.clone(), dim: dim.to_string(), position }),
        };
        Ok(input.shape.iter().enumerate().skip(1).map(sizes).collect::<Result<_, _>>()?)
    }

    /// Tells the watcher how far a step is, and hears whether to go on.
    pub fn step(&self, step: &'static str, message: &'static str) -> impl Fn(u64, u64) -> bool + use<'_> {
        move |done, total| {
            let (step, message) = (step.to_owned(), message.to_owned());
            self.watcher.progress(&Progress { step, message, done, total });
            !self.watcher.cancelled()
        }
    }
}

/// Constraints that nothing could keep to, or that nothing decides.
fn constraints(request: &Request, recipe: &Recipe) -> Result<(), OptimizeError> {
    let impossible = |problem: &str| Err(OptimizeError::Constraint(problem.to_owned()));
    let mixed = matches!(recipe.numbers, Numbers::Int8 { max_float_operators, .. } if max_float_operators > 0);
    match request.max_accuracy_drop {
        Some(drop) if !(0.0..=1.0).contains(&drop) => impossible("maxAccuracyDrop must be between 0 and 1"),
        Some(_) if request.evaluation.is_none() => impossible(
            "maxAccuracyDrop needs evaluation data to compute accuracy from (spec.evaluation, or --evaluation)",
        ),
        None if mixed => impossible(
            "maxFloatOperators act only when maxAccuracyDrop would be missed: give it (constraints.maxAccuracyDrop, or \
             --max-accuracy-drop)",
        ),
        _ if request.max_size_bytes == Some(0) => impossible("maxSize is 0: no model is that small"),
        _ => Ok(()),
    }
}

/// Whether weights lie in files beside the model.
fn has_external_data(graph: &Graph, source: &[u8]) -> bool {
    // Constants in attributes are known by their bytes alone: where one might lie outside, reading without a folder
    // fails exactly when something does.
    let hint = b"location";
    let suspect =
        |node: &ir::Node| node.raw.as_ref().is_some_and(|raw| raw.windows(hint.len()).any(|window| window == hint));
    graph.has_external_data()
        || graph.nodes.iter().any(suspect) && matches!(ir::load(source, None), Err(ir::LoadError::External { .. }))
}

fn dim(dim: &Dim) -> i64 {
    match dim {
        Dim::Static(size) => *size as i64,
        Dim::Symbol(_) | Dim::Unknown => -1,
    }
}
