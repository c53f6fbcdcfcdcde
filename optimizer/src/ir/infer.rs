//! What each operator makes of its inputs' types and static shapes. An operator that is not known here, or whose
//! inputs are not, gives nothing: it is the lowering's or the runtime's turn to complain. A contradiction is an error
//! that names the node.

use thiserror::Error;

use super::node::Node;
use super::tensor::DataType;
use super::{Graph, Tensor};

/// A node that cannot work on the shapes it is given.
#[derive(Debug, Error, Clone, PartialEq)]
#[error("node {node} ({op_type}): {problem}")]
pub struct InferError {
    /// Which node.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// What does not fit.
    pub problem: String,
}

/// Type and shape of one output.
pub type Output = (DataType, Vec<usize>);

/// No tensor of a model that fits into memory is larger.
const MAX_ELEMENTS: usize = 1 << 33;

/// Types and shapes of all outputs, or `None` when they cannot be told.
pub fn infer(graph: &Graph, node: &Node) -> Result<Option<Vec<Output>>, InferError> {
    if !node.is_standard() {
        return Ok(None);
    }
    let outputs = Inference { graph, node }.outputs().map_err(|problem| InferError {
        node: node.label().to_owned(),
        op_type: node.op_type.clone(),
        problem,
    })?;
    if let Some(outputs) = &outputs {
        for (_, shape) in outputs {
            // A dimension of nothing must not hide an endless one.
            let len = shape.iter().try_fold(1usize, |len, dim| len.checked_mul((*dim).max(1)));
            if shape.len() > super::load::MAX_RANK {
                return Err(InferError {
                    node: node.label().to_owned(),
                    op_type: node.op_type.clone(),
                    problem: format!("its output would have {} dimensions", shape.len()),
                });
            }
            if len.is_none_or(|len| len > MAX_ELEMENTS) {
                return Err(InferError {
                    node: node.label().to_owned(),
                    op_type: node.op_type.clone(),
                    problem: format!("its output would have the shape {shape:?}, which no memory holds"),
                });
            }
        }
    }
    Ok(outputs)
}

/// An axis that may count from the end, as an index.
pub fn axis(value: i64, rank: usize) -> Option<usize> {
    let value = if value < 0 { value + rank as i64 } else { value };
    usize::try_from(value).ok().filter(|axis| *axis < rank)
}

/// The shape that two shapes broadcast to.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at =
        |shape: &[usize], index: usize| (index + shape.len()).checked_sub(rank).map_or(1, |position| shape[position]);
    (0..rank)
        .map(|index| match (at(a, index), at(b, index)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// A sliding window over the spatial dimensions, with the padding made explicit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Kernel sizes.
    pub kernel: Vec<usize>,
    /// Steps.
    pub strides: Vec<usize>,
    /// Distances between kernel elements.
    pub dilations: Vec<usize>,
    /// Padding: all begins, then all ends.
    pub pads: Vec<usize>,
    /// Sizes of the output.
    pub output: Vec<usize>,
}

/// The window of a Conv or pooling node over an input of spatial size `input`.
pub fn window(node: &Node, input: &[usize], kernel: &[usize]) -> Result<Window, String> {
    let rank = input.len();
    let list = |name: &str, default: usize, len: usize| -> Result<Vec<usize>, String> {
        let Some(values) = node.ints(name) else { return Ok(vec![default; len]) };
        let values: Option<Vec<usize>> =
            values.iter().map(|value| usize::try_from(*value).ok().filter(|value| *value <= 1 << 20)).collect();
        values.filter(|values| values.len() == len).ok_or_else(|| format!("{name} must be {len} sizes"))
    };
    let (strides, dilations) = (list("strides", 1, rank)?, list("dilations", 1, rank)?);
    let mut pads = list("pads", 0, 2 * rank)?;
    if kernel.len() != rank || strides.contains(&0) || dilations.contains(&0) || kernel.contains(&0) {
        return Err(format!(
            "kernel {kernel:?}, strides {strides:?} and dilations {dilations:?} do not fit {rank} axes"
        ));
    }
    let auto = node.string("auto_pad").unwrap_or("NOTSET");
    let ceil = node.int("ceil_mode", 0) != 0;
    let mut output = Vec::with_capacity(rank);
    for index in 0..rank {
        let (size, step) = (input[index], strides[index]);
        let reach = dilations[index].checked_mul(kernel[index] - 1).ok_or("kernel is too large")? + 1;
        match auto {
            "NOTSET" | "" => {}
            "VALID" => (pads[index], pads[index + rank]) = (0, 0),
            "SAME_UPPER" | "SAME_LOWER" => {
                let total = ((size.div_ceil(step).max(1) - 1) * step + reach).saturating_sub(size);
                let (small, large) = (total / 2, total - total / 2);
                (pads[index], pads[index + rank]) = if auto == "SAME_UPPER" { (small, large) } else { (large, small) };
            }
            other => return Err(format!("auto_pad {other} is unknown")),
        }
        let padded = size + pads[index] + pads[index + rank];
        let Some(room) = padded.checked_sub(reach) else {
            return Err(format!("a kernel that spans {reach} does not fit an axis of {padded}, padding included"));
        };
        let mut count = if ceil { room.div_ceil(step) } else { room / step } + 1;
        // A window may not start in the padding at the end.
        if ceil && (count - 1) * step >= size + pads[index] {
            count -= 1;
        }
        output.push(count);
    }
    Ok(Window { kernel: kernel.to_vec(), strides, dilations, pads, output })
}

struct Inference<'a> {
    graph: &'a Graph,
    node: &'a Node,
}

