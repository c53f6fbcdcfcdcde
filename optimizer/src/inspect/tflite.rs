//! A .tflite's layers, counted from its first subgraph.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_job::inspection::{INSPECTION_VERSION, InspectedLayer, InspectedModel, InspectedTensor, Inspection};
use edgeyard_job::report::Cost;
use edgeyard_tflite::{BuiltinOp, Model, Operator, Subgraph, Tensor, TensorType};
use half::f16;

/// Everything about the model.
pub fn inspect(model: &Model, about: InspectedModel) -> Inspection {
    let empty = Subgraph::default();
    let graph = model.subgraphs.first().unwrap_or(&empty);
    let mut notes = Vec::new();
    if model.subgraphs.len() > 1 {
        notes.push(format!("{} more subgraphs are not counted", model.subgraphs.len() - 1));
    }
    let mut seen = BTreeSet::new();
    let layers: Vec<InspectedLayer> =
        graph.operators.iter().map(|operator| layer(model, graph, operator, &mut seen)).collect();
    let mut uncounted: BTreeMap<&str, usize> = BTreeMap::new();
    layers
        .iter()
        .filter(|layer| layer.macs.is_none())
        .for_each(|layer| *uncounted.entry(&layer.operator).or_default() += 1);
    notes.extend(
        uncounted.iter().map(|(kind, count)| format!("multiply-accumulates of {count} {kind} are not counted")),
    );
    let total = Cost {
        parameters: layers.iter().map(|layer| layer.parameters).sum(),
        nonzero_parameters: layers.iter().map(|layer| layer.nonzero_parameters).sum(),
        macs: layers.iter().filter_map(|layer| layer.macs).sum(),
        peak_activation_bytes: peak(model, graph),
    };
    let ends = |indexes: &[i32]| indexes.iter().filter_map(|index| tensor(graph, *index)).map(end).collect();
    Inspection {
        schema_version: INSPECTION_VERSION.to_owned(),
        model: about,
        inputs: ends(&graph.inputs),
        outputs: ends(&graph.outputs),
        layers,
        total: Some(total),
        notes,
    }
}

fn tensor(graph: &Subgraph, index: i32) -> Option<&Tensor> {
    graph.tensors.get(usize::try_from(index).ok()?)
}

fn end(tensor: &Tensor) -> InspectedTensor {
    let shape = if tensor.shape_signature.is_empty() { &tensor.shape } else { &tensor.shape_signature };
    InspectedTensor {
        name: tensor.name.clone(),
        dtype: Some(tensor.dtype.to_string()),
        shape: tensor.has_rank.then(|| shape.iter().map(|size| u64::try_from(*size).ok()).collect()),
    }
}

fn shape(tensor: &Tensor) -> Vec<u64> {
    tensor.shape.iter().map(|size| u64::try_from(*size).unwrap_or(0)).collect()
}

fn layer(model: &Model, graph: &Subgraph, operator: &Operator, seen: &mut BTreeSet<u32>) -> InspectedLayer {
    let output = operator.outputs.first().and_then(|index| tensor(graph, *index));
    let mut own = InspectedLayer {
        name: match output {
            Some(output) if !output.name.is_empty() => output.name.clone(),
            _ => format!("#{}", operator.outputs.first().copied().unwrap_or(-1)),
        },
        operator: operator.code.custom.clone().unwrap_or_else(|| operator.code.builtin.to_string()),
        output_shape: output.filter(|output| output.has_rank).map(shape),
        dtype: output.map(|output| output.dtype.to_string()),
        weight_dtype: None,
        parameters: 0,
        nonzero_parameters: 0,
        macs: macs(graph, operator),
        weight_range: None,
    };
    let mut largest = 0;
    for (place, index) in operator.inputs.iter().enumerate() {
        let Some(constant) = tensor(graph, *index).filter(|tensor| is_parameter(model, operator, place, tensor)) else {
            continue;
        };
        if !seen.insert(constant.buffer) {
            continue;
        }
        let Some(values) = values(model, constant) else { continue };
        own.parameters += values.len() as u64;
        own.nonzero_parameters += values.iter().filter(|value| **value != 0.0).count() as u64;
        let is_bias = constant.dtype == TensorType::Int32 || constant.dtype == TensorType::Int64;
        if values.len() > largest && !is_bias {
            largest = values.len();
            own.weight_dtype = Some(constant.dtype.to_string());
            let low = values.iter().copied().fold(f32::INFINITY, f32::min);
            let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            own.weight_range = Some([low, high]);
        }
    }
    own
}

/// Whether an operator computes with a constant; shapes, axes and single numbers are settings.
fn is_parameter(model: &Model, operator: &Operator, place: usize, tensor: &Tensor) -> bool {
    if model.data_of(tensor).is_empty() || tensor.elements().is_none_or(|count| count < 2) {
        return false;
    }
    match tensor.dtype {
        // Biases of integer operators.
        TensorType::Int32 | TensorType::Int64 => match operator.code.builtin {
            BuiltinOp::CONV_2D | BuiltinOp::DEPTHWISE_CONV_2D | BuiltinOp::FULLY_CONNECTED => place == 2,
            BuiltinOp::TRANSPOSE_CONV => place == 3,
            _ => false,
        },
        TensorType::Float32
        | TensorType::Float16
        | TensorType::Int8
        | TensorType::Uint8
        | TensorType::Int16
        | TensorType::Int4 => true,
        _ => false,
    }
}

