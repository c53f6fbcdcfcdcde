//! The walls between crates, checked from what cargo itself knows about them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::layout;
use crate::shell::{cargo, output};

/// Crates of the workspace by name: their folder, and the names of what they depend on (without dev-dependencies).
struct Workspace {
    crates: BTreeMap<String, Crate>,
}

struct Crate {
    dir: String,
    depends: BTreeSet<String>,
    dev_depends: BTreeSet<String>,
}

impl Workspace {
    fn read() -> Self {
        let root = layout::root().unwrap();
        let text = output(cargo(&root).args(["metadata", "--format-version=1", "--no-deps", "--offline"])).unwrap();
        let metadata: Value = serde_json::from_str(&text).unwrap();
        let crates = metadata["packages"].as_array().unwrap().iter().map(|package| {
            let names = |dev: bool| {
                let all = package["dependencies"].as_array().unwrap().iter();
                all.filter(|d| (d["kind"] == "dev") == dev).map(|d| d["name"].as_str().unwrap().to_owned()).collect()
            };
            let manifest = package["manifest_path"].as_str().unwrap();
            let dir = manifest
                .strip_prefix(root.to_str().unwrap())
                .unwrap()
                .trim_matches('/')
                .trim_end_matches("/Cargo.toml");
            let entry = Crate { dir: dir.to_owned(), depends: names(false), dev_depends: names(true) };
            (package["name"].as_str().unwrap().to_owned(), entry)
        });
        Self { crates: crates.collect() }
    }

    /// Names of the crates whose normal dependencies break `rule`, as lines.
    fn broken(&self, rule: impl Fn(&Crate, &str) -> bool) -> Vec<String> {
        let all = self.crates.iter().flat_map(|(name, c)| c.depends.iter().map(move |d| (name, c, d)));
        all.filter(|(_, c, d)| rule(c, d)).map(|(name, c, d)| format!("{} ({name}) depends on {d}", c.dir)).collect()
    }

    fn dir(&self, name: &str) -> Option<&str> {
        self.crates.get(name).map(|c| c.dir.as_str())
    }
}

const BINARIES: [&str; 7] = ["operator", "store", "optimizer", "device-runner", "cli", "xtask", "e2e"];

#[test]
fn the_workspace_is_seen() {
    let workspace = Workspace::read();
    for dir in ["crds", "libs/job", "operator", "device-runner"] {
        assert!(workspace.crates.values().any(|c| c.dir == dir), "{dir} is not a member any more: mend these rules");
    }
}

/// A library that knows a binary's crate drags its world into everything.
#[test]
fn libraries_and_crds_depend_on_no_binary() {
    let workspace = Workspace::read();
    let broken = workspace.broken(|c, on| {
        !BINARIES.contains(&c.dir.as_str()) && workspace.dir(on).is_some_and(|d| BINARIES.contains(&d))
    });
    assert!(broken.is_empty(), "{broken:#?}");
}

/// They meet through CRDs, the store's HTTP API, job specs and files: that is what lets them be upgraded one by one.
#[test]
fn binaries_do_not_depend_on_one_another() {
    let workspace = Workspace::read();
    // e2e and xtask are no products: they may use anything that is a library.
    let products = &BINARIES[..5];
    let broken = workspace
        .broken(|c, on| products.contains(&c.dir.as_str()) && workspace.dir(on).is_some_and(|d| BINARIES.contains(&d)));
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A pod that measures must not be able to talk to the API server, and a library must not need a cluster.
#[test]
fn only_some_use_a_kubernetes_client() {
    let may = ["operator", "cli", "store", "xtask", "e2e"];
    // `kube` without its client is how crds gets its derive macro; the client's crates are what is forbidden.
    let workspace = Workspace::read();
    let broken = workspace.broken(|c, on| {
        !may.contains(&c.dir.as_str())
            && (on == "kube-client" || on == "kube-runtime" || (on == "kube" && c.dir != "crds"))
    });
    assert!(broken.is_empty(), "{broken:#?}");
}

/// An engine in the operator would make it large, slow to build, and able to crash on a model.
#[test]
fn only_some_link_an_engine() {
    let engines = ["ort", "ort-sys", "edgefirst-tflite", "litert", "tract-onnx", "burn", "candle-core"];
    let workspace = Workspace::read();
    let broken = workspace.broken(|c, on| engines.contains(&on) && c.dir != "optimizer" && c.dir != "device-runner");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn crds_and_libs_have_no_runtime() {
    let workspace = Workspace::read();
    // The artefact client speaks HTTP, hence tokio there.
    let broken = workspace
        .broken(|c, on| on == "tokio" && (c.dir == "crds" || (c.dir.starts_with("libs/") && c.dir != "libs/artifact")));
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn no_crate_is_called_common_or_utils() {
    let workspace = Workspace::read();
    let names: Vec<&str> = workspace.crates.values().map(|c| c.dir.rsplit('/').next().unwrap()).collect();
    assert!(!names.iter().any(|n| ["common", "util", "utils", "shared", "helpers"].contains(n)), "{names:?}");
}

/// Products must not link what only tests need.
#[test]
fn test_tools_stay_in_dev_dependencies() {
    let workspace = Workspace::read();
    let tools = ["proptest", "insta", "tower-test", "wiremock"];
    let broken = workspace.broken(|c, on| tools.contains(&on) && c.dir != "e2e");
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(workspace.crates.values().any(|c| !c.dev_depends.is_empty()), "dev-dependencies are seen");
}
