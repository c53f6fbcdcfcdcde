//! 8-bit and half-precision graphs against the float32 graph they were made from, in ONNX Runtime.

use edgeyard_job::spec::{Calibrator, Granularity};
use edgeyard_optimizer::calibrate::calibrate;
use edgeyard_optimizer::dataset::Dataset;
use edgeyard_optimizer::ir::{Attribute, Model, Tensor, TensorData, load};
use edgeyard_optimizer::quantize::{Element, QdqError, QdqOptions, half_weights, quantize};
use edgeyard_optimizer::runtime::OnnxRuntime;
use edgeyard_optimizer::simplify::{Shapes, simplify, to_opset_13};

use super::support::{Builder, Noise, int, ints, run_one, sqnr, write_npz};

const SAMPLES: usize = 8;

fn quantized(
    builder: &Builder,
    input: &[usize],
    activations: Element,
    granularity: Granularity,
) -> (Model, Vec<String>) {
    let mut model = builder.loaded();
    model.graph = simplify(&model.graph, &Shapes::Declared).unwrap();
    to_opset_13(&mut model).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.npz");
    write_npz(&path, &[&[SAMPLES], &input[1..]].concat(), &samples(input), None);
    let dataset = Dataset::open(&path).unwrap();
    let runtime = OnnxRuntime::load().unwrap();
    let found = calibrate(&runtime, &model, &dataset, SAMPLES, Calibrator::MinMax, &mut |_, _| true).unwrap();
    let result = quantize(&model.graph, &found.ranges, &QdqOptions::new(activations, granularity)).unwrap();
    model.graph = result.graph;
    (model, result.notes)
}

fn samples(input: &[usize]) -> Vec<f32> {
    Noise::new(21).values(SAMPLES * input[1..].iter().product::<usize>())
}

/// Mean SQNR over the samples.
fn quality(builder: &Builder, model: &Model, input: &[usize]) -> f64 {
    let (source, made) = (builder.bytes(), model.to_bytes());
    let size: usize = input.iter().product();
    let x = samples(input);
    let each = x.chunks(size).map(|x| sqnr(&run_one(&source, x, input), &run_one(&made, x, input)));
    each.sum::<f64>() / SAMPLES as f64
}

/// What ONNX Runtime's optimiser makes of a model.
pub fn fused(model: &Model) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("optimized.onnx");
    OnnxRuntime::load().unwrap().optimized(&model.to_bytes(), &path).unwrap();
    let optimized = load(&std::fs::read(path).unwrap(), None).unwrap();
    optimized.graph.nodes.into_iter().map(|node| node.op_type).collect()
}

fn conv(noise: &mut Noise, attributes: &[(&str, Attribute)], dims: &[usize]) -> Builder {
    Builder::new(13, &[1, 8, 10, 10]).constant("w", noise.tensor(dims)).constant("b", noise.tensor(&[dims[0]])).node(
        "Conv",
        &["x", "w", "b"],
        "c",
        attributes,
    )
}

