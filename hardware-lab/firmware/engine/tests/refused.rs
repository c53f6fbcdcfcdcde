//! What a user is told about a model that cannot run: the operator, the tensor, and both numbers of a limit.

mod common;

use edgeyard_engine::{Engine, Error};

fn refusal(model: &[u8], room: usize) -> Error {
    let mut arena = vec![0u8; room];
    Engine::load(model, &mut arena).err().expect("the model is refused")
}

#[test]
fn operators_and_types_without_a_kernel_are_named() {
    let files = common::models("refused", &["--seed", "0", "--refused"]);
    let told: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, refusal(&std::fs::read(file).unwrap(), 1 << 20).to_string())
        })
        .collect();
    let expected = [
        (
            "float",
            "operator 0 (FULLY_CONNECTED): tensor 0 is FLOAT32, and only INT8 has a kernel; convert the model to full int8",
        ),
        ("unknown", "operator 0 is COS, which has no kernel here"),
        // The first version after the newest that is known.
        ("version-next", "operator 0 is CONV_2D version 9; versions up to 8 are known"),
        ("version", "operator 0 is RELU version 99; versions up to 3 are known"),
        ("wide", "operator 0 (SOFTMAX): tensor 1 is INT16, and only INT8 has a kernel"),
    ];
    assert_eq!(told, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

/// Whatever the arena's size, a refusal names it and one that is larger.
#[test]
fn an_arena_too_small_is_refused_with_both_numbers() {
    for case in common::generate("arena", &["--seed", "5", "--count", "22", "--trials", "1"]) {
        let mut arena = vec![0u8; 1 << 20];
        let used = Engine::load(&case.model, &mut arena).unwrap().usage().total();
        // Less than the alignment of tables and tensors may hide in any size.
        for room in [0, used / 4, used / 2, used.saturating_sub(64)] {
            let error = refusal(&case.model, room);
            let Error::ArenaTooSmall { need, have } = error else { panic!("{}: {error}", case.name) };
            assert_eq!(have, room, "{}", case.name);
            assert!(need > have, "{}: {error}", case.name);
            assert_eq!(error.to_string(), format!("the model needs an arena of at least {need} bytes and has {have}"));
        }
    }
}

#[test]
fn a_file_that_is_no_model_is_called_so() {
    let cases = common::generate("corrupt", &["--seed", "6", "--count", "1", "--trials", "1"]);
    let model = &cases[0].model;
    for damaged in [&b""[..], &b"no model, whatever its name says"[..], &model[..model.len() / 2]] {
        let error = refusal(damaged, 1 << 20);
        assert!(matches!(error, Error::Malformed(_)), "{error}");
        assert!(error.to_string().starts_with("not a valid TFLite file: bad "), "{error}");
    }
}
