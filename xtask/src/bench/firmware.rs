//! `cargo xtask bench firmware`: exact instructions per inference on every emulated microcontroller, beside the counts of
//! TensorFlow Lite Micro's reference kernels, and instructions per multiplication of single operators.
//!
//! It speaks the firmware's protocol (hardware-lab/firmware/PROTOCOL.md) itself, so that it needs none of our crates built.
//! Counts do not depend on the host: two runs print the same.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::firmware::{self, Machine};
use crate::shell::{cargo, output, quiet};
use crate::{environment, layout};

/// What `cargo xtask bench firmware` accepts.
#[derive(clap::Args)]
pub struct Args {
    /// Further int8 .tflite files to measure
    models: Vec<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Instructions of TensorFlow Lite Micro's reference kernels on a Cortex-M4, counted the same way in QEMU.
const REFERENCE: [(&str, u64); 2] = [("person_detect", 221_800_000), ("speech", 9_330_000)];

/// One model's counts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    model: String,
    /// Multiplications of a model of one operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    multiplications: Option<u64>,
    /// Reference kernels on the M4, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_instructions: Option<u64>,
    /// Whether every machine's outputs are the oracle's.
    equal: bool,
    /// By core.
    instructions: BTreeMap<String, u64>,
}

/// Runs `cargo xtask bench firmware`.
///
/// # Errors
/// When the firmware does not build, a model is refused, or the emulator fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    let Args { models, output } = args;
    // The steps' lines would stand before the JSON.
    firmware::build_telling(*output == Output::Table)?;
    let folder = tempfile::tempdir()?;
    let rows = measure(models, folder.path())?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Output::Table => print!("{}", table(&rows)),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(extra: &[PathBuf], folder: &Path) -> Result<Vec<Row>> {
    let source = layout::root()?.join("hardware-lab/firmware");
    let variables: BTreeMap<_, _> = environment::variables()?.into_iter().collect();
    let variable = |name| std::env::var_os(name).or_else(|| variables.get(name).cloned()).context(name);
    let (python, qemu) = (variable("EDGEYARD_PYTHON")?, variable("EDGEYARD_QEMU_ARM")?);
    let published = published_models(&source)?;
    let mut whole: Vec<PathBuf> = REFERENCE.iter().map(|(name, _)| published.join(format!("{name}.tflite"))).collect();
    whole.extend(extra.iter().cloned());
    let generator = || {
        let mut command = Command::new(&python);
        command.arg(source.join("oracle/generate.py")).args(["--seed", "1"]);
        command
    };
    quiet(generator().arg("--bench").arg(folder.join("single")))?;
    let mut command = generator();
    for file in &whole {
        command.arg("--model").arg(file);
    }
    quiet(command.args(["--trials", "1"]).arg(folder.join("whole")))?;
    let index: BTreeMap<String, u64> = serde_json::from_str(&fs::read_to_string(folder.join("single/index.json"))?)?;

    let name = |file: &PathBuf| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut rows: Vec<(PathBuf, Row)> = Vec::new();
    for model in whole.iter().map(name) {
        let reference_instructions = REFERENCE.iter().find(|(known, _)| *known == model).map(|(_, count)| *count);
        let file = folder.join("whole").join(&model);
        rows.push((file, Row { reference_instructions, ..Row::new(model, None) }));
    }
    for (model, macs) in index {
        rows.push((folder.join("single").join(&model), Row::new(model, Some(macs))));
    }
    for machine in firmware::machines(&source)?.iter().filter(|machine| machine.emulated) {
        let mut device = Device::start(Path::new(&qemu), machine)?;
        for (file, row) in &mut rows {
            let (count, equal) = device.count(file).with_context(|| format!("{} on {}", row.model, machine.name))?;
            row.instructions.insert(machine.core.clone(), count);
            row.equal &= equal;
        }
    }
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

impl Row {
    fn new(model: String, multiplications: Option<u64>) -> Self {
        Row { model, multiplications, reference_instructions: None, equal: true, instructions: BTreeMap::new() }
    }
}

/// The folder of the models that a published crate carries; a lock file of its own names the version.
///
/// # Errors
/// When cargo cannot fetch the crate.
pub fn published_models(source: &Path) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
    }
    let mut command = cargo(source);
    command.args(["metadata", "--format-version", "1", "--locked", "--manifest-path", "models/Cargo.toml"]);
    let Metadata { packages } = serde_json::from_str(&output(&mut command)?)?;
    let found = packages.into_iter().find(|package| package.name == "microflow");
    Ok(found.context("the models' crate is not in its lock file")?.manifest_path.with_file_name("models"))
}

