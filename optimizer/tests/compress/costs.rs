//! Costs against closed forms, published figures and brute force.

use std::collections::BTreeSet;

use edgeyard_optimizer::cost::{cost, layers};
use edgeyard_optimizer::ir::{Model, Tensor};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::nets::Net;
use super::support::{Builder, Noise, int, ints, python};

fn macs(builder: &Builder) -> u64 {
    let graph = simplify(&builder.loaded().graph, &Shapes::Declared).unwrap();
    cost(&graph).unwrap().macs
}

#[test]
fn closed_forms_of_single_layers() {
    let mut noise = Noise::new(1);
    let mut conv = |dims: &[usize], attributes: &[_]| {
        let builder = Builder::new(17, &[0, 8, 10, 12]).constant("w", noise.tensor(dims));
        macs(&builder.node("Conv", &["x", "w"], "y", attributes))
    };
    assert_eq!(conv(&[16, 8, 3, 3], &[]), 16 * 8 * 9 * 8 * 10);
    assert_eq!(conv(&[16, 8, 3, 3], &[("dilations", ints(&[2, 3]))]), 16 * 8 * 9 * 6 * 6);
    assert_eq!(conv(&[16, 2, 3, 3], &[("group", int(4)), ("strides", ints(&[2, 2]))]), 16 * 2 * 9 * 4 * 5);
    assert_eq!(conv(&[8, 1, 3, 1], &[("group", int(8)), ("pads", ints(&[1, 0, 1, 0]))]), 8 * 3 * 10 * 12);
    let builder = Builder::new(17, &[1, 8, 5, 5]).constant("w", noise.tensor(&[8, 6, 2, 2]));
    let builder = builder.node("ConvTranspose", &["x", "w"], "y", &[("strides", ints(&[2, 2]))]);
    assert_eq!(macs(&builder), 8 * 25 * 6 * 4);
    let builder = Builder::new(17, &[0, 20]).constant("w", noise.tensor(&[20, 7]));
    assert_eq!(macs(&builder.node("Gemm", &["x", "w"], "y", &[])), 140);
    let builder = Builder::new(17, &[2, 3, 4, 5]).constant("w", noise.tensor(&[3, 5, 6]));
    assert_eq!(macs(&builder.node("MatMul", &["x", "w"], "y", &[])), 2 * 3 * 4 * 5 * 6);
    let builder = Builder::new(17, &[9, 1, 5])
        .constant("w", noise.tensor(&[1, 16, 5]))
        .constant("r", noise.tensor(&[1, 16, 4]))
        .node("LSTM", &["x", "w", "r"], "y", &[("hidden_size", int(4))]);
    assert_eq!(macs(&builder), 9 * (16 * 5 + 16 * 4));
}

#[test]
fn parameters_are_constants_that_are_computed_with() {
    let mut noise = Noise::new(2);
    let mut weights = noise.tensor(&[4, 2, 3, 3]);
    if let edgeyard_optimizer::ir::TensorData::F32(values) = &mut weights.data {
        values[..10].fill(0.0);
        (values[20], values[21]) = (-9.0, 8.0);
    }
    let builder = Builder::new(17, &[1, 2, 6, 6])
        .constant("w", weights)
        .constant("b", noise.tensor(&[4]))
        .constant("low", Tensor::f32(&[], vec![0.0]))
        .constant("high", Tensor::f32(&[], vec![6.0]))
        .constant("target", Tensor::i64(&[2], vec![1, 64]))
        .node("Conv", &["x", "w", "b"], "c", &[])
        .node("Clip", &["c", "low", "high"], "d", &[])
        .node("Reshape", &["d", "target"], "y", &[]);
    let costs = layers(&builder.loaded().graph).unwrap();
    assert_eq!((costs.total.parameters, costs.total.nonzero_parameters), (76, 66));
    let conv = &costs.layers[0];
    assert_eq!((conv.name.as_str(), conv.operator.as_str(), conv.macs), ("Conv_c", "Conv", Some(72 * 16)));
    assert_eq!((conv.output_shape.as_deref(), conv.weight_range), (Some(&[1, 4, 4, 4][..]), Some((-9.0, 8.0))));
    assert_eq!((costs.layers[1].parameters, costs.layers[2].macs, costs.notes.len()), (0, Some(0), 0));
    // x is read last by the convolution, whose result is clipped and reshaped in place: 72 and 64 floats.
    assert_eq!(costs.total.peak_activation_bytes, 4 * (72 + 64));
}

