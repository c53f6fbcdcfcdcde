//! What lies inside a `.tflite`, tensor by tensor beside the ONNX model it was made from. Runtimes show a model's inputs and
//! outputs only; so a copy of the file is run whose outputs are the tensors inside as well, which every runtime can do.
//! Tensors are found again by their names, and integers become reals by their scales.

use std::collections::{BTreeMap, BTreeSet};

use edgeyard_tflite::{Model as TfLite, Tensor, TensorType, WriteError};
use thiserror::Error;

use crate::dataset::DatasetError;
use crate::ir::{DataType, Dim, Model, Value};
use crate::runtime::{LiteRt, Micro, OnnxRuntime, Runner, RuntimeError, Session, threads};

/// Values that are looked at at the same time: both models' tensors as floats, 256 MiB.
const MOST_VALUES: usize = 1 << 25;
/// Above so many dimensions larger than 1, only moves of a single one are tried.
const PERMUTED_AXES: usize = 4;

/// Why tensors inside a `.tflite` cannot be compared.
#[derive(Debug, Error)]
pub enum InsideError {
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DatasetError),
    /// The reference does not run.
    #[error("the reference: {0}")]
    Reference(RuntimeError),
    /// The `.tflite` does not run with more outputs.
    #[error("with its inner tensors as outputs: {0}")]
    Other(RuntimeError),
    /// The copy cannot be written.
    #[error("a copy that shows its inner tensors cannot be written: {0}")]
    Copy(#[from] WriteError),
}

/// Where a `.tflite` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// LiteRT on the CPU.
    LiteRt,
    /// The engine of our firmware.
    Micro,
}

/// Sums over the values of one tensor.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Squares of the reference's values.
    pub signal: f64,
    /// Squares of the differences.
    pub noise: f64,
    /// The largest difference.
    pub worst: f64,
    /// The reference's largest absolute value.
    pub largest: f64,
}

