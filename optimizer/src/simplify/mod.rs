//! Makes a graph small: what depends on no input is computed, what does nothing is removed, batch normalisation goes
//! into the weights before it. With [`Shapes::Fixed`] every tensor gets a static shape, as lowerings need it.
//! Outputs of the graph keep their names and values; nodes that need no change keep their bytes.

mod bind;
mod branch;
pub(crate) mod fold;
mod fuse;
mod patterns;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;

use crate::ir::{Attribute, DataType, Dim, Graph, InferError, Node, Tensor, infer};

pub use bind::bind;
pub use patterns::{Allowed, fuse_patterns};
pub use upgrade::{UpgradeError, to_opset_13};

/// What is known of the inputs' shapes.
#[derive(Debug, Clone, Default)]
pub enum Shapes {
    /// What the file says; free dimensions stay free.
    #[default]
    Declared,
    /// All static: the given shapes, for other inputs the declared ones with a batch of 1.
    Fixed(BTreeMap<String, Vec<usize>>),
}

/// Why a graph cannot be made simple.
#[derive(Debug, Error)]
pub enum SimplifyError {
    /// A node contradicts its inputs.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A dimension has no number.
    #[error(
        "input {input} has the free dimension {dim} at position {position}; say its size, for example with \
         --input-shape {input}=1,3,224,224"
    )]
    FreeDimension {
        /// Which input.
        input: String,
        /// How the dimension is called.
        dim: String,
        /// Counts from 0.
        position: usize,
    },
    /// A given shape is none for this input.
    #[error("input {input} is declared as [{declared}], the given shape is {given:?}")]
    WrongShape {
        /// Which input.
        input: String,
        /// The declared shape.
        declared: String,
        /// The given shape.
        given: Vec<usize>,
    },
    /// A shape for an input that is not there.
    #[error("a shape is given for {0}, which is no input of the model")]
    NoSuchInput(String),
    /// A given value is none for this input.
    #[error("input {input} cannot be given a value: {problem}")]
    WrongValue {
        /// Which input.
        input: String,
        /// What is wrong.
        problem: String,
    },
}

/// The simplified graph.
pub fn simplify(graph: &Graph, shapes: &Shapes) -> Result<Graph, SimplifyError> {
    let mut graph = graph.clone();
    graph.shapes.clear();
    graph.values.clear();
    if let Shapes::Fixed(given) = shapes {
        fix_inputs(&mut graph, given)?;
    }
    for value in graph.inputs.iter().chain(&graph.outputs).cloned().collect::<Vec<_>>() {
        graph.values.insert(value.name.clone(), value);
    }
    // A declared output shape may be wrong or free; what inference finds is what counts.
    for value in graph.inputs.clone() {
        if let Some(shape) = value.static_shape() {
            graph.shapes.insert(value.name, shape);
        }
    }
    // Folding uncovers batch normalisations with constant parameters, and fusing uncovers constants: until nothing
    // changes. Each round brings that closer: it removes nodes, or an `If`, or a batch normalisation.
    loop {
        let before = operations(&graph);
        fold_and_infer(&mut graph)?;
        remove_no_ops(&mut graph);
        fuse_patterns(&mut graph, Allowed::OfOpset);
        fuse::fuse(&mut graph);
        remove_dead(&mut graph);
        if operations(&graph) == before {
            break;
        }
    }
    fold_and_infer(&mut graph)?;
    for output in &mut graph.outputs {
        if let (Shapes::Fixed(_), Some(shape)) = (shapes, graph.shapes.get(&output.name)) {
            output.shape = shape.iter().copied().map(Dim::Static).collect();
            output.has_shape = true;
        }
    }
    Ok(graph)
}

fn operations(graph: &Graph) -> Vec<(String, String)> {
    graph.nodes.iter().map(|node| (node.op_type.clone(), node.output().to_owned())).collect()
}

