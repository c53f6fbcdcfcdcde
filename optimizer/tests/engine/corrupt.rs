//! Files that are damaged, hostile or something else: an error that says so, never a panic, never a huge allocation.

use edgeyard_optimizer::ir::{Attribute, LoadError, Node, Tensor, import_tflite, load, load_file, wire::Writer};
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::support::{Builder, int, ints, mnist_model};

fn refused(model: &[u8]) -> String {
    load(model, None).unwrap_err().to_string()
}

#[test]
fn a_model_cut_anywhere_is_an_error_or_whole() {
    let whole = std::fs::read(mnist_model()).unwrap();
    let mut truncated = 0;
    for cut in (0..whole.len()).step_by(7) {
        match load(&whole[..cut], None) {
            Ok(_) => panic!("the first {cut} of {} bytes are no model", whole.len()),
            Err(LoadError::Wire(error)) => {
                assert!(error.to_string().starts_with("truncated at byte "), "{cut}: {error}");
                truncated += 1;
            }
            Err(LoadError::NotOnnx(_) | LoadError::Invalid(_)) => {}
            Err(error) => panic!("{cut}: {error}"),
        }
    }
    assert!(truncated * 7 > whole.len() / 2, "most cuts fall inside the graph");
}

#[test]
fn flipped_bytes_never_panic() {
    let builder = Builder::new(13, &[1, 4, 8, 8])
        .constant("w", Tensor::f32(&[4, 4, 3, 3], vec![0.5; 144]))
        .constant("s", Tensor::i64(&[2], vec![1, -1]))
        .node("Conv", &["x", "w"], "a", &[("pads", ints(&[1, 1, 1, 1])), ("strides", ints(&[2, 2]))])
        .node("MaxPool", &["a"], "b", &[("kernel_shape", ints(&[2, 2]))])
        .node("Reshape", &["b", "s"], "y", &[]);
    let whole = builder.bytes();
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            if let Ok(model) = load(&damaged, None) {
                // What loads may still contradict itself: that is for the next step to say.
                let _ = simplify(&model.graph, &Shapes::Fixed(Default::default()));
            }
        }
    }
}

#[test]
fn what_is_no_model_is_named() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "it is empty"),
        (b"hello, world", "does not start with an ONNX format version"),
        (b"PK\x03\x04....", "zip archive"),
        (b"\x1c\x00\x00\x00TFL3....", "TensorFlow Lite model"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x1f\x8b\x08....", "gzip"),
    ];
    for (data, says) in cases {
        let error = refused(data);
        assert!(error.starts_with("not an ONNX file: ") && error.contains(says), "{error}");
    }
    let mut only_version = Writer::default();
    only_version.int(1, 8);
    assert!(refused(&only_version.finish()).contains("no graph"));
}

#[test]
fn contradictions_are_named() {
    let relu = |builder: Builder| builder.node("Relu", &["x"], "y", &[]);
    let base = || Builder::new(13, &[1, 4]);
    let says = |builder: &Builder, text: &str| {
        let error = refused(&builder.bytes());
        assert!(error.contains(text), "{error}");
    };
    says(&base().node("Relu", &["nothing"], "y", &[]), "node Relu_y reads nothing, which nothing makes");
    says(&base(), "output y is made by no node");
    says(&relu(relu(base())), "tensor y is made twice");
    says(
        &base().node("Add", &["x", "b"], "a", &[]).node("Relu", &["a"], "b", &[]).node("Relu", &["b"], "y", &[]),
        "cycle",
    );
    says(&relu(Builder::new(10, &[1, 4])), "opset 10; opsets 11 to 21 are");
    let short = Tensor { dims: vec![1000, 1000], ..Tensor::f32(&[], vec![1.0]) };
    says(&relu(base().constant("w", short)), "its shape says 1000000 elements, its data has 1");
    let huge = Tensor { dims: vec![usize::MAX / 2, 7], ..Tensor::f32(&[], vec![1.0]) };
    says(&relu(base().constant("w", huge)), "too many elements");
}

#[test]
fn nodes_out_of_order_are_sorted() {
    let mut builder = Builder::new(13, &[1, 4]).node("Relu", &["a"], "y", &[]).node("Neg", &["x"], "a", &[]);
    builder.model.graph.nodes[1].name = "first".into();
    let loaded = builder.loaded();
    assert_eq!(loaded.graph.nodes[0].name, "first");
}

