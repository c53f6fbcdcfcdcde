//! How far a model's numbers are from a reference's, output by output and layer by layer: both are run on the same samples, and
//! every float tensor of the reference that has the same name in both is compared.

mod inside;
mod plot;

use std::collections::BTreeMap;

use edgeyard_artifact::digest_of;
use edgeyard_job::inspection::{Agreement, ComparedModel, Difference, INSPECTION_VERSION};
use thiserror::Error;

use crate::dataset::{Dataset, DatasetError};
use crate::inspect::{Content, File};
use crate::ir::{DataType, Dim, Model, Value};
use crate::runtime::{LiteRt, Micro, OnnxRuntime, Row, RuntimeError, Session, threads};

pub use inside::{Feed, Inside, InsideError, Runtime, Tally, inside};
pub use plot::{bars, svg};

/// Names of tensors that a note gives.
const NAMED: usize = 8;

/// Why two models cannot be compared.
#[derive(Debug, Error)]
pub enum DiffError {
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// A model does not run.
    #[error("{model}: {source}")]
    Runtime {
        /// Its file.
        model: String,
        /// What the runtime says.
        source: RuntimeError,
    },
    /// The first model is no ONNX.
    #[error("{0} is a .tflite; name the ONNX model it was made from first: its tensors are the reference")]
    ReferenceFormat(String),
    /// A free dimension without a size.
    #[error(
        "{file}: input {input} has the free dimension {dim}; say its size with --input-shape {input}=1,…, or give --data"
    )]
    FreeDimension {
        /// The file.
        file: String,
        /// The input.
        input: String,
        /// The dimension's name.
        dim: String,
    },
    /// The outputs are not alike.
    #[error("{reference} gives {expected} values a sample and {other} gives {found}: they are not the same model")]
    Outputs {
        /// The reference's file.
        reference: String,
        /// Its values.
        expected: usize,
        /// The other file.
        other: String,
        /// Its values.
        found: usize,
    },
}

impl DiffError {
    /// Whether a runtime is missing, which is nobody's bad input.
    pub fn is_infrastructure(&self) -> bool {
        matches!(self, Self::Runtime { source: RuntimeError::Missing { .. }, .. })
    }
}

/// Samples to run both models on.
#[derive(Debug)]
pub enum Samples {
    /// The first of a dataset.
    Data(Dataset),
    /// Made up: uniform in -1 to 1, the same on every call.
    MadeUp,
}

