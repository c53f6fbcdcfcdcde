//! Cross-layer equalisation: of two layers in a row, output channel i of the first is divided by s and input channel i
//! of the second multiplied by it, which positively homogeneous operators between them do not notice. With
//! s = √(r₁/r₂), where r are the channel's largest absolute weights, both have the same range, so that one scale serves
//! all channels (Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, 4.1).
//!
//! A Clip from 0 to c (ReLU6) notices where it clips. Channels whose values stay below c on the calibration data, before
//! and after, are scaled through it, since on that data it is a ReLU; the others keep their scale.

use std::collections::BTreeMap;

use crate::calibrate::feed::feed;
use crate::calibrate::{CalibrationError, free_batch};
use crate::dataset::Dataset;
use crate::ir::{DataType, Graph, Model, Node, TensorData, Value};
use crate::runtime::{OnnxRuntime, threads};

/// Chains of layers influence one another; this many rounds settle what matters.
const ROUNDS: usize = 20;
/// Weights of a channel are scaled by no more than that, either way: they shall stay far from the ends of float32.
const MAX_SCALE: f32 = 1e4;

/// Two layers whose channels correspond.
struct Pair {
    first: Layer,
    second: Layer,
    /// How many inputs of the second each channel became: more than 1 after an image was flattened.
    repeat: usize,
    /// What lies between them and bounds values above.
    bound: Option<Bound>,
}

/// A Clip from 0 upwards.
struct Bound {
    /// What it clips.
    input: String,
    upper: f32,
    /// For each channel, the share of `upper` that its values reach: channels of more than 1 are clipped.
    reach: Vec<f32>,
}

/// The largest value of each channel of the tensors that a Clip bounds, on the calibration data.
pub type Peaks = BTreeMap<String, Vec<f32>>;

/// Where a layer has its weights.
#[derive(Clone)]
struct Layer {
    node: usize,
    weights: String,
    bias: Option<String>,
    /// The matrix is stored with inputs as rows.
    inputs_first: bool,
    groups: usize,
}

