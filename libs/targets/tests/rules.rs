//! Every rule of every target has a model that breaks it and nothing else, and the same model mended, which breaks none.

use std::collections::BTreeSet;

use edgeyard_job::report::Severity;
use edgeyard_job::spec::ModelFormat;
use edgeyard_targets::{Attribute, Operator, Target, Tensor, View, lint};

/// One operator with its tensors.
#[derive(Clone)]
struct Model(View);

fn tensor(dtype: &str, shape: &[i64]) -> Tensor {
    Tensor { dtype: dtype.into(), shape: Some(shape.to_vec()), ..Tensor::default() }
}

fn constant(dtype: &str, shape: &[i64]) -> Tensor {
    Tensor { constant: true, ..tensor(dtype, shape) }
}

fn scaled(tensor: Tensor, scales: usize, zero_points: &[i64]) -> Tensor {
    Tensor { scales, zero_points: zero_points.to_vec(), ..tensor }
}

/// An operator that reads and makes these.
fn op(kind: &str, reads: &[Tensor], makes: Tensor) -> Model {
    let mut tensors = reads.to_vec();
    tensors.push(makes);
    let made = tensors.len() - 1;
    let fed = (0..made).filter(|index| !tensors[*index].constant).collect();
    let operator = Operator {
        label: "it".into(),
        kind: kind.into(),
        version: 1,
        inputs: (0..made).map(Some).collect(),
        outputs: vec![made],
        attributes: Default::default(),
    };
    Model(View {
        format: ModelFormat::TfLite,
        subgraphs: 1,
        opset: Some(17),
        tensors,
        inputs: fed,
        outputs: vec![made],
        operators: vec![operator],
    })
}

impl Model {
    fn int(mut self, name: &str, value: i64) -> Self {
        self.0.operators[0].attributes.insert(name.into(), Attribute::Int(value));
        self
    }

    fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.0.operators[0].attributes.insert(name.into(), Attribute::Ints(values.to_vec()));
        self
    }

    fn text(mut self, name: &str, value: &str) -> Self {
        self.0.operators[0].attributes.insert(name.into(), Attribute::Text(value.into()));
        self
    }

    fn with(mut self, change: impl FnOnce(&mut View)) -> Self {
        change(&mut self.0);
        self
    }
}

const IMAGE: [i64; 4] = [1, 8, 8, 4];

fn relu(dtype: &str, shape: &[i64]) -> Model {
    op("RELU", &[tensor(dtype, shape)], tensor(dtype, shape))
}

fn conv(kind: &str) -> Model {
    op(
        kind,
        &[tensor("int8", &IMAGE), constant("int8", &[4, 3, 3, 4]), constant("int32", &[4])],
        tensor("int8", &IMAGE),
    )
    .int("stride_w", 1)
    .int("dilation_w_factor", 1)
    .int("dilation_h_factor", 1)
    .text("padding", "SAME")
}

fn pool(kind: &str, height: i64, width: i64, padding: &str) -> Model {
    op(kind, &[tensor("int8", &[1, 512, 512, 4])], tensor("int8", &[1, 4, 4, 4]))
        .int("filter_height", height)
        .int("filter_width", width)
        .int("stride_w", 1)
        .text("padding", padding)
        .text("fused_activation_function", "NONE")
}

fn resize(kind: &str, to: i64) -> Model {
    op(kind, &[tensor("int8", &IMAGE), constant("int32", &[2])], tensor("int8", &[1, to, to, 4]))
        .int("align_corners", 0)
}

fn pair(kind: &str, from: &str, to: &str, zero: i64) -> Model {
    let scale = constant("float32", &[]);
    let zero_point = scaled(constant(if kind == "QuantizeLinear" { to } else { from }, &[]), 0, &[zero]);
    op(kind, &[tensor(from, &IMAGE), scale, zero_point], tensor(to, &IMAGE))
}

