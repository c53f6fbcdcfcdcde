//! Multiplications of a model, by shape alone: what a core's peak is held against.

use edgeyard_tflite::{BuiltinOp, Model};

/// Multiplications of weights and inputs in one inference: convolutions and fully connected layers, which are nearly all there
/// are. Operators whose tensors have no shape count nothing.
pub fn macs(model: &Model) -> u64 {
    let Some(graph) = model.subgraphs.first() else { return 0 };
    let shape = |tensor: Option<&i32>| -> Option<Vec<u64>> {
        let tensor = graph.tensors.get(usize::try_from(*tensor?).ok()?)?;
        tensor.shape.iter().map(|n| u64::try_from(*n).ok()).collect()
    };
    let of = |operator: &edgeyard_tflite::Operator| -> Option<u64> {
        let (weights, output) = (shape(operator.inputs.get(1)), shape(operator.outputs.first()));
        // How many of them go into one output: all but the dimension of the output's channels.
        let each: u64 = match operator.code.builtin {
            BuiltinOp::CONV_2D | BuiltinOp::FULLY_CONNECTED => weights?.iter().skip(1).product(),
            BuiltinOp::DEPTHWISE_CONV_2D => weights?.iter().take(3).product(),
            _ => return None,
        };
        Some(each.saturating_mul(output?.iter().product()))
    };
    graph.operators.iter().filter_map(of).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgeyard_tflite::{Operator, Subgraph, Tensor, TensorType, op_options};

    fn one(operator: BuiltinOp, weights: &[i32], output: &[i32]) -> u64 {
        let mut model = Model::new("one");
        let tensor = |shape: &[i32]| Tensor::new(TensorType::Int8, shape.to_vec());
        model.subgraphs.push(Subgraph {
            tensors: vec![tensor(&[1]), tensor(weights), tensor(output)],
            inputs: vec![0],
            outputs: vec![2],
            // Options do not matter: shapes tell all.
            operators: vec![Operator::builtin(operator, op_options::Add::default(), vec![0, 1], vec![2])],
            ..Subgraph::default()
        });
        macs(&model)
    }

    #[test]
    fn closed_forms() {
        // 16 channels of 3 x 3 x 8 on an image of 10 x 12.
        assert_eq!(one(BuiltinOp::CONV_2D, &[16, 3, 3, 8], &[1, 10, 12, 16]), 10 * 12 * 16 * 3 * 3 * 8);
        assert_eq!(one(BuiltinOp::DEPTHWISE_CONV_2D, &[1, 3, 3, 8], &[1, 5, 5, 8]), 5 * 5 * 8 * 9);
        assert_eq!(one(BuiltinOp::FULLY_CONNECTED, &[128, 640], &[1, 128]), 128 * 640);
        assert_eq!(one(BuiltinOp::ADD, &[1, 5], &[1, 5]), 0);
        assert_eq!(one(BuiltinOp::CONV_2D, &[16, 3, 3, 8], &[-1, 10, 12, 16]), 0);
    }
}