/// Runs the data through the model and gives what [`equalize`] has to know to scale channels through a Clip. Empty, and
/// without a run, for a model that has none in its way. `step` hears (done, total) and says whether to go on.
///
/// # Errors
/// [`CalibrationError`] when the model does not run on the data.
pub fn channel_peaks(
    runtime: &OnnxRuntime,
    model: &Model,
    dataset: &Dataset,
    limit: usize,
    step: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Peaks, CalibrationError> {
    let mut peaks = Peaks::new();
    let bounds = pairs(&model.graph).0.into_iter().filter_map(|pair| pair.bound);
    let names: Vec<String> = bounds.map(|bound| bound.input).collect();
    if names.is_empty() {
        return Ok(peaks);
    }
    let mut watched = model.clone();
    for name in names.iter().filter(|name| !model.graph.is_output(name)) {
        let value = Value { name: name.clone(), dtype: DataType::Undefined, shape: Vec::new(), has_shape: false };
        watched.graph.outputs.push(value);
    }
    let mut session = runtime.session(&watched.to_bytes(), threads())?;
    feed(&mut session, dataset, limit, free_batch(&model.graph), step, |session, batch| {
        session.observe(batch.values, batch.shape, |output, dims| {
            let Some(&channels) = dims.get(1).filter(|_| names.iter().any(|name| name == output.name)) else { return };
            let inner = dims[2..].iter().product::<usize>().max(1);
            let peaks = peaks.entry(output.name.to_owned()).or_insert_with(|| vec![f32::NEG_INFINITY; channels]);
            for (at, values) in output.values.chunks_exact(inner).enumerate() {
                let peak = &mut peaks[at % channels.max(1)];
                *peak = values.iter().fold(*peak, |peak, value| peak.max(*value));
            }
        })?;
        Ok(())
    })?;
    Ok(peaks)
}

/// Makes the weights of neighbouring layers alike in size. Changes no output; with a Clip between layers, none on the data
/// that `peaks` come from. Gives remarks for people.
pub fn equalize(graph: &mut Graph, peaks: &Peaks) -> Vec<String> {
    let (found, mut bounded) = pairs(graph);
    let mut clipped = (0, 0, 0);
    let mut pairs = Vec::with_capacity(found.len());
    for mut pair in found {
        if let Some(bound) = &mut pair.bound {
            let channels = channels(graph, &pair.first).0;
            let Some(peaks) = peaks.get(&bound.input).filter(|peaks| peaks.len() == channels) else {
                bounded += 1;
                continue;
            };
            bound.reach = peaks.iter().map(|peak| peak / bound.upper).collect();
            // What is no number stays away from scales.
            let free = bound.reach.iter().filter(|reach| **reach <= 1.0).count();
            clipped = (clipped.0 + 1, clipped.1 + free, clipped.2 + channels);
        }
        pairs.push(pair);
    }
    for _ in 0..ROUNDS {
        let mut largest = 1f32;
        for pair in &mut pairs {
            largest = largest.max(balance(graph, pair).unwrap_or(1.0));
        }
        if largest < 1.001 {
            break;
        }
    }
    let mut notes = vec![format!("weights of {} pairs of layers equalised", pairs.len())];
    if clipped.0 > 0 {
        let (clips, free, all) = clipped;
        notes.push(format!(
            "{clips} of them through a Clip: {free} of {all} channels stay below its bound on the calibration data"
        ));
    }
    if bounded > 0 {
        notes.push(format!(
            "{bounded} pairs of layers are not equalised: a Clip between them (ReLU6, for instance) bounds values \
             above, and there is no calibration data to tell which channels reach it"
        ));
    }
    notes
}

/// Pairs in order, and how many a bound forbids whatever the data are.
fn pairs(graph: &Graph) -> (Vec<Pair>, usize) {
    let consumers = graph.consumers();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for name in graph.nodes.iter().flat_map(Node::reads) {
        *uses.entry(name).or_default() += 1;
    }
    let (mut pairs, mut forbidden) = (Vec::new(), 0);
    for at in 0..graph.nodes.len() {
        let Some(first) = layer(graph, at, &uses) else { continue };
        let (mut tensor, mut bound, mut hopeless) = (graph.nodes[at].output(), None, false);
        loop {
            let readers = consumers.get(tensor).map_or(&[][..], Vec::as_slice);
            let ([reader], false) = (readers, graph.is_output(tensor)) else { break };
            let node = &graph.nodes[*reader];
            if node.input(0) != Some(tensor) || node.inputs.iter().filter(|name| *name == tensor).count() != 1 {
                break;
            }
            if let Some(second) = layer(graph, *reader, &uses) {
                let (outputs, inputs) = (channels(graph, &first).0, channels(graph, &second).1);
                let fits = outputs > 0 && inputs % outputs == 0 && (inputs == outputs || node.op_type != "Conv");
                match (fits, hopeless) {
                    (true, true) => forbidden += 1,
                    (true, false) => pairs.push(Pair { first, second, repeat: inputs / outputs, bound }),
                    (false, _) => {}
                }
                break;
            }
            match step(graph, node) {
                Step::Homogeneous => {}
                // Of two bounds the second sees what the first left: rare enough to be left alone.
                Step::Bounded(Some(upper)) if bound.is_none() && tensor == graph.nodes[at].output() => {
                    bound = Some(Bound { input: tensor.to_owned(), upper, reach: Vec::new() });
                }
                Step::Bounded(_) => hopeless = true,
                Step::Other => break,
            }
            tensor = node.output();
        }
    }
    (pairs, forbidden)
}

enum Step {
    /// f(s·x) = s·f(x) for s > 0, channel by channel, and channels stay in order.
    Homogeneous,
    /// It would be, without its bounds: from 0 to this, or other ones.
    Bounded(Option<f32>),
    Other,
}

fn step(graph: &Graph, node: &Node) -> Step {
    if !node.is_standard() || node.outputs.len() != 1 {
        return Step::Other;
    }
    match node.op_type.as_str() {
        "Relu" | "LeakyRelu" | "Identity" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" => {
            Step::Homogeneous
        }
        "PRelu" if node.input(1).is_some_and(|slope| graph.constant(slope).is_some()) => Step::Homogeneous,
        "Clip" => Step::Bounded(upper_bound(graph, node)),
        "Flatten" if node.int("axis", 1) == 1 => Step::Homogeneous,
        "Reshape" | "Squeeze" | "Flatten" => {
            // Flattening everything behind the batch keeps channels together and in order.
            let dims = |name: Option<&str>| name.and_then(|name| graph.shape_of(name));
            match (dims(node.input(0)), dims(Some(node.output()))) {
                (Some([batch, rest @ ..]), Some([same, all]))
                    if batch == same && rest.iter().product::<usize>() == *all =>
                {
                    Step::Homogeneous
                }
                _ => Step::Other,
            }
        }
        _ => Step::Other,
    }
}

/// The upper bound of a Clip whose lower one is 0.
fn upper_bound(graph: &Graph, node: &Node) -> Option<f32> {
    let bound = |index: usize, attribute: &str, none: f32| match node.input(index) {
        Some(name) => graph.constant(name)?.to_f32()?.first().copied(),
        None => Some(node.float(attribute, none)),
    };
    let (lower, upper) = (bound(1, "min", f32::MIN)?, bound(2, "max", f32::MAX)?);
    (lower == 0.0 && upper > 0.0).then_some(upper)
}

