//! Computes nodes whose inputs are constants: the shape arithmetic that exporters leave behind and the cheap
//! arithmetic on weights. What is not computed here stays in the graph for the runtime.

use crate::ir::{DataType, Graph, Node, Tensor, TensorData, broadcast, constant_value, infer, slice_ranges};

/// A constant larger than this and larger than what it is made from stays an operation.
const MAX_GROWTH: usize = 1 << 16;

/// The values of the node's outputs, when they can be computed.
pub fn fold(graph: &Graph, node: &Node) -> Option<Vec<Tensor>> {
    if !node.is_standard() || node.outputs.is_empty() || !node.captures.is_empty() {
        return None;
    }
    if node.op_type == "Constant" {
        return constant_value(node).filter(|tensor| !matches!(tensor.data, TensorData::Opaque(_))).map(|t| vec![t]);
    }
    if node.op_type == "Shape" {
        let shape = graph.shape_of(node.input(0)?)?;
        let (start, end) = crate::ir::shape_slice(node, shape.len());
        let part: Vec<i64> = shape.get(start..end).unwrap_or_default().iter().map(|dim| *dim as i64).collect();
        return Some(vec![Tensor::i64(&[part.len()], part)]);
    }
    if node.op_type == "Size" {
        return Some(vec![Tensor::i64(&[], vec![graph.shape_of(node.input(0)?)?.iter().product::<usize>() as i64])]);
    }
    let inputs: Vec<Option<&Tensor>> = node
        .inputs
        .iter()
        .map(|name| if name.is_empty() { Some(None) } else { graph.constant(name).map(Some) })
        .collect::<Option<_>>()?;
    if inputs.iter().flatten().any(|tensor| matches!(tensor.data, TensorData::Opaque(_))) {
        return None;
    }
    let outputs = infer(graph, node).ok()??;
    let room = inputs.iter().flatten().map(|tensor| tensor.len()).max().unwrap_or(0).max(MAX_GROWTH);
    if outputs.len() != node.outputs.len() || outputs.iter().any(|(_, shape)| shape.iter().product::<usize>() > room) {
        return None;
    }
    let (dtype, shape) = outputs.first()?.clone();
    let at = |index: usize| inputs.get(index).copied().flatten();
    let one = |tensor: Option<Tensor>| tensor.map(|tensor| vec![tensor]);
    match node.op_type.as_str() {
        "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
            Some(vec![Tensor { dims: shape, data: at(0)?.data.clone() }])
        }
        "Cast" => one(cast(at(0)?, dtype)),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Mod" | "Equal" | "Greater" | "Less"
        | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" | "Xor"
            if inputs.len() == 2 =>
        {
            one(binary(&node.op_type, at(0)?, at(1)?, shape))
        }
        "Sqrt" | "Neg" | "Abs" | "Exp" | "Log" | "Reciprocal" | "Floor" | "Ceil" | "Not" | "Sin" | "Cos" | "Tanh"
        | "Sigmoid" | "Relu" | "Sign" | "Round" => one(unary(&node.op_type, at(0)?)),
        "Where" => {
            let (condition, x, y) = (at(0)?.to_i64()?, at(1)?, at(2)?);
            let (from_c, from_x, from_y) =
                (places(&at(0)?.dims, &shape), places(&x.dims, &shape), places(&y.dims, &shape));
            macro_rules! pick {
                ($($variant:ident),*) => {
                    match (&x.data, &y.data) {
                        $((TensorData::$variant(x), TensorData::$variant(y)) => TensorData::$variant(
                            (0..from_c.len())
                                .map(|i| if condition[from_c[i]] != 0 { x[from_x[i]] } else { y[from_y[i]] })
                                .collect(),
                        ),)*
                        _ => return None,
                    }
                };
            }
            let data = pick!(F32, F16, F64, I64, I32, I16, U16, I8, U8, Bool);
            Some(vec![Tensor { dims: shape, data }])
        }
        "ConstantOfShape" => {
            let fill = node.tensor("value").cloned().unwrap_or_else(|| Tensor::f32(&[1], vec![0.0]));
            let len: usize = shape.iter().product();
            Some(vec![gather(&fill, shape, &vec![0; len])?])
        }
        "Expand" => {
            let places = places(&at(0)?.dims, &shape);
            one(gather(at(0)?, shape, &places))
        }
        "Range" => {
            let count = shape.first().copied().filter(|count| *count <= MAX_GROWTH)?;
            if let (Some(start), Some(step)) = (at(0)?.as_f32(), at(2)?.as_f32()) {
                let (start, step) = (start.first()?, step.first()?);
                let data: Vec<f32> = (0..count).map(|i| start + i as f32 * step).collect();
                return Some(vec![Tensor::f32(&shape, data)]);
            }
            let (start, step) = (at(0)?.to_i64()?, at(2)?.to_i64()?);
            let (&[start], &[step]) = (&start[..], &step[..]) else { return None };
            let value = |i: usize| start.checked_add(step.checked_mul(i as i64)?);
            let data: Vec<i64> = (0..count).map(value).collect::<Option<_>>()?;
            one(cast(&Tensor::i64(&shape, data), dtype))
        }
        "Split" => {
            let data = at(0)?;
            let axis = crate::ir::axis(node.int("axis", 0), data.dims.len())?;
            let (strides, mut start) = (strides(&data.dims), 0);
            let mut parts = Vec::with_capacity(outputs.len());
            for (_, part) in &outputs {
                let places = positions(part, |index| {
                    index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>() + start * strides[axis]
                });
                parts.push(gather(data, part.clone(), &places)?);
                start += part[axis];
            }
            Some(parts)
        }
        "Tile" => {
            let data = at(0)?;
            let strides = strides(&data.dims);
            let places = positions(&shape, |index| {
                index.iter().zip(&data.dims).zip(&strides).map(|((i, dim), stride)| i % dim.max(&1) * stride).sum()
            });
            one(gather(data, shape, &places))
        }
        "Trilu" => {
            let data = at(0)?;
            let [.., _, columns] = data.dims[..] else { return None };
            let rows = data.dims[data.dims.len() - 2];
            let diagonal = match at(1) {
                Some(k) => *k.to_i64()?.first()?,
                None => 0,
            };
            let upper = node.int("upper", 1) != 0;
            let keep = |place: usize| {
                let (row, column) = ((place / columns.max(1) % rows.max(1)) as i64, (place % columns.max(1)) as i64);
                let along = column.saturating_sub(row);
                if upper { along >= diagonal } else { along <= diagonal }
            };
            let data = match &data.data {
                TensorData::F32(data) => {
                    TensorData::F32(data.iter().enumerate().map(|(at, v)| if keep(at) { *v } else { 0.0 }).collect())
                }
                TensorData::I64(data) => {
                    TensorData::I64(data.iter().enumerate().map(|(at, v)| if keep(at) { *v } else { 0 }).collect())
                }
                TensorData::Bool(data) => {
                    TensorData::Bool(data.iter().enumerate().map(|(at, v)| *v && keep(at)).collect())
                }
                _ => return None,
            };
            Some(vec![Tensor { dims: shape, data }])
        }
        "Gather" => {
            let (data, indices) = (at(0)?, at(1)?.to_i64()?);
            let axis = crate::ir::axis(node.int("axis", 0), data.dims.len())?;
            let (outer, size) = (data.dims[..axis].iter().product::<usize>(), data.dims[axis]);
            let inner: usize = data.dims[axis + 1..].iter().product();
            let mut places = Vec::with_capacity(outer * indices.len() * inner);
            for block in 0..outer {
                for index in &indices {
                    let index = if *index < 0 { index + size as i64 } else { *index };
                    let index = usize::try_from(index).ok().filter(|index| *index < size)?;
                    places.extend((0..inner).map(|i| (block * size + index) * inner + i));
                }
            }
            one(gather(data, shape, &places))
        }
        "Slice" => {
            let data = at(0)?;
            let ranges = slice_ranges(graph, node, &data.dims).ok()??;
            let strides = strides(&data.dims);
            let places = positions(&shape, |index| {
                index
                    .iter()
                    .zip(&ranges)
                    .zip(&strides)
                    .map(|((i, range), stride)| (range.start as i64 + *i as i64 * range.step) as usize * stride)
                    .sum()
            });
            one(gather(data, shape, &places))
        }
        "Transpose" => {
            let data = at(0)?;
            let perm = crate::ir::permutation(node, data.dims.len()).ok()?;
            let strides = strides(&data.dims);
            let places = positions(&shape, |index| index.iter().zip(&perm).map(|(i, axis)| i * strides[*axis]).sum());
            one(gather(data, shape, &places))
        }
        "Concat" => {
            let axis = crate::ir::axis(node.int("axis", 0), shape.len())?;
            let parts: Vec<&Tensor> = inputs.iter().copied().collect::<Option<_>>()?;
            concat(&parts, axis, shape)
        }
        name if name.starts_with("Reduce") => one(reduce(name, at(0)?, &shape, graph, node)),
        _ => None,
    }
}

