//! What each way to quantise is for: models made so that it changes the signal-to-noise ratio, run in ONNX Runtime
//! beside the float32 graph.

use std::collections::BTreeSet;

use edgeyard_job::spec::{Calibrator, Granularity};
use edgeyard_optimizer::calibrate::{Ranges, calibrate};
use edgeyard_optimizer::dataset::Dataset;
use edgeyard_optimizer::ir::{Attribute, Model, Tensor, TensorData};
use edgeyard_optimizer::quantize::{
    Element, Granularities, Int4Form, Peaks, QdqError, QdqOptions, channel_peaks, correct_biases, dynamic, equalize,
    int4, quantize, rank_sensitivity,
};
use edgeyard_optimizer::runtime::OnnxRuntime;
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::quantized::fused;
use super::support::{Builder, Noise, assert_near, int, ints, run_one, sqnr, write_npz};

/// A model, and data to calibrate it and to compare on.
pub struct Bench {
    pub builder: Builder,
    pub input: Vec<usize>,
    pub evaluation: Vec<f32>,
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new(builder: Builder, input: &[usize], calibration: Vec<f32>, evaluation: Vec<f32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let size: usize = input[1..].iter().product();
        let shape = [&[calibration.len() / size], &input[1..]].concat();
        write_npz(&folder.path().join("c.npz"), &shape, &calibration, None);
        Self { builder, input: input.to_vec(), evaluation, folder }
    }

    /// About normal data, the same for both.
    pub fn normal(builder: Builder, input: &[usize], samples: usize) -> Self {
        let x = Noise::new(77).values(samples * input[1..].iter().product::<usize>());
        Self::new(builder, input, x.clone(), x)
    }

    pub fn dataset(&self) -> Dataset {
        Dataset::open(&self.folder.path().join("c.npz")).unwrap()
    }

    pub fn model(&self) -> Model {
        let mut model = self.builder.loaded();
        model.graph = simplify(&model.graph, &Shapes::Declared).unwrap();
        model
    }

    pub fn ranges(&self, model: &Model, calibrator: Calibrator) -> Ranges {
        let runtime = OnnxRuntime::load().unwrap();
        calibrate(&runtime, model, &self.dataset(), usize::MAX, calibrator, &mut |_, _| true).unwrap().ranges
    }

    /// SQNR of a model over the evaluation data.
    pub fn quality(&self, model: &Model) -> f64 {
        let (source, made) = (self.builder.bytes(), model.to_bytes());
        let size: usize = self.input.iter().product();
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for x in self.evaluation.chunks_exact(size) {
            expected.extend(run_one(&source, x, &self.input));
            got.extend(run_one(&made, x, &self.input));
        }
        sqnr(&expected, &got)
    }

    fn int8(&self, model: &Model, ranges: &Ranges, options: &QdqOptions) -> f64 {
        let mut made = model.clone();
        made.graph = quantize(&model.graph, ranges, options).unwrap().graph;
        self.quality(&made)
    }
}

fn options(granularity: Granularity) -> QdqOptions {
    QdqOptions::new(Element::UInt8, granularity)
}

pub fn gemm(noise: &mut Noise, inputs: usize, outputs: usize) -> Builder {
    Builder::new(13, &[1, inputs])
        .constant("w", noise.tensor(&[outputs, inputs]))
        .constant("b", noise.tensor(&[outputs]))
        .node("Gemm", &["x", "w", "b"], "y", &[("transB", int(1))])
}

#[test]
fn calibrators_leave_out_what_would_cost_the_rest_its_precision() {
    let mut noise = Noise::new(31);
    let builder = gemm(&mut noise, 4096, 4);
    let mut x = noise.values(4096).repeat(400);
    // One broken pixel in one of 400 samples; all others together are worth more than it, even squared.
    x[4096 * 200 + 5] = 60.0;
    let evaluation = x[..4096 * 4].to_vec();
    let bench = Bench::new(builder, &[1, 4096], x, evaluation);
    let model = bench.model();
    let found = |calibrator| bench.int8(&model, &bench.ranges(&model, calibrator), &options(Granularity::PerChannel));
    let widest = found(Calibrator::MinMax);
    for (calibrator, gain) in [
        (Calibrator::MovingAverage, 4.0),
        (Calibrator::Percentile, 10.0),
        (Calibrator::Entropy, 10.0),
        (Calibrator::MeanSquaredError, 2.0),
    ] {
        let better = found(calibrator);
        assert!(better > widest + gain, "{calibrator:?}: {better:.1} dB, MinMax {widest:.1} dB");
    }
}

