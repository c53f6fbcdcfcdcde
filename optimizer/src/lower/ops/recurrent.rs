//! LSTM, one step after the other. TFLite's own UNIDIRECTIONAL_SEQUENCE_LSTM keeps its state from one inference to the
//! next, which ONNX's does not: written out, every inference starts anew, initial and final states are ordinary tensors,
//! both directions work, and every step has integer kernels in all runtimes.

use edgeyard_tflite::{BuiltinOp, Options, op_options as opt};

use super::super::LowerError;
use super::super::draft::{SLICE_OPTIONS, TensorId, Value};
use super::super::layout::{Layout, Stored};
use super::super::walk::Walk;
use super::elementwise;

/// More steps than this make a file of thousands of operators.
const MAX_STEPS: usize = 256;
/// Beyond this, sigmoid and tanh have nothing more to give to eight bits, and cells of trained networks stay within it.
const SATURATION: f32 = 8.0;

/// Sizes of one LSTM.
#[derive(Clone, Copy)]
struct Sizes {
    time: usize,
    batch: usize,
    features: usize,
    hidden: usize,
}

/// `LSTM` with constant weights and the usual activations.
pub(super) fn lstm(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let node = walk.node();
    let direction = node.string("direction").unwrap_or("forward");
    let reversed: &[bool] = match direction {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(walk.refuse(format!("its direction is {other}"), "repair the model")),
    };
    for (name, why) in [
        ("activations", "it has activations of its own"),
        ("clip", "it clips its cells"),
        ("activation_alpha", "its activations have parameters"),
        ("activation_beta", "its activations have parameters"),
    ] {
        if node.has(name) && !(name == "activations" && usual_activations(walk, reversed.len())) {
            return Err(walk.refuse(why, "sigmoid, tanh and tanh without clipping are lowered"));
        }
    }
    if node.int("input_forget", 0) != 0 || node.input(7).is_some() {
        return Err(walk.refuse("it couples gates or has peepholes", "export it without them"));
    }
    if node.int("layout", 0) != 0 {
        return Err(walk.refuse("its layout is 1", "export it with time as the first axis"));
    }
    let x = walk.operand(0)?;
    let (w_shape, w) = walk.floats(1, "W")?;
    let (r_shape, r) = walk.floats(2, "R")?;
    let (&[time, batch, features], &[directions, gates, hidden]) = (&x.dims[..], r_shape) else {
        return Err(walk.refuse("its input or weights are not three-dimensional", "repair the model"));
    };
    let sizes = Sizes { time, batch, features, hidden };
    if directions != reversed.len() || gates != 4 * hidden || w_shape != [directions, gates, features] {
        return Err(walk.refuse(format!("weights {w_shape:?} and {r_shape:?} do not fit"), "repair the model"));
    }
    if time * directions > MAX_STEPS {
        let why = format!("it takes {} steps, which would all be written out", time * directions);
        return Err(walk.refuse(why, format!("feed at most {MAX_STEPS} steps at a time, with its states as inputs")));
    }
    let lengths = walk.integers(4, "sequence_lens")?;
    if lengths.is_some_and(|lengths| lengths.iter().any(|&length| length != time as i64)) {
        return Err(walk.refuse("its sequences differ in length", "export it for one length"));
    }
    let bias = match walk.node().input(3) {
        Some(_) => walk.floats(3, "B")?.1,
        None => vec![0.0; directions * 8 * hidden],
    };
    if bias.len() != directions * 8 * hidden {
        return Err(walk.refuse("its B does not fit", "repair the model"));
    }
    let plain = x.plain(&mut walk.draft, walk.at);
    let rows = walk.draft.reshaped(walk.at, plain, &[time * batch, features]);
    let mut made: Vec<Direction> = Vec::new();
    for (at, &backwards) in reversed.iter().enumerate() {
        let (w_size, r_size) = (gates * features, gates * hidden);
        let weights = Weights {
            w: w[at * w_size..(at + 1) * w_size].to_vec(),
            r: r[at * r_size..(at + 1) * r_size].to_vec(),
            bias: {
                let both = &bias[at * 2 * gates..(at + 1) * 2 * gates];
                both[..gates].iter().zip(&both[gates..]).map(|(one, other)| one + other).collect()
            },
        };
        let hidden_state = initial(walk, 5, at, sizes)?;
        let cell = initial(walk, 6, at, sizes)?;
        made.push(run(walk, rows, weights, hidden_state, cell, backwards, sizes));
    }
    define(walk, made, sizes);
    Ok(())
}

