//! What users get wrong: each case ends in a condition whose reason and message say what to do, and nothing is left.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use edgeyard_e2e::wait::condition;
use edgeyard_e2e::{Cluster, Example, data, example, lab, wait_for};
use fs_err as fs;

const LIMIT: Duration = Duration::from_secs(300);
const PLAIN: &str = "[{name: fp32, targets: [ort-x86], passes: []}]";
const INT8: &str = "[{name: int8, targets: [tflm], passes: [{type: Quantize, quantize: {scheme: Int8}}]}]";
const DEADBEEF: &str = "sha256:deadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn manifests_that_are_refused_at_once() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let namespace = edgeyard_e2e::Namespace::create(&cluster, "refused")?;
    let good = format!(
        "{{apiVersion: edgeyard.dev/v1alpha1, kind: ModelOptimization, metadata: {{name: a, namespace: {}}}, spec: {{source: {{format: ONNX, artifact: {{digest: \"{DEADBEEF}\"}}}}, variants: [{{name: fp32, targets: [ort-x86], passes: []}}]}}}}",
        namespace.name()
    );
    for (from, to, said) in [
        ("variants:", "variantz: [], variants:", "variantz"),
        ("format: ONNX", "format: Onyx", "Unsupported value: \"Onyx\""),
        ("targets: [ort-x86]", "targets: []", "targets"),
        ("passes: []", "passes: [{type: Quantize}]", "type selects the member to set"),
    ] {
        let Err(error) = cluster.apply(&good.replace(from, to)) else { bail!("{to} was taken") };
        ensure!(error.to_string().contains(said), "{to}: {error}");
    }
    Ok(())
}

/// Waits until nothing will happen unless somebody acts (kstatus' `Stalled`); some wait for the remedy, others have failed.
fn stuck(cluster: &Cluster, kind: &str, namespace: &str, name: &str) -> Result<(String, String, serde_json::Value)> {
    wait_for(&format!("{kind} {name} to be stalled"), LIMIT, || {
        let Some(object) = cluster.get(kind, namespace, name)? else { bail!("{kind} {name} is gone") };
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Ok(condition(&object, "Stalled", "True")
            .map(|c| (word(&c["reason"]), word(&c["message"]), object["status"].clone())))
    })
}

