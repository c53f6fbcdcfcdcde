//! onnx's light models: well-known topologies whose weights are left out; the oracle makes some up.

use super::harness::{Expected, Lowers, check, make_light};

const fn model(name: &'static str, int8: f64) -> Expected {
    Expected { name, shapes: &[], values: &[], float: Lowers::To(80.0), int8: Lowers::To(int8) }
}

const fn refused(name: &'static str, why: &'static str) -> Expected {
    Expected { name, shapes: &[], values: &[], float: Lowers::Not(why), int8: Lowers::Not(why) }
}

#[test]
fn light_models_lower_and_quantise() {
    let folder = tempfile::tempdir().unwrap();
    make_light(folder.path());
    let models = [
        model("densenet121", 15.0),
        refused("inception_v1", "op LRN"),
        model("inception_v2", 25.0),
        model("resnet50", 25.0),
        model("shufflenet", 25.0),
        model("squeezenet", 25.0),
    ];
    check(folder.path(), &models);
}
