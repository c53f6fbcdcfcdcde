//! onnx's light models: well-known topologies whose weights are left out; the oracle makes some up.

use super::harness::{Expected, check, make_light};

const fn model(name: &'static str, int8: f64) -> Expected {
    Expected { name, shapes: &[], values: &[], float: 80.0, int8 }
}

#[test]
fn light_models_lower_and_quantise() {
    let folder = tempfile::tempdir().unwrap();
    make_light(folder.path());
    let models = [
        model("densenet121", 15.0),
        model("inception_v1", 25.0),
        model("inception_v2", 25.0),
        model("resnet50", 25.0),
        model("shufflenet", 25.0),
        model("squeezenet", 25.0),
    ];
    check(folder.path(), &models);
}