#[test]
fn one_sample_and_a_tensor_that_is_always_zero_are_enough() {
    let mut noise = Noise::new(32);
    let builder = Builder::new(13, &[1, 32])
        .constant("w", noise.tensor(&[16, 32]))
        .constant("low", Tensor::f32(&[16], vec![-1e3; 16]))
        .constant("v", noise.tensor(&[8, 16]))
        .constant("c", noise.tensor(&[8]))
        .node("Gemm", &["x", "w", "low"], "g", &[("transB", int(1))])
        .node("Relu", &["g"], "r", &[])
        .node("Gemm", &["r", "v", "c"], "y", &[("transB", int(1))]);
    let bench = Bench::normal(builder, &[1, 32], 1);
    let model = bench.model();
    for calibrator in [
        Calibrator::MinMax,
        Calibrator::MovingAverage,
        Calibrator::Percentile,
        Calibrator::Entropy,
        Calibrator::MeanSquaredError,
    ] {
        let ranges = bench.ranges(&model, calibrator);
        assert_eq!((ranges["r"].min, ranges["r"].max), (0.0, 0.0), "{calibrator:?}");
        let found = bench.int8(&model, &ranges, &options(Granularity::PerChannel));
        assert!(found > 35.0, "{calibrator:?}: {found:.1} dB");
    }
}

#[test]
fn symmetric_activations_have_no_zero_point_and_cost_a_bit_where_values_are_positive() {
    let mut noise = Noise::new(33);
    let builder = Builder::new(13, &[1, 4, 8, 8])
        .constant("w", noise.tensor(&[16, 4, 3, 3]))
        .constant("v", noise.tensor(&[8, 16, 1, 1]))
        .node("Conv", &["x", "w"], "c", &[])
        .node("Relu", &["c"], "r", &[])
        .node("Conv", &["r", "v"], "y", &[]);
    let bench = Bench::normal(builder, &[1, 4, 8, 8], 8);
    let (model, ranges) = (bench.model(), bench.ranges(&bench.model(), Calibrator::MinMax));
    let asymmetric = QdqOptions::new(Element::Int8, Granularity::PerChannel);
    let symmetric = QdqOptions { symmetric: true, ..asymmetric.clone() };
    let made = quantize(&model.graph, &ranges, &symmetric).unwrap().graph;
    let zeros = made.initializers.iter().filter(|(name, _)| name.contains("zero_point"));
    let zeros: Vec<i64> = zeros.flat_map(|(_, tensor)| tensor.to_i64().unwrap()).collect();
    assert!(zeros.len() > 4 && zeros.iter().all(|zero| *zero == 0), "{zeros:?}");
    let (with, without) = (bench.int8(&model, &ranges, &asymmetric), bench.int8(&model, &ranges, &symmetric));
    assert!(without > 28.0 && with > without + 1.0, "{with:.1} dB with zero points, {without:.1} dB without");
}

#[test]
fn products_of_batches_and_of_two_activations_are_integers_too() {
    let mut noise = Noise::new(42);
    let turn = [("perm", ints(&[0, 2, 1]))];
    let builder = Builder::new(13, &[1, 12, 48])
        .constant("wq", noise.tensor(&[48, 32]))
        .constant("wk", noise.tensor(&[48, 32]))
        .constant("wv", noise.tensor(&[48, 33]))
        .constant("small", Tensor::f32(&[], vec![0.01]))
        .node("MatMul", &["x", "wq"], "q", &[])
        .node("MatMul", &["x", "wk"], "k", &[])
        .node("MatMul", &["x", "wv"], "v", &[])
        .node("Transpose", &["k"], "t", &turn)
        .node("MatMul", &["q", "t"], "a", &[])
        .node("Mul", &["a", "small"], "m", &[])
        .node("Softmax", &["m"], "s", &[("axis", int(-1))])
        .node("MatMul", &["s", "v"], "y", &[]);
    let bench = Bench::normal(builder, &[1, 12, 48], 8);
    let (model, ranges) = (bench.model(), bench.ranges(&bench.model(), Calibrator::MinMax));
    for activations in [Element::UInt8, Element::Int8] {
        let options = QdqOptions::new(activations, Granularity::PerChannel);
        let mut made = model.clone();
        made.graph = quantize(&model.graph, &ranges, &options).unwrap().graph;
        let found = bench.quality(&made);
        assert!((25.0..60.0).contains(&found), "{activations:?}: {found:.1} dB");
        // On x86 ONNX Runtime has no kernel for int8 activations, and turns only those into uint8 that are read once.
        if activations == Element::Int8 && !cfg!(target_arch = "aarch64") {
            continue;
        }
        let kernels = fused(&made);
        let integer = |op: &&String| matches!(op.as_str(), "QLinearMatMul" | "MatMulIntegerToFloat");
        assert_eq!(kernels.iter().filter(integer).count(), 5, "{activations:?}: {kernels:?}");
    }
}