impl Tally {
    /// Adds one value of the reference and what stands for it.
    pub fn see(&mut self, expected: f32, found: f32) {
        let (expected, found) = (f64::from(expected), f64::from(found));
        let difference = expected - found;
        self.signal += expected * expected;
        self.noise += difference * difference;
        self.worst = self.worst.max(difference.abs());
        self.largest = self.largest.max(expected.abs());
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Inside {
    /// By the tensor's name in the reference.
    pub tensors: BTreeMap<String, Tally>,
    /// Named tensors that were computed and not compared: the reference has none of that name, or of another size.
    pub unmatched: Vec<String>,
}

/// Calls back with one sample after the other.
pub type Feed<'a> = &'a dyn Fn(&mut dyn FnMut(&[f32]) -> Result<(), InsideError>) -> Result<(), InsideError>;

/// Runs both models on the samples of shape `sample` and compares every float tensor of the reference with the tensor of that
/// name inside the `.tflite`, its outputs among them. TFLite's tensors may hold an ONNX tensor with its dimensions in another
/// order; which, their sizes tell, and where these fit several orders it is the one that agrees best: values in a wrong order agree
/// with nothing.
///
/// # Errors
/// [`InsideError`].
pub fn inside(
    onnxruntime: &OnnxRuntime,
    reference: &Model,
    lowered: &TfLite,
    runtime: Runtime,
    sample: &[usize],
    feed: Feed<'_>,
) -> Result<Inside, InsideError> {
    let made: BTreeSet<&str> =
        reference.graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str).collect();
    let float = |name: &str| reference.graph.dtype_of(name).is_none_or(|dtype| dtype == DataType::F32);
    let (shared, strange): (Vec<Inner>, Vec<Inner>) =
        inner(lowered, runtime).into_iter().partition(|one| made.contains(one.name.as_str()) && float(&one.name));
    let mut found = Inside { unmatched: strange.into_iter().map(|one| one.name).collect(), ..Inside::default() };
    let mut rest = shared.as_slice();
    while !rest.is_empty() {
        let (group, later) = rest.split_at(together(rest, MOST_VALUES));
        rest = later;
        let names = group.iter().map(|one| one.name.as_str());
        let mut expected =
            onnxruntime.session(&showing(reference, names).to_bytes(), threads()).map_err(InsideError::Reference)?;
        let copy = copy(lowered, group)?;
        let mut pairs = Vec::new();
        let mut outcome = Ok(());
        let mut work = |runner: &mut dyn Runner| {
            outcome = feed(&mut |values| compare(&mut expected, runner, group, &mut pairs, sample, values));
        };
        match runtime {
            Runtime::LiteRt => {
                LiteRt::load().and_then(|litert| litert.with(&copy, sample, &mut work)).map_err(InsideError::Other)?;
            }
            Runtime::Micro => work(Micro::runner(&copy, sample).map_err(InsideError::Other)?.as_mut()),
        }
        outcome?;
        for (one, pair) in group.iter().zip(pairs) {
            match pair.best() {
                Some(tally) => drop(found.tensors.insert(one.name.clone(), tally)),
                None => found.unmatched.push(one.name.clone()),
            }
        }
    }
    Ok(found)
}

/// A computed tensor of the file that has a name of its own.
#[derive(Debug, Clone, PartialEq)]
struct Inner {
    name: String,
    index: i32,
    shape: Vec<usize>,
    values: usize,
}

/// The tensors that can be shown, in the order in which they are computed.
fn inner(model: &TfLite, runtime: Runtime) -> Vec<Inner> {
    let Some(graph) = model.subgraphs.first() else { return Vec::new() };
    let mut called: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in &graph.tensors {
        *called.entry(tensor.name.as_str()).or_default() += 1;
    }
    let shown = |index: &i32| {
        let tensor: &Tensor = graph.tensors.get(usize::try_from(*index).ok()?)?;
        let scaled =
            || tensor.quantization.as_ref().is_some_and(|found| found.scale.len() == 1 && found.scale[0] > 0.0);
        let real = match (runtime, tensor.dtype) {
            (_, TensorType::Int8) | (Runtime::LiteRt, TensorType::Uint8 | TensorType::Int16) => scaled(),
            (Runtime::LiteRt, TensorType::Float32) => true,
            _ => false,
        };
        let own = !tensor.name.is_empty() && called.get(tensor.name.as_str()) == Some(&1);
        let fixed = !tensor.shape_signature.contains(&-1) && tensor.has_rank && !tensor.is_variable;
        let computed = model.data_of(tensor).is_empty() && !graph.inputs.contains(index);
        let values = tensor.elements().filter(|values| *values > 0 && u32::try_from(*values).is_ok())?;
        (real && own && fixed && computed).then(|| Inner {
            name: tensor.name.clone(),
            index: *index,
            shape: tensor.shape.iter().map(|dim| *dim as usize).collect(),
            values,
        })
    };
    graph.operators.iter().flat_map(|operator| &operator.outputs).filter_map(shown).collect()
}

/// How many of the tensors are looked at together: one at least, and no more than `most` values.
fn together(tensors: &[Inner], most: usize) -> usize {
    let mut values = 0_usize;
    let fits = |one: &&Inner| {
        values = values.saturating_add(one.values);
        values <= most
    };
    tensors.iter().take_while(fits).count().clamp(1, tensors.len().max(1))
}

/// The file with these tensors, and no others, as its outputs.
fn copy(model: &TfLite, shown: &[Inner]) -> Result<Vec<u8>, WriteError> {
    let mut model = model.clone();
    // An entry names the outputs that it gives; without, it is all of the first graph's.
    model.signatures.clear();
    let graph = &mut model.subgraphs[0];
    graph.outputs = shown.iter().map(|one| one.index).collect();
    edgeyard_tflite::write(&model)
}

/// The model with these tensors as its outputs.
fn showing<'a>(model: &Model, tensors: impl Iterator<Item = &'a str>) -> Model {
    let mut model = model.clone();
    for name in tensors.filter(|name| !name.is_empty()) {
        if !model.graph.is_output(name) {
            // Without type and shape: the runtime knows them better than a file does.
            let value =
                Value { name: name.to_owned(), dtype: DataType::Undefined, shape: Vec::<Dim>::new(), has_shape: false };
            model.graph.outputs.push(value);
        }
    }
    model
}

