//! What estimates are fitted to: our firmware's instructions for networks of MLPerf Tiny's shapes.

mod support;

use std::path::Path;
use std::process::Command;

use edgeyard_device_runner::cortex_m::{Emulator, Machine, confirmed_mix};
use edgeyard_device_runner::estimate::{self, Fit, REFERENCES};
use edgeyard_record::InstructionMix;
use support::{folder, need};

/// Kernels may change so much before the fit has to be made anew: far less than its error.
const TOLERANCE: f64 = 0.02;
/// Writes what was counted, in place of comparing it.
const UPDATE: &str = "EDGEYARD_UPDATE_ESTIMATE";

fn sum(mix: &InstructionMix) -> u64 {
    let InstructionMix { load, store, multiply, branch, vector, float, other } = *mix;
    load + store + multiply + branch + vector + float + other
}

fn counted(machine: &str, model: &[u8]) -> InstructionMix {
    let machine = Machine::from_environment(machine, 6).unwrap();
    let plugin = machine.plugin().expect("the plugin is beside the firmware: run `cargo xtask firmware`");
    let mut emulator = Emulator::start(&machine).unwrap();
    let length = emulator.load(model).unwrap().input_bytes();
    let input: Vec<i8> = (0..length).map(|n| (n * 37 % 256) as u8 as i8).collect();
    let inference = emulator.infer(&input).unwrap();
    let mix = confirmed_mix(&machine, &plugin, model, &input, &inference).unwrap();
    assert!(sum(&mix) >= inference.instructions);
    mix
}

/// Multiplications of the published models, which are those of ours: the shapes are right.
#[test]
fn the_networks_have_mlperf_tinys_shapes_and_the_fit_is_of_this_firmware() {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let dir = folder();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-lab/firmware/oracle/tiny.py");
    let ran = Command::new(need("EDGEYARD_PYTHON")).arg("-B").arg(script).arg(dir.path()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let model = |network: &str| std::fs::read(dir.path().join(format!("{network}.tflite"))).unwrap();
    for (network, millions) in [("ad", 0.264), ("ic", 12.5), ("kws", 2.66), ("vww", 7.49)] {
        let macs = estimate::macs(&edgeyard_tflite::read(&model(network)).unwrap()) as f64 / 1e6;
        assert!((macs / millions - 1.0).abs() < 0.02, "{network}: {macs} M multiplications");
    }

    let mut measured = REFERENCES.clone();
    for reference in &mut measured {
        for published in &mut reference.published {
            published.mix = counted(&reference.machine, &model(&published.network));
        }
    }
    if std::env::var_os(UPDATE).is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/estimate/mlperf-tiny.json");
        std::fs::write(file, serde_json::to_string_pretty(&measured).unwrap() + "\n").unwrap();
        return;
    }
    for (reference, new) in REFERENCES.iter().zip(&measured) {
        for (known, new) in reference.published.iter().zip(&new.published) {
            let moved = sum(&new.mix) as f64 / sum(&known.mix) as f64 - 1.0;
            assert!(
                moved.abs() <= TOLERANCE,
                "{} on {} takes {:+.1} % instructions since the fit: run this test with {UPDATE}=1, and bring the README's \
                 table of estimates up to date",
                known.network,
                reference.machine,
                moved * 100.0
            );
        }
    }
}

/// The numbers that the documentation publishes.
#[test]
fn the_published_error_is_the_fits() {
    let readme = include_str!("../../hardware-lab/firmware/README.md");
    for reference in REFERENCES.iter() {
        let Fit { factor, leave_one_out_error } = estimate::fit(reference.core).unwrap();
        let row = format!(
            "| {} | {} MHz ({}) | {factor:.2} | {:.0} % |",
            estimate::name(reference.core),
            reference.clock_hertz / 1_000_000,
            reference.board,
            leave_one_out_error * 100.0
        );
        assert!(readme.contains(&row), "hardware-lab/firmware/README.md does not have the row\n{row}");
    }
}