fn layer(graph: &Graph, at: usize, uses: &BTreeMap<&str, usize>) -> Option<Layer> {
    let node = &graph.nodes[at];
    if !node.is("Conv") && !node.is("Gemm") {
        return None;
    }
    let own = |name: &str| {
        uses.get(name) == Some(&1)
            && !graph.is_output(name)
            && graph.constant(name).and_then(|tensor| tensor.as_f32()).is_some()
    };
    let weights = node.input(1).filter(|name| own(name))?;
    let bias = match node.input(2) {
        Some(name) if own(name) => Some(name.to_owned()),
        Some(_) => return None,
        None => None,
    };
    let dims = &graph.constant(weights)?.dims;
    if dims.len() < 2 || node.int("transA", 0) != 0 || dims.contains(&0) {
        return None;
    }
    let outputs = if node.is("Gemm") && node.int("transB", 0) == 0 { dims[1] } else { dims[0] };
    let bias_len = bias.as_deref().and_then(|name| graph.constant(name)).map(|bias| bias.len());
    if bias_len.is_some_and(|len| len != outputs) {
        return None;
    }
    let groups = usize::try_from(node.int("group", 1)).ok().filter(|groups| *groups > 0 && outputs % groups == 0)?;
    Some(Layer {
        node: at,
        weights: weights.to_owned(),
        bias,
        inputs_first: node.is("Gemm") && node.int("transB", 0) == 0,
        groups,
    })
}

/// Output and input channels.
fn channels(graph: &Graph, layer: &Layer) -> (usize, usize) {
    let dims = graph.constant(&layer.weights).map_or(&[1usize, 1][..], |weights| &weights.dims);
    if layer.inputs_first { (dims[1], dims[0]) } else { (dims[0], dims[1] * layer.groups) }
}

/// Calls `see` with the output channel, input channel and value of every weight.
fn each(graph: &mut Graph, layer: &Layer, mut see: impl FnMut(usize, usize, &mut f32)) -> Option<()> {
    let weights = graph.initializers.get_mut(&layer.weights)?;
    let TensorData::F32(data) = &mut weights.data else { return None };
    let (rows, columns) = (weights.dims[0], weights.dims[1]);
    let inner = weights.dims[2..].iter().product::<usize>().max(1);
    let outputs_per_group = rows / layer.groups;
    for (index, value) in data.iter_mut().enumerate() {
        let (row, column) = (index / inner / columns, index / inner % columns);
        if layer.inputs_first {
            see(column, row, value);
        } else {
            see(row, row / outputs_per_group.max(1) * columns + column, value);
        }
    }
    Some(())
}

