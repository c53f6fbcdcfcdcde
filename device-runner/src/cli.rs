//! The command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use edgeyard_job::spec::{AccuracyMetric, Backend, ExecutionProvider, HeadlinePercentile, Profile, Scenario};

use crate::error::Failure;
use crate::meter::check;
use crate::{agent, analyse, catalogue, inspect, job, lane, overhead, parity, run, table};

/// Measures models on one device.
#[derive(Parser, Debug)]
#[command(name = "edgeyard-device-runner", version, about, max_term_width = 120)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Measure models by hand.
    Run(Run),
    /// Do what a job spec says and put the record into the store.
    Job {
        /// The job spec.
        #[arg(long, value_name = "FILE")]
        spec: PathBuf,
    },
    /// Print a record for people.
    Inspect(Inspect),
    /// Judge latencies from elsewhere by the same statistics.
    Analyse(analyse::Analyse),
    /// Tell how many of the slowest queries early stopping discards.
    EarlyStopping(analyse::EarlyStoppingArguments),
    /// List the meters of this machine.
    Meters(check::MetersArguments),
    /// Read a meter beside a known load and say whether it can be trusted.
    MeterTest(check::MeterTest),
    /// Serve what restricted pods cannot read of this node.
    Agent(agent::AgentArguments),
    /// Compare a model on an emulated microcontroller with TensorFlow Lite Micro, bit for bit; ends with 3 if they differ.
    Parity(parity::Parity),
    /// List the device classes that the program knows.
    Classes {
        /// How to print.
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Print a completion script.
    Completion {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    /// Serve one variant; started by the other commands.
    #[command(hide = true)]
    Lane,
    /// Tell what the harness adds to an inference; for the benchmark of the runner.
    #[command(hide = true)]
    Overhead(overhead::Overhead),
}

/// Measure models by hand.
#[derive(clap::Args, Debug)]
pub struct Run {
    /// A model, .onnx or .tflite. Several are measured in turns and compared with the first.
    #[arg(long, value_name = "FILE", required = true)]
    pub model: Vec<PathBuf>,
    /// The device class, by name or as a manifest; see `classes`.
    #[arg(long, value_name = "NAME|FILE")]
    pub device_class: String,
    /// The runtime of all models; found from file and class if absent.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Samples to infer on: an .npz with `x`.
    #[arg(long, value_name = "FILE", conflicts_with = "evaluation")]
    pub inputs: Option<PathBuf>,
    /// Samples and labels to compute the accuracy from: an .npz with `x` and `y`.
    #[arg(long, value_name = "FILE")]
    pub evaluation: Option<PathBuf>,
    /// How predictions are scored.
    #[arg(long, value_enum, default_value_t = Metric::Top1Accuracy, requires = "evaluation")]
    pub metric: Metric,
    /// Write the outputs on all samples as outputs.npz.
    #[arg(long)]
    pub save_outputs: bool,
    /// In what pattern inputs are fed.
    #[arg(long, value_enum, default_value_t = ScenarioName::SingleStream, ignore_case = true)]
    pub scenario: ScenarioName,
    /// How long is measured.
    #[arg(long, value_enum, default_value_t = ProfileName::Quick, ignore_case = true)]
    pub profile: ProfileName,
    /// Queries of each model at least; by default what profile and scenario ask for.
    #[arg(long, value_name = "N")]
    pub query_count: Option<u64>,
    /// The percentile that the run is about; by default the scenario's.
    #[arg(long, value_enum, value_name = "P", ignore_case = true)]
    pub percentile: Option<PercentileName>,
    /// What the percentile must not exceed; for the Server scenario.
    #[arg(long, value_name = "NANOSECONDS")]
    pub latency_bound: Option<u64>,
    /// Wait until the machine is this cool, in degrees Celsius, before measuring.
    #[arg(long, value_name = "CELSIUS", allow_negative_numbers = true)]
    pub cool_down: Option<i32>,
    /// Fixes every choice that chance would make.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Threads of a runtime; by default as many as the class allows, at most what is here.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// What measures energy: rapl, agent:rapl, hwmon:CHIP[/LABEL], jetson, rpi5-pmic, nvml[:INDEX], lpm01a:DEVICE@MILLIVOLTS,
    /// ppk2:DEVICE@MILLIVOLTS, exec:COMMAND or replay:DIR.
    #[arg(long)]
    pub meter: Option<String>,
    /// What computes in ONNX Runtime; by default what the device class says, the processor in most.
    #[arg(long, value_enum)]
    pub execution_provider: Option<Provider>,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub deadline: Option<u64>,
    /// Folder for record.json and what goes with it.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How to print the result.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Print a record for people.
#[derive(clap::Args, Debug)]
pub struct Inspect {
    /// The record.
    pub record: PathBuf,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
    /// Write plots of latency as SVG files into this folder.
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
}

/// How to print.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// How long is measured.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum ProfileName {
    /// Does it work: about a second.
    Smoke,
    /// About five seconds a variant.
    Quick,
    /// About a minute a variant.
    Standard,
    /// At least ten minutes a variant.
    Official,
}

/// In what pattern inputs are fed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum ScenarioName {
    /// One inference after the other: the 90th percentile counts.
    SingleStream,
    /// Eight inferences a query, one query after the other: the 99th percentile counts.
    MultiStream,
    /// Queries arrive on their own: the highest rate that keeps a bound counts.
    Server,
    /// All samples at once: the throughput counts.
    Offline,
    /// Five windows of ten seconds: the median of their rates counts.
    Tiny,
}

