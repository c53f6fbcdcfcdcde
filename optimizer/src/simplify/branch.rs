//! `If` with a known condition: the nodes of the branch that is taken, to stand in its place. The other branch goes.

use std::collections::{BTreeMap, BTreeSet};

use crate::ir::{Graph, Node, Tensor, inner_graph};

/// What takes the place of an `If`.
pub(super) struct Taken {
    pub nodes: Vec<Node>,
    pub initializers: Vec<(String, Tensor)>,
}

/// Every name a graph uses, of tensors and of nodes, so that those of an inner graph can be told apart from them.
pub(super) fn names(graph: &Graph) -> BTreeSet<String> {
    let nodes = graph.nodes.iter().flat_map(|node| node.outputs.iter().chain(&node.inputs).chain(&node.captures));
    let ends = graph.inputs.iter().chain(&graph.outputs).map(|value| &value.name);
    let labels = graph.nodes.iter().map(|node| &node.name);
    nodes.chain(ends).chain(graph.initializers.keys()).chain(labels).cloned().collect()
}

/// The branch an `If` takes, when its condition is constant and the branch is well formed. Names the outer graph has too
/// get new ones; `used` learns them.
pub(super) fn taken(graph: &Graph, node: &Node, used: &mut BTreeSet<String>) -> Option<Taken> {
    if !node.is("If") {
        return None;
    }
    let condition = graph.constant(node.input(0)?)?.to_i64()?;
    let [condition] = condition[..] else { return None };
    let branch = if condition != 0 { "then_branch" } else { "else_branch" };
    let inner = inner_graph(node, branch, graph.opset)?.ok()?;
    if inner.outputs.len() != node.outputs.len() || !inner.inputs.is_empty() {
        return None;
    }
    let made = inner.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
    let mut renamed = BTreeMap::new();
    for name in inner.initializers.keys().chain(made) {
        // A captured name is also used outside; an inner definition of it would hide it, which ONNX forbids.
        let own = if used.contains(name) { fresh(name, used) } else { name.clone() };
        used.insert(own.clone());
        if renamed.insert(name.clone(), own).is_some() {
            return None;
        }
    }
    let moved = |name: &str| renamed.get(name).map_or_else(|| name.to_owned(), Clone::clone);
    let mut nodes = Vec::with_capacity(inner.nodes.len() + node.outputs.len());
    for mut inner_node in inner.nodes {
        let changed = |name: &String| renamed.get(name).is_some_and(|own| own != name);
        // Names inside a graph of its own cannot be changed from here.
        if inner_node.captures.iter().any(changed) {
            return None;
        }
        if inner_node.inputs.iter().chain(&inner_node.outputs).any(changed) {
            inner_node.touch();
            for name in inner_node.inputs.iter_mut().chain(&mut inner_node.outputs) {
                *name = moved(name);
            }
        }
        // ONNX Runtime refuses two nodes of one name.
        if !inner_node.name.is_empty() && !used.insert(inner_node.name.clone()) {
            inner_node.touch();
            inner_node.name = fresh(&inner_node.name, used);
            used.insert(inner_node.name.clone());
        }
        nodes.push(inner_node);
    }
    for (outer, inner) in node.outputs.iter().zip(&inner.outputs).filter(|(outer, _)| !outer.is_empty()) {
        let label = format!("{}_{branch}_{outer}", node.label());
        nodes.push(Node::new("Identity", &label, &[&moved(&inner.name)], &[outer]));
    }
    let initializers = inner.initializers.into_iter().map(|(name, tensor)| (moved(&name), tensor)).collect();
    Some(Taken { nodes, initializers })
}

fn fresh(name: &str, used: &BTreeSet<String>) -> String {
    (1..)
        .map(|count| format!("{name}_inner{count}"))
        .find(|name| !used.contains(name))
        .expect("an unbounded range has an unused name")
}
