//! The backend on real QEMU with real firmware. Needs what `cargo xtask setup` and `cargo xtask firmware` install.

use super::emulator::Emulator;
use super::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub(super) const M4: &str = "mps2-an386";

pub(super) fn machine(name: &str) -> Machine {
    Machine::from_environment(name, 6).unwrap()
}

/// Every machine whose firmware was built.
pub(super) fn machines() -> Vec<Machine> {
    let all = ["mps2-an385", "mps2-an386", "mps2-an500", "mps3-an547"].map(machine);
    let built: Vec<Machine> = all.into_iter().filter(|m| m.firmware.is_file()).collect();
    assert!(built.iter().any(|m| m.name == M4), "no firmware for {M4}: run `cargo xtask firmware`");
    built
}

pub(super) struct Case {
    pub(super) name: String,
    pub(super) model: Vec<u8>,
    pub(super) inputs: Vec<i8>,
    pub(super) outputs: Vec<u8>,
}

/// Models of the oracle's generator, in a folder of their own per test.
pub(super) fn generate(folder: &Path, arguments: &[&str]) -> Vec<Case> {
    let python = std::env::var_os("EDGEYARD_PYTHON").expect("EDGEYARD_PYTHON is not set: run `cargo xtask setup`");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-lab/firmware/oracle/generate.py");
    let ran = Command::new(python).arg(script).args(arguments).arg(folder).output().unwrap();
    assert!(ran.status.success(), "generator: {}", String::from_utf8_lossy(&ran.stderr));
    let mut models: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    models.retain(|p| p.extension().is_some_and(|e| e == "tflite"));
    models.sort();
    let read = |p: &Path, extension: &str| std::fs::read(p.with_extension(extension)).unwrap_or_default();
    let case = |p: &PathBuf| Case {
        name: p.file_stem().unwrap().to_string_lossy().into_owned(),
        model: read(p, "tflite"),
        inputs: read(p, "in").iter().map(|b| *b as i8).collect(),
        outputs: read(p, "out"),
    };
    models.iter().map(case).collect()
}

pub(super) fn run(emulator: &mut Emulator, case: &Case) -> Vec<Inference> {
    let info = emulator.load(&case.model).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    emulator.infer_all(case.inputs.chunks_exact(info.input_bytes())).unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

/// The plugin beside the firmware, or one built now: it needs nothing but std.
fn plugin(folder: &Path) -> PathBuf {
    const FILE: &str = "libedgeyard_instruction_mix.so";
    let built = PathBuf::from(std::env::var_os("EDGEYARD_FIRMWARE_DIR").unwrap()).join(FILE);
    if built.is_file() {
        return built;
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hardware-lab/firmware/plugin/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(folder)
        .output()
        .unwrap();
    assert!(ran.status.success(), "plugin: {}", String::from_utf8_lossy(&ran.stderr));
    folder.join("release").join(FILE)
}

/// Two counters that know nothing of each other: the machine's timer and QEMU's plugin interface.
#[test]
fn the_plugin_confirms_every_count_to_the_digit() {
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(folder.path(), &["--seed", "17", "--count", "22", "--trials", "1"]);
    let plugin = plugin(folder.path());
    for machine in machines() {
        let mut emulator = Emulator::start_counting(&machine, &plugin).unwrap();
        let mut all: Vec<Inference> = cases.iter().flat_map(|c| run(&mut emulator, c)).collect();
        let mix = emulator.finish().unwrap().unwrap();
        mix.confirm(&all).unwrap_or_else(|e| panic!("{}: {e}", machine.name));
        assert_eq!(mix.kinds.values().sum::<u64>(), mix.instructions);
        assert!(mix.kinds["load"] > 0 && mix.kinds["multiply"] > 0);
        all[0].per_op[0] += 1;
        assert!(matches!(mix.confirm(&all), Err(CortexMError::CountsDisagree { .. })));
    }
}

/// The number of emulators at once is past the processors of any small machine: each gets a share only.
#[test]
fn counts_repeat_to_the_digit_whatever_else_the_host_does() {
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(folder.path(), &["--seed", "12", "--count", "44"]);
    let counts = |cases: &[Case]| -> Vec<Vec<Inference>> {
        let mut emulator = Emulator::start(&machine(M4)).unwrap();
        cases.iter().map(|c| run(&mut emulator, c)).collect()
    };
    let alone = counts(&cases);
    let crowded: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| counts(&cases))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(alone.iter().flatten().all(|r| r.instructions > 0));
    assert!(alone.iter().flatten().all(|r| r.per_op.iter().sum::<u64>() == r.instructions));
    for other in crowded {
        assert_eq!(alone, other);
    }
}

#[test]
fn a_thousand_inferences_stream_through_one_emulator() {
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(folder.path(), &["--seed", "13", "--count", "1"]);
    let mut emulator = Emulator::start(&machine(M4)).unwrap();
    let process = emulator.id();
    let first = run(&mut emulator, &cases[0]);
    let size = cases[0].inputs.len() / first.len();
    let inputs: Vec<&[i8]> = cases[0].inputs.chunks_exact(size).cycle().take(1000).collect();
    let results = emulator.infer_all(inputs).unwrap();
    assert_eq!(results.len(), 1000);
    assert!(results.iter().zip(first.iter().cycle()).all(|(a, b)| a == b));
    assert_eq!(emulator.id(), process);
}

#[test]
fn what_has_no_kernel_is_refused_by_name_and_the_device_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(&folder.path().join("refused"), &["--seed", "0", "--refused"]);
    let good = generate(&folder.path().join("good"), &["--seed", "14", "--count", "1"]);
    let mut emulator = Emulator::start(&machine(M4)).unwrap();
    for (case, words) in cases.iter().zip([["FULLY_CONNECTED", "FLOAT32"], ["COS", "no kernel"]]) {
        let e = emulator.load(&case.model).unwrap_err().to_string();
        assert!(words.iter().all(|w| e.contains(w)), "{}: {e}", case.name);
    }
    let e = emulator.infer(&[0; 4]).unwrap_err();
    assert!(matches!(e, CortexMError::NothingLoaded), "{e}");
    for cut in [20, 100, good[0].model.len() / 2] {
        let e = emulator.load(&good[0].model[..cut]).unwrap_err();
        assert!(matches!(&e, CortexMError::Refused(why) if why.contains("not a valid TFLite file")), "{cut}: {e}");
    }
    let e = emulator.load(b"no model").unwrap_err();
    assert!(matches!(e, CortexMError::NotTflite(_)), "{e}");
    run(&mut emulator, &good[0]);
    let e = emulator.infer(&[0; 3]).unwrap_err().to_string();
    assert!(e.contains("3 bytes"), "{e}");
}

