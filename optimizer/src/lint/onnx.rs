//! An ONNX graph as rules see it.

use std::collections::BTreeMap;

use edgeyard_job::spec::ModelFormat;
use edgeyard_targets::{Attribute, Operator, Tensor, View};

use crate::ir::{self, DataType, Dim, Graph};

/// The view of a graph.
pub fn view(graph: &Graph) -> View {
    let mut tensors = Tensors { graph, found: Vec::new(), index: BTreeMap::new() };
    let inputs = graph.inputs.iter().map(|value| tensors.of(&value.name)).collect();
    let mut operators = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let kind = if node.is_standard() { node.op_type.clone() } else { format!("{}.{}", node.domain, node.op_type) };
        let input = |name: &String| (!name.is_empty()).then(|| tensors.of(name));
        let inputs: Vec<Option<usize>> = node.inputs.iter().map(input).collect();
        let outputs = node.outputs.iter().filter(|name| !name.is_empty()).map(|name| tensors.of(name)).collect();
        // What QuantizeLinear makes of its input has as many scales as it is given.
        if let ("QuantizeLinear" | "DequantizeLinear", Some(Some(scale)), Some(Some(stored))) =
            (node.op_type.as_str(), inputs.get(1), inputs.first())
        {
            let scales = graph.constant(&tensors.found[*scale].name).map_or(1, ir::Tensor::len);
            tensors.found[*stored].scales = scales;
        }
        operators.push(Operator {
            label: node.label().to_owned(),
            kind,
            version: 0,
            inputs,
            outputs,
            attributes: node
                .attributes
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), attribute(value)?)))
                .collect(),
        });
    }
    let outputs = graph.outputs.iter().map(|value| tensors.of(&value.name)).collect();
    View {
        format: ModelFormat::Onnx,
        subgraphs: 1,
        opset: Some(graph.opset),
        tensors: tensors.found,
        inputs,
        outputs,
        operators,
    }
}

fn attribute(value: &ir::Attribute) -> Option<Attribute> {
    Some(match value {
        ir::Attribute::Int(value) => Attribute::Int(*value),
        ir::Attribute::Float(value) => Attribute::Float(f64::from(*value)),
        ir::Attribute::String(bytes) => Attribute::Text(String::from_utf8_lossy(bytes).into_owned()),
        ir::Attribute::Ints(values) => Attribute::Ints(values.clone()),
        ir::Attribute::Tensor(_) | ir::Attribute::Floats(_) | ir::Attribute::Strings(_) | ir::Attribute::Opaque(_) => {
            return None;
        }
    })
}

struct Tensors<'g> {
    graph: &'g Graph,
    found: Vec<Tensor>,
    index: BTreeMap<String, usize>,
}

impl Tensors<'_> {
    fn of(&mut self, name: &str) -> usize {
        if let Some(known) = self.index.get(name) {
            return *known;
        }
        let constant = self.graph.constant(name);
        let value = self.graph.values.get(name).or(self.graph.inputs.iter().find(|value| value.name == name));
        let dims = |dim: &Dim| if let Dim::Static(size) = dim { *size as i64 } else { -1 };
        let declared = value.filter(|value| value.has_shape).map(|value| value.shape.iter().map(dims).collect());
        let known = self.graph.shape_of(name).map(|shape| shape.iter().map(|size| *size as i64).collect());
        let dtype = self.graph.dtype_of(name).or(value.map(|value| value.dtype));
        // Scales and zero points are small; a zero point is a scalar or a list of integers.
        let integers = constant.filter(|tensor| tensor.dims.len() <= 1 && tensor.len() <= 65_536);
        let zero_points = integers.filter(|tensor| matches!(tensor.dtype(), DataType::I8 | DataType::U8));
        let mut zero_points = zero_points.and_then(ir::Tensor::to_i64).unwrap_or_default();
        zero_points.sort_unstable();
        zero_points.dedup();
        let dtype = dtype.filter(|dtype| !matches!(dtype, DataType::Undefined | DataType::Other));
        self.found.push(Tensor {
            name: name.to_owned(),
            dtype: dtype.map(|dtype| dtype.to_string()).unwrap_or_default(),
            shape: known.or(declared),
            constant: constant.is_some(),
            scales: 0,
            zero_points,
        });
        self.index.insert(name.to_owned(), self.found.len() - 1);
        self.found.len() - 1
    }
}