/// One tensor in both models: a tally for each order that its dimensions may have.
#[derive(Debug, Default)]
struct Pair {
    orders: Vec<(Vec<u32>, Tally)>,
    seen: bool,
}

impl Pair {
    /// Where the reference's values of shape `dims` may lie in a tensor of shape `stored`.
    fn new(dims: &[usize], stored: &[usize]) -> Self {
        let orders = orders(dims, stored).into_iter().map(|order| (places(dims, &order), Tally::default()));
        Self { orders: orders.collect(), seen: false }
    }

    fn see(&mut self, expected: &[f32], found: &[f32]) {
        self.seen = true;
        for (places, tally) in &mut self.orders {
            for (place, value) in places.iter().zip(found) {
                tally.see(expected[*place as usize], *value);
            }
        }
    }

    fn best(self) -> Option<Tally> {
        let tallies = self.orders.into_iter().filter(|_| self.seen).map(|(_, tally)| tally);
        tallies.min_by(|one, other| one.noise.total_cmp(&other.noise))
    }
}

/// One sample through both models.
fn compare(
    expected: &mut Session,
    runner: &mut dyn Runner,
    group: &[Inner],
    pairs: &mut Vec<Pair>,
    sample: &[usize],
    values: &[f32],
) -> Result<(), InsideError> {
    let rows = runner.run(values, 1).map_err(InsideError::Other)?;
    let found = rows.first().map_or(&[][..], |row| row.values.as_slice());
    let mut seen: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
    // A reference with a fixed batch sees the sample more than once.
    let fixed = expected.input_shape().first().copied().unwrap_or(-1);
    let batch = usize::try_from(fixed).map_or(1, |fixed| fixed.max(1));
    let shape = [&[batch], sample].concat();
    expected
        .observe(&values.repeat(batch), &shape, |tensor, dims| {
            seen.insert(tensor.name.to_owned(), (dims.to_vec(), tensor.values.to_vec()));
        })
        .map_err(InsideError::Reference)?;
    let first = pairs.is_empty();
    let mut from = 0;
    for (at, one) in group.iter().enumerate() {
        let found = found.get(from..from + one.values).unwrap_or_default();
        from += one.values;
        let known = seen.get(&one.name);
        if first {
            pairs.push(known.map_or_else(Pair::default, |(dims, _)| Pair::new(dims, &one.shape)));
        }
        if let (Some((_, values)), Some(pair)) = (known, pairs.get_mut(at))
            && values.len() == found.len()
        {
            pair.see(values, found);
        }
    }
    Ok(())
}

/// The orders of `dims` that have the sizes of `stored`, dimensions of 1 left out: every one for few dimensions, those where one
/// dimension moved for many.
fn orders(dims: &[usize], stored: &[usize]) -> Vec<Vec<usize>> {
    let axes: Vec<usize> = (0..dims.len()).filter(|axis| dims[*axis] != 1).collect();
    let sizes: Vec<usize> = stored.iter().copied().filter(|size| *size != 1).collect();
    if axes.len() != sizes.len() {
        // Dimensions may have been joined; then only the plain order is told from the sizes.
        let same = dims.iter().product::<usize>() == stored.iter().product::<usize>();
        return if same { vec![(0..dims.len()).collect()] } else { Vec::new() };
    }
    let mut all = Vec::new();
    if axes.len() <= PERMUTED_AXES {
        permute(&axes, &mut Vec::new(), &mut all);
    } else {
        all.push(axes.clone());
        for from in 0..axes.len() {
            for to in (0..axes.len()).filter(|to| *to != from) {
                let mut moved = axes.clone();
                let axis = moved.remove(from);
                moved.insert(to, axis);
                all.push(moved);
            }
        }
        all.sort_unstable();
        all.dedup();
    }
    all.retain(|order| order.iter().map(|axis| dims[*axis]).eq(sizes.iter().copied()));
    all
}

