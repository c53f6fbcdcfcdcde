//! Integer and half-precision .tflite files in LiteRT, beside the ONNX source in ONNX Runtime.

use std::collections::BTreeSet;

use edgeyard_job::spec::{Calibrator, Granularity};
use edgeyard_optimizer::ir::{Tensor, TensorData};
use edgeyard_optimizer::lower::{Choices, Int8Io, Mode, Ranges, to_tflite_with};
use edgeyard_optimizer::runtime::LiteRt;
use edgeyard_tflite::{BuiltinOp, Model, TensorType, read};

use super::compressed::{Bench, gemm, sensitive};
use super::support::{Builder, Noise, int, ints, run_one, sqnr};

/// Lowers and compares: the file, its notes, and its SQNR.
fn lowered(bench: &Bench, mode: Mode, choices: &Choices) -> (Vec<u8>, Vec<String>, f64) {
    let model = bench.model();
    let ranges = bench.ranges(&model, Calibrator::MinMax);
    let made = to_tflite_with(&model.graph, mode, Some(&ranges), choices).unwrap();
    let source = bench.builder.bytes();
    let size: usize = bench.input.iter().product();
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    let mut compare = |runner: &mut dyn edgeyard_optimizer::runtime::Runner| {
        for x in bench.evaluation.chunks_exact(size) {
            expected.extend(run_one(&source, x, &bench.input));
            got.extend(runner.run(x, 1).unwrap().remove(0).values);
        }
    };
    LiteRt::load().unwrap().with(&made.bytes, &bench.input[1..], &mut compare).unwrap();
    (made.bytes, made.notes, sqnr(&expected, &got))
}

fn constants(model: &Model) -> Vec<(TensorType, usize, usize)> {
    let tensors = model.subgraphs[0].tensors.iter();
    tensors
        .filter(|tensor| tensor.buffer != 0)
        .map(|tensor| (tensor.dtype, tensor.elements().unwrap(), model.data_of(tensor).len()))
        .collect()
}

fn network(noise: &mut Noise) -> Builder {
    Builder::new(13, &[1, 4, 8, 8])
        .constant("w1", noise.tensor(&[16, 4, 3, 3]))
        .constant("b1", noise.tensor(&[16]))
        .constant("w2", noise.tensor(&[16, 1, 5, 5]))
        .constant("w3", noise.tensor(&[32, 16, 1, 1]))
        .constant("w4", noise.tensor(&[10, 32 * 4]))
        .constant("b4", noise.tensor(&[10]))
        .node("Conv", &["x", "w1", "b1"], "c1", &[("pads", ints(&[1, 1, 1, 1]))])
        .node("Relu", &["c1"], "r1", &[])
        .node("Conv", &["r1", "w2"], "c2", &[("group", int(16)), ("pads", ints(&[2, 2, 2, 2]))])
        .node("Sigmoid", &["c2"], "s", &[])
        .node("Mul", &["c2", "s"], "m", &[])
        .node("Add", &["m", "r1"], "a", &[])
        .node("Conv", &["a", "w3"], "c3", &[])
        .node("MaxPool", &["c3"], "p", &[("kernel_shape", ints(&[4, 4])), ("strides", ints(&[4, 4]))])
        .node("Flatten", &["p"], "f", &[("axis", int(1))])
        .node("Gemm", &["f", "w4", "b4"], "y", &[("transB", int(1))])
}

#[test]
fn every_way_to_store_numbers_is_as_close_as_its_bits() {
    let bench = Bench::normal(network(&mut Noise::new(51)), &[1, 4, 8, 8], 8);
    let float = lowered(&bench, Mode::Float32, &Choices::default());
    assert!(float.2 > 100.0, "{:.1} dB", float.2);
    for (mode, least, most) in [
        (Mode::Float16Weights, 60.0, 90.0),
        (Mode::Int16Activations { io: Int8Io::Float }, 36.0, 70.0),
        (Mode::Int8Dynamic, 30.0, 50.0),
        (Mode::Int8 { io: Int8Io::Float }, 22.0, 45.0),
        (Mode::Int4Weights, 12.0, 30.0),
    ] {
        let (_, notes, found) = lowered(&bench, mode, &Choices::default());
        assert!((least..most).contains(&found), "{mode:?}: {found:.1} dB; {notes:?}");
    }
}

