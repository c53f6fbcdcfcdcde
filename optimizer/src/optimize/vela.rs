//! Arm's compiler for Ethos-U as a program of its own: it says how many cycles and how much SRAM an artefact would take, and
//! which operators stay on the CPU. Estimates, never measurements.

use std::path::Path;
use std::process::Command;

use edgeyard_job::report::CompilerEstimate;
use thiserror::Error;

/// Names the program; without it, `python3 -m ethosu.vela` is tried.
pub const VELA_VARIABLE: &str = "EDGEYARD_VELA";
/// Names the Python that has `ethosu.vela`, when no program is named.
const PYTHON_VARIABLE: &str = "EDGEYARD_PYTHON";

/// Why there is no estimate.
#[derive(Debug, Error)]
pub enum VelaError {
    /// The program is not there.
    #[error("{problem}")]
    Missing {
        /// What to do.
        problem: String,
    },
    /// It does not take the artefact.
    #[error("Vela does not compile the artefact: {0}")]
    Refused(String),
    /// Its files are not what is known of it.
    #[error("Vela's summary cannot be read: {0}")]
    Summary(String),
    /// Files around it.
    #[error("Vela cannot be given the artefact")]
    Io(#[from] std::io::Error),
}

/// Compiles a `.tflite` for an accelerator such as `ethos-u55-128`.
///
/// # Errors
/// [`VelaError::Missing`] when there is no Vela; else what it says.
pub fn compile(artifact: &[u8], accelerator: &str) -> Result<CompilerEstimate, VelaError> {
    let version = version()?;
    let folder = tempfile::tempdir()?;
    let (input, output) = (folder.path().join("model.tflite"), folder.path().join("output"));
    fs_err::write(&input, artifact)?;
    let run =
        program().arg("--accelerator-config").arg(accelerator).arg("--output-dir").arg(&output).arg(&input).output()?;
    if !run.status.success() {
        let said = [run.stderr, run.stdout].concat();
        let said = String::from_utf8_lossy(&said);
        let last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        return Err(VelaError::Refused(last[last.len().saturating_sub(3)..].join("; ")));
    }
    let (cycles, sram_bytes) = summary(&output)?;
    let compiled = fs_err::read(output.join("model_vela.tflite"))?;
    let left = |bytes: &[u8]| -> Result<(u64, u64), VelaError> {
        let model = edgeyard_tflite::read(bytes).map_err(|error| VelaError::Summary(error.to_string()))?;
        let operators = model.subgraphs.first().map(|graph| graph.operators.as_slice()).unwrap_or_default();
        let blocks = operators.iter().filter(|operator| operator.code.custom.as_deref() == Some("ethos-u")).count();
        Ok((operators.len() as u64, blocks as u64))
    };
    let (before, _) = left(artifact)?;
    let (after, blocks) = left(&compiled)?;
    let cpu_operators = after - blocks;
    Ok(CompilerEstimate {
        compiler: format!("Vela {version}"),
        accelerator: accelerator.to_owned(),
        cycles,
        sram_bytes,
        accelerated_operators: before.saturating_sub(cpu_operators),
        cpu_operators,
    })
}

fn program() -> Command {
    match std::env::var_os(VELA_VARIABLE).filter(|program| !program.is_empty()) {
        Some(program) => Command::new(program),
        None => {
            let python = std::env::var_os(PYTHON_VARIABLE).filter(|python| !python.is_empty());
            let mut command = Command::new(python.unwrap_or_else(|| "python3".into()));
            command.args(["-m", "ethosu.vela"]);
            command
        }
    }
}

fn version() -> Result<String, VelaError> {
    let missing = |problem: String| VelaError::Missing {
        problem: format!(
            "Vela was not run, because {problem}: install ethos-u-vela from PyPI and let {VELA_VARIABLE} name its program \
             vela"
        ),
    };
    let ran =
        program().arg("--version").output().map_err(|error| missing(format!("it cannot be started ({error})")))?;
    let said = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    if ran.status.success() && said.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(said);
    }
    let why = String::from_utf8_lossy(&ran.stderr);
    Err(missing(why.lines().last().unwrap_or("it does not tell its version").trim().to_owned()))
}

/// Cycles of an inference and bytes of SRAM, from the one table that Vela writes.
fn summary(folder: &Path) -> Result<(u64, u64), VelaError> {
    let table = fs_err::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("_summary_") && path.extension().is_some_and(|end| end == "csv"))
        .ok_or_else(|| VelaError::Summary("it wrote no summary".to_owned()))?;
    let text = fs_err::read_to_string(table)?;
    let mut lines = text.lines();
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Err(VelaError::Summary("the summary is empty".to_owned()));
    };
    let columns: Vec<(&str, &str)> = names.split(',').zip(values.split(',')).collect();
    let number = |wanted: &str| {
        let found = columns.iter().find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse::<f64>().ok());
        found.ok_or_else(|| VelaError::Summary(format!("it has no number {wanted}")))
    };
    // Memory is in KiB.
    Ok((number("cycles_total")?.round() as u64, (number("sram_memory_used")? * 1024.0).round() as u64))
}