fn permute(axes: &[usize], begun: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
    if begun.len() == axes.len() {
        all.push(begun.clone());
        return;
    }
    for axis in axes {
        if !begun.contains(axis) {
            begun.push(*axis);
            permute(axes, begun, all);
            begun.pop();
        }
    }
}

/// For each value in the order of `axes`, where it lies in a tensor of shape `dims`.
fn places(dims: &[usize], axes: &[usize]) -> Vec<u32> {
    let mut strides = vec![1; dims.len()];
    for at in (1..dims.len()).rev() {
        strides[at - 1] = strides[at] * dims[at];
    }
    let mut places = vec![0];
    for &axis in axes {
        let (size, stride) = (dims[axis], strides[axis]);
        // A tensor that is shown has fewer values than 32 bits count.
        let along = |base: &u32| {
            let base = *base;
            (0..size).map(move |at| base + (at * stride) as u32)
        };
        places = places.iter().flat_map(along).collect();
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_those_whose_sizes_fit() {
        // NCHW as NHWC, and a vector with dimensions of 1 anywhere.
        assert_eq!(orders(&[1, 3, 4, 5], &[1, 4, 5, 3]), [[2, 3, 1]]);
        assert_eq!(orders(&[1, 3, 4, 4], &[1, 4, 4, 3]), [[2, 3, 1], [3, 2, 1]]);
        assert_eq!(orders(&[1, 10], &[1, 1, 1, 10]), [[1]]);
        assert_eq!(orders(&[2, 6], &[1, 12]), [[0, 1]]);
        assert!(orders(&[1, 3, 4], &[1, 3, 5]).is_empty());
        let many = orders(&[2, 3, 4, 5, 6], &[2, 4, 5, 6, 3]);
        assert_eq!(many, [[0, 2, 3, 4, 1]]);
    }

    #[test]
    fn values_are_compared_in_the_order_that_agrees() {
        // [1, 2, 2, 2] stored with channels last; sizes fit six orders.
        let expected = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let stored = [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.5];
        let mut pair = Pair::new(&[1, 2, 2, 2], &[1, 2, 2, 2]);
        assert_eq!(pair.orders.len(), 6);
        pair.see(&expected, &stored);
        let tally = pair.best().unwrap();
        assert_eq!((tally.noise, tally.worst, tally.signal), (0.25, 0.5, 140.0));
    }

    #[test]
    fn tensors_are_looked_at_in_groups_of_bounded_size() {
        let of = |values| Inner { name: "t".into(), index: 0, shape: vec![values], values };
        let tensors = [3, 4, 9, 2, 5].map(of);
        let (mut rest, mut groups) = (tensors.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (group, later) = rest.split_at(together(rest, 8));
            groups.push(group.iter().map(|one| one.values).collect::<Vec<_>>());
            rest = later;
        }
        assert_eq!(groups, [vec![3, 4], vec![9], vec![2, 5]]);
    }

    #[test]
    fn only_tensors_with_names_and_reals_are_shown() {
        let mut graph = edgeyard_tflite::Subgraph::default();
        let tensor = |name: &str, dtype| Tensor { name: name.into(), ..Tensor::new(dtype, vec![1, 4]) };
        graph.tensors = vec![
            tensor("x", TensorType::Float32),
            tensor("a", TensorType::Float32),
            tensor("", TensorType::Float32),
            tensor("twice", TensorType::Float32),
            tensor("twice", TensorType::Float32),
            tensor("unscaled", TensorType::Int8),
            tensor("places", TensorType::Int64),
        ];
        graph.inputs = vec![0];
        let step = |at: i32| {
            edgeyard_tflite::Operator::builtin(
                edgeyard_tflite::BuiltinOp::RELU,
                edgeyard_tflite::Options::None,
                vec![0],
                vec![at],
            )
        };
        graph.operators = (1..7).map(step).collect();
        let mut model = TfLite::new("");
        model.subgraphs.push(graph);
        let names = |runtime| inner(&model, runtime).into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(Runtime::LiteRt), ["a"]);
        assert!(names(Runtime::Micro).is_empty());
    }
}
