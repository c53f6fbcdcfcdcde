//! The engine against TensorFlow Lite Micro, bit for bit.

#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Another seed makes other models: `EDGEYARD_ORACLE_SEED=7 cargo test --release --test oracle`.
fn seed() -> String {
    std::env::var("EDGEYARD_ORACLE_SEED").unwrap_or_else(|_| "1".into())
}

#[test]
fn generated_models_agree_to_the_bit() {
    let cases = common::generate("oracle", &["--seed", &seed(), "--count", "440"]);
    assert_eq!(cases.len(), 440);
    common::assert_equal(&cases);
}

/// Folder of the models in a published crate, which is fetched and never built.
fn published_models() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .expect("cargo starts");
    assert!(ran.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8(ran.stdout).unwrap();
    let at = text.find("/microflow-0.1.3/Cargo.toml").expect("the crate is in the registry's cache");
    let start = text[..at].rfind('"').unwrap() + 1;
    Path::new(&text[start..at]).join("microflow-0.1.3/models")
}

#[test]
fn published_models_agree_to_the_bit() {
    let folder = published_models();
    let model = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (person, speech) = (model("person_detect.tflite"), model("speech.tflite"));
    let cases =
        common::generate("published", &["--seed", &seed(), "--trials", "10", "--model", &person, "--model", &speech]);
    assert_eq!(cases.len(), 2);
    common::assert_equal(&cases);
}
