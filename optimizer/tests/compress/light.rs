//! Architectures as exporters wrote them: the models that the package onnx ships, with random weights.

use edgeyard_optimizer::cost::cost;
use edgeyard_optimizer::ir::load_file;
use edgeyard_optimizer::prune::prune;
use edgeyard_optimizer::simplify::{Shapes, simplify};

use super::structured::{masked, settings};
use super::support::{Noise, python, run_one};

const MODELS: [&str; 5] = ["densenet121", "inception_v1", "resnet50", "shufflenet", "squeezenet"];

#[test]
fn published_architectures_are_sliced_as_they_are_masked() {
    let folder = tempfile::tempdir().unwrap();
    let names = MODELS.join("', '");
    let script = format!("import sys; sys.argv[2:] = ['{names}']\n{}", include_str!("light.py"));
    let counted = python(&script, &[folder.path()]);
    for (name, macs) in MODELS.into_iter().zip(counted.lines()) {
        let mut source = load_file(&folder.path().join(format!("{name}.onnx"))).unwrap();
        source.graph = simplify(&source.graph, &Shapes::Declared).unwrap();
        let mut pruned = source.clone();
        let outcome = prune(&mut pruned, &settings(0.5, 8), None).unwrap();
        let (before, after) = (cost(&source.graph).unwrap(), cost(&pruned.graph).unwrap());
        println!("{name}: {before:?} to {after:?}");
        assert_eq!(before.macs.to_string(), macs, "{name}");
        // Everything but what is tied to inputs and outputs is halved both ways.
        assert!(after.macs * 100 < before.macs * 45, "{name}: {} of {}", after.macs, before.macs);
        let shape = [1, 3, 224, 224];
        let x = Noise::new(3).values(shape.iter().product());
        let expected = run_one(&masked(&source, &outcome).to_bytes(), &x, &shape);
        let got = run_one(&pruned.to_bytes(), &x, &shape);
        let peak = expected.iter().fold(0f32, |peak, value| peak.max(value.abs()));
        let worst = expected.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(peak > 1e-3 && worst <= 1e-5 * peak, "{name}: {worst} of {peak}");
        let best = |values: &[f32]| (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]));
        assert_eq!(best(&expected), best(&got), "{name}");
    }
}