impl From<ScenarioName> for Scenario {
    fn from(name: ScenarioName) -> Self {
        match name {
            ScenarioName::SingleStream => Self::SingleStream,
            ScenarioName::MultiStream => Self::MultiStream,
            ScenarioName::Server => Self::Server,
            ScenarioName::Offline => Self::Offline,
            ScenarioName::Tiny => Self::Tiny,
        }
    }
}

/// What computes in ONNX Runtime.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum Provider {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU, with an ONNX Runtime that is built for it.
    Cuda,
}

impl From<Provider> for ExecutionProvider {
    fn from(provider: Provider) -> Self {
        match provider {
            Provider::Cpu => Self::Cpu,
            Provider::Cuda => Self::Cuda,
        }
    }
}

/// A percentile that a run is about.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum PercentileName {
    /// The median.
    P50,
    /// The 90th.
    P90,
    /// The 95th.
    P95,
    /// The 97th.
    P97,
    /// The 99th.
    P99,
    /// The 99.9th.
    P999,
}

impl From<PercentileName> for HeadlinePercentile {
    fn from(name: PercentileName) -> Self {
        match name {
            PercentileName::P50 => Self::P50,
            PercentileName::P90 => Self::P90,
            PercentileName::P95 => Self::P95,
            PercentileName::P97 => Self::P97,
            PercentileName::P99 => Self::P99,
            PercentileName::P999 => Self::P999,
        }
    }
}

impl From<ProfileName> for Profile {
    fn from(name: ProfileName) -> Self {
        match name {
            ProfileName::Smoke => Self::Smoke,
            ProfileName::Quick => Self::Quick,
            ProfileName::Standard => Self::Standard,
            ProfileName::Official => Self::Official,
        }
    }
}

/// How predictions are scored.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
pub enum Metric {
    /// Share of samples whose best class is right.
    Top1Accuracy,
    /// Share of samples whose right class is among the best five.
    Top5Accuracy,
    /// Area under the ROC curve, of one score a sample or of two classes.
    AreaUnderCurve,
    /// Mean distance from `y`.
    MeanAbsoluteError,
    /// Mean of the classes' F1 scores.
    MacroF1,
}

impl From<Metric> for AccuracyMetric {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Top1Accuracy => Self::Top1Accuracy,
            Metric::Top5Accuracy => Self::Top5Accuracy,
            Metric::AreaUnderCurve => Self::AreaUnderCurve,
            Metric::MeanAbsoluteError => Self::MeanAbsoluteError,
            Metric::MacroF1 => Self::MacroF1,
        }
    }
}

impl Arguments {
    /// Does what was asked, and says how it ended.
    pub fn execute(self) -> ExitCode {
        let ended = match self.command {
            Command::Run(arguments) => stop_flag().and_then(|stopped| run::execute(&arguments, stopped)),
            // The job tells its own end to the pod.
            Command::Job { spec } => match stop_flag() {
                Ok(stopped) => return job::execute(&spec, stopped).into(),
                Err(failure) => Err(failure),
            },
            Command::Inspect(arguments) => inspect::execute(&arguments),
            Command::Analyse(arguments) => analyse::execute(&arguments),
            Command::EarlyStopping(arguments) => analyse::execute_early_stopping(&arguments),
            Command::Meters(arguments) => check::execute_list(&arguments),
            Command::MeterTest(arguments) => check::execute_test(&arguments),
            Command::Agent(arguments) => agent::execute(&arguments),
            Command::Parity(arguments) => match parity::execute(&arguments) {
                Ok(true) => Ok(()),
                Ok(false) => return edgeyard_job::ExitCode::ConstraintNotMet.into(),
                Err(failure) => Err(failure),
            },
            Command::Classes { output } => classes(output),
            Command::Completion { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "edgeyard-device-runner", &mut std::io::stdout());
                Ok(())
            }
            Command::Overhead(arguments) => overhead::execute(&arguments),
            Command::Lane => {
                lane::run_child().map_err(|error| Failure::infrastructure("LaneProtocol", error.to_string()))
            }
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("error: {failure} ({})", failure.reason);
                failure.exit_code().into()
            }
        }
    }
}

/// A flag that SIGTERM and SIGINT raise.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// Prints to stdout; whoever closes the pipe early has seen enough.
pub fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn classes(output: Output) -> Result<(), Failure> {
    let classes = catalogue::all();
    match output {
        Output::Json => {
            let list: Vec<serde_json::Value> = classes
                .iter()
                .map(|class| {
                    serde_json::json!({
                        "name": class.name,
                        "fidelity": class.fidelity,
                        "targets": class.targets,
                        "backend": class.backend,
                        "limits": class.limits,
                    })
                })
                .collect();
            print(&serde_json::to_string_pretty(&list).unwrap_or_default());
        }
        Output::Table => {
            let mut rows = vec![["NAME", "FIDELITY", "TARGETS", "BACKEND"].map(str::to_owned).to_vec()];
            for class in classes {
                let backend = match class.backend {
                    Backend::Runtime { execution_provider: ExecutionProvider::Cpu } => "Runtime".to_owned(),
                    Backend::Runtime { execution_provider } => format!("Runtime {execution_provider:?}"),
                    Backend::CortexM { machine, serial_port: Some(port), .. } => format!("CortexM {machine} at {port}"),
                    Backend::CortexM { machine, .. } => format!("CortexM {machine}"),
                };
                rows.push(vec![class.name, format!("{:?}", class.fidelity), class.targets.join(","), backend]);
            }
            print(&table::align(&rows));
        }
    }
    Ok(())
}