/// Layers whose channels differ a lot in size, of every kind that can be equalised.
fn uneven(noise: &mut Noise) -> Builder {
    let sizes: Vec<f32> = (0..16).map(|channel| 4f32.powi(channel % 7 - 3)).collect();
    let mut tensor = |dims: &[usize], by: &dyn Fn(usize) -> f32| {
        let mut tensor = noise.tensor(dims);
        if let TensorData::F32(data) = &mut tensor.data {
            data.iter_mut().enumerate().for_each(|(at, value)| *value *= by(at));
        }
        tensor
    };
    let one = |_: usize| 1.0;
    Builder::new(13, &[1, 3, 8, 8])
        .constant("w1", tensor(&[16, 3, 3, 3], &|at| sizes[at / 27]))
        .constant("b1", tensor(&[16], &|at| sizes[at]))
        .constant("slope", Tensor::f32(&[16, 1, 1], (0..16).map(|at| at as f32 / 20.0).collect()))
        .constant("w2", tensor(&[16, 1, 3, 3], &|at| 1.0 / sizes[at / 9]))
        .constant("b2", tensor(&[16], &one))
        .constant("w3", tensor(&[16, 16, 1, 1], &|at| sizes[at / 16]))
        .constant("w4", tensor(&[64, 8], &|at| 1.0 / sizes[at / 8 / 4]))
        .constant("shape", Tensor::i64(&[2], vec![1, 64]))
        .node("Conv", &["x", "w1", "b1"], "c1", &[("pads", ints(&[1, 1, 1, 1]))])
        .node("PRelu", &["c1", "slope"], "r1", &[])
        .node("Conv", &["r1", "w2", "b2"], "c2", &[("group", int(16)), ("pads", ints(&[1, 1, 1, 1]))])
        .node("Relu", &["c2"], "r2", &[])
        .node("Conv", &["r2", "w3"], "c3", &[])
        .node("LeakyRelu", &["c3"], "r3", &[("alpha", Attribute::Float(0.1))])
        .node("AveragePool", &["r3"], "p", &[("kernel_shape", ints(&[4, 4])), ("strides", ints(&[4, 4]))])
        .node("Reshape", &["p", "shape"], "f", &[])
        .node("Gemm", &["f", "w4"], "y", &[])
}

#[test]
fn equalisation_changes_no_output_and_lets_one_scale_serve_all_channels() {
    let bench = Bench::normal(uneven(&mut Noise::new(34)), &[1, 3, 8, 8], 8);
    let mut model = bench.model();
    let before = bench.int8(&model, &bench.ranges(&model, Calibrator::MinMax), &options(Granularity::PerTensor));
    let notes = equalize(&mut model.graph, &Peaks::new());
    assert_eq!(notes, ["weights of 3 pairs of layers equalised"]);
    for x in bench.evaluation.chunks_exact(192) {
        let shape = &bench.input;
        assert_near(&run_one(&bench.builder.bytes(), x, shape), &run_one(&model.to_bytes(), x, shape), 1e-5);
    }
    let after = bench.int8(&model, &bench.ranges(&model, Calibrator::MinMax), &options(Granularity::PerTensor));
    assert!(after > before + 8.0, "{before:.1} dB before, {after:.1} dB after");
}

