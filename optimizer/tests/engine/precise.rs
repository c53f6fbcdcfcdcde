//! Where int8 .tflite files are precise: scales that cover only what readers tell apart, and what stays float because
//! integers are too coarse for it. In LiteRT, beside the ONNX source in ONNX Runtime.

use edgeyard_job::spec::Calibrator;
use edgeyard_optimizer::ir::{Attribute, Tensor, TensorData};
use edgeyard_optimizer::lower::{Choices, Int8Io, Mode, to_tflite_with};
use edgeyard_tflite::{BuiltinOp, Model, TensorType, read};

use super::compressed::Bench;
use super::integers::lowered;
use super::support::{Builder, Noise, ints};

const INT8: Mode = Mode::Int8 { io: Int8Io::Float };

/// Weights of that size.
fn sized(noise: &mut Noise, dims: &[usize], size: f32) -> Tensor {
    let mut tensor = noise.tensor(dims);
    if let TensorData::F32(data) = &mut tensor.data {
        data.iter_mut().for_each(|value| *value *= size);
    }
    tensor
}

fn operators(bytes: &[u8]) -> Vec<(BuiltinOp, TensorType)> {
    let model = read(bytes).unwrap();
    let graph = &model.subgraphs[0];
    let stored = |index: i32| graph.tensors[index as usize].dtype;
    graph.operators.iter().map(|op| (op.code.builtin, stored(op.outputs[0]))).collect()
}

/// The real values of the first convolution's smallest and largest integer.
fn covered(model: &Model) -> (f32, f32) {
    let graph = &model.subgraphs[0];
    let convolution = graph.operators.iter().find(|op| op.code.builtin == BuiltinOp::CONV_2D).unwrap();
    let quantization = graph.tensors[convolution.outputs[0] as usize].quantization.as_ref().unwrap();
    let (scale, zero) = (quantization.scale[0], quantization.zero_point[0] as f32);
    ((-128.0 - zero) * scale, (127.0 - zero) * scale)
}

/// A convolution of values up to hundreds, an activation that is flat far from zero, and a convolution.
fn flat(noise: &mut Noise, activation: &str, attributes: &[(&str, Attribute)]) -> Builder {
    let mut builder = Builder::new(14, &[1, 4, 8, 8])
        .constant("w", sized(noise, &[8, 4, 3, 3], 8.0))
        .constant("v", noise.tensor(&[8, 8, 1, 1]))
        .node("Conv", &["x", "w"], "c", &[]);
    builder = builder.node(activation, &["c"], "a", attributes);
    builder.node("Conv", &["a", "v"], "y", &[])
}

#[test]
fn scales_do_not_cover_what_no_reader_tells_apart() {
    for (activation, low, high, least) in [
        ("HardSwish", -3.0, f32::INFINITY, 30.0),
        ("Sigmoid", -6.5, 5.4, 30.0),
        ("Tanh", -3.375, 3.375, 27.0),
        ("HardSigmoid", -2.5, 2.5, 27.0),
    ] {
        let bench = Bench::normal(flat(&mut Noise::new(61), activation, &[]), &[1, 4, 8, 8], 8);
        let range = bench.ranges(&bench.model(), Calibrator::MinMax)["c"];
        assert!(range.min < -100.0 && range.max > 100.0, "{range:?}");
        let (bytes, _, found) = lowered(&bench, INT8, &Choices::default());
        let (smallest, largest) = covered(&read(&bytes).unwrap());
        let high = range.max.min(high);
        // Zero is an integer: the ends move by half a step.
        let step = (high - low) / 255.0;
        let near = |one: f32, other: f32| (one - other).abs() < 0.51 * step;
        assert!(near(smallest, low) && near(largest, high), "{activation}: {smallest} to {largest}");
        assert!(found > least, "{activation}: {found:.1} dB");
    }
    // An output of the model is read by somebody who tells everything apart.
    let mut seen = flat(&mut Noise::new(61), "Sigmoid", &[]);
    let mut extra = seen.model.graph.outputs[0].clone();
    extra.name = "c".into();
    seen.model.graph.outputs.push(extra);
    let bench = Bench::normal(seen, &[1, 4, 8, 8], 8);
    let ranges = bench.ranges(&bench.model(), Calibrator::MinMax);
    let made = to_tflite_with(&bench.model().graph, INT8, Some(&ranges), &Choices::default()).unwrap();
    let (smallest, largest) = covered(&read(&made.bytes).unwrap());
    assert!(smallest < -100.0 && largest > 100.0, "{smallest} to {largest}");
}

