//! An ONNX model's layers, from [`crate::cost`].

use edgeyard_job::inspection::{INSPECTION_VERSION, InspectedLayer, InspectedModel, InspectedTensor, Inspection};

use crate::cost;
use crate::ir::{DataType, Dim, Graph, Model, Node, Value};

/// NumPy's name of an element type.
fn dtype(dtype: DataType) -> Option<String> {
    let name = match dtype {
        DataType::F32 => "float32",
        DataType::F16 => "float16",
        DataType::F64 => "float64",
        DataType::U8 => "uint8",
        DataType::I8 => "int8",
        DataType::U16 => "uint16",
        DataType::I16 => "int16",
        DataType::I32 => "int32",
        DataType::I64 => "int64",
        DataType::String => "string",
        DataType::Bool => "bool",
        DataType::Undefined | DataType::Other => return None,
    };
    Some(name.to_owned())
}

fn tensor(value: &Value) -> InspectedTensor {
    let size = |dim: &Dim| if let Dim::Static(size) = dim { Some(*size as u64) } else { None };
    InspectedTensor {
        name: value.name.clone(),
        dtype: dtype(value.dtype),
        shape: value.has_shape.then(|| value.shape.iter().map(size).collect()),
    }
}

/// The type of a node's largest constant, seen through what dequantises it.
fn weights(graph: &Graph, node: &Node, producers: &std::collections::BTreeMap<&str, usize>) -> Option<DataType> {
    let constant = |name: &str| {
        let stored = graph.constant(name).or_else(|| {
            let maker = &graph.nodes[*producers.get(name)?];
            maker.is("DequantizeLinear").then(|| graph.constant(maker.input(0)?)).flatten()
        })?;
        (stored.len() > 1).then(|| (stored.len(), stored.dtype()))
    };
    node.reads().filter_map(constant).max_by_key(|(len, _)| *len).map(|(_, dtype)| dtype)
}

/// Everything about the model.
pub fn inspect(model: &Model, about: InspectedModel) -> Inspection {
    let graph = &model.graph;
    let producers = graph.producers();
    let (mut layers, mut total, mut notes) = (Vec::new(), None, Vec::new());
    match cost::layers(graph) {
        Ok(costs) => {
            let shaped = cost::shaped(graph, 1).unwrap_or_default();
            for (node, cost) in graph.nodes.iter().zip(costs.layers) {
                layers.push(InspectedLayer {
                    name: cost.name,
                    operator: cost.operator,
                    output_shape: cost.output_shape.map(|shape| shape.iter().map(|size| *size as u64).collect()),
                    dtype: shaped.dtype(node.output()).and_then(dtype),
                    weight_dtype: (cost.parameters > 0)
                        .then(|| weights(graph, node, &producers).and_then(dtype))
                        .flatten(),
                    parameters: cost.parameters,
                    nonzero_parameters: cost.nonzero_parameters,
                    macs: cost.macs,
                    weight_range: cost.weight_range.map(|(low, high)| [low, high]),
                });
            }
            total = Some(costs.total);
            notes.extend(costs.notes);
        }
        Err(error) => {
            notes.push(format!("shapes contradict one another, so nothing is counted: {error}"));
            layers.extend(graph.nodes.iter().map(|node| InspectedLayer {
                name: node.label().to_owned(),
                operator: node.op_type.clone(),
                output_shape: None,
                dtype: None,
                weight_dtype: None,
                parameters: 0,
                nonzero_parameters: 0,
                macs: None,
                weight_range: None,
            }));
        }
    }
    Inspection {
        schema_version: INSPECTION_VERSION.to_owned(),
        model: about,
        inputs: graph.inputs.iter().map(tensor).collect(),
        outputs: graph.outputs.iter().map(tensor).collect(),
        layers,
        total,
        notes,
    }
}