/// Compares `other` with `reference` on at most `limit` samples; `step` hears (done, total).
///
/// # Errors
/// [`DiffError`].
pub fn diff(
    reference: &File,
    other: &File,
    samples: &Samples,
    limit: usize,
    step: &mut dyn FnMut(u64, u64),
) -> Result<Difference, DiffError> {
    let Content::Onnx(model) = &reference.content else {
        return Err(DiffError::ReferenceFormat(reference.name.clone()));
    };
    let failed = |file: &File| {
        let model = file.name.clone();
        move |source| DiffError::Runtime { model: model.clone(), source }
    };
    let shape = sample_shape(reference, model, samples)?;
    if let (Samples::Data(dataset), Some(input)) = (samples, model.graph.inputs.first()) {
        dataset.check_type(input.dtype)?;
    }
    let limit = match samples {
        Samples::Data(dataset) => limit.min(dataset.len()),
        Samples::MadeUp => limit,
    }
    .max(1);
    let runtime = OnnxRuntime::load().map_err(failed(reference))?;
    let mut notes = Vec::new();
    let mut tallies = Tallies::default();
    let described = match &other.content {
        Content::Onnx(changed) => {
            let shared = shared_tensors(model, changed);
            let mut left = Probe::open(&runtime, model, shared.keys(), &shape).map_err(failed(reference))?;
            let mut right = Probe::open(&runtime, changed, shared.values(), &shape).map_err(failed(other))?;
            each(samples, &shape, limit, step, |sample| {
                let expected = left.run(sample).map_err(failed(reference))?;
                let found = right.run(sample).map_err(failed(other))?;
                for (name, values) in &expected {
                    let twin = shared.get(name).unwrap_or(name);
                    if let Some(others) = found.get(twin).filter(|others| others.len() == values.len()) {
                        tallies.see(name, values, others);
                    }
                }
                Ok::<(), DiffError>(())
            })?;
            let missing = model.graph.outputs.iter().filter(|output| !tallies.0.contains_key(&output.name));
            notes.extend(missing.map(|output| {
                format!("output {} is not compared: {} has none of that name and size", output.name, other.name)
            }));
            runtime.describe()
        }
        Content::TfLite(lowered) => {
            let floats = lowered
                .subgraphs
                .first()
                .and_then(|graph| graph.tensors.get(usize::try_from(*graph.inputs.first()?).ok()?));
            let floats = floats.is_none_or(|tensor| tensor.dtype == edgeyard_tflite::TensorType::Float32);
            let mut left = Probe::open(&runtime, model, [], &shape).map_err(failed(reference))?;
            let mut problem = None;
            let mut compare = |runner: &mut dyn crate::runtime::Runner| {
                let outcome = each(samples, &shape, limit, step, |sample| {
                    let expected = left.run(sample).map_err(failed(reference))?;
                    let rows = runner.run(sample, 1).map_err(failed(other))?;
                    let found = rows.first().map_or(&[][..], |Row { values, .. }| values.as_slice());
                    let total: usize =
                        model.graph.outputs.iter().filter_map(|output| expected.get(&output.name)).map(Vec::len).sum();
                    if total != found.len() {
                        return Err(DiffError::Outputs {
                            reference: reference.name.clone(),
                            expected: total,
                            other: other.name.clone(),
                            found: found.len(),
                        });
                    }
                    let mut from = 0;
                    for output in &model.graph.outputs {
                        if let Some(values) = expected.get(&output.name) {
                            tallies.see(&output.name, values, &found[from..from + values.len()]);
                            from += values.len();
                        }
                    }
                    Ok::<(), DiffError>(())
                });
                problem = outcome.err();
            };
            let described = if floats {
                let litert = LiteRt::load().map_err(failed(other))?;
                litert.with(&other.bytes, &shape, &mut compare).map_err(failed(other))?;
                litert.describe()
            } else {
                compare(Micro::runner(&other.bytes, &shape).map_err(failed(other))?.as_mut());
                Micro::describe()
            };
            if let Some(error) = problem {
                return Err(error);
            }
            let place = if floats { Runtime::LiteRt } else { Runtime::Micro };
            let feed: Feed<'_> = &|see| each(samples, &shape, limit, &mut |_, _| {}, see);
            match inside(&runtime, model, lowered, place, &shape, feed) {
                Ok(Inside { tensors, unmatched }) => {
                    let inner = tensors.into_iter().filter(|(name, _)| !model.graph.is_output(name));
                    tallies.0.extend(inner);
                    notes.extend(unmatched_note(&unmatched, &other.name));
                }
                Err(error) => notes.push(format!("layers inside {} are not compared: {error}", other.name)),
            }
            described
        }
    };
    let compared = |file: &File, runtime: String| ComparedModel {
        name: file.name.clone(),
        digest: digest_of(&file.bytes).to_string(),
        size_bytes: file.bytes.len() as u64,
        runtime,
    };
    let (outputs, layers) = tallies.sorted(model);
    Ok(Difference {
        schema_version: INSPECTION_VERSION.to_owned(),
        reference: compared(reference, runtime.describe()),
        other: compared(other, described),
        sample_count: limit as u64,
        samples: match samples {
            Samples::Data(dataset) => dataset.name().to_owned(),
            Samples::MadeUp => "made up: uniform in -1 to 1".to_owned(),
        },
        outputs,
        layers,
        notes,
    })
}

/// Which tensors of a `.tflite` nothing was compared with.
fn unmatched_note(unmatched: &[String], file: &str) -> Option<String> {
    let named = unmatched.get(..NAMED).unwrap_or(unmatched).join(", ");
    let more = unmatched.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!unmatched.is_empty())
        .then(|| format!("not compared, because the reference has none of that name and size: {named}{more} of {file}"))
}

/// The shape of one sample: the data's, or what the model declares.
fn sample_shape(file: &File, model: &Model, samples: &Samples) -> Result<Vec<usize>, DiffError> {
    if let Samples::Data(dataset) = samples {
        return Ok(dataset.sample_shape().to_vec());
    }
    let Some(input) = model.graph.inputs.first() else { return Ok(Vec::new()) };
    let size = |dim: &Dim| match dim {
        Dim::Static(size) => Ok(*size),
        dim => {
            let (file, input) = (file.name.clone(), input.name.clone());
            Err(DiffError::FreeDimension { file, input, dim: dim.to_string() })
        }
    };
    input.shape.iter().skip(1).map(size).collect()
}