#[test]
fn sixteen_bit_activations_keep_what_eight_bits_lose() {
    let mut noise = Noise::new(52);
    // One input is large and does not matter: 8 bits have little left for the others.
    let mut weights = noise.tensor(&[16, 8, 1, 1]);
    if let TensorData::F32(data) = &mut weights.data {
        data.iter_mut().step_by(8).for_each(|value| *value = 0.0);
    }
    let builder = Builder::new(13, &[1, 8, 5, 5]).constant("w", weights).node("Conv", &["x", "w"], "y", &[]);
    let mut x = noise.values(8 * 200);
    x.chunks_mut(200).for_each(|sample| sample[..25].iter_mut().for_each(|value| *value *= 30.0));
    let bench = Bench::new(builder, &[1, 8, 5, 5], x.clone(), x);
    let (_, _, narrow) = lowered(&bench, Mode::Int8 { io: Int8Io::Float }, &Choices::default());
    let (bytes, _, wide) = lowered(&bench, Mode::Int16Activations { io: Int8Io::Float }, &Choices::default());
    assert!(wide > narrow + 10.0, "{wide:.1} dB with 16 bits, {narrow:.1} dB with 8");
    let model = read(&bytes).unwrap();
    let graph = &model.subgraphs[0];
    for operator in graph.operators.iter().filter(|operator| operator.code.builtin == BuiltinOp::CONV_2D) {
        let dtype = |at: usize| graph.tensors[operator.inputs[at] as usize].dtype;
        assert_eq!((dtype(0), dtype(1), dtype(2)), (TensorType::Int16, TensorType::Int8, TensorType::Int64));
    }
}

#[test]
fn four_bit_weights_are_stored_two_to_a_byte() {
    let mut noise = Noise::new(53);
    // An odd number of weights ends in half a byte.
    let bench = Bench::normal(gemm(&mut noise, 255, 17), &[1, 255], 4);
    let (bytes, notes, found) = lowered(&bench, Mode::Int4Weights, &Choices::default());
    assert_eq!(notes, ["weights of 1 operators in 4-bit integers"]);
    let (narrow, wide) = (constants(&read(&bytes).unwrap()), lowered(&bench, Mode::Int8Dynamic, &Choices::default()));
    assert!(narrow.contains(&(TensorType::Int4, 255 * 17, (255 * 17_usize).div_ceil(2))), "{narrow:?}");
    assert!(constants(&read(&wide.0).unwrap()).contains(&(TensorType::Int8, 255 * 17, 255 * 17)));
    assert!((14.0..26.0).contains(&found) && wide.2 > found + 12.0, "{found:.1} dB against {:.1}", wide.2);
}