#[test]
fn equalisation_goes_through_a_clip_where_the_data_do_not_reach_it() {
    let mut noise = Noise::new(43);
    // The largest channels are clipped, the smallest could grow a thousandfold.
    let sizes: Vec<f32> = (0..16).map(|channel| 4f32.powi(channel % 6 - 5)).collect();
    let mut tensor = |dims: &[usize], by: &dyn Fn(usize) -> f32| {
        let mut tensor = noise.tensor(dims);
        if let TensorData::F32(data) = &mut tensor.data {
            data.iter_mut().enumerate().for_each(|(at, value)| *value *= by(at));
        }
        tensor
    };
    let builder = Builder::new(13, &[1, 3, 8, 8])
        .constant("w1", tensor(&[16, 3, 3, 3], &|at| sizes[at / 27]))
        .constant("w2", tensor(&[16, 1, 3, 3], &|at| 1.0 / sizes[at / 9]))
        .constant("w3", tensor(&[8, 16, 1, 1], &|_| 1.0))
        .constant("zero", Tensor::f32(&[], vec![0.0]))
        .constant("six", Tensor::f32(&[], vec![6.0]))
        .node("Conv", &["x", "w1"], "c1", &[("pads", ints(&[1, 1, 1, 1]))])
        .node("Clip", &["c1", "zero", "six"], "r1", &[])
        .node("Conv", &["r1", "w2"], "c2", &[("group", int(16)), ("pads", ints(&[1, 1, 1, 1]))])
        .node("Relu", &["c2"], "r2", &[])
        .node("Conv", &["r2", "w3"], "y", &[]);
    let bench = Bench::normal(builder, &[1, 3, 8, 8], 8);
    let per_tensor = options(Granularity::PerTensor);
    let mut model = bench.model();
    let before = bench.int8(&model, &bench.ranges(&model, Calibrator::MinMax), &per_tensor);
    let runtime = OnnxRuntime::load().unwrap();
    let peaks = channel_peaks(&runtime, &model, &bench.dataset(), 8, &mut |_, _| true).unwrap();
    let highest = peaks["c1"].iter().fold(0f32, |highest, peak| highest.max(*peak));
    assert!(peaks.len() == 1 && peaks["c1"].len() == 16 && highest > 6.0, "{peaks:?}");
    let notes = equalize(&mut model.graph, &peaks);
    assert_eq!(notes[0], "weights of 2 pairs of layers equalised");
    assert!(notes[1].starts_with("1 of them through a Clip"), "{notes:?}");
    for x in bench.evaluation.chunks_exact(192) {
        let shape = &bench.input;
        assert_near(&run_one(&bench.builder.bytes(), x, shape), &run_one(&model.to_bytes(), x, shape), 1e-5);
    }
    let after = bench.int8(&model, &bench.ranges(&model, Calibrator::MinMax), &per_tensor);
    assert!(after > before + 6.0, "{before:.1} dB before, {after:.1} dB after");
}

#[test]
fn bias_correction_takes_away_what_rounding_adds_up_to() {
    let mut noise = Noise::new(35);
    let mut weights = noise.tensor(&[16, 8, 3, 3]);
    if let TensorData::F32(data) = &mut weights.data {
        let peak = data.iter().fold(0f32, |peak, value| peak.max(value.abs()));
        // Most weights are 0.4 of a step: all are rounded down.
        let step = peak / 127.0;
        data.iter_mut().enumerate().filter(|(at, _)| at % 9 != 0).for_each(|(_, value)| *value = 0.4 * step);
    }
    let builder = Builder::new(13, &[1, 8, 8, 8])
        .constant("w", weights)
        .constant("w2", noise.tensor(&[4, 16]))
        .node("Conv", &["x", "w"], "c", &[("pads", ints(&[1, 1, 1, 1]))])
        .node("GlobalAveragePool", &["c"], "p", &[])
        .node("Flatten", &["p"], "f", &[("axis", int(1))])
        .node("Gemm", &["f", "w2"], "y", &[("transB", int(1))]);
    // Inputs that are never negative, as after a ReLU.
    let x: Vec<f32> = noise.values(16 * 512).iter().map(|value| value.abs() + 0.5).collect();
    let bench = Bench::new(builder, &[1, 8, 8, 8], x.clone(), x);
    let mut model = bench.model();
    let ranges = bench.ranges(&model, Calibrator::MinMax);
    let options = options(Granularity::PerTensor);
    let before = bench.int8(&model, &ranges, &options);
    let granularities = Granularities { convolutions: Granularity::PerTensor, matrices: Granularity::PerTensor };
    let runtime = OnnxRuntime::load().unwrap();
    let notes = correct_biases(&runtime, &mut model, granularities, &bench.dataset(), 16, &mut |_, _| true).unwrap();
    assert_eq!(notes, ["biases of 2 operators corrected"]);
    let after = bench.int8(&model, &ranges, &options);
    assert!(after > before + 3.0, "{before:.1} dB before, {after:.1} dB after");
}