/// Equalises one pair; gives the largest factor.
fn balance(graph: &mut Graph, pair: &mut Pair) -> Option<f32> {
    let count = channels(graph, &pair.first).0;
    let (mut first, mut second) = (vec![0f32; count], vec![0f32; count]);
    each(graph, &pair.first, |output, _, value| first[output] = first[output].max(value.abs()))?;
    each(graph, &pair.second, |_, input, value| {
        let channel = input / pair.repeat;
        second[channel] = second[channel].max(value.abs());
    })?;
    let factor = |(first, second): (&f32, &f32)| {
        let factor = (first / second).sqrt();
        // A channel of zeros on either side has no scale to share.
        if factor.is_finite() && factor > 0.0 { factor.clamp(1.0 / MAX_SCALE, MAX_SCALE) } else { 1.0 }
    };
    let mut factors: Vec<f32> = first.iter().zip(&second).map(factor).collect();
    if let Some(bound) = &mut pair.bound {
        for (factor, reach) in factors.iter_mut().zip(&mut bound.reach) {
            // Divided by the factor, values have to stay within the bound.
            *factor = if *reach <= 1.0 { factor.max(*reach) } else { 1.0 };
            *reach = (*reach / *factor).min(if *reach <= 1.0 { 1.0 } else { f32::INFINITY });
        }
    }
    each(graph, &pair.first, |output, _, value| *value /= factors[output])?;
    each(graph, &pair.second, |_, input, value| *value *= factors[input / pair.repeat])?;
    if let Some(bias) = pair.first.bias.as_ref().and_then(|name| graph.initializers.get_mut(name))
        && let TensorData::F32(data) = &mut bias.data
    {
        data.iter_mut().zip(&factors).for_each(|(value, factor)| *value /= factor);
    }
    debug_assert!(pair.first.node < pair.second.node, "nodes stand in order");
    Some(factors.iter().fold(1.0, |largest, factor| largest.max(*factor).max(1.0 / factor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Attribute, Tensor, Value};

    fn graph(activation: &str) -> Graph {
        let mut graph = Graph::default();
        graph.outputs.push(Value {
            name: "y".into(),
            dtype: crate::ir::DataType::F32,
            shape: vec![],
            has_shape: false,
        });
        graph.initializers.insert("w".into(), Tensor::f32(&[2, 1, 1, 1], vec![8.0, 0.5]));
        graph.initializers.insert("b".into(), Tensor::f32(&[2], vec![4.0, 1.0]));
        graph.initializers.insert("v".into(), Tensor::f32(&[1, 2, 1, 1], vec![0.5, 8.0]));
        graph.nodes.push(Node::new("Conv", "first", &["x", "w", "b"], &["c"]));
        graph.nodes.push(Node::new(activation, "between", &["c"], &["r"]));
        graph.nodes.push(Node::new("Conv", "second", &["r", "v"], &["y"]));
        graph
    }

    #[test]
    fn both_sides_of_a_channel_get_the_same_range() {
        let mut graph = graph("Relu");
        assert_eq!(equalize(&mut graph, &Peaks::new()), ["weights of 1 pairs of layers equalised"]);
        assert_eq!(graph.initializers["w"].as_f32().unwrap(), [2.0, 2.0]);
        assert_eq!(graph.initializers["v"].as_f32().unwrap(), [2.0, 2.0]);
        assert_eq!(graph.initializers["b"].as_f32().unwrap(), [1.0, 4.0]);
    }

    #[test]
    fn what_bounds_or_is_read_elsewhere_is_left_alone() {
        let before = graph("Clip");
        let mut clipped = before.clone();
        let notes = equalize(&mut clipped, &Peaks::new());
        assert_eq!(clipped.initializers, before.initializers);
        assert!(notes[1].contains("1 pairs") && notes[1].contains("Clip"), "{notes:?}");

        let mut twice = graph("Relu");
        twice.nodes.push(Node::new("Add", "residual", &["r", "y"], &["z"]));
        let before = twice.initializers.clone();
        equalize(&mut twice, &Peaks::new());
        assert_eq!(twice.initializers, before);

        let mut shared = graph("Relu");
        shared.nodes[2].inputs[1] = "w".into();
        let before = shared.initializers.clone();
        equalize(&mut shared, &Peaks::new());
        assert_eq!(shared.initializers, before);
    }

    #[test]
    fn a_clip_is_a_relu_for_channels_that_stay_below_its_bound() {
        let weights = |peaks: Vec<f32>| {
            let mut graph = graph("Clip");
            graph.nodes[1].set("min", Attribute::Float(0.0));
            graph.nodes[1].set("max", Attribute::Float(6.0));
            let notes = equalize(&mut graph, &Peaks::from([("c".to_owned(), peaks)]));
            (graph.initializers["w"].as_f32().unwrap().to_vec(), notes)
        };
        // The factors are 4 and 1/4: values of the second channel grow.
        let (found, notes) = weights(vec![5.0, 1.0]);
        assert_eq!(found, [2.0, 2.0]);
        assert!(notes[1].contains("1 of them through a Clip: 2 of 2 channels"), "{notes:?}");
        // Up to the bound, and not at all where the clip clips.
        assert_eq!(weights(vec![5.0, 3.0]).0, [2.0, 1.0]);
        let (found, notes) = weights(vec![7.0, 6.0]);
        assert_eq!(found, [8.0, 0.5]);
        assert!(notes[1].contains("1 of 2 channels"), "{notes:?}");
        // A value that is always negative is zero behind the clip, whatever its size.
        assert_eq!(weights(vec![-1.0, f32::NAN]).0, [2.0, 0.5]);
    }

    #[test]
    fn channels_of_zeros_stay() {
        let mut graph = graph("Relu");
        graph.initializers.insert("w".into(), Tensor::f32(&[2, 1, 1, 1], vec![0.0, 0.5]));
        equalize(&mut graph, &Peaks::new());
        assert_eq!(graph.initializers["w"].as_f32().unwrap(), [0.0, 2.0]);
        assert_eq!(graph.initializers["v"].as_f32().unwrap(), [0.5, 2.0]);
    }

    #[test]
    fn groups_map_channels_to_their_own_filters() {
        let mut graph = graph("Relu");
        graph.initializers.insert("v".into(), Tensor::f32(&[4, 1, 1, 1], vec![0.5, 0.25, 8.0, 2.0]));
        graph.nodes[2].set("group", Attribute::Int(2));
        equalize(&mut graph, &Peaks::new());
        assert_eq!(graph.initializers["v"].as_f32().unwrap(), [2.0, 1.0, 2.0, 0.5]);
    }
}