#[test]
fn blocks_of_four_bit_weights_keep_what_channels_lose() {
    let mut noise = Noise::new(57);
    // The first block of a row is much larger than the others: one scale for the row has few steps left for those.
    let (inputs, outputs, block) = (256, 24, 32);
    let mut weights = noise.tensor(&[outputs, inputs]);
    if let TensorData::F32(data) = &mut weights.data {
        for (at, value) in data.iter_mut().enumerate() {
            *value *= if at % inputs < block { 1.0 } else { 0.05 };
        }
    }
    let builder = Builder::new(13, &[1, inputs]).constant("w", weights.clone());
    let builder = builder.node("Gemm", &["x", "w"], "y", &[("transB", int(1))]);
    // The large block meets nothing.
    let mut x = noise.values(4 * inputs);
    x.iter_mut().enumerate().filter(|(at, _)| at % inputs < block).for_each(|(_, value)| *value = 0.0);
    let bench = Bench::new(builder, &[1, inputs], x.clone(), x);
    let blocks = Choices { block_size: Some(block as u32), ..Choices::default() };
    let (bytes, notes, found) = lowered(&bench, Mode::Int4Weights, &blocks);
    assert_eq!(notes, ["weights of 1 matrix products in 4-bit integers, in blocks of 32"]);
    let (_, _, channels) = lowered(&bench, Mode::Int4Weights, &Choices::default());
    assert!(found > channels + 6.0, "{found:.1} dB in blocks, {channels:.1} dB in channels");
    // The bytes: integers from -8 to 7, two to a byte, and a half for each block of a row.
    let model = read(&bytes).unwrap();
    let graph = &model.subgraphs[0];
    let stored = graph.tensors.iter().find(|tensor| tensor.dtype == TensorType::Int4).unwrap();
    let described = stored.quantization.as_ref().unwrap().blocks.unwrap();
    assert_eq!((described.size, described.zero_points, model.data_of(stored).len()), (32, -1, inputs * outputs / 2));
    let scales = &graph.tensors[described.scales as usize];
    assert_eq!((scales.dtype, &scales.shape), (TensorType::Float16, &vec![24, 8]));
    let TensorData::F32(real) = &weights.data else { panic!("weights are floats") };
    let halves: Vec<f32> =
        model.data_of(scales).chunks(2).map(|bytes| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect();
    let nibbles = model.data_of(stored).iter().flat_map(|byte| [(byte << 4) as i8 >> 4, *byte as i8 >> 4]);
    for (at, integer) in nibbles.enumerate() {
        let scale = halves[at / block];
        let error = (f32::from(integer) * scale - real[at]).abs();
        assert!(error <= scale * 0.51, "weight {at}: {} is stored as {integer} of {scale}", real[at]);
    }
    // A row that blocks do not divide has one scale.
    let odd = Bench::normal(gemm(&mut noise, 255, 17), &[1, 255], 2);
    let (_, notes, _) = lowered(&odd, Mode::Int4Weights, &blocks);
    assert_eq!(notes, ["weights of 1 operators in 4-bit integers"]);
}

#[test]
fn a_sensitive_operator_stays_float_between_conversions() {
    let bench = Bench::normal(sensitive(&mut Noise::new(54)), &[1, 4, 6, 6], 8);
    let mode = Mode::Int8 { io: Int8Io::Float };
    let choices = Choices { granularity: Granularity::PerTensor, ..Choices::default() };
    let (_, _, before) = lowered(&bench, mode, &choices);
    let kept = Choices { keep_float: BTreeSet::from(["c2".to_owned()]), ..choices.clone() };
    let (bytes, notes, after) = lowered(&bench, mode, &kept);
    assert!(after > before + 2.0, "{before:.1} dB before, {after:.1} dB after");
    assert!(notes.contains(&"computed in float32, as they are sensitive: Conv_c2, Relu_r2".to_owned()), "{notes:?}");
    let model = read(&bytes).unwrap();
    let float = |at: &i32| model.subgraphs[0].tensors[*at as usize].dtype == TensorType::Float32;
    let convolutions = model.subgraphs[0].operators.iter().filter(|op| op.code.builtin == BuiltinOp::CONV_2D);
    assert_eq!(convolutions.map(|op| op.inputs.iter().all(float)).collect::<Vec<_>>(), [false, true, false]);
    // Per channel the layer is not sensitive at all.
    let (_, _, channels) = lowered(&bench, mode, &Choices::default());
    assert!(channels > before + 3.0, "{channels:.1} dB per channel, {before:.1} dB per tensor");
    let model = bench.model();
    let ranges = bench.ranges(&model, Calibrator::MinMax);
    let refused = to_tflite_with(&model.graph, Mode::Int8 { io: Int8Io::Int8 }, Some(&ranges), &kept).unwrap_err();
    assert!(refused.to_string().contains("op Conv (node Conv_c2)"), "{refused}");
}

/// A tensor that fusing takes away stands for the operator it went into.
#[test]
fn what_is_kept_float_inside_a_pattern_keeps_the_whole_float() {
    let mut noise = Noise::new(58);
    let builder = Builder::new(13, &[1, 4, 6, 6])
        .constant("w", noise.tensor(&[8, 4, 3, 3]))
        .constant("b", noise.tensor(&[1, 8, 1, 1]))
        .constant("three", Tensor::f32(&[], vec![3.0]))
        .constant("zero", Tensor::f32(&[], vec![0.0]))
        .constant("six", Tensor::f32(&[], vec![6.0]))
        .node("Conv", &["x", "w"], "c", &[])
        .node("Add", &["c", "b"], "biased", &[])
        .node("Add", &["biased", "three"], "shifted", &[])
        .node("Clip", &["shifted", "zero", "six"], "clipped", &[])
        .node("Mul", &["biased", "clipped"], "p", &[])
        .node("Div", &["p", "six"], "y", &[]);
    let bench = Bench::normal(builder, &[1, 4, 6, 6], 4);
    let floats = |name: &str| {
        let choices = Choices { keep_float: BTreeSet::from([name.to_owned()]), ..Choices::default() };
        let (bytes, ..) = lowered(&bench, Mode::Int8 { io: Int8Io::Float }, &choices);
        let model = read(&bytes).unwrap();
        let graph = &model.subgraphs[0];
        let float = |at: &i32| graph.tensors[*at as usize].dtype == TensorType::Float32;
        let of = |op: BuiltinOp| {
            graph
                .operators
                .iter()
                .find(|found| found.code.builtin == op)
                .is_some_and(|found| found.outputs.iter().all(float))
        };
        (of(BuiltinOp::CONV_2D), of(BuiltinOp::HARD_SWISH))
    };
    assert_eq!(floats("clipped"), (false, true));
    assert_eq!(floats("biased"), (true, false));
    let choices = Choices { keep_float: BTreeSet::from(["nothing".to_owned()]), ..Choices::default() };
    let model = bench.model();
    let ranges = bench.ranges(&model, Calibrator::MinMax);
    let refused = to_tflite_with(&model.graph, Mode::Int8 { io: Int8Io::Float }, Some(&ranges), &choices);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("keep_float names nothing, which no operator of the model makes"), "{refused}");
}

