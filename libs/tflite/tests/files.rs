//! Files written and read back, and files that are damaged.

use edgeyard_tflite::op_options::{Add, Conv2D, Pool2D, Reshape, Softmax};
use edgeyard_tflite::{
    Activation, Blocks, BuiltinOp, Model, Operator, Options, Padding, Quantization, ReadError, Signature, Subgraph,
    Tensor, TensorType, WriteError, inspect, operator_version, read, write,
};
use proptest::prelude::*;

/// Conv, add, reshape and softmax with every kind of quantization.
fn sample() -> Model {
    let mut model = Model::new("a sample");
    let weights = model.add_buffer((0..54).collect());
    let bias = model.add_buffer(vec![0; 8]);
    let shape = model.add_buffer([1_i32, 32].iter().flat_map(|v| v.to_le_bytes()).collect());
    let activation = |shape: &[i32]| Tensor {
        quantization: Some(Quantization::per_tensor(0.25, -3)),
        ..Tensor::new(TensorType::Int8, shape.to_vec())
    };
    let tensors = vec![
        Tensor { name: "x".into(), ..activation(&[1, 4, 4, 3]) },
        Tensor {
            buffer: weights,
            quantization: Some(Quantization::per_channel(vec![0.5, 0.125], 0)),
            ..Tensor::new(TensorType::Int8, vec![2, 3, 3, 3])
        },
        Tensor {
            buffer: bias,
            quantization: Some(Quantization::per_channel(vec![0.125, 0.03125], 0)),
            ..Tensor::new(TensorType::Int32, vec![2])
        },
        activation(&[1, 4, 4, 2]),
        activation(&[1, 4, 4, 2]),
        Tensor { buffer: shape, ..Tensor::new(TensorType::Int32, vec![2]) },
        activation(&[1, 32]),
        Tensor { name: "y".into(), ..activation(&[1, 32]) },
    ];
    let conv = Conv2D {
        padding: Padding::Same,
        stride_w: 1,
        stride_h: 1,
        fused_activation_function: Activation::Relu6,
        ..Conv2D::default()
    };
    let mut graph = Subgraph {
        name: "main".into(),
        tensors,
        inputs: vec![0],
        outputs: vec![7],
        operators: vec![
            Operator::builtin(BuiltinOp::CONV_2D, conv, vec![0, 1, 2], vec![3]),
            Operator::builtin(BuiltinOp::ADD, Add { pot_scale_int16: false, ..Add::default() }, vec![3, 3], vec![4]),
            Operator::builtin(BuiltinOp::RESHAPE, Reshape { new_shape: vec![1, 32] }, vec![4, 5], vec![6]),
            Operator::builtin(BuiltinOp::SOFTMAX, Softmax { beta: 1.0 }, vec![6], vec![7]),
        ],
    };
    for at in 0..graph.operators.len() {
        graph.operators[at].code.version = operator_version(&graph, &graph.operators[at]);
    }
    model.subgraphs.push(graph);
    model.signatures.push(Signature {
        key: "serving_default".into(),
        inputs: vec![("x".into(), 0)],
        outputs: vec![("y".into(), 7)],
        subgraph: 0,
    });
    model.set_min_runtime_version();
    model
}

#[test]
fn what_is_written_reads_back_equal() {
    let model = sample();
    assert_eq!(read(&write(&model).unwrap()).unwrap(), model);
}

#[test]
fn writing_is_deterministic_and_reading_loses_nothing() {
    let first = write(&sample()).unwrap();
    assert_eq!(write(&read(&first).unwrap()).unwrap(), first);
}

#[test]
fn scales_of_blocks_survive_and_must_be_there() {
    let mut model = sample();
    let blocks = Blocks { scales: 0, zero_points: -1, size: 32 };
    model.subgraphs[0].tensors[1].quantization = Some(Quantization { blocks: Some(blocks), ..Quantization::default() });
    assert_eq!(read(&write(&model).unwrap()).unwrap(), model);
    let count = model.subgraphs[0].tensors.len();
    let missing = Blocks { scales: count as i32, ..blocks };
    model.subgraphs[0].tensors[1].quantization =
        Some(Quantization { blocks: Some(missing), ..Quantization::default() });
    assert!(matches!(write(&model), Err(WriteError::BadIndex { what: "scales of blocks", .. })));
}

#[test]
fn constants_are_aligned_to_sixteen_bytes() {
    let bytes = write(&sample()).unwrap();
    let weights: Vec<u8> = (0..54).collect();
    let at = bytes.windows(54).position(|window| window == weights).expect("the weights are in the file");
    assert_eq!(at % 16, 0);
    assert_eq!(bytes.len() % 16, 0);
}

#[test]
fn int8_operators_get_the_versions_runtimes_expect() {
    let versions: Vec<i32> = sample().subgraphs[0].operators.iter().map(|operator| operator.code.version).collect();
    assert_eq!(versions, [3, 2, 1, 2]);
}

#[test]
fn operator_numbers_past_127_survive() {
    let mut model = sample();
    model.subgraphs[0].operators[3].code.builtin = BuiltinOp::GELU;
    model.subgraphs[0].operators[3].options = Options::Empty(89);
    let back = read(&write(&model).unwrap()).unwrap();
    assert_eq!(back, model);
    assert_eq!(back.subgraphs[0].operators[3].code.builtin.to_string(), "GELU");
}

