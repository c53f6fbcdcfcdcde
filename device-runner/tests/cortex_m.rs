//! `run` on an emulated microcontroller.

mod support;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use edgeyard_record::{InstructionMix, Record, VariantResult};
use support::{command, data_set, fail, file, folder, lying_qemu, models, need, record, succeed, text};

/// Measures the dense model on a class, with other variables than the test's own.
fn measured(folder: &Path, class: &str, out: &str, environment: &[(&str, &str)]) -> Record {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let model = file(folder, "dense.tflite", &models::dense_tflite_int8());
    let out = folder.join(out);
    let arguments = ["run", "--model", text(&model), "--device-class", class, "--out", text(&out)];
    let ran = command(&arguments).envs(environment.iter().copied()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    record(&out)
}

fn only(record: &Record) -> &VariantResult {
    assert_eq!(record.results.len(), 1);
    &record.results[0]
}

fn sum(mix: &InstructionMix) -> u64 {
    let InstructionMix { load, store, multiply, branch, vector, float, other } = *mix;
    load + store + multiply + branch + vector + float + other
}

/// A class that the catalogue does not have: a board as data.
fn class(folder: &Path, name: &str, more: &str, cortex_m: &str) -> PathBuf {
    let manifest = format!(
        "{{apiVersion: edgeyard.dev/v1alpha1, kind: EdgeDeviceClass, metadata: {{name: {name}}}, spec: {{fidelity: Emulated, \
         isolation: Unit, targets: [tflm], runner: {{}}, {more} backend: {{type: CortexM, cortexM: {cortex_m}}}}}}}"
    );
    file(folder, &format!("{name}.yaml"), manifest.as_bytes())
}

#[test]
fn the_record_has_the_mix_that_the_plugin_confirmed_on_every_core() {
    let dir = folder();
    for name in ["qemu-cortex-m3", "qemu-cortex-m4", "qemu-cortex-m7", "qemu-cortex-m55"] {
        let record = measured(dir.path(), name, name, &[]);
        let result = only(&record);
        assert_eq!(result.validity.state, "Valid", "{name}: {:?}", result.validity);
        let instructions = result.instructions_per_inference.unwrap();
        let operators = result.operators.as_ref().unwrap();
        assert_eq!(operators.iter().map(|operator| operator.instructions).sum::<u64>(), instructions);
        assert!(sum(result.instruction_mix.as_ref().unwrap()) > instructions, "{name}");
        let memory = result.microcontroller.as_ref().unwrap();
        assert_eq!(memory.flash_limit_bytes, Some(4 << 20), "{name}");
        assert_eq!(memory.arena_limit_bytes, Some(256 << 10), "{name}");
        assert_eq!(memory.ram_bytes, memory.arena_bytes + memory.stack_bytes + memory.io_bytes.unwrap());
        assert!(memory.flash_bytes <= memory.flash_limit_bytes.unwrap());
        for (field, reason) in [
            ("latencyEstimate", "ClockUnknown"),
            ("energyEstimate", "ClockUnknown"),
            ("cyclesPerInference", "InstructionsCounted"),
            ("latency", "EmulatedClock"),
            ("accuracy", "NotRequested"),
        ] {
            assert_eq!(result.unavailable.get(field).map(String::as_str), Some(reason), "{name}: {field}");
        }
        let shown = succeed(&["inspect", text(&dir.path().join(name).join("record.json"))]);
        for word in ["mix", "FULLY_CONNECTED", "of 4,194,304", "no latencyEstimate: ClockUnknown"] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
    }
}

#[test]
fn counts_that_disagree_are_kept_and_invalid() {
    let dir = folder();
    let liar = lying_qemu(dir.path());
    let record = measured(dir.path(), "qemu-cortex-m4", "out", &[("EDGEYARD_QEMU_ARM", text(&liar))]);
    let result = only(&record);
    assert_eq!(
        (result.validity.state.as_str(), result.validity.reasons.as_slice()),
        ("Invalid", &["CountsDisagree".into()][..])
    );
    assert_eq!((record.validity.state.as_str(), result.outcome.as_str()), ("Invalid", "Succeeded"));
    let instructions = result.instructions_per_inference.unwrap();
    assert!(
        result.validity.recommendations[0].contains(&format!("counted {instructions} instructions")),
        "{:?}",
        result.validity
    );
    assert_eq!(result.unavailable["instructionMix"], "CountsDisagree");
    assert_eq!(result.unavailable["latencyEstimate"], "NoInstructionMix");
}

#[test]
fn counts_that_nothing_confirms_are_inconclusive() {
    let dir = folder();
    let firmware = dir.path().join("firmware");
    std::fs::create_dir(&firmware).unwrap();
    std::fs::copy(need("EDGEYARD_FIRMWARE_DIR").join("mps2-an386.elf"), firmware.join("mps2-an386.elf")).unwrap();
    let record = measured(dir.path(), "qemu-cortex-m4", "out", &[("EDGEYARD_FIRMWARE_DIR", text(&firmware))]);
    let result = only(&record);
    assert_eq!(
        (result.validity.state.as_str(), result.validity.reasons.as_slice()),
        ("Inconclusive", &["CountsUnconfirmed".into()][..])
    );
    assert!(result.instructions_per_inference.is_some());
    assert_eq!(result.unavailable["instructionMix"], "PluginMissing");
}

#[test]
fn boards_of_the_catalogue_have_their_data_sheets_figures() {
    let dir = folder();
    let found = |name: &str| measured(dir.path(), name, name, &[]);
    let nano = found("qemu-nrf52840");
    let nano = only(&nano);
    let latency = nano.latency_estimate.as_ref().unwrap();
    assert_eq!((latency.core.as_str(), latency.clock_hertz), ("Cortex-M4", 64_000_000));
    assert_eq!((latency.model.as_str(), latency.source.as_str()), ("cpi-mlperf-tiny-v1", "estimated"));
    assert!(latency.lower_nanoseconds < latency.nanoseconds && latency.nanoseconds < latency.upper_nanoseconds);
    assert!(nano.latency.is_none() && nano.energy.is_none(), "an estimate is no measurement");
    let energy = nano.energy_estimate.as_ref().unwrap();
    assert_eq!(energy.nanojoules, 9984 * latency.nanoseconds / 1_000_000);
    let memory = nano.microcontroller.as_ref().unwrap();
    assert_eq!((memory.flash_limit_bytes, memory.ram_limit_bytes), (Some(1 << 20), Some(256 << 10)));
    assert_eq!(nano.unavailable["microcontroller.arenaLimitBytes"], "NoLimit");
    assert_eq!(nano.validity.state, "Valid");

    let h743 = found("qemu-stm32h743");
    assert_eq!(only(&h743).latency_estimate.as_ref().unwrap().core, "Cortex-M7");
    assert_eq!(only(&h743).unavailable["energyEstimate"], "NoDataSheet");

    let pico = found("qemu-rp2040");
    let pico = only(&pico);
    assert_eq!(
        (pico.validity.state.as_str(), pico.validity.reasons.as_slice()),
        ("Inconclusive", &["OtherCore".into()][..])
    );
    assert_eq!(pico.unavailable["latencyEstimate"], "NoReference");
    assert_eq!(pico.microcontroller.as_ref().unwrap().ram_limit_bytes, Some(264 << 10));
}

/// No code knows this board.
#[test]
fn a_board_is_added_from_data_alone() {
    let dir = folder();
    let cortex_m = |hertz: u64| {
        format!(
            "{{machine: mps2-an386, microcontroller: {{core: CortexM4, clockHertz: {hertz}, activeMicrowatts: 1000}}}}"
        )
    };
    let limits = "limits: {flash: 2Mi, memory: 640Ki},";
    let fast = class(dir.path(), "nucleo-l4r5zi", limits, &cortex_m(120_000_000));
    let slow = class(dir.path(), "slow-l4r5zi", limits, &cortex_m(30_000_000));
    let fast = measured(dir.path(), text(&fast), "fast", &[]);
    let slow = measured(dir.path(), text(&slow), "slow", &[]);
    assert_eq!(fast.device.class, "nucleo-l4r5zi");
    let (fast, slow) = (only(&fast), only(&slow));
    assert_eq!(fast.instructions_per_inference, slow.instructions_per_inference);
    assert_eq!(fast.instruction_mix, slow.instruction_mix);
    assert_eq!(fast.output_digest, slow.output_digest);
    let time = |result: &VariantResult| result.latency_estimate.as_ref().unwrap().nanoseconds;
    assert!(time(slow).abs_diff(4 * time(fast)) <= 4, "{} and {}", time(slow), time(fast));
    assert_eq!(fast.microcontroller.as_ref().unwrap().ram_limit_bytes, Some(640 << 10));
    let tight = class(dir.path(), "tight", "limits: {flash: 2Mi, memory: 64},", &cortex_m(1_000_000));
    let model = dir.path().join("dense.tflite");
    let out = dir.path().join("tight");
    let arguments = ["run", "--model", text(&model), "--device-class", text(&tight), "--out", text(&out)];
    fail(&arguments, 2, "ModelTooLarge", "bytes of memory at run time, the device has 64");
}

/// QEMU whose serial port is a device file, as a real board's is.
struct Board(Child);

impl Drop for Board {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_device_at_a_serial_port_is_measured_like_any_other() {
    let dir = folder();
    let emulated = measured(dir.path(), "qemu-cortex-m4", "emulated", &[]);
    let mut qemu = Command::new(need("EDGEYARD_QEMU_ARM"))
        .args(["-M", "mps2-an386", "-nodefaults", "-display", "none", "-monitor", "none", "-serial", "pty"])
        .args(["-semihosting-config", "enable=on,target=native,arg=edgeyard,arg=uart"])
        .args(["-icount", "shift=6,sleep=off", "-kernel"])
        .arg(need("EDGEYARD_FIRMWARE_DIR").join("mps2-an386.elf"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(qemu.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let _board = Board(qemu);
    let port = said.split_whitespace().find(|word| word.starts_with("/dev/")).unwrap();
    let at = |port: &str| class(dir.path(), "board", "", &format!("{{machine: mps2-an386, serialPort: {port}}}"));
    // Neither QEMU nor firmware are needed for a board.
    let nothing = [("EDGEYARD_QEMU_ARM", "/nonexistent"), ("EDGEYARD_FIRMWARE_DIR", "/nonexistent")];
    let board = measured(dir.path(), text(&at(port)), "board", &nothing);
    let (board, emulated) = (only(&board), only(&emulated));
    assert_eq!(board.output_digest, emulated.output_digest);
    assert_eq!(board.instruction_counts, emulated.instruction_counts);
    assert_eq!(board.operators, emulated.operators);
    assert_eq!(board.settings["serialPort"], port);
    assert_eq!(board.unavailable["latency"], "CountedOnDevice");
    assert_eq!(board.unavailable["instructionMix"], "NoSecondCounter");
    assert_eq!(board.unavailable["latencyEstimate"], "RealBoard");

    let model = dir.path().join("dense.tflite");
    let (gone, out) = (at("/dev/no-such-port"), dir.path().join("gone"));
    let arguments = ["run", "--model", text(&model), "--device-class", text(&gone), "--out", text(&out)];
    fail(&arguments, 4, "DeviceUnreachable", "/dev/no-such-port");
}

#[test]
fn instructions_repeat_to_the_digit_and_accuracy_is_scored() {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let dir = folder();
    let model = file(dir.path(), "dense.tflite", &models::dense_tflite_int8());
    let x: Vec<f32> = (0..600).map(|n| if n / 3 % 3 == n % 3 { 1.0 } else { 0.1 }).collect();
    let y: Vec<i64> = (0..200).map(|n| n % 3).collect();
    let evaluation = data_set(dir.path(), "e.npz", &[200, 3], &x, Some(&y));
    let measured = |out: &str| {
        let out = dir.path().join(out);
        succeed(&[
            "run",
            "--model",
            text(&model),
            "--device-class",
            "qemu-cortex-m4",
            "--evaluation",
            text(&evaluation),
            "--out",
            text(&out),
        ]);
        record(&out)
    };
    let (first, second) = (measured("a"), measured("b"));
    let result = &first.results[0];
    assert!(result.instructions_per_inference.unwrap() > 9);
    assert_eq!(result.instructions_per_inference, second.results[0].instructions_per_inference);
    let operators = result.operators.as_ref().unwrap();
    assert_eq!(operators.iter().map(|operator| operator.name.as_str()).collect::<Vec<_>>(), ["FULLY_CONNECTED"]);
    assert_eq!(result.accuracy.as_ref().unwrap().correct, Some(200));
    assert!(result.latency.is_none());
    let memory = result.microcontroller.as_ref().unwrap();
    assert!(memory.flash_bytes > result.size_bytes && memory.ram_bytes >= memory.arena_bytes + memory.stack_bytes);
    assert_eq!(result.output_digest, second.results[0].output_digest);
}

#[test]
fn a_model_without_room_is_refused_with_both_numbers() {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let dir = folder();
    let bytes = models::dense_tflite_int8();
    let model = file(dir.path(), "dense.tflite", &bytes);
    let out = dir.path().join("out");
    let refused = |limits: &str, hint: &str| {
        let class = format!(
            "{{metadata: {{name: tight}}, spec: {{fidelity: Emulated, targets: [tflm], limits: {limits}, backend: {{type: \
             CortexM, cortexM: {{machine: mps2-an386, icountShift: 6}}}}}}}}"
        );
        let class = file(dir.path(), "class.yaml", class.as_bytes());
        let arguments = ["run", "--model", text(&model), "--device-class", text(&class), "--out", text(&out)];
        fail(&arguments, 2, "ModelTooLarge", hint);
    };
    refused("{flash: 100}", &format!("the model has {} bytes, the device's flash 100", bytes.len()));
    refused("{arena: 3}", "memory for tensors, the device has 3");
    refused("{memory: 5}", "memory at run time, the device has 5");
    // Without limits the machine's own memory is one, which the firmware tells.
    let large = file(dir.path(), "large.tflite", &models::relu_tflite_int8(3 << 20));
    let unlimited = class(dir.path(), "unlimited", "", "{machine: mps2-an386}");
    let arguments = ["run", "--model", text(&large), "--device-class", text(&unlimited), "--out", text(&out)];
    // Two tensors of 3 MiB and the tables, for the machine's 4 MiB less stack and statics; a unit test looks at the numbers.
    fail(&arguments, 2, "ModelTooLarge", "bytes and has 4");
}

#[test]
fn a_float_model_is_refused_by_the_firmware() {
    need("EDGEYARD_QEMU_ARM");
    need("EDGEYARD_FIRMWARE_DIR");
    let dir = folder();
    let model = file(dir.path(), "float.tflite", &models::dense_tflite());
    let out = dir.path().join("out");
    let arguments = ["run", "--model", text(&model), "--device-class", "qemu-cortex-m4", "--out", text(&out)];
    fail(&arguments, 2, "ModelRefused", "FULLY_CONNECTED");
}
