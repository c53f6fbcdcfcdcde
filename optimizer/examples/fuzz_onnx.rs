//! Fuzzes the reader of ONNX and what follows it: damaged files and made-up graphs are loaded, simplified, written, held
//! against a target's rules and lowered.

#[path = "fuzzing/mod.rs"]
mod fuzzing;

use std::collections::BTreeMap;
use std::process::ExitCode;

use edgeyard_job::spec::{Pass, Scheme};
use edgeyard_optimizer::ir::{Attribute, DataType, Graph, Model, Node, Tensor, TensorData, Value, load};
use edgeyard_optimizer::lint::lint_source;
use edgeyard_optimizer::lower::{Mode, to_tflite};
use edgeyard_optimizer::simplify::{Shapes, explicit_padding, simplify, to_opset_13};
use edgeyard_targets::Target;
use fuzzing::Dice;

#[global_allocator]
static MEMORY: fuzzing::Bounded = fuzzing::Bounded;

/// Every operator that inference, folding, fusing or lowering knows, and some that none does.
const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "And",
    "ArgMax",
    "ArgMin",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvTranspose",
    "Cos",
    "CumSum",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "Einsum",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "GRU",
    "Gather",
    "GatherElements",
    "GatherND",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Greater",
    "GreaterOrEqual",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "IsNaN",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "Less",
    "LessOrEqual",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "OneHot",
    "Or",
    "PRelu",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "Range",
    "Reciprocal",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "ScatterND",
    "Selu",
    "Shape",
    "Sigmoid",
    "Sign",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Strange",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "TopK",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Upsample",
    "Where",
    "Xor",
];

const ATTRIBUTES: &[&str] = &[
    "allowzero",
    "alpha",
    "auto_pad",
    "axes",
    "axis",
    "beta",
    "blocksize",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "direction",
    "end",
    "epsilon",
    "equation",
    "group",
    "hidden_size",
    "keepdims",
    "kernel_shape",
    "layout",
    "mode",
    "num_outputs",
    "output_padding",
    "output_shape",
    "p",
    "pads",
    "perm",
    "scales",
    "start",
    "strides",
    "to",
    "transA",
    "transB",
    "upper",
    "value",
    "value_float",
    "value_ints",
];

fn main() -> ExitCode {
    fuzzing::run(make, read)
}

fn make(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let way = dice.roll(4);
    if way < 2 || seeds.is_empty() {
        let mut input = made_up(dice).to_bytes();
        if dice.roll(4) == 0 {
            fuzzing::damage(&mut input, dice);
        }
        return input;
    }
    let mut input = dice.pick(seeds).clone();
    if way == 2
        && let Ok(mut model) = load(&input, None)
    {
        (0..=dice.roll(3)).for_each(|_| twist(&mut model.graph, dice));
        return model.to_bytes();
    }
    fuzzing::damage(&mut input, dice);
    input
}

fn size(dice: &mut Dice) -> usize {
    *dice.pick(&[1, 1, 2, 3, 4, 5, 6, 8, 0])
}

fn tensor(dice: &mut Dice) -> Tensor {
    if dice.roll(2) == 0 {
        let len = dice.roll(5);
        let values =
            (0..len).map(|_| if dice.roll(4) == 0 { dice.odd_number() } else { dice.roll(6) as i64 - 1 }).collect();
        return Tensor::i64(if dice.roll(4) == 0 && len == 1 { &[] } else { std::slice::from_ref(&len) }, values);
    }
    let dims: Vec<usize> = (0..dice.roll(5)).map(|_| size(dice)).collect();
    let len = dims.iter().product();
    let values: Vec<f32> = (0..len).map(|_| dice.roll(2000) as f32 / 1000.0 - 1.0).collect();
    if dice.roll(8) == 0 {
        return Tensor { dims, data: TensorData::Bool(values.iter().map(|value| *value > 0.0).collect()) };
    }
    Tensor::f32(&dims, values)
}

fn attribute(dice: &mut Dice) -> Attribute {
    match dice.roll(8) {
        0 => Attribute::Float(*dice.pick(&[0.0, 1.0, -1.0, 0.5, 1e30, f32::NAN, f32::INFINITY])),
        1 => Attribute::Int(dice.odd_number()),
        2 | 3 => Attribute::Int(dice.roll(6) as i64 - 2),
        4 => Attribute::Ints((0..dice.roll(6)).map(|_| dice.odd_number()).collect()),
        5 => Attribute::Ints((0..dice.roll(6)).map(|_| dice.roll(4) as i64).collect()),
        6 => {
            let texts =
                ["SAME_UPPER", "SAME_LOWER", "VALID", "linear", "nearest", "reverse", "bidirectional", "ij,jk->ik"];
            Attribute::String(dice.pick(&texts).as_bytes().to_vec())
        }
        _ => Attribute::Tensor(tensor(dice)),
    }
}