/// Float tensors that both models make, by their name in the reference, with the name in the other: what readers see of a tensor
/// that was quantised is what DequantizeLinear gives back.
fn shared_tensors(reference: &Model, other: &Model) -> BTreeMap<String, String> {
    let made: BTreeMap<&str, &str> = other
        .graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().map(|name| (name.as_str(), node.op_type.as_str())))
        .collect();
    let float = |model: &Model, name: &str| model.graph.dtype_of(name).is_none_or(|dtype| dtype == DataType::F32);
    let names = reference.graph.nodes.iter().flat_map(|node| &node.outputs);
    names
        .filter(|name| !name.is_empty() && float(reference, name))
        .filter_map(|name| {
            let stored = format!("{name}_dequantized");
            let twin = match made.get(stored.as_str()) {
                Some(&"DequantizeLinear") if !reference.graph.is_output(name) => stored,
                _ => name.clone(),
            };
            (made.contains_key(twin.as_str()) && float(other, &twin)).then(|| (name.clone(), twin))
        })
        .collect()
}

/// A model with chosen tensors as further outputs.
struct Probe {
    session: Session,
    shape: Vec<usize>,
}

impl Probe {
    fn open<'a>(
        runtime: &OnnxRuntime,
        model: &Model,
        tensors: impl IntoIterator<Item = &'a String>,
        sample: &[usize],
    ) -> Result<Self, RuntimeError> {
        let mut model = model.clone();
        for name in tensors {
            if !model.graph.is_output(name) {
                // Without type and shape: the runtime knows them better than a file does.
                let value =
                    Value { name: name.clone(), dtype: DataType::Undefined, shape: Vec::new(), has_shape: false };
                model.graph.outputs.push(value);
            }
        }
        let session = runtime.session(&model.to_bytes(), threads())?;
        let fits = session.input_shape().len() == sample.len() + 1
            && session.input_shape()[1..].iter().zip(sample).all(|(dim, size)| *dim < 0 || *dim == *size as i64)
            && session.input_shape()[0] <= 1;
        if !fits {
            return Err(RuntimeError::Interface(format!(
                "its input has the shape {:?} (-1 is free); [1, …] for samples of {sample:?} is expected",
                session.input_shape()
            )));
        }
        Ok(Self { session, shape: [&[1], sample].concat() })
    }

    /// Every float output of one sample.
    fn run(&mut self, sample: &[f32]) -> Result<BTreeMap<String, Vec<f32>>, RuntimeError> {
        let mut seen = BTreeMap::new();
        self.session.observe(sample, &self.shape, |output, _| {
            seen.insert(output.name.to_owned(), output.values.to_vec());
        })?;
        Ok(seen)
    }
}

/// Calls `work` with one sample after the other.
fn each<E: From<DatasetError>>(
    samples: &Samples,
    shape: &[usize],
    limit: usize,
    step: &mut dyn FnMut(u64, u64),
    mut work: impl FnMut(&[f32]) -> Result<(), E>,
) -> Result<(), E> {
    match samples {
        Samples::Data(dataset) => dataset.for_each_batch(limit, 1, |first, values, _| {
            step(first as u64, limit as u64);
            work(&values).map(|()| true)
        }),
        Samples::MadeUp => {
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            for sample in 0..limit {
                step(sample as u64, limit as u64);
                let value = |_| {
                    // The generator of Vigna 2016 (xorshift64*), its upper 24 bits.
                    state ^= state >> 12;
                    state ^= state << 25;
                    state ^= state >> 27;
                    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
                };
                let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
                work(&values)?;
            }
            Ok(())
        }
    }
}

/// Sums over samples, by tensor.
#[derive(Debug, Default)]
struct Tallies(BTreeMap<String, Tally>);

impl Tallies {
    fn see(&mut self, name: &str, expected: &[f32], found: &[f32]) {
        let tally = self.0.entry(name.to_owned()).or_default();
        expected.iter().zip(found).for_each(|(expected, found)| tally.see(*expected, *found));
    }

    /// Outputs and layers, in the reference's order.
    fn sorted(self, model: &Model) -> (Vec<Agreement>, Vec<Agreement>) {
        let graph = &model.graph;
        let makers =
            graph.nodes.iter().flat_map(|node| node.outputs.iter().map(move |name| (name, node.op_type.as_str())));
        let agreement = |name: &String, operator: &str| {
            let Tally { signal, noise, worst, largest } = self.0.get(name)?;
            Some(Agreement {
                tensor: name.clone(),
                operator: operator.to_owned(),
                sqnr_db: (*noise > 0.0 && *signal > 0.0).then(|| 10.0 * (signal / noise).log10()),
                max_abs_difference: *worst,
                max_abs_reference: *largest,
            })
        };
        let layers =
            makers.clone().filter(|(name, _)| !graph.is_output(name)).filter_map(|(name, op)| agreement(name, op));
        let outputs = graph.outputs.iter().filter_map(|output| {
            let operator = makers.clone().find(|(name, _)| **name == output.name).map_or("", |(_, operator)| operator);
            agreement(&output.name, operator)
        });
        (outputs.collect(), layers.collect())
    }
}