fn fix_inputs(graph: &mut Graph, given: &BTreeMap<String, Vec<usize>>) -> Result<(), SimplifyError> {
    if let Some(name) = given.keys().find(|name| !graph.inputs.iter().any(|input| input.name == **name)) {
        return Err(SimplifyError::NoSuchInput(name.clone()));
    }
    for input in &mut graph.inputs {
        if let Some(shape) = given.get(&input.name) {
            let fits = !input.has_shape
                || input.shape.len() == shape.len()
                    && input.shape.iter().zip(shape).all(|(dim, size)| match dim {
                        Dim::Static(declared) => declared == size,
                        Dim::Symbol(_) | Dim::Unknown => *size > 0,
                    });
            if !fits {
                let declared = input.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(SimplifyError::WrongShape { input: input.name.clone(), declared, given: shape.clone() });
            }
            input.shape = shape.iter().copied().map(Dim::Static).collect();
            input.has_shape = true;
            continue;
        }
        for (position, dim) in input.shape.iter_mut().enumerate() {
            match dim {
                Dim::Static(_) => {}
                _ if position == 0 => *dim = Dim::Static(1),
                free => {
                    let dim = free.to_string();
                    return Err(SimplifyError::FreeDimension { input: input.name.clone(), dim, position });
                }
            }
        }
    }
    Ok(())
}

/// One walk in order: infers each node's outputs and replaces it by its value where that can be computed, and an `If`
/// of known condition by the branch it takes.
fn fold_and_infer(graph: &mut Graph) -> Result<(), SimplifyError> {
    let mut names = if graph.nodes.iter().any(|node| node.is("If")) { branch::names(graph) } else { BTreeSet::new() };
    let mut nodes: VecDeque<Node> = std::mem::take(&mut graph.nodes).into();
    let mut kept = Vec::with_capacity(nodes.len());
    while let Some(node) = nodes.pop_front() {
        if let Some(taken) = branch::taken(graph, &node, &mut names) {
            graph.initializers.extend(taken.initializers);
            taken.nodes.into_iter().rev().for_each(|node| nodes.push_front(node));
            continue;
        }
        // A result that is not a number (the logarithm of a negative constant) stays an operation: no file holds it.
        let number = |tensor: &Tensor| tensor.to_f32().is_none_or(|data| !data.iter().any(|value| value.is_nan()));
        let folded = fold::fold(graph, &node).filter(|values| values.iter().all(number));
        if let Some(values) = folded.filter(|values| values.len() == node.outputs.len()) {
            // A graph output must be made by a node; ONNX Runtime takes an initializer, other readers do not.
            if !node.outputs.iter().any(|name| graph.is_output(name)) {
                for (name, tensor) in node.outputs.iter().zip(values) {
                    graph.initializers.insert(name.clone(), tensor);
                }
                continue;
            }
        }
        if let Some(outputs) = infer(graph, &node)? {
            for (name, (dtype, shape)) in node.outputs.iter().zip(outputs) {
                if !name.is_empty() {
                    graph.note(name, dtype, &shape);
                }
            }
        }
        kept.push(node);
    }
    graph.nodes = kept;
    Ok(())
}

/// Removes nodes whose output is their input.
fn remove_no_ops(graph: &mut Graph) {
    let mut index = 0;
    while index < graph.nodes.len() {
        let node = &graph.nodes[index];
        if !is_no_op(graph, node) || !replace(graph, index) {
            index += 1;
        }
    }
}

fn is_no_op(graph: &Graph, node: &Node) -> bool {
    let shapes = |index: usize| node.input(index).and_then(|name| graph.shape_of(name));
    let same_shape = || shapes(0).is_some() && shapes(0) == graph.shape_of(node.output());
    match node.op_type.as_str() {
        _ if !node.is_standard() => false,
        "Identity" => true,
        "Dropout" => {
            let training = node.input(2).is_some_and(|name| {
                graph.constant(name).and_then(|tensor| tensor.to_i64()).is_none_or(|values| values != [0])
            });
            !training && !node.outputs.iter().skip(1).any(|name| !name.is_empty() && is_read(graph, name))
        }
        "Cast" => node.input(0).and_then(|name| graph.dtype_of(name)) == Some(DataType::from_onnx(node.int("to", 0))),
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Expand" => same_shape(),
        "Transpose" => node.ints("perm").is_some_and(|perm| perm.iter().copied().eq(0..perm.len() as i64)),
        "Concat" | "Sum" | "Max" | "Min" => node.inputs.len() == 1,
        _ => false,
    }
}