/// A table for people: whole models with ratios, then single operators with instructions per multiplication.
fn table(rows: &[Row]) -> String {
    let cores: Vec<&String> = rows.first().map(|row| row.instructions.keys().collect()).unwrap_or_default();
    let mut text = format!("{:44}", "instructions per inference");
    cores.iter().for_each(|core| text += &format!("{core:>13}"));
    text += &format!("{:>13}{:>8}{:>8}  outputs\n", "reference", "ref/M4", "M4/M55");
    let mut single = format!("\n{:44}", "instructions per multiplication");
    cores.iter().for_each(|core| single += &format!("{core:>13}"));
    single += &format!("{:>13}{:>8}{:>8}  outputs\n", "", "", "M4/M55");
    for row in rows {
        let Row { model, multiplications, reference_instructions, equal, instructions } = row;
        let count = |core: &str| instructions.get(core).map(|n| *n as f64);
        let ratio = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) if b > 0.0 => format!("{:.2}", a / b),
            _ => "-".to_owned(),
        };
        let mut line = format!("{model:44}");
        for core in &cores {
            let shown = match multiplications {
                Some(macs) => ratio(count(core), Some(*macs as f64)),
                None => instructions.get(*core).map_or_else(|| "-".to_owned(), u64::to_string),
            };
            line += &format!("{shown:>13}");
        }
        let reference = reference_instructions.map(|n| n as f64);
        let (shown, faster) = match multiplications {
            Some(_) => (String::new(), String::new()),
            None => (
                reference_instructions.map_or_else(|| "-".to_owned(), |n| n.to_string()),
                ratio(reference, count("Cortex-M4")),
            ),
        };
        let vector = ratio(count("Cortex-M4"), count("Cortex-M55"));
        let outputs = if *equal { "equal" } else { "DIFFER" };
        line += &format!("{shown:>13}{faster:>8}{vector:>8}  {outputs}\n");
        if multiplications.is_some() { single += &line } else { text += &line }
    }
    text + &single
}

/// A running emulator.
struct Device {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Drop for Device {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Device {
    fn start(qemu: &Path, machine: &Machine) -> Result<Self> {
        let elf = environment::firmware_dir()?.join(format!("{}.elf", machine.name));
        let mut child = Command::new(qemu)
            .args([
                "-M",
                &machine.name,
                "-nographic",
                "-monitor",
                "none",
                "-serial",
                "null",
                "-icount",
                "shift=6,sleep=off",
            ])
            .args(["-semihosting-config", "enable=on,target=native", "-kernel"])
            .arg(elf)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", qemu.display()))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (requests, answers) = pipes.context("QEMU has no pipes")?;
        Ok(Device { child, requests, answers })
    }

    /// Instructions of one inference, and whether its outputs are those beside the model.
    fn count(&mut self, file: &Path) -> Result<(u64, bool)> {
        let beside = |extension: &str| fs::read(PathBuf::from(format!("{}.{extension}", file.display())));
        self.ask(0x02, &beside("tflite")?, 0x82)?;
        let answer = self.ask(0x03, &beside("in")?, 0x83)?;
        let (total, rest) = answer.split_first_chunk().context("a result too short")?;
        let (operators, rest) = rest.split_first_chunk().context("a result too short")?;
        let outputs = rest.get(4 * u32::from_le_bytes(*operators) as usize..).context("a result too short")?;
        Ok((u64::from_le_bytes(*total), outputs == beside("out")?))
    }

    fn ask(&mut self, kind: u8, payload: &[u8], wanted: u8) -> Result<Vec<u8>> {
        let mut body = vec![kind, 1];
        body.extend(u32::try_from(payload.len())?.to_le_bytes());
        body.extend(payload);
        let checksum = crc32(&body);
        self.requests.write_all(b"EY")?;
        self.requests.write_all(&body)?;
        self.requests.write_all(&checksum.to_le_bytes())?;
        self.requests.flush()?;
        let mut head = [0; 8];
        self.answers.read_exact(&mut head).context("the emulator ended")?;
        let [b'E', b'Y', kind, 1, length @ ..] = head else { bail!("bytes that are no frame") };
        let mut payload = vec![0; u32::from_le_bytes(length) as usize];
        self.answers.read_exact(&mut payload)?;
        self.answers.read_exact(&mut [0; 4])?;
        let words = String::from_utf8_lossy(payload.get(4..).unwrap_or_default());
        ensure!(kind != 0x90, "refused: {words}");
        ensure!(kind == wanted, "answer {kind:#x} in place of {wanted:#x}");
        Ok(payload)
    }
}

/// CRC-32 (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 != 0 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_standard_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn single_operators_are_shown_per_multiplication() {
        let counts = |m4, m55| BTreeMap::from([("Cortex-M4".to_owned(), m4), ("Cortex-M55".to_owned(), m55)]);
        let rows = [
            Row { reference_instructions: Some(600), instructions: counts(200, 40), ..Row::new("net".into(), None) },
            Row { instructions: counts(300, 100), ..Row::new("conv".into(), Some(200)) },
        ];
        let text = table(&rows);
        let words = |name| {
            let line: &str = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(words("net"), ["net", "200", "40", "600", "3.00", "5.00", "equal"]);
        assert_eq!(words("conv"), ["conv", "1.50", "0.50", "3.00", "equal"]);
    }
}
