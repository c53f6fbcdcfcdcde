//! Shapes of every tensor for a given batch, also where the graph leaves the batch free. The graph itself is not
//! changed: shape arithmetic that hangs on the batch is computed aside.

use std::collections::BTreeMap;

use crate::ir::{DataType, Dim, Graph, InferError, Node, Tensor, infer};
use crate::simplify::fold;

/// What every tensor looks like.
#[derive(Debug, Clone, Default)]
pub struct Shaped {
    tensors: BTreeMap<String, (DataType, Vec<usize>)>,
    computed: BTreeMap<String, Tensor>,
}

impl Shaped {
    /// The shape of a tensor, constant or computed.
    pub fn shape<'a>(&'a self, graph: &'a Graph, name: &str) -> Option<&'a [usize]> {
        match graph.initializers.get(name) {
            Some(tensor) => Some(&tensor.dims),
            None => self.tensors.get(name).map(|(_, shape)| shape.as_slice()),
        }
    }

    /// The element type of a tensor that is no constant.
    pub fn dtype(&self, name: &str) -> Option<DataType> {
        self.tensors.get(name).map(|(dtype, _)| *dtype)
    }

    /// The value of a tensor that depends on shapes only.
    pub fn computed(&self, name: &str) -> Option<&Tensor> {
        self.computed.get(name)
    }
}

/// Shapes for a batch of `batch` where the first dimension of an input is free.
///
/// # Errors
/// [`InferError`] for a node that contradicts its inputs.
pub fn shaped(graph: &Graph, batch: usize) -> Result<Shaped, InferError> {
    let mut aside = Graph { opset: graph.opset, initializers: graph.initializers.clone(), ..Graph::default() };
    let mut found = Shaped::default();
    for input in &graph.inputs {
        let size = |(position, dim): (usize, &Dim)| match dim {
            Dim::Static(size) => Some(*size),
            _ if position == 0 => Some(batch),
            _ => None,
        };
        let shape: Option<Vec<usize>> = input.shape.iter().enumerate().map(size).collect();
        if let Some(shape) = shape.filter(|_| input.has_shape) {
            aside.note(&input.name, input.dtype, &shape);
            found.tensors.insert(input.name.clone(), (input.dtype, shape));
        }
    }
    for node in &graph.nodes {
        if let Some(values) = fold::fold(&aside, node) {
            for (name, tensor) in node.outputs.iter().zip(values) {
                found.tensors.insert(name.clone(), (tensor.dtype(), tensor.dims.clone()));
                found.computed.insert(name.clone(), tensor.clone());
                aside.initializers.insert(name.clone(), tensor);
            }
            continue;
        }
        // What inference does not know, the graph may have been told.
        let outputs = match stand_in(node) {
            Some(alike) => infer(&aside, &alike)?,
            None => infer(&aside, node)?,
        }
        .or_else(|| own(&aside, node));
        for (index, name) in node.outputs.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let inferred = outputs.as_ref().and_then(|outputs| outputs.get(index).cloned());
            let noted = || {
                let value = graph.values.get(name)?;
                let free = |(position, dim): (usize, &Dim)| match dim {
                    Dim::Static(size) => Some(*size),
                    Dim::Symbol(_) | Dim::Unknown if position == 0 => Some(batch),
                    Dim::Symbol(_) | Dim::Unknown => None,
                };
                let shape = value.shape.iter().enumerate().map(free).collect::<Option<Vec<_>>>()?;
                value.has_shape.then_some((value.dtype, shape))
            };
            if let Some((dtype, shape)) = inferred.or_else(noted) {
                aside.note(name, dtype, &shape);
                found.tensors.insert(name.clone(), (dtype, shape));
            }
        }
    }
    Ok(found)
}

/// Integer operators have the shapes of their float counterparts.
fn stand_in(node: &Node) -> Option<Node> {
    let (op_type, inputs) = match node.op_type.as_str() {
        "MatMulInteger" => ("MatMul", [0, 1]),
        "ConvInteger" => ("Conv", [0, 1]),
        "QLinearMatMul" => ("MatMul", [0, 3]),
        "QLinearConv" => ("Conv", [0, 3]),
        _ => return None,
    };
    let mut alike = node.clone();
    alike.touch();
    op_type.clone_into(&mut alike.op_type);
    alike.inputs = inputs.iter().filter_map(|at| node.input(*at).map(str::to_owned)).collect();
    Some(alike)
}

/// Operators that inference leaves to the runtime.
fn own(graph: &Graph, node: &Node) -> Option<Vec<(DataType, Vec<usize>)>> {
    let x = graph.shape_of(node.input(0)?)?;
    match node.op_type.as_str() {
        "DynamicQuantizeLinear" => {
            Some(vec![(DataType::U8, x.to_vec()), (DataType::F32, Vec::new()), (DataType::U8, Vec::new())])
        }
        "Resize" => {
            let constant = |at: usize| node.input(at).and_then(|name| graph.constant(name)).filter(|t| !t.is_empty());
            let sizes = match (constant(3), constant(2)) {
                (Some(sizes), _) => {
                    sizes.to_i64()?.into_iter().map(|size| usize::try_from(size).ok()).collect::<Option<Vec<_>>>()?
                }
                (None, Some(scales)) => x
                    .iter()
                    .zip(scales.as_f32()?)
                    .map(|(size, scale)| (*size as f32 * scale).floor() as usize)
                    .collect(),
                (None, None) => return None,
            };
            (sizes.len() == x.len() && !node.has("axes")).then_some(())?;
            Some(vec![(graph.dtype_of(node.input(0)?)?, sizes)])
        }
        "MatMulNBits" => {
            let (_, rows) = x.split_last()?;
            let columns = usize::try_from(node.int("N", 0)).ok()?;
            Some(vec![(graph.dtype_of(node.input(0)?)?, [rows, &[columns]].concat())])
        }
        _ => None,
    }
}