/// Three layers, the second of which has one large weight that meets zeros only: with one scale it takes the precision
/// of all others.
pub fn sensitive(noise: &mut Noise) -> Builder {
    let mut edited = |dims: &[usize], edit: &dyn Fn(&mut [f32])| {
        let mut tensor = noise.tensor(dims);
        if let TensorData::F32(data) = &mut tensor.data {
            edit(data);
        }
        tensor
    };
    let first = edited(&[16, 4, 3, 3], &|data| data[5 * 36..6 * 36].fill(0.0));
    let second = edited(&[16, 16, 1, 1], &|data| data[3 * 16 + 5] = 100.0);
    let third = edited(&[8, 16, 1, 1], &|_| {});
    Builder::new(13, &[1, 4, 6, 6])
        .constant("w1", first)
        .constant("w2", second)
        .constant("w3", third)
        .node("Conv", &["x", "w1"], "c1", &[])
        .node("Relu", &["c1"], "r1", &[])
        .node("Conv", &["r1", "w2"], "c2", &[])
        .node("Relu", &["c2"], "r2", &[])
        .node("Conv", &["r2", "w3"], "y", &[])
}

#[test]
fn the_sensitive_operator_is_found_and_keeping_it_float_gains_what_was_foretold() {
    let bench = Bench::normal(sensitive(&mut Noise::new(36)), &[1, 4, 6, 6], 8);
    let model = bench.model();
    let ranges = bench.ranges(&model, Calibrator::MinMax);
    let options = options(Granularity::PerTensor);
    let runtime = OnnxRuntime::load().unwrap();
    let mut steps = Vec::new();
    let mut step = |done, total| {
        steps.push((done, total));
        true
    };
    let ranking = rank_sensitivity(&runtime, &model, &ranges, &options, &bench.dataset(), 8, &mut step).unwrap();
    assert_eq!(steps.last(), Some(&(3, 3)));
    assert_eq!(ranking.len(), 3);
    assert!(ranking.is_sorted_by(|one, other| one.sqnr_gain_db >= other.sqnr_gain_db));
    assert_eq!((ranking[0].output.as_str(), ranking[0].label.as_str()), ("c2", "Conv_c2"));
    let before = bench.int8(&model, &ranges, &options);
    let kept = QdqOptions { keep_float: BTreeSet::from(["c2".to_owned()]), ..options.clone() };
    let after = bench.int8(&model, &ranges, &kept);
    assert!(after > before + 3.0, "{before:.1} dB before, {after:.1} dB after");
    assert!((after - before - ranking[0].sqnr_gain_db).abs() < 0.1, "{before} {after} {ranking:?}");
    let mut made = model.clone();
    made.graph = quantize(&model.graph, &ranges, &kept).unwrap().graph;
    let kernels = fused(&made);
    assert_eq!(kernels.iter().filter(|op| *op == "QLinearConv").count(), 2, "{kernels:?}");
    let stopped = rank_sensitivity(&runtime, &model, &ranges, &options, &bench.dataset(), 8, &mut |_, _| false);
    assert!(stopped.unwrap_err().to_string().contains("cancelled"));
}

#[test]
fn dynamic_integers_get_their_kernel_and_take_a_quarter_of_the_bytes() {
    let mut noise = Noise::new(37);
    let builder = Builder::new(13, &[1, 256])
        .constant("w1", noise.tensor(&[512, 256]))
        .constant("b1", noise.tensor(&[512]))
        .constant("w2", noise.tensor(&[512, 64]))
        .node("Gemm", &["x", "w1", "b1"], "g", &[("transB", int(1))])
        .node("Relu", &["g"], "r", &[])
        .node("MatMul", &["r", "w2"], "y", &[]);
    let bench = Bench::normal(builder, &[1, 256], 8);
    let mut model = bench.model();
    let notes = dynamic(&mut model.graph).unwrap();
    assert_eq!(notes, ["2 matrix products in 8-bit integers, their inputs quantised at run time"]);
    let found = bench.quality(&model);
    assert!((34.0..60.0).contains(&found), "{found:.1} dB");
    let share = model.to_bytes().len() as f64 / bench.builder.bytes().len() as f64;
    assert!(share < 0.29, "{share}");
    let kernels = fused(&model);
    assert!(
        kernels.iter().any(|op| matches!(op.as_str(), "DynamicQuantizeMatMul" | "MatMulIntegerToFloat")),
        "{kernels:?}"
    );

    let conv = Builder::new(13, &[1, 8, 10, 10])
        .constant("w", noise.tensor(&[32, 8, 3, 3]))
        .constant("b", noise.tensor(&[32]))
        .node("Conv", &["x", "w", "b"], "y", &[]);
    let bench = Bench::normal(conv, &[1, 8, 10, 10], 4);
    let mut model = bench.model();
    let notes = dynamic(&mut model.graph).unwrap();
    assert_eq!(notes, ["weights of 1 convolutions in 8-bit integers, computed in float32"]);
    let found = bench.quality(&model);
    assert!((38.0..60.0).contains(&found), "{found:.1} dB");
    assert_eq!(fused(&model), ["Conv"], "what widens the weights folds when the model is loaded");
}