/// MobileNetV2 1.0 at 224×224 with batch normalisation folded, as its paper (Sandler et al. 2018) builds it.
fn mobilenet_v2() -> Model {
    let mut net = Net::new(1, &[0, 3, 224, 224]);
    let relu6 = |net: &mut Net, x: &str| net.op("Clip", &[x, "low", "high"], &[]);
    net.constant("low", Tensor::f32(&[], vec![0.0]));
    net.constant("high", Tensor::f32(&[], vec![6.0]));
    let mut x = net.conv("x", 3, 32, 3, 1, 2);
    x = relu6(&mut net, &x);
    let mut channels = 32;
    for (expand, to, repeats, first) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        for repeat in 0..repeats {
            let (stride, inner, input) = (if repeat == 0 { first } else { 1 }, channels * expand, x.clone());
            if expand != 1 {
                x = net.conv(&x, channels, inner, 1, 1, 1);
                x = relu6(&mut net, &x);
            }
            x = net.conv(&x, inner, inner, 3, inner, stride);
            x = relu6(&mut net, &x);
            x = net.conv(&x, inner, to, 1, 1, 1);
            if stride == 1 && channels == to {
                x = net.op("Add", &[&input, &x], &[]);
            }
            channels = to;
        }
    }
    x = net.conv(&x, 320, 1280, 1, 1, 1);
    x = relu6(&mut net, &x);
    x = net.op("GlobalAveragePool", &[&x], &[]);
    x = net.op("Flatten", &[&x], &[]);
    x = net.gemm(&x, 1280, 1000);
    net.done("mobilenet-v2", &[&x]).model
}

#[test]
fn mobilenet_v2_costs_what_its_paper_says() {
    let found = cost(&mobilenet_v2().graph).unwrap();
    // torchvision counts 3,504,872 parameters, two for each of 17,056 normalised channels; folding leaves one.
    assert_eq!(found.parameters, 3_504_872 - 17_056);
    assert_eq!(found.macs, 300_774_272);
    // The widest point: 96 channels of 112×112 go in, the same at 56×56 come out.
    assert_eq!(found.peak_activation_bytes, 4 * (96 * 112 * 112 + 96 * 56 * 56));
}

/// Random graphs whose operators are never computed in place: every tensor has memory of its own.
#[test]
fn the_peak_is_that_of_brute_force() {
    for seed in 0..200 {
        let mut noise = Noise::new(seed);
        let mut tensors = vec![("x".to_owned(), 3usize)];
        let mut builder = Builder::new(17, &[1, 3, 4]);
        let mut reads: Vec<Vec<usize>> = Vec::new();
        for step in 0..3 + noise.below(12) {
            let parts: Vec<usize> = (0..1 + noise.below(3)).map(|_| noise.below(tensors.len())).collect();
            let names: Vec<&str> = parts.iter().map(|at| tensors[*at].0.as_str()).collect();
            let output = format!("t{step}");
            builder = builder.node("Concat", &names, &output, &[("axis", int(1))]);
            let channels = parts.iter().map(|at| tensors[*at].1).sum();
            tensors.push((output, channels));
            reads.push(parts);
        }
        let outputs: BTreeSet<usize> = [tensors.len() - 1, 1 + noise.below(tensors.len() - 1)].into();
        let mut model = builder.model;
        model.graph.outputs = outputs
            .iter()
            .map(|at| {
                edgeyard_optimizer::ir::Value::fixed(
                    &tensors[*at].0,
                    edgeyard_optimizer::ir::DataType::F32,
                    &[1, tensors[*at].1, 4],
                )
            })
            .collect();
        let alive = |tensor: usize, step: usize| {
            let made = tensor == 0 || tensor - 1 <= step;
            made && (outputs.contains(&tensor)
                || (tensor > 0 && tensor - 1 == step)
                || reads[step..].iter().any(|r| r.contains(&tensor)))
        };
        let live =
            |step: usize| (0..tensors.len()).filter(|t| alive(*t, step)).map(|t| tensors[t].1 * 16).sum::<usize>();
        // A model input that nobody reads is there until the first operator has run.
        let unread = if reads.iter().any(|r| r.contains(&0)) { 0 } else { 48 };
        let expected = (0..reads.len()).map(|step| live(step) + if step == 0 { unread } else { 0 }).max().unwrap();
        assert_eq!(cost(&model.graph).unwrap().peak_activation_bytes, expected as u64, "seed {seed}");
    }
}

#[test]
fn quantised_and_packed_weights_are_counted_by_their_numbers() {
    // onnxruntime's own quantiser: int8 weights, and 4-bit blocks of which one is padded.
    let folder = tempfile::tempdir().unwrap();
    let builder =
        Builder::new(17, &[1, 40]).constant("w", Noise::new(4).tensor(&[40, 16])).node("MatMul", &["x", "w"], "y", &[]);
    std::fs::write(folder.path().join("float.onnx"), builder.bytes()).unwrap();
    python(
        "import sys, pathlib, onnx, numpy as np\n\
         from onnxruntime.quantization import quantize_dynamic, QuantType\n\
         d = pathlib.Path(sys.argv[1])\n\
         quantize_dynamic(d / 'float.onnx', d / 'dynamic.onnx', weight_type=QuantType.QInt8)\n",
        &[folder.path()],
    );
    let graph = edgeyard_optimizer::ir::load_file(&folder.path().join("dynamic.onnx")).unwrap().graph;
    let found = cost(&graph).unwrap();
    assert_eq!((found.parameters, found.macs), (640, 640));
}
