//! Files that are not what they claim: loading and running must end in an error or in some output, never in a panic or a
//! read out of bounds (which the checked slices and the arena's guard bytes would show).

mod common;

use common::Case;
use edgeyard_engine::Engine;
use proptest::prelude::*;
use std::sync::OnceLock;

fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| common::generate("malformed", &["--seed", "3", "--count", "66", "--trials", "1"]))
}

/// Loads and, if that worked, runs; the bytes around the arena must stay untouched.
fn survive(model: &[u8]) {
    const GUARD: usize = 4096;
    let mut memory = vec![0xA5u8; (1 << 20) + 2 * GUARD];
    let end = memory.len() - GUARD;
    if let Ok(mut engine) = Engine::load(model, &mut memory[GUARD..end]) {
        for i in 0..engine.inputs() {
            engine.input_mut(i).fill(0x81);
        }
        engine.run();
        for i in 0..engine.outputs() {
            std::hint::black_box(engine.output_bytes(i).len());
        }
    }
    assert!(memory[..GUARD].iter().chain(&memory[end..]).all(|b| *b == 0xA5), "wrote outside the arena");
}

#[test]
fn every_truncation_is_survived() {
    for case in cases().iter().step_by(5) {
        for len in 0..case.model.len().min(3000) {
            survive(&case.model[..len]);
        }
    }
}

/// Every byte near a structure, set to values that make offsets and counts wild.
#[test]
fn every_single_byte_is_survived() {
    for case in cases().iter().step_by(4) {
        let mut model = case.model.clone();
        for at in 0..model.len().min(2500) {
            let was = model[at];
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff, was ^ 1, was.wrapping_add(4)] {
                model[at] = value;
                survive(&model);
            }
            model[at] = was;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_edits_are_survived(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<[u8; 4]>(), 1usize..=4), 1..12),
    ) {
        let mut model = which.get(cases()).model.clone();
        for (at, bytes, len) in edits {
            let at = at.index(model.len());
            for (slot, b) in model[at..].iter_mut().zip(&bytes[..len]) {
                *slot = *b;
            }
        }
        survive(&model);
    }

    #[test]
    fn random_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if bytes.len() > 8 {
            bytes[..8].copy_from_slice(b"\x10\0\0\0TFL3");
        }
        survive(&bytes);
    }
}
