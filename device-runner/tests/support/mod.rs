//! Models made at test time, and the program run on them.
#![allow(dead_code)] // each test program uses its part

pub mod models;
pub mod schema;
pub mod store;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use edgeyard_device_runner::npz;
use edgeyard_device_runner::tensor::{Array, Element};
use edgeyard_record::Record;
use serde_json::Value;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_edgeyard-device-runner");

/// Fails with what to do if a runtime is not installed.
pub fn need(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    path.unwrap_or_else(|| {
        panic!("{variable} names nothing that exists: run `cargo xtask setup`, then `cargo xtask test`")
    })
}

/// A folder that is removed afterwards.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a file and gives its path.
pub fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Writes a program of the shell and gives its path.
pub fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = file(folder, name, format!("#!/bin/sh\n{body}\n").as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// QEMU, but the plugin's file says nine times as much of the first operator when it ends.
pub fn lying_qemu(folder: &Path) -> PathBuf {
    let real = need("EDGEYARD_QEMU_ARM");
    let body = format!(
        "out=\nfor a; do case \"$a\" in *,out=*) out=${{a##*,out=}};; esac; done\n[ -n \"$out\" ] || exec '{0}' \"$@\"\n\
         '{0}' \"$@\" || exit\nsed -i 's/\"runs\":\\[\\([0-9]*\\),/&9/' \"$out\"",
        text(&real)
    );
    script(folder, "qemu", &body)
}

/// Little-endian floats.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A data set of floats with labels.
pub fn data_set(folder: &Path, name: &str, shape: &[usize], x: &[f32], y: Option<&[i64]>) -> PathBuf {
    let x = Array { element: Element::F32, shape: shape.into(), data: bytes(x) };
    let y = y.map(|labels| Array {
        element: Element::I64,
        shape: vec![labels.len()],
        data: labels.iter().flat_map(|label| label.to_le_bytes()).collect(),
    });
    let arrays = [Some(("x", &x)), y.as_ref().map(|y| ("y", y))];
    file(folder, name, &npz::write(arrays.into_iter().flatten()).unwrap())
}

/// Starts `run`.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("RUST_LOG", "warn");
    command
}

/// Runs to the end.
pub fn output(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Runs and expects success.
pub fn succeed(arguments: &[&str]) -> String {
    let output = output(arguments);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{}: {stdout}{stderr}", output.status);
    stdout
}

/// Runs, and expects an exit code and a reason with a text.
pub fn fail(arguments: &[&str], code: i32, reason: &str, text: &str) {
    let output = output(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(&format!("({reason})")) && stderr.contains(text), "{stderr}");
}

/// The record in a folder, which must be canonical, keep to its schema, and explain all its nulls.
pub fn record(folder: &Path) -> Record {
    let bytes = std::fs::read(folder.join("record.json")).unwrap();
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let schema = serde_json::to_value(edgeyard_record::json_schema()).unwrap();
    assert_eq!(schema::violations(&schema, &document), Vec::<String>::new());
    let record: Record = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(record.nulls_without_reason(), Vec::<String>::new());
    assert_eq!(record.stale_reasons(), Vec::<String>::new());
    assert_eq!(record.seal().unwrap().0, bytes, "the record is not canonical");
    record
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