#[test]
fn shapes_that_no_memory_holds_are_refused_before_they_are_made() {
    let big = Tensor::i64(&[3], vec![1 << 20, 1 << 20, 1 << 20]);
    let model = Builder::new(13, &[1, 1, 1]).constant("s", big).node("Expand", &["x", "s"], "y", &[]).loaded();
    let error = simplify(&model.graph, &Shapes::Declared).unwrap_err().to_string();
    assert!(error.contains("node Expand_y (Expand)") && error.contains("no memory holds"), "{error}");
}

#[test]
fn kernels_that_do_not_fit_are_named_with_their_node() {
    let model =
        Builder::new(13, &[1, 2, 4, 4]).node("MaxPool", &["x"], "y", &[("kernel_shape", ints(&[9, 9]))]).loaded();
    let error = simplify(&model.graph, &Shapes::Declared).unwrap_err().to_string();
    assert!(error.contains("node MaxPool_y (MaxPool): a kernel that spans 9 does not fit"), "{error}");
    for strides in [[0, 1], [-1, 1], [1, i64::MAX]] {
        let attributes = [("kernel_shape", ints(&[2, 2])), ("strides", ints(&strides))];
        let model = Builder::new(13, &[1, 2, 4, 4]).node("MaxPool", &["x"], "y", &attributes).loaded();
        assert!(simplify(&model.graph, &Shapes::Declared).is_err());
    }
}

/// A tensor whose data lies beside the model.
pub fn external(location: &str, offset: u64, length: u64) -> Vec<u8> {
    let entry = |key: &str, value: &str| {
        let mut entry = Writer::default();
        entry.bytes(1, key.as_bytes()).bytes(2, value.as_bytes());
        entry.finish()
    };
    let mut tensor = Writer::default();
    tensor.packed_ints(1, &[4]).int(2, 1).bytes(8, b"w");
    tensor.bytes(13, &entry("location", location)).bytes(13, &entry("offset", &offset.to_string()));
    tensor.bytes(13, &entry("length", &length.to_string())).int(14, 1);
    let mut value = Writer::default();
    value.bytes(1, b"y").bytes(2, &{
        let mut kind = Writer::default();
        let mut tensor = Writer::default();
        tensor.int(1, 1);
        kind.bytes(1, &tensor.finish());
        kind.finish()
    });
    let mut graph = Writer::default();
    graph.bytes(1, &Node::new("Neg", "n", &["w"], &["y"]).to_bytes()).bytes(5, &tensor.finish());
    graph.bytes(12, &value.finish());
    let mut opset = Writer::default();
    opset.int(2, 13);
    let mut model = Writer::default();
    model.int(1, 8).bytes(7, &graph.finish()).bytes(8, &opset.finish());
    model.finish()
}

#[test]
fn external_data_is_read_from_below_the_model_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    let data: Vec<u8> = (0..24u8).collect();
    std::fs::write(inside.join("w.bin"), &data).unwrap();
    std::fs::write(folder.path().join("secret.bin"), &data).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret.bin"), inside.join("link.bin")).unwrap();
    let path = inside.join("model.onnx");
    let attempt = |location: &str, offset, length| {
        std::fs::write(&path, external(location, offset, length)).unwrap();
        load_file(&path).map(|model| model.graph.initializers["w"].to_bytes().unwrap())
    };
    assert_eq!(attempt("w.bin", 8, 16).unwrap(), &data[8..]);
    for (location, offset, length, says) in [
        ("../secret.bin", 0, 16, "relative path below"),
        ("/etc/passwd", 0, 16, "relative path below"),
        ("link.bin", 0, 16, "leads out"),
        ("none.bin", 0, 16, "none.bin"),
        ("w.bin", 9, 16, "the file has 24"),
        ("w.bin", u64::MAX, 16, "the file has 24"),
        ("w.bin", 0, 15, "the shape needs 16 bytes"),
    ] {
        let error = attempt(location, offset, length).unwrap_err().to_string();
        assert!(error.contains(says), "{location}: {error}");
    }
    assert!(refused(&external("w.bin", 0, 16)).contains("one file"));
}

