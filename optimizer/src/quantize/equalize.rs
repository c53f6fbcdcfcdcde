//! Cross-layer equalisation: of two layers in a row, output channel i of the first is divided by s and input channel i
//! of the second multiplied by it, which positively homogeneous operators between them do not notice. With
//! s = √(r₁/r₂), where r are the channel's largest absolute weights, both have the same range, so that one scale serves
//! all channels (Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, 4.1).

use std::collections::BTreeMap;

use crate::ir::{Graph, Node, TensorData};

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
}

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

/// Makes the weights of neighbouring layers alike in size. Changes no output. Gives remarks for people.
pub fn equalize(graph: &mut Graph) -> Vec<String> {
    let (pairs, bounded) = pairs(graph);
    for _ in 0..ROUNDS {
        let mut largest = 1f32;
        for pair in &pairs {
            largest = largest.max(balance(graph, pair).unwrap_or(1.0));
        }
        if largest < 1.001 {
            break;
        }
    }
    let mut notes = vec![format!("weights of {} pairs of layers equalised", pairs.len())];
    if bounded > 0 {
        notes.push(format!(
            "{bounded} pairs of layers are not equalised: a Clip between them (ReLU6, for instance) bounds values above"
        ));
    }
    notes
}

/// Pairs in order, and how many a bounded activation forbids.
fn pairs(graph: &Graph) -> (Vec<Pair>, usize) {
    let consumers = graph.consumers();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for name in graph.nodes.iter().flat_map(Node::reads) {
        *uses.entry(name).or_default() += 1;
    }
    let (mut pairs, mut bounded) = (Vec::new(), 0);
    for at in 0..graph.nodes.len() {
        let Some(first) = layer(graph, at, &uses) else { continue };
        let (mut tensor, mut clipped) = (graph.nodes[at].output(), false);
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
                match (fits, clipped) {
                    (true, true) => bounded += 1,
                    (true, false) => pairs.push(Pair { first, second, repeat: inputs / outputs }),
                    (false, _) => {}
                }
                break;
            }
            match step(graph, node) {
                Step::Homogeneous => {}
                Step::Bounded => clipped = true,
                Step::Other => break,
            }
            tensor = node.output();
        }
    }
    (pairs, bounded)
}

enum Step {
    /// f(s·x) = s·f(x) for s > 0, channel by channel, and channels stay in order.
    Homogeneous,
    /// It would be, without its bound.
    Bounded,
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
        "Clip" => Step::Bounded,
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
fn balance(graph: &mut Graph, pair: &Pair) -> Option<f32> {
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
    let factors: Vec<f32> = first.iter().zip(&second).map(factor).collect();
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
        assert_eq!(equalize(&mut graph), ["weights of 1 pairs of layers equalised"]);
        assert_eq!(graph.initializers["w"].as_f32().unwrap(), [2.0, 2.0]);
        assert_eq!(graph.initializers["v"].as_f32().unwrap(), [2.0, 2.0]);
        assert_eq!(graph.initializers["b"].as_f32().unwrap(), [1.0, 4.0]);
    }

    #[test]
    fn what_bounds_or_is_read_elsewhere_is_left_alone() {
        let before = graph("Clip");
        let mut clipped = before.clone();
        let notes = equalize(&mut clipped);
        assert_eq!(clipped.initializers, before.initializers);
        assert!(notes[1].contains("1 pairs") && notes[1].contains("Clip"), "{notes:?}");

        let mut twice = graph("Relu");
        twice.nodes.push(Node::new("Add", "residual", &["r", "y"], &["z"]));
        let before = twice.initializers.clone();
        equalize(&mut twice);
        assert_eq!(twice.initializers, before);

        let mut shared = graph("Relu");
        shared.nodes[2].inputs[1] = "w".into();
        let before = shared.initializers.clone();
        equalize(&mut shared);
        assert_eq!(shared.initializers, before);
    }

    #[test]
    fn channels_of_zeros_stay() {
        let mut graph = graph("Relu");
        graph.initializers.insert("w".into(), Tensor::f32(&[2, 1, 1, 1], vec![0.0, 0.5]));
        equalize(&mut graph);
        assert_eq!(graph.initializers["w"].as_f32().unwrap(), [0.0, 2.0]);
        assert_eq!(graph.initializers["v"].as_f32().unwrap(), [0.5, 2.0]);
    }

    #[test]
    fn groups_map_channels_to_their_own_filters() {
        let mut graph = graph("Relu");
        graph.initializers.insert("v".into(), Tensor::f32(&[4, 1, 1, 1], vec![0.5, 0.25, 8.0, 2.0]));
        graph.nodes[2].set("group", Attribute::Int(2));
        equalize(&mut graph);
        assert_eq!(graph.initializers["v"].as_f32().unwrap(), [2.0, 1.0, 2.0, 0.5]);
    }
}
