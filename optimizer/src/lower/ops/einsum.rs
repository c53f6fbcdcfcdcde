//! `Einsum` of one or two tensors: what one of them alone sums goes first, then a matrix product over batches, between
//! renamings of axes. Diagonals, ellipses and products of more tensors are refused by their equation.

use edgeyard_tflite::{BuiltinOp, op_options as opt};

use super::super::LowerError;
use super::super::layout::{Layout, Stored};
use super::super::walk::Walk;
use super::matmul;

/// A tensor and the letters of its axes.
struct Term {
    x: Stored,
    letters: Vec<char>,
}

/// `Einsum`.
pub(super) fn einsum(walk: &mut Walk<'_>) -> Result<(), LowerError> {
    let equation: String =
        walk.node().string("equation").unwrap_or_default().chars().filter(|letter| !letter.is_whitespace()).collect();
    let remedy = "write it as Transpose, Reshape and MatMul before exporting";
    let refuse = |walk: &Walk<'_>, why: &str| walk.refuse(format!("its equation {equation} {why}"), remedy);
    let Some((left, right)) = equation.split_once("->") else { return Err(refuse(walk, "has no right side")) };
    let names: Vec<&str> = left.split(',').collect();
    if !left.chars().chain(right.chars()).all(|letter| letter.is_ascii_alphabetic() || letter == ',') {
        return Err(refuse(walk, "has an ellipsis, which is not lowered"));
    }
    if names.len() != walk.node().inputs.len() || names.len() > 2 {
        return Err(refuse(walk, "is not one of one or two tensors, which are lowered"));
    }
    let repeats = |term: &str| term.chars().enumerate().any(|(at, letter)| term[..at].contains(letter));
    if names.iter().any(|term| repeats(term)) || repeats(right) {
        return Err(refuse(walk, "takes a diagonal, which is not lowered"));
    }
    let mut terms = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let x = walk.operand(index)?;
        if x.dims.len() != name.len() {
            return Err(refuse(walk, "does not describe its inputs"));
        }
        terms.push(Term { x, letters: name.chars().collect() });
    }
    let output: Vec<char> = right.chars().collect();
    let size = |letter: char| {
        terms.iter().find_map(|term| Some(term.x.dims[term.letters.iter().position(|other| *other == letter)?]))
    };
    for term in &terms {
        if term.letters.iter().zip(&term.x.dims).any(|(letter, dim)| size(*letter) != Some(*dim)) {
            return Err(refuse(walk, "stretches a dimension, which is not lowered"));
        }
    }
    if output.iter().any(|letter| size(*letter).is_none()) {
        return Err(refuse(walk, "has a letter on the right side only"));
    }
    let all: Vec<Vec<char>> = terms.iter().map(|term| term.letters.clone()).collect();
    let mut terms: Vec<Term> = terms
        .into_iter()
        .enumerate()
        .map(|(at, term)| {
            let elsewhere = |letter: &char| {
                output.contains(letter)
                    || all.iter().enumerate().any(|(other, list)| other != at && list.contains(letter))
            };
            summed(walk, term, elsewhere)
        })
        .collect();
    let Some(second) = terms.pop() else { return Err(refuse(walk, "has no tensors")) };
    match terms.pop() {
        None => {
            let x = arranged(walk, &second, &output);
            if walk.draft.tensors[x.tensor].keeps_float {
                let slot = &mut walk.draft.tensors[x.tensor];
                slot.keeps_float = false;
                slot.origin = Some(walk.graph.nodes[walk.at].output().to_owned());
            }
            walk.define_as(0, x);
            Ok(())
        }
        Some(first) => product(walk, first, second, &output),
    }
}

/// The term without the letters that nothing else has.
fn summed(walk: &mut Walk<'_>, term: Term, needed: impl Fn(&char) -> bool) -> Term {
    let gone: Vec<usize> = (0..term.letters.len()).filter(|&at| !needed(&term.letters[at])).collect();
    if gone.is_empty() {
        return term;
    }
    let plain = term.x.plain(&mut walk.draft, walk.at);
    let kept: Vec<usize> = (0..term.letters.len()).filter(|at| !gone.contains(at)).collect();
    let dims: Vec<usize> = kept.iter().map(|&at| term.x.dims[at]).collect();
    let axes = walk.draft.ints(&gone);
    let tensor = walk.emit_inner(BuiltinOp::SUM, opt::Reducer { keep_dims: false }, &[plain, axes], &dims);
    // Its range is not calibrated.
    walk.draft.tensors[tensor].keeps_float = true;
    let x = Stored { tensor, layout: Layout::Axes(Layout::identity(dims.len())), dims };
    Term { x, letters: kept.iter().map(|&at| term.letters[at]).collect() }
}