#[test]
fn limits_name_both_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(folder.path(), &["--seed", "15", "--count", "1"]);
    let mut emulator = Emulator::start(&machine(M4)).unwrap();
    run(&mut emulator, &cases[0]);
    let used = emulator.memory().unwrap();
    assert_eq!(used.model_bytes, cases[0].model.len() as u64);
    assert_eq!(used.ram_bytes, used.arena_bytes + used.stack_bytes + used.io_bytes);
    assert!(used.flash_bytes > used.model_bytes && used.arena_bytes > 0 && used.stack_bytes > 100);
    let limits = Limits { arena: Some(used.arena_bytes), flash: Some(used.flash_bytes), memory: Some(used.ram_bytes) };
    limits.check(&used).unwrap();
    let e = Limits { arena: Some(100), ..limits }.check(&used).unwrap_err().to_string();
    assert_eq!(e, format!("the model needs {} bytes of arena, and the device has 100", used.arena_bytes));
    let e = Limits { flash: Some(7), ..limits }.check_model(&cases[0].model).unwrap_err().to_string();
    assert_eq!(e, format!("the model needs {} bytes of flash, and the device has 7", used.model_bytes));
}

#[test]
fn a_fault_of_the_core_is_told_with_its_registers() {
    for machine in machines() {
        let mut emulator = Emulator::start(&machine).unwrap();
        let e = emulator.trap().to_string();
        // CFSR bit 16: undefined instruction; HFSR bit 30: escalated.
        assert!(e.contains("outside of any operator") && e.contains("cfsr=0x00010000"), "{}: {e}", machine.name);
        assert!(e.contains("hfsr=0x40000000"), "{}: {e}", machine.name);
    }
}

/// A guest of one instruction that jumps to itself.
#[test]
fn a_guest_that_hangs_is_stopped_by_the_watchdog() {
    let folder = tempfile::tempdir().unwrap();
    let firmware = folder.path().join("hang.bin");
    std::fs::write(&firmware, [0, 0x10, 0, 0x20, 9, 0, 0, 0, 0xfe, 0xe7]).unwrap();
    let e = Emulator::start_with(&Machine { firmware, ..machine(M4) }, Duration::from_millis(300)).err().unwrap();
    assert!(matches!(e, CortexMError::Hang { doing: "start", .. }), "{e}");
}

#[test]
fn qemu_ends_with_the_emulator() {
    let emulator = Emulator::start(&machine(M4)).unwrap();
    let process = PathBuf::from(format!("/proc/{}", emulator.id()));
    assert!(process.exists());
    drop(emulator);
    assert!(!process.exists());
}