fn cast(tensor: &Tensor, dtype: DataType) -> Option<Tensor> {
    let dims = tensor.dims.clone();
    let data = match (dtype, &tensor.data) {
        (DataType::F32, _) if tensor.to_f32().is_some() => TensorData::F32(tensor.to_f32()?),
        (DataType::F32, _) => TensorData::F32(tensor.to_i64()?.iter().map(|value| *value as f32).collect()),
        (DataType::I64, TensorData::F32(data)) => TensorData::I64(data.iter().map(|value| *value as i64).collect()),
        (DataType::I64, _) => TensorData::I64(tensor.to_i64()?),
        (DataType::I32, TensorData::F32(data)) => TensorData::I32(data.iter().map(|value| *value as i32).collect()),
        (DataType::I32, _) => TensorData::I32(tensor.to_i64()?.iter().map(|value| *value as i32).collect()),
        (DataType::F64, _) => TensorData::F64(match tensor.to_i64() {
            Some(data) => data.iter().map(|value| *value as f64).collect(),
            None => tensor.to_f32()?.iter().map(|value| f64::from(*value)).collect(),
        }),
        (DataType::F16, _) => {
            let floats = cast(tensor, DataType::F32)?;
            TensorData::F16(floats.as_f32()?.iter().map(|value| half::f16::from_f32(*value).to_bits()).collect())
        }
        (DataType::U8, TensorData::Bool(data)) => TensorData::U8(data.iter().map(|value| u8::from(*value)).collect()),
        (DataType::Bool, TensorData::F32(data)) => TensorData::Bool(data.iter().map(|value| *value != 0.0).collect()),
        (DataType::Bool, _) => TensorData::Bool(tensor.to_i64()?.iter().map(|value| *value != 0).collect()),
        _ => return None,
    };
    Some(Tensor { dims, data })
}

