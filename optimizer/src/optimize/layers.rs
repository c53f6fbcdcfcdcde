//! How far each layer's output is from the source's: tensors of the same name in both graphs, on the same samples, one sample
//! at a time, an ONNX artefact in ONNX Runtime and a `.tflite` in its own. And the memory that a `.tflite`'s activations need.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_job::report::LayerAgreement;
use edgeyard_tflite::Model as TfLite;

use crate::dataset::{Dataset, DatasetError};
use crate::diff::{Feed, InsideError, Runtime, inside};
use crate::evaluate::{sqnr, synthetic};
use crate::ir::{DataType, Dim, Model, Value};
use crate::runtime::{OnnxRuntime, RuntimeError, threads};

/// What the name of a quantised tensor's float form ends in; see `quantize`.
const DEQUANTIZED: &str = "_dequantized";
/// Samples that layers are compared on.
pub const LAYER_SAMPLES: usize = 4;

/// Why layers cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// The data cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A model does not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The inside of a `.tflite` does not show.
    #[error(transparent)]
    Inside(#[from] InsideError),
}

/// Signal to noise of every float tensor that both graphs compute under the same name and in the same size, in the source's
/// order. `data` absent: made-up samples of the shape `sample`. A graph that shows all its tensors is optimised less
/// by the runtime, so that the last digits may differ from those of the artefact as it runs.
///
/// # Errors
/// [`LayersError`].
pub fn agreement(
    runtime: &OnnxRuntime,
    source: &Model,
    artifact: &Model,
    data: Option<&Dataset>,
    sample: &[usize],
) -> Result<Vec<LayerAgreement>, LayersError> {
    let made: BTreeMap<&str, &str> = artifact
        .graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().map(|name| (name.as_str(), node.op_type.as_str())))
        .collect();
    let float = |model: &Model, name: &str| model.graph.dtype_of(name).is_none_or(|dtype| dtype == DataType::F32);
    let layer = |(tensor, op): (&str, &str)| {
        // What readers see of a quantised tensor is what DequantizeLinear gives back.
        let stored = format!("{tensor}{DEQUANTIZED}");
        let twin = match made.get(stored.as_str()) {
            Some(&"DequantizeLinear") => stored,
            _ => tensor.to_owned(),
        };
        let shared = !tensor.is_empty() && made.contains_key(twin.as_str());
        (shared && float(source, tensor) && float(artifact, &twin)).then(|| Layer {
            tensor: tensor.to_owned(),
            twin,
            operator: op.to_owned(),
        })
    };
    let layers: Vec<Layer> = source
        .graph
        .nodes
        .iter()
        .flat_map(|node| node.outputs.iter().map(|name| (name.as_str(), node.op_type.as_str())))
        .filter_map(layer)
        .collect();
    let twins: BTreeMap<&str, &str> = layers.iter().map(|l| (l.twin.as_str(), l.tensor.as_str())).collect();
    let mut expected =
        runtime.session(&showing(source, layers.iter().map(|layer| layer.tensor.as_str())).to_bytes(), threads())?;
    let mut got =
        runtime.session(&showing(artifact, layers.iter().map(|layer| layer.twin.as_str())).to_bytes(), threads())?;
    let fixed = expected.input_shape().first().copied().unwrap_or(-1);
    let rows = usize::try_from(fixed).map_or(1, |fixed| fixed.max(1));
    let shape = [&[rows], sample].concat();
    let size: usize = sample.iter().product();
    let mut sums: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let mut both = |values: &[f32]| -> Result<(), LayersError> {
        // A fixed batch sees the sample more than once, which changes no ratio.
        let input = values.repeat(rows);
        let mut signals: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        expected.observe(&input, &shape, |seen, _| {
            signals.insert(seen.name.to_owned(), seen.values.to_vec());
        })?;
        got.observe(&input, &shape, |seen, _| {
            let signal = twins.get(seen.name).and_then(|tensor| Some((*tensor, signals.get(*tensor)?)));
            // Of what was pruned, another number of channels is left: there is nothing to compare.
            let Some((tensor, signal)) = signal.filter(|(_, signal)| signal.len() == seen.values.len()) else {
                return;
            };
            let sum = sums.entry(tensor.to_owned()).or_default();
            for (right, value) in signal.iter().zip(seen.values) {
                sum.0 += f64::from(*right).powi(2);
                sum.1 += (f64::from(*right) - f64::from(*value)).powi(2);
            }
        })?;
        Ok(())
    };
    match data {
        Some(dataset) => {
            let total = dataset.len().min(LAYER_SAMPLES);
            dataset.for_each_batch(total, 1, |_, values, _| both(&values).map(|()| true))?;
        }
        None => (0..LAYER_SAMPLES).try_for_each(|index| both(&synthetic(index * size, size)))?,
    }
    let agreement = |Layer { tensor, operator, .. }: Layer| {
        let (signal, noise) = sums.get(&tensor)?;
        Some(LayerAgreement { sqnr_db: sqnr(*signal, *noise), tensor, operator })
    };
    Ok(layers.into_iter().filter_map(agreement).collect())
}

