//! The suites, in the order in which they run: what is quick and says most comes first.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};
use fs_err as fs;

use super::{Outcome, Plan, Skip, cargo_tests};
use crate::shell::{cargo, quiet, say};
use crate::{binaries, cluster, codegen, environment, images, layout};

/// One suite.
pub struct Suite {
    /// What `--only` takes.
    pub name: String,
    /// One line for `--list`.
    pub about: String,
    /// Whether it starts the lab's cluster, which then ends with the run.
    pub on_cluster: bool,
    /// Does it.
    pub run: fn(&Suite, &Plan) -> Result<Outcome>,
}

/// End-to-end tests in this order; others of `e2e/tests/` follow by name.
const ORDER: [&str; 10] = [
    "crds-server",
    "flow",
    "bad-input",
    "dashboards",
    "store-server",
    "chaos-operator",
    "chaos-store",
    "chaos-optimizer",
    "chaos-runner",
    "helm",
];

/// Every suite.
///
/// # Errors
/// When `e2e/tests` cannot be read.
pub fn all() -> Result<Vec<Suite>> {
    let suite = |name: &str, about: &str, run| Suite { name: name.into(), about: about.into(), on_cluster: false, run };
    let mut suites = vec![
        suite("fmt", "rustfmt has nothing to change", fmt),
        suite("architecture", "the walls of ARCHITECTURE.md, from cargo's metadata", architecture),
        // Before `unit`: the device-runner is tested on the ELFs.
        suite("firmware", "the firmware's own tests on the host, and its ELFs", firmware),
        suite(
            "tflm-parity",
            "generated and published models on every emulated core against TensorFlow Lite Micro",
            tflm_parity,
        ),
        suite("unit", "unit, integration and doc tests of every crate", unit),
        suite("codegen", "generated files are what the code gives", codegen),
        suite("clippy", "no lint is broken", clippy),
        Suite {
            on_cluster: true,
            ..suite("cluster", "the lab's cluster: up, down, killed hard, another checkout's", cluster)
        },
    ];
    for name in end_to_end()? {
        suites.push(Suite {
            about: format!("e2e/tests/{name}.rs on a real cluster"),
            name,
            on_cluster: true,
            run: end_to_end_suite,
        });
    }
    Ok(suites)
}

fn end_to_end() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(layout::root()?.join("e2e/tests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort_by_key(|name| (ORDER.iter().position(|o| o == name).unwrap_or(ORDER.len()), name.clone()));
    Ok(names)
}

fn fmt(_: &Suite, _: &Plan) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (name, dir) in [("workspace", "."), ("firmware", "hardware-lab/firmware")] {
        let dir = layout::root()?.join(dir);
        if dir.join("Cargo.toml").exists() {
            let result = quiet(cargo(&dir).args(["fmt", "--all", "--", "--check", "--files-with-diff"]));
            outcome.add(name, result.context("run `cargo fmt --all` there"));
        }
    }
    Ok(outcome)
}

fn architecture(suite: &Suite, plan: &Plan) -> Result<Outcome> {
    let mut command = tests(plan)?;
    command.args(["--workspace", "--bin", "xtask", "test::architecture::"]);
    let outcome = cargo_tests::run(&suite.name, &mut command, &[])?;
    ensure!(outcome.passed + outcome.failed.len() as u64 > 0, "no architecture test ran");
    Ok(outcome)
}

fn unit(suite: &Suite, plan: &Plan) -> Result<Outcome> {
    let mut command = tests(plan)?;
    command.args(["--workspace", "--no-fail-fast"]);
    let elsewhere: Vec<String> = end_to_end()?.iter().map(|name| name.replace('-', "_")).chain(end_to_end()?).collect();
    cargo_tests::run(&suite.name, &mut command, &elsewhere)
}

fn firmware(suite: &Suite, plan: &Plan) -> Result<Outcome> {
    let dir = layout::root()?.join("hardware-lab/firmware");
    let mut command = cargo(&dir);
    command.args(["test", "--no-fail-fast", "--target-dir"]).arg(layout::cargo_target()?.join("firmware-build/host"));
    command.envs(variables(plan)?);
    let mut outcome = cargo_tests::run(&suite.name, &mut command, &[])?;
    outcome.add("ELFs build", crate::firmware::build().map(drop));
    Ok(outcome)
}

/// Models from the run's seed. Its program is `test = false`, so that the suite `unit` does not run it again.
fn tflm_parity(suite: &Suite, plan: &Plan) -> Result<Outcome> {
    let mut command = tests(plan)?;
    command.args(["--workspace", "--test", "tflm_parity"]);
    // Alone, no other suite has built what the emulators run.
    crate::firmware::build()?;
    command.env("EDGEYARD_MNIST_TFLITE", mnist_in_int8(plan)?);
    let outcome = cargo_tests::run(&suite.name, &mut command, &[])?;
    ensure!(outcome.passed + outcome.failed.len() as u64 > 0, "no test of device-runner/tests/tflm_parity.rs ran");
    Ok(outcome)
}