type Inferred = Result<Option<Vec<Output>>, String>;

/// Leaves the function with "cannot be told" when a part is not known.
macro_rules! known {
    ($value:expr) => {
        match $value {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

fn one(dtype: DataType, shape: Vec<usize>) -> Inferred {
    Ok(Some(vec![(dtype, shape)]))
}

impl Inference<'_> {
    fn shape(&self, index: usize) -> Option<&[usize]> {
        self.graph.shape_of(self.node.input(index)?)
    }

    fn dtype(&self, index: usize) -> Option<DataType> {
        self.graph.dtype_of(self.node.input(index)?)
    }

    fn constant(&self, index: usize) -> Option<&Tensor> {
        self.graph.constant(self.node.input(index)?)
    }

    /// A list that older opsets have as an attribute and newer ones as an input.
    fn list(&self, name: &str, index: usize) -> Option<Option<Vec<i64>>> {
        if let Some(values) = self.node.ints(name) {
            return Some(Some(values.to_vec()));
        }
        match self.node.input(index) {
            None => Some(None),
            Some(_) => Some(Some(self.constant(index)?.to_i64()?)),
        }
    }

    fn outputs(&self) -> Inferred {
        let node = self.node;
        match node.op_type.as_str() {
            "Constant" => {
                let tensor = known!(constant_value(node));
                one(tensor.dtype(), tensor.dims)
            }
            "Relu"
            | "Sigmoid"
            | "Tanh"
            | "HardSwish"
            | "HardSigmoid"
            | "LeakyRelu"
            | "Elu"
            | "Selu"
            | "Softplus"
            | "Softsign"
            | "Exp"
            | "Log"
            | "Sqrt"
            | "Abs"
            | "Neg"
            | "Floor"
            | "Ceil"
            | "Round"
            | "Erf"
            | "Sign"
            | "Reciprocal"
            | "Sin"
            | "Cos"
            | "Tan"
            | "Clip"
            | "Identity"
            | "Softmax"
            | "LogSoftmax"
            | "Gelu"
            | "Mish"
            | "ThresholdedRelu"
            | "Celu"
            | "Hardmax"
            | "LRN"
            | "InstanceNormalization"
            | "CumSum"
            | "Not"
            | "LpNormalization"
            | "BatchNormalization"
            | "Dropout"
            | "LayerNormalization" => {
                let (dtype, shape) = (known!(self.dtype(0)), known!(self.shape(0)));
                let mut outputs = vec![(dtype, shape.to_vec())];
                if node.op_type == "Dropout" && node.outputs.len() > 1 {
                    outputs.push((DataType::Bool, shape.to_vec()));
                }
                if outputs.len() < node.outputs.len() { Ok(None) } else { Ok(Some(outputs)) }
            }
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Mod" | "PRelu" | "Sum" | "Mean" | "And" | "Or"
            | "Xor" | "BitShift" => self.elementwise(None, 0),
            "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" => {
                self.elementwise(Some(DataType::Bool), 0)
            }
            "Where" => self.elementwise(self.dtype(1), 0),
            "Cast" => one(DataType::from_onnx(node.int("to", 0)), known!(self.shape(0)).to_vec()),
            "Shape" => {
                let shape = known!(self.shape(0));
                let (start, end) = shape_slice(node, shape.len());
                one(DataType::I64, vec![end.saturating_sub(start)])
            }
            "Size" => one(DataType::I64, Vec::new()),
            "Conv" => self.conv(),
            "ConvTranspose" => self.conv_transpose(),
            "MaxPool" | "AveragePool" | "LpPool" => self.pool(),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let shape = known!(self.shape(0));
                if shape.len() < 3 {
                    return Err(format!("its input has {} axes, it needs at least 3", shape.len()));
                }
                let mut out = vec![1; shape.len()];
                out[..2].copy_from_slice(&shape[..2]);
                one(known!(self.dtype(0)), out)
            }
            "Gemm" => self.gemm(),
            "MatMul" => self.matmul(),
            "Flatten" => {
                let shape = known!(self.shape(0));
                let value = node.int("axis", 1);
                let at = if value < 0 { value + shape.len() as i64 } else { value };
                let at = usize::try_from(at).ok().filter(|at| *at <= shape.len());
                let at = at.ok_or_else(|| format!("axis {value} is not one of {} axes", shape.len()))?;
                one(known!(self.dtype(0)), vec![shape[..at].iter().product(), shape[at..].iter().product()])
            }
            "Reshape" => self.reshape(),
            "Transpose" => {
                let shape = known!(self.shape(0));
                let perm = permutation(node, shape.len())?;
                one(known!(self.dtype(0)), perm.iter().map(|axis| shape[*axis]).collect())
            }
            "Squeeze" => {
                let shape = known!(self.shape(0)).to_vec();
                let axes = known!(self.list("axes", 1));
                let axes = match axes {
                    Some(axes) => self.axes(&axes, shape.len())?,
                    None => (0..shape.len()).filter(|axis| shape[*axis] == 1).collect(),
                };
                if let Some(axis) = axes.iter().find(|axis| shape[**axis] != 1) {
                    return Err(format!("axis {axis} has the size {}, only 1 can be squeezed", shape[*axis]));
                }
                let kept = shape.iter().enumerate().filter(|(index, _)| !axes.contains(index));
                one(known!(self.dtype(0)), kept.map(|(_, dim)| *dim).collect())
            }
            "Unsqueeze" => {
                let shape = known!(self.shape(0)).to_vec();
                let axes = known!(known!(self.list("axes", 1)));
                let rank = shape.len() + axes.len();
                let axes = self.axes(&axes, rank)?;
                let mut rest = shape.iter();
                let out =
                    (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { rest.next().copied().unwrap_or(1) });
                one(known!(self.dtype(0)), out.collect())
            }
            "Concat" => self.concat(),
            "Pad" => self.pad(),
            "Slice" => self.slice(),
            "Split" => self.split(),
            "Gather" => {
                let (data, indices) = (known!(self.shape(0)), known!(self.shape(1)));
                let at = self.axis(node.int("axis", 0), data.len())?;
                one(known!(self.dtype(0)), [&data[..at], indices, &data[at + 1..]].concat())
            }
            "Expand" => {
                let shape = known!(known!(self.constant(1)).to_i64());
                let shape = sizes(&shape)?;
                let input = known!(self.shape(0));
                let out = broadcast(input, &shape);
                one(known!(self.dtype(0)), out.ok_or_else(|| format!("{input:?} does not expand to {shape:?}"))?)
            }
            "Tile" => {
                let repeats = sizes(&known!(known!(self.constant(1)).to_i64()))?;
                let shape = known!(self.shape(0));
                if repeats.len() != shape.len() {
                    return Err(format!("{} repeats for {} axes", repeats.len(), shape.len()));
                }
                one(known!(self.dtype(0)), shape.iter().zip(&repeats).map(|(a, b)| a.saturating_mul(*b)).collect())
            }
            "ConstantOfShape" => {
                let dtype = node.tensor("value").map_or(DataType::F32, Tensor::dtype);
                one(dtype, sizes(&known!(known!(self.constant(0)).to_i64()))?)
            }
            "ArgMax" | "ArgMin" => {
                let shape = known!(self.shape(0));
                let at = self.axis(node.int("axis", 0), shape.len())?;
                one(DataType::I64, reduced(shape, &[at], node.int("keepdims", 1) != 0))
            }
            "DepthToSpace" => {
                let shape = known!(self.shape(0));
                let block = usize::try_from(node.int("blocksize", 0)).unwrap_or(0);
                let area = block.saturating_mul(block);
                match shape {
                    // What is larger than the channels divides them only if there are none.
                    [n, c, h, w] if block > 0 && c % area == 0 => {
                        one(known!(self.dtype(0)), vec![*n, c / area, h.saturating_mul(block), w.saturating_mul(block)])
                    }
                    _ => Err(format!("blocksize {block} does not fit {shape:?}")),
                }
            }
            "QuantizeLinear" => {
                let dtype = self.dtype(2).unwrap_or(DataType::U8);
                one(dtype, known!(self.shape(0)).to_vec())
            }
            "DequantizeLinear" => one(known!(self.dtype(1)), known!(self.shape(0)).to_vec()),
            name if name.starts_with("Reduce") => {
                let shape = known!(self.shape(0));
                let axes = match known!(self.list("axes", 1)) {
                    Some(axes) if !axes.is_empty() => self.axes(&axes, shape.len())?,
                    _ if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
                    _ => (0..shape.len()).collect(),
                };
                one(known!(self.dtype(0)), reduced(shape, &axes, node.int("keepdims", 1) != 0))
            }
            _ => super::infer_rare::outputs(self.graph, node),
        }
    }

    fn axis(&self, value: i64, rank: usize) -> Result<usize, String> {
        axis(value, rank).ok_or_else(|| format!("axis {value} is not one of {rank} axes"))
    }

    fn axes(&self, values: &[i64], rank: usize) -> Result<Vec<usize>, String> {
        values.iter().map(|value| self.axis(*value, rank)).collect()
    }

    fn elementwise(&self, dtype: Option<DataType>, typed_by: usize) -> Inferred {
        let mut shape = Vec::new();
        for index in 0..self.node.inputs.len() {
            let next = known!(self.shape(index));
            shape = broadcast(&shape, next).ok_or_else(|| format!("{shape:?} and {next:?} do not broadcast"))?;
        }
        one(known!(dtype.or_else(|| self.dtype(typed_by))), shape)
    }

    fn conv(&self) -> Inferred {
        let (x, w) = (known!(self.shape(0)), known!(self.shape(1)));
        let group = usize::try_from(self.node.int("group", 1)).unwrap_or(0);
        if x.len() < 3 || w.len() != x.len() || group == 0 || !w[0].is_multiple_of(group) || w[1] * group != x[1] {
            return Err(format!("weights {w:?} in {group} groups do not fit an input of {x:?}"));
        }
        let window = window(self.node, &x[2..], &w[2..])?;
        one(known!(self.dtype(0)), [&[x[0], w[0]], window.output.as_slice()].concat())
    }

    fn conv_transpose(&self) -> Inferred {
        let (node, x, w) = (self.node, known!(self.shape(0)), known!(self.shape(1)));
        let rank = x.len().saturating_sub(2);
        let group = usize::try_from(node.int("group", 1)).unwrap_or(0);
        if rank == 0 || w.len() != x.len() || w[0] != x[1] || group == 0 {
            return Err(format!("weights {w:?} do not fit an input of {x:?}"));
        }
        let list = |name: &str, default: i64, len: usize| match node.ints(name) {
            Some(values) if values.len() == len => values.to_vec(),
            _ => vec![default; len],
        };
        let (strides, dilations) = (list("strides", 1, rank), list("dilations", 1, rank));
        let (pads, extra) = (list("pads", 0, 2 * rank), list("output_padding", 0, rank));
        let mut out = vec![x[0], w[1].saturating_mul(group)];
        if let Some(given) = node.ints("output_shape") {
            // Some exporters give all axes, others only those of the image.
            let spatial = given.get(given.len().saturating_sub(rank)..).filter(|sizes| sizes.len() == rank);
            out.extend(sizes(spatial.ok_or_else(|| format!("output_shape {given:?} is not one of {rank} axes"))?)?);
            return one(known!(self.dtype(0)), out);
        }
        let same = matches!(node.string("auto_pad").unwrap_or("NOTSET"), "SAME_UPPER" | "SAME_LOWER");
        for i in 0..rank {
            let arithmetic = || {
                let steps = strides[i].checked_mul(x[i + 2] as i64 - i64::from(!same))?;
                if same {
                    return Some(steps);
                }
                let reach = (w[i + 2] as i64 - 1).checked_mul(dilations[i])?.checked_add(1)?;
                steps.checked_add(extra[i])?.checked_add(reach)?.checked_sub(pads[i])?.checked_sub(pads[i + rank])
            };
            let size = arithmetic().ok_or("its strides, pads or dilations are out of range")?;
            out.push(usize::try_from(size).map_err(|_| "the output would have a negative size".to_owned())?);
        }
        one(known!(self.dtype(0)), out)
    }

    fn pool(&self) -> Inferred {
        let x = known!(self.shape(0));
        if x.len() < 3 {
            return Ok(None);
        }
        let kernel = sizes(self.node.ints("kernel_shape").ok_or("it has no kernel_shape")?)?;
        let window = window(self.node, &x[2..], &kernel)?;
        let shape = [&x[..2], window.output.as_slice()].concat();
        let mut outputs = vec![(known!(self.dtype(0)), shape.clone())];
        if self.node.outputs.len() > 1 {
            outputs.push((DataType::I64, shape));
        }
        Ok(Some(outputs))
    }

    fn gemm(&self) -> Inferred {
        let (a, b) = (known!(self.shape(0)), known!(self.shape(1)));
        let ([a0, a1], [b0, b1]) = (a, b) else { return Err(format!("{a:?} and {b:?} are not both matrices")) };
        let (m, k) = if self.node.int("transA", 0) != 0 { (a1, a0) } else { (a0, a1) };
        let (k2, n) = if self.node.int("transB", 0) != 0 { (b1, b0) } else { (b0, b1) };
        if k != k2 {
            return Err(format!("{a:?} and {b:?} do not multiply: {k} is not {k2}"));
        }
        one(known!(self.dtype(0)), vec![*m, *n])
    }

    fn matmul(&self) -> Inferred {
        let (a, b) = (known!(self.shape(0)), known!(self.shape(1)));
        let wrong = || format!("{a:?} and {b:?} do not multiply");
        let row = [&[1], a].concat();
        let column = [b, &[1]].concat();
        let (a2, b2) = (if a.len() == 1 { &row } else { a }, if b.len() == 1 { &column } else { b });
        let ([batch_a @ .., m, k], [batch_b @ .., k2, n]) = (a2, b2) else { return Err(wrong()) };
        if k != k2 {
            return Err(wrong());
        }
        let mut out = broadcast(batch_a, batch_b).ok_or_else(wrong)?;
        if a.is_empty() || b.is_empty() {
            return Err(wrong());
        }
        if a.len() > 1 {
            out.push(*m);
        }
        if b.len() > 1 {
            out.push(*n);
        }
        one(known!(self.dtype(0)), out)
    }

    fn reshape(&self) -> Inferred {
        let target = known!(known!(self.constant(1)).to_i64());
        let input = known!(self.shape(0));
        let wrong = || format!("{input:?} does not reshape to {target:?}");
        let keep_zero = self.node.int("allowzero", 0) != 0;
        let mut out = Vec::with_capacity(target.len());
        let mut free = None;
        for (index, value) in target.iter().enumerate() {
            match value {
                -1 if free.is_none() => {
                    free = Some(index);
                    out.push(1);
                }
                0 if !keep_zero => out.push(*input.get(index).ok_or_else(wrong)?),
                value => out.push(usize::try_from(*value).map_err(|_| wrong())?),
            }
        }
        let have: usize = input.iter().product();
        let want = out.iter().try_fold(1usize, |len, dim| len.checked_mul(*dim)).ok_or_else(wrong)?;
        match free {
            Some(index) if want > 0 && have.is_multiple_of(want) => out[index] = have / want,
            None if want == have => {}
            _ => return Err(wrong()),
        }
        one(known!(self.dtype(0)), out)
    }

    fn concat(&self) -> Inferred {
        let first = known!(self.shape(0)).to_vec();
        let at = self.axis(self.node.int("axis", 0), first.len())?;
        let mut out = first.clone();
        for index in 1..self.node.inputs.len() {
            let next = known!(self.shape(index));
            let fits = next.len() == out.len() && (0..out.len()).all(|axis| axis == at || next[axis] == out[axis]);
            if !fits {
                return Err(format!("{next:?} does not concatenate to {first:?} along axis {at}"));
            }
            out[at] += next[at];
        }
        one(known!(self.dtype(0)), out)
    }

    fn pad(&self) -> Inferred {
        let shape = known!(self.shape(0));
        let pads = known!(known!(self.list("pads", 1)));
        let axes: Vec<usize> = match self.node.input(3) {
            Some(_) => self.axes(&known!(known!(self.constant(3)).to_i64()), shape.len())?,
            None => (0..shape.len()).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
        }
        let mut out = shape.to_vec();
        for (index, axis) in axes.iter().enumerate() {
            let size = (shape[*axis] as i64).saturating_add(pads[index]).saturating_add(pads[index + axes.len()]);
            out[*axis] = usize::try_from(size).map_err(|_| format!("pads {pads:?} leave nothing of {shape:?}"))?;
        }
        one(known!(self.dtype(0)), out)
    }

    fn slice(&self) -> Inferred {
        let shape = known!(self.shape(0));
        let ranges = known!(slice_ranges(self.graph, self.node, shape)?);
        one(known!(self.dtype(0)), ranges.iter().map(|range| range.count).collect())
    }

    fn split(&self) -> Inferred {
        let shape = known!(self.shape(0));
        let at = self.axis(self.node.int("axis", 0), shape.len())?;
        let count = self.node.outputs.len();
        let parts = match known!(self.list("split", 1)) {
            Some(parts) => sizes(&parts)?,
            None => {
                let part = shape[at].div_ceil(count.max(1));
                (0..count).map(|index| part.min(shape[at].saturating_sub(index * part))).collect()
            }
        };
        if parts.len() != count || parts.iter().sum::<usize>() != shape[at] {
            return Err(format!("parts {parts:?} do not make up axis {at} of {shape:?}"));
        }
        let dtype = known!(self.dtype(0));
        let part = |size: usize| {
            let mut out = shape.to_vec();
            out[at] = size;
            (dtype, out)
        };
        Ok(Some(parts.into_iter().map(part).collect()))
    }
}

/// The value of a `Constant` node.
pub fn constant_value(node: &Node) -> Option<Tensor> {
    if let Some(tensor) = node.tensor("value") {
        return Some(tensor.clone());
    }
    if let Some(values) = node.ints("value_ints") {
        return Some(Tensor::i64(&[values.len()], values.to_vec()));
    }
    if let Some(values) = node.floats("value_floats") {
        return Some(Tensor::f32(&[values.len()], values.to_vec()));
    }
    if node.has("value_int") {
        return Some(Tensor::i64(&[], vec![node.int("value_int", 0)]));
    }
    node.has("value_float").then(|| Tensor::f32(&[], vec![node.float("value_float", 0.0)]))
}

/// The part of the shape that a `Shape` node gives.
pub fn shape_slice(node: &Node, rank: usize) -> (usize, usize) {
    let clamp = |value: i64| {
        let value = if value < 0 { value + rank as i64 } else { value };
        value.clamp(0, rank as i64) as usize
    };
    (clamp(node.int("start", 0)), clamp(node.int("end", rank as i64)))
}

/// The order of axes of a Transpose.
pub fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>, String> {
    let Some(values) = node.ints("perm") else { return Ok((0..rank).rev().collect()) };
    let perm: Vec<usize> = values.iter().filter_map(|value| usize::try_from(*value).ok()).collect();
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted.iter().copied().eq(0..rank) {
        Ok(perm)
    } else {
        Err(format!("perm {values:?} is no order of {rank} axes"))
    }
}

/// What a Slice takes of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceRange {
    /// The first index.
    pub start: usize,
    /// The step; may be negative.
    pub step: i64,
    /// How many.
    pub count: usize,
}