#[test]
fn the_summary_tells_inputs_work_and_weights() {
    let bytes = write(&sample()).unwrap();
    let summary = inspect(&bytes).unwrap();
    assert_eq!(summary.file_bytes, bytes.len());
    assert_eq!(summary.inputs[0].shape, [1, 4, 4, 3]);
    assert_eq!(summary.inputs[0].quantization, Some((0.25, -3)));
    assert_eq!(summary.outputs[0].name, "y");
    assert_eq!(summary.outputs[0].bytes, Some(32));
    assert_eq!(summary.macs, 16 * 2 * 27);
    assert_eq!(summary.constant_bytes, 54 + 8 + 8);
    assert_eq!(summary.min_runtime_version.as_deref(), Some("1.14.0"));
    let names: Vec<&str> = summary.operators.iter().map(|operator| operator.name.as_str()).collect();
    assert_eq!(names, ["ADD", "CONV_2D", "RESHAPE", "SOFTMAX"]);
}

#[test]
fn every_truncation_is_refused() {
    let bytes = write(&sample()).unwrap();
    // The file ends in constants; cutting only trailing padding can leave it whole.
    for len in 0..bytes.len() - 16 {
        assert!(read(&bytes[..len]).is_err(), "{len} of {} bytes were taken for a model", bytes.len());
    }
}

#[test]
fn another_format_is_named_as_such() {
    assert_eq!(read(b"\x08\x07\x12\x07pytorch"), Err(ReadError::NotTflite));
    assert_eq!(read(b""), Err(ReadError::NotTflite));
}

#[test]
fn shared_tables_cannot_exhaust_memory() {
    // One tensor with a long shape vector, referred to once per four bytes of the file.
    let mut model = sample();
    model.subgraphs[0].tensors.truncate(1);
    model.subgraphs[0].operators.clear();
    model.subgraphs[0].outputs.clear();
    model.signatures.clear();
    model.subgraphs[0].tensors[0].name = "n".repeat(50_000);
    let tensor = model.subgraphs[0].tensors[0].clone();
    model.subgraphs[0].tensors = vec![tensor; 20_000];
    let bytes = write(&model).unwrap();
    assert!(bytes.len() < 2_000_000, "names are stored once");
    assert!(matches!(read(&bytes), Err(ReadError::Amplified { .. })));
}

#[test]
fn writing_refuses_what_it_cannot_represent() {
    let mut model = sample();
    model.subgraphs[0].tensors[1].sparse = true;
    assert_eq!(write(&model), Err(WriteError::NotCarried { what: "sparse tensors" }));

    let mut model = sample();
    model.subgraphs[0].operators[0].inputs[0] = 99;
    assert_eq!(write(&model), Err(WriteError::BadIndex { what: "tensor", index: 99, count: 8 }));

    let mut model = sample();
    model.buffers[1].pop();
    assert!(matches!(write(&model), Err(WriteError::DataSize { stored: 53, .. })));
}

/// Any tensor: the fields a file can hold.
fn tensor(buffers: u32) -> impl Strategy<Value = Tensor> {
    let shape = prop::collection::vec(0..5_i32, 0..5);
    let quantization =
        prop::option::of((prop::collection::vec(any::<f32>(), 0..4), any::<i32>()).prop_map(|(scale, dimension)| {
            Quantization {
                zero_point: scale.iter().map(|value| value.to_bits() as i64 - 7).collect(),
                scale: scale.iter().map(|value| if value.is_nan() { 1.0 } else { *value }).collect(),
                dimension,
                ..Quantization::default()
            }
        }));
    // String data has no fixed size, so any buffer fits it.
    (".{0,8}", shape, quantization, any::<bool>(), 0..buffers).prop_map(
        |(name, shape, quantization, is_variable, buffer)| Tensor {
            name,
            quantization,
            is_variable,
            buffer,
            ..Tensor::new(TensorType::String, shape)
        },
    )
}

fn options() -> impl Strategy<Value = Options> {
    prop_oneof![
        Just(Options::None),
        Just(Options::Empty(22)),
        (any::<i32>(), any::<i32>()).prop_map(|(stride_w, filter_width)| {
            Pool2D { stride_w, filter_width, padding: Padding::Valid, ..Pool2D::default() }.into()
        }),
        prop::collection::vec(any::<i32>(), 0..4).prop_map(|new_shape| Reshape { new_shape }.into()),
    ]
}

fn model() -> impl Strategy<Value = Model> {
    let buffers = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..4);
    (buffers, ".{0,8}").prop_flat_map(|(data, description)| {
        let mut buffers = vec![Vec::new()];
        buffers.extend(data);
        let tensors = prop::collection::vec(tensor(buffers.len() as u32), 1..6);
        let operators = prop::collection::vec((0..210_i32, 1..9_i32, options(), any::<prop::sample::Index>()), 0..5);
        (tensors, operators).prop_map(move |(tensors, operators)| {
            let operators = operators
                .into_iter()
                .map(|(builtin, version, options, index)| {
                    let at = index.index(tensors.len()) as i32;
                    let mut operator = Operator::builtin(BuiltinOp(builtin), options, vec![at, -1], vec![at]);
                    operator.code.version = version;
                    operator
                })
                .collect();
            let graph = Subgraph { name: String::new(), inputs: vec![0], outputs: vec![], tensors, operators };
            let mut model = Model::new(&description);
            model.buffers = buffers.clone();
            model.subgraphs = vec![graph];
            model
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_model_survives_the_round_trip(model in model()) {
        prop_assert_eq!(read(&write(&model).unwrap()).unwrap(), model);
    }

    #[test]
    fn damaged_files_are_refused_or_still_hold_together(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = write(&sample()).unwrap();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        // Whatever is still accepted can be summed up and written without running out of any index.
        if let Ok(model) = read(&bytes) {
            let _ = inspect(&bytes).unwrap();
            let _ = write(&model);
        }
    }

    #[test]
    fn noise_behind_the_identifier_is_harmless(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = noise;
        if bytes.len() >= 8 {
            bytes[4..8].copy_from_slice(b"TFL3");
            bytes[1..4].fill(0);
        }
        let _ = read(&bytes);
    }
}
