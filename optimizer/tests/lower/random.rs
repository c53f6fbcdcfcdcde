//! Random networks from a seed: operators in combinations nobody thought of, above all what the order of dimensions
//! does on its way through them.

use super::harness::{Case, case, check, int, ints};

/// Decisions from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % sides
    }
}

/// A network that grows: what the last tensors are, by name and shape.
struct Growing {
    case: Option<Case>,
    dice: Dice,
    tensors: Vec<(String, Vec<usize>)>,
    count: usize,
}

impl Growing {
    fn fresh(&mut self, stem: &str) -> String {
        self.count += 1;
        format!("{stem}{}", self.count)
    }

    fn edit(&mut self, change: impl FnOnce(Case) -> Case) {
        self.case = self.case.take().map(change);
    }

    fn weights(&mut self, shape: &[usize]) -> String {
        let name = self.fresh("w");
        let fan: usize = shape.iter().skip(1).product::<usize>().max(1);
        let deviation = 1.0 / (fan as f32).sqrt();
        self.edit(|case| case.spread(&name, shape, deviation, 0.0));
        name
    }

    fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, edgeyard_optimizer::ir::Attribute)],
        shape: &[usize],
    ) {
        let output = self.fresh("t");
        self.edit(|case| case.node(op, inputs, &output, attributes));
        self.tensors.push((output, shape.to_vec()));
    }

    fn last(&self) -> (String, Vec<usize>) {
        self.tensors.last().cloned().expect("there is an input")
    }

    /// Adds one operator that fits the last tensor.
    fn grow(&mut self) {
        let (x, shape) = self.last();
        let rank = shape.len();
        let image = rank == 4 && shape[2] >= 3 && shape[3] >= 3;
        match self.dice.roll(14) {
            0 | 1 if image => {
                let outputs = 2 + self.dice.roll(5);
                let w = self.weights(&[outputs, shape[1], 3, 3]);
                let pads: Vec<i64> = (0..4).map(|_| self.dice.roll(3) as i64).collect();
                let stride = 1 + self.dice.roll(2);
                let size = |axis: usize| (shape[axis] + (pads[axis - 2] + pads[axis]) as usize - 3) / stride + 1;
                let result = [shape[0], outputs, size(2), size(3)];
                let attributes = [("pads", ints(&pads)), ("strides", ints(&[stride as i64; 2]))];
                self.node("Conv", &[&x, &w], &attributes, &result);
            }
            2 if image => {
                let w = self.weights(&[shape[1], 1, 3, 3]);
                let attributes = [("pads", ints(&[1, 1, 1, 1])), ("group", int(shape[1] as i64))];
                self.node("Conv", &[&x, &w], &attributes, &shape);
            }
            3 if image => {
                let op = ["MaxPool", "AveragePool"][self.dice.roll(2)];
                let pads: Vec<i64> = (0..4).map(|_| self.dice.roll(2) as i64).collect();
                let size = |axis: usize| (shape[axis] + (pads[axis - 2] + pads[axis]) as usize - 2) / 2 + 1;
                let result = [shape[0], shape[1], size(2), size(3)];
                let attributes = [("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2])), ("pads", ints(&pads))];
                self.node(op, &[&x], &attributes, &result);
            }
            4 | 5 => {
                let op = ["Relu", "HardSwish", "Sigmoid", "Tanh", "LeakyRelu"][self.dice.roll(5)];
                self.node(op, &[&x], &[], &shape);
            }
            6 => {
                let mut permutation: Vec<usize> = (0..rank).collect();
                for at in (1..rank).rev() {
                    let other = self.dice.roll(at + 1);
                    permutation.swap(at, other);
                }
                let result: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
                let order: Vec<i64> = permutation.iter().map(|&axis| axis as i64).collect();
                self.node("Transpose", &[&x], &[("perm", ints(&order))], &result);
            }
            7 => {
                // Two neighbouring axes become one, or one of even size two.
                let axis = self.dice.roll(rank);
                let mut result = shape.clone();
                if rank > 2 && axis + 1 < rank {
                    result[axis] *= result.remove(axis + 1);
                } else if rank < 4 && shape[axis] % 2 == 0 {
                    result[axis] /= 2;
                    result.insert(axis, 2);
                }
                let name = self.fresh("s");
                let sizes: Vec<i64> = result.iter().map(|&size| size as i64).collect();
                self.edit(|case| case.ints(&name, &sizes));
                self.node("Reshape", &[&x, &name], &[], &result);
            }
            8 => {
                let mut other = vec![1; rank];
                let axis = self.dice.roll(rank);
                other[axis] = shape[axis];
                let from = self.dice.roll(axis + 1);
                let w = self.weights(&other[from..]);
                let op = ["Add", "Mul"][self.dice.roll(2)];
                let sides = if self.dice.roll(2) == 0 { [&*x, &*w] } else { [&*w, &*x] };
                self.node(op, &sides, &[], &shape);
            }
            9 => {
                // With an earlier tensor of the same shape, if there is one; otherwise with itself.
                let twins: Vec<String> =
                    self.tensors.iter().filter(|(_, other)| *other == shape).map(|(name, _)| name.clone()).collect();
                let twin = twins[self.dice.roll(twins.len())].clone();
                if self.dice.roll(2) == 0 {
                    self.node("Add", &[&x, &twin], &[], &shape);
                } else {
                    let axis = self.dice.roll(rank);
                    let mut result = shape.clone();
                    result[axis] *= 2;
                    self.node("Concat", &[&x, &twin], &[("axis", int(axis as i64))], &result);
                }
            }
            10 => {
                let axis = self.dice.roll(rank);
                self.node("Softmax", &[&x], &[("axis", int(axis as i64))], &shape);
            }
            11 if rank > 2 => {
                let axis = 1 + self.dice.roll(rank - 1);
                let mut result = shape.clone();
                result.remove(axis);
                let attributes = [("axes", ints(&[axis as i64])), ("keepdims", int(0))];
                self.node("ReduceMean", &[&x], &attributes, &result);
            }
            12 => {
                let columns = shape[rank - 1];
                let w = self.weights(&[columns, 6]);
                let mut result = shape.clone();
                result[rank - 1] = 6;
                self.node("MatMul", &[&x, &w], &[], &result);
            }
            13 if shape[rank - 1] > 2 => {
                let names = [self.fresh("s"), self.fresh("s"), self.fresh("s")];
                let size = shape[rank - 1];
                let values = [1, size as i64, rank as i64 - 1];
                for (name, value) in names.iter().zip(values) {
                    self.edit(|case| case.ints(name, &[value]));
                }
                let mut result = shape.clone();
                result[rank - 1] = size - 1;
                self.node("Slice", &[&x, &names[0], &names[1], &names[2]], &[], &result);
            }
            _ => {}
        }
    }
}

fn network(seed: u64) -> Case {
    let name = format!("random_{seed}");
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let shape = [1, 2 + dice.roll(4), 6 + dice.roll(4), 6 + dice.roll(4)];
    let start = case(&name).input("x", &shape);
    let mut growing = Growing { case: Some(start), dice, tensors: vec![("x".into(), shape.to_vec())], count: 0 };
    while growing.tensors.len() < 8 {
        growing.grow();
        let size: usize = growing.last().1.iter().product();
        if size > 4000 {
            break;
        }
    }
    let (last, _) = growing.last();
    let case = growing.case.expect("growing keeps its case");
    // Errors of eight layers add up; a wrong order of elements gives noise as large as the signal.
    case.output(&last).int8(8.0).reference_within(12).steps(12)
}

#[test]
fn random_networks_agree_in_every_mode() {
    check((0..40).map(network).collect());
}