fn binary(op: &str, a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Option<Tensor> {
    let (from_a, from_b) = (places(&a.dims, &shape), places(&b.dims, &shape));
    let compare = |keep: &dyn Fn(usize) -> bool| TensorData::Bool((0..from_a.len()).map(keep).collect());
    let data = match (&a.data, &b.data) {
        (TensorData::F32(a), TensorData::F32(b)) => {
            let pairs = |f: fn(f32, f32) -> f32| {
                TensorData::F32(from_a.iter().zip(&from_b).map(|(i, j)| f(a[*i], b[*j])).collect())
            };
            match op {
                "Add" => pairs(|a, b| a + b),
                "Sub" => pairs(|a, b| a - b),
                "Mul" => pairs(|a, b| a * b),
                "Div" => pairs(|a, b| a / b),
                "Pow" => pairs(f32::powf),
                "Max" => pairs(f32::max),
                "Min" => pairs(f32::min),
                "Equal" => compare(&|i| a[from_a[i]] == b[from_b[i]]),
                "Greater" => compare(&|i| a[from_a[i]] > b[from_b[i]]),
                "Less" => compare(&|i| a[from_a[i]] < b[from_b[i]]),
                "GreaterOrEqual" => compare(&|i| a[from_a[i]] >= b[from_b[i]]),
                "LessOrEqual" => compare(&|i| a[from_a[i]] <= b[from_b[i]]),
                _ => return None,
            }
        }
        (TensorData::I64(_), TensorData::I64(_)) | (TensorData::I32(_), TensorData::I32(_)) => {
            let wide = matches!(a.data, TensorData::I64(_));
            let (a, b) = (a.to_i64()?, b.to_i64()?);
            let pairs = |f: fn(i64, i64) -> Option<i64>| -> Option<TensorData> {
                let values: Option<Vec<i64>> = from_a.iter().zip(&from_b).map(|(i, j)| f(a[*i], b[*j])).collect();
                if wide {
                    values.map(TensorData::I64)
                } else {
                    values?
                        .into_iter()
                        .map(|value| i32::try_from(value).ok())
                        .collect::<Option<_>>()
                        .map(TensorData::I32)
                }
            };
            match op {
                "Add" => pairs(i64::checked_add)?,
                "Sub" => pairs(i64::checked_sub)?,
                "Mul" => pairs(i64::checked_mul)?,
                // ONNX leaves the rounding of negative quotients to C, which truncates, as Rust does.
                "Div" => pairs(i64::checked_div)?,
                "Mod" => pairs(i64::checked_rem_euclid)?,
                "Max" => pairs(|a, b| Some(a.max(b)))?,
                "Min" => pairs(|a, b| Some(a.min(b)))?,
                "Equal" => compare(&|i| a[from_a[i]] == b[from_b[i]]),
                "Greater" => compare(&|i| a[from_a[i]] > b[from_b[i]]),
                "Less" => compare(&|i| a[from_a[i]] < b[from_b[i]]),
                "GreaterOrEqual" => compare(&|i| a[from_a[i]] >= b[from_b[i]]),
                "LessOrEqual" => compare(&|i| a[from_a[i]] <= b[from_b[i]]),
                _ => return None,
            }
        }
        (TensorData::Bool(a), TensorData::Bool(b)) => match op {
            "And" => compare(&|i| a[from_a[i]] && b[from_b[i]]),
            "Or" => compare(&|i| a[from_a[i]] || b[from_b[i]]),
            "Xor" => compare(&|i| a[from_a[i]] != b[from_b[i]]),
            "Equal" => compare(&|i| a[from_a[i]] == b[from_b[i]]),
            _ => return None,
        },
        _ => return None,
    };
    Some(Tensor { dims: shape, data })
}

fn unary(op: &str, tensor: &Tensor) -> Option<Tensor> {
    let data = match &tensor.data {
        TensorData::F32(data) => {
            let each = |f: fn(f32) -> f32| TensorData::F32(data.iter().map(|value| f(*value)).collect());
            match op {
                "Sqrt" => each(f32::sqrt),
                "Neg" => each(|value| -value),
                "Abs" => each(f32::abs),
                "Exp" => each(f32::exp),
                "Log" => each(f32::ln),
                "Reciprocal" => each(f32::recip),
                "Floor" => each(f32::floor),
                "Ceil" => each(f32::ceil),
                "Sin" => each(f32::sin),
                "Cos" => each(f32::cos),
                "Tanh" => each(f32::tanh),
                "Sigmoid" => each(|value| 1.0 / (1.0 + (-value).exp())),
                "Relu" => each(|value| value.max(0.0)),
                "Round" => each(f32::round_ties_even),
                "Sign" => each(|value| if value == 0.0 { 0.0 } else { value.signum() }),
                _ => return None,
            }
        }
        TensorData::I64(data) => match op {
            "Sign" => TensorData::I64(data.iter().map(|value| value.signum()).collect()),
            "Neg" => TensorData::I64(data.iter().map(|value| value.wrapping_neg()).collect()),
            "Abs" => TensorData::I64(data.iter().map(|value| value.wrapping_abs()).collect()),
            _ => return None,
        },
        TensorData::Bool(data) if op == "Not" => TensorData::Bool(data.iter().map(|value| !value).collect()),
        _ => return None,
    };
    Some(Tensor { dims: tensor.dims.clone(), data })
}

fn reduce(op: &str, tensor: &Tensor, shape: &[usize], graph: &Graph, node: &Node) -> Option<Tensor> {
    let axes = match node.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => node.input(1).map_or(Some(Vec::new()), |name| graph.constant(name)?.to_i64())?,
    };
    let axes: Vec<usize> = if axes.is_empty() {
        (0..tensor.dims.len()).collect()
    } else {
        axes.iter().map(|axis| crate::ir::axis(*axis, tensor.dims.len())).collect::<Option<_>>()?
    };
    // Every input position goes to the output position with the reduced axes at 0.
    let mut kept = tensor.dims.clone();
    axes.iter().for_each(|axis| kept[*axis] = 1);
    let strides = strides(&kept);
    let targets = positions(&tensor.dims, |index| {
        index.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(axis, i)| i * strides[axis]).sum()
    });
    let len: usize = kept.iter().product();
    match &tensor.data {
        TensorData::I64(data) if op == "ReduceProd" => {
            let mut out = vec![1i64; len];
            for (value, target) in data.iter().zip(&targets) {
                out[*target] = out[*target].checked_mul(*value)?;
            }
            Some(Tensor::i64(shape, out))
        }
        TensorData::I64(data) if matches!(op, "ReduceMax" | "ReduceMin" | "ReduceSum") => {
            let mut out: Vec<Option<i64>> = vec![None; len];
            for (value, target) in data.iter().zip(&targets) {
                out[*target] = Some(match (op, out[*target]) {
                    (_, None) => *value,
                    ("ReduceMax", Some(known)) => known.max(*value),
                    ("ReduceMin", Some(known)) => known.min(*value),
                    (_, Some(known)) => known.checked_add(*value)?,
                });
            }
            Some(Tensor::i64(shape, out.into_iter().collect::<Option<_>>()?))
        }
        TensorData::F32(data) if matches!(op, "ReduceSum" | "ReduceMean") => {
            let mut out = vec![0f64; len];
            for (value, target) in data.iter().zip(&targets) {
                out[*target] += f64::from(*value);
            }
            let count = if op == "ReduceMean" { data.len() as f64 / len.max(1) as f64 } else { 1.0 };
            Some(Tensor::f32(shape, out.iter().map(|value| (value / count) as f32).collect()))
        }
        _ => None,
    }
}