#[test]
fn a_qemu_that_is_missing_or_too_old_is_named() {
    let start = |m: Machine| Emulator::start(&m).err().unwrap();
    let e = start(Machine { qemu: "/nonexistent/qemu-system-arm".into(), ..machine(M4) });
    assert!(matches!(e, CortexMError::QemuMissing { .. }), "{e}");
    // What is not QEMU at all counts as too old.
    let e = start(Machine { qemu: "/bin/true".into(), ..machine(M4) });
    assert!(matches!(e, CortexMError::QemuTooOld { .. }), "{e}");
    let e = start(Machine { firmware: "/nonexistent.elf".into(), ..machine(M4) });
    assert!(matches!(e, CortexMError::FirmwareMissing { .. }), "{e}");
    let e = start(Machine { icount_shift: 5, ..machine(M4) });
    assert!(matches!(e, CortexMError::IcountShift { shift: 5 }), "{e}");
}

/// A copy of the firmware whose entry to all operators is another instruction; who only greets and loads does not meet it.
fn firmware_that_runs(folder: &Path, instruction: u16) -> Machine {
    let original = machine(M4);
    let mut elf = std::fs::read(&original.firmware).unwrap();
    let address = symbol(&elf, "_ZN15edgeyard_engine3ops3run17h") & !1;
    let at = file_offset(&elf, address);
    elf[at..at + 2].copy_from_slice(&instruction.to_le_bytes());
    let firmware = folder.join("patched.elf");
    std::fs::write(&firmware, elf).unwrap();
    Machine { firmware, ..original }
}

fn word(elf: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(elf[at..at + 4].try_into().unwrap())
}

fn half(elf: &[u8], at: usize) -> usize {
    u16::from_le_bytes([elf[at], elf[at + 1]]).into()
}

/// Value of the one function whose name begins so; layout of ELF32 as in its specification.
fn symbol(elf: &[u8], prefix: &str) -> u32 {
    const SYMBOL_TABLE: u32 = 2;
    let (sections, size, count) = (word(elf, 32) as usize, half(elf, 46), half(elf, 48));
    let section = |i: usize| sections + i * size;
    let table = (0..count).map(section).find(|s| word(elf, s + 4) == SYMBOL_TABLE).expect("a symbol table");
    let names = word(elf, section(word(elf, table + 24) as usize) + 16) as usize;
    let (from, bytes) = (word(elf, table + 16) as usize, word(elf, table + 20) as usize);
    let named = |s: &usize| elf[names + word(elf, *s) as usize..].starts_with(prefix.as_bytes());
    let found: Vec<usize> = (from..from + bytes).step_by(16).filter(named).collect();
    assert_eq!(found.len(), 1, "functions {prefix}");
    word(elf, found[0] + 4)
}

/// Where in the file the byte of an address is.
fn file_offset(elf: &[u8], address: u32) -> usize {
    let (headers, size, count) = (word(elf, 28) as usize, half(elf, 42), half(elf, 44));
    let within = |h: &usize| (word(elf, h + 8)..word(elf, h + 8) + word(elf, h + 16)).contains(&address);
    let header = (0..count).map(|i| headers + i * size).find(within).expect("a segment with the address");
    (word(elf, header + 4) + address - word(elf, header + 8)) as usize
}

#[test]
fn a_fault_in_an_operator_names_it_and_shows_the_registers() {
    const UNDEFINED: u16 = 0xde00;
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(&folder.path().join("models"), &["--seed", "18", "--count", "1"]);
    let mut emulator = Emulator::start(&firmware_that_runs(folder.path(), UNDEFINED)).unwrap();
    let input = emulator.load(&cases[0].model).unwrap().input_bytes();
    let e = emulator.infer(&cases[0].inputs[..input]).unwrap_err().to_string();
    assert!(e.contains("the core faulted in operator 0 (CONV_2D)"), "{e}");
    assert!(e.contains("cfsr=0x00010000") && e.contains(" pc=0x") && e.contains(" r0=0x"), "{e}");
}

#[test]
fn an_operator_that_hangs_is_stopped_by_the_watchdog() {
    const BRANCH_TO_ITSELF: u16 = 0xe7fe;
    let folder = tempfile::tempdir().unwrap();
    let cases = generate(&folder.path().join("models"), &["--seed", "19", "--count", "1"]);
    let mut emulator = Emulator::start(&firmware_that_runs(folder.path(), BRANCH_TO_ITSELF)).unwrap();
    let input = emulator.load(&cases[0].model).unwrap().input_bytes();
    let process = PathBuf::from(format!("/proc/{}", emulator.id()));
    emulator.set_watchdog(Duration::from_millis(300));
    let e = emulator.infer(&cases[0].inputs[..input]).unwrap_err();
    assert!(matches!(e, CortexMError::Hang { doing: "run an inference", .. }), "{e}");
    assert!(!process.exists());
}
