//! The manifests of the examples can be planned as they stand.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use edgeyard_crds::optimization::ModelOptimizationSpec;

#[test]
fn every_optimization_of_the_examples_is_valid() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let digest = format!("sha256:{}", "5e".repeat(32));
    let mut seen = Vec::new();
    for folder in std::fs::read_dir(examples).unwrap() {
        let file = folder.unwrap().path().join("optimization.yaml");
        let Ok(mut text) = std::fs::read_to_string(&file) else { continue };
        let name = file.display().to_string();
        // Every placeholder of these files is a digest.
        while let Some((before, rest)) = text.split_once("\"${") {
            let (_, after) = rest.split_once("}\"").unwrap();
            text = format!("{before}\"{digest}\"{after}");
        }
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object = <serde_yaml::Value as serde::Deserialize>::deserialize(document).unwrap();
            if object["kind"].as_str() != Some("ModelOptimization") {
                continue;
            }
            let spec: ModelOptimizationSpec = serde_yaml::from_value(object["spec"].clone()).unwrap();
            let planned = edgeyard_plan::optimization::validate(spec);
            assert!(planned.as_ref().is_ok_and(|planned| !planned.artifacts.is_empty()), "{name}: {planned:?}");
            seen.push(name.clone());
        }
    }
    for folder in ["mnist", "keyword", "compression", "cortex-m"] {
        assert!(seen.iter().any(|name| name.contains(&format!("/{folder}/"))), "{folder}: {seen:?}");
    }
}