fn concat(parts: &[&Tensor], axis: usize, shape: Vec<usize>) -> Option<Vec<Tensor>> {
    let size = parts.first()?.dtype().size()?;
    if parts.iter().any(|part| part.dtype() != parts[0].dtype()) {
        return None;
    }
    let bytes: Vec<Vec<u8>> = parts.iter().map(|part| part.to_bytes()).collect::<Option<_>>()?;
    let outer: usize = shape[..axis].iter().product();
    let mut out = Vec::new();
    for block in 0..outer {
        for (part, bytes) in parts.iter().zip(&bytes) {
            let run = part.dims[axis..].iter().product::<usize>() * size;
            out.extend_from_slice(&bytes[block * run..(block + 1) * run]);
        }
    }
    Some(vec![Tensor::from_bytes(shape, parts[0].dtype(), &out)?])
}

fn gather(tensor: &Tensor, dims: Vec<usize>, places: &[usize]) -> Option<Tensor> {
    macro_rules! each {
        ($($variant:ident),*) => {
            match &tensor.data {
                $(TensorData::$variant(data) => {
                    TensorData::$variant(places.iter().map(|at| data.get(*at).copied()).collect::<Option<_>>()?)
                })*
                TensorData::Opaque(_) => return None,
            }
        };
    }
    let data = each!(F32, F16, F64, I64, I32, I16, U16, I8, U8, Bool);
    Some(Tensor { dims, data })
}

fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Calls `f` with the index of every element of `shape`, in order.
fn positions(shape: &[usize], f: impl Fn(&[usize]) -> usize) -> Vec<usize> {
    let len: usize = shape.iter().product();
    let mut index = vec![0; shape.len()];
    let mut out = Vec::with_capacity(len);
    for _ in 0..len {
        out.push(f(&index));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    out
}

/// For every element of `shape`, where it comes from in a tensor of shape `from` that is broadcast to it.
fn places(from: &[usize], shape: &[usize]) -> Vec<usize> {
    debug_assert!(broadcast(from, shape).is_some());
    let (strides, skip) = (strides(from), shape.len() - from.len());
    positions(shape, |index| {
        index[skip..]
            .iter()
            .zip(from)
            .zip(&strides)
            .map(|((i, dim), stride)| if *dim == 1 { 0 } else { i * stride })
            .sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::Attribute;

    fn folded(node: Node, constants: &[(&str, Tensor)]) -> Option<Tensor> {
        let mut graph = Graph { opset: 13, ..Graph::default() };
        graph.initializers.extend(constants.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())));
        fold(&graph, &node).map(|mut outputs| outputs.remove(0))
    }

    #[test]
    fn shape_arithmetic_comes_to_numbers() {
        let mut graph = Graph::default();
        graph.note("x", DataType::F32, &[1, 3, 8, 6]);
        let shape = fold(&graph, &Node::new("Shape", "", &["x"], &["s"])).unwrap().remove(0);
        assert_eq!(shape, Tensor::i64(&[4], vec![1, 3, 8, 6]));
        let index = Tensor::i64(&[2], vec![-1, 2]);
        let picked = folded(Node::new("Gather", "", &["s", "i"], &["y"]), &[("s", shape), ("i", index)]);
        assert_eq!(picked, Some(Tensor::i64(&[2], vec![6, 8])));
    }

    #[test]
    fn a_slice_may_run_backwards() {
        let data = Tensor::i64(&[2, 3], vec![1, 2, 3, 4, 5, 6]);
        let list = |values: &[i64]| Tensor::i64(&[values.len()], values.to_vec());
        let node = Node::new("Slice", "", &["d", "s", "e", "a", "t"], &["y"]);
        let constants =
            [("d", data), ("s", list(&[-1])), ("e", list(&[i64::MIN])), ("a", list(&[1])), ("t", list(&[-2]))];
        assert_eq!(folded(node, &constants), Some(Tensor::i64(&[2, 2], vec![3, 1, 6, 4])));
    }

    #[test]
    fn operands_broadcast() {
        let (a, b) = (Tensor::f32(&[2, 1], vec![1.0, 2.0]), Tensor::f32(&[3], vec![10.0, 20.0, 30.0]));
        let sum = folded(Node::new("Add", "", &["a", "b"], &["y"]), &[("a", a), ("b", b)]).unwrap();
        assert_eq!(sum, Tensor::f32(&[2, 3], vec![11.0, 21.0, 31.0, 12.0, 22.0, 32.0]));
    }

    #[test]
    fn a_constant_that_would_fill_memory_stays_an_operation() {
        let shape = Tensor::i64(&[2], vec![1 << 15, 1 << 15]);
        assert_eq!(folded(Node::new("ConstantOfShape", "", &["s"], &["y"]), &[("s", shape)]), None);
    }

    #[test]
    fn reduced_axes_are_those_that_are_named() {
        let data = Tensor::f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]);
        let node = Node::new("ReduceMean", "", &["d"], &["y"]).with("axes", Attribute::Ints(vec![0]));
        assert_eq!(folded(node, &[("d", data)]), Some(Tensor::f32(&[1, 2], vec![2.0, 3.0])));
    }
}
