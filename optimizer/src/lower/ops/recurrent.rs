//! LSTM and GRU, one step after the other (`lstm`, `gru`): every inference starts anew, initial and final states are
//! ordinary tensors, both directions work, and every step has integer kernels in all runtimes. Long LSTMs in floats are
//! one operator instead (`sequence`).

mod gru;
mod lstm;
mod sequence;

use edgeyard_tflite::{BuiltinOp, Options, op_options as opt};

use super::super::LowerError;
use super::super::draft::{SLICE_OPTIONS, TensorId};
use super::super::layout::{Layout, Stored};
use super::super::walk::Walk;
use super::elementwise;

pub(super) use gru::gru;
pub(super) use lstm::lstm;

/// More steps than this make a file of thousands of operators.
const MAX_STEPS: usize = 256;
/// Beyond this, sigmoid and tanh have nothing more to give to eight bits, and cells of trained networks stay within it.
const SATURATION: f32 = 8.0;

/// Sizes of one layer.
#[derive(Clone, Copy)]
struct Sizes {
    time: usize,
    batch: usize,
    features: usize,
    hidden: usize,
}

/// The parts of one direction, gate by gate in ONNX's order.
struct Weights {
    backwards: bool,
    /// [gates * hidden, features].
    w: Vec<f32>,
    /// [gates * hidden, hidden].
    r: Vec<f32>,
    /// Of the products with `w` and with `r`.
    bias: [Vec<f32>; 2],
}

/// A layer as ONNX has it, checked.
struct Layer {
    sizes: Sizes,
    /// [time, batch, features].
    input: TensorId,
    directions: Vec<Weights>,
}

/// What one direction gives: every step's result in order of time, and the last cell.
struct Direction {
    steps: Vec<TensorId>,
    last: TensorId,
    cell: TensorId,
}

/// What LSTM and GRU have in common: constant weights of `gates` gates, the usual `activations`, sequences of one length.
fn read(walk: &mut Walk<'_>, gates: usize, activations: &[&str]) -> Result<Layer, LowerError> {
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
        if node.has(name) && !(name == "activations" && usual(walk, &activations.repeat(reversed.len()))) {
            return Err(walk.refuse(why, "sigmoid and tanh without clipping are lowered"));
        }
    }
    if node.int("layout", 0) != 0 {
        return Err(walk.refuse("its layout is 1", "export it with time as the first axis"));
    }
    let x = walk.operand(0)?;
    let (w_shape, w) = walk.floats(1, "W")?;
    let (r_shape, r) = walk.floats(2, "R")?;
    let (&[time, batch, features], &[directions, rows, hidden]) = (&x.dims[..], r_shape) else {
        return Err(walk.refuse("its input or weights are not three-dimensional", "repair the model"));
    };
    let sizes = Sizes { time, batch, features, hidden };
    let empty = [time, batch, features, hidden].contains(&0);
    if empty || directions != reversed.len() || rows != gates * hidden || w_shape != [directions, rows, features] {
        return Err(walk.refuse(format!("weights {w_shape:?} and {r_shape:?} do not fit"), "repair the model"));
    }
    let lengths = walk.integers(4, "sequence_lens")?;
    if lengths.is_some_and(|lengths| lengths.iter().any(|&length| length != time as i64)) {
        return Err(walk.refuse("its sequences differ in length", "export it for one length"));
    }
    let bias = match walk.node().input(3) {
        Some(_) => walk.floats(3, "B")?.1,
        None => vec![0.0; directions * 2 * rows],
    };
    if bias.len() != directions * 2 * rows {
        return Err(walk.refuse("its B does not fit", "repair the model"));
    }
    let input = x.plain(&mut walk.draft, walk.at);
    let of = |at: usize, values: &[f32], len: usize| values[at * len..(at + 1) * len].to_vec();
    let directions = reversed
        .iter()
        .enumerate()
        .map(|(at, &backwards)| Weights {
            backwards,
            w: of(at, &w, rows * features),
            r: of(at, &r, rows * hidden),
            bias: [of(2 * at, &bias, rows), of(2 * at + 1, &bias, rows)],
        })
        .collect();
    Ok(Layer { sizes, input, directions })
}

/// Refuses to write out more steps than a file should have.
fn few_steps(walk: &Walk<'_>, layer: &Layer) -> Result<(), LowerError> {
    let steps = layer.sizes.time * layer.directions.len();
    if steps <= MAX_STEPS {
        return Ok(());
    }
    let why = format!("it takes {steps} steps, which would all be written out");
    Err(walk.refuse(why, format!("feed at most {MAX_STEPS} steps at a time, with its states as inputs")))
}

/// Whether the activations are the usual ones, by name.
fn usual(walk: &Walk<'_>, usual: &[&str]) -> bool {
    match walk.node().attributes.get("activations") {
        Some(crate::ir::Attribute::Strings(names)) => {
            names.len() == usual.len()
                && names.iter().zip(usual).all(|(name, usual)| name.eq_ignore_ascii_case(usual.as_bytes()))
        }
        _ => false,
    }
}

/// Whether a direction starts from zero, as far as input `index` says.
fn starts_from_zero(walk: &Walk<'_>, index: usize) -> bool {
    walk.node().input(index).is_none_or(|name| {
        walk.optional_floats(name).is_some_and(|(_, values)| values.iter().all(|value| *value == 0.0))
    })
}

/// The initial state of a direction as [batch, hidden]; none when it starts from zero.
fn initial(walk: &mut Walk<'_>, index: usize, direction: usize, sizes: Sizes) -> Result<Option<TensorId>, LowerError> {
    if starts_from_zero(walk, index) {
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

/// Rows times the transposed `weights`.
fn fully(walk: &mut Walk<'_>, x: TensorId, weights: TensorId, bias: TensorId, shape: [usize; 2]) -> TensorId {
    let options = opt::FullyConnected::default();
    walk.emit_inner(BuiltinOp::FULLY_CONNECTED, options, &[x, weights, bias], &shape)
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