/// The tensor with its axes in the order of letters; nothing moves yet.
fn arranged(walk: &mut Walk<'_>, term: &Term, order: &[char]) -> Stored {
    let place = |axis: usize| order.iter().position(|letter| *letter == term.letters[axis]);
    let (tensor, axes) = match term.x.axes() {
        Some(axes) => (term.x.tensor, axes.to_vec()),
        None => (term.x.plain(&mut walk.draft, walk.at), Layout::identity(term.x.dims.len())),
    };
    let mut dims = vec![1; order.len()];
    for (axis, &dim) in term.x.dims.iter().enumerate() {
        if let Some(at) = place(axis) {
            dims[at] = dim;
        }
    }
    Stored { tensor, dims, layout: Layout::Axes(axes.into_iter().map(|axis| axis.and_then(place)).collect()) }
}

fn product(walk: &mut Walk<'_>, first: Term, second: Term, output: &[char]) -> Result<(), LowerError> {
    let constant = |walk: &Walk<'_>, term: &Term| walk.draft.tensors[term.x.tensor].value.is_some();
    // Weights go to the right, where matrix products have them.
    let (a, b) = if constant(walk, &first) && !constant(walk, &second) { (second, first) } else { (first, second) };
    let listed = |wanted: &dyn Fn(&char) -> bool, from: &[char]| -> Vec<char> {
        from.iter().copied().filter(|letter| wanted(letter)).collect()
    };
    let (in_a, in_b) = (|letter: &char| a.letters.contains(letter), |letter: &char| b.letters.contains(letter));
    let batch = listed(&|letter| in_a(letter) && in_b(letter), output);
    let rows = listed(&|letter| in_a(letter) && !in_b(letter), output);
    let columns = listed(&|letter| in_b(letter) && !in_a(letter), output);
    let inner = listed(&|letter| in_b(letter) && !output.contains(letter), &a.letters);
    let size = |term: &Term, letters: &[char]| -> Vec<usize> {
        let dim = |letter: &char| term.letters.iter().position(|other| other == letter).map_or(1, |at| term.x.dims[at]);
        letters.iter().map(dim).collect()
    };
    let flat = |dims: Vec<usize>| dims.iter().product::<usize>();
    let (many, m, k, n) =
        (flat(size(&a, &batch)), flat(size(&a, &rows)), flat(size(&a, &inner)), flat(size(&b, &columns)));
    let mut matrix = |term: &Term, order: [&[char]; 3], dims: [usize; 2]| {
        let x = arranged(walk, term, &order.concat());
        let plain = x.plain(&mut walk.draft, walk.at);
        let dims = if batch.is_empty() { dims.to_vec() } else { vec![many, dims[0], dims[1]] };
        let tensor = walk.draft.reshaped(walk.at, plain, &dims);
        Stored { tensor, layout: Layout::Axes(Layout::identity(dims.len())), dims }
    };
    let left = matrix(&a, [&batch, &rows, &inner], [m, k]);
    let right = matrix(&b, [&batch, &inner, &columns], [k, n]);
    let dims = if batch.is_empty() { vec![m, n] } else { vec![many, m, n] };
    let weights = match &walk.draft.tensors[right.tensor].value {
        Some(super::super::draft::Value::F32(values)) => Some(values.clone()),
        _ => None,
    };
    matmul::multiply(walk, left, right, weights, dims)?;
    let made = walk.value(walk.node().output())?;
    let order = [&batch[..], &rows, &columns].concat();
    let open: Vec<usize> = order.iter().map(|letter| size(if in_a(letter) { &a } else { &b }, &[*letter])[0]).collect();
    let plain = made.plain(&mut walk.draft, walk.at);
    let tensor = walk.draft.reshaped(walk.at, plain, &open);
    let x = Stored { tensor, layout: Layout::Axes(Layout::identity(open.len())), dims: open };
    let result = arranged(walk, &Term { x, letters: order }, output);
    walk.define_as(0, result);
    Ok(())
}