/// As [`agreement`], of a `.tflite` in its own runtime. A tensor that an activation was fused into is that activation's. What the file
/// has under no name of the source is left out.
///
/// # Errors
/// [`LayersError`].
pub fn inside_agreement(
    onnxruntime: &OnnxRuntime,
    source: &Model,
    artifact: &TfLite,
    runtime: Runtime,
    data: Option<&Dataset>,
    sample: &[usize],
) -> Result<Vec<LayerAgreement>, LayersError> {
    let size: usize = sample.iter().product();
    let feed: Feed<'_> = &|see| match data {
        Some(dataset) => {
            let total = dataset.len().min(LAYER_SAMPLES);
            dataset.for_each_batch(total, 1, |_, values, _| see(&values).map(|()| true))
        }
        None => (0..LAYER_SAMPLES).try_for_each(|index| see(&synthetic(index * size, size))),
    };
    let found = inside(onnxruntime, source, artifact, runtime, sample, feed)?;
    let makers = source.graph.nodes.iter().flat_map(|node| node.outputs.iter().map(|name| (name, &node.op_type)));
    let layer = |(name, operator): (&String, &String)| {
        let tally = found.tensors.get(name)?;
        let sqnr_db = sqnr(tally.signal, tally.noise);
        Some(LayerAgreement { tensor: name.clone(), operator: operator.clone(), sqnr_db })
    };
    Ok(makers.filter_map(layer).collect())
}

/// A tensor of the source and what stands for it in the artefact.
struct Layer {
    tensor: String,
    twin: String,
    operator: String,
}

/// The model with these tensors as its outputs.
fn showing<'a>(model: &Model, tensors: impl Iterator<Item = &'a str>) -> Model {
    let mut model = model.clone();
    for name in tensors {
        if !model.graph.is_output(name) {
            // Without type and shape: the runtime knows them better than a file does.
            let value =
                Value { name: name.to_owned(), dtype: DataType::Undefined, shape: Vec::<Dim>::new(), has_shape: false };
            model.graph.outputs.push(value);
        }
    }
    model
}

/// Bytes of activations that live at the same time, at most, in the order of the file's first graph.
pub fn tflite_peak_bytes(model: &TfLite) -> u64 {
    let Some(graph) = model.subgraphs.first() else { return 0 };
    let count = graph.tensors.len();
    let at = |index: &i32| usize::try_from(*index).ok().filter(|index| *index < count);
    let bytes = |index: usize| {
        let tensor = &graph.tensors[index];
        if model.data_of(tensor).is_empty() { tensor.byte_size().unwrap_or(0) as u64 } else { 0 }
    };
    let mut last_use = vec![0; count];
    for (step, operator) in graph.operators.iter().enumerate() {
        for index in operator.inputs.iter().chain(&operator.outputs).filter_map(at) {
            last_use[index] = step;
        }
    }
    for index in graph.outputs.iter().filter_map(at) {
        last_use[index] = graph.operators.len();
    }
    let mut live: BTreeSet<usize> = graph.inputs.iter().filter_map(at).collect();
    let all = |live: &BTreeSet<usize>| live.iter().map(|index| bytes(*index)).sum::<u64>();
    let mut peak = all(&live);
    for (step, operator) in graph.operators.iter().enumerate() {
        live.extend(operator.outputs.iter().filter_map(at));
        peak = peak.max(all(&live));
        live.retain(|index| last_use[*index] > step);
    }
    peak
}
