//! Passes compose: what they leave is what other passes and lowerings take, and their order matters.

use std::collections::BTreeMap;

use edgeyard_optimizer::factorize::{Factorization, Goal, factorize};
use edgeyard_optimizer::ir::{Model, load, load_file};
use edgeyard_optimizer::lower::{Mode, to_tflite};
use edgeyard_optimizer::prune::{Pattern, Score, Settings, prune};
use edgeyard_optimizer::simplify::{Shapes, explicit_padding, simplify};

use super::nets::all;
use super::support::{Noise, assert_near, mnist_model, run};

fn pruned(model: &Model) -> Model {
    let mut model = model.clone();
    prune(&mut model, &Settings::new(Pattern::Structured, Score::Magnitude, Some(0.5), None, None), None).unwrap();
    model
}

fn split(model: &Model) -> Model {
    let mut model = model.clone();
    let settings = edgeyard_optimizer::factorize::Settings { method: Factorization::Auto, goal: Goal::Energy(0.7) };
    factorize(&mut model, &settings, None).unwrap();
    model
}

#[test]
fn order_matters_and_results_lower() {
    let source = load_file(&mnist_model()).unwrap();
    let (one, other) = (split(&pruned(&source)), pruned(&split(&source)));
    assert_ne!(one.to_bytes(), other.to_bytes());
    for model in [one, other] {
        // Names that users know stay, new ones follow from them.
        let names: Vec<&str> = model.graph.nodes.iter().map(|node| node.name.as_str()).collect();
        assert!(names.contains(&"conv3_v") && names.contains(&"conv3_u") && names.contains(&"relu3"), "{names:?}");
        let mut graph = simplify(&model.graph, &Shapes::Fixed(BTreeMap::new())).unwrap();
        explicit_padding(&mut graph);
        assert!(!to_tflite(&graph, Mode::Float32, None).unwrap().bytes.is_empty());
    }
}

#[test]
fn every_family_can_be_pruned_then_split_then_saved() {
    for made in all().into_iter().filter(|made| made.name != "transformer") {
        let mut model = made.model.clone();
        model.graph = simplify(&model.graph, &Shapes::Declared).unwrap();
        let model = split(&pruned(&model));
        let bytes = model.to_bytes();
        let again = simplify(&load(&bytes, None).unwrap().graph, &Shapes::Declared).unwrap();
        let again = Model { graph: again, ..model };
        let x = Noise::new(1).values(made.input.iter().product());
        for (a, b) in run(&bytes, &x, &made.input).iter().zip(&run(&again.to_bytes(), &x, &made.input)) {
            assert_near(&a.2, &b.2, 1e-5);
        }
    }
}
