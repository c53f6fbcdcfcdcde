//! Cuts channels out of a graph: constants lose the indexes whose labels go, and nodes that name sizes get new ones. The
//! shapes of the cut graph are inferred afresh and compared with what the labels say: a cut that does not work out never
//! leaves this module.

use std::collections::BTreeSet;

use crate::cost::{Shaped, shaped};
use crate::ir::{Attribute, DataType, Dim, Graph, Node, Tensor, TensorData, slice_ranges};

use super::PruneError;
use super::follow::reshape_target;
use super::labels::Labels;

/// The graph without the units of `gone`.
pub(super) fn cut(
    graph: &Graph,
    one: &Shaped,
    two: &Shaped,
    labels: &mut Labels,
    gone: &BTreeSet<u32>,
) -> Result<Graph, PruneError> {
    let mut out = graph.clone();
    for (name, tensor) in &mut out.initializers {
        let Some(axes) = labels.tensors.get(name).cloned() else { continue };
        let keep: Vec<Vec<usize>> = axes.iter().map(|axis| kept(labels, axis, gone)).collect();
        if keep.iter().zip(&tensor.dims).all(|(keep, len)| keep.len() == *len) {
            continue;
        }
        let TensorData::F32(values) = &tensor.data else {
            return Err(inconsistent(name, "it is not float32"));
        };
        *tensor = Tensor::f32(&keep.iter().map(Vec::len).collect::<Vec<_>>(), pick(values, &tensor.dims, &keep));
    }
    let mut cutter = Cutter { graph, one, two, labels, gone, out };
    for (index, node) in graph.nodes.iter().enumerate() {
        cutter.node(index, node)?;
    }
    let Cutter { mut out, .. } = cutter;
    let names: Vec<String> = out.values.keys().cloned().collect();
    for name in names {
        let Some(shape) = new_shape(one, graph, labels, gone, &name) else { continue };
        let Some(old) = one.shape(graph, &name).filter(|old| *old != shape.as_slice()) else { continue };
        for (axis, (new, old)) in shape.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
            let _ = old;
            if let Some(dim) = out.values.get_mut(&name).and_then(|value| value.shape.get_mut(axis)) {
                *dim = Dim::Static(*new);
            }
            if let Some(dim) = out.shapes.get_mut(&name).and_then(|shape| shape.get_mut(axis)) {
                *dim = *new;
            }
        }
    }
    let check = shaped(&out, 1).map_err(|error| inconsistent(&error.node, &error.problem))?;
    for node in &graph.nodes {
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            let (Some(want), Some(got)) = (new_shape(one, graph, labels, gone, name), check.shape(&out, name)) else {
                continue;
            };
            if want != got {
                return Err(inconsistent(node.label(), &format!("{name} would be {got:?}, not {want:?}")));
            }
        }
    }
    Ok(out)
}

fn inconsistent(at: &str, problem: &str) -> PruneError {
    PruneError::Inconsistent { at: at.to_owned(), problem: problem.to_owned() }
}

fn kept(labels: &mut Labels, axis: &[u32], gone: &BTreeSet<u32>) -> Vec<usize> {
    (0..axis.len()).filter(|at| !gone.contains(&labels.root(axis[*at]))).collect()
}

/// The elements at the kept indexes of every axis.
fn pick(values: &[f32], dims: &[usize], keep: &[Vec<usize>]) -> Vec<f32> {
    let mut places = vec![0usize];
    for (indices, len) in keep.iter().zip(dims) {
        places = places.iter().flat_map(|base| indices.iter().map(move |at| base * len + at)).collect();
    }
    places.into_iter().map(|at| values[at]).collect()
}

fn new_shape(one: &Shaped, graph: &Graph, labels: &mut Labels, gone: &BTreeSet<u32>, name: &str) -> Option<Vec<usize>> {
    match labels.tensors.get(name).cloned() {
        Some(axes) => Some(axes.iter().map(|axis| kept(labels, axis, gone).len()).collect()),
        None => one.shape(graph, name).map(<[usize]>::to_vec),
    }
}

struct Cutter<'a> {
    graph: &'a Graph,
    one: &'a Shaped,
    two: &'a Shaped,
    labels: &'a mut Labels,
    gone: &'a BTreeSet<u32>,
    out: Graph,
}

