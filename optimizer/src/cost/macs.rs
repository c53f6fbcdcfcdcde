//! Multiply-accumulates of one operator, in closed form from shapes.

use crate::ir::{Graph, Node};

use super::Shaped;

/// Operators that multiply and sum, but in ways that are not counted here.
const UNCOUNTED: &[&str] = &["Einsum", "DeformConv", "If", "Loop", "Scan", "DFT", "Attention", "MultiHeadAttention"];

/// Multiply-accumulates of a node: 0 for operators that do not sum products, `None` when they cannot be told.
pub fn macs(graph: &Graph, shaped: &Shaped, node: &Node) -> Option<u64> {
    let shape = |index: usize| shaped.shape(graph, node.input(index)?);
    let output = || shaped.shape(graph, node.output());
    match node.op_type.as_str() {
        "Conv" | "ConvInteger" | "FusedConv" => convolution(shape(1)?, output()?),
        "QLinearConv" => convolution(shape(3)?, output()?),
        // Each input element meets each weight of its channel, whatever falls off the edge.
        "ConvTranspose" => product([len(shape(0)?)?, len(shape(1)?.get(1..)?)?]),
        "Gemm" | "FusedGemm" => {
            let [rows, columns] = shape(0)? else { return None };
            let inner = if node.int("transA", 0) != 0 { rows } else { columns };
            product([len(output()?)?, *inner as u64])
        }
        "QGemm" | "MatMul" | "MatMulInteger" | "QLinearMatMul" | "FusedMatMul" | "DynamicQuantizeMatMul" => {
            product([len(output()?)?, *shape(0)?.last()? as u64])
        }
        "MatMulNBits" => {
            let (inner, columns) = (u64::try_from(node.int("K", 0)).ok()?, u64::try_from(node.int("N", 0)).ok()?);
            let x = shape(0)?;
            product([len(x.get(..x.len().checked_sub(1)?)?)?, inner, columns])
        }
        "LSTM" | "GRU" | "RNN" | "DynamicQuantizeLSTM" => {
            // Weights [directions, gates × hidden, input] and [directions, gates × hidden, hidden] at every step.
            let [steps, batch, _] = shape(0)? else { return None };
            let weights = len(shape(1)?)?.checked_add(len(shape(2)?)?)?;
            product([*steps as u64, *batch as u64, weights])
        }
        name if UNCOUNTED.contains(&name) => None,
        _ => Some(0),
    }
}

/// Output elements times the weights that each of them meets.
fn convolution(weights: &[usize], output: &[usize]) -> Option<u64> {
    product([len(output)?, len(weights.get(1..)?)?])
}

fn len(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |len, dim| len.checked_mul(*dim as u64))
}

fn product<const N: usize>(factors: [u64; N]) -> Option<u64> {
    factors.into_iter().try_fold(1u64, u64::checked_mul)
}
