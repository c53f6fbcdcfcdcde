//! Types and shapes of operators that fewer models have: resizing, recurrent ones, picking by index. Like `infer`, an
//! operator whose inputs are not known gives nothing, a contradiction is an error.

use super::infer::{Output, axis, sizes};
use super::node::Node;
use super::tensor::{DataType, Tensor};
use super::{Graph, broadcast};

type Inferred = Result<Option<Vec<Output>>, String>;

/// As `infer` for the operators of this file; `None` for all others.
pub(super) fn outputs(graph: &Graph, node: &Node) -> Inferred {
    let shape = |index: usize| node.input(index).and_then(|name| graph.shape_of(name));
    let dtype = |index: usize| node.input(index).and_then(|name| graph.dtype_of(name));
    let constant = |index: usize| node.input(index).and_then(|name| graph.constant(name));
    let inferred = match node.op_type.as_str() {
        "Resize" | "Upsample" => shape(0)
            .zip(dtype(0))
            .and_then(|(shape, dtype)| Some(resized(node, shape, &constant)?.map(|shape| vec![(dtype, shape)]))),
        "LSTM" | "GRU" | "RNN" => match (shape(0), shape(2), dtype(0)) {
            (Some(x), Some(r), Some(dtype)) => Some(recurrent(node, x, r, dtype)),
            _ => None,
        },
        "Range" => return Ok(range(&constant)),
        "SpaceToDepth" => shape(0).zip(dtype(0)).map(|(shape, dtype)| {
            let block = usize::try_from(node.int("blocksize", 0)).unwrap_or(0);
            match shape {
                [n, c, h, w] if block > 0 && h % block == 0 && w % block == 0 => {
                    let channels = c.saturating_mul(block).saturating_mul(block);
                    Ok(vec![(dtype, vec![*n, channels, h / block, w / block])])
                }
                _ => Err(format!("blocksize {block} does not fit {shape:?}")),
            }
        }),
        "TopK" => match (shape(0), dtype(0), constant(1).and_then(Tensor::to_i64)) {
            (Some(shape), Some(dtype), Some(k)) => Some(top_k(node, shape, dtype, &k)),
            _ => None,
        },
        "GatherElements" => shape(1).zip(dtype(0)).map(|(shape, dtype)| Ok(vec![(dtype, shape.to_vec())])),
        "GatherND" if node.int("batch_dims", 0) == 0 => match (shape(0), shape(1), dtype(0)) {
            (Some(data), Some([outer @ .., depth]), Some(dtype)) => Some(match data.get(*depth..) {
                Some(rest) => Ok(vec![(dtype, [outer, rest].concat())]),
                None => Err(format!("indices of {depth} coordinates do not fit {data:?}")),
            }),
            _ => None,
        },
        "ScatterND" | "ScatterElements" | "Trilu" | "GroupNormalization" | "Shrink" | "CastLike" => {
            let typed_by = usize::from(node.op_type == "CastLike");
            shape(0).zip(dtype(typed_by)).map(|(shape, dtype)| Ok(vec![(dtype, shape.to_vec())]))
        }
        "IsNaN" | "IsInf" => shape(0).map(|shape| Ok(vec![(DataType::Bool, shape.to_vec())])),
        "OneHot" => match (shape(0), constant(1).and_then(Tensor::to_i64), dtype(2)) {
            (Some(shape), Some(depth), Some(dtype)) => Some(one_hot(node, shape, &depth, dtype)),
            _ => None,
        },
        "Einsum" => dtype(0).and_then(|dtype| {
            let shapes: Vec<&[usize]> = (0..node.inputs.len()).map(shape).collect::<Option<_>>()?;
            Some(einsum(node, &shapes)?.map(|shape| vec![(dtype, shape)]))
        }),
        _ => None,
    };
    inferred.transpose()
}

/// The shape after `Resize` or `Upsample`; `None` when sizes or scales are not constant or follow a policy.
fn resized<'a>(
    node: &Node,
    shape: &[usize],
    constant: &dyn Fn(usize) -> Option<&'a Tensor>,
) -> Option<Result<Vec<usize>, String>> {
    if node.string("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch") {
        return None;
    }
    let axes: Vec<usize> = match node.ints("axes") {
        Some(axes) => axes.iter().map(|value| axis(*value, shape.len())).collect::<Option<_>>()?,
        None => (0..shape.len()).collect(),
    };
    let mut out = shape.to_vec();
    let upsample = node.op_type == "Upsample";
    let sizes = if upsample { None } else { constant(3).and_then(Tensor::to_i64) };
    if let Some(sizes) = sizes.filter(|sizes| !sizes.is_empty()) {
        if sizes.len() != axes.len() {
            return Some(Err(format!("{} sizes for {} axes", sizes.len(), axes.len())));
        }
        for (axis, size) in axes.iter().zip(&sizes) {
            match usize::try_from(*size) {
                Ok(size) => out[*axis] = size,
                Err(_) => return Some(Err(format!("sizes {sizes:?} are negative"))),
            }
        }
        return Some(Ok(out));
    }
    let scales = match node.floats("scales") {
        Some(scales) => scales.to_vec(),
        None => constant(if upsample { 1 } else { 2 })?.to_f32()?,
    };
    if scales.is_empty() || (!upsample && node.input(3).is_some()) {
        return None;
    }
    if scales.len() != axes.len() || scales.iter().any(|scale| !scale.is_finite() || *scale <= 0.0) {
        return Some(Err(format!("scales {scales:?} do not fit {} axes", axes.len())));
    }
    for (axis, scale) in axes.iter().zip(&scales) {
        out[*axis] = (shape[*axis] as f32 * scale).floor() as usize;
    }
    Some(Ok(out))
}

