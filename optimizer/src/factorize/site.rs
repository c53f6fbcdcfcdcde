//! The layers that can be split: convolutions of two dimensions without groups, and products with a constant matrix.

use std::collections::BTreeMap;

use faer::Mat;

use crate::cost::Shaped;
use crate::ir::{Graph, Node, Window, window};

use super::FactorizeError;

/// How a layer uses its weights.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Gemm: whether its weights are stored [out, in].
    Gemm {
        /// `transB`.
        transposed: bool,
    },
    /// MatMul with constant weights [in, out] on the right.
    MatMul,
    /// A convolution.
    Conv {
        /// Its window.
        window: Window,
        /// Sizes of its input.
        size: [usize; 2],
    },
}

/// A layer that can be split.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The operator's place in the graph.
    pub node: usize,
    /// The layer's name.
    pub layer: String,
    /// What it reads.
    pub input: String,
    pub kind: Kind,
    /// Output channels, input channels, kernel height and width; 1 and 1 for matrices.
    pub dims: [usize; 4],
    /// Weights as [out, in·kh·kw].
    pub weights: Mat<f64>,
    /// How often the weights are applied for one sample.
    pub places: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// True when the layer has a bias, or can have one, that takes up a mean error.
    pub has_bias: bool,
}

/// All of a graph.
pub(crate) fn sites(graph: &Graph, shaped: &Shaped) -> Result<Vec<Site>, FactorizeError> {
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for name in graph.nodes.iter().flat_map(Node::reads) {
        *readers.entry(name).or_default() += 1;
    }
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let alone = node.input(1).is_some_and(|name| readers.get(name) == Some(&1));
        let Some(site) = Some(index).filter(|_| alone && node.is_standard()).and_then(|at| site(graph, shaped, at))
        else {
            continue;
        };
        let name = node.input(1).unwrap_or_default();
        if graph.constant(name).and_then(|tensor| tensor.as_f32()).is_some_and(|w| w.iter().any(|v| !v.is_finite())) {
            return Err(FactorizeError::NotFinite(name.to_owned()));
        }
        found.push(site);
    }
    Ok(found)
}

fn site(graph: &Graph, shaped: &Shaped, index: usize) -> Option<Site> {
    let node = &graph.nodes[index];
    let (input, tensor) = (node.input(0)?, graph.constant(node.input(1)?)?);
    let values = tensor.as_f32()?;
    let (x, y) = (shaped.shape(graph, input)?, shaped.shape(graph, node.output())?);
    let elements: usize = y.iter().product();
    let constant_bias = |index: usize, outputs: usize| match node.input(index) {
        None => true,
        Some(name) => graph.constant(name).is_some_and(|bias| bias.as_f32().is_some() && bias.len() == outputs),
    };
    let (kind, dims, weights, has_bias) = match node.op_type.as_str() {
        "Gemm" if node.int("transA", 0) == 0 => {
            let [a, b] = *tensor.dims.as_slice() else { return None };
            let transposed = node.int("transB", 0) != 0;
            let (out, inner) = if transposed { (a, b) } else { (b, a) };
            let at = |row: usize, column: usize| if transposed { row * b + column } else { column * b + row };
            let matrix = Mat::from_fn(out, inner, |row, column| f64::from(values[at(row, column)]));
            let has_bias = constant_bias(2, out) && node.float("beta", 1.0) == 1.0 && node.float("alpha", 1.0) == 1.0;
            (Kind::Gemm { transposed }, [out, inner, 1, 1], matrix, has_bias)
        }
        "MatMul" => {
            let [inner, out] = *tensor.dims.as_slice() else { return None };
            let matrix = Mat::from_fn(out, inner, |row, column| f64::from(values[column * out + row]));
            (Kind::MatMul, [out, inner, 1, 1], matrix, false)
        }
        "Conv" if node.int("group", 1) == 1 => {
            let [out, inner, high, wide] = *tensor.dims.as_slice() else { return None };
            let [_, _, h, w] = *x else { return None };
            let window = window(node, &[h, w], &[high, wide]).ok()?;
            let row = inner * high * wide;
            let matrix = Mat::from_fn(out, row, |at, column| f64::from(values[at * row + column]));
            (Kind::Conv { window, size: [h, w] }, [out, inner, high, wide], matrix, constant_bias(2, out))
        }
        _ => return None,
    };
    if dims.contains(&0) || elements == 0 {
        return None;
    }
    let places = (elements / dims[0]) as u64;
    let macs = places * weights.nrows() as u64 * weights.ncols() as u64;
    let (layer, input) = (node.label().to_owned(), input.to_owned());
    Some(Site { node: index, layer, input, kind, dims, weights, places, macs, has_bias })
}
