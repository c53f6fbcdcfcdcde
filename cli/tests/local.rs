//! `kubectl edgeyard local` with the real store, optimizer and device-runner, on a tiny model.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use edgeyard_artifact::digest_of;
use serde_json::Value;
use tempfile::TempDir;

const MODEL: &[u8] = include_bytes!("../selftest/tiny.onnx");
const OPTIMIZATION: &str = r#"
apiVersion: edgeyard.dev/v1alpha1
kind: ModelOptimization
metadata: {name: tiny, namespace: vision}
spec:
  source: {format: ONNX, artifact: {configMapKeyRef: {name: models, key: tiny.onnx}}}
  variants:
  - {name: fp32, targets: [ort-x86], passes: []}
"#;
const BENCHMARK: &str = r#"
apiVersion: edgeyard.dev/v1alpha1
kind: EdgeBenchmark
metadata: {name: tiny, namespace: vision}
spec:
  models:
  - {name: made, modelOptimization: {name: tiny}}
  - {name: given, artifact: {variant: original, target: ort-x86, format: ONNX, artifact: {digest: "${MODEL}"}}}
  devices:
  - {name: host, deviceClassName: host-cpu}
  - {name: m4, deviceClassName: qemu-cortex-m4}
  workload: {scenario: SingleStream, profile: Smoke, seed: 1}
"#;

struct Desk {
    folder: TempDir,
    model: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let programs = Path::new(env!("CARGO_BIN_EXE_kubectl-edgeyard")).parent().unwrap();
        for program in ["edgeyard-store", "edgeyard-optimizer", "edgeyard-device-runner"] {
            assert!(programs.join(program).is_file(), "{program} is not built: `cargo xtask test` builds it first");
        }
        let set = std::env::var("EDGEYARD_ORT_LIB").is_ok();
        assert!(set, "EDGEYARD_ORT_LIB is not set: run this by `cargo xtask test`, after `cargo xtask setup`");
        let folder = TempDir::new().unwrap();
        let model = folder.path().join("tiny.onnx");
        std::fs::write(&model, MODEL).unwrap();
        Self { folder, model }
    }

    fn run(&self, manifest: &str, more: &[&str]) -> Output {
        let file = self.folder.path().join("manifest.yaml");
        std::fs::write(&file, manifest.replace("${MODEL}", &digest_of(MODEL).to_string())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-edgeyard"));
        command.args(["local", "--out"]).arg(self.out()).arg("-f").arg(file).args(more).output().unwrap()
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.out().join(name)).unwrap()).unwrap()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn manifests_become_artefacts_and_records() {
    let desk = Desk::new();
    let key = format!("models/tiny.onnx={}", desk.model.display());
    let flags = ["--config-map", &key, "--blob", desk.model.to_str().unwrap()];
    // Twice into the same folder: nothing of the first time may be in the way.
    for _ in 0..2 {
        let output = desk.run(&format!("{OPTIMIZATION}---{BENCHMARK}"), &flags);
        assert!(output.status.success(), "{}", said(&output));
        let results = desk.json("results.json");
        let [artifact] = results["artifacts"].as_array().unwrap().as_slice() else { panic!("{results}") };
        assert_eq!((&artifact["variant"], &artifact["target"]), (&"fp32".into(), &"ort-x86".into()));
        let bytes = std::fs::read(desk.out().join(artifact["file"].as_str().unwrap())).unwrap();
        assert_eq!(artifact["digest"], digest_of(&bytes).to_string());
        assert_eq!(artifact["sizeBytes"], bytes.len());
        assert!(artifact["accuracyDrop"].is_null(), "nothing was evaluated");
        let [record] = results["records"].as_array().unwrap().as_slice() else { panic!("{results}") };
        let file = record["file"].as_str().unwrap();
        assert_eq!(record["digest"], digest_of(std::fs::read(desk.out().join(file)).unwrap()).to_string());
        let record = desk.json(file);
        let names: Vec<_> =
            record["results"].as_array().unwrap().iter().map(|r| r["model"].as_str().unwrap()).collect();
        assert_eq!(names, ["made", "given"]);
        for result in record["results"].as_array().unwrap() {
            assert_eq!(result["outcome"], "Succeeded", "{result}");
            assert!(result["latency"]["count"].as_u64().unwrap() > 0, "{result}");
        }
        let text = said(&output);
        assert!(text.contains("left out: NoArtifactForTarget"), "{text}");
        assert!(text.contains("VARIANT") && text.contains("host-cpu-0"), "{text}");
    }
}

#[test]
fn what_is_missing_is_asked_for() {
    let desk = Desk::new();
    let refused = |manifest: &str, more: &[&str], what: &str| {
        let output = desk.run(manifest, more);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(what), "{what} is not in {}", said(&output));
    };
    refused(OPTIMIZATION, &[], "--config-map models/tiny.onnx=FILE");
    refused(BENCHMARK, &[], "--blob FILE");
    refused("kind: Namespace\nmetadata: {name: a}", &[], "nothing to run");
    refused(&OPTIMIZATION.replace("ort-x86", "ort-x87"), &[], "ort-x87");
    let blob = ["--blob", desk.model.to_str().unwrap()];
    refused(BENCHMARK, &blob, "ModelOptimization tiny does not exist");
    let arm = "kind: EdgeBenchmark\nmetadata: {name: a}\nspec:\n  models: [{name: m, artifact: {variant: v, target: litert, format: TFLite, artifact: {digest: '${MODEL}'}}}]\n  devices: [{name: d, deviceClassName: qemu-raspberry-pi}]\n";
    refused(arm, &blob, "Arm64");
}

#[test]
fn a_source_that_is_no_model_fails_with_the_jobs_words() {
    let desk = Desk::new();
    std::fs::write(&desk.model, "not a model").unwrap();
    let key = format!("models/tiny.onnx={}", desk.model.display());
    let output = desk.run(OPTIMIZATION, &["--config-map", &key]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("ModelOptimization tiny: source: "), "{}", said(&output));
    assert_eq!(desk.json("results.json")["artifacts"], serde_json::json!([]));
}