/// Y, Y_h and, for an LSTM, Y_c; `x` is [time, batch, features] and `r` [directions, gates * hidden, hidden].
fn recurrent(node: &Node, x: &[usize], r: &[usize], dtype: DataType) -> Result<Vec<Output>, String> {
    let ([first, second, _], [directions, _, hidden]) = (x, r) else {
        return Err(format!("an input of {x:?} and recurrent weights of {r:?} are not what it takes"));
    };
    let (all, last) = if node.int("layout", 0) == 0 {
        (vec![*first, *directions, *second, *hidden], vec![*directions, *second, *hidden])
    } else {
        (vec![*first, *second, *directions, *hidden], vec![*first, *directions, *hidden])
    };
    let outputs = vec![(dtype, all), (dtype, last.clone()), (dtype, last)];
    let most = if node.op_type == "LSTM" { 3 } else { 2 };
    if node.outputs.len() > most {
        return Err(format!("it has {} outputs, {most} are possible", node.outputs.len()));
    }
    Ok(outputs.into_iter().take(node.outputs.len()).collect())
}

fn range<'a>(constant: &dyn Fn(usize) -> Option<&'a Tensor>) -> Option<Vec<Output>> {
    let (start, limit, step) = (constant(0)?, constant(1)?, constant(2)?);
    let number = |tensor: &Tensor| match (tensor.to_f32(), tensor.to_i64()) {
        (Some(values), _) => values.first().map(|value| f64::from(*value)),
        (_, Some(values)) => values.first().map(|value| *value as f64),
        _ => None,
    };
    let count = ((number(limit)? - number(start)?) / number(step)?).ceil().max(0.0);
    (count.is_finite() && count < 1e9).then(|| vec![(start.dtype(), vec![count as usize])])
}

fn top_k(node: &Node, shape: &[usize], dtype: DataType, k: &[i64]) -> Result<Vec<Output>, String> {
    let at = axis(node.int("axis", -1), shape.len()).ok_or("its axis does not exist")?;
    let [k] = sizes(k)?[..] else { return Err("its K is not one number".to_owned()) };
    if k > shape[at] {
        return Err(format!("it wants {k} of the {} elements of axis {at}", shape[at]));
    }
    let mut out = shape.to_vec();
    out[at] = k;
    Ok(vec![(dtype, out.clone()), (DataType::I64, out)])
}

fn one_hot(node: &Node, shape: &[usize], depth: &[i64], dtype: DataType) -> Result<Vec<Output>, String> {
    let [depth] = sizes(depth)?[..] else { return Err("its depth is not one number".to_owned()) };
    let at = axis(node.int("axis", -1), shape.len() + 1).ok_or("its axis does not exist")?;
    let mut out = shape.to_vec();
    out.insert(at, depth);
    Ok(vec![(dtype, out)])
}

/// Equations of plain letters with a right side; anything else is not told.
fn einsum(node: &Node, shapes: &[&[usize]]) -> Option<Result<Vec<usize>, String>> {
    let equation: String = node.string("equation")?.chars().filter(|letter| !letter.is_whitespace()).collect();
    let (left, right) = equation.split_once("->")?;
    let terms: Vec<&str> = left.split(',').collect();
    let plain = |term: &str| term.chars().all(|letter| letter.is_ascii_alphabetic());
    if terms.len() != shapes.len() || !terms.iter().all(|term| plain(term)) || !plain(right) {
        return None;
    }
    let mut known: std::collections::BTreeMap<char, usize> = std::collections::BTreeMap::new();
    for (term, shape) in terms.iter().zip(shapes) {
        if term.len() != shape.len() {
            return Some(Err(format!("{term} does not describe {shape:?}")));
        }
        for (letter, size) in term.chars().zip(shape.iter()) {
            let entry = known.entry(letter).or_insert(*size);
            match broadcast(&[*entry], &[*size]) {
                Some(both) => *entry = both[0],
                None => return Some(Err(format!("{letter} is {entry} and {size} in {equation}"))),
            }
        }
    }
    let shape: Option<Vec<usize>> = right.chars().map(|letter| known.get(&letter).copied()).collect();
    Some(shape.ok_or_else(|| format!("{equation} has a letter on the right only")))
}
