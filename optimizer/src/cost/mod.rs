//! What a model costs, counted from its graph: parameters, multiply-accumulates, and the memory that activations need
//! when operators run one after the other in the graph's order. Nothing is run; free batches count as one sample.

mod macs;
mod memory;
mod parameters;
mod shapes;

use edgeyard_job::report::Cost;

use crate::ir::{Graph, InferError};

pub use shapes::{Shaped, shaped};

/// What one operator costs.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerCost {
    /// Its name, or what it makes when it has none.
    pub name: String,
    /// Its operator, such as `Conv`.
    pub operator: String,
    /// Shape of its first output; `None` when it cannot be told.
    pub output_shape: Option<Vec<usize>>,
    /// Weights and biases that it reads first; a shared weight counts where it is read first.
    pub parameters: u64,
    /// Those that are not zero.
    pub nonzero_parameters: u64,
    /// Multiply-accumulates; `None` when they are not counted for this operator on these shapes.
    pub macs: Option<u64>,
    /// Smallest and largest value of its weights (not of biases), dequantised where that is known; `None` without weights.
    pub weight_range: Option<(f32, f32)>,
}

/// What a model costs, in sum and operator by operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// The sums.
    pub total: Cost,
    /// Every operator, in the graph's order.
    pub layers: Vec<LayerCost>,
    /// What is not counted, and why.
    pub notes: Vec<String>,
}

/// What a model costs in sum. See [`layers`].
///
/// # Errors
/// [`InferError`] for a graph whose shapes contradict one another.
pub fn cost(graph: &Graph) -> Result<Cost, InferError> {
    Ok(layers(graph)?.total)
}

/// What a model costs, operator by operator.
///
/// A multiply-accumulate is counted for each product that is summed: Conv, ConvTranspose, Gemm, MatMul (and their integer
/// forms) and LSTM, GRU and RNN. Elementwise operators, pooling and normalisation count 0, as the literature has it.
/// Parameters are the constants that operators compute with; shapes, axes, scalars of elementwise operators, limits of Clip,
/// and scales and zero points of quantised tensors are settings, not parameters.
///
/// # Errors
/// [`InferError`] for a graph whose shapes contradict one another.
pub fn layers(graph: &Graph) -> Result<Costs, InferError> {
    let shaped = shaped(graph, 1)?;
    let mut notes = Vec::new();
    let mut layers = Vec::with_capacity(graph.nodes.len());
    let mut counted = parameters::Counted::new(graph);
    let mut uncounted = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for node in &graph.nodes {
        let own = counted.of(node);
        let macs = macs::macs(graph, &shaped, node);
        if macs.is_none() {
            uncounted.entry(&node.op_type).or_default().push(node.label());
        }
        layers.push(LayerCost {
            name: node.label().to_owned(),
            operator: node.op_type.clone(),
            output_shape: shaped.shape(graph, node.output()).map(<[usize]>::to_vec),
            parameters: own.count,
            nonzero_parameters: own.nonzero,
            macs,
            weight_range: own.range,
        });
    }
    for (op_type, names) in uncounted {
        notes.push(format!(
            "multiply-accumulates of {} {op_type} ({}) are not counted",
            names.len(),
            names.iter().take(3).copied().collect::<Vec<_>>().join(", ")
        ));
    }
    notes.extend(counted.notes);
    let memory = memory::peak(graph, &shaped);
    if let Some(first) = memory.unknown.first() {
        let count = memory.unknown.len();
        notes.push(format!(
            "{count} activations of unknown shape ({first}, …) are not in the peak of activation memory"
        ));
    }
    let total = Cost {
        parameters: layers.iter().map(|layer| layer.parameters).sum(),
        nonzero_parameters: layers.iter().map(|layer| layer.nonzero_parameters).sum(),
        macs: layers.iter().filter_map(|layer| layer.macs).sum(),
        peak_activation_bytes: memory.bytes,
    };
    Ok(Costs { total, layers, notes })
}