struct Weights {
    w: Vec<f32>,
    r: Vec<f32>,
    bias: Vec<f32>,
}

/// What one direction gives: every step's result in order of time, and the last cell.
struct Direction {
    steps: Vec<TensorId>,
    last: TensorId,
    cell: TensorId,
}

fn usual_activations(walk: &Walk<'_>, directions: usize) -> bool {
    let usual = ["Sigmoid", "Tanh", "Tanh"].repeat(directions);
    match walk.node().attributes.get("activations") {
        Some(crate::ir::Attribute::Strings(names)) => {
            names.len() == usual.len()
                && names.iter().zip(&usual).all(|(name, usual)| name.eq_ignore_ascii_case(usual.as_bytes()))
        }
        _ => false,
    }
}

/// The initial state of a direction as [batch, hidden]; none when it starts from zero.
fn initial(walk: &mut Walk<'_>, index: usize, direction: usize, sizes: Sizes) -> Result<Option<TensorId>, LowerError> {
    let Some(name) = walk.node().input(index) else { return Ok(None) };
    if walk.optional_floats(name).is_some_and(|(_, values)| values.iter().all(|value| *value == 0.0)) {
        return Ok(None);
    }
    let state = walk.operand(index)?;
    let Sizes { batch, hidden, .. } = sizes;
    if state.dims.len() != 3 || state.dims[1..] != [batch, hidden] {
        return Err(walk.refuse(format!("a state of {:?} does not fit", state.dims), "repair the model"));
    }
    let plain = state.plain(&mut walk.draft, walk.at);
    let rows = walk.draft.reshaped(walk.at, plain, &[state.dims[0] * batch, hidden]);
    Ok(Some(if state.dims[0] == 1 { rows } else { part(walk, rows, [direction * batch, 0], [batch, hidden]) }))
}

/// A rectangle of a matrix.
fn part(walk: &mut Walk<'_>, x: TensorId, begin: [usize; 2], size: [usize; 2]) -> TensorId {
    if walk.draft.tensors[x].shape == size {
        return x;
    }
    let (begin, sizes) = (walk.draft.ints(&begin), walk.draft.ints(&size));
    walk.emit_inner(BuiltinOp::SLICE, Options::Empty(SLICE_OPTIONS), &[x, begin, sizes], &size)
}

fn product(walk: &mut Walk<'_>, a: TensorId, b: TensorId, shape: &[usize]) -> TensorId {
    walk.emit_inner(BuiltinOp::MUL, opt::Mul::default(), &[a, b], shape)
}

/// A sum that saturates in integers.
fn saturating_sum(walk: &mut Walk<'_>, a: TensorId, b: TensorId, shape: &[usize]) -> TensorId {
    let sum = walk.emit_inner(BuiltinOp::ADD, elementwise::add_options(), &[a, b], shape);
    if let Some(op) = walk.draft.ops.last_mut() {
        op.clamp = (-SATURATION, SATURATION);
    }
    sum
}

