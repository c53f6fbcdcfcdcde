//! The cases against a real API server, found by `KUBECONFIG`, in a namespace that is made for them.

mod table;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use table::{Case, Request, Verdict};

#[test]
fn api_server_answers_as_intended() {
    if std::env::var_os("KUBECONFIG").is_none() {
        eprintln!("SKIPPED api_server_answers_as_intended: KUBECONFIG names no cluster");
        return;
    }
    install_crds();
    let namespace = Namespace::create();
    let mut wrong = vec![];
    let (mut accepted, mut rejected) = (0, 0);
    for case in table::cases() {
        match (case.server(), namespace.answer(&case)) {
            (Verdict::Accepts, Ok(())) => accepted += 1,
            (Verdict::Rejects, Err(text)) if text.contains(case.message.as_deref().unwrap_or_default()) => {
                rejected += 1
            }
            (_, answer) => wrong.push(format!("{}: {answer:?}", case.name)),
        }
    }
    println!("{accepted} accepted, {rejected} rejected as intended");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn install_crds() {
    let crds: Vec<Value> = edgeyard_crds::generate::all().iter().map(|c| serde_json::to_value(c).expect("JSON")).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": crds });
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &list).expect("CRDs are accepted");
    kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], &Value::Null)
        .expect("established");
}

struct Namespace(String);

impl Namespace {
    fn create() -> Self {
        let name = format!("edgeyard_crds-{}", std::process::id());
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        kubectl(&["create", "-f", "-"], &namespace).expect("a namespace");
        Self(name)
    }

    fn answer(&self, case: &Case) -> Result<(), String> {
        let (mut before, mut after) = case.objects();
        if case.on == Request::Create {
            return self.kubectl(&["create", "--dry-run=server", "-f", "-"], &after);
        }
        // Finalizers would outlive the test.
        for object in [&mut before, &mut after] {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("finalizers");
            }
        }
        self.kubectl(&["delete", "--ignore-not-found", "--wait", "-f", "-"], &before)?;
        self.kubectl(&["create", "-f", "-"], &before)?;
        self.kubectl(&["replace", "--subresource=status", "-f", "-"], &before)?;
        match case.on {
            Request::Status => {
                self.kubectl(&["replace", "--subresource=status", "--dry-run=server", "-f", "-"], &after)
            }
            _ => self.kubectl(&["replace", "--dry-run=server", "-f", "-"], &after),
        }
    }

    fn kubectl(&self, args: &[&str], input: &Value) -> Result<(), String> {
        kubectl(&[&["--namespace", &self.0], args].concat(), input)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = kubectl(&["delete", "namespace", "--wait=false", &self.0], &Value::Null);
    }
}

fn kubectl(args: &[&str], input: &Value) -> Result<(), String> {
    let mut child = Command::new("kubectl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl is on the PATH");
    child.stdin.take().expect("piped").write_all(input.to_string().as_bytes()).expect("kubectl reads");
    let output = child.wait_with_output().expect("kubectl ends");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