fn node(dice: &mut Dice, tensors: &[String], count: usize) -> Node {
    let op = *dice.pick(OPERATORS);
    let inputs: Vec<&str> = (0..dice.roll(5))
        .map(|at| if at > 0 && dice.roll(12) == 0 { "" } else { dice.pick(tensors).as_str() })
        .collect();
    let outputs: Vec<String> = (0..*dice.pick(&[1, 1, 1, 1, 2, 3, 0])).map(|at| format!("t{count}_{at}")).collect();
    let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let mut node = Node::new(op, &format!("n{count}"), &inputs, &names);
    for _ in 0..dice.roll(4) {
        let name = *dice.pick(ATTRIBUTES);
        node.set(name, attribute(dice));
    }
    node
}

/// A graph of operators that may or may not fit together.
fn made_up(dice: &mut Dice) -> Model {
    let opset = *dice.pick(&[11, 13, 17, 21]);
    let mut graph = Graph::default();
    graph.name = "g".into();
    graph.opset = opset;
    let dims: Vec<usize> = (0..dice.roll(5)).map(|_| size(dice).max(1)).collect();
    graph.inputs.push(Value::fixed("x", DataType::F32, &dims));
    let mut tensors = vec!["x".to_owned()];
    for at in 0..dice.roll(5) {
        let name = format!("c{at}");
        graph.initializers.insert(name.clone(), tensor(dice));
        tensors.push(name);
    }
    for count in 0..=dice.roll(8) {
        let node = node(dice, &tensors, count);
        tensors.extend(node.outputs.iter().cloned());
        graph.nodes.push(node);
    }
    let last = tensors[tensors.len() - 1].clone();
    graph.outputs.push(Value { name: last, dtype: DataType::F32, shape: Vec::new(), has_shape: false });
    Model { ir_version: 8, opsets: BTreeMap::from([(String::new(), opset)]), graph, rest: Vec::new() }
}

/// Changes the structure and keeps the form.
fn twist(graph: &mut Graph, dice: &mut Dice) {
    if graph.nodes.is_empty() {
        return;
    }
    let names: Vec<String> = graph.initializers.keys().cloned().collect();
    let at = dice.roll(graph.nodes.len());
    match dice.roll(7) {
        0 => {
            let name = *dice.pick(ATTRIBUTES);
            graph.nodes[at].set(name, attribute(dice));
        }
        1 if !graph.nodes[at].inputs.is_empty() => {
            let all: Vec<String> = graph.nodes.iter().flat_map(|node| node.outputs.clone()).chain(names).collect();
            let node = &mut graph.nodes[at];
            node.touch();
            let place = dice.roll(node.inputs.len());
            node.inputs[place].clone_from(dice.pick(&all));
        }
        2 => {
            let node = &mut graph.nodes[at];
            node.touch();
            node.op_type = (*dice.pick(OPERATORS)).to_owned();
        }
        3 => {
            let node = &mut graph.nodes[at];
            node.touch();
            node.inputs.pop();
        }
        4 if !names.is_empty() => drop(graph.initializers.insert(dice.pick(&names).clone(), tensor(dice))),
        5 => graph.nodes.swap(at, 0),
        _ => {
            for input in &mut graph.inputs {
                let dims: Vec<usize> = (0..dice.roll(6)).map(|_| size(dice).max(1)).collect();
                *input = Value::fixed(&input.name, input.dtype, &dims);
            }
        }
    }
}

fn read(input: &[u8]) -> Result<bool, String> {
    let Ok(mut model) = load(input, None) else { return Ok(false) };
    load(&model.to_bytes(), None).map_err(|error| format!("what was written does not load: {error}"))?;
    let _ = simplify(&model.graph, &Shapes::Declared);
    let Ok(mut graph) = simplify(&model.graph, &Shapes::Fixed(BTreeMap::new())) else { return Ok(false) };
    model.graph = graph.clone();
    load(&model.to_bytes(), None).map_err(|error| format!("what was simplified does not load: {error}"))?;
    let _ = to_opset_13(&mut model);
    explicit_padding(&mut graph);
    let target = Target::find("tflm").map_err(|error| error.to_string())?;
    let recipe = target.recipe(&[Pass::quantize(Scheme::Int8)]).map_err(|error| error.to_string())?;
    let _ = lint_source(target, graph.clone(), &recipe.numbers);
    let Ok(lowered) = to_tflite(&graph, Mode::Float32, None) else { return Ok(false) };
    edgeyard_tflite::read(&lowered.bytes).map_err(|error| format!("what was lowered does not read: {error}"))?;
    Ok(true)
}