/// ONNX's gates stand in the order input, output, forget, cell.
fn run(
    walk: &mut Walk<'_>,
    rows: TensorId,
    weights: Weights,
    mut state: Option<TensorId>,
    mut cell: Option<TensorId>,
    backwards: bool,
    sizes: Sizes,
) -> Direction {
    let Sizes { time, batch, features, hidden } = sizes;
    let gates = 4 * hidden;
    let whole = walk.node().output().to_owned();
    let fully = |walk: &mut Walk<'_>, x: TensorId, weights: TensorId, bias: TensorId, rows: usize| {
        let options = opt::FullyConnected::default();
        walk.emit_inner(BuiltinOp::FULLY_CONNECTED, options, &[x, weights, bias], &[rows, gates])
    };
    let w = walk.draft.constant(&[gates, features], Value::F32(weights.w));
    let r = walk.draft.constant(&[gates, hidden], Value::F32(weights.r));
    let bias = walk.draft.constant(&[gates], Value::F32(weights.bias));
    let none = walk.draft.constant(&[gates], Value::F32(vec![0.0; gates]));
    // All steps' inputs in one product.
    let inputs = fully(walk, rows, w, bias, time * batch);
    let one = [batch, hidden];
    let mut steps = Vec::with_capacity(time);
    for step in 0..time {
        let at = if backwards { time - 1 - step } else { step };
        let mut sums = part(walk, inputs, [at * batch, 0], [batch, gates]);
        if let Some(state) = state {
            let recurrent = fully(walk, state, r, none, batch);
            sums = saturating_sum(walk, sums, recurrent, &[batch, gates]);
        }
        let three = part(walk, sums, [0, 0], [batch, 3 * hidden]);
        let open = walk.emit_inner(BuiltinOp::LOGISTIC, Options::None, &[three], &[batch, 3 * hidden]);
        let candidate = part(walk, sums, [0, 3 * hidden], one);
        let candidate = walk.emit_inner(BuiltinOp::TANH, Options::None, &[candidate], &one);
        let gate = |walk: &mut Walk<'_>, at: usize| part(walk, open, [0, at * hidden], one);
        let (enter, leave) = (gate(walk, 0), gate(walk, 1));
        let mut next = product(walk, enter, candidate, &one);
        if let Some(cell) = cell {
            let forget = gate(walk, 2);
            let kept = product(walk, forget, cell, &one);
            next = saturating_sum(walk, kept, next, &one);
        }
        let shown = walk.emit_inner(BuiltinOp::TANH, Options::None, &[next], &one);
        let result = product(walk, leave, shown, &one);
        if !whole.is_empty() {
            // The range over all steps was calibrated under the name of the whole.
            walk.draft.tensors[result].origin = Some(whole.clone());
        }
        steps.push(result);
        (state, cell) = (Some(result), Some(next));
    }
    let (last, cell) = (steps[time - 1], cell.unwrap_or(steps[time - 1]));
    if backwards {
        steps.reverse();
    }
    Direction { steps, last, cell }
}

/// Y [time, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden].
fn define(walk: &mut Walk<'_>, made: Vec<Direction>, sizes: Sizes) {
    let Sizes { time, batch, hidden, .. } = sizes;
    let count = made.len();
    let wanted = |walk: &Walk<'_>, index: usize| walk.node().outputs.get(index).is_some_and(|name| !name.is_empty());
    let joined = |walk: &mut Walk<'_>, parts: &[TensorId], axis: usize, shape: &[usize], index: usize| {
        if let [part] = parts {
            return *part;
        }
        let origin = walk.node().outputs.get(index).map(String::as_str);
        let options = opt::Concatenation { axis: axis as i32, ..opt::Concatenation::default() };
        walk.draft.emit(walk.at, BuiltinOp::CONCATENATION, options, parts, shape, origin)
    };
    if wanted(walk, 0) {
        let mut all = Vec::new();
        for direction in &made {
            let steps: Vec<TensorId> = direction
                .steps
                .iter()
                .map(|&step| walk.draft.reshaped(walk.at, step, &[1, 1, batch, hidden]))
                .collect();
            all.push(joined(walk, &steps, 0, &[time, 1, batch, hidden], 0));
        }
        let dims = vec![time, count, batch, hidden];
        let tensor = joined(walk, &all, 1, &dims, 0);
        let layout = Layout::Axes(Layout::identity(4));
        walk.define_as(0, Stored { tensor, dims, layout });
    }
    for (index, pick) in [(1, (|made| made.last) as fn(&Direction) -> TensorId), (2, |made| made.cell)] {
        if wanted(walk, index) {
            let parts: Vec<TensorId> =
                made.iter().map(|one| walk.draft.reshaped(walk.at, pick(one), &[1, batch, hidden])).collect();
            let dims = vec![count, batch, hidden];
            let tensor = joined(walk, &parts, 0, &dims, index);
            let layout = Layout::Axes(Layout::identity(3));
            walk.define_as(index, Stored { tensor, dims, layout });
        }
    }
}
