//! Weights as IEEE halves: each large float32 constant is stored in half the bytes and cast back where it is read, so
//! that inputs, outputs and arithmetic stay float32. Runtimes fold the casts when they load the model.

use half::f16;

use crate::ir::{Attribute, DataType, Graph, Node, Tensor, TensorData};

/// Smaller constants gain less than the cast that they need costs.
const MIN_ELEMENTS: usize = 32;

/// Largest share of a tensor's values that may become zero: more than that, and the tensor's scale is wrong for halves.
const MAX_FLUSHED: f64 = 0.01;

/// Why a tensor cannot be stored in halves: a value above 65504 or not a number, or too many below 2^-25, which become
/// zero.
pub(crate) fn beyond_half(data: &[f32]) -> Option<String> {
    if let Some(value) = data.iter().find(|value| f16::from_f32(**value).is_infinite() || value.is_nan()) {
        return Some(format!("its value {value} is beyond float16, which ends at 65504"));
    }
    let (mut flushed, mut nonzero) = (0usize, 0usize);
    for value in data.iter().filter(|value| **value != 0.0) {
        nonzero += 1;
        flushed += usize::from(f16::from_f32(*value).to_bits() & 0x7fff == 0);
    }
    (flushed as f64 > MAX_FLUSHED * nonzero as f64)
        .then(|| format!("{flushed} of its {nonzero} values are too small for float16 and would become 0"))
}

/// Rewrites the graph; gives remarks on what stayed float32 and why.
pub fn half_weights(graph: &mut Graph) -> Vec<String> {
    let mut notes = Vec::new();
    let mut casts = Vec::new();
    let names: Vec<String> = graph.initializers.keys().cloned().collect();
    for name in names {
        let Some(tensor) = graph.initializers.get(&name) else { continue };
        let Some(data) = tensor.as_f32().filter(|data| data.len() >= MIN_ELEMENTS) else { continue };
        let captured = graph.nodes.iter().any(|node| node.captures.contains(&name));
        if captured || graph.is_output(&name) {
            notes.push(format!("{name} stays float32: a nested graph or an output needs it"));
            continue;
        }
        if let Some(why) = beyond_half(data) {
            notes.push(format!("{name} stays float32: {why}"));
            continue;
        }
        let halves = data.iter().map(|value| f16::from_f32(*value).to_bits()).collect();
        let stored = Tensor { dims: tensor.dims.clone(), data: TensorData::F16(halves) };
        let stored_name = graph.fresh(&format!("{name}_float16"));
        graph.initializers.insert(stored_name.clone(), stored);
        graph.initializers.remove(&name);
        let cast = Node::new("Cast", &format!("{name}_cast"), &[&stored_name], &[&name]);
        casts.push(cast.with("to", Attribute::Int(DataType::F32.onnx())));
    }
    // Readers keep their bytes: the cast makes the tensor under its old name.
    casts.append(&mut graph.nodes);
    graph.nodes = casts;
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_constants_become_halves_and_what_would_overflow_does_not() {
        let mut graph = Graph::default();
        graph.initializers.insert("w".into(), Tensor::f32(&[64], vec![0.5; 64]));
        graph.initializers.insert("small".into(), Tensor::f32(&[2], vec![0.5; 2]));
        graph.initializers.insert("huge".into(), Tensor::f32(&[64], vec![1e6; 64]));
        graph.initializers.insert("tiny".into(), Tensor::f32(&[64], vec![1e-9; 64]));
        graph.nodes.push(Node::new("Add", "a", &["x", "w"], &["y"]));
        let notes = half_weights(&mut graph);
        assert_eq!(graph.nodes[0].op_type, "Cast");
        assert_eq!(graph.nodes[0].outputs, ["w"]);
        assert_eq!(graph.initializers["w_float16"].data, TensorData::F16(vec![0x3800; 64]));
        assert!(graph.initializers.contains_key("small") && !graph.initializers.contains_key("w"));
        assert!(notes.len() == 2 && notes[0].contains("huge") && notes[0].contains("1000000"));
        assert!(notes[1].contains("tiny") && notes[1].contains("64 of its 64"), "{notes:?}");
    }

    #[test]
    fn the_guard_stands_just_where_halves_end() {
        assert_eq!(beyond_half(&[65504.0, 65519.0, -65504.0]), None);
        assert!(beyond_half(&[65520.0]).is_some() && beyond_half(&[f32::NAN]).is_some());
        let (kept, flushed) = (2f32.powi(-24), 2f32.powi(-25));
        assert_eq!(beyond_half(&[kept, 0.0, -kept]), None);
        assert!(beyond_half(&[kept, flushed]).is_some());
        // One in a hundred may vanish.
        let mut mostly = vec![1.0; 99];
        mostly.push(flushed);
        assert_eq!(beyond_half(&mostly), None);
        mostly.push(flushed);
        assert!(beyond_half(&mostly).is_some());
    }
}