fn onnx(kind: &str) -> Model {
    op(kind, &[tensor("float32", &IMAGE)], tensor("float32", &IMAGE))
}

/// Target, rule, a model that breaks it, and the same model mended.
fn cases() -> Vec<(&'static str, &'static str, Model, Model)> {
    let two_graphs = |model: Model| model.with(|view| view.subgraphs = 2);
    let free = |model: Model| model.with(|view| view.tensors[0].shape = Some(vec![-1, 8, 8, 4]));
    let opset = |model: Model, opset: i64| model.with(|view| view.opset = Some(opset));
    let computed = |model: Model, index: usize| {
        model.with(|view| {
            let tensor = &mut view.tensors[index];
            tensor.constant = false;
            // A batch of 1, as everything that is computed has.
            if let Some(first) = tensor.shape.as_mut().and_then(|shape| shape.first_mut()) {
                *first = 1;
            }
        })
    };
    let int8 = || relu("int8", &IMAGE);
    let fully = |weights: &[i64], batch: i64| {
        op("FULLY_CONNECTED", &[tensor("int8", &[batch, 4]), constant("int8", weights)], tensor("int8", &[batch, 4]))
    };
    let mut cases = Vec::new();
    for target in ["ort-x86", "ort-arm64"] {
        cases.push((target, "known-domain", onnx("my.company.Magic"), onnx("com.microsoft.FusedConv")));
        cases.push((target, "opset", opset(onnx("Relu"), 9), opset(onnx("Relu"), 11)));
    }
    for target in ["tflm", "edgetpu", "ethos-u", "vx"] {
        cases.push((target, "one-subgraph", two_graphs(int8()), int8()));
    }
    for target in ["litert", "tflm", "edgetpu", "ethos-u", "vx"] {
        cases.push((target, "static-shapes", free(int8()), int8()));
    }
    let slice = || op("STRIDED_SLICE", &[tensor("int8", &IMAGE), constant("int32", &[4])], tensor("int8", &IMAGE));
    let convolution_stride = |stride| conv("CONV_2D").int("stride_w", stride);
    cases.extend([
        ("litert", "no-custom-operators", op("CUSTOM", &[tensor("int8", &IMAGE)], tensor("int8", &IMAGE)), int8()),
        ("tflm", "integers-only", relu("float32", &IMAGE), int8()),
        ("tflm", "few-dimensions", relu("int8", &[1; 7]), relu("int8", &[1; 6])),
        ("edgetpu", "integers-only", relu("float32", &IMAGE), int8()),
        (
            "edgetpu",
            "no-float-inside",
            op("QUANTIZE", &[tensor("float32", &IMAGE)], tensor("int8", &IMAGE)),
            op("QUANTIZE", &[tensor("uint8", &IMAGE)], tensor("int8", &IMAGE)),
        ),
        ("edgetpu", "three-inner-dimensions", relu("int8", &[2, 8, 8, 4]), int8()),
        ("edgetpu", "constant-parameters", computed(conv("CONV_2D"), 1), conv("CONV_2D")),
        (
            "edgetpu",
            "fused-activation",
            pool("MAX_POOL_2D", 2, 2, "SAME").text("fused_activation_function", "RELU6"),
            pool("MAX_POOL_2D", 2, 2, "SAME"),
        ),
        (
            "edgetpu",
            "same-dilation",
            conv("CONV_2D").int("dilation_h_factor", 2),
            conv("CONV_2D").int("dilation_h_factor", 2).int("dilation_w_factor", 2),
        ),
        (
            "edgetpu",
            "no-depthwise-dilation",
            conv("DEPTHWISE_CONV_2D").int("dilation_w_factor", 2),
            conv("DEPTHWISE_CONV_2D"),
        ),
        (
            "edgetpu",
            "plain-weights",
            fully(&[4, 4], 1).int("weights_format", 1),
            fully(&[4, 4], 1).int("weights_format", 0),
        ),
        ("edgetpu", "one-row", fully(&[4, 4], 2), fully(&[4, 4], 1)),
        (
            "edgetpu",
            "softmax-size",
            op("SOFTMAX", &[tensor("int8", &[1, 16_001])], tensor("int8", &[1, 16_001])),
            op("SOFTMAX", &[tensor("int8", &[1, 16_000])], tensor("int8", &[1, 16_000])),
        ),
        ("edgetpu", "slice-masks", slice().int("ellipsis_mask", 1), slice().int("ellipsis_mask", 0)),
        ("ethos-u", "integers-only", relu("float32", &IMAGE), int8()),
        ("ethos-u", "no-32-bit-maps", relu("int32", &IMAGE), relu("int16", &IMAGE)),
        (
            "ethos-u",
            "per-tensor-activations",
            op("RELU", &[scaled(tensor("int8", &IMAGE), 4, &[0])], tensor("int8", &IMAGE)),
            op("RELU", &[scaled(tensor("int8", &IMAGE), 1, &[0])], tensor("int8", &IMAGE)),
        ),
        (
            "ethos-u",
            "eight-bit-weights",
            conv("CONV_2D").with(|view| view.tensors[1].dtype = "int4".into()),
            conv("CONV_2D"),
        ),
        ("ethos-u", "bias-type", conv("CONV_2D").with(|view| view.tensors[2].dtype = "int16".into()), conv("CONV_2D")),
        ("ethos-u", "convolution-stride", convolution_stride(4), convolution_stride(4).text("padding", "VALID")),
        ("ethos-u", "depthwise-stride", conv("DEPTHWISE_CONV_2D").int("stride_w", 4), conv("DEPTHWISE_CONV_2D")),
        ("ethos-u", "pool-window-same", pool("AVERAGE_POOL_2D", 9, 9, "SAME"), pool("AVERAGE_POOL_2D", 9, 9, "VALID")),
        ("ethos-u", "pool-window", pool("MAX_POOL_2D", 257, 1, "VALID"), pool("MAX_POOL_2D", 256, 1, "VALID")),
        ("ethos-u", "pool-area", pool("MAX_POOL_2D", 256, 257, "VALID"), pool("MAX_POOL_2D", 256, 256, "VALID")),
        (
            "ethos-u",
            "arg-max-depth",
            op("ARG_MAX", &[tensor("int8", &[1, 128])], tensor("int32", &[1])),
            op("ARG_MAX", &[tensor("int8", &[1, 127])], tensor("int32", &[1])),
        ),
        (
            "ethos-u",
            "mean-batch",
            op("MEAN", &[tensor("int8", &[2, 8, 8, 4]), constant("int32", &[2])], tensor("int8", &[2, 4])),
            op("MEAN", &[tensor("int8", &IMAGE), constant("int32", &[2])], tensor("int8", &[1, 4])),
        ),
        ("ethos-u", "resize-factor", resize("RESIZE_NEAREST_NEIGHBOR", 24), resize("RESIZE_NEAREST_NEIGHBOR", 32)),
        (
            "ethos-u",
            "half-pixel-factor",
            resize("RESIZE_BILINEAR", 32).int("half_pixel_centers", 1),
            resize("RESIZE_BILINEAR", 16).int("half_pixel_centers", 1),
        ),
        (
            "ethos-u",
            "transposed-stride",
            conv("TRANSPOSE_CONV").int("stride_w", 3),
            conv("TRANSPOSE_CONV").int("stride_w", 2),
        ),
        ("ethos-u", "constant-parameters", computed(slice(), 1), slice()),
        ("tensorrt", "opset", opset(onnx("Relu"), 22), opset(onnx("Relu"), 21)),
        (
            "tensorrt",
            "symmetric",
            pair("QuantizeLinear", "float32", "int8", 3),
            pair("QuantizeLinear", "float32", "int8", 0),
        ),
        (
            "tensorrt",
            "signed",
            pair("QuantizeLinear", "float32", "uint8", 0),
            pair("QuantizeLinear", "float32", "int8", 0),
        ),
        (
            "tensorrt",
            "eight-bit",
            pair("DequantizeLinear", "int32", "float32", 0),
            pair("DequantizeLinear", "int8", "float32", 0),
        ),
        ("tensorrt", "no-double", onnx("Relu").with(|view| view.tensors[0].dtype = "float64".into()), onnx("Relu")),
        (
            "tensorrt",
            "rank",
            op("Relu", &[tensor("float32", &[1; 9])], tensor("float32", &[1; 9])),
            op("Relu", &[tensor("float32", &[1; 8])], tensor("float32", &[1; 8])),
        ),
        (
            "tensorrt",
            "max-pool-rank",
            op("MaxPool", &[tensor("float32", &[1, 1, 4, 4, 4, 4])], tensor("float32", &[1, 1, 4, 4, 4, 4])),
            onnx("MaxPool"),
        ),
        (
            "tensorrt",
            "pool-dilation",
            onnx("MaxPool").ints("dilations", &[2, 2]),
            onnx("MaxPool").ints("dilations", &[1, 1]),
        ),
        (
            "tensorrt",
            "constant-scales",
            computed(pair("QuantizeLinear", "float32", "int8", 0), 1),
            pair("QuantizeLinear", "float32", "int8", 0),
        ),
        ("vx", "eight-bit", relu("int16", &IMAGE), int8()),
        ("vx", "rank", relu("int8", &[1; 7]), relu("int8", &[1; 6])),
        (
            "vx",
            "per-tensor-activations",
            op("RELU", &[scaled(tensor("int8", &IMAGE), 4, &[0])], tensor("int8", &IMAGE)),
            op("RELU", &[scaled(tensor("int8", &IMAGE), 1, &[0])], tensor("int8", &IMAGE)),
        ),
        ("vx", "constant-weights", computed(conv("CONV_2D"), 1), conv("CONV_2D")),
    ]);
    cases
}