/// What a Slice takes of every axis.
pub fn slice_ranges(graph: &Graph, node: &Node, shape: &[usize]) -> Result<Option<Vec<SliceRange>>, String> {
    let list = |name: &str, index: usize| -> Option<Option<Vec<i64>>> {
        if let Some(values) = node.ints(name) {
            return Some(Some(values.to_vec()));
        }
        match node.input(index) {
            None => Some(None),
            Some(input) => Some(Some(graph.constant(input)?.to_i64()?)),
        }
    };
    let starts = known!(known!(list("starts", 1)));
    let ends = known!(known!(list("ends", 2)));
    let axes = known!(list("axes", 3)).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = known!(list("steps", 4)).unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("starts, ends, axes and steps differ in length".to_owned());
    }
    let mut ranges: Vec<SliceRange> = shape.iter().map(|size| SliceRange { start: 0, step: 1, count: *size }).collect();
    for (index, value) in axes.iter().enumerate() {
        let at = axis(*value, shape.len()).ok_or_else(|| format!("axis {value} is not one of {} axes", shape.len()))?;
        let (size, step) = (shape[at] as i64, steps[index]);
        if step == 0 {
            return Err("a step of 0".to_owned());
        }
        let from_end = |value: i64| if value < 0 { value.saturating_add(size) } else { value };
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let start = from_end(starts[index]).clamp(low.max(0), high.max(0));
        let end = from_end(ends[index]).clamp(low, high);
        let distance = if step > 0 { end - start } else { start - end };
        let count = if size == 0 || distance <= 0 { 0 } else { (distance as u64).div_ceil(step.unsigned_abs()) };
        ranges[at] = SliceRange { start: start as usize, step, count: count as usize };
    }
    Ok(Some(ranges))
}