impl Cutter<'_> {
    fn shape(&mut self, name: &str) -> Option<Vec<usize>> {
        new_shape(self.one, self.graph, self.labels, self.gone, name)
    }

    fn old(&self, name: &str) -> Option<Vec<usize>> {
        self.one.shape(self.graph, name).map(<[usize]>::to_vec)
    }

    fn changed(&mut self, name: &str) -> bool {
        self.shape(name) != self.old(name)
    }

    /// Replaces input `at` of a node by a constant of its own; other nodes may read the old one.
    fn replace(&mut self, index: usize, at: usize, stem: &str, values: Vec<i64>, like: Option<&Tensor>) {
        let name = self.out.fresh(&format!("{}_{stem}", self.graph.nodes[index].label()));
        let tensor = match like.map(Tensor::dtype) {
            Some(DataType::I32) => {
                let narrow = values.iter().map(|value| i32::try_from(*value).unwrap_or(i32::MAX)).collect();
                Tensor { dims: vec![values.len()], data: TensorData::I32(narrow) }
            }
            _ => Tensor::i64(&[values.len()], values),
        };
        self.out.initializers.insert(name.clone(), tensor);
        let node = &mut self.out.nodes[index];
        node.touch();
        if node.inputs.len() <= at {
            node.inputs.resize(at + 1, String::new());
        }
        node.inputs[at] = name;
    }

    fn node(&mut self, index: usize, node: &Node) -> Result<(), PruneError> {
        if !node.is_standard() {
            return Ok(());
        }
        match node.op_type.as_str() {
            "Conv" | "ConvTranspose" if node.int("group", 1) != 1 => self.groups(index, node),
            "Reshape" => self.reshape(index, node),
            "Split" => {
                self.split(index, node);
                Ok(())
            }
            "Slice" => self.slice(index, node),
            "Resize" => {
                let Some(sizes) = node.input(3) else { return Ok(()) };
                if self.changed(node.output())
                    && let Some(shape) = self.shape(node.output())
                {
                    let like = self.graph.constant(sizes);
                    self.replace(index, 3, "sizes", shape.iter().map(|len| *len as i64).collect(), like);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// How many groups are left follows from the channels and the weights of one group.
    fn groups(&mut self, index: usize, node: &Node) -> Result<(), PruneError> {
        let whole = if node.op_type == "Conv" { node.input(0).unwrap_or_default() } else { node.output() };
        let (Some(all), Some(weights)) = (self.shape(whole), node.input(1).and_then(|name| self.shape(name))) else {
            return Ok(());
        };
        let (channels, per) = (all[1], weights[1]);
        if per == 0 || !channels.is_multiple_of(per) {
            return Err(inconsistent(node.label(), &format!("{channels} channels in groups of {per}")));
        }
        let groups = (channels / per) as i64;
        if groups != node.int("group", 1) {
            self.out.nodes[index].set("group", Attribute::Int(groups));
        }
        Ok(())
    }

    fn reshape(&mut self, index: usize, node: &Node) -> Result<(), PruneError> {
        let input = node.input(0).unwrap_or_default();
        if !self.changed(node.output()) && !self.changed(input) {
            return Ok(());
        }
        let target = reshape_target(self.graph, self.one, self.two, node);
        let shapes = (self.shape(input), self.shape(node.output()), self.old(node.output()));
        let (Some(target), (Some(from), Some(to), Some(old))) = (target, shapes) else {
            return Err(inconsistent(node.label(), "its target shape is not known"));
        };
        let zero_copies = node.int("allowzero", 0) == 0;
        let entry = |(at, value): (usize, &i64)| match value {
            -1 => -1,
            0 if zero_copies && from.get(at) == to.get(at) => 0,
            _ if *value == 0 && zero_copies => to[at] as i64,
            _ if to[at] != old[at] => to[at] as i64,
            value => *value,
        };
        let renewed: Vec<i64> = target.iter().enumerate().map(entry).collect();
        let like = node.input(1).and_then(|name| self.graph.constant(name));
        if like.is_none() || renewed != target {
            self.replace(index, 1, "shape", renewed, like);
        }
        Ok(())
    }

    fn split(&mut self, index: usize, node: &Node) {
        let Some(shape) = node.input(0).and_then(|name| self.old(name)) else { return };
        let Some(at) = crate::ir::axis(node.int("axis", 0), shape.len()) else { return };
        if !node.outputs.iter().any(|name| self.changed(name)) {
            return;
        }
        let sizes: Vec<i64> =
            node.outputs.iter().map(|name| self.shape(name).map_or(0, |shape| shape[at] as i64)).collect();
        if self.graph.opset < 13 {
            self.out.nodes[index].set("split", Attribute::Ints(sizes));
        } else {
            self.replace(index, 1, "split", sizes, None);
            self.out.nodes[index].attributes.remove("num_outputs");
        }
    }

    fn slice(&mut self, index: usize, node: &Node) -> Result<(), PruneError> {
        let input = node.input(0).unwrap_or_default();
        if !self.changed(input) && !self.changed(node.output()) {
            return Ok(());
        }
        let unknown = || inconsistent(node.label(), "what it takes is not known");
        let shape = self.old(input).ok_or_else(unknown)?;
        let ranges = slice_ranges(self.graph, node, &shape).ok().flatten().ok_or_else(unknown)?;
        let labels = self.labels.tensors.get(input).cloned().ok_or_else(unknown)?;
        let list = |at: usize| {
            node.input(at).map(|name| self.graph.constant(name).and_then(Tensor::to_i64).ok_or_else(unknown))
        };
        let (mut starts, mut ends) = (list(1).ok_or_else(unknown)??, list(2).ok_or_else(unknown)??);
        let axes = list(3).transpose()?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        for (entry, value) in axes.iter().enumerate() {
            let axis = crate::ir::axis(*value, shape.len()).ok_or_else(unknown)?;
            let keep = kept(self.labels, &labels[axis], self.gone);
            // A free batch keeps what stood there.
            if keep.len() != shape[axis] {
                let before = |end: usize| keep.iter().filter(|index| **index < end).count() as i64;
                starts[entry] = before(ranges[axis].start);
                ends[entry] = before(ranges[axis].start + ranges[axis].count);
            }
        }
        let like = node.input(1).and_then(|name| self.graph.constant(name));
        self.replace(index, 1, "starts", starts, like);
        self.replace(index, 2, "ends", ends, like);
        Ok(())
    }
}