#[test]
fn every_rule_has_a_model_that_breaks_it_and_nothing_else() {
    let mut shown = BTreeSet::new();
    for (target, rule, broken, mended) in cases() {
        let target = Target::find(target).unwrap();
        let said = |model: &Model| lint(target, &model.0).into_iter().map(|found| found.rule).collect::<Vec<_>>();
        assert_eq!(said(&broken), [rule], "{}", target.name);
        assert_eq!(said(&mended), Vec::<String>::new(), "{}: {rule}, mended", target.name);
        shown.insert((target.name.as_str(), rule));
    }
    let all: BTreeSet<(&str, &str)> = Target::all()
        .iter()
        .flat_map(|target| target.rules.iter().map(|rule| (target.name.as_str(), rule.name.as_str())))
        .collect();
    assert_eq!(shown, all);
}

#[test]
fn operators_and_versions_outside_the_list_are_told_with_what_becomes_of_them() {
    let said = |target: &str, kind: &str, version: i64| {
        let model = relu("int8", &IMAGE).with(|view| {
            view.operators[0].kind = kind.into();
            view.operators[0].version = version;
        });
        lint(Target::find(target).unwrap(), &model.0).pop().map(|found| (found.rule, found.severity))
    };
    assert_eq!(said("tflm", "CUMSUM", 1), Some(("operator".into(), Severity::Refused)));
    assert_eq!(said("ethos-u", "CUMSUM", 1), Some(("operator".into(), Severity::Fallback)));
    assert_eq!(said("litert", "CUMSUM", 1), None);
    assert_eq!(said("edgetpu", "RELU", 3), Some(("operator-version".into(), Severity::Fallback)));
    assert_eq!(said("edgetpu", "RELU", 2), None);
    assert_eq!(said("tensorrt", "Det", 0), Some(("operator".into(), Severity::Refused)));
}