/// The example's MNIST network as our own optimizer lowers it.
fn mnist_in_int8(plan: &Plan) -> Result<PathBuf> {
    let variables = variables(plan)?;
    let variable = |name: &str| {
        variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
            .with_context(|| format!("{name} is not among the variables"))
    };
    let (root, out) = (layout::root()?, layout::target()?.join("test/tflm-parity"));
    let example = root.join("examples/mnist");
    let mut prepare = Command::new(variable("EDGEYARD_PYTHON")?);
    prepare.arg(example.join("prepare.py")).arg(variable("EDGEYARD_MNIST_DIR")?).arg(&out);
    quiet(&mut prepare).context("preparing MNIST")?;
    let mut optimizer = Command::new(binaries::build(&["edgeyard-optimizer"], None)?.join("edgeyard-optimizer"));
    optimizer.args(["run", "--target", "tflm", "--pass", "int8", "--model"]).arg(example.join("mnist-cnn.onnx"));
    optimizer.arg("--calibration").arg(out.join("calib.npz")).arg("--out").arg(&out);
    quiet(optimizer.envs(variables.iter().cloned())).context("making the int8 MNIST network")?;
    Ok(out.join("model.tflite"))
}

fn codegen(_: &Suite, _: &Plan) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for codegen::Outcome { file, difference } in codegen::check_or_write(false)? {
        outcome.add(
            file,
            difference.map_or(Ok(()), |d| Err(anyhow::anyhow!("{d}; run `cargo xtask codegen` and commit"))),
        );
    }
    Ok(outcome)
}

fn clippy(_: &Suite, _: &Plan) -> Result<Outcome> {
    let mut cargo = cargo(&layout::root()?);
    cargo.args(["clippy", "--release", "--workspace", "--", "-Dwarnings"]);
    Ok(Outcome::single("workspace", quiet(&mut cargo)))
}

fn cluster(suite: &Suite, plan: &Plan) -> Result<Outcome> {
    if plan.kubeconfig.is_some() {
        let reason =
            "another cluster was given with --kubeconfig; this suite starts and kills the lab's own".to_owned();
        return Ok(Outcome { skipped: vec![Skip { name: suite.name.clone(), reason }], ..Outcome::default() });
    }
    // One of its pods is of the arm64 image.
    images_built()?;
    Ok(cluster::suite::run())
}

/// Builds the images once for all suites: what they are made of does not change between them.
fn images_built() -> Result<()> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let build = || images::build().map(drop).map_err(|error| format!("{error:#}"));
    BUILT.get_or_init(build).clone().map_err(anyhow::Error::msg).context("building the images")
}

/// One file of `e2e/tests`: its tests are `#[ignore]`d for everybody but this suite.
fn end_to_end_suite(suite: &Suite, plan: &Plan) -> Result<Outcome> {
    if plan.kubeconfig.is_none() {
        images_built()?;
        cluster::up()?;
        let imported = images::import_built()?;
        if !imported.is_empty() {
            say(&format!("imported {}", imported.join(", ")));
        }
        cluster::recycle_volumes()?;
    }
    let mut command = tests(plan)?;
    // The whole workspace: with fewer packages cargo unifies features differently and compiles everything again.
    command.args(["--workspace", "--test", &suite.name, "--", "--ignored", "--test-threads=1"]);
    let outcome = cargo_tests::run(&suite.name, &mut command, &[])?;
    ensure!(
        outcome.passed + outcome.failed.len() as u64 > 0,
        "no test of e2e/tests/{}.rs ran; are they #[ignore]d?",
        suite.name
    );
    Ok(outcome)
}

/// `cargo test --release` with the runtimes and the cluster in its environment.
fn tests(plan: &Plan) -> Result<Command> {
    let mut command = cargo(&layout::root()?);
    command.args(["test", "--release"]).envs(variables(plan)?);
    Ok(command)
}

fn variables(plan: &Plan) -> Result<Vec<(&'static str, OsString)>> {
    let mut variables = environment::variables()?;
    variables.push(("EDGEYARD_TEST_SEED", plan.seed.to_string().into()));
    variables.push(("PROPTEST_RNG_SEED", plan.seed.to_string().into()));
    match &plan.kubeconfig {
        Some(file) => variables.push(("KUBECONFIG", fs::canonicalize(file)?.into())),
        None => variables.extend(environment::cluster()?),
    }
    Ok(variables)
}