fn is_read(graph: &Graph, name: &str) -> bool {
    graph.is_output(name) || graph.nodes.iter().any(|node| node.reads().any(|read| read == name))
}

/// Takes node `index` out by joining its first input and output; false when that cannot be.
fn replace(graph: &mut Graph, index: usize) -> bool {
    let node = &graph.nodes[index];
    let (Some(input), output) = (node.input(0).map(str::to_owned), node.output().to_owned()) else { return false };
    // Hostile models give any operator several outputs, or none.
    if output.is_empty() {
        return false;
    }
    if node.outputs.iter().skip(1).any(|name| !name.is_empty() && is_read(graph, name)) {
        return false;
    }
    let captured = |name: &str| graph.nodes.iter().any(|node| node.captures.iter().any(|capture| capture == name));
    if graph.is_output(&output) {
        // The maker of the input takes over the output's name, unless something else needs the input's.
        let producer = graph.nodes.iter().position(|node| node.outputs.contains(&input));
        let Some(producer) = producer.filter(|_| !graph.is_output(&input) && !captured(&input)) else { return false };
        if graph.dtype_of(&input) != graph.dtype_of(&output) {
            return false;
        }
        graph.nodes.remove(index);
        let maker = &mut graph.nodes[producer];
        maker.touch();
        maker.outputs.iter_mut().filter(|name| **name == input).for_each(|name| name.clone_from(&output));
        rename_reads(graph, &input, &output);
    } else {
        if captured(&output) {
            return false;
        }
        graph.nodes.remove(index);
        rename_reads(graph, &output, &input);
    }
    true
}

/// Makes every reader of `from` read `to`.
pub(crate) fn rename_reads(graph: &mut Graph, from: &str, to: &str) {
    for node in &mut graph.nodes {
        if node.inputs.iter().any(|name| name == from) {
            node.touch();
            node.inputs.iter_mut().filter(|name| *name == from).for_each(|name| to.clone_into(name));
        }
    }
}

/// Removes nodes, constants and notes that no output depends on.
pub(crate) fn remove_dead(graph: &mut Graph) {
    let mut needed: BTreeSet<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    let mut keep = vec![false; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|name| needed.contains(name)) {
            keep[index] = true;
            needed.extend(node.reads().map(str::to_owned));
        }
    }
    let mut keep = keep.into_iter();
    graph.nodes.retain(|_| keep.next().unwrap_or(true));
    graph.initializers.retain(|name, _| needed.contains(name));
    let made: BTreeSet<&str> = graph
        .nodes
        .iter()
        .flat_map(|node| &node.outputs)
        .chain(graph.inputs.iter().map(|v| &v.name))
        .map(String::as_str)
        .collect();
    graph.values.retain(|name, _| made.contains(name.as_str()));
    graph.shapes.retain(|name, _| made.contains(name.as_str()));
}

/// Replaces `auto_pad` by explicit pads where the shapes are known, so that nobody else has to.
pub fn explicit_padding(graph: &mut Graph) {
    let mut explicit = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if !matches!(node.op_type.as_str(), "Conv" | "MaxPool" | "AveragePool") || !node.is_standard() {
            continue;
        }
        if matches!(node.string("auto_pad"), None | Some("NOTSET")) {
            continue;
        }
        let Some(input) = node.input(0).and_then(|name| graph.shape_of(name)).filter(|shape| shape.len() > 2) else {
            continue;
        };
        let kernel: Option<Vec<usize>> = match node.ints("kernel_shape") {
            Some(kernel) => kernel.iter().map(|size| usize::try_from(*size).ok()).collect(),
            None => node.input(1).and_then(|name| graph.shape_of(name)).map(|shape| shape[2..].to_vec()),
        };
        if let Some(Ok(window)) = kernel.map(|kernel| crate::ir::window(node, &input[2..], &kernel)) {
            explicit.push((index, window.pads));
        }
    }
    for (index, pads) in explicit {
        let node = &mut graph.nodes[index];
        node.attributes.remove("auto_pad");
        node.set("pads", Attribute::Ints(pads.into_iter().map(|pad| pad as i64).collect()));
    }
}