/// XNNPACK leaves a convolution with half weights and a float32 bias to slow kernels.
#[test]
fn half_weights_come_with_half_biases() {
    let bench = Bench::normal(network(&mut Noise::new(55)), &[1, 4, 8, 8], 2);
    let (bytes, ..) = lowered(&bench, Mode::Float16Weights, &Choices::default());
    let model = read(&bytes).unwrap();
    let graph = &model.subgraphs[0];
    let widened: BTreeSet<i32> = graph
        .operators
        .iter()
        .filter(|operator| operator.code.builtin == BuiltinOp::DEQUANTIZE)
        .flat_map(|operator| operator.outputs.clone())
        .collect();
    let mut products = 0;
    for operator in &graph.operators {
        if matches!(
            operator.code.builtin,
            BuiltinOp::CONV_2D | BuiltinOp::DEPTHWISE_CONV_2D | BuiltinOp::FULLY_CONNECTED
        ) {
            products += 1;
            assert!(operator.inputs[1..].iter().all(|input| widened.contains(input)), "{}", operator.code.builtin);
        }
    }
    assert_eq!(products, 4);
}

#[test]
fn what_halves_cannot_hold_stays_float_with_its_name() {
    let mut builder = gemm(&mut Noise::new(56), 64, 16);
    if let Some(TensorData::F32(data)) = builder.model.graph.initializers.get_mut("w").map(|w| &mut w.data) {
        data[3] = 1e5;
    }
    let bench = Bench::normal(builder, &[1, 64], 2);
    let (bytes, notes, found) = lowered(&bench, Mode::Float16Weights, &Choices::default());
    assert!(notes.len() == 1 && notes[0].starts_with("w stays float32: its value 100000"), "{notes:?}");
    assert!(found > 100.0 && constants(&read(&bytes).unwrap()).iter().all(|(dtype, ..)| *dtype == TensorType::Float32));
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    let graph = gemm(&mut Noise::new(57), 32, 16).loaded().graph;
    let mut graph =
        edgeyard_optimizer::simplify::simplify(&graph, &edgeyard_optimizer::simplify::Shapes::Declared).unwrap();
    // Loading refuses such a file already; a pass before may have made the weights.
    let weights = graph.nodes.iter().find(|node| node.is("Gemm")).unwrap().inputs[1].clone();
    let dims = graph.initializers[&weights].dims.clone();
    graph.initializers.insert(weights, Tensor::f32(&dims, vec![f32::NAN; 512]));
    for mode in [Mode::Int8 { io: Int8Io::Float }, Mode::Int8Dynamic, Mode::Int4Weights] {
        let error = to_tflite_with(&graph, mode, Some(&Ranges::new()), &Choices::default()).unwrap_err();
        assert!(error.to_string().starts_with("constant w"), "{error}");
    }
}
