//! Where each dimension of an ONNX tensor lies in the TFLite tensor that holds it. ONNX vision models are NCHW, TFLite's
//! kernels NHWC: instead of transposing around every operator, each tensor remembers its order, operators that do not
//! care pass it on, and elements move only where an operator insists.

use super::draft::{Draft, TensorId};

/// How a stored tensor relates to the ONNX tensor of shape `dims`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Stored dimension `i` is ONNX axis `axes[i]`, or a dimension of size 1 that ONNX does not have. ONNX axes of size 1
    /// may be missing; all others occur exactly once.
    Axes(Vec<Option<usize>>),
    /// The ONNX tensor is a two-dimensional flattening of `dims`, but its elements lie in the order of `axes` of those
    /// dimensions. Matrix products absorb this into their weights.
    Flat { dims: Vec<usize>, axes: Vec<usize> },
}

/// An ONNX tensor as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub tensor: TensorId,
    /// The ONNX shape.
    pub dims: Vec<usize>,
    pub layout: Layout,
}

impl Layout {
    /// ONNX's own order.
    pub(super) fn identity(rank: usize) -> Vec<Option<usize>> {
        (0..rank).map(Some).collect()
    }

    /// Channels last, as TFLite's spatial operators want it; rank 3 gets a height of 1, rank 2 height and width of 1.
    pub(super) fn channels_last(rank: usize) -> Option<Vec<Option<usize>>> {
        Some(match rank {
            2 => vec![Some(0), None, None, Some(1)],
            3 => vec![Some(0), None, Some(2), Some(1)],
            4 => vec![Some(0), Some(2), Some(3), Some(1)],
            _ => return None,
        })
    }
}

/// The shape a tensor of ONNX shape `dims` has in a layout.
pub(super) fn stored_shape(dims: &[usize], axes: &[Option<usize>]) -> Vec<usize> {
    axes.iter().map(|axis| axis.map_or(1, |axis| dims[axis])).collect()
}

impl Stored {
    /// The order of its dimensions, when it is a plain one.
    pub(super) fn axes(&self) -> Option<&[Option<usize>]> {
        match &self.layout {
            Layout::Axes(axes) => Some(axes),
            Layout::Flat { .. } => None,
        }
    }

    /// The order of its dimensions if all of `needed` are among them.
    pub(super) fn axes_with(&self, needed: impl IntoIterator<Item = usize>) -> Option<&[Option<usize>]> {
        let axes = self.axes()?;
        needed.into_iter().all(|axis| axes.contains(&Some(axis))).then_some(axes)
    }

    /// True when the elements lie in ONNX's order, whatever the stored shape.
    pub(super) fn is_in_onnx_order(&self) -> bool {
        self.axes().is_some_and(|axes| order(&self.dims, axes).is_sorted())
    }

    /// The tensor in another layout, with the operations that needs added to the draft.
    pub(super) fn in_axes(&self, draft: &mut Draft, node: usize, wanted: &[Option<usize>]) -> TensorId {
        let shape = stored_shape(&self.dims, wanted);
        let axes = match &self.layout {
            Layout::Axes(axes) => axes,
            Layout::Flat { dims, axes } => {
                // Back to the dimensions before flattening, into ONNX order, and flat again.
                let stored: Vec<usize> = axes.iter().map(|&axis| dims[axis]).collect();
                let open = draft.reshaped(node, self.tensor, &stored);
                let plain = Stored {
                    tensor: open,
                    dims: dims.clone(),
                    layout: Layout::Axes(axes.iter().copied().map(Some).collect()),
                }
                .in_axes(draft, node, &Layout::identity(dims.len()));
                return draft.reshaped(node, plain, &shape);
            }
        };
        let (from, to) = (order(&self.dims, axes), order(&self.dims, wanted));
        debug_assert!(to.len() == from.len(), "both layouts hold every axis larger than 1");
        if from == to {
            return draft.reshaped(node, self.tensor, &shape);
        }
        // Batches of one stay in front so that the transpose has the usual four dimensions.
        let compact: Vec<usize> = from.iter().map(|&axis| self.dims[axis]).collect();
        let permutation: Vec<usize> =
            to.iter().map(|axis| from.iter().position(|have| have == axis).expect("same axes")).collect();
        let same_rank = axes.len() == wanted.len()
            && axes.iter().all(|axis| axis.is_some())
            && wanted.iter().all(|axis| axis.is_some_and(|axis| axes.contains(&Some(axis))));
        let moved = if same_rank {
            let permutation: Vec<usize> = wanted
                .iter()
                .map(|axis| axes.iter().position(|have| have == axis).expect("checked just above"))
                .collect();
            draft.transposed(node, self.tensor, &permutation)
        } else {
            let compact = draft.reshaped(node, self.tensor, &compact);
            draft.transposed(node, compact, &permutation)
        };
        draft.reshaped(node, moved, &shape)
    }

    /// The tensor in ONNX's own shape and order.
    pub(super) fn plain(&self, draft: &mut Draft, node: usize) -> TensorId {
        self.in_axes(draft, node, &Layout::identity(self.dims.len()))
    }
}

/// The axes larger than 1, in stored order: two layouts with the same list hold the same bytes.
fn order(dims: &[usize], axes: &[Option<usize>]) -> Vec<usize> {
    axes.iter().flatten().copied().filter(|&axis| dims[axis] != 1).collect()
}