/// A detector's head: large distances and small scores side by side.
fn detector(noise: &mut Noise, bias: f32) -> Builder {
    Builder::new(13, &[1, 4, 8, 8])
        .constant("w", noise.tensor(&[4, 4, 1, 1]))
        .constant("v", sized(noise, &[4, 4, 1, 1], 0.5))
        .constant("low", Tensor::f32(&[4], vec![bias; 4]))
        .constant("size", Tensor::f32(&[], vec![100.0]))
        .node("Conv", &["x", "w"], "d", &[])
        .node("Mul", &["d", "size"], "distances", &[])
        .node("Conv", &["x", "v", "low"], "c", &[])
        .node("Sigmoid", &["c"], "scores", &[])
}

#[test]
fn small_scores_stay_float_up_to_the_output() {
    let builder =
        detector(&mut Noise::new(62), -6.0).node("Transpose", &["scores"], "y", &[("perm", ints(&[0, 2, 3, 1]))]);
    let bench = Bench::normal(builder, &[1, 4, 8, 8], 8);
    let range = bench.ranges(&bench.model(), Calibrator::MinMax)["scores"];
    assert!(range.max < 0.2, "{range:?}");
    let (bytes, notes, found) = lowered(&bench, INT8, &Choices::default());
    // A step of 1/256 would be as large as the scores.
    assert!(found > 25.0, "{found:.1} dB");
    assert!(notes.iter().any(|note| note.contains("int8 is too coarse for their values")), "{notes:?}");
    let found = operators(&bytes);
    assert!(found.contains(&(BuiltinOp::LOGISTIC, TensorType::Float32)), "{found:?}");
    assert_eq!(found.iter().filter(|(op, _)| *op == BuiltinOp::QUANTIZE).count(), 1, "only the input: {found:?}");
    // Scores that use their scale stay integers, and so does everything where there are no floats.
    let usual = detector(&mut Noise::new(62), 0.0).node("Identity", &["scores"], "y", &[]);
    let (bytes, ..) = lowered(&Bench::normal(usual, &[1, 4, 8, 8], 8), INT8, &Choices::default());
    assert!(operators(&bytes).contains(&(BuiltinOp::LOGISTIC, TensorType::Int8)));
    let ranges = bench.ranges(&bench.model(), Calibrator::MinMax);
    let micro = Mode::Int8 { io: Int8Io::Int8 };
    let made = to_tflite_with(&bench.model().graph, micro, Some(&ranges), &Choices::default()).unwrap();
    assert!(operators(&made.bytes).iter().all(|(_, stored)| *stored == TensorType::Int8));
}