#[test]
fn external_data_that_no_pass_touched_stays_where_it_is_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..24u8).collect();
    std::fs::write(folder.path().join("w.bin"), &data).unwrap();
    let source = external("w.bin", 8, 16);
    std::fs::write(folder.path().join("model.onnx"), &source).unwrap();
    let mut model = load_file(&folder.path().join("model.onnx")).unwrap();
    let (written, files) = model.to_bytes_beside_data();
    assert_eq!(files.into_iter().collect::<Vec<_>>(), ["w.bin"]);
    let entry = b"\x0a\x08location\x12\x05w.bin";
    assert!(written.windows(entry.len()).any(|window| window == entry), "the model still names the file");
    std::fs::write(folder.path().join("again.onnx"), &written).unwrap();
    let again = load_file(&folder.path().join("again.onnx")).unwrap();
    assert_eq!(again.graph.initializers, model.graph.initializers);
    assert_eq!(again.to_bytes_beside_data().0, written, "writing is stable");
    assert_eq!(std::fs::read(folder.path().join("w.bin")).unwrap(), data);
    // What a pass changed comes into the model.
    model.graph.initializers.insert("w".into(), Tensor::f32(&[4], vec![1.0; 4]));
    let (written, files) = model.to_bytes_beside_data();
    assert!(files.is_empty());
    assert_eq!(load(&written, None).unwrap().graph.initializers["w"], Tensor::f32(&[4], vec![1.0; 4]));
}