/// Optimisations that must fail: name, what to apply, the reasons that will do, words of the message.
struct Case {
    name: &'static str,
    manifest: String,
    reasons: &'static [&'static str],
    words: &'static [&'static str],
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn models_and_data_that_are_no_use() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "useless")?;
    let model = example.inputs["MODEL"].clone();
    let folder = edgeyard_e2e::root().join("target/e2e");
    fs::create_dir_all(&folder)?;
    let whole = fs::read(data::model())?;
    fs::write(folder.join("text.onnx"), "This is no model.\n")?;
    fs::write(folder.join("truncated.onnx"), &whole[..whole.len() / 2])?;
    let text = example.push(&folder.join("text.onnx"))?;
    let truncated = example.push(&folder.join("truncated.onnx"))?;
    let unsupported = example.push(&example::made_by("unsupported.py", &[], "unsupported.onnx")?)?;
    let narrow = example.push(&example::made_by("data.py", &["narrow"], "narrow.npz")?)?;
    let unlabelled = example.push(&example::made_by("data.py", &["unlabelled"], "unlabelled.npz")?)?;
    let from = |source: &str| {
        example.optimization("x", &model, PLAIN, "").replace(&format!("{{digest: \"{model}\"}}"), source)
    };
    let calibration = |digest: &str| format!("  calibration: {{dataset: {{digest: \"{digest}\"}}}}");
    let evaluation =
        |digest: &str| format!("  evaluation: {{dataset: {{digest: \"{digest}\"}}, metric: Top1Accuracy}}");
    let cases = [
        Case {
            name: "digest-mismatch",
            manifest: from(&format!("{{configMapKeyRef: {{name: mnist, key: calib.npz}}, digest: \"{DEADBEEF}\"}}")),
            reasons: &["DigestMismatch"],
            words: &["deadbeef"],
        },
        Case {
            name: "not-stored",
            manifest: from(&format!("{{digest: \"{DEADBEEF}\"}}")),
            reasons: &["DigestNotStored"],
            words: &["deadbeef", "push"],
        },
        Case {
            name: "private-address",
            manifest: from(&format!("{{uri: \"https://127.0.0.1/model.onnx\", digest: \"{DEADBEEF}\"}}")),
            reasons: &["PrivateAddress"],
            words: &["127.0.0.1"],
        },
        // Tried four times before it is given up.
        Case {
            name: "unreachable",
            manifest: from(&format!("{{uri: \"https://models.invalid/model.onnx\", digest: \"{DEADBEEF}\"}}")),
            reasons: &["SourceUnreachable"],
            words: &["https://models.invalid/model.onnx"],
        },
        Case {
            name: "no-config-map",
            manifest: from("{configMapKeyRef: {name: nothing, key: model.onnx}}"),
            reasons: &["InputNotFound"],
            words: &["nothing"],
        },
        Case {
            name: "not-onnx",
            manifest: example.optimization("x", &text, PLAIN, ""),
            reasons: &["NotOnnx"],
            words: &["ONNX"],
        },
        Case {
            name: "truncated",
            manifest: example.optimization("x", &truncated, PLAIN, ""),
            reasons: &["InvalidModel", "NotOnnx"],
            words: &[],
        },
        Case {
            name: "unsupported-op",
            manifest: example.optimization("x", &unsupported, "[{name: fp32, targets: [litert], passes: []}]", ""),
            reasons: &["UnsupportedOperator", "UnsupportedModel", "InvalidModel"],
            words: &["Det", "odd-one"],
        },
        Case {
            name: "narrow-calibration",
            manifest: example.optimization("x", &model, INT8, &calibration(&narrow)),
            reasons: &["InvalidCalibrationData"],
            words: &["27"],
        },
        Case {
            name: "no-labels",
            manifest: example.optimization("x", &model, PLAIN, &evaluation(&unlabelled)),
            reasons: &["InvalidEvaluationData"],
            words: &["y"],
        },
        Case {
            name: "float-for-micro",
            manifest: example.optimization("x", &model, "[{name: fp32, targets: [tflm], passes: []}]", ""),
            reasons: &["IncompatiblePass"],
            words: &["tflm"],
        },
        Case {
            name: "unknown-target",
            manifest: example.optimization("x", &model, "[{name: fp32, targets: [toaster], passes: []}]", ""),
            reasons: &["UnknownTarget"],
            words: &["toaster"],
        },
        Case {
            name: "deadline",
            manifest: example.optimization(
                "x",
                &model,
                INT8,
                &format!("{}\n  activeDeadlineSeconds: 1", calibration(&example.inputs["SMOKE"])),
            ),
            reasons: &["DeadlineExceeded"],
            words: &["activeDeadlineSeconds"],
        },
    ];
    for case in &cases {
        cluster.apply(&case.manifest.replace("name: x,", &format!("name: {},", case.name)))?;
    }
    let mut wrong = Vec::new();
    for case in &cases {
        let Case { name, manifest: _, reasons, words } = case;
        let (reason, message, status) = stuck(&cluster, "modeloptimization", example.name(), name)?;
        // What an artefact failed of stands beside the artefact; the condition sums it up.
        let said = format!("{reason} {message} {}", status["artifacts"]);
        if !reasons.iter().any(|reason| said.contains(reason)) || !words.iter().all(|word| message.contains(word)) {
            wrong.push(format!("{name}: {said}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What was stored before is there still.
    let again = example.push(&data::model())?;
    ensure!(again == model, "the model was lost");
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn devices_and_queues_that_do_not_fit() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "unfit")?;
    let namespace = example.name();
    let model = example.inputs["MODEL"].clone();
    cluster.apply(&example.optimization("plain", &model, PLAIN, ""))?;
    cluster.completed("modeloptimization", namespace, "plain", LIMIT)?;
    cluster.apply(&format!(
        "{{apiVersion: edgeyard.dev/v1alpha1, kind: LeaseQueue, metadata: {{name: private, namespace: {}}}, spec: {{allowedNamespaces: {{from: Same}}}}}}",
        lab::NAMESPACE
    ))?;
    let private = format!("  queueRef: {{namespace: {}, name: private}}", lab::NAMESPACE);
    let m4 = "[{name: m4, deviceClassName: qemu-cortex-m4}]";
    let required = "  measurement: {energy: Required}";
    let cases: [(&str, String, &[&str], &[&str]); 5] = [
        (
            "no-meter",
            example.benchmark("no-meter", &["plain"], "[{name: host, deviceClassName: host-cpu}]", required),
            &["MeterMissing"],
            &["host-cpu", "BestEffort"],
        ),
        (
            "no-class",
            example.benchmark("no-class", &["plain"], "[{name: d, deviceClassName: toaster}]", ""),
            &["DeviceClassNotFound", "NoMatchingDevice"],
            &["toaster"],
        ),
        (
            "no-device",
            example.benchmark("no-device", &["plain"], "[{name: d, selector: {matchLabels: {site: mars}}}]", ""),
            &["NoMatchingDevice"],
            &["mars"],
        ),
        (
            "no-target",
            example.benchmark("no-target", &["plain"], m4, ""),
            &["NothingToMeasure", "NoArtifactForTarget"],
            &[],
        ),
        (
            "not-allowed",
            example.benchmark("not-allowed", &["plain"], "[{name: host, deviceClassName: host-cpu}]", &private),
            &["NamespaceNotAllowed"],
            &["private"],
        ),
    ];
    for (_, manifest, ..) in &cases {
        cluster.apply(manifest)?;
    }
    let mut wrong = Vec::new();
    for (name, _, reasons, words) in &cases {
        let (reason, message, _) = stuck(&cluster, "edgebenchmark", namespace, name)?;
        let said = format!("{reason} {message}");
        if !reasons.iter().any(|r| said.contains(r)) || !words.iter().all(|w| said.contains(w)) {
            wrong.push(format!("{name}: {said}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    cluster.kubectl(&["delete", "leasequeue", "private", "-n", lab::NAMESPACE])?;
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn a_device_on_hold_is_waited_for() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "hold")?;
    let namespace = example.name();
    cluster.apply(&example.optimization("plain", &example.inputs["MODEL"], PLAIN, ""))?;
    let hold = |policy: &str| {
        let patch = format!("{{\"spec\": {{\"stopPolicy\": \"{policy}\"}}}}");
        cluster.kubectl(&["patch", "edgedevice", "host-cpu-0", "-n", lab::NAMESPACE, "--type=merge", "-p", &patch])
    };
    hold("Hold")?;
    let result = (|| {
        cluster.apply(&example.benchmark("held", &["plain"], "[{name: host, deviceClassName: host-cpu}]", ""))?;
        wait_for("the lease to say that the device is held", LIMIT, || {
            let leases = cluster.list("devicelease", namespace, "")?;
            Ok(leases.iter().find_map(|lease| {
                let granted = condition(lease, "Granted", "False")?;
                (granted["reason"] == "DeviceHeld").then_some(())
            }))
        })?;
        hold("None")?;
        cluster.completed("edgebenchmark", namespace, "held", LIMIT)
    })();
    hold("None")?;
    result?;
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn an_image_that_no_node_has() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "image")?;
    let namespace = example.name();
    cluster.apply(&example.optimization("plain", &example.inputs["MODEL"], PLAIN, ""))?;
    cluster.apply(&format!(
        "{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeDeviceClass, metadata: {{name: no-image}}, spec: {{fidelity: Emulated, isolation: Unit, targets: [ort-x86], backend: {{type: Runtime}}, runner: {{image: \"localhost/edgeyard/nobody:none\"}}}}}}
---
{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeDevice, metadata: {{name: no-image-0, namespace: {}}}, spec: {{deviceClassName: no-image, connection: {{type: Emulator}}}}}}",
        lab::NAMESPACE
    ))?;
    let more = "  timeouts: {prepareSeconds: 20}\n  deviceLoss: {policy: Fail}";
    cluster.apply(&example.benchmark("no-image", &["plain"], "[{name: d, deviceClassName: no-image}]", more))?;
    let outcome = cluster.ended("edgebenchmark", namespace, "no-image", LIMIT)?;
    let said = format!("{} {}", outcome.reason, outcome.message);
    ensure!(
        !outcome.complete && said.contains("ImageUnavailable") && said.contains("localhost/edgeyard/nobody:none"),
        "{said}"
    );
    cluster.kubectl(&["delete", "eb", "--all", "-n", namespace, "--timeout=120s"])?;
    cluster.kubectl(&["delete", "edgedevice", "no-image-0", "-n", lab::NAMESPACE])?;
    cluster.kubectl(&["delete", "edgedeviceclass", "no-image"])?;
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn a_store_that_is_away_for_a_while() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "away")?;
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl(&["scale", "deployment/edgeyard-store", "-n", lab::SYSTEM, &replicas])
    };
    scale("0")?;
    let result = (|| {
        let gone = [
            "wait",
            "--for=delete",
            "pod",
            "-n",
            lab::SYSTEM,
            "-l",
            "app.kubernetes.io/component=store",
            "--timeout=60s",
        ];
        cluster.kubectl(&gone)?;
        cluster.apply(&example.optimization("plain", &example.inputs["MODEL"], PLAIN, ""))?;
        cluster.has_condition(
            ("modeloptimization", example.name(), "plain"),
            ("Ready", "False", "StoreUnavailable"),
            Duration::from_secs(120),
        )
    })();
    scale("1")?;
    let message = result?;
    ensure!(message.contains("store"), "{message}");
    cluster.completed("modeloptimization", example.name(), "plain", LIMIT)?;
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn a_namespace_whose_quota_is_full() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "full")?;
    let quota = format!("store.namespaceQuotas.{}=1", example.name());
    lab::install(&cluster, &[&quota])?;
    let result = (|| {
        let other = example::made_by("data.py", &["narrow"], "narrow.npz")?;
        let Err(error) = example.push(&other) else { bail!("a push into a full namespace was taken") };
        ensure!(error.to_string().contains("QuotaExceeded"), "{error}");
        cluster.apply(&example.optimization("full", &example.inputs["MODEL"], PLAIN, ""))?;
        stuck(&cluster, "modeloptimization", example.name(), "full")
    })();
    lab::install(&cluster, &[])?;
    let (reason, message, status) = result?;
    let said = format!("{reason} {message} {}", status["artifacts"]);
    ensure!(said.contains("QuotaExceeded") && message.contains("quota"), "{said}");
    // What was stored before is there still, and there is room again.
    cluster.apply(&example.optimization("room", &example.inputs["MODEL"], PLAIN, ""))?;
    cluster.completed("modeloptimization", example.name(), "room", LIMIT)?;
    example.cleared()
}