/// A constant's values as reals; `None` for types that are not read.
fn values(model: &Model, tensor: &Tensor) -> Option<Vec<f32>> {
    let data = model.data_of(tensor);
    let stored: Vec<f32> = match tensor.dtype {
        TensorType::Float32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        TensorType::Float16 => data.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
        TensorType::Int8 => data.iter().map(|byte| f32::from(*byte as i8)).collect(),
        TensorType::Uint8 => data.iter().map(|byte| f32::from(*byte)).collect(),
        TensorType::Int16 => data.as_chunks().0.iter().map(|bytes| f32::from(i16::from_le_bytes(*bytes))).collect(),
        TensorType::Int32 => data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as f32).collect(),
        TensorType::Int64 => data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f32).collect(),
        // Two to a byte, the lower half first.
        TensorType::Int4 => {
            let halves = data.iter().flat_map(|byte| [(byte << 4) as i8 >> 4, *byte as i8 >> 4]);
            halves.take(tensor.elements()?).map(f32::from).collect()
        }
        _ => return None,
    };
    if let Some(blocks) = tensor.quantization.as_ref().and_then(|quantization| quantization.blocks) {
        let scales = model.subgraphs.first()?.tensors.get(usize::try_from(blocks.scales).ok()?)?;
        let (scales, size) = (values(model, scales)?, usize::try_from(blocks.size).ok().filter(|size| *size > 0)?);
        let real = |(index, value): (usize, f32)| Some(value * scales.get(index / size)?);
        return stored.into_iter().enumerate().map(real).collect();
    }
    let Some(quantization) = tensor.quantization.as_ref().filter(|quantization| !quantization.scale.is_empty()) else {
        return Some(stored);
    };
    // Elements that follow one another with the same index along the quantised dimension.
    let axis = usize::try_from(quantization.dimension).ok()?;
    let inner: usize = shape(tensor).get(axis + 1..).unwrap_or_default().iter().map(|size| *size as usize).product();
    let scales = &quantization.scale;
    let real = |(index, value): (usize, f32)| {
        let channel = if scales.len() == 1 { 0 } else { index / inner.max(1) % scales.len() };
        let zero = quantization.zero_point.get(channel).or(quantization.zero_point.first()).copied().unwrap_or(0);
        (value - zero as f32) * scales[channel]
    };
    Some(stored.into_iter().enumerate().map(real).collect())
}

/// Multiply-accumulates: 0 for operators that do not sum products, `None` where they cannot be told.
fn macs(graph: &Subgraph, operator: &Operator) -> Option<u64> {
    let input = |place: usize| operator.inputs.get(place).and_then(|index| tensor(graph, *index)).map(shape);
    let output = || operator.outputs.first().and_then(|index| tensor(graph, *index)).map(shape);
    let product = |sizes: &[u64]| sizes.iter().try_fold(1u64, |all, size| all.checked_mul(*size));
    match operator.code.builtin {
        // Filters are [outputs, height, width, inputs of the group].
        BuiltinOp::CONV_2D => product(&output()?)?.checked_mul(product(input(1)?.get(1..)?)?),
        // Filters are [1, height, width, channels].
        BuiltinOp::DEPTHWISE_CONV_2D => product(&output()?)?.checked_mul(product(input(1)?.get(1..3)?)?),
        BuiltinOp::FULLY_CONNECTED => product(&output()?)?.checked_mul(*input(1)?.last()?),
        // Each input element meets each weight of its channel.
        BuiltinOp::TRANSPOSE_CONV => product(&input(2)?)?.checked_mul(product(input(1)?.get(..3)?)?),
        BuiltinOp::BATCH_MATMUL => {
            let (rows, columns, made) = (input(0)?, input(1)?, output()?);
            // Of the last two sizes of an operand one is in the output; the other is summed over.
            let of = |sizes: &[u64]| product(sizes.get(sizes.len().checked_sub(2)?..)?);
            let inner = (of(&rows)?.checked_mul(of(&columns)?)?).checked_div(of(&made)?)?;
            product(&made)?.checked_mul(inner.isqrt())
        }
        BuiltinOp::LSTM
        | BuiltinOp::UNIDIRECTIONAL_SEQUENCE_LSTM
        | BuiltinOp::CUSTOM
        | BuiltinOp::WHILE
        | BuiltinOp::IF => None,
        _ => Some(0),
    }
}

/// Bytes of tensors that live at the same time, at most: from the operator that makes one to the last that reads it.
fn peak(model: &Model, graph: &Subgraph) -> u64 {
    let end = graph.operators.len();
    let mut life: BTreeMap<i32, (usize, usize)> = graph.inputs.iter().map(|index| (*index, (0, 0))).collect();
    for (step, operator) in graph.operators.iter().enumerate() {
        operator.outputs.iter().for_each(|index| {
            life.entry(*index).or_insert((step, step));
        });
        operator.inputs.iter().for_each(|index| {
            life.entry(*index).and_modify(|(_, to)| *to = step);
        });
    }
    graph.outputs.iter().for_each(|index| {
        life.entry(*index).and_modify(|(_, to)| *to = end);
    });
    let mut change = vec![0i128; end + 2];
    for (index, (from, to)) in life {
        let size = tensor(graph, index).filter(|tensor| model.data_of(tensor).is_empty()).and_then(Tensor::byte_size);
        let Some(size) = size else { continue };
        change[from] += size as i128;
        change[to + 1] -= size as i128;
    }
    let live = change.iter().scan(0i128, |live, step| {
        *live += step;
        Some(*live)
    });
    live.max().and_then(|most| u64::try_from(most).ok()).unwrap_or(0)
}