#[test]
fn four_bits_are_four_bits_and_smaller_blocks_are_closer() {
    let mut noise = Noise::new(38);
    let mut weights = noise.tensor(&[64, 512]);
    if let TensorData::F32(data) = &mut weights.data {
        // Inputs of very different weight, in runs: what blocks are for.
        data.iter_mut().enumerate().for_each(|(at, value)| *value *= 0.3f32.powi((at % 512 / 64 % 4) as i32));
    }
    let builder = Builder::new(13, &[1, 512]).constant("w", weights).constant("b", noise.tensor(&[64])).node(
        "Gemm",
        &["x", "w", "b"],
        "y",
        &[("transB", int(1))],
    );
    let bench = Bench::normal(builder, &[1, 512], 4);
    let mut before = f64::INFINITY;
    for block in [Some(16), Some(64), Some(256), None] {
        let mut model = bench.model();
        int4(&mut model, block, Int4Form::MatMulNBits).unwrap();
        let found = bench.quality(&model);
        assert!((14.0..32.0).contains(&found) && found < before, "{block:?}: {found:.1} dB after {before:.1}");
        before = found;
        let scales = block.map_or(64, |block| 64 * 512 / block as usize);
        let overhead = model.to_bytes().len() - 64 * 512 / 2 - scales * 4;
        assert!(overhead < 1000, "{block:?}: {overhead} bytes beside two weights in each");
    }
}

#[test]
fn four_bits_as_pairs_need_opset_21_and_take_blocks_too() {
    let builder = |opset| {
        let mut noise = Noise::new(40);
        Builder::new(opset, &[1, 8, 6, 6])
            .constant("w", noise.tensor(&[32, 8, 3, 3]))
            .constant("v", noise.tensor(&[512, 16]))
            .node("Conv", &["x", "w"], "c", &[])
            .node("Flatten", &["c"], "f", &[("axis", int(1))])
            .node("MatMul", &["f", "v"], "y", &[])
    };
    for (opset, form, block) in [
        (21, Int4Form::Qdq, None),
        (21, Int4Form::Qdq, Some(32)),
        (21, Int4Form::MatMulNBits, Some(32)),
        (13, Int4Form::MatMulNBits, None),
        (13, Int4Form::MatMulNBits, Some(32)),
    ] {
        let bench = Bench::normal(builder(opset), &[1, 8, 6, 6], 4);
        let mut model = bench.model();
        let notes = int4(&mut model, block, form).unwrap();
        assert_eq!(notes.len(), 2, "{notes:?}");
        let found = bench.quality(&model);
        assert!((14.0..30.0).contains(&found), "{opset} {form:?} {block:?}: {found:.1} dB");
        assert!(model.to_bytes().len() * 5 < bench.builder.bytes().len(), "{form:?} {block:?}");
    }
    let mut old = Bench::normal(builder(13), &[1, 8, 6, 6], 1).model();
    assert!(matches!(int4(&mut old, None, Int4Form::Qdq), Err(QdqError::Int4Opset(13))));
    assert!(matches!(int4(&mut old, Some(48), Int4Form::MatMulNBits), Err(QdqError::BlockSize(48))));
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    for bad in [f32::NAN, f32::INFINITY] {
        // Loading refuses such a file already; a pass before may have made the weight.
        let mut model = gemm(&mut Noise::new(41), 32, 16).loaded();
        if let Some(TensorData::F32(data)) = model.graph.initializers.get_mut("w").map(|w| &mut w.data) {
            data[7] = bad;
        }
        let refused = |error: QdqError| assert!(error.to_string().starts_with("constant w holds"), "{error}");
        refused(quantize(&model.graph, &Ranges::new(), &options(Granularity::PerChannel)).unwrap_err());
        refused(dynamic(&mut model.graph.clone()).unwrap_err());
        refused(int4(&mut model.clone(), None, Int4Form::MatMulNBits).unwrap_err());
    }
}