pub(super) fn reduced(shape: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let dims = shape.iter().enumerate();
    if keep {
        dims.map(|(index, dim)| if axes.contains(&index) { 1 } else { *dim }).collect()
    } else {
        dims.filter(|(index, _)| !axes.contains(index)).map(|(_, dim)| *dim).collect()
    }
}

pub(super) fn sizes(values: &[i64]) -> Result<Vec<usize>, String> {
    values.iter().map(|value| usize::try_from(*value).map_err(|_| format!("{values:?} has a negative size"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Attribute;

    fn pool(auto: &str, ceil: i64) -> Node {
        Node::new("MaxPool", "", &["x"], &["y"])
            .with("strides", Attribute::Ints(vec![2, 2]))
            .with("auto_pad", Attribute::String(auto.into()))
            .with("ceil_mode", Attribute::Int(ceil))
    }

    #[test]
    fn same_padding_goes_where_the_name_says() {
        let upper = window(&pool("SAME_UPPER", 0), &[6, 7], &[3, 3]).unwrap();
        assert_eq!((upper.pads, upper.output), (vec![0, 1, 1, 1], vec![3, 4]));
        let lower = window(&pool("SAME_LOWER", 0), &[6, 7], &[3, 3]).unwrap();
        assert_eq!(lower.pads, [1, 1, 0, 1]);
    }

    #[test]
    fn ceil_mode_adds_a_window_only_where_it_starts_inside() {
        assert_eq!(window(&pool("NOTSET", 1), &[6, 7], &[3, 3]).unwrap().output, [3, 3]);
        assert_eq!(window(&pool("NOTSET", 1), &[5, 4], &[1, 1]).unwrap().output, [3, 2]);
    }

    #[test]
    fn a_reshape_that_cannot_be_is_named() {
        let mut graph = Graph::default();
        graph.note("x", DataType::F32, &[2, 3]);
        graph.initializers.insert("s".into(), Tensor::i64(&[2], vec![4, -1]));
        let node = Node::new("Reshape", "r", &["x", "s"], &["y"]);
        let error = infer(&graph, &node).unwrap_err();
        assert_eq!(error.to_string(), "node r (Reshape): [2, 3] does not reshape to [4, -1]");
    }
}
