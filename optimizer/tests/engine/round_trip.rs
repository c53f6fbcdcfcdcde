//! What no pass touches goes out as it came in, byte for byte.

use edgeyard_optimizer::ir::{Attribute, load, wire::Writer};

use super::support::{Builder, mnist_model};

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn nodes_of_a_real_model_keep_their_bytes() {
    let source = std::fs::read(mnist_model()).unwrap();
    let model = load(&source, None).unwrap();
    let written = model.to_bytes();
    for node in &model.graph.nodes {
        let bytes = node.to_bytes();
        assert!(contains(&source, &bytes) && contains(&written, &bytes), "{}", node.label());
    }
    let again = load(&written, None).unwrap();
    assert_eq!(again.graph.initializers, model.graph.initializers);
    assert_eq!(again.graph.inputs, model.graph.inputs);
    assert_eq!(again.graph.outputs, model.graph.outputs);
    assert_eq!(again.to_bytes(), written, "writing is stable");
}

#[test]
fn unknown_domains_fields_and_metadata_survive() {
    // A node of another domain, with a field and an attribute kind that ONNX may get one day.
    let mut attribute = Writer::default();
    attribute.bytes(1, b"future").bytes(77, b"payload").int(20, 99);
    let mut node = Writer::default();
    node.bytes(1, b"x").bytes(2, b"y").bytes(4, b"Strange").bytes(5, &attribute.finish());
    node.bytes(7, b"com.example").bytes(200, b"kept");
    let node = node.finish();
    let mut graph = Writer::default();
    graph.bytes(1, &node).bytes(2, b"g").bytes(10, b"about the graph");
    for (field, name) in [(11, b"x"), (12, b"y")] {
        let mut tensor = Writer::default();
        tensor.int(1, 1);
        let mut kind = Writer::default();
        kind.bytes(1, &tensor.finish());
        let mut value = Writer::default();
        value.bytes(1, name).bytes(2, &kind.finish());
        graph.bytes(field, &value.finish());
    }
    let mut metadata = Writer::default();
    metadata.bytes(1, b"author").bytes(2, b"somebody");
    let metadata = metadata.finish();
    let mut opset = Writer::default();
    opset.int(2, 13);
    let mut model = Writer::default();
    model.int(1, 8).bytes(2, b"exporter").bytes(7, &graph.finish()).bytes(8, &opset.finish()).bytes(14, &metadata);
    let source = model.finish();
    let model = load(&source, None).unwrap();
    assert_eq!(model.graph.nodes[0].domain, "com.example");
    let written = model.to_bytes();
    for part in [node.as_slice(), b"about the graph", b"exporter", &metadata] {
        assert!(contains(&written, part));
    }
}

#[test]
fn a_touched_node_is_written_from_its_fields() {
    let builder = Builder::new(13, &[1, 4]).node("Relu", &["x"], "a", &[]).node("Neg", &["a"], "y", &[]);
    let mut model = builder.loaded();
    let untouched = model.graph.nodes[1].to_bytes();
    model.graph.nodes[0].op_type = "LeakyRelu".into();
    model.graph.nodes[0].set("alpha", Attribute::Float(0.25));
    let again = load(&model.to_bytes(), None).unwrap();
    assert_eq!((again.graph.nodes[0].op_type.as_str(), again.graph.nodes[0].float("alpha", 0.0)), ("LeakyRelu", 0.25));
    assert_eq!(again.graph.nodes[1].to_bytes(), untouched);
}