#[test]
fn missing_external_data_names_file_and_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, external("weights.bin", 0, 16)).unwrap();
    let error = load_file(&path).unwrap_err().to_string();
    assert!(error.starts_with("tensor w: external data file weights.bin: "), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_named_and_infinite_masks_are_not() {
    let with = |values: Vec<f32>| {
        Builder::new(13, &[1, 3]).constant("w", Tensor::f32(&[3], values)).node("Add", &["x", "w"], "y", &[]).bytes()
    };
    assert_eq!(
        refused(&with(vec![1.0, f32::NAN, 2.0])),
        "the ONNX file is invalid: tensor w: element 1 of 3 is not a number (NaN); repair or train the model again"
    );
    assert!(load(&with(vec![0.0, f32::NEG_INFINITY, 0.0]), None).is_ok());
}

#[test]
fn names_that_stand_for_two_things_are_refused() {
    let mut twice = Builder::new(13, &[1, 4]).node("Relu", &["x"], "y", &[]);
    let input = twice.model.graph.inputs[0].clone();
    twice.model.graph.inputs.push(input);
    assert_eq!(refused(&twice.bytes()), "the ONNX file is invalid: two inputs are called 'x', or it has no name");
    let shadow = Builder::new(13, &[1, 4]).constant("y", Tensor::f32(&[1], vec![0.0])).node("Relu", &["x"], "y", &[]);
    assert_eq!(refused(&shadow.bytes()), "the ONNX file is invalid: tensor y is made twice, again by node Relu_y");
}

#[test]
fn operators_may_have_outputs_they_do_not_have() {
    // What fuzzing found: a Concat of one input did nothing, but had a second output that was read.
    let mut builder = Builder::new(13, &[1, 4]).node("Concat", &["x"], "a", &[("axis", int(0))]);
    builder.model.graph.nodes[0].outputs.push("b".into());
    let model = builder.node("Add", &["a", "b"], "y", &[]).loaded();
    let mut simple = model.clone();
    simple.graph = simplify(&model.graph, &Shapes::Declared).unwrap();
    assert!(load(&simple.to_bytes(), None).is_ok());
}

#[test]
fn operators_without_outputs_change_nothing() {
    // What fuzzing found: an Identity without an output gave its input to everything that left an input out.
    let mut builder = Builder::new(13, &[1, 4]).constant("high", Tensor::f32(&[], vec![0.5]));
    let mut nothing = Node::new("Identity", "nothing", &["x"], &[]);
    nothing.touch();
    builder.model.graph.nodes.push(nothing);
    let model = builder.node("Clip", &["x", "", "high"], "y", &[]).loaded();
    let simple = simplify(&model.graph, &Shapes::Declared).unwrap();
    assert_eq!(simple.nodes.len(), 1);
    assert_eq!(simple.nodes[0].inputs, ["x", "", "high"]);
}

#[test]
fn a_tensor_no_device_holds_is_refused_before_lists_are_made_for_it() {
    use edgeyard_optimizer::lower::{Mode, to_tflite};
    let sizes = Tensor::i64(&[4], vec![1, 2, 117_440_516, 4]);
    let model =
        Builder::new(13, &[1, 2, 4, 4]).constant("s", sizes).node("Resize", &["x", "", "", "s"], "y", &[]).loaded();
    let graph = simplify(&model.graph, &Shapes::Declared).unwrap();
    let error = to_tflite(&graph, Mode::Float32, None).unwrap_err().to_string();
    assert!(error.contains("node Resize_y") && error.contains("[1, 2, 117440516, 4]"), "{error}");
}

#[test]
fn copies_without_end_are_refused_though_inference_did_not_see_them() {
    // What fuzzing found: a second output that Selu does not have left its shape unknown, and with it that of what follows.
    use edgeyard_optimizer::lower::{Mode, to_tflite};
    let lowered = |op: &str, many: Tensor| {
        let mut builder = Builder::new(13, &[1, 3, 8]).constant("many", many).node("Selu", &["x"], "a", &[]);
        builder.model.graph.nodes[0].outputs.push("b".into());
        let model = builder.node(op, &["a", "many"], "y", &[]).loaded();
        let graph = simplify(&model.graph, &Shapes::Fixed(Default::default())).unwrap();
        to_tflite(&graph, Mode::Float32, None).unwrap_err().to_string()
    };
    let error = lowered("Tile", Tensor::i64(&[3], vec![2, 1 << 62, 3]));
    assert!(error.contains("node Tile_y") && error.contains("no room"), "{error}");
    let error = lowered("Pad", Tensor::i64(&[6], vec![0, 1 << 62, 0, 0, i64::MAX, 1]));
    assert!(error.contains("node Pad_y") && error.contains("no room"), "{error}");
}

#[test]
fn windows_that_fit_nothing_are_refused_though_inference_did_not_see_them() {
    // What fuzzing found: weights without dimensions, and an empty input padded to the same length.
    use edgeyard_optimizer::lower::{Mode, to_tflite};
    let lowered = |dims: &[usize], op: &str, attributes: &[(&str, Attribute)]| {
        let mut builder =
            Builder::new(13, dims).constant("w", Tensor::f32(&[], vec![1.0])).node("Selu", &["x"], "a", &[]);
        builder.model.graph.nodes[0].outputs.push("b".into());
        let inputs = if op == "Conv" { &["a", "w"][..] } else { &["a"] };
        let model = builder.node(op, inputs, "y", attributes).loaded();
        let graph = simplify(&model.graph, &Shapes::Fixed(Default::default())).unwrap();
        to_tflite(&graph, Mode::Float32, None).unwrap_err().to_string()
    };
    let error = lowered(&[1, 2, 4, 4], "Conv", &[]);
    assert!(error.contains("node Conv_y") && error.contains("weights [] do not fit"), "{error}");
    let window = |name, values| [("kernel_shape", ints(&[2, 2])), (name, values)];
    for (name, values) in
        [("pads", vec![0, i64::MAX, 0, i64::MAX]), ("dilations", vec![1 << 40, 1]), ("strides", vec![1 << 62, 1])]
    {
        let error = lowered(&[1, 2, 4, 4], "MaxPool", &window(name, ints(&values)));
        assert!(error.contains("node MaxPool_y") && error.contains(name) && error.contains("invalid"), "{error}");
    }
}

#[test]
fn a_second_version_of_the_format_that_is_none_is_refused() {
    // What fuzzing found: such a model was written as a file that did not load again.
    let whole = Builder::new(13, &[1, 2]).node("Relu", &["x"], "y", &[]).bytes();
    for (version, last) in [(65, "65"), (-1, "-1")] {
        let mut again = Writer::default();
        again.raw(&whole).int(1, version);
        let error = refused(&again.finish());
        assert!(error.contains(&format!("ir_version {last} is no version")), "{error}");
    }
}

#[test]
fn blocks_whose_area_no_number_holds_are_refused() {
    // What fuzzing found: the square of a block of 2^33 overflowed.
    for op in ["DepthToSpace", "SpaceToDepth"] {
        for block in [1 << 32, 1 << 33, i64::MAX, 0, -1] {
            let model = Builder::new(13, &[1, 4, 8, 8]).node(op, &["x"], "y", &[("blocksize", int(block))]).loaded();
            let error = simplify(&model.graph, &Shapes::Declared).unwrap_err().to_string();
            assert!(error.contains("blocksize") && error.contains("does not fit"), "{error}");
        }
    }
}

#[test]
fn a_model_without_operators_is_held_against_rules() {
    // What fuzzing found: what is lowered to one copy comes from no node.
    use edgeyard_job::spec::{Pass, Scheme};
    let mut builder = Builder::new(13, &[1, 4]).node("Identity", &["x"], "y", &[]);
    builder.model.graph.nodes.clear();
    builder.model.graph.outputs[0].name = "x".into();
    for target in ["tflm", "litert"] {
        let target = edgeyard_targets::Target::find(target).unwrap();
        let recipe = target.recipe(&[Pass::quantize(Scheme::Int8)]).unwrap();
        let findings = edgeyard_optimizer::lint::lint_source(target, builder.model.graph.clone(), &recipe.numbers);
        assert!(
            findings.iter().all(|finding| finding.severity != edgeyard_job::report::Severity::Refused),
            "{findings:?}"
        );
    }
}

#[test]
fn a_tflite_that_cannot_be_a_source_says_why() {
    use edgeyard_tflite as tfl;
    let error = import_tflite(b"hello").unwrap_err().to_string();
    assert_eq!(error, "the .tflite cannot be read");
    let mut graph = tfl::Subgraph::default();
    for name in ["x", "y"] {
        let tensor = tfl::Tensor { name: name.into(), ..tfl::Tensor::new(tfl::TensorType::Float32, vec![1, 4]) };
        graph.tensors.push(tensor);
    }
    (graph.inputs, graph.outputs) = (vec![0], vec![1]);
    let built = |op: tfl::BuiltinOp, inputs: Vec<i32>| {
        let mut graph = graph.clone();
        graph.operators.push(tfl::Operator::builtin(op, tfl::Options::None, inputs, vec![1]));
        let mut model = tfl::Model::new("");
        model.subgraphs.push(graph);
        tfl::write(&model).unwrap()
    };
    let refused = |bytes: &[u8]| import_tflite(bytes).unwrap_err().to_string();
    assert_eq!(
        refused(&built(tfl::BuiltinOp::RFFT2D, vec![0])),
        "operator 0 (RFFT2D) of the .tflite cannot be imported: there is no import for it; give the ONNX model it was \
         made from"
    );
    assert!(refused(&built(tfl::BuiltinOp::RELU, vec![1])).contains("y is made by no operator before it"));
    assert!(refused(&built(tfl::BuiltinOp::RELU, Vec::new())).contains("its input 0 is missing"));
    let model = import_tflite(&built(tfl::BuiltinOp::RELU, vec![0])).unwrap();
    assert_eq!((model.graph.nodes.len(), model.graph.nodes[0].op_type.as_str()), (1, "Relu"));
}

#[test]
fn attributes_of_the_wrong_kind_do_not_panic() {
    for value in
        [int(-5), ints(&[]), ints(&[i64::MIN, i64::MAX]), Attribute::Float(f32::NAN), Attribute::String(vec![0xff])]
    {
        for op in
            ["Concat", "Transpose", "Flatten", "ReduceMean", "Softmax", "Squeeze", "Split", "Gather", "Conv", "Gemm"]
        {
            for name in ["axis", "axes", "perm", "pads", "strides", "kernel_shape", "group", "transB"] {
                let builder = Builder::new(11, &[1, 4, 4, 4])
                    .constant("w", Tensor::f32(&[4, 4, 1, 1], vec![1.0; 16]))
                    .node(op, &["x", "w"], "y", &[(name, value.clone())]);
                let _ = simplify(&builder.loaded().graph, &Shapes::Declared);
            }
        }
    }
}