#[test]
fn every_operator_with_an_integer_kernel_keeps_its_quality_and_gets_that_kernel() {
    let mut noise = Noise::new(1);
    let x4 = &[1, 8, 10, 10][..];
    let pool = [("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))];
    let relu = |builder: Builder| builder.node("Relu", &["c"], "y", &[]);
    let identity_tail =
        |builder: Builder, op: &str, attributes: &[(&str, Attribute)]| builder.node(op, &["c"], "y", attributes);
    let plain = |noise: &mut Noise| conv(noise, &[("pads", ints(&[1, 1, 1, 1]))], &[8, 8, 3, 3]);
    let cases: Vec<(&str, Builder, &[usize], f64, &str)> = vec![
        ("conv relu", relu(plain(&mut noise)), x4, 38.0, "QLinearConv"),
        ("depthwise", relu(conv(&mut noise, &[("group", int(8))], &[8, 1, 3, 3])), x4, 36.0, "QLinearConv"),
        ("grouped", relu(conv(&mut noise, &[("group", int(2))], &[4, 4, 3, 3])), x4, 36.0, "QLinearConv"),
        (
            "dilated",
            relu(conv(&mut noise, &[("dilations", ints(&[2, 2])), ("pads", ints(&[0, 1, 2, 1]))], &[8, 8, 3, 3])),
            x4,
            36.0,
            "QLinearConv",
        ),
        ("max pool", identity_tail(plain(&mut noise), "MaxPool", &pool), x4, 36.0, "MaxPool"),
        ("average pool", identity_tail(plain(&mut noise), "AveragePool", &pool), x4, 32.0, "QLinearAveragePool"),
        (
            "global pool",
            identity_tail(plain(&mut noise), "GlobalAveragePool", &[]),
            x4,
            24.0,
            "QLinearGlobalAveragePool",
        ),
        ("sigmoid", identity_tail(plain(&mut noise), "Sigmoid", &[]), x4, 36.0, "QLinearSigmoid"),
        ("add", plain(&mut noise).node("Add", &["x", "c"], "y", &[]), x4, 33.0, "QLinearAdd"),
        ("mul", plain(&mut noise).node("Mul", &["x", "c"], "y", &[]), x4, 31.0, "QLinearMul"),
        ("concat", plain(&mut noise).node("Concat", &["x", "c"], "y", &[("axis", int(1))]), x4, 33.0, "QLinearConcat"),
        (
            "gemm",
            Builder::new(13, &[1, 64]).constant("w", noise.tensor(&[16, 64])).constant("b", noise.tensor(&[16])).node(
                "Gemm",
                &["x", "w", "b"],
                "y",
                &[("transB", int(1))],
            ),
            &[1, 64],
            36.0,
            "QGemm",
        ),
        (
            "gemm, plain weights",
            Builder::new(13, &[1, 64]).constant("w", noise.tensor(&[64, 16])).node("Gemm", &["x", "w"], "y", &[]),
            &[1, 64],
            36.0,
            "QGemm",
        ),
    ];
    for (name, builder, input, least, kernel) in cases {
        for activations in [Element::UInt8, Element::Int8] {
            for granularity in [Granularity::PerChannel, Granularity::PerTensor] {
                let (model, _) = quantized(&builder, input, activations, granularity);
                let found = quality(&builder, &model, input);
                let least = if granularity == Granularity::PerTensor { least - 6.0 } else { least };
                assert!(found >= least, "{name} {activations:?} {granularity:?}: {found:.1} dB");
                // Above that the "8-bit" model would not be one.
                assert!(found < 70.0, "{name} {activations:?} {granularity:?}: {found:.1} dB is too good to be true");
                // On x86 ONNX Runtime turns int8 activations into uint8 first, but not those that are read twice; on ARM
                // it has kernels for them.
                let read_twice = matches!(name, "add" | "mul" | "concat");
                if activations == Element::Int8 && read_twice && !cfg!(target_arch = "aarch64") {
                    continue;
                }
                let kernels = fused(&model);
                assert!(kernels.iter().any(|op| op == kernel), "{name} {activations:?} {granularity:?}: {kernels:?}");
                assert!(
                    !kernels.iter().any(|op| matches!(op.as_str(), "Conv" | "FusedConv" | "Gemm" | "Relu")),
                    "{name}: {kernels:?}"
                );
            }
        }
    }
}

#[test]
fn a_granularity_makes_a_difference() {
    let mut noise = Noise::new(2);
    let mut weights = noise.tensor(&[16, 64]);
    if let TensorData::F32(data) = &mut weights.data {
        // Channels of very different size are what per-channel scales are for.
        data.iter_mut().enumerate().for_each(|(at, value)| *value *= 0.02f32.powi((at / 64 % 2) as i32));
    }
    // The last product's output stays float32, so that its own rounding hides nothing.
    let builder = Builder::new(13, &[1, 64]).constant("w", weights);
    let builder = builder.node("Gemm", &["x", "w"], "y", &[("transB", int(1))]);
    let input = &[1, 64];
    let small_channels = |granularity| {
        let (model, _) = quantized(&builder, input, Element::UInt8, granularity);
        let x = &samples(input)[..64];
        let (expected, got) = (run_one(&builder.bytes(), x, input), run_one(&model.to_bytes(), x, input));
        let odd = |values: &[f32]| values.iter().skip(1).step_by(2).copied().collect::<Vec<_>>();
        sqnr(&odd(&expected), &odd(&got))
    };
    let (channel, tensor) = (small_channels(Granularity::PerChannel), small_channels(Granularity::PerTensor));
    assert!(channel > tensor + 10.0, "{channel:.1} dB per channel, {tensor:.1} dB per tensor");
}

#[test]
fn clamps_go_into_the_saturation_of_the_kernel_only_where_that_is_the_same() {
    let clip = |low: f32, high: f32| {
        conv(&mut Noise::new(3), &[], &[8, 8, 3, 3])
            .constant("low", Tensor::f32(&[], vec![low]))
            .constant("high", Tensor::f32(&[], vec![high]))
            .node("Clip", &["c", "low", "high"], "y", &[])
    };
    let input = &[1, 8, 10, 10];
    // A range that is not all on one side of zero is never covered exactly.
    for (low, high, absorbed) in [(0.0, 6.0, true), (-1.0, 1.0, false), (1.0, 6.0, false), (-6.0, -1.0, false)] {
        let builder = clip(low, high);
        let (model, _) = quantized(&builder, input, Element::UInt8, Granularity::PerChannel);
        let clips = model.graph.nodes.iter().filter(|node| node.op_type == "Clip").count();
        assert_eq!(clips == 0, absorbed, "[{low}, {high}]");
        let found = quality(&builder, &model, input);
        assert!(found > 28.0, "[{low}, {high}]: {found:.1} dB");
    }
}

#[test]
fn what_has_no_integer_kernel_stays_float_and_is_told() {
    let builder = conv(&mut Noise::new(4), &[], &[8, 8, 3, 3])
        .node("HardSwish", &["c"], "h", &[])
        .constant("axes", Tensor::i64(&[2], vec![2, 3]))
        .node("Softmax", &["h"], "y", &[("axis", int(1))]);
    let mut builder = builder;
    builder.model.graph.opset = 14;
    builder.model.opsets.insert(String::new(), 14);
    let (model, notes) = quantized(&builder, &[1, 8, 10, 10], Element::UInt8, Granularity::PerChannel);
    assert!(notes.iter().any(|note| note.contains("1 HardSwish, 1 Softmax")), "{notes:?}");
    let found = quality(&builder, &model, &[1, 8, 10, 10]);
    assert!(found > 25.0, "{found:.1} dB");
    let nothing = Builder::new(13, &[1, 4]).node("Softmax", &["x"], "y", &[]).loaded();
    let options = QdqOptions::new(Element::UInt8, Granularity::PerChannel);
    assert!(matches!(quantize(&nothing.graph, &Default::default(), &options), Err(QdqError::NothingToDo)));
}

#[test]
fn scales_do_not_cover_what_a_hard_swish_does_not_tell_apart() {
    for (activation, lowest, highest) in [("HardSwish", -3.0, f32::INFINITY), ("HardSigmoid", -2.5, 2.5)] {
        let mut builder = Builder::new(14, &[1, 8, 10, 10])
            .constant("w", Tensor::f32(&[8, 8, 1, 1], Noise::new(8).values(64).iter().map(|w| w * 9.0).collect()))
            .node("Conv", &["x", "w"], "c", &[])
            .node(activation, &["c"], "y", &[]);
        let input = &[1, 8, 10, 10];
        let (model, _) = quantized(&builder, input, Element::UInt8, Granularity::PerChannel);
        let stored = model.graph.nodes.iter().find(|node| node.is("QuantizeLinear") && node.inputs[0] == "c_float");
        let constant = |at: usize| model.graph.constant(&stored.unwrap().inputs[at]).unwrap();
        let (scale, zero) = (constant(1).to_f32().unwrap()[0], constant(2).to_i64().unwrap()[0] as f32);
        let (low, high) = (-zero * scale, (255.0 - zero) * scale);
        assert!((low - lowest).abs() < scale && (high < highest + scale), "{activation}: {low} to {high}");
        assert!(highest.is_finite() || high > 30.0, "{activation}: {low} to {high}");
        let found = quality(&builder, &model, input);
        assert!(found > 34.0, "{activation}: {found:.1} dB");
        // Who else reads it may tell apart what the activation does not.
        builder = builder.node("Add", &["c", "y"], "z", &[]);
        builder.model.graph.outputs[0].name = "z".into();
        let (model, _) = quantized(&builder, input, Element::UInt8, Granularity::PerChannel);
        assert!(quality(&builder, &model, input) > 30.0, "{activation}");
    }
}

#[test]
fn an_old_opset_is_raised() {
    let mut noise = Noise::new(5);
    let builder = Builder::new(11, &[1, 8, 10, 10])
        .constant("w", noise.tensor(&[8, 8, 3, 3]))
        .node("Conv", &["x", "w"], "c", &[])
        .node("GlobalAveragePool", &["c"], "g", &[])
        .node("Squeeze", &["g"], "s", &[("axes", ints(&[2, 3]))])
        .node("Softmax", &["s"], "y", &[("axis", int(1))]);
    let (model, _) = quantized(&builder, &[1, 8, 10, 10], Element::UInt8, Granularity::PerChannel);
    assert_eq!(model.opsets[""], 13);
    let found = quality(&builder, &model, &[1, 8, 10, 10]);
    assert!(found > 25.0, "{found:.1} dB");
}

#[test]
fn weights_used_twice_are_stored_once() {
    let mut noise = Noise::new(6);
    let builder = Builder::new(13, &[1, 8, 10, 10])
        .constant("w", noise.tensor(&[8, 8, 1, 1]))
        .node("Conv", &["x", "w"], "a", &[])
        .node("Conv", &["a", "w"], "y", &[]);
    let (model, _) = quantized(&builder, &[1, 8, 10, 10], Element::UInt8, Granularity::PerChannel);
    let stored = model.graph.initializers.values().filter(|tensor| tensor.dims == [8, 8, 1, 1]).count();
    assert_eq!(stored, 1);
    assert!(quality(&builder, &model, &[1, 8, 10, 10]) > 30.0);
}

#[test]
fn half_weights_take_half_the_bytes_and_lose_little() {
    let mut noise = Noise::new(7);
    let builder = conv(&mut noise, &[], &[64, 8, 3, 3]).node("Relu", &["c"], "y", &[]);
    let mut model = builder.loaded();
    let notes = half_weights(&mut model.graph);
    assert!(notes.is_empty(), "{notes:?}");
    let share = model.to_bytes().len() as f64 / builder.bytes().len() as f64;
    assert!(share < 0.6, "{share}");
    let found = quality(&builder, &model, &[1, 8, 10, 10]);
    assert!((60.0..100.0).contains(&found), "{found:.1} dB");
}
