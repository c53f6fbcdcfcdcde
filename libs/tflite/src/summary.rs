//! What a model is at a glance: enough to feed it, to check a target's limits, and to estimate its work.

use std::collections::BTreeMap;

use crate::model::{Model, Operator, Subgraph, Tensor};
use crate::ops::BuiltinOp;
use crate::options::Options;
use crate::types::TensorType;
use crate::{ReadError, read};

/// A model's outside and the sum of its inside.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Free text about the file's origin.
    pub description: String,
    /// Bytes of the file.
    pub file_bytes: usize,
    /// Bytes of constants: weights, biases, shapes.
    pub constant_bytes: usize,
    /// What has to be fed, in order.
    pub inputs: Vec<TensorSummary>,
    /// What comes out, in order.
    pub outputs: Vec<TensorSummary>,
    /// Operators of all subgraphs by name and version, sorted.
    pub operators: Vec<OperatorSummary>,
    /// Number of subgraphs.
    pub subgraphs: usize,
    /// Number of tensors of all subgraphs.
    pub tensors: usize,
    /// Multiply-accumulates of convolutions and matrix products in one inference of the first subgraph, as far as shapes
    /// are static.
    pub macs: u64,
    /// The metadata entry of that name.
    pub min_runtime_version: Option<String>,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSummary {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: TensorType,
    /// Dimensions.
    pub shape: Vec<i32>,
    /// Scale and zero point of the tensor, if it is quantized as a whole.
    pub quantization: Option<(f32, i64)>,
    /// Bytes to feed or to read, for types of fixed size.
    pub bytes: Option<usize>,
}

/// How often an operator occurs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSummary {
    /// The schema's name, or a custom operator's.
    pub name: String,
    /// Its version.
    pub version: i32,
    /// Number of occurrences.
    pub count: usize,
}

/// Reads a .tflite file and sums it up.
///
/// # Errors
/// As [`read`].
pub fn inspect(bytes: &[u8]) -> Result<Summary, ReadError> {
    Ok(Summary { file_bytes: bytes.len(), ..summarize(&read(bytes)?) })
}

/// Sums up a model in memory; `file_bytes` is 0.
pub fn summarize(model: &Model) -> Summary {
    let entry = model.subgraphs.first();
    let ends = |list: fn(&Subgraph) -> &Vec<i32>| {
        entry.map_or_else(Vec::new, |graph| {
            list(graph).iter().filter_map(|&index| graph.tensors.get(index as usize)).map(tensor_summary).collect()
        })
    };
    let mut counts: BTreeMap<(String, i32), usize> = BTreeMap::new();
    for operator in model.subgraphs.iter().flat_map(|graph| &graph.operators) {
        let name = operator.code.custom.clone().unwrap_or_else(|| operator.code.builtin.to_string());
        *counts.entry((name, operator.code.version)).or_default() += 1;
    }
    let metadata: Vec<u32> = model.metadata.iter().map(|(_, index)| *index).collect();
    let min_runtime_version =
        model.metadata.iter().find(|(name, _)| name == "min_runtime_version").map(|(_, index)| {
            let text = model.buffers.get(*index as usize).map_or(&[][..], Vec::as_slice);
            String::from_utf8_lossy(text).trim_end_matches('\0').to_owned()
        });
    Summary {
        description: model.description.clone(),
        file_bytes: 0,
        constant_bytes: model
            .buffers
            .iter()
            .enumerate()
            .filter(|(index, _)| !metadata.contains(&(*index as u32)))
            .map(|(_, data)| data.len())
            .sum(),
        inputs: ends(|graph| &graph.inputs),
        outputs: ends(|graph| &graph.outputs),
        operators: counts
            .into_iter()
            .map(|((name, version), count)| OperatorSummary { name, version, count })
            .collect(),
        subgraphs: model.subgraphs.len(),
        tensors: model.subgraphs.iter().map(|graph| graph.tensors.len()).sum(),
        macs: entry.map_or(0, |graph| {
            graph.operators.iter().fold(0, |sum: u64, operator| sum.saturating_add(macs(graph, operator)))
        }),
        min_runtime_version,
    }
}

fn tensor_summary(tensor: &Tensor) -> TensorSummary {
    let quantization = tensor.quantization.as_ref().and_then(|q| match (&q.scale[..], &q.zero_point[..]) {
        (&[scale], &[zero_point]) => Some((scale, zero_point)),
        (&[scale], &[]) => Some((scale, 0)),
        _ => None,
    });
    TensorSummary {
        name: tensor.name.clone(),
        dtype: tensor.dtype,
        shape: tensor.shape.clone(),
        quantization,
        bytes: tensor.byte_size(),
    }
}

fn macs(graph: &Subgraph, operator: &Operator) -> u64 {
    let tensor = |list: &[i32], at: usize| {
        list.get(at).and_then(|&index| usize::try_from(index).ok()).and_then(|index| graph.tensors.get(index))
    };
    let elements = |tensor: &Tensor| tensor.elements().unwrap_or(0) as u64;
    let dim = |tensor: &Tensor, at: usize| tensor.shape.get(at).map_or(0, |&dim| u64::from(dim.unsigned_abs()));
    let (Some(output), Some(weights)) = (tensor(&operator.outputs, 0), tensor(&operator.inputs, 1)) else { return 0 };
    let per_output = match operator.code.builtin {
        BuiltinOp::CONV_2D => [1, 2, 3].iter().fold(1, |product: u64, &at| product.saturating_mul(dim(weights, at))),
        BuiltinOp::DEPTHWISE_CONV_2D => dim(weights, 1).saturating_mul(dim(weights, 2)),
        BuiltinOp::FULLY_CONNECTED => dim(weights, 1),
        BuiltinOp::BATCH_MATMUL => {
            let adjoint = matches!(&operator.options, Options::BatchMatMul(options) if options.adj_y);
            let from_end = if adjoint { 1 } else { 2 };
            weights.shape.len().checked_sub(from_end).map_or(0, |at| dim(weights, at))
        }
        BuiltinOp::TRANSPOSE_CONV => {
            // Every input element meets every weight of its channel.
            let Some(input) = tensor(&operator.inputs, 2) else { return 0 };
            let kernel = dim(weights, 0).saturating_mul(dim(weights, 1)).saturating_mul(dim(weights, 2));
            return elements(input).saturating_mul(kernel);
        }
        _ => 0,
    };
    elements(output).saturating_mul(per_output)
}