#[test]
fn scores_beside_distances_keep_their_precision_in_an_output() {
    let mut noise = Noise::new(63);
    let joined =
        detector(&mut noise, 0.0).node("Concat", &["distances", "scores"], "y", &[("axis", Attribute::Int(1))]);
    let bench = Bench::normal(joined, &[1, 4, 8, 8], 4);
    let (bytes, _, whole) = lowered(&bench, INT8, &Choices::default());
    assert!(whole > 30.0, "{whole:.1} dB");
    assert!(operators(&bytes).contains(&(BuiltinOp::CONCATENATION, TensorType::Float32)));
    // Distances are large: what is left of the scores shows in them alone.
    let scores = |bytes: &[u8]| {
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        let source = bench.builder.bytes();
        let mut see = |runner: &mut dyn edgeyard_optimizer::runtime::Runner| {
            for x in bench.evaluation.chunks_exact(256) {
                expected.extend_from_slice(&super::support::run_one(&source, x, &bench.input)[256..]);
                got.extend_from_slice(&runner.run(x, 1).unwrap().remove(0).values[256..]);
            }
        };
        edgeyard_optimizer::runtime::LiteRt::load().unwrap().with(bytes, &bench.input[1..], &mut see).unwrap();
        super::support::sqnr(&expected, &got)
    };
    let found = scores(&bytes);
    assert!(found > 30.0, "{found:.1} dB");
    // In the middle of a model a float concatenation would cost two conversions, and stays integer.
    let middle = detector(&mut noise, 0.0)
        .constant("u", noise.tensor(&[4, 8, 1, 1]))
        .node("Concat", &["distances", "scores"], "j", &[("axis", Attribute::Int(1))])
        .node("Conv", &["j", "u"], "y", &[]);
    let (bytes, ..) = lowered(&Bench::normal(middle, &[1, 4, 8, 8], 4), INT8, &Choices::default());
    assert!(operators(&bytes).contains(&(BuiltinOp::CONCATENATION, TensorType::Int8)));
}

#[test]
fn a_logarithm_gets_floats_from_the_input_on() {
    let mut noise = Noise::new(64);
    // Filters of very different gain: a spectrum.
    let mut filters = noise.tensor(&[8, 4, 1, 1]);
    if let TensorData::F32(data) = &mut filters.data {
        data.iter_mut().enumerate().for_each(|(at, value)| *value *= 4f32.powi(-((at / 4) as i32)));
    }
    let builder = Builder::new(13, &[1, 4, 8, 8])
        .constant("w", filters)
        .constant("little", Tensor::f32(&[], vec![1e-9]))
        .constant("v", noise.tensor(&[8, 8, 3, 3]))
        .node("Conv", &["x", "w"], "c", &[])
        .node("Mul", &["c", "c"], "square", &[])
        .node("Add", &["square", "little"], "sum", &[])
        .node("Log", &["sum"], "log", &[])
        .node("Conv", &["log", "v"], "y", &[]);
    let bench = Bench::normal(builder, &[1, 4, 8, 8], 4);
    let (bytes, notes, found) = lowered(&bench, INT8, &Choices::default());
    assert!(found > 30.0, "{found:.1} dB; {notes:?}");
    let found = operators(&bytes);
    let convolutions = found.iter().filter(|(op, _)| *op == BuiltinOp::CONV_2D).map(|(_, stored)| *stored);
    assert_eq!(convolutions.collect::<Vec<_>>(), [TensorType::Float32, TensorType::Int8]);
    assert_eq!(found.iter().filter(|(op, _)| *op == BuiltinOp::QUANTIZE).count(), 1, "behind the logarithm: {found:?}");

    // A network's last logarithm does not make the network float: behind an activation it starts anew.
    let network = Builder::new(13, &[1, 4, 8, 8])
        .constant("w", noise.tensor(&[8, 4, 3, 3]))
        .constant("v", noise.tensor(&[8, 8, 1, 1]))
        .node("Conv", &["x", "w"], "c", &[])
        .node("Relu", &["c"], "r", &[])
        .node("Conv", &["r", "v"], "d", &[])
        .node("Softmax", &["d"], "s", &[("axis", Attribute::Int(1))])
        .node("Log", &["s"], "y", &[]);
    let (bytes, ..) = lowered(&Bench::normal(network, &[1, 4, 8, 8], 4), INT8, &Choices::default());
    let found = operators(&bytes);
    let convolutions = found.iter().filter(|(op, _)| *op == BuiltinOp::CONV_2D).map(|(_, stored)| *stored);
    assert_eq!(convolutions.collect::<Vec<_>>(), [TensorType::Int8, TensorType::Int8]);
    assert!(found.contains(&(BuiltinOp::LOG, TensorType::Float32)), "{found:?}");
}
