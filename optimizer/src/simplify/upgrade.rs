//! Opset 11 and 12 to 13: what per-channel DequantizeLinear needs. Operators whose axes became an input get one;
//! operators whose meaning changed are changed only where both meanings agree.

use thiserror::Error;

use crate::ir::{Attribute, Graph, Model, Node, Tensor};

/// A node that means something else from opset 13 on.
#[derive(Debug, Error, PartialEq)]
#[error(
    "node {node} ({op_type}) cannot be taken from opset {from} to 13, which int8 needs: {problem}; export the model with opset 13"
)]
pub struct UpgradeError {
    /// Which node.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// The model's opset.
    pub from: i64,
    /// Why not.
    pub problem: &'static str,
}

/// Raises the opset to 13 if it is lower.
pub fn to_opset_13(model: &mut Model) -> Result<(), UpgradeError> {
    let from = model.graph.opset;
    if from >= 13 {
        return Ok(());
    }
    let graph = &mut model.graph;
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        if !node.is_standard() {
            continue;
        }
        let refuse = |node: &Node, problem| {
            Err(UpgradeError { node: node.label().to_owned(), op_type: node.op_type.clone(), from, problem })
        };
        if !node.captures.is_empty() || node.attributes.values().any(|value| matches!(value, Attribute::Opaque(_))) {
            return refuse(node, "it has nested graphs");
        }
        match node.op_type.as_str() {
            "Squeeze" | "Unsqueeze" | "ReduceSum" => move_to_input(graph, index, "axes"),
            "Split" => move_to_input(graph, index, "split"),
            "Softmax" | "LogSoftmax" | "Hardmax" => {
                // Before, the input was flattened to a matrix at the axis; the same when the axis is the last one.
                let axis = node.int("axis", 1);
                let rank = node.input(0).and_then(|name| graph.shape_of(name)).map(<[usize]>::len);
                if axis != -1 && rank.is_none_or(|rank| axis != rank as i64 - 1) {
                    return refuse(node, "its axis is not known to be the last one");
                }
                graph.nodes[index].set("axis", Attribute::Int(-1));
            }
            "Dropout" => return refuse(node, "it was exported for training"),
            _ => {}
        }
    }
    model.graph.opset = 13;
    model.opsets.insert(String::new(), 13);
    Ok(())
}

fn move_to_input(graph: &mut Graph, index: usize, name: &str) {
    let Some(values) = graph.nodes[index].ints(name).map(<[i64]>::to_vec) else { return };
    let constant = graph.fresh(&format!("{}_{name}", graph.nodes[index].output()));
    graph.initializers.insert(constant.clone(), Tensor::i64(&[values.len()], values));
    let node = &mut graph.nodes[index];
    node.touch();
    node.attributes.remove(name);
    node.inputs.truncate(1);
    node.inputs.push(constant);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ir::DataType;

    fn model(node: Node) -> Model {
        let mut graph = Graph { opset: 11, nodes: vec![node], ..Graph::default() };
        graph.note("x", DataType::F32, &[1, 4, 1, 1]);
        Model { ir_version: 6, opsets: BTreeMap::from([(String::new(), 11)]), graph, rest: Vec::new() }
    }

    #[test]
    fn axes_become_an_input() {
        let mut model = model(Node::new("Squeeze", "", &["x"], &["y"]).with("axes", Attribute::Ints(vec![2, 3])));
        to_opset_13(&mut model).unwrap();
        assert_eq!((model.graph.opset, model.opsets[""]), (13, 13));
        assert_eq!(model.graph.nodes[0].inputs, ["x", "y_axes"]);
        assert_eq!(model.graph.initializers["y_axes"], Tensor::i64(&[2], vec![2, 3]));
    }

    #[test]
    fn a_softmax_that_would_change_its_meaning_is_refused() {
        let softmax = Node::new("Softmax", "s", &["x"], &["y"]);
        let error = to_opset_13(&mut model(softmax.clone())).unwrap_err();
        assert!(error.to_string().contains("node s (Softmax)"), "{error}");
        assert!(to_opset_13(&mut model(softmax.with("axis", Attribute::Int(3)))).is_ok());
    }
}