#[test]
#[ignore = "needs a cluster: cargo xtask test --only bad-input"]
fn deleting_at_any_moment_leaves_nothing() -> Result<()> {
    let cluster = Cluster::from_environment()?;
    lab::ready(&cluster)?;
    let example = Example::new(&cluster, "deleted")?;
    let namespace = example.name();
    // Deleted as soon as something of the next step is seen, so that every step is interrupted once.
    let moments: [&dyn Fn() -> Result<bool>; 4] = [
        &|| Ok(!cluster.list("jobs", namespace, "")?.is_empty()),
        &|| Ok(!cluster.list("benchmarkrun", namespace, "")?.is_empty()),
        &|| Ok(cluster.list("devicelease", namespace, "")?.iter().any(|lease| lease["status"]["phase"] == "Granted")),
        &|| Ok(cluster.list("benchmarkrun", namespace, "")?.iter().any(|run| run["status"]["step"] == "Measuring")),
    ];
    for (index, moment) in moments.iter().enumerate() {
        cluster.apply(&example.optimization("plain", &example.inputs["MODEL"], PLAIN, ""))?;
        cluster.apply(&example.benchmark("plain", &["plain"], "[{name: host, deviceClassName: host-cpu}]", ""))?;
        wait_for(&format!("moment {index}"), LIMIT, || Ok(moment()?.then_some(())))?;
        example.cleared()?;
    }
    Ok(())
}
